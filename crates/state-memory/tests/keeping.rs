//! A store over a directory: what is there after it was opened again, and what fails with the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_engine::{Engine, EngineConfig};
use acteon_engine_disk::simulation::{Directory, Faults};
use acteon_engine_disk::{Disk, DiskConfig, Fsync};
use acteon_state_core::clock::{Clock, ManualClock, SeededClock};
use acteon_state_core::{
    ClaimDue, ClaimOutcome, Condition, Counting, Decision, DueAt, DueItem, Effect, Entry, ErrorKind, FencingToken, Get,
    Increment, LockOutcome, LockRequest, Put, PutOutcome, RateLimit, ReleaseOutcome, Schedule, StateKey, StateStore,
    Survival, Version,
};
use acteon_state_memory::{Eviction, KeepConfig, KeepFsync, MemoryConfig, MemoryStore};

fn key(kind: &str, id: &str) -> StateKey {
    StateKey::new("shop", "acme", kind, id).expect("a key")
}

fn config(dir: &std::path::Path, fsync: KeepFsync) -> MemoryConfig {
    MemoryConfig { keep: Some(KeepConfig { fsync, ..KeepConfig::new(dir) }), ..MemoryConfig::default() }
}

/// Where the clock of these tests begins: not at a whole millisecond, so that rounding shows.
const START_US: u64 = 1_767_225_600_000_357;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// How long nobody has the directory.
const DOWN: Duration = Duration::from_secs(600);

fn rates() -> [RateLimit; 3] {
    [RateLimit::fixed_window(10, HOUR), RateLimit::sliding_window(10, HOUR), RateLimit::gcra(10, HOUR, 10)]
}

/// A key for each of [`rates`].
fn rate_key(number: usize) -> StateKey {
    key("throttle", &number.to_string())
}

/// Something of each kind of state, before a restart.
struct Before {
    versions: [Version; 2],
    requests: [LockRequest; 2],
    tokens: [FencingToken; 2],
    claimed: DueItem,
    decisions: Vec<Decision>,
}

async fn acquire(store: &MemoryStore, request: &LockRequest) -> FencingToken {
    match store.lock_acquire(request).await.expect("taken") {
        LockOutcome::Granted(grant) => grant.token,
        LockOutcome::Busy(_) => panic!("it is free"),
    }
}

async fn put(store: &MemoryStore, id: &str, put: Put) -> Version {
    match store.put(&key("mail", id), &put).await.expect("taken") {
        PutOutcome::Applied(version) => version,
        PutOutcome::NotMet(current) => panic!("{current:?} is there"),
    }
}

async fn schedule(store: &MemoryStore, id: &str, after: Duration) {
    let schedule = Schedule { id: id.to_owned(), due_at: DueAt::After(after), payload: id.to_owned().into() };
    store.schedule(&key("queue", "mail"), &schedule).await.expect("taken");
}

/// Writes something of each kind.
async fn fill(store: &MemoryStore) -> Before {
    let versions =
        [put(store, "stays", Put::new("hello")).await, put(store, "outlives", Put::new("").expires_after(HOUR)).await];
    put(store, "ends", Put::new("soon gone").expires_after(MINUTE)).await;
    put(store, "deleted", Put::new("gone")).await;
    store.delete(&key("mail", "deleted"), Condition::Always).await.expect("taken");
    store.increment(&key("hits", "all"), Increment::by(i64::MIN)).await.expect("taken");
    let window = |length| Increment { window: Counting::OnCreate(length), ..Increment::by(7) };
    store.increment(&key("hits", "hourly"), window(HOUR)).await.expect("taken");
    store.increment(&key("hits", "minutely"), window(MINUTE)).await.expect("taken");
    schedule(store, "claimed", Duration::ZERO).await;
    let claim = ClaimDue { limit: 1, visibility: HOUR };
    let claimed = store.claim_due(&key("queue", "mail"), claim).await.expect("taken").items.remove(0);
    schedule(store, "due", MINUTE).await;
    schedule(store, "later", HOUR).await;
    schedule(store, "cancelled", MINUTE).await;
    store.cancel(&key("queue", "mail"), "cancelled").await.expect("taken");
    let requests = [
        LockRequest { meta: "cleans".to_owned(), ..LockRequest::new(key("lock", "held"), HOUR) },
        LockRequest::new(key("lock", "lost"), MINUTE),
    ];
    let tokens = [acquire(store, &requests[0]).await, acquire(store, &requests[1]).await];
    put(store, "fenced", Put::new("fenced").when(Condition::Fence(tokens[0]))).await;
    let mut decisions = Vec::new();
    for (number, rate) in rates().into_iter().enumerate() {
        decisions.push(store.rate_limit(&rate_key(number), &rate.cost(3)).await.expect("taken"));
    }
    Before { versions, requests, tokens, claimed, decisions }
}

async fn value(store: &MemoryStore, kind: &str, id: &str) -> Option<Entry> {
    let get = Get { with_ttl: true, ..Get::default() };
    store.get(&key(kind, id), get).await.expect("readable")
}

/// What has to be there after [`DOWN`].
async fn check(store: &MemoryStore, before: &Before) {
    check_values(store, before).await;
    check_due(store, before).await;
    check_locks(store, before).await;
    for (number, rate) in rates().into_iter().enumerate() {
        // What an hour allows comes back evenly with GCRA only.
        let back = if number == 2 { 10 * DOWN.as_secs() / HOUR.as_secs() } else { 0 };
        let decision = store.rate_limit(&rate_key(number), &rate).await.expect("readable");
        assert_eq!(decision.remaining, before.decisions[number].remaining + back - 1, "{:?}", decision);
    }
}

async fn check_values(store: &MemoryStore, before: &Before) {
    let stays = value(store, "mail", "stays").await.expect("there");
    assert_eq!((&stays.value[..], stays.version, stays.ttl), (&b"hello"[..], Some(before.versions[0]), None));
    let outlives = value(store, "mail", "outlives").await.expect("there, and empty");
    let left = outlives.ttl.expect("it expires");
    assert_eq!((&outlives.value[..], outlives.version), (&b""[..], Some(before.versions[1])));
    assert!(left <= HOUR - DOWN && left + SECOND > HOUR - DOWN, "{left:?}");
    assert_eq!(value(store, "mail", "ends").await, None, "it has expired meanwhile");
    assert_eq!(value(store, "mail", "deleted").await, None);
    assert_eq!(value(store, "mail", "fenced").await.expect("there").fence, Some(before.tokens[0]));
    assert_eq!(value(store, "hits", "all").await.expect("there").value, i64::MIN.to_string());
    let hourly = value(store, "hits", "hourly").await.expect("there");
    assert!(hourly.value == "7" && hourly.ttl.is_some_and(|left| left <= HOUR - DOWN), "{hourly:?}");
    assert_eq!(value(store, "hits", "minutely").await, None, "its window has ended meanwhile");
}

async fn check_due(store: &MemoryStore, before: &Before) {
    let (queue, claim) = (key("queue", "mail"), ClaimDue { limit: 10, visibility: HOUR });
    let items = store.claim_due(&queue, claim).await.expect("readable").items;
    let items: Vec<_> = items.iter().map(|item| (item.id.as_str(), &item.payload[..], item.attempt)).collect();
    assert_eq!(
        items,
        [("due", &b"due"[..], 1)],
        "neither what is claimed, nor what is not due, nor what was cancelled"
    );
    let claimed = &before.claimed;
    let extended = store.extend_claim(&queue, &claimed.id, claimed.token, HOUR).await.expect("taken");
    assert_eq!(extended, ClaimOutcome::Done, "the claim is still the worker's");
    assert_eq!(store.ack(&queue, &claimed.id, claimed.token).await.expect("taken"), ClaimOutcome::Done);
}

async fn check_locks(store: &MemoryStore, before: &Before) {
    let [held, lost] = &before.requests;
    let state = store.lock_inspect(&held.key).await.expect("readable").expect("held");
    let holder = &state.holders[0];
    assert_eq!((holder.owner, holder.token, holder.meta.as_str()), (held.owner, before.tokens[0], "cleans"));
    assert!(holder.expires_in <= HOUR - DOWN && holder.expires_in + SECOND > HOUR - DOWN, "{holder:?}");
    let other = LockRequest::new(held.key.clone(), HOUR);
    assert!(matches!(store.lock_acquire(&other).await.expect("answered"), LockOutcome::Busy(_)), "two hold it");
    let earlier = FencingToken::new(before.tokens[0].get() - 1).expect("a token");
    let outcome = store.put(&key("mail", "fenced"), &Put::new("late").fenced_by(earlier)).await.expect("answered");
    assert!(!outcome.is_applied(), "the fence holds");
    // Its lease has ended meanwhile, and the token goes on rising.
    let token = acquire(store, &LockRequest::new(lost.key.clone(), HOUR)).await;
    assert!(token > before.tokens[1]);
    assert_eq!(store.lock_release(&lost.key, lost.owner).await.expect("answered"), ReleaseOutcome::AlreadyLost);
    assert_eq!(store.lock_release(&held.key, held.owner).await.expect("answered"), ReleaseOutcome::Released);
}

#[tokio::test]
async fn each_kind_of_state_is_there_when_the_store_is_opened_again() {
    for fsync in [KeepFsync::Always, KeepFsync::EverySecond, KeepFsync::No] {
        let folder = tempfile::tempdir().expect("a directory");
        let config = config(&folder.path().join("data"), fsync);
        let clock = Arc::new(ManualClock::new(START_US));
        let store = MemoryStore::open_with_clock(&config, clock.clone()).expect("new");
        let before = fill(&store).await;
        store.close().await.expect("all is written");
        clock.advance(DOWN);
        let store = MemoryStore::open_with_clock(&config, clock.clone()).expect("sound");
        check(&store, &before).await;
        store.disk().expect("kept").rewrite().expect("there is room");
        store.close().await.expect("all is written");
        // Also out of a snapshot, and what was changed after the first time.
        let store = MemoryStore::open_with_clock(&config, clock).expect("sound");
        check_values(&store, &before).await;
        let state = store.lock_inspect(&before.requests[0].key).await.expect("readable").expect("its record is kept");
        assert_eq!((state.holders.len(), state.last_token), (0, before.tokens[0]), "it was released");
    }
}

#[tokio::test]
async fn each_kind_of_state_is_there_after_the_machine_has_stopped() {
    let (directory, clock) = (Directory::new(11), Arc::new(ManualClock::new(START_US)));
    let (store, _) = over_at(&directory, clock.clone());
    let before = fill(&store).await;
    clock.advance(DOWN);
    let (after_crash, _) = over_at(&directory.restarted(), clock);
    check(&after_crash, &before).await;
}

#[tokio::test]
async fn what_survives_is_said_as_the_setting_has_it() {
    let eviction = Eviction::AllKeysLru;
    for fsync in [KeepFsync::Always, KeepFsync::EverySecond, KeepFsync::No] {
        let folder = tempfile::tempdir().expect("a directory");
        let config = config(folder.path(), fsync);
        let is_always = fsync == KeepFsync::Always;
        let evicting = MemoryConfig { eviction, memory_bytes_max: Some(1 << 20), ..config.clone() };
        for (config, durable) in [(config, is_always), (evicting, false)] {
            let evicts = config.eviction == eviction;
            let store = MemoryStore::open(&config).expect("sound");
            for store in [store.handle(), store.with_prefix("other").expect("a prefix"), inspected(&config)] {
                assert_eq!(store.capabilities().durable, durable);
                let semantics = store.lock_semantics();
                // Locks are never evicted.
                assert_eq!(semantics.survives_server_crash == Survival::Yes, is_always);
                assert!(semantics.notes.iter().any(|note| note.contains("wall clock")), "{:?}", semantics.notes);
                assert_eq!(semantics.notes.iter().any(|note| note.contains("evicted")), evicts);
            }
            store.close().await.expect("all is written");
        }
    }
}

fn inspected(config: &MemoryConfig) -> MemoryStore {
    MemoryStore::open_to_inspect(config, Arc::new(SeededClock::new())).expect("allowed")
}

#[tokio::test]
async fn directory_has_one_store_at_a_time() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = config(folder.path(), KeepFsync::Always);
    let first = Arc::new(MemoryStore::open(&config).expect("new"));
    let error = MemoryStore::open(&config).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("process"), "{error}");
    assert!(MemoryStore::open_to_inspect(&config, Arc::new(SeededClock::new())).is_ok());
    first.close().await.expect("all is written");
    MemoryStore::open(&config).expect("free again");
}

/// A store on a disk in memory.
fn over(directory: &Directory) -> (MemoryStore, Arc<Disk>) {
    over_at(directory, Arc::new(SeededClock::new()))
}

fn over_at(directory: &Directory, clock: Arc<dyn Clock>) -> (MemoryStore, Arc<Disk>) {
    let engine = Engine::new(EngineConfig::default());
    let retry = (Duration::from_millis(1), Duration::from_millis(20));
    let config = DiskConfig { fsync: Fsync::Always, retry, ..DiskConfig::default() };
    let now_ms = clock.now_us() / 1_000;
    let (disk, _) = Disk::open(Arc::new(directory.clone()), &engine, config, now_ms).expect("sound");
    let disk = Arc::new(disk);
    let store = MemoryStore::over_kept(engine, Arc::clone(&disk), &MemoryConfig::default(), clock);
    (store.expect("allowed"), disk)
}

#[tokio::test]
async fn nobody_is_told_what_a_crash_could_take_back() {
    let directory = Directory::new(3);
    let (store, disk) = over(&directory);
    assert!(store.capabilities().durable);
    directory.set_faults(Faults { latency: Duration::from_millis(30), ..Faults::default() });
    let (writer, position) = (store.handle(), disk.statistics().position);
    let writing = tokio::spawn(async move { writer.put(&key("mail", "ada"), &Put::new("hello")).await });
    while disk.statistics().position == position {
        tokio::task::yield_now().await;
    }
    // Somebody else's write is on its way: who reads it waits for it.
    let seen = store.get(&key("mail", "ada"), Get::default()).await.expect("readable");
    let (after_crash, _) = over(&directory.restarted());
    let kept = after_crash.get(&key("mail", "ada"), Get::default()).await.expect("readable");
    assert_eq!(seen.map(|entry| entry.value), kept.map(|entry| entry.value));
    writing.await.expect("no panic").expect("kept");
}

#[tokio::test]
async fn full_disk_refuses_writes_with_the_reason_and_lets_everybody_read() {
    let directory = Directory::new(5);
    let (store, _) = over(&directory);
    store.put(&key("mail", "ada"), &Put::new("hello")).await.expect("kept");
    directory.set_faults(Faults { bytes_max: Some(directory.bytes()), ..Faults::default() });
    let error = store.put(&key("mail", "bob"), &Put::new("hello")).await.expect_err("full");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    let error = store.put(&key("mail", "eve"), &Put::new("hello")).await.expect_err("full");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    assert!(error.message().contains("journal"), "{error}");
    assert!(store.get(&key("mail", "ada"), Get::default()).await.expect("readable").is_some());
    assert!(store.get(&key("mail", "eve"), Get::default()).await.expect("readable").is_none());
    directory.set_faults(Faults::default());
    let give_up = Instant::now() + Duration::from_secs(30);
    while store.put(&key("mail", "eve"), &Put::new("hello")).await.is_err() {
        assert!(Instant::now() < give_up, "it does not recover");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (after_crash, _) = over(&directory.restarted());
    assert!(after_crash.get(&key("mail", "eve"), Get::default()).await.expect("readable").is_some());
}
