//! Servers that forget, die, freeze, and connections that break: every call says what happened to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::{BatchOp, BatchReply, Effect, ErrorKind, Get, Increment, Put, PutOutcome, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{Fault, FaultProxy, RedisOptions};
use futures_util::future::join_all;

use super::{config, connect, key, server, start, until};

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again_in_mid_traffic() {
    let server = server();
    let store = connect(&server).await;
    let counter = key("flushed");
    let traffic = (0..20).map(|task| {
        let (store, counter, server) = (&store, &counter, &server);
        async move {
            for round in 0..50 {
                if task == 0 && round % 10 == 0 {
                    server.query(&["SCRIPT", "FLUSH"]).unwrap();
                }
                store.increment(counter, Increment::by(1)).await.unwrap();
                let ops = [BatchOp::Increment(counter.clone(), Increment::by(1))];
                assert!(store.batch(&ops).await.unwrap()[0].is_ok());
            }
        }
    });
    join_all(traffic).await;
    assert_eq!(store.get(&counter, Get::default()).await.unwrap().unwrap().value, "2000");
}

#[tokio::test]
async fn a_batch_that_is_cut_while_its_scripts_are_loaded_again_keeps_the_answers_it_has() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let (written, counted) = (key("written"), key("counted"));
    server.query(&["SCRIPT", "FLUSH"]).unwrap();
    let first_answers = "_\r\n-NOSCRIPT No matching script. Please use EVAL.\r\n";
    proxy.set(Fault::CutReplies { after_bytes: first_answers.len() as u64 });
    let put = Put::new("v").if_absent();
    let ops = [BatchOp::Put(written, put.clone()), BatchOp::Increment(counted, Increment::by(1))];
    let replies = store.batch(&ops).await.unwrap();
    // Told as a failure of the whole, perhaps even as not applied, it would be written a second time by a retry.
    assert_eq!(*replies[0].as_ref().unwrap(), BatchReply::Put(PutOutcome::Applied(put.version)));
    let error = replies[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_and_found_again() {
    let server = server();
    let store = connect(&server).await;
    let key = key("demoted");
    server.query(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let error = store.put(&key, &Put::new("v")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    // Not one connection more to it: reads would be answered with what was true once.
    until("reads are refused as well", || async {
        store.get(&key, Get::default()).await.is_err_and(|error| error.kind() == ErrorKind::Failover)
    })
    .await;
    server.query(&["REPLICAOF", "NO", "ONE"]).unwrap();
    until("the store works again", || async { store.put(&key, &Put::new("v")).await.is_ok() }).await;
}

/// Counts what callers were told.
#[derive(Default)]
struct Told {
    applied: AtomicU64,
    not_applied: AtomicU64,
    unknown: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_mid_traffic_leaves_a_count_between_the_sums() {
    const CALLS: u64 = 10_000;
    const TASKS: u64 = 50;
    let mut server = start(RedisOptions { append_only: true, ..RedisOptions::default() });
    let store = connect(&server).await;
    let (counter, told) = (key("killed"), Arc::new(Told::default()));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, counter, told) = (store.clone(), counter.clone(), told.clone());
            tokio::spawn(async move {
                for _ in 0..CALLS / TASKS {
                    match store.increment(&counter, Increment::by(1)).await {
                        Ok(_) => &told.applied,
                        Err(error) if error.effect() == Effect::Unknown => &told.unknown,
                        Err(_) => &told.not_applied,
                    }
                    .fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("a part was applied", || async { told.applied.load(Ordering::Relaxed) > CALLS / 10 }).await;
    server.kill9().unwrap();
    server.restart().unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    until("the store is connected again", || async { store.ping().await.is_ok() }).await;
    let told = [&told.applied, &told.not_applied, &told.unknown].map(|count| count.load(Ordering::Relaxed));
    let [applied, _, unknown] = told;
    let value = store.get(&counter, Get::default()).await.unwrap().unwrap().value;
    let count: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
    assert_eq!(told.iter().sum::<u64>(), CALLS);
    assert!((applied..=applied + unknown).contains(&count), "{count} is not within what was told: {told:?}");
    // What was in flight at that moment, and no more, is unknown.
    assert!((1..=TASKS).contains(&unknown), "{told:?}");
    assert!(applied > CALLS / 10, "{told:?}");
}

#[tokio::test]
async fn a_frozen_server_is_a_timeout_of_unknown_effect_and_recovers() {
    let server = server();
    let operation_timeout = Duration::from_millis(300);
    let store = RedisStore::connect(RedisConfig { operation_timeout, ..config(&server) }).await.unwrap();
    let key = key("frozen");
    server.pause().unwrap();
    let started = Instant::now();
    let write = store.put(&key, &Put::new("v")).await.unwrap_err();
    assert_eq!((write.kind(), write.effect()), (ErrorKind::Timeout, Effect::Unknown));
    assert!(started.elapsed() >= operation_timeout && started.elapsed() < 10 * operation_timeout);
    let read = store.get(&key, Get::default()).await.unwrap_err();
    assert_eq!((read.kind(), read.effect()), (ErrorKind::Timeout, Effect::NotApplied));
    server.resume().unwrap();
    // The late answers of the calls above must not be taken for those of the calls below.
    until("the store works again", || async { store.ping().await.is_ok() }).await;
    for round in 0..20 {
        let put = Put::new(format!("{round}"));
        store.put(&key, &put).await.unwrap();
        assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().version, Some(put.version));
    }
}

#[tokio::test]
async fn a_server_that_stays_silent_gets_a_fresh_connection() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let config = RedisConfig {
        operation_timeout: Duration::from_millis(100),
        connect_timeout: Duration::from_millis(500),
        ..RedisConfig::from_url(&format!("redis://{}", proxy.address())).unwrap()
    };
    let store = RedisStore::connect(config).await.unwrap();
    store.ping().await.unwrap();
    // Replies of the open connection are lost for good: only a new connection helps.
    proxy.set(Fault::LoseReplies { after_bytes: 0 });
    let lost = join_all((0..20).map(|_| store.ping())).await;
    assert!(lost.iter().all(Result::is_err));
    proxy.set(Fault::None);
    until("the store works again", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_reply_that_is_lost_leaves_writes_unknown_and_reads_not_applied() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let key = key("cut");
    proxy.set(Fault::CutReplies { after_bytes: 0 });
    let write = store.increment(&key, Increment::by(1)).await.unwrap_err();
    assert_eq!((write.kind(), write.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{write}");
    proxy.set(Fault::None);
    until("the store works again", || async { store.ping().await.is_ok() }).await;
    // It was applied, and nobody sent it again.
    assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().value, "1");
    proxy.set(Fault::CutReplies { after_bytes: 0 });
    let read = store.get(&key, Get::default()).await.unwrap_err();
    assert_eq!((read.kind(), read.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{read}");
}

#[tokio::test]
async fn while_the_server_is_gone_calls_fail_fast_and_nothing_was_applied() {
    let mut server = server();
    let config = RedisConfig { connect_wait: Duration::from_millis(50), ..config(&server) };
    let store = RedisStore::connect(config).await.unwrap();
    server.kill9().unwrap();
    until("the loss is noticed", || async {
        store.put(&key("gone"), &Put::new("v")).await.unwrap_err().effect() == Effect::NotApplied
    })
    .await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let started = Instant::now();
    for _ in 0..100 {
        let error = store.put(&key("gone"), &Put::new("v")).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    }
    // Not one after the other as long as a connection may take to come back.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    server.restart().unwrap();
    until("the store works again", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_full_connection_makes_calls_wait_and_then_time_out_without_being_sent() {
    let server = server();
    let operation_timeout = Duration::from_millis(200);
    let config = RedisConfig { in_flight_max: 1, operation_timeout, ..config(&server) };
    let store = RedisStore::connect(config).await.unwrap();
    assert!(join_all((0..50).map(|_| store.ping())).await.iter().all(Result::is_ok));
    server.pause().unwrap();
    let key = key("full");
    let put = Put::new("v");
    let calls = join_all((0..20).map(|_| store.put(&key, &put))).await;
    let errors: Vec<_> = calls.iter().map(|call| call.as_ref().unwrap_err()).collect();
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Timeout), "{errors:?}");
    // One of them was sent, or two when the second got its place just in time.
    let unknown = errors.iter().filter(|error| error.effect() == Effect::Unknown).count();
    assert!((1..=2).contains(&unknown), "{errors:?}");
    server.resume().unwrap();
}

#[tokio::test]
async fn several_connections_stand_in_for_each_other() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let config = RedisConfig { connections: 3, ..RedisConfig::from_url(&url).unwrap() };
    let store = RedisStore::connect(config).await.unwrap();
    until("all connections are open", || async { proxy.connections() == 3 }).await;
    let key = key("several");
    join_all((0..300).map(|_| store.increment(&key, Increment::by(1)))).await.into_iter().for_each(|call| {
        call.unwrap();
    });
    assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().value, "300");
    proxy.cut();
    until("the store works again", || async { store.ping().await.is_ok() }).await;
    until("all connections are open again", || async { proxy.connections() == 3 }).await;
}
