//! A store over a directory: what is there after it was opened again, and what fails with the disk.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{
    DueAt, ErrorKind, Get, Increment, LockOutcome, LockRequest, Put, Schedule, StateKey, StateStore, Survival,
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
    assert!(MemoryStore::open_to_inspect(&config, Arc::new(acteon_state_core::clock::SeededClock::new())).is_ok());
    first.close().await.expect("all is written");
    MemoryStore::open(&config).expect("free again");
}
