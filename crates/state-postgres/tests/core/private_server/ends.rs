//! The ways in which a call can end without its result: each is told in time, with the right effect.

use std::time::{Duration, Instant};

use acteon_state_core::{Effect, Error, ErrorKind, Get, Put, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::PostgresServer;
use futures_util::future::join_all;

use super::{ask, config, connect, key, start};

/// Much longer than a test may take: whoever waits for it was forgotten.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// A call that came while the last worker left had its answer only at its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_answers_every_call_at_once() {
    let server = start();
    for round in 0..10 {
        let config = PostgresConfig { operation_timeout: OPERATION_TIMEOUT, connections: 2, ..config(&server) };
        let store = connect(config).await;
        let calls = (0..8).map(|task| tokio::spawn(put_until_refused(store.clone(), key(&format!("close {task}")))));
        let calls: Vec<_> = calls.collect();
        tokio::time::sleep(Duration::from_millis(5 + round)).await;
        let began = Instant::now();
        store.close().await.unwrap();
        for error in join_all(calls).await {
            assert_eq!(error.unwrap().kind(), ErrorKind::Closed);
        }
        assert!(began.elapsed() < OPERATION_TIMEOUT / 6, "{:?}", began.elapsed());
    }
}

async fn put_until_refused(store: PostgresStore, key: acteon_state_core::StateKey) -> Error {
    loop {
        if let Err(error) = store.put(&key, &Put::new("v")).await {
            return error;
        }
    }
}

#[test]
fn a_store_whose_runtime_has_ended_refuses_calls_from_another() {
    let server = start();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let config = PostgresConfig { operation_timeout: OPERATION_TIMEOUT, ..config(&server) };
    let store = first.block_on(connect(config));
    first.block_on(store.put(&key("k"), &Put::new("v"))).unwrap();
    drop(first);
    let began = Instant::now();
    let error = runtime().block_on(store.put(&key("k"), &Put::new("w"))).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Closed, Effect::NotApplied), "{error}");
    assert!(began.elapsed() < OPERATION_TIMEOUT / 6, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_the_server_broke_off_has_changed_nothing() {
    let server = start();
    let store = connect(PostgresConfig { statement_timeout: Duration::from_millis(400), ..config(&server) }).await;
    let row = key("held");
    store.put(&row, &Put::new("before")).await.unwrap();
    let holder = hold(&server, "SELECT FROM acteon_entries WHERE id = 'held' FOR UPDATE").await;
    let (put, other) = (Put::new("after"), Put::new("other"));
    // The first is under way and waits for the row; the second is on another connection.
    let held = store.put(&row, &put);
    let free = async {
        waits_for_row(&server).await;
        store.put(&key("free"), &other).await
    };
    let (held, free) = tokio::join!(held, free);
    assert!(free.unwrap().is_applied());
    let error = held.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied), "{error}");
    let entry = store.get(&row, Get::default()).await.unwrap().unwrap();
    assert_eq!(entry.value, "before", "reads do not wait");

    let (ended, ()) = tokio::join!(store.put(&row, &put), async {
        waits_for_row(&server).await;
        let sessions = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                         WHERE application_name = 'acteon' AND wait_event_type = 'Lock'";
        assert_eq!(ask(&server, sessions), "1");
    });
    let error = ended.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    release(&server, holder).await;
    let entry = store.get(&row, Get::default()).await.unwrap().unwrap();
    assert_eq!(entry.value, "before");
    assert!(store.put(&row, &put).await.unwrap().is_applied());
    store.close().await.unwrap();
}

/// The first question about the schema went unanswered, and each connection waited behind it, whatever its own timeouts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_does_not_answer_is_asked_again() {
    let server = start();
    connect(config(&server)).await.close().await.unwrap();
    let holder = hold(&server, "LOCK TABLE acteon_schema").await;
    let store = PostgresStore::connect_lazy(PostgresConfig {
        statement_timeout: OPERATION_TIMEOUT,
        connect_wait: Duration::from_millis(50),
        ..config(&server)
    })
    .unwrap();
    let told = async || store.ping().await.is_err_and(|error| error.message().contains("what version the schema has"));
    let began = Instant::now();
    while !told().await {
        assert!(began.elapsed() < Duration::from_secs(20), "it is not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    release(&server, holder).await;
    while store.ping().await.is_err() {
        assert!(began.elapsed() < OPERATION_TIMEOUT, "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await.unwrap();
}

/// Somebody else holds what this statement locks, for longer than the test takes.
async fn hold(server: &PostgresServer, statement: &str) -> tokio::task::JoinHandle<()> {
    let (url, hold) = (server.url(), format!("BEGIN; {statement}; SELECT pg_sleep(60)"));
    let holder = tokio::spawn(async move {
        use acteon_state_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, raw_sql};
        let mut connection = PgConnection::connect(&url).await.unwrap();
        // It is ended by the test.
        let _ = connection.execute(raw_sql(AssertSqlSafe(hold))).await;
    });
    until(|| ask(server, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1").await;
    holder
}

async fn release(server: &PostgresServer, holder: tokio::task::JoinHandle<()>) {
    ask(server, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    holder.await.unwrap();
}

async fn waits_for_row(server: &PostgresServer) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'acteon' AND wait_event_type = 'Lock'";
    until(|| ask(server, waiting) == "1").await;
}

async fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "it did not come true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
