//! Lease locks: notifications, the line inside of one process, what a dropped future leaves behind, and tokens over a crash.

use std::time::{Duration, Instant};

use acteon_state_core::{ErrorKind, LockMode, LockOutcome, LockRequest, ReleaseOutcome, StateKey, StateStore};
use acteon_state_postgres::PostgresStore;
use acteon_test_support::{Fault, FaultProxy, PostgresServer};

use super::{LEASE, PATIENCE, ask, connect, granted, inspect, key, listeners, request, start, until};

/// Acquires, checks that nobody else holds it, and releases.
async fn pass_through(store: PostgresStore, key: StateKey) -> u64 {
    let request = request(&key, PATIENCE);
    let token = granted(&store, &request).await.token;
    let holders = inspect(&store, &key).await.holders;
    assert_eq!(holders.iter().map(|holder| holder.owner).collect::<Vec<_>>(), [request.owner]);
    assert_eq!(store.lock_release(&key, request.owner).await.unwrap(), ReleaseOutcome::Released);
    token.get()
}

/// How long it takes from a release on one node until a waiter on the other has the lock, all rounds together.
pub(super) async fn hand_overs(
    server: &PostgresServer,
    holding: &PostgresStore,
    waiting: &PostgresStore,
    rounds: u32,
) -> Duration {
    let mut total = Duration::ZERO;
    for round in 0..rounds {
        let key = key(&format!("hand-over {round}"));
        let holder = request(&key, Duration::ZERO);
        granted(holding, &holder).await;
        let waiter = {
            let (store, request) = (waiting.clone(), request(&key, PATIENCE));
            tokio::spawn(async move {
                granted(&store, &request).await;
                Instant::now()
            })
        };
        until("the waiter left its mark", || async {
            let sql = format!("SELECT waited_until_us > 0 FROM acteon_locks WHERE id = 'hand-over {round}'");
            ask(server, &sql) == "t"
        })
        .await;
        until("the waiter's node listens", || async { listeners(server) > 0 }).await;
        let released = Instant::now();
        holding.lock_release(&key, holder.owner).await.unwrap();
        total += waiter.await.unwrap() - released;
    }
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_woken_by_a_release_on_another_node() {
    let server = start();
    let (holding, waiting) = (connect(&server.url()).await, connect(&server.url()).await);
    let total = hand_overs(&server, &holding, &waiting, 8).await;
    // By sleeping alone, each would take half a second on average.
    assert!(total < Duration::from_secs(1), "{total:?}");
    println!("8 hand-overs between nodes: {total:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_waiters_of_two_nodes_follow_each_other() {
    const WAITERS: usize = 16;
    let server = start();
    let stores = [connect(&server.url()).await, connect(&server.url()).await];
    let key = key("line");
    let first = request(&key, Duration::ZERO);
    let mut last = granted(&stores[0], &first).await.token.get();
    let waiters: Vec<_> =
        (0..WAITERS).map(|index| tokio::spawn(pass_through(stores[index % 2].clone(), key.clone()))).collect();
    until("both nodes listen", || async { listeners(&server) == 2 }).await;
    stores[0].lock_release(&key, first.owner).await.unwrap();
    let released = Instant::now();
    let mut tokens = Vec::new();
    for waiter in waiters {
        tokens.push(waiter.await.unwrap());
    }
    tokens.sort_unstable();
    for token in tokens {
        assert!(token > last);
        last = token;
    }
    // Without notifications, most of them would have slept for a second.
    assert!(released.elapsed() < Duration::from_secs(5), "{:?}", released.elapsed());
    println!("{WAITERS} hand-overs: {:?}", released.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_holders_and_permits_let_each_other_in() {
    let server = start();
    let stores = [connect(&server.url()).await, connect(&server.url()).await];
    for (mode, holders) in [(LockMode::Shared, 6), (LockMode::Permit { of: 3 }, 3)] {
        let key = key(&format!("{mode:?}"));
        let first = request(&key, Duration::ZERO);
        granted(&stores[0], &first).await;
        let requests: Vec<LockRequest> = (0..6).map(|_| LockRequest { mode, ..request(&key, PATIENCE) }).collect();
        let waiters: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(index, request)| {
                let (store, request) = (stores[index % 2].clone(), request.clone());
                tokio::spawn(async move { granted(&store, &request).await })
            })
            .collect();
        until("both nodes listen", || async { listeners(&server) == 2 }).await;
        stores[0].lock_release(&key, first.owner).await.unwrap();
        until("they hold it together", || async { inspect(&stores[0], &key).await.holders.len() == holders }).await;
        for _ in &requests {
            until("somebody holds it", || async { !inspect(&stores[0], &key).await.holders.is_empty() }).await;
            let owner = inspect(&stores[0], &key).await.holders[0].owner;
            assert_eq!(stores[1].lock_release(&key, owner).await.unwrap(), ReleaseOutcome::Released);
        }
        for waiter in waiters {
            waiter.await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_never_finds_a_lock_busy_does_not_listen() {
    let server = start();
    let store = connect(&server.url()).await;
    for round in 0..10 {
        pass_through(store.clone(), key(&format!("alone {round}"))).await;
    }
    assert_eq!(listeners(&server), 0);
}

#[tokio::test]
async fn a_waiter_survives_the_loss_of_all_connections() {
    let server = start();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let through_proxy = server.url().replace(&server.address().to_string(), &proxy.address().to_string());
    let (waiting, holding) = (connect(&through_proxy).await, connect(&server.url()).await);
    let key = key("reconnect");
    let holder = request(&key, Duration::ZERO);
    granted(&holding, &holder).await;
    let waiter = {
        let (store, request) = (waiting.clone(), request(&key, PATIENCE));
        tokio::spawn(async move { granted(&store, &request).await })
    };
    until("the waiter's node listens", || async { listeners(&server) == 1 }).await;
    // Perhaps while it asks, perhaps while it sleeps: it goes on in either case.
    let before = ask(&server, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'");
    proxy.cut();
    until("the waiter's node listens again", || async {
        let pid = ask(&server, "SELECT max(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'");
        !pid.is_empty() && pid != before
    })
    .await;
    holding.lock_release(&key, holder.owner).await.unwrap();
    tokio::time::timeout(PATIENCE, waiter).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_acquisition_leaves_nothing_held_and_its_owner_may_ask_again() {
    let server = start();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let through_proxy = server.url().replace(&server.address().to_string(), &proxy.address().to_string());
    let (store, direct) = (connect(&through_proxy).await, connect(&server.url()).await);
    let key = key("dropped");
    // The statement is prepared before the network becomes slow.
    pass_through(store.clone(), super::key("warm")).await;
    let asked = request(&key, Duration::ZERO);
    // Long enough for a busy machine to have sent the request, and too short for the answer.
    let soon = Duration::from_millis(100);
    proxy.set(Fault::Delay(Duration::from_millis(150)));
    let dropped = tokio::time::timeout(soon, store.lock_acquire(&asked)).await;
    assert!(dropped.is_err(), "the answer came too early for this test");
    until("the request was granted", || async { direct.lock_inspect(&key).await.unwrap().is_some() }).await;
    until("the grant was withdrawn", || async { inspect(&direct, &key).await.holders.is_empty() }).await;
    // The same owner again, while its withdrawal is under way: the new grant stays.
    let dropped = tokio::time::timeout(soon, store.lock_acquire(&asked)).await;
    assert!(dropped.is_err());
    let grant = granted(&store, &asked).await;
    let state = inspect(&direct, &key).await;
    assert_eq!(state.holders.iter().map(|holder| holder.token).collect::<Vec<_>>(), [grant.token]);
    // A waiter that leaves was never more than that.
    let gone = tokio::time::timeout(Duration::from_millis(300), direct.lock_acquire(&request(&key, PATIENCE))).await;
    assert!(gone.is_err());
    assert_eq!(store.lock_release(&key, asked.owner).await.unwrap(), ReleaseOutcome::Released);
    assert!(inspect(&direct, &key).await.holders.is_empty());
}

#[tokio::test]
async fn a_wait_ends_with_busy_and_with_the_store() {
    let server = start();
    let store = connect(&server.url()).await;
    let key = key("busy");
    let token = granted(&store, &request(&key, Duration::ZERO)).await.token;
    let LockOutcome::Busy(busy) = store.lock_acquire(&request(&key, Duration::from_millis(50))).await.unwrap() else {
        panic!("two holders");
    };
    assert_eq!(busy.token, Some(token));
    assert!(busy.retry_after > LEASE / 2 && busy.retry_after <= LEASE);
    let waiter = {
        let (store, request) = (store.clone(), request(&key, PATIENCE));
        tokio::spawn(async move { store.lock_acquire(&request).await })
    };
    until("the waiter's node listens", || async { listeners(&server) == 1 }).await;
    store.close().await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    until("nobody listens any more", || async { listeners(&server) == 0 }).await;
}

#[tokio::test]
async fn grants_outlive_a_killed_server_and_tokens_go_on_rising() {
    let mut server = start();
    let store = connect(&server.url()).await;
    let (held, free) = (key("held"), key("free"));
    let holder = request(&held, Duration::ZERO);
    let held_token = granted(&store, &holder).await.token;
    let mut last = 0;
    for _ in 0..3 {
        for _ in 0..10 {
            let token = pass_through(store.clone(), free.clone()).await;
            assert!(token > last);
            last = token;
        }
        server.kill9().unwrap();
        server.restart().unwrap();
        until("the store is connected again", || async { store.ping().await.is_ok() }).await;
        let LockOutcome::Busy(busy) = store.lock_acquire(&request(&held, Duration::ZERO)).await.unwrap() else {
            panic!("the grant was lost");
        };
        assert_eq!(busy.token, Some(held_token));
        assert_eq!(inspect(&store, &free).await.last_token.get(), last);
    }
    assert_eq!(store.lock_release(&held, holder.owner).await.unwrap(), ReleaseOutcome::Released);
}
