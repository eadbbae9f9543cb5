//! Waiters: all get their turn, and those of the process that releases at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::StateStore;
use tokio::task::JoinSet;

use super::{LEASE, connect, granted, key, request, start, waiting};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_waiters_over_two_stores_all_get_the_lock_one_at_a_time() {
    let server = start();
    let stores = [connect(&server).await, connect(&server).await];
    let key = key("sixteen");
    let first = request(&key, LEASE);
    granted(&stores[0], &first).await;
    let (inside, turns) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut waiters = JoinSet::new();
    for number in 0..16 {
        let (store, key) = (stores[number % 2].clone(), key.clone());
        let (inside, turns) = (inside.clone(), turns.clone());
        waiters.spawn(async move {
            let mine = waiting(&key);
            granted(&store, &mine).await;
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            turns.fetch_add(1, Ordering::SeqCst);
            store.lock_release(&key, mine.owner).await.unwrap();
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(turns.load(Ordering::SeqCst), 0);
    stores[0].lock_release(&key, first.owner).await.unwrap();
    while let Some(done) = waiters.join_next().await {
        done.unwrap();
    }
    assert_eq!(turns.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn a_release_wakes_the_next_waiter_of_its_process_at_once() {
    let server = start();
    let store = connect(&server).await;
    let mut hand_overs = Vec::new();
    for round in 0..9 {
        let key = key(&format!("wake-{round}"));
        let mine = request(&key, LEASE);
        granted(&store, &mine).await;
        let theirs = waiting(&key);
        let waiter = tokio::spawn({
            let store = store.clone();
            async move { granted(&store, &theirs).await }
        });
        // By now it looks every half a second or so.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let released = Instant::now();
        store.lock_release(&key, mine.owner).await.unwrap();
        waiter.await.unwrap();
        hand_overs.push(released.elapsed());
    }
    hand_overs.sort();
    assert!(hand_overs[4] < Duration::from_millis(60), "{hand_overs:?}");
}

#[tokio::test]
async fn a_release_in_another_process_is_noticed_within_two_seconds() {
    let server = start();
    let (holder, other) = (connect(&server).await, connect(&server).await);
    let key = key("noticed");
    let mine = request(&key, LEASE);
    granted(&holder, &mine).await;
    let theirs = waiting(&key);
    let waiter = tokio::spawn(async move { granted(&other, &theirs).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let released = Instant::now();
    holder.lock_release(&key, mine.owner).await.unwrap();
    waiter.await.unwrap();
    assert!(released.elapsed() < Duration::from_secs(2), "{:?}", released.elapsed());
}

#[tokio::test]
async fn closing_a_store_ends_its_waits() {
    let server = start();
    let (holder, other) = (connect(&server).await, connect(&server).await);
    let key = key("closing");
    granted(&holder, &request(&key, LEASE)).await;
    let theirs = waiting(&key);
    let waiter = tokio::spawn({
        let other = other.clone();
        async move { other.lock_acquire(&theirs).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    other.close().await.unwrap();
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), acteon_state_core::ErrorKind::Closed);
}
