//! Waiting for a lock: notifications, the line inside of one process, and what a dropped future leaves behind.

use std::time::{Duration, Instant};

use acteon_state_core::{
    ErrorKind, LockGrant, LockOutcome, LockRequest, LockState, ReleaseOutcome, StateKey, StateStore,
};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{Fault, FaultProxy};

use super::{PATIENCE, connect, key, server, until};

const LEASE: Duration = Duration::from_secs(60);

fn request(key: &StateKey, wait: Duration) -> LockRequest {
    LockRequest { wait, ..LockRequest::new(key.clone(), LEASE) }
}

async fn granted(store: &RedisStore, request: &LockRequest) -> LockGrant {
    match store.lock_acquire(request).await.unwrap() {
        LockOutcome::Granted(grant) => grant,
        LockOutcome::Busy(busy) => panic!("{busy:?}"),
    }
}

async fn inspect(store: &RedisStore, key: &StateKey) -> LockState {
    store.lock_inspect(key).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_of_two_processes_follow_each_other_by_notification() {
    const WAITERS: usize = 40;
    let server = server();
    let stores = [connect(&server).await, connect(&server).await];
    let key = key("line");
    let first = request(&key, Duration::ZERO);
    let mut last = granted(&stores[0], &first).await.token;
    let waiters: Vec<_> = (0..WAITERS)
        .map(|index| {
            let (store, key) = (stores[index % 2].clone(), key.clone());
            tokio::spawn(async move {
                let request = request(&key, PATIENCE);
                let token = granted(&store, &request).await.token;
                assert_eq!(store.lock_release(&key, request.owner).await.unwrap(), ReleaseOutcome::Released);
                token
            })
        })
        .collect();
    stores[0].lock_release(&key, first.owner).await.unwrap();
    let started = Instant::now();
    let mut tokens = Vec::new();
    for waiter in waiters {
        tokens.push(waiter.await.unwrap());
    }
    tokens.sort_unstable();
    for token in tokens {
        assert!(token > last);
        last = token;
    }
    // Without notifications each of them would have slept for a second.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_waiter_without_the_right_to_subscribe_gets_the_lock_by_its_own_sleep() {
    let server = server();
    let rights = "on >pw +@all ~* resetchannels";
    let command: Vec<&str> = ["ACL", "SETUSER", "ada"].into_iter().chain(rights.split(' ')).collect();
    server.query(&command).unwrap();
    let url = format!("redis://ada:pw@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let key = key("deaf");
    let holder = request(&key, Duration::ZERO);
    granted(&store, &holder).await;
    let waiter = request(&key, PATIENCE);
    let (_, outcome) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(store.lock_release(&key, holder.owner).await.unwrap(), ReleaseOutcome::Released);
        },
        granted(&store, &waiter)
    );
    assert!(outcome.deadline.remaining() > LEASE / 2);
}

#[tokio::test]
async fn a_waiter_survives_the_loss_of_the_connection() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let waiting = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let holding = connect(&server).await;
    let key = key("reconnect");
    let holder = request(&key, Duration::ZERO);
    granted(&holding, &holder).await;
    let waiter = {
        let (store, request) = (waiting.clone(), request(&key, PATIENCE));
        tokio::spawn(async move { granted(&store, &request).await })
    };
    until("the waiter has subscribed", || async {
        server.query(&["CLIENT", "LIST"]).unwrap().unwrap().contains(" sub=1 ")
    })
    .await;
    proxy.cut();
    until("the waiter has subscribed again", || async {
        server.query(&["CLIENT", "LIST"]).unwrap().unwrap().matches(" sub=1 ").count() == 1
    })
    .await;
    holding.lock_release(&key, holder.owner).await.unwrap();
    tokio::time::timeout(PATIENCE, waiter).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_acquisition_leaves_nothing_held_and_its_owner_may_ask_again() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let direct = connect(&server).await;
    let key = key("dropped");
    let asked = request(&key, Duration::ZERO);
    proxy.set(Fault::Delay(Duration::from_millis(50)));
    let dropped = tokio::time::timeout(Duration::from_millis(20), store.lock_acquire(&asked)).await;
    assert!(dropped.is_err(), "the answer came too early for this test");
    until("the request was granted", || async { direct.lock_inspect(&key).await.unwrap().is_some() }).await;
    until("the grant was withdrawn", || async { inspect(&direct, &key).await.holders.is_empty() }).await;
    // The same owner again, while a withdrawal of it is under way: the new grant stays.
    let dropped = tokio::time::timeout(Duration::from_millis(20), store.lock_acquire(&asked)).await;
    assert!(dropped.is_err());
    let grant = granted(&store, &asked).await;
    store.ping().await.unwrap();
    let state = inspect(&direct, &key).await;
    assert_eq!(state.holders.iter().map(|holder| holder.token).collect::<Vec<_>>(), [grant.token]);
}

#[tokio::test]
async fn a_wait_ends_with_busy_and_with_the_store() {
    let server = server();
    let store = connect(&server).await;
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
    until("the waiter has subscribed", || async {
        server.query(&["CLIENT", "LIST"]).unwrap().unwrap().contains(" sub=1 ")
    })
    .await;
    store.close().await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}
