//! A store over a directory: what is there after it was opened again, and what fails with the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_engine::{Engine, EngineConfig};
use acteon_engine_disk::simulation::{Directory, Faults};
use acteon_engine_disk::{Disk, DiskConfig, Fsync};
use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{
    DueAt, Effect, ErrorKind, Get, Increment, LockOutcome, LockRequest, Put, Schedule, StateKey, StateStore, Survival,
};
use acteon_state_memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};

fn key(kind: &str, id: &str) -> StateKey {
    StateKey::new("shop", "acme", kind, id).expect("a key")
}

fn config(dir: &std::path::Path, fsync: KeepFsync) -> MemoryConfig {
    MemoryConfig { keep: Some(KeepConfig { fsync, ..KeepConfig::new(dir) }), ..MemoryConfig::default() }
}

#[tokio::test]
async fn everything_is_there_when_the_store_is_opened_again() {
    for fsync in [KeepFsync::Always, KeepFsync::EverySecond, KeepFsync::No] {
        let folder = tempfile::tempdir().expect("a directory");
        let config = config(&folder.path().join("data"), fsync);
        let lock = key("lock", "door");
        let store = MemoryStore::open(&config).expect("new");
        store.put(&key("mail", "ada"), &Put::new("hello")).await.expect("kept");
        store.increment(&key("hits", "ada"), Increment::by(3)).await.expect("kept");
        let due_at = DueAt::After(Duration::ZERO);
        let schedule = Schedule { id: "first".to_owned(), due_at, payload: "payload".into() };
        store.schedule(&key("queue", "mail"), &schedule).await.expect("kept");
        let request = LockRequest::new(lock.clone(), Duration::from_secs(60));
        let LockOutcome::Granted(grant) = store.lock_acquire(&request).await.expect("kept") else { panic!("free") };
        store.close().await.expect("all is written");
        drop(store);

        let store = MemoryStore::open(&config).expect("sound");
        let mail = store.get(&key("mail", "ada"), Get::default()).await.expect("there").expect("there");
        assert_eq!(mail.value, "hello");
        let hits = store.increment(&key("hits", "ada"), Increment::by(1)).await.expect("there");
        assert_eq!(hits.counter().value, 4);
        let state = store.lock_inspect(&lock).await.expect("there").expect("held");
        assert_eq!((state.holders[0].owner, state.holders[0].token), (request.owner, grant.token));
        assert_eq!(store.capabilities().durable, fsync == KeepFsync::Always);
        let survival = store.lock_semantics().survives_server_crash;
        assert_eq!(survival == Survival::Yes, fsync == KeepFsync::Always, "{survival:?}");
    }
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
    let engine = Engine::new(EngineConfig::default());
    let retry = (Duration::from_millis(1), Duration::from_millis(20));
    let config = DiskConfig { fsync: Fsync::Always, retry, ..DiskConfig::default() };
    let clock = Arc::new(SeededClock::new());
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
