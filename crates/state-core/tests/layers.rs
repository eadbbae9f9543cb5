//! The layers, around a memory store that fails on command. A fault either refuses a call before the store sees it, or lets it
//! through and loses the answer: what a client cannot tell apart after a broken connection.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acteon_state_core::layer::circuit_breaker::Thresholds;
use acteon_state_core::layer::concurrency_limit::Limits;
use acteon_state_core::layer::guard::Guard;
use acteon_state_core::layer::metrics::StoreMetrics;
use acteon_state_core::layer::retry::Policy;
use acteon_state_core::layer::{Around, Layered, Layers, deadline};
use acteon_state_core::operation::{Call, Reply};
use acteon_state_core::{
    BatchOp, Condition, Effect, Error, ErrorKind, ExtendOutcome, Gate, Get, Increment, LockOutcome, LockRequest, Put,
    PutOutcome, RateLimit, ReleaseOutcome, Result, StateKey, StateStore, Version,
};
use acteon_state_memory::MemoryStore;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(60);

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is refused before the store sees it.
    Refused,
    /// It is carried out, and its answer is lost.
    AnswerLost,
    /// It is lost on its way, and nobody knows.
    Lost,
    /// It takes this long.
    Slow(Duration),
    None,
}

/// A layer that plays a script of faults, one per call, and counts the calls.
#[derive(Clone, Debug, Default)]
struct Script(Arc<(Mutex<VecDeque<Fault>>, AtomicUsize)>);

impl Script {
    fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let script = Self::default();
        script.0.0.lock().unwrap().extend(faults);
        script
    }

    fn calls(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Around for Script {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        let fault = self.0.0.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Refused => Err(Error::new(ErrorKind::Unavailable, "refused by the test")),
            Fault::Lost => Err(Error::new(ErrorKind::Unavailable, "lost by the test").with_effect(Effect::Unknown)),
            Fault::AnswerLost => {
                attempt().await?;
                let effect = if call.operation.is_read() { Effect::NotApplied } else { Effect::Unknown };
                Err(Error::new(ErrorKind::Unavailable, "the answer was lost by the test").with_effect(effect))
            }
            Fault::Slow(time) => {
                tokio::time::sleep(time).await;
                attempt().await
            }
            Fault::None => attempt().await,
        }
    }
}

fn store(script: &Script, layers: Layers) -> Arc<dyn StateStore> {
    layers.wrap(Layered::wrap(Arc::new(MemoryStore::default()), script.clone()))
}

fn retrying() -> Layers {
    Layers { retry: Some(Policy::default()), ..Layers::default() }
}

fn key(id: &str) -> StateKey {
    StateKey::new("layers", "acme", "test", id).unwrap()
}

async fn value(store: &Arc<dyn StateStore>, id: &str) -> Option<String> {
    let entry = store.get(&key(id), Get::default()).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_was_not_applied_is_repeated_until_it_is() {
    let script = Script::new([Fault::Refused, Fault::Refused]);
    let store = store(&script, retrying());
    let counted = store.increment(&key("n"), Increment::by(1)).await.unwrap();
    assert_eq!((counted.counter().value, script.calls()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn an_increment_of_unknown_effect_is_never_repeated() {
    let script = Script::new([Fault::Refused, Fault::AnswerLost]);
    let store = store(&script, retrying());
    let error = store.increment(&key("n"), Increment::by(1)).await.unwrap_err();
    assert_eq!((error.effect(), script.calls()), (Effect::Unknown, 2));
    assert_eq!(value(&store, "n").await.as_deref(), Some("1"));
}

/// The memory store has no gates: what reaches it is refused, which ends the repetitions.
#[tokio::test(start_paused = true)]
async fn gates_of_unknown_effect_are_repeated_only_if_each_of_them_may_be() {
    let claim = Gate::Put(key("claim"), Put::new("a").if_absent());
    let swap = Gate::Put(key("swap"), Put::new("b").if_version(Version::draw()));
    let sliding = Gate::RateLimit(key("limit"), RateLimit::sliding_window(1, LEASE));
    let cells = Gate::RateLimit(key("limit"), RateLimit::gcra(1, LEASE, 1));
    let lock = Gate::Lock(LockRequest::new(key("lock"), LEASE));
    for (gates, calls) in [
        (vec![swap.clone(), sliding.clone(), lock.clone()], 2),
        (vec![claim, lock.clone()], 1),
        (vec![swap, cells, lock], 1),
    ] {
        let script = Script::new([Fault::Lost]);
        let error = store(&script, retrying()).admit(&gates).await.unwrap_err();
        assert_eq!((error.effect(), script.calls()), (Effect::Unknown, calls), "{gates:?}");
        let script = Script::new([Fault::Refused]);
        let error = store(&script, retrying()).admit(&gates).await.unwrap_err();
        assert_eq!((error.kind(), script.calls()), (ErrorKind::Unsupported, 2), "not applied: {gates:?}");
    }
}

#[tokio::test]
async fn a_guard_looks_at_every_gate() {
    let guard = Some(Guard::new("layers", Some("acme")).unwrap());
    let script = Script::default();
    let store = store(&script, Layers { guard, ..Layers::default() });
    let outside = LockRequest::new(StateKey::new("layers", "other", "k", "lock").unwrap(), LEASE);
    let error = store.admit(&[Gate::Put(key("claim"), Put::new("a")), Gate::Lock(outside)]).await.unwrap_err();
    assert_eq!((error.kind(), script.calls()), (ErrorKind::Denied, 0));
}

#[tokio::test(start_paused = true)]
async fn attempts_end_and_the_unknown_one_outweighs_a_later_refusal() {
    let script = Script::new([Fault::Refused; 5]);
    let store = store(&script, retrying());
    let error = store.get(&key("n"), Get::default()).await.unwrap_err();
    assert_eq!((error.effect(), error.operation(), script.calls()), (Effect::NotApplied, None, 3));

    let script = Script::new([Fault::None, Fault::AnswerLost, Fault::Refused, Fault::Refused]);
    let store = self::store(&script, retrying());
    let first = Put::new("a");
    store.put(&key("n"), &first).await.unwrap();
    let error = store.put(&key("n"), &Put::new("b").if_version(first.version)).await.unwrap_err();
    assert_eq!((error.effect(), script.calls()), (Effect::Unknown, 4));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_compare_and_swap_recognises_its_own_write() {
    let script = Script::new([Fault::None, Fault::AnswerLost]);
    let store = store(&script, retrying());
    let first = Put::new("a");
    store.put(&key("n"), &first).await.unwrap();
    let swap = Put::new("b").if_version(first.version);
    assert_eq!(store.put(&key("n"), &swap).await.unwrap(), PutOutcome::Applied(swap.version));
    assert_eq!(script.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_compare_and_swap_that_may_have_been_overwritten_is_not_reported_as_refused() {
    let script = Script::new([Fault::None, Fault::AnswerLost]);
    let store = store(&script, retrying());
    let first = Put::new("a");
    store.put(&key("n"), &first).await.unwrap();
    // The answer to the delete is lost; its repetition finds nothing, which may be its own doing.
    let error = store.delete(&key("n"), Condition::Version(first.version)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(value(&store, "n").await, None);
}

/// The release was applied and its answer lost; others took the lock and released it before the repetition came, which then
/// reported that the lock had been lost.
#[tokio::test(start_paused = true)]
async fn a_release_that_was_applied_is_not_reported_as_lost_by_its_repetition() {
    let driver: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
    let script = Script::new([Fault::None, Fault::AnswerLost, Fault::Slow(Duration::from_secs(1))]);
    let store = retrying().wrap(Layered::wrap(driver.clone(), script));
    let (ours, theirs) = (LockRequest::new(key("n"), LEASE), LockRequest::new(key("n"), LEASE));
    store.lock_acquire(&ours).await.unwrap();
    let others = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(matches!(driver.lock_acquire(&theirs).await.unwrap(), LockOutcome::Granted(_)));
        driver.lock_release(&theirs.key, theirs.owner).await.unwrap();
    };
    let (released, ()) = tokio::join!(store.lock_release(&ours.key, ours.owner), others);
    assert_eq!(released.unwrap_err().effect(), Effect::Unknown);
}

#[tokio::test(start_paused = true)]
async fn repetitions_stay_within_their_budget() {
    let script = Script::new([Fault::Refused; 100]);
    let policy = Policy { budget: 2, ..Policy::default() };
    let store = store(&script, Layers { retry: Some(policy), ..Layers::default() });
    for _ in 0..5 {
        assert!(store.get(&key("n"), Get::default()).await.is_err());
    }
    assert_eq!(script.calls(), 5 + 2, "each call once, and two repetitions in all");
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_cut_off_and_repeated_within_the_deadline() {
    let slow = Fault::Slow(Duration::from_secs(60));
    let script = Script::new([slow, Fault::None, slow, slow, slow]);
    let layers = Layers {
        attempt_timeout: Some(Duration::from_secs(1)),
        deadline: Some(Duration::from_millis(2_500)),
        ..retrying()
    };
    let store = store(&script, layers);
    assert!(store.get(&key("n"), Get::default()).await.is_ok());
    let started = Instant::now();
    let error = store.get(&key("n"), Get::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied));
    assert!(started.elapsed() < Duration::from_secs(3), "the deadline bounds all attempts together");
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_write_may_have_been_applied() {
    let script = Script::new([Fault::Slow(Duration::from_secs(60))]);
    let store = store(&script, Layers { attempt_timeout: Some(Duration::from_secs(1)), ..Layers::default() });
    let error = store.put(&key("n"), &Put::new("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), error.operation()), (ErrorKind::Timeout, Effect::Unknown, Some("put")));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_caller_that_has_passed_sends_nothing() {
    let script = Script::default();
    let store = store(&script, Layers { deadline: Some(Duration::from_secs(5)), ..Layers::default() });
    let error = deadline::until(Instant::now(), store.put(&key("n"), &Put::new("a"))).await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), script.calls()), (ErrorKind::Timeout, Effect::NotApplied, 0));
    let later = Instant::now() + Duration::from_secs(1);
    assert!(deadline::until(later, store.put(&key("n"), &Put::new("a"))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn work_that_is_not_the_callers_is_taken_out_of_its_deadline() {
    let script = Script::default();
    let store = store(&script, Layers { deadline: Some(Duration::from_secs(5)), ..Layers::default() });
    let (item, put) = (key("n"), Put::new("a"));
    deadline::until(Instant::now(), async {
        let mut work = store.put(&item, &put);
        poll_fn(|context| deadline::without(|| work.as_mut().poll(context))).await.unwrap();
        assert_eq!(store.put(&item, &put).await.unwrap_err().kind(), ErrorKind::Timeout, "it is in force again");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn calls_above_the_limit_queue_and_above_the_queue_are_refused() {
    let script = Script::new([Fault::Slow(Duration::from_secs(1)); 2]);
    let limits = Limits { in_flight_max: 1, queue_max: 1 };
    let store = store(&script, Layers { concurrency: Some(limits), ..Layers::default() });
    let key = key("n");
    let get = || store.get(&key, Get::default());
    let (first, second, third) = tokio::join!(get(), get(), get());
    assert!(first.is_ok() && second.is_ok());
    let error = third.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Throttled, Effect::NotApplied));
    assert!(get().await.is_ok(), "the places are free again");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_neither_fails_the_probe_nor_costs_a_holder_its_lock() {
    let script = Script::new([Fault::None, Fault::Slow(Duration::from_secs(1))]);
    let limits = Limits { in_flight_max: 1, queue_max: 0 };
    let store = store(&script, Layers { concurrency: Some(limits), ..Layers::default() });
    let lock = LockRequest::new(key("n"), LEASE);
    store.lock_acquire(&lock).await.unwrap();
    let crowded = async {
        assert_eq!(store.take(&key("n")).await.unwrap_err().kind(), ErrorKind::Throttled);
        store.ping().await.unwrap();
        assert_eq!(store.lock_extend(&lock.key, lock.owner, LEASE).await.unwrap(), ExtendOutcome::Extended);
        assert_eq!(store.lock_release(&lock.key, lock.owner).await.unwrap(), ReleaseOutcome::Released);
    };
    let key = key("n");
    let (slow, ()) = tokio::join!(biased; store.get(&key, Get::default()), crowded);
    assert!(slow.is_ok());
}

/// A server that hangs answers nothing at all. Reads were repeated until the deadline dropped them with all their attempts, and
/// the breaker, which only counted answers, never opened: each caller waited for its whole deadline.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_opens_the_breaker_and_an_impatient_caller_does_not() {
    let script = Script::new([Fault::Slow(Duration::from_secs(60)); 100]);
    let layers = Layers {
        attempt_timeout: Some(Duration::from_secs(1)),
        deadline: Some(Duration::from_millis(1_500)),
        breaker: Some(Thresholds { failures: 2, open_for: Duration::from_secs(10) }),
        ..retrying()
    };
    let store = store(&script, layers);
    let get = || async { store.get(&key("n"), Get::default()).await.unwrap_err().kind() };
    for _ in 0..5 {
        let soon = Instant::now() + Duration::from_millis(10);
        assert_eq!(deadline::until(soon, get()).await, ErrorKind::Timeout);
    }
    assert_eq!((get().await, get().await), (ErrorKind::Timeout, ErrorKind::Timeout));
    let calls = script.calls();
    assert_eq!(get().await, ErrorKind::Unavailable);
    assert_eq!(script.calls(), calls, "the open breaker spares the server, and the caller its time");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_spares_the_backend_but_not_its_probe() {
    let script = Script::new([Fault::Refused; 3]);
    let thresholds = Thresholds { failures: 2, open_for: Duration::from_secs(1) };
    let store = store(&script, Layers { breaker: Some(thresholds), ..Layers::default() });
    for _ in 0..4 {
        assert!(store.get(&key("n"), Get::default()).await.is_err());
    }
    assert_eq!(script.calls(), 2);
    assert!(store.ping().await.is_err(), "the probe goes through and tells the truth");
    assert_eq!(script.calls(), 3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.get(&key("n"), Get::default()).await.is_ok());
}

#[tokio::test]
async fn a_confined_store_reaches_no_other_tenant_not_even_in_a_batch() {
    let script = Script::default();
    let guard = Some(Guard::new("layers", Some("acme")).unwrap());
    let store = store(&script, Layers { guard, ..Layers::default() });
    let foreign = StateKey::new("layers", "acme2", "test", "n").unwrap();
    assert_eq!(store.get(&foreign, Get::default()).await.unwrap_err().kind(), ErrorKind::Denied);
    let ops = [BatchOp::Take(key("n")), BatchOp::Take(foreign)];
    assert_eq!(store.batch(&ops).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(script.calls(), 0);
    assert!(store.get(&key("n"), Get::default()).await.is_ok());
}

#[tokio::test]
async fn metrics_count_by_outcome_and_never_by_key() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Some(StoreMetrics::register(&mut registry));
    let store = store(&Script::new([Fault::Refused]), Layers { metrics, tracing: true, ..Layers::default() });
    assert!(store.put(&key("secret-id"), &Put::new("a")).await.is_err());
    store.put(&key("secret-id"), &Put::new("a").if_absent()).await.unwrap();
    store.put(&key("secret-id"), &Put::new("a").if_absent()).await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for outcome in ["unavailable", "applied", "not_met"] {
        let line =
            format!(r#"acteon_state_operations_total{{backend="memory",operation="put",outcome="{outcome}"}} 1"#);
        assert!(text.contains(&line), "{text}");
    }
    assert!(!text.contains("secret-id"), "{text}");
}
