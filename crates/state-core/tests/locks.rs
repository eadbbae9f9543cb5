//! Guards and elections, around a memory store that refuses some operations on command.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::layer::{Around, Layered, Layers, deadline};
use acteon_state_core::lock::election;
use acteon_state_core::operation::{Call, Reply};
use acteon_state_core::{Error, ErrorKind, LockGuard, LockOptions, Operation, Result, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(60);

/// Refuses the first calls of one operation.
#[derive(Debug)]
struct Refuse {
    operation: Operation,
    times: AtomicUsize,
}

impl Around for Refuse {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        let take_one = |left: usize| left.checked_sub(1);
        if call.operation == self.operation
            && self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_ok()
        {
            return Err(Error::new(ErrorKind::Unavailable, "refused by the test"));
        }
        attempt().await
    }
}

fn refusing(operation: Operation, times: usize) -> Arc<dyn StateStore> {
    Layered::wrap(Arc::new(MemoryStore::default()), Refuse { operation, times: AtomicUsize::new(times) })
}

fn key() -> StateKey {
    StateKey::new("locks", "acme", "test", "lock").unwrap()
}

async fn held(store: &Arc<dyn StateStore>, options: &LockOptions) -> LockGuard {
    LockGuard::acquire(store.clone(), &key(), options).await.unwrap().acquired().unwrap()
}

/// Waits for the lock far shorter than its lease: it comes only if somebody gave it back.
async fn is_given_back(store: &Arc<dyn StateStore>) -> bool {
    let options = LockOptions::new(LEASE).wait(Duration::from_secs(5));
    LockGuard::acquire(store.clone(), &key(), &options).await.unwrap().acquired().is_some()
}

/// A handler that had run out of time released its lock under the same deadline, which refuses every call: the lock stayed
/// held for the whole lease.
#[tokio::test]
async fn a_release_under_a_deadline_that_has_passed_still_gives_the_lock_back() {
    let layers = Layers { deadline: Some(Duration::from_secs(5)), ..Layers::default() };
    let store = layers.wrap(Arc::new(MemoryStore::default()));
    let guard = held(&store, &LockOptions::new(LEASE)).await;
    let error = deadline::until(Instant::now(), guard.release()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(is_given_back(&store).await);
}

#[tokio::test]
async fn a_release_that_failed_is_tried_again_in_the_background() {
    let store = refusing(Operation::LockRelease, 1);
    let guard = held(&store, &LockOptions::new(LEASE)).await;
    assert!(guard.release().await.is_err());
    assert!(is_given_back(&store).await);
}

/// An error while stepping down threw away what the finished term had returned.
#[tokio::test]
async fn a_finished_term_counts_although_stepping_down_fails() {
    let store = refusing(Operation::LockRelease, 1);
    let done = election::lead(&store, &key(), &LockOptions::new(LEASE), |_| async { 7 }).await;
    assert_eq!(done.unwrap(), 7);
    assert!(is_given_back(&store).await);
}

/// Before, only renewal knew the limit: `valid_for` promised the whole lease, and an extension by hand went beyond it.
#[tokio::test]
async fn a_hold_ends_at_its_limit_however_it_is_extended() {
    let limit = Duration::from_millis(100);
    let store = refusing(Operation::Ping, 0);
    for options in [LockOptions::new(LEASE), LockOptions::new(LEASE).renew()] {
        let guard = held(&store, &options.hold_max(limit)).await;
        assert!(guard.valid_for() <= limit, "{:?}", guard.valid_for());
        guard.extend(LEASE).await.unwrap();
        assert!(guard.is_held() && guard.valid_for() <= limit, "{:?}", guard.valid_for());
        tokio::time::timeout(Duration::from_secs(5), guard.lost()).await.unwrap();
        assert!(!guard.is_held());
        guard.release().await.unwrap();
    }
}
