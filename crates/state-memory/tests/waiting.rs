//! Waiting for a lock: order, hand-over, and what a dropped waiter leaves behind.
//!
//! All tests run on one thread with a manual clock, so that a task runs exactly when another one yields, and no lease ends
//! unless the test says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as such")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use acteon_state_core::clock::ManualClock;
use acteon_state_core::{
    ErrorKind, ExtendOutcome, FencingToken, LockMode, LockOutcome, LockRequest, OwnerId, ReleaseOutcome, Result,
    StateKey, StateStore,
};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};

const LEASE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(3_600);

fn store() -> (MemoryStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
    (MemoryStore::open_with_clock(&MemoryConfig::default(), clock.clone()).unwrap(), clock)
}

fn key() -> StateKey {
    StateKey::new("test", "acme", "lock", "one").unwrap()
}

fn request(mode: LockMode) -> LockRequest {
    LockRequest { mode, wait: PATIENCE, ..LockRequest::new(key(), LEASE) }
}

fn exclusive() -> LockRequest {
    request(LockMode::Exclusive)
}

async fn hold(store: &MemoryStore, mode: LockMode) -> OwnerId {
    let request = LockRequest { wait: Duration::ZERO, ..request(mode) };
    assert!(matches!(store.lock_acquire(&request).await, Ok(LockOutcome::Granted(_))));
    request.owner
}

async fn release(store: &MemoryStore, owner: OwnerId) {
    assert_eq!(store.lock_release(&key(), owner).await.unwrap(), ReleaseOutcome::Released);
}

async fn is_free(store: &MemoryStore) -> bool {
    store.lock_inspect(&key()).await.unwrap().is_none_or(|lock| lock.holders.is_empty())
}

/// Starts to wait, and returns once the waiter is in the queue.
async fn queue(store: &MemoryStore, request: LockRequest) -> JoinHandle<Result<LockOutcome>> {
    let store = store.clone();
    let waiter = tokio::spawn(async move { store.lock_acquire(&request).await });
    yield_now().await;
    assert!(!waiter.is_finished(), "the lock is held, so the waiter waits");
    waiter
}

async fn poll_once<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send + '_>>) -> Poll<T> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

fn token(outcome: Result<LockOutcome>) -> FencingToken {
    match outcome.unwrap() {
        LockOutcome::Granted(grant) => grant.token,
        LockOutcome::Busy(busy) => panic!("not granted: {busy:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_waiters_get_the_lock_in_the_order_they_came() {
    let (store, _) = store();
    let holder = hold(&store, LockMode::Exclusive).await;
    let (sender, mut granted) = mpsc::unbounded_channel();
    for number in 0..16 {
        let (store, sender) = (store.clone(), sender.clone());
        tokio::spawn(async move {
            let request = exclusive();
            let token = token(store.lock_acquire(&request).await);
            sender.send((number, token)).unwrap();
            release(&store, request.owner).await;
        });
        yield_now().await;
    }
    release(&store, holder).await;
    let mut last = None;
    for expected in 0..16 {
        let (number, token) = granted.recv().await.unwrap();
        assert_eq!(number, expected);
        assert!(last.is_none_or(|last| last < token), "tokens rise");
        last = Some(token);
    }
    yield_now().await;
    assert!(is_free(&store).await);
}

#[tokio::test(start_paused = true)]
async fn shared_waiters_behind_each_other_are_let_in_together() {
    let (store, _) = store();
    let holder = hold(&store, LockMode::Exclusive).await;
    let readers = [queue(&store, request(LockMode::Shared)).await, queue(&store, request(LockMode::Shared)).await];
    let writer = queue(&store, exclusive()).await;
    let late_reader = queue(&store, request(LockMode::Shared)).await;
    release(&store, holder).await;
    for reader in readers {
        token(reader.await.unwrap());
    }
    assert_eq!(store.lock_inspect(&key()).await.unwrap().unwrap().holders.len(), 2);
    assert!(!writer.is_finished() && !late_reader.is_finished(), "the writer is next, and nobody overtakes it");
    assert_eq!(store.lock_force_release(&key(), "test").await.unwrap(), 2);
    token(writer.await.unwrap());
    assert!(!late_reader.is_finished());
}

#[tokio::test(start_paused = true)]
async fn newcomer_does_not_overtake_a_waiter_of_another_mode() {
    let (store, _) = store();
    let reader = request(LockMode::Shared);
    let first = token(store.lock_acquire(&reader).await);
    let writer = queue(&store, exclusive()).await;
    let newcomer = LockRequest { wait: Duration::ZERO, ..request(LockMode::Shared) };
    assert!(matches!(store.lock_acquire(&newcomer).await, Ok(LockOutcome::Busy(busy)) if busy.token == Some(first)));
    assert_eq!(token(store.lock_acquire(&reader).await), first, "a repeated request finds its own grant all the same");
    release(&store, reader.owner).await;
    token(writer.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn dropped_waiter_leaves_its_place_to_the_next() {
    let (store, _) = store();
    let holder = hold(&store, LockMode::Shared).await;
    let writer = queue(&store, exclusive()).await;
    let reader = queue(&store, request(LockMode::Shared)).await;
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    // The reader fits with the holder as soon as the writer between them is gone.
    token(reader.await.unwrap());
    release(&store, holder).await;
}

#[tokio::test(start_paused = true)]
async fn waiter_dropped_after_the_hand_over_holds_nothing_and_may_ask_again() {
    let (store, _) = store();
    let holder = hold(&store, LockMode::Exclusive).await;
    let (first, second) = (exclusive(), exclusive());
    let mut waiting = store.lock_acquire(&first);
    assert!(poll_once(&mut waiting).await.is_pending());
    let next = queue(&store, second.clone()).await;
    release(&store, holder).await;
    let lock = store.lock_inspect(&key()).await.unwrap().unwrap();
    assert_eq!(lock.holders[0].owner, first.owner, "it was handed over, and nobody has looked yet");
    drop(waiting);
    token(next.await.unwrap());
    let lock = store.lock_inspect(&key()).await.unwrap().unwrap();
    assert_eq!(lock.holders.len(), 1);
    assert_eq!(lock.holders[0].owner, second.owner);
    release(&store, second.owner).await;
    assert!(is_free(&store).await);
    // It has never had the lock, so it has not released it either.
    token(store.lock_acquire(&first).await);
}

#[tokio::test(start_paused = true)]
async fn lease_that_ends_lets_the_next_waiter_in() {
    let (store, clock) = store();
    let holder = hold(&store, LockMode::Exclusive).await;
    let waiter = queue(&store, exclusive()).await;
    clock.advance(LEASE);
    store.tick();
    token(waiter.await.unwrap());
    assert_eq!(store.lock_release(&key(), holder).await.unwrap(), ReleaseOutcome::AlreadyLost);
}

#[tokio::test(start_paused = true)]
async fn waiter_wakes_by_itself_when_the_lease_ends() {
    let (store, clock) = store();
    hold(&store, LockMode::Exclusive).await;
    let waiter = queue(&store, exclusive()).await;
    clock.advance(LEASE);
    // No tick: tokio's paused clock jumps to the end of the lease that the waiter sleeps for.
    token(waiter.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn shortened_lease_is_noticed_by_who_waits_for_it() {
    let (store, clock) = store();
    let holder = hold(&store, LockMode::Exclusive).await;
    let waiter = queue(&store, exclusive()).await;
    let short = Duration::from_secs(1);
    assert_eq!(store.lock_extend(&key(), holder, short).await.unwrap(), ExtendOutcome::Extended);
    let began = tokio::time::Instant::now();
    clock.advance(short);
    token(waiter.await.unwrap());
    assert!(began.elapsed() < LEASE, "it did not sleep until the end of the lease it saw first");
}

#[tokio::test(start_paused = true)]
async fn impatient_waiter_gets_busy_and_leaves_the_queue() {
    let (store, _) = store();
    let holder = hold(&store, LockMode::Exclusive).await;
    let impatient = LockRequest { wait: Duration::from_secs(5), ..exclusive() };
    let began = tokio::time::Instant::now();
    assert!(matches!(store.lock_acquire(&impatient).await, Ok(LockOutcome::Busy(_))));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    release(&store, holder).await;
    assert!(is_free(&store).await);
}

#[tokio::test(start_paused = true)]
async fn two_handles_on_one_engine_hand_the_lock_to_each_other() {
    let (store, _) = store();
    let other = store.handle();
    let holder = hold(&store, LockMode::Exclusive).await;
    let waiter = queue(&other, exclusive()).await;
    release(&store, holder).await;
    token(waiter.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn closing_a_handle_ends_its_waits_and_no_others() {
    let (store, _) = store();
    let other = store.handle();
    let holder = hold(&store, LockMode::Exclusive).await;
    let ours = queue(&store, exclusive()).await;
    let theirs = queue(&other, exclusive()).await;
    store.close().await.unwrap();
    assert_eq!(ours.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    release(&other, holder).await;
    token(theirs.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_holder_at_a_time_while_other_waiters_are_dropped_anywhere() {
    let store = MemoryStore::default();
    let inside = Arc::new(AtomicU32::new(0));
    let workers = (0..32_usize).map(|worker| {
        let (store, inside) = (store.clone(), inside.clone());
        tokio::spawn(async move {
            for round in 0..100_usize {
                let request = exclusive();
                let mut waiting = store.lock_acquire(&request);
                if (worker + round) % 3 == 0 && give_up_after(&mut waiting, round % 7).await.is_none() {
                    continue;
                }
                if (worker + round) % 3 != 0 {
                    token(waiting.await);
                }
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "exclusive");
                yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                release(&store, request.owner).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert!(is_free(&store).await, "nothing was left behind");
}

/// Polls a few times and gives up; the grant, if it came.
async fn give_up_after(
    waiting: &mut Pin<Box<dyn Future<Output = Result<LockOutcome>> + Send + '_>>,
    polls: usize,
) -> Option<FencingToken> {
    for _ in 0..polls {
        if let Poll::Ready(outcome) = poll_once(waiting).await {
            return Some(token(outcome));
        }
        yield_now().await;
    }
    None
}
