//! Going on without the backend: a memory store behind a switch that takes it away, under each policy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::layer::degrade::{Bounds, CALM, Degradation, MakeStandIn, Options, Policies};
use acteon_state_core::layer::metrics::StoreMetrics;
use acteon_state_core::layer::{Around, Layered, Layers};
use acteon_state_core::operation::{Call, Reply};
use acteon_state_core::{
    BatchOp, BatchReply, Condition, DeleteOutcome, Effect, Error, ErrorKind, FencingToken, Gate, GateReply, Get,
    Increment, LockOutcome, LockRequest, Put, PutOutcome, RateAlgorithm, RateLimit, Result, Scan, StateKey, StateStore,
    TransactOp, Ttl,
};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use futures_util::future::BoxFuture;

/// What the backend does with calls.
#[derive(Clone, Debug, Default)]
struct Switch(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    /// Refuses them.
    is_down: AtomicBool,
    /// Carries them out and loses the answers.
    is_mute: AtomicBool,
}

impl Switch {
    fn down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::SeqCst);
    }

    fn mute(&self, is_mute: bool) {
        self.0.is_mute.store(is_mute, Ordering::SeqCst);
    }
}

impl Around for Switch {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        let unavailable = || Error::new(ErrorKind::Unavailable, "switched off by the test");
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        let answer = attempt().await;
        if self.0.is_mute.load(Ordering::SeqCst) {
            let effect = if call.operation.is_read() { Effect::NotApplied } else { Effect::Unknown };
            return Err(unavailable().with_effect(effect));
        }
        answer
    }
}

struct Rig {
    switch: Switch,
    store: Arc<dyn StateStore>,
    /// The store behind the switch.
    backend: MemoryStore,
    metrics: prometheus_client::registry::Registry,
    stand_ins_made: Arc<AtomicUsize>,
}

/// A store with a kind for each policy, named after it.
fn rig(config: MemoryConfig) -> Rig {
    let (switch, backend) = (Switch::default(), MemoryStore::default());
    let stand_ins_made = Arc::new(AtomicUsize::new(0));
    let made = stand_ins_made.clone();
    let kinds = Degradation::WORDS.map(|word| (word, Degradation::from_word(word).unwrap()));
    let options = Options {
        policies: Policies::new(Degradation::Closed, kinds),
        last_seen: Bounds::default(),
        stand_in: Some(MakeStandIn::new(move || {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::new(MemoryStore::open(&config)?))
        })),
    };
    let mut metrics = prometheus_client::registry::Registry::default();
    let store_metrics = Some(StoreMetrics::register(&mut metrics));
    let layers = Layers { degrade: Some(options), metrics: store_metrics, ..Layers::default() };
    let store = layers.wrap(Layered::wrap(Arc::new(backend.clone()), switch.clone()));
    Rig { switch, store, backend, metrics, stand_ins_made }
}

fn plain() -> Rig {
    rig(MemoryConfig::default())
}

impl Rig {
    /// The backend answers again, and calls were quiet for long enough.
    async fn recover(&self) {
        self.switch.down(false);
        self.switch.mute(false);
        tokio::time::advance(CALM).await;
        self.store.ping().await.unwrap();
    }

    fn counted(&self, kind: &str, policy: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let name = format!("acteon_state_degraded_total{{backend=\"memory\",kind=\"{kind}\",policy=\"{policy}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    }
}

fn key(kind: &str, id: &str) -> StateKey {
    StateKey::new("shop", "acme", kind, id).unwrap()
}

async fn value(store: &dyn StateStore, key: &StateKey) -> Result<Option<String>> {
    let entry = store.get(key, Get::default()).await?;
    Ok(entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()))
}

async fn write(store: &dyn StateStore, key: &StateKey, value: &'static str) {
    assert!(store.put(key, &Put::new(value)).await.unwrap().is_applied());
}

fn is_unavailable<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn closed_and_open_kinds_fail_as_the_backend_failed_and_are_counted_apart() {
    let rig = plain();
    rig.switch.down(true);
    for kind in ["closed", "open", "named-nowhere"] {
        is_unavailable(rig.store.get(&key(kind, "a"), Get::default()).await);
        is_unavailable(rig.store.put(&key(kind, "a"), &Put::new("x")).await);
    }
    assert_eq!([rig.counted("closed", "closed"), rig.counted("open", "open")], [2, 2]);
    assert_eq!(rig.counted("default", "closed"), 2, "kinds that are not named share a label");
}

#[tokio::test(start_paused = true)]
async fn stale_reads_get_what_was_seen_last_and_stale_writes_fail() {
    let rig = plain();
    let [read, written, gone, other] = ["read", "written", "gone", "other"].map(|id| key("stale", id));
    write(&rig.backend, &read, "1").await;
    write(&rig.backend, &other, "never seen here").await;
    assert_eq!(value(&*rig.store, &read).await.unwrap().as_deref(), Some("1"));
    write(&*rig.store, &written, "2").await;
    write(&*rig.store, &gone, "3").await;
    assert!(rig.store.delete(&gone, Condition::Always).await.unwrap().is_deleted());

    rig.switch.down(true);
    assert_eq!(value(&*rig.store, &read).await.unwrap().as_deref(), Some("1"));
    assert_eq!(value(&*rig.store, &written).await.unwrap().as_deref(), Some("2"));
    assert_eq!(rig.counted("stale", "stale"), 2);
    is_unavailable(rig.store.get(&gone, Get::default()).await);
    is_unavailable(rig.store.get(&other, Get::default()).await);
    is_unavailable(rig.store.put(&read, &Put::new("new")).await);
    is_unavailable(rig.store.increment(&key("stale", "n"), Increment::by(1)).await);
    assert_eq!(rig.counted("stale", "closed"), 4);
    tokio::time::advance(Bounds::default().age_max).await;
    is_unavailable(rig.store.get(&read, Get::default()).await);

    write(&rig.backend, &read, "fresh").await;
    rig.recover().await;
    assert_eq!(value(&*rig.store, &read).await.unwrap().as_deref(), Some("fresh"));
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_said_late_does_not_undo_what_was_seen() {
    let rig = plain();
    let gone = key("stale", "gone");
    write(&*rig.store, &gone, "a session").await;
    assert!(rig.store.delete(&gone, Condition::Always).await.unwrap().is_deleted());
    // As a replica would answer that has not heard of the deletion.
    write(&rig.backend, &gone, "a session").await;
    assert!(rig.store.get(&gone, Get::stale_ok()).await.unwrap().is_some());
    rig.switch.down(true);
    is_unavailable(rig.store.get(&gone, Get::default()).await);
}

#[tokio::test(start_paused = true)]
async fn the_current_value_of_a_refused_write_is_seen_too() {
    let rig = plain();
    let taken = key("stale", "taken");
    write(&rig.backend, &taken, "by somebody else").await;
    assert!(!rig.store.put(&taken, &Put::new("mine").if_absent()).await.unwrap().is_applied());
    rig.switch.down(true);
    assert_eq!(value(&*rig.store, &taken).await.unwrap().as_deref(), Some("by somebody else"));
}

#[tokio::test(start_paused = true)]
async fn what_a_write_of_unknown_effect_may_have_changed_is_not_served_stale() {
    let rig = plain();
    let [logged_out, claimed] = ["logged-out", "claimed"].map(|id| key("stale", id));
    write(&*rig.store, &logged_out, "a session").await;
    write(&*rig.store, &claimed, "the outcome").await;
    rig.switch.mute(true);
    is_unavailable(rig.store.delete(&logged_out, Condition::Always).await);
    is_unavailable(rig.store.put(&claimed, &Put::new("x").if_absent()).await);
    is_unavailable(rig.store.get(&logged_out, Get::default()).await);
    assert_eq!(value(&*rig.store, &claimed).await.unwrap().as_deref(), Some("the outcome"), "it cannot have changed");
}

#[tokio::test(start_paused = true)]
async fn a_local_store_stands_in_and_is_dropped_when_the_backend_is_back() {
    let rig = plain();
    let (claim, count, limit) = (key("local", "claim"), key("local", "count"), key("local", "limit"));
    rig.switch.down(true);
    let put = Put::new("mine").if_absent();
    assert_eq!(rig.store.put(&claim, &put).await.unwrap(), PutOutcome::Applied(put.version));
    assert!(!rig.store.put(&claim, &Put::new("late").if_absent()).await.unwrap().is_applied());
    assert!(rig.store.touch(&claim, Ttl::After(Duration::from_secs(60))).await.unwrap());
    let next = Put::new("done").if_version(put.version);
    assert!(rig.store.put(&claim, &next).await.unwrap().is_applied(), "a version of the stand-in");
    assert_eq!(value(&*rig.store, &claim).await.unwrap().as_deref(), Some("done"));
    for expected in 1..=3 {
        assert_eq!(rig.store.increment(&count, Increment::by(1)).await.unwrap().counter().value, expected);
    }
    let request = RateLimit::new(RateAlgorithm::FixedWindow, 2, Duration::from_secs(60));
    let mut allowed = Vec::new();
    for _ in 0..3 {
        allowed.push(rig.store.rate_limit(&limit, &request).await.unwrap().allowed);
    }
    assert_eq!(allowed, [true, true, false], "the limit holds, for this process");
    assert_eq!(rig.counted("local", "local"), 11);
    assert_eq!(rig.stand_ins_made.load(Ordering::SeqCst), 1);

    rig.recover().await;
    assert_eq!(value(&*rig.store, &claim).await.unwrap(), None, "nothing was merged");
    assert_eq!(rig.store.increment(&count, Increment::by(1)).await.unwrap().counter().value, 1);
    rig.switch.down(true);
    assert_eq!(value(&*rig.store, &claim).await.unwrap(), None, "the next outage begins empty");
    assert_eq!(rig.stand_ins_made.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn answers_between_failures_do_not_empty_the_stand_in() {
    let rig = plain();
    let claim = key("local", "claim");
    rig.switch.down(true);
    write(&*rig.store, &claim, "mine").await;
    rig.switch.down(false);
    rig.store.ping().await.unwrap();
    rig.switch.down(true);
    assert_eq!(value(&*rig.store, &claim).await.unwrap().as_deref(), Some("mine"));
}

#[tokio::test(start_paused = true)]
async fn what_aims_at_an_entry_of_the_backend_fails_rather_than_finds_nothing() {
    let rig = plain();
    let at_backend = key("local", "at-backend");
    let put = Put::new("x");
    rig.store.put(&at_backend, &put).await.unwrap();
    rig.switch.down(true);
    is_unavailable(rig.store.put(&at_backend, &Put::new("y").if_version(put.version)).await);
    is_unavailable(rig.store.put(&at_backend, &Put::new("y").when(Condition::Present)).await);
    is_unavailable(rig.store.delete(&at_backend, Condition::Always).await);
    is_unavailable(rig.store.take(&at_backend).await);
    is_unavailable(rig.store.touch(&at_backend, Ttl::Clear).await);
    assert_eq!(rig.counted("local", "closed"), 5);
    write(&*rig.store, &at_backend, "local").await;
    assert_eq!(rig.store.delete(&at_backend, Condition::Always).await.unwrap(), DeleteOutcome::Deleted);
}

#[tokio::test(start_paused = true)]
async fn locks_fences_transactions_listings_and_due_times_fail_closed_under_every_policy() {
    let rig = plain();
    rig.switch.down(true);
    let mut expected = 0;
    for kind in Degradation::WORDS {
        let key = key(kind, "a");
        let token = FencingToken::new(7).unwrap();
        is_unavailable(rig.store.put(&key, &Put::new("x").fenced_by(token)).await);
        is_unavailable(rig.store.delete(&key, Condition::Fence(token)).await);
        is_unavailable(rig.store.transact(&[TransactOp::Put(key.clone(), Put::new("x"))]).await);
        is_unavailable(rig.store.scan(&Scan::new(key.scope())).await);
        is_unavailable(rig.store.cancel(&key, "a").await);
        is_unavailable(rig.store.lock_acquire(&LockRequest::new(key.clone(), Duration::from_secs(9))).await);
        is_unavailable(rig.store.lock_inspect(&key).await);
        expected += 7;
    }
    let counted: u64 = Degradation::WORDS.iter().map(|kind| rig.counted(kind, "closed")).sum();
    assert_eq!(counted + rig.counted("open", "open"), expected);
    assert_eq!(rig.stand_ins_made.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn each_item_of_a_batch_is_treated_by_its_own_kind() {
    let rig = plain();
    let seen = key("stale", "seen");
    write(&*rig.store, &seen, "1").await;
    rig.switch.down(true);
    let closed = BatchOp::Put(key("closed", "a"), Put::new("x"));
    let ops = [
        BatchOp::Get(seen, Get::default()),
        BatchOp::Increment(key("local", "n"), Increment::by(5)),
        BatchOp::Take(key("local", "nothing")),
        closed.clone(),
    ];
    let replies = rig.store.batch(&ops).await.unwrap();
    assert!(matches!(&replies[0], Ok(BatchReply::Got(Some(entry))) if entry.value == "1"), "{replies:?}");
    assert!(matches!(&replies[1], Ok(BatchReply::Incremented(n)) if n.counter().value == 5), "{replies:?}");
    for failed in &replies[2..] {
        assert_eq!(failed.as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    is_unavailable(rig.store.batch(&[closed]).await);
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_that_is_full_fails_as_the_backend_failed() {
    let config = MemoryConfig { memory_bytes_max: Some(1 << 20), ..MemoryConfig::default() };
    let rig = rig(config);
    rig.switch.down(true);
    let mut refused = None;
    for n in 0..40 {
        let put = Put::new(vec![b'x'; 64 << 10]);
        refused = refused.or(rig.store.put(&key("local", &n.to_string()), &put).await.err());
    }
    assert_eq!(refused.unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_refuses_is_not_degraded() {
    let rig = plain();
    let counter = key("local", "n");
    rig.store.increment(&counter, Increment::by(1)).await.unwrap();
    let swap = Put::new("x").if_version(Put::new("").version);
    assert_eq!(rig.store.put(&counter, &swap).await.unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(rig.stand_ins_made.load(Ordering::SeqCst), 0);
}

/// The caller asks the gates after the first by themselves: what they may have been granted must not stay with nobody.
#[tokio::test(start_paused = true)]
async fn the_first_gate_is_served_and_a_lock_behind_it_is_not_left_held() {
    let rig = plain();
    let local = Gate::Put(key("local", "claim"), Put::new("a").if_absent());
    let closed = Gate::Put(key("closed", "claim"), Put::new("a").if_absent());
    let request = LockRequest::new(key("closed", "lock"), Duration::from_secs(60));
    let lock = Gate::Lock(request.clone());
    assert!(matches!(rig.backend.lock_acquire(&request).await.unwrap(), LockOutcome::Granted(_)));

    rig.switch.mute(true);
    let replies = rig.store.admit(&[local.clone(), closed.clone(), lock.clone()]).await.unwrap();
    assert!(matches!(&replies[..], [Ok(GateReply::Put(outcome))] if outcome.is_applied()), "{replies:?}");
    while !rig.backend.lock_inspect(&request.key).await.unwrap().unwrap().holders.is_empty() {
        tokio::task::yield_now().await;
    }
    let replies = rig.store.admit(&[local, lock.clone()]).await.unwrap();
    assert!(matches!(&replies[..], [Ok(GateReply::Put(PutOutcome::Applied(_)))]), "its own write: {replies:?}");

    rig.switch.mute(false);
    rig.switch.down(true);
    is_unavailable(rig.store.admit(&[closed, lock.clone()]).await);
    is_unavailable(rig.store.admit(&[lock]).await);
    assert_eq!((rig.counted("local", "local"), rig.counted("closed", "closed")), (2, 2));
}
