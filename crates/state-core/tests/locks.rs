//! Guards and elections, around a memory store that refuses some operations on command.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::layer::{Around, Layered, Layers, deadline};
use acteon_state_core::operation::{Call, Reply};
use acteon_state_core::{
    Election, Error, ErrorKind, LeaderWatch, LockGuard, LockOptions, Operation, Result, State, StateKey, StateStore,
};
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
    let done = Election::new(store.clone(), key(), &LockOptions::new(LEASE)).lead(|_| async { 7 }).await;
    assert_eq!(done.unwrap(), Some(7));
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

/// Steps down from within its own term, which is dropped while it waits for that: nobody waits for anybody in a circle.
#[tokio::test]
async fn a_term_may_step_down_by_itself() {
    let store = refusing(Operation::Ping, 0);
    let candidate = Election::new(store.clone(), key(), &LockOptions::new(LEASE));
    let leading = candidate.lead(async |_| candidate.step_down().await);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), leading).await.unwrap().unwrap(), None);
    assert!(is_given_back(&store).await);
    assert!(candidate.has_stepped_down() && candidate.campaign().await.unwrap().is_none());
}

#[tokio::test]
async fn a_candidate_that_waits_for_the_store_steps_down_at_once() {
    let candidate = Election::new(refusing(Operation::LockAcquire, usize::MAX), key(), &LockOptions::new(LEASE));
    let clone = candidate.clone();
    let standing = tokio::spawn(async move { clone.lead(|_| async {}).await });
    // It is refused at once, and pauses.
    tokio::task::yield_now().await;
    tokio::time::timeout(Duration::from_secs(5), candidate.step_down()).await.unwrap();
    assert_eq!(standing.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_term_that_a_force_release_ended_is_followed_by_another_with_a_greater_token() {
    let state = State::new(refusing(Operation::Ping, 0));
    let candidate = state.elect(&key(), &LockOptions::new(Duration::from_millis(300)));
    let mut tokens = Vec::new();
    let led = candidate.lead(|token| {
        tokens.push(token);
        let (state, is_last) = (state.clone(), tokens.len() == 3);
        async move {
            if !is_last {
                state.force_release(&key(), "test").await.unwrap();
                std::future::pending::<()>().await;
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(20), led).await.unwrap().unwrap().unwrap();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

/// A store that does not answer is no change of leaders, and nothing is told twice after it.
#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_after_an_error_and_asks_once_in_a_period() {
    let store = refusing(Operation::LockInspect, 1);
    let guard = held(&store, &LockOptions::new(LEASE).meta("node 1")).await;
    let period = Duration::from_secs(10);
    let mut watch = LeaderWatch::new(store.clone(), key(), period);
    assert_eq!(watch.changed().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let before = Instant::now();
    let leader = watch.changed().await.unwrap().unwrap();
    assert!(before.elapsed() >= period * 4 / 5, "{:?}", before.elapsed());
    assert_eq!((leader.token, leader.meta.as_str()), (guard.token(), "node 1"));
    assert!(tokio::time::timeout(3 * period, watch.changed()).await.is_err(), "told twice");
    guard.release().await.unwrap();
    assert_eq!(watch.changed().await.unwrap(), None);
}
