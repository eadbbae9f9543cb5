//! Locks that are handed over inside of one process: what that costs, who may hold them meanwhile, and a waiter that leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::{Get, LockMode, LockRequest, ReleaseOutcome, StateKey, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{Fault, FaultProxy, PostgresOptions, PostgresServer};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{LEASE, PATIENCE, ask, connect, granted, inspect, key, listeners, request, start, until};

const WAITERS: usize = 8;
const TURNS_EACH: usize = 20;
/// Long enough to see a grant before its answer has arrived, most of the time.
const DELAY: Duration = Duration::from_millis(300);

/// Takes the lock again and again, and makes sure that nobody else has it meanwhile. Returns the tokens.
async fn take_turns(store: PostgresStore, key: StateKey, is_held: Arc<AtomicBool>) -> Vec<u64> {
    let mut tokens = Vec::new();
    for _ in 0..TURNS_EACH {
        let request = request(&key, PATIENCE);
        tokens.push(granted(&store, &request).await.token.get());
        assert!(!is_held.swap(true, Ordering::AcqRel), "two hold it");
        is_held.store(false, Ordering::Release);
        assert_eq!(store.lock_release(&key, request.owner).await.unwrap(), ReleaseOutcome::Released);
    }
    tokens
}

/// Release and grant were two statements and two commits, so waiters of one process got no more turns than ones that poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_and_the_next_grant_at_home_are_one_statement() {
    let settings = vec!["track_functions = 'pl'".to_owned()];
    let server = PostgresServer::start(PostgresOptions { settings, ..PostgresOptions::default() }).unwrap();
    let store = connect(&server.url()).await;
    let (key, is_held) = (key("at home"), Arc::default());
    // With nobody listening yet, requests do not travel with a release.
    let first = request(&key, Duration::ZERO);
    granted(&store, &first).await;
    let waiters: Vec<_> =
        (0..WAITERS).map(|_| tokio::spawn(take_turns(store.clone(), key.clone(), Arc::clone(&is_held)))).collect();
    until("the node listens", || async { listeners(&server) == 1 }).await;
    store.lock_release(&key, first.owner).await.unwrap();
    let mut tokens = Vec::new();
    for waiter in waiters {
        let own = waiter.await.unwrap();
        assert!(own.is_sorted());
        tokens.extend(own);
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), WAITERS * TURNS_EACH, "each grant has a token of its own");
    store.close().await.unwrap();
    until("all sessions have ended", || async {
        ask(&server, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == "1"
    })
    .await;
    let calls = "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'acteon_lock'";
    let statements: usize = ask(&server, calls).parse().unwrap();
    println!("{statements} statements for {} turns", tokens.len());
    // Two for each turn without; and on a machine so slow that the lock leaves home at each second turn, one and a half.
    assert!(statements * 5 < tokens.len() * 9, "{statements} statements for {} turns", tokens.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_of_two_nodes_have_the_lock_in_turn_whatever_is_handed_over_at_home() {
    let server = start();
    let stores = [connect(&server.url()).await, connect(&server.url()).await];
    let (key, is_held) = (key("both"), Arc::default());
    let first = request(&key, Duration::ZERO);
    granted(&stores[0], &first).await;
    let waiters: Vec<_> = (0..WAITERS)
        .map(|at| tokio::spawn(take_turns(stores[at % 2].clone(), key.clone(), Arc::clone(&is_held))))
        .collect();
    until("both nodes listen", || async { listeners(&server) == 2 }).await;
    stores[0].lock_release(&key, first.owner).await.unwrap();
    for waiter in waiters {
        assert!(waiter.await.unwrap().is_sorted());
    }
}

/// Permits are handed over like locks: who gets one leaves the others as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permits_that_are_handed_over_are_never_more_than_there_are() {
    const PERMITS: u32 = 3;
    let server = start();
    let store = connect(&server.url()).await;
    let (key, held) = (key("permits"), Arc::new(AtomicUsize::new(0)));
    let mode = LockMode::Permit { of: PERMITS };
    let workers: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (store, key, held) = (store.clone(), key.clone(), held.clone());
            tokio::spawn(async move {
                for _ in 0..TURNS_EACH {
                    let request = LockRequest { mode, ..request(&key, PATIENCE) };
                    granted(&store, &request).await;
                    assert!(held.fetch_add(1, Ordering::AcqRel) < PERMITS as usize, "too many hold it");
                    tokio::task::yield_now().await;
                    held.fetch_sub(1, Ordering::AcqRel);
                    assert_eq!(store.lock_release(&key, request.owner).await.unwrap(), ReleaseOutcome::Released);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(inspect_is_free(&store, &key).await);
}

async fn inspect_is_free(store: &PostgresStore, key: &StateKey) -> bool {
    store.lock_inspect(key).await.unwrap().is_none_or(|state| state.holders.is_empty())
}

/// The request of a waiter travels with somebody else's release: nobody but the waiter can give back what it was granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_leaves_while_it_is_handed_the_lock_leaves_nothing_held() {
    let server = start();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let through_proxy = server.url().replace(&server.address().to_string(), &proxy.address().to_string());
    let (store, direct) = (connect(&through_proxy).await, connect(&server.url()).await);
    let mut rounds = 0..20;
    loop {
        let round = rounds.next().expect("a waiter is caught between its grant and the answer");
        let key = key(&format!("left {round}"));
        let holder = request(&key, Duration::ZERO);
        granted(&store, &holder).await;
        let waiting = LockRequest { lease: LEASE, ..request(&key, PATIENCE) };
        let waiter = {
            let (store, waiting) = (store.clone(), waiting.clone());
            tokio::spawn(async move { granted(&store, &waiting).await })
        };
        until("the waiter left its mark", || async {
            ask(&server, &format!("SELECT waited_until_us > 0 FROM acteon_locks WHERE id = 'left {round}'")) == "t"
        })
        .await;
        until("the node listens", || async { listeners(&server) == 1 }).await;
        proxy.set(Fault::Delay(DELAY));
        let releasing = {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.lock_release(&key, holder.owner).await })
        };
        until("the waiter has the lock", || async {
            let state = inspect(&direct, &key).await;
            state.holders.iter().any(|holder| holder.owner == waiting.owner)
        })
        .await;
        waiter.abort();
        let was_caught = waiter.await.is_err();
        proxy.set(Fault::None);
        assert_eq!(releasing.await.unwrap().unwrap(), ReleaseOutcome::Released);
        if was_caught {
            until("the grant was given back", || inspect_is_free(&direct, &key)).await;
            return;
        }
        store.lock_release(&key, waiting.owner).await.unwrap();
    }
}

/// A lock was handed to a waiter that was there, though nobody polled it: it held the lock until its lease ended, a minute later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_is_not_polled_is_not_left_with_the_lock() {
    let server = start();
    let (store, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let key = key("not polled");
    let holder = request(&key, Duration::ZERO);
    granted(&store, &holder).await;
    let (first, second) = (request(&key, PATIENCE * 2), request(&key, PATIENCE * 2));
    let mut sleeping = Box::pin(granted(&store, &first));
    while listeners(&server) == 0 {
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut sleeping).await.is_err());
    }
    // Until it sleeps again, having asked once more with notifications.
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut sleeping).await.is_err());
    // It stands behind the one that sleeps, whose turn it is.
    let behind = tokio::spawn({
        let (store, second) = (store.clone(), second.clone());
        async move {
            granted(&store, &second).await;
            store.lock_release(&second.key, second.owner).await.unwrap()
        }
    });
    store.lock_release(&key, holder.owner).await.unwrap();
    let elsewhere = request(&key, PATIENCE);
    granted(&other, &elsewhere).await;
    other.lock_release(&key, elsewhere.owner).await.unwrap();
    // The one that slept asks again.
    sleeping.await;
    store.lock_release(&key, first.owner).await.unwrap();
    assert_eq!(behind.await.unwrap(), ReleaseOutcome::Released);
}

/// A release that takes a request along needs two places in the queue. With one left it was refused, and the lock stayed held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_finds_its_place_where_there_is_none_for_a_request_beside_it() {
    let server = start();
    let config = PostgresConfig {
        connections: 1,
        queue_max: 2,
        sweep_interval: LEASE,
        operation_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        ..PostgresConfig::from_url(&server.url()).unwrap()
    };
    let (store, key) = (PostgresStore::connect(config).await.unwrap(), key("one place"));
    let holder = request(&key, Duration::ZERO);
    granted(&store, &holder).await;
    let waiting = request(&key, PATIENCE);
    let mut waiter = Box::pin(granted(&store, &waiting));
    while listeners(&server) == 0 {
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiter).await.is_err());
    }
    // The one connection waits, and so does what comes next.
    let mut other = PgConnection::connect(&server.url()).await.unwrap();
    other.execute("BEGIN; LOCK TABLE acteon_entries").await.unwrap();
    // They are submitted, or refused, when they are polled first.
    let mut under_way = Box::pin(store.get(&key, Get::default()));
    assert!(futures_util::poll!(&mut under_way).is_pending());
    until("the connection waits", || async { ask(&server, "SELECT count(*) FROM pg_locks WHERE NOT granted") == "1" })
        .await;
    let mut behind = Box::pin(store.get(&key, Get::default()));
    assert!(futures_util::poll!(&mut behind).is_pending());
    let mut release = Box::pin(store.lock_release(&key, holder.owner));
    assert!(futures_util::poll!(&mut release).is_pending());
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(release.await.unwrap(), ReleaseOutcome::Released);
    under_way.await.unwrap();
    behind.await.unwrap();
    waiter.await;
}
