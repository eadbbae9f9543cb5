//! While there is no connection: who waits, for how long and how many; and that nothing goes on once the store is gone.

use std::time::{Duration, Instant};

use acteon_state_core::{Effect, ErrorKind, Get, LockOutcome, LockRequest, Put, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore, Safety};
use acteon_test_support::{RedisCluster, RedisOptions, RedisSentinels, RedisServer, SentinelOptions};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;

use super::{config, connect, key, server, start, until};

const DELAY_MAX: Duration = Duration::from_millis(20);

/// A store whose server was killed, and that has noticed.
async fn disconnected(config: RedisConfig, server: &mut RedisServer) -> RedisStore {
    let store = RedisStore::connect(RedisConfig { reconnect_delay_max: DELAY_MAX, ..config }).await.unwrap();
    server.kill9().unwrap();
    until("the loss is noticed", || async { store.connection_stats().failed_total > 0 }).await;
    store
}

#[tokio::test]
async fn attempts_go_on_and_no_pause_is_longer_than_its_bound() {
    let mut server = server();
    let store = disconnected(config(&server), &mut server).await;
    // With pauses up to the default of two seconds this would take minutes.
    until("a hundred attempts were made", || async { store.connection_stats().failed_total >= 100 }).await;
    server.restart().unwrap();
    until("the store works again", || async { store.ping().await.is_ok() }).await;
    let stats = store.connection_stats();
    assert_eq!((stats.connections, stats.connected_total, stats.disconnected_total), (1, 2, 1));
}

#[tokio::test]
async fn closing_ends_the_attempts_at_once() {
    let mut server = server();
    let store = disconnected(config(&server), &mut server).await;
    let started = Instant::now();
    store.close().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let failed = store.connection_stats().failed_total;
    tokio::time::sleep(20 * DELAY_MAX).await;
    assert_eq!(store.connection_stats().failed_total, failed);
    until("no task is left", || async { tasks() == 0 }).await;
}

#[tokio::test]
async fn a_store_that_is_dropped_in_an_outage_leaves_no_task() {
    let mut server = server();
    let store = disconnected(config(&server), &mut server).await;
    let watch = store.watch_connections();
    assert!(tasks() > 0 && watch.read().is_some());
    drop(store);
    until("no task is left", || async { tasks() == 0 && watch.read().is_none() }).await;
}

#[tokio::test]
async fn a_store_that_is_dropped_leaves_no_task_to_any_server_of_its_topology() {
    let group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let cluster = RedisCluster::start(None, &[]).unwrap();
    for (url, replicas) in [(group.url(), 2), (cluster.url(), 1)] {
        for closed in [true, false] {
            let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
            let primaries = store.connection_stats().connections;
            until("replicas are connected as well", || async {
                store.get(&key("left"), Get::stale_ok()).await.unwrap();
                store.connection_stats().connections >= primaries + replicas
            })
            .await;
            if closed {
                store.close().await.unwrap();
                assert_eq!(store.connection_stats().connections, 0);
                until("no task is left to a store that is closed", || async { tasks() == 0 }).await;
            }
            drop(store);
            until("no task is left", || async { tasks() == 0 }).await;
        }
    }
}

/// Tasks of this test.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn so_many_calls_wait_for_the_next_connection_and_the_others_fail_at_once() {
    const WAITING: usize = 5;
    let mut server = server();
    let connect_wait = Duration::from_secs(15);
    let config = RedisConfig { queue_max: WAITING, connect_wait, operation_timeout: connect_wait, ..config(&server) };
    let store = disconnected(config, &mut server).await;
    let put = Put::new("v");
    let mut calls: FuturesUnordered<_> = (0..20)
        .map(|number| {
            let (store, put) = (&store, &put);
            async move { store.put(&key(&format!("queue {number}")), put).await }
        })
        .collect();
    let started = Instant::now();
    for _ in WAITING..20 {
        let error = calls.next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    }
    assert!(started.elapsed() < connect_wait / 3, "{:?}", started.elapsed());
    assert_eq!(store.connection_stats().queued, WAITING as u64);
    server.restart().unwrap();
    while let Some(call) = calls.next().await {
        assert!(call.unwrap().is_applied());
    }
    assert_eq!(store.connection_stats().queued, 0);
}

#[tokio::test]
async fn behind_a_full_connection_so_many_calls_wait_and_the_others_fail_at_once() {
    const WAITING: usize = 5;
    let server = server();
    let operation_timeout = Duration::from_secs(2);
    let config = RedisConfig { in_flight_max: 1, queue_max: WAITING, operation_timeout, ..config(&server) };
    let store = RedisStore::connect(config).await.unwrap();
    server.pause().unwrap();
    let started = Instant::now();
    let key = key("queue");
    let put = Put::new("v");
    let mut calls: FuturesUnordered<_> = (0..20).map(|_| store.put(&key, &put)).collect();
    for _ in 1 + WAITING..20 {
        let error = calls.next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Throttled, Effect::NotApplied), "{error}");
    }
    assert!(started.elapsed() < operation_timeout / 2, "{:?}", started.elapsed());
    let stats = store.connection_stats();
    assert_eq!((stats.in_flight, stats.queued), (1, WAITING as u64));
    server.resume().unwrap();
    while let Some(call) = calls.next().await {
        call.unwrap();
    }
    let stats = store.connection_stats();
    assert_eq!((stats.in_flight, stats.queued), (0, 0));
}

/// A grant occupies its connection until replicas have it.
#[tokio::test]
async fn grants_that_wait_for_a_replica_hold_up_neither_each_other_nor_anything_else() {
    const GRANTS: usize = 4;
    let wait = Duration::from_secs(1);
    let primary = start(RedisOptions { append_only: true, ..RedisOptions::default() });
    let replica = server();
    replica.query(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    until("the replica follows", || async { replica.info("master_link_status").unwrap().as_deref() == Some("up") })
        .await;
    let store = RedisStore::connect(RedisConfig {
        safety: Safety::Strict,
        lock_replicas: 1,
        lock_replicas_timeout: wait,
        lock_lease_max: Duration::from_millis(50),
        lock_connections: GRANTS,
        operation_timeout: Duration::from_secs(20),
        ..config(&primary)
    })
    .await
    .unwrap();
    until("all connections are open", || async { store.connection_stats().connections == 1 + GRANTS as u64 }).await;
    let request = || LockRequest::new(key("granted"), Duration::from_millis(50));
    until("grants are made", || async {
        matches!(store.lock_acquire(&request()).await.unwrap(), LockOutcome::Granted(_))
    })
    .await;
    replica.pause().unwrap();
    let started = Instant::now();
    let requests: Vec<_> = (0..GRANTS).map(|_| request()).collect();
    let grants = join_all(requests.iter().map(|request| store.lock_acquire(request)));
    let others = async {
        tokio::time::sleep(wait / 10).await;
        let started = Instant::now();
        store.ping().await.unwrap();
        started.elapsed()
    };
    let (grants, other) = tokio::join!(grants, others);
    assert!(
        grants.iter().all(|grant| grant.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotDurable)),
        "{grants:?}"
    );
    assert!(other < wait / 2, "{other:?}");
    // One after the other they would have taken four times as long.
    assert!(started.elapsed() >= wait && started.elapsed() < 3 * wait, "{:?}", started.elapsed());
    replica.resume().unwrap();
}

/// A network was divided: the new primary was on one side, and the old one, with the replicas and the holder of a lock, on the
/// other, for longer than a quarantine. Until the replicas came over, the old one extended leases that the new one knew nothing
/// of; counted from the first connection, the quarantine was over in the moment when the new one could grant again.
#[tokio::test]
async fn a_new_primary_counts_its_quarantine_from_when_it_has_replicas() {
    const LEASE_MAX: Duration = Duration::from_secs(2);
    let settings = vec!["min-replicas-to-write 1".to_owned(), "repl-diskless-sync-delay 0".to_owned()];
    let primary = start(RedisOptions { append_only: true, settings, ..RedisOptions::default() });
    let store = RedisStore::connect(RedisConfig {
        safety: Safety::Strict,
        lock_lease_max: LEASE_MAX,
        reconnect_delay_max: DELAY_MAX,
        ..config(&primary)
    })
    .await
    .unwrap();
    let lock = key("of both sides");
    let acquire = async || store.lock_acquire(&LockRequest::new(lock.clone(), LEASE_MAX)).await;
    tokio::time::sleep(LEASE_MAX + LEASE_MAX / 4).await;
    assert_eq!(acquire().await.unwrap_err().kind(), ErrorKind::NotDurable);
    store.get(&lock, Get::default()).await.unwrap();

    let replica = server();
    replica.query(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    until("the primary takes writes", || async { primary.query(&["SET", "written", "1"]).is_ok() }).await;
    let had_replicas_at = Instant::now();
    until("a lock is granted", || async { matches!(acquire().await, Ok(LockOutcome::Granted(_))) }).await;
    assert!(had_replicas_at.elapsed() > LEASE_MAX * 3 / 4, "after {:?}", had_replicas_at.elapsed());
}

#[tokio::test]
async fn without_strict_safety_no_connection_is_kept_for_grants() {
    let server = server();
    let store = connect(&server).await;
    store.lock_acquire(&LockRequest::new(key("shared"), Duration::from_secs(9))).await.unwrap();
    assert_eq!(store.connection_stats().connected_total, 1);
}
