//! Listings while slots move: whatever exists throughout is seen, wherever it is at the moment.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::{BatchOp, LockRequest, Put, Scan, Scope, StateKey, StateStore};
use acteon_state_redis::RedisStore;

use super::super::until;
use super::{SHARE, cluster, connect, slot_of};

const KEYS: usize = 1_000;
const LOCKS: usize = 30;
/// Slots that go to one node before some go to the next.
const AT_ONCE: usize = 30;

fn scope() -> Scope {
    Scope::new("driver", "tests", "listed").unwrap()
}

fn listed(number: usize) -> StateKey {
    StateKey::new("driver", "tests", "listed", &number.to_string()).unwrap()
}

async fn put_all(store: &RedisStore) -> HashSet<StateKey> {
    let keys: Vec<_> = (0..KEYS).map(listed).collect();
    let puts: Vec<_> = keys.iter().map(|key| BatchOp::Put(key.clone(), Put::new("1"))).collect();
    assert!(store.batch(&puts).await.unwrap().iter().all(Result::is_ok));
    keys.into_iter().collect()
}

/// Lists everything in small pages, with a pause after each.
async fn list(store: &RedisStore, pause: Duration) -> HashSet<StateKey> {
    let mut seen = HashSet::new();
    let mut cursor = None;
    loop {
        let page = store.scan(&Scan::new(scope()).page_size(20).from_cursor(cursor)).await.unwrap();
        seen.extend(page.items.into_iter().map(|item| item.key));
        cursor = page.next;
        if cursor.is_none() {
            return seen;
        }
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_sees_all_keys_while_their_slots_move() {
    let cluster = Arc::new(cluster());
    let store = connect(&cluster).await;
    let keys = put_all(&store).await;
    let (ends, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mover = tokio::task::spawn_blocking({
        let (cluster, ends, moved) = (cluster.clone(), ends.clone(), moved.clone());
        move || {
            // Round and round, so that there are always some that go from a node not yet listed to one that was.
            for to in (0..3).cycle() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                for _ in 0..AT_ONCE {
                    let key = listed(rand::random_range(0..KEYS));
                    cluster.move_slot(slot_of(&key), to).unwrap();
                    moved.fetch_add(1, Ordering::Relaxed);
                }
                cluster.wait_until_agreed().unwrap();
            }
        }
    });
    until("slots move", async || moved.load(Ordering::Relaxed) > 0).await;
    let listing = tokio::spawn({
        let store = store.clone();
        async move { list(&store, Duration::from_millis(3)).await }
    });
    until("slots have moved in the meantime", async || moved.load(Ordering::Relaxed) > 3 * AT_ONCE).await;
    assert!(!listing.is_finished(), "it must not end while slots are on the move");
    ends.store(true, Ordering::Relaxed);
    let seen = listing.await.unwrap();
    let missed: Vec<_> = keys.difference(&seen).collect();
    assert!(missed.is_empty(), "{} of {KEYS} keys were missed, such as {:?}", missed.len(), missed.first());
    mover.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_sees_what_went_to_a_node_that_it_had_not_heard_of() {
    let mut cluster = cluster();
    let (mover, idle) = (connect(&cluster).await, connect(&cluster).await);
    let keys = put_all(&mover).await;
    let new = cluster.add_node().unwrap();
    let of_the_first: Vec<_> = keys.iter().filter(|key| slot_of(key) < SHARE).take(50).collect();
    for key in &of_the_first {
        cluster.move_slot(slot_of(key), new).unwrap();
    }
    // This one has made no request since, which would have told it.
    let seen = list(&idle, Duration::ZERO).await;
    assert_eq!(keys.difference(&seen).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_goes_and_comes_back_behind_a_listing_is_not_missed() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let keys = put_all(&store).await;
    let mut order: Vec<(String, usize)> =
        (0..3).map(|place| (cluster.nodes[place].query(&["CLUSTER", "MYID"]).unwrap().unwrap(), place)).collect();
    // The order in which nodes are listed.
    order.sort();
    let [(_, first), (second_id, second), (third_id, _)] = &order[..] else { panic!("{order:?}") };
    let mut seen = HashSet::new();
    let mut cursor = None;
    let mut away = None;
    let mut is_back = false;
    loop {
        let page = store.scan(&Scan::new(scope()).page_size(20).from_cursor(cursor)).await.unwrap();
        seen.extend(page.items.into_iter().map(|item| item.key));
        let Some(next) = page.next else { break };
        match away {
            // One that was not listed yet goes to the node that is done with.
            None if next.as_str().contains(second_id) => {
                let is_missing = |key: &&StateKey| usize::from(slot_of(key) / SHARE) == *second && !seen.contains(*key);
                let slot = keys.iter().find(is_missing).map(slot_of).unwrap();
                cluster.move_slots([slot], *first).unwrap();
                away = Some(slot);
            }
            // And comes back when that one is done with as well: all is as it was in the beginning.
            Some(slot) if !is_back && next.as_str().contains(third_id) => {
                cluster.move_slots([slot], *second).unwrap();
                is_back = true;
            }
            _ => {}
        }
        cursor = Some(next);
    }
    assert!(is_back);
    assert_eq!(keys.difference(&seen).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_listed_across_a_failover() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let scope = Scope::new("driver", "tests", "held").unwrap();
    let names: HashSet<_> =
        (0..LOCKS).map(|at| StateKey::new("driver", "tests", "held", &at.to_string()).unwrap()).collect();
    for name in &names {
        let request = LockRequest::new(name.clone(), Duration::from_secs(60));
        store.lock_acquire(&request).await.unwrap();
    }
    let mut page = store.lock_list(&Scan::new(scope.clone()).page_size(5)).await.unwrap();
    cluster.fail_over_to(4).unwrap();
    let mut seen: HashSet<StateKey> = HashSet::new();
    loop {
        seen.extend(page.items.into_iter().map(|lock| lock.key));
        let Some(next) = page.next else { break };
        page = store.lock_list(&Scan::new(scope.clone()).page_size(5).from_cursor(Some(next))).await.unwrap();
    }
    assert_eq!(names.difference(&seen).count(), 0);
}
