//! What is special to this driver: the memory bound, removal in the background, closing, and several handles.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as such")]

use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig};
use acteon_state_core::clock::ManualClock;
use acteon_state_core::key::Companion;
use acteon_state_core::{
    ClaimDue, Condition, DeleteOutcome, DueAt, Effect, ErrorKind, Get, Increment, Keyspace, LockOutcome, LockRequest,
    Put, RateLimit, Schedule, StateKey, StateStore, TransactOp,
};
use acteon_state_memory::{Eviction, MemoryConfig, MemoryStore};

fn key(id: &str) -> StateKey {
    StateKey::new("test", "acme", "thing", id).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(1_700_000_000_000_000))
}

fn bounded(bytes_max: u64) -> MemoryStore {
    let config = MemoryConfig { memory_bytes_max: Some(bytes_max), ..MemoryConfig::default() };
    MemoryStore::open_with_clock(&config, clock()).unwrap()
}

#[tokio::test]
async fn write_above_the_memory_bound_is_refused_and_changes_nothing() {
    let store = bounded(4_096);
    store.put(&key("a"), &Put::new("first")).await.unwrap();
    let error = store.put(&key("a"), &Put::new(vec![0; 8_192])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::OutOfMemory, Effect::NotApplied));
    assert_eq!((error.backend(), error.operation(), error.key()), (Some("memory"), Some("put"), Some(&key("a"))));
    assert_eq!(store.get(&key("a"), Get::default()).await.unwrap().unwrap().value, "first");
}

fn of_kind(kind: &str, id: &str) -> StateKey {
    StateKey::new("test", "acme", kind, id).unwrap()
}

/// A store that was full of values to be evicted, in which something of each kind that is not was written first.
#[tokio::test]
async fn only_plain_values_are_evicted() {
    for eviction in [Eviction::AllKeysLru, Eviction::AllKeysLfu, Eviction::AllKeysRandom] {
        let config = MemoryConfig { memory_bytes_max: Some(100_000), eviction, ..MemoryConfig::default() };
        let clock = clock();
        let store = MemoryStore::open_with_clock(&config, clock.clone()).unwrap();
        let (job, payload) = ("job".to_owned(), "x".into());
        let queue = key("queue");
        store.schedule(&queue, &Schedule { id: job, due_at: DueAt::UnixMs(0), payload }).await.unwrap();
        store.increment(&key("counter"), Increment::by(7)).await.unwrap();
        store.put(&of_kind("dedup", "seen"), &Put::new("outcome")).await.unwrap();
        let lock = LockRequest::new(key("lock"), Duration::from_secs(3_600));
        let LockOutcome::Granted(grant) = store.lock_acquire(&lock).await.unwrap() else { panic!("it is free") };
        let fenced = Put::new("fenced").when(Condition::Fence(grant.token));
        store.put(&key("fenced"), &fenced).await.unwrap();

        for number in 0..3_000 {
            clock.advance(Duration::from_secs(1));
            store.put(&of_kind("cache", &number.to_string()), &Put::new(vec![0; 100])).await.unwrap();
        }
        assert!(store.engine().stats().evicted_total > 1_000);
        assert!(store.engine().stats().bytes < 110_000);
        assert_eq!(store.get(&key("counter"), Get::default()).await.unwrap().unwrap().value, "7");
        assert_eq!(store.get(&of_kind("dedup", "seen"), Get::default()).await.unwrap().unwrap().value, "outcome");
        assert_eq!(store.get(&key("fenced"), Get::default()).await.unwrap().unwrap().value, "fenced");
        assert!(store.lock_inspect(&key("lock")).await.unwrap().is_some());
        let claim = ClaimDue { limit: 10, visibility: Duration::from_secs(1) };
        assert_eq!(store.claim_due(&queue, claim).await.unwrap().items.len(), 1);
    }
}

#[tokio::test]
async fn write_is_refused_where_nothing_may_be_evicted() {
    let eviction = Eviction::AllKeysLru;
    let config = MemoryConfig { memory_bytes_max: Some(50_000), eviction, ..MemoryConfig::default() };
    let store = MemoryStore::open_with_clock(&config, clock()).unwrap();
    let mut number = 0;
    let error = loop {
        number += 1;
        match store.put(&of_kind("dedup", &number.to_string()), &Put::new("outcome")).await {
            Ok(_) => assert!(number < 10_000),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.effect()), (ErrorKind::OutOfMemory, Effect::NotApplied));
    let ops = [TransactOp::Put(key("a"), Put::new("b")), TransactOp::Put(key("c"), Put::new("d"))];
    assert_eq!(store.transact(&ops).await.unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(store.engine().len(), number - 1);
    assert_eq!(store.engine().stats().evicted_total, 0);
}

/// What keys and values take; tables keep room for keys to come.
fn bytes(store: &MemoryStore) -> u64 {
    let stats = store.engine().stats();
    stats.bytes - stats.table_bytes
}

#[tokio::test]
async fn transaction_that_does_not_fit_leaves_everything_as_it_was() {
    let store = bounded(4_096);
    store.put(&key("grown"), &Put::new("short").expires_after(Duration::from_secs(60))).await.unwrap();
    store.put(&key("deleted"), &Put::new("still here")).await.unwrap();
    let before = bytes(&store);
    let ops = [
        TransactOp::Delete(key("deleted"), Condition::Always),
        TransactOp::Put(key("grown"), Put::new(vec![1; 500])),
        TransactOp::Increment(key("new"), Increment::by(1)),
        TransactOp::Put(key("too large"), Put::new(vec![0; 8_192])),
    ];
    assert_eq!(store.transact(&ops).await.unwrap_err().kind(), ErrorKind::OutOfMemory);
    let grown = store.get(&key("grown"), Get::with_ttl()).await.unwrap().unwrap();
    assert_eq!(grown.value, "short");
    assert!(grown.ttl.is_some(), "its time to live is back as well");
    assert_eq!(store.get(&key("deleted"), Get::default()).await.unwrap().unwrap().value, "still here");
    assert!(store.get(&key("new"), Get::default()).await.unwrap().is_none());
    assert_eq!(bytes(&store), before);
}

#[tokio::test]
async fn schedule_that_does_not_fit_keeps_the_item_at_its_time() {
    let store = bounded(4_096);
    let queue = key("queue");
    let item = |due_at, bytes| Schedule { id: "job".to_owned(), due_at, payload: vec![0; bytes].into() };
    store.schedule(&queue, &item(DueAt::After(Duration::ZERO), 8)).await.unwrap();
    let later = DueAt::After(Duration::from_secs(60));
    assert_eq!(store.schedule(&queue, &item(later, 8_192)).await.unwrap_err().kind(), ErrorKind::OutOfMemory);
    let claim = ClaimDue { limit: 10, visibility: Duration::from_secs(1) };
    assert_eq!(store.claim_due(&queue, claim).await.unwrap().items.len(), 1);
}

/// A claim makes its item's record a little longer. A full store refused that, so its queues could not be worked off, which
/// would have made room.
#[tokio::test]
async fn full_store_still_hands_out_its_work() {
    let store = bounded(4_096);
    let queue = key("queue");
    let job = |number| Schedule { id: format!("job {number}"), due_at: DueAt::UnixMs(0), payload: "x".into() };
    let mut scheduled = 0;
    while store.schedule(&queue, &job(scheduled)).await.is_ok() {
        scheduled += 1;
    }
    let claim = ClaimDue { limit: 1_000, visibility: Duration::from_secs(1) };
    let claimed = store.claim_due(&queue, claim).await.unwrap();
    assert_eq!(claimed.items.len(), scheduled);
    for item in &claimed.items {
        store.ack(&queue, &item.id, item.token).await.unwrap();
    }
    assert_eq!(bytes(&store), 0);
}

#[tokio::test(start_paused = true)]
async fn expired_keys_give_their_memory_back_without_being_met() {
    let clock = clock();
    let store = MemoryStore::open_with_clock(&MemoryConfig::default(), clock.clone()).unwrap();
    for number in 0..10_000 {
        let put = Put::new("value").expires_after(Duration::from_secs(1));
        store.put(&key(&number.to_string()), &put).await.unwrap();
    }
    store.put(&key("stays"), &Put::new("value")).await.unwrap();
    clock.advance(Duration::from_millis(1_001));
    // Paused: this jumps over the pauses of the sweep.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.engine().stats().keys, 1);
}

#[tokio::test]
async fn closed_handle_refuses_and_its_sibling_goes_on() {
    let store = MemoryStore::default();
    let (clone, other) = (store.clone(), store.handle());
    store.put(&key("a"), &Put::new("shared")).await.unwrap();
    store.close().await.unwrap();
    store.close().await.unwrap();
    for closed in [&store, &clone] {
        assert_eq!(closed.ping().await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(closed.get(&key("a"), Get::default()).await.unwrap_err().kind(), ErrorKind::Closed);
    }
    other.ping().await.unwrap();
    assert_eq!(other.get(&key("a"), Get::default()).await.unwrap().unwrap().value, "shared");
}

#[tokio::test]
async fn two_prefixes_on_one_engine_do_not_meet() {
    let engine = Engine::new(EngineConfig::default());
    let open = |prefix: &str| {
        let config = MemoryConfig { prefix: prefix.to_owned(), ..MemoryConfig::default() };
        MemoryStore::over(engine.clone(), &config, clock()).unwrap()
    };
    let (one, two) = (open("one"), open("two"));
    one.put(&key("a"), &Put::new("mine")).await.unwrap();
    assert!(two.get(&key("a"), Get::default()).await.unwrap().is_none());
    let config = MemoryConfig { memory_bytes_max: Some(1), ..MemoryConfig::default() };
    assert_eq!(MemoryStore::over(engine, &config, clock()).unwrap_err().kind(), ErrorKind::Config);
}

/// The window was counted from the beginning of the millisecond in which it began, and ended up to a millisecond early.
#[tokio::test]
async fn fixed_window_lasts_its_whole_time() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_900));
    let store = MemoryStore::open_with_clock(&MemoryConfig::default(), clock.clone()).unwrap();
    let one_per_2_ms = || RateLimit::fixed_window(1, Duration::from_millis(2));
    assert!(store.rate_limit(&key("a"), &one_per_2_ms()).await.unwrap().allowed);
    clock.advance(Duration::from_micros(1_999));
    let refused = store.rate_limit(&key("a"), &one_per_2_ms()).await.unwrap();
    assert!(!refused.allowed);
    clock.advance(refused.retry_after.unwrap());
    assert!(store.rate_limit(&key("a"), &one_per_2_ms()).await.unwrap().allowed);
}

#[tokio::test]
async fn queue_that_is_worked_off_leaves_no_keys() {
    let store = MemoryStore::open_with_clock(&MemoryConfig::default(), clock()).unwrap();
    let queue = key("queue");
    let schedule = Schedule { id: "job".to_owned(), due_at: DueAt::UnixMs(0), payload: "payload".into() };
    store.schedule(&queue, &schedule).await.unwrap();
    let claim = ClaimDue { limit: 10, visibility: Duration::from_secs(1) };
    let claimed = store.claim_due(&queue, claim).await.unwrap();
    assert_eq!(claimed.next_due_in, Some(Duration::from_secs(1)));
    store.ack(&queue, "job", claimed.items[0].token).await.unwrap();
    assert!(store.engine().is_empty());
}

#[tokio::test]
async fn what_others_wrote_under_our_keys_is_corrupt_and_stays_until_it_is_deleted() {
    let store = MemoryStore::default();
    let keyspace = Keyspace::new("acteon").unwrap();
    let write = |text: String| {
        let text = text.as_bytes();
        store
            .engine()
            .update(text, 0, |slot| slot.set_str(&[b"something else"], acteon_engine::Expiry::Clear))
            .unwrap();
    };
    write(keyspace.text(&key("a")));
    write(keyspace.companion(&key("a"), Companion::Lock));
    let kind = |error: acteon_state_core::Error| error.kind();
    assert_eq!(store.get(&key("a"), Get::default()).await.map_err(kind), Err(ErrorKind::Corrupt));
    assert_eq!(store.put(&key("a"), &Put::new("x")).await.map_err(kind), Err(ErrorKind::Corrupt));
    assert_eq!(store.increment(&key("a"), Increment::by(1)).await.map_err(kind), Err(ErrorKind::Corrupt));
    assert_eq!(store.lock_inspect(&key("a")).await.map_err(kind), Err(ErrorKind::Corrupt));
    assert_eq!(store.take(&key("a")).await.map_err(kind), Err(ErrorKind::Corrupt));
    assert_eq!(store.get(&key("a"), Get::default()).await.map_err(kind), Err(ErrorKind::Corrupt), "it stays");
    assert_eq!(store.delete(&key("a"), Condition::Always).await.map_err(kind), Ok(DeleteOutcome::Deleted));
    assert_eq!(store.get(&key("a"), Get::default()).await.map_err(kind), Ok(None));
    assert_eq!(store.engine().len(), 1, "the lock record is still there");
}
