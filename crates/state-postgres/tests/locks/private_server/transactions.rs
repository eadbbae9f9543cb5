//! Work under a lock in its own transaction.

use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Effect, Error, ErrorKind, StateStore};
use acteon_state_postgres::sqlx::{self, Connection as _, PgConnection, Row as _};
use acteon_state_postgres::{PostgresConfig, PostgresStore, TxLockOutcome};
use acteon_test_support::PostgresServer;
use tokio::sync::Notify;

use super::{PATIENCE, ask, connect, key, start, until};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn start_with_table() -> PostgresServer {
    let server = start();
    server.query("CREATE TABLE plain (n bigint NOT NULL); INSERT INTO plain VALUES (0)").unwrap();
    server
}

/// Reads, and writes one more: two of these at a time would lose an update.
async fn read_and_write(tx: &mut PgConnection) -> Result<i64, Failure> {
    let (n,): (i64,) = sqlx::query_as("SELECT n FROM plain").fetch_one(&mut *tx).await?;
    tokio::task::yield_now().await;
    sqlx::query("UPDATE plain SET n = $1").bind(n + 1).execute(&mut *tx).await?;
    Ok(n + 1)
}

/// Holds the lock, having written something, until it is told to go on.
fn hold(store: &PostgresStore, go_on: &Arc<Notify>) -> tokio::task::JoinHandle<Result<TxLockOutcome<()>, Failure>> {
    let (store, go_on) = (store.clone(), go_on.clone());
    tokio::spawn(async move {
        let work = async |tx: &mut PgConnection| {
            sqlx::query("UPDATE plain SET n = 1000").execute(&mut *tx).await?;
            go_on.notified().await;
            sqlx::query("SELECT 1").execute(&mut *tx).await?;
            Ok::<_, Failure>(())
        };
        store.with_tx_lock(&key("tx"), PATIENCE, work).await
    })
}

async fn until_held(server: &PostgresServer) {
    until("the lock is held", || async {
        ask(server, "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'") == "1"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_read_and_write_lose_nothing() {
    let server = start_with_table();
    let stores = [connect(&server.url()).await, connect(&server.url()).await];
    // More at a time than there are connections for it.
    let workers: Vec<_> = (0..20)
        .map(|index| {
            let store = stores[index % 2].clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let outcome = store.with_tx_lock(&key("tx"), PATIENCE, read_and_write).await.unwrap();
                    assert!(matches!(outcome, TxLockOutcome::Done(_)), "{outcome:?}");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(ask(&server, "SELECT n FROM plain"), "200");
    assert_eq!(ask(&server, "SELECT count(*) FROM acteon_tx_locks"), "1");
}

#[tokio::test]
async fn a_busy_lock_is_reported_after_the_wait_and_had_after_the_commit() {
    let server = start_with_table();
    let stores = [connect(&server.url()).await, connect(&server.url()).await];
    let go_on = Arc::new(Notify::new());
    let holder = hold(&stores[0], &go_on);
    until_held(&server).await;
    for wait in [Duration::ZERO, Duration::from_millis(30)] {
        let outcome = stores[1].with_tx_lock(&key("tx"), wait, read_and_write).await.unwrap();
        assert_eq!(outcome, TxLockOutcome::Busy);
    }
    // Another name is another lock.
    let nothing = async |_: &mut PgConnection| Ok::<_, Failure>(7);
    let other = stores[1].with_tx_lock(&key("other"), Duration::ZERO, nothing).await.unwrap();
    assert_eq!(other, TxLockOutcome::Done(7));
    let waiter = tokio::spawn({
        let store = stores[1].clone();
        async move { store.with_tx_lock(&key("tx"), PATIENCE, read_and_write).await }
    });
    go_on.notify_one();
    assert_eq!(holder.await.unwrap().unwrap(), TxLockOutcome::Done(()));
    assert_eq!(waiter.await.unwrap().unwrap(), TxLockOutcome::Done(1001));
}

#[tokio::test]
async fn a_killed_session_rolls_back_and_frees_the_lock() {
    let server = start_with_table();
    let stores = [connect(&server.url()).await, connect(&server.url()).await];
    let go_on = Arc::new(Notify::new());
    let holder = hold(&stores[0], &go_on);
    until_held(&server).await;
    ask(&server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'");
    let outcome = stores[1].with_tx_lock(&key("tx"), PATIENCE, read_and_write).await.unwrap();
    assert_eq!(outcome, TxLockOutcome::Done(1));
    go_on.notify_one();
    assert!(holder.await.unwrap().is_err());
    // The node itself goes on with a new connection.
    let outcome = stores[0].with_tx_lock(&key("tx"), PATIENCE, read_and_write).await.unwrap();
    assert_eq!(outcome, TxLockOutcome::Done(2));
}

#[tokio::test]
async fn a_dropped_future_rolls_back_and_frees_the_lock() {
    let server = start_with_table();
    let store = connect(&server.url()).await;
    let holder = hold(&store, &Arc::new(Notify::new()));
    until_held(&server).await;
    holder.abort();
    assert!(holder.await.unwrap_err().is_cancelled());
    let outcome = store.with_tx_lock(&key("tx"), PATIENCE, read_and_write).await.unwrap();
    assert_eq!(outcome, TxLockOutcome::Done(1));
}

#[tokio::test]
async fn an_error_of_the_work_rolls_back_and_is_returned() {
    let server = start_with_table();
    let store = connect(&server.url()).await;
    let failing = async |tx: &mut PgConnection| {
        read_and_write(tx).await?;
        Err::<(), Failure>("no".into())
    };
    assert_eq!(store.with_tx_lock(&key("tx"), PATIENCE, failing).await.unwrap_err().to_string(), "no");
    assert_eq!(ask(&server, "SELECT n FROM plain"), "0");
    // A failed statement that the work passes over: the server would turn the commit into a rollback without a word.
    let silent = async |tx: &mut PgConnection| {
        read_and_write(tx).await.map_err(|_| Error::invalid("unexpected"))?;
        let _ = sqlx::query("SELECT 1 / 0").execute(&mut *tx).await;
        Ok::<_, Error>(())
    };
    let error = store.with_tx_lock(&key("tx"), PATIENCE, silent).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Invalid, Effect::NotApplied), "{error}");
    assert_eq!(ask(&server, "SELECT n FROM plain"), "0");
}

#[tokio::test]
async fn a_nested_transaction_undoes_only_itself() {
    let server = start_with_table();
    let store = connect(&server.url()).await;
    let outcome = store
        .with_tx_lock(&key("tx"), PATIENCE, async |tx: &mut PgConnection| {
            read_and_write(tx).await?;
            let mut nested = tx.begin().await?;
            sqlx::query("UPDATE plain SET n = 77").execute(&mut *nested).await?;
            nested.rollback().await?;
            read_and_write(tx).await
        })
        .await
        .unwrap();
    assert_eq!(outcome, TxLockOutcome::Done(2));
    assert_eq!(ask(&server, "SELECT n FROM plain"), "2");
}

#[tokio::test]
async fn the_work_finds_the_settings_of_its_role_and_a_commit_that_waits_for_the_disk() {
    let server = start_with_table();
    let settings = "synchronous_commit = off; statement_timeout = '7s'; lock_timeout = '3s'";
    for setting in settings.split("; ") {
        server.query(&format!("ALTER ROLE {} SET {setting}", server.user())).unwrap();
    }
    let store = connect(&server.url()).await;
    let work = async |tx: &mut PgConnection| {
        let mut found = Vec::new();
        for name in
            ["synchronous_commit", "statement_timeout", "lock_timeout", "enable_seqscan", "transaction_isolation"]
        {
            let row = sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(&mut *tx).await?;
            found.push(row.try_get::<String, _>(0)?);
        }
        Ok::<_, Failure>(found)
    };
    for _ in 0..2 {
        let TxLockOutcome::Done(found) = store.with_tx_lock(&key("tx"), PATIENCE, work).await.unwrap() else {
            panic!("nobody else holds it");
        };
        assert_eq!(found, ["on", "7s", "3s", "on", "read committed"]);
    }
}

#[tokio::test]
async fn a_connection_that_was_lost_while_idle_is_replaced() {
    let server = start_with_table();
    let store = connect(&server.url()).await;
    for n in 1..=3 {
        let outcome = store.with_tx_lock(&key("tx"), PATIENCE, read_and_write).await.unwrap();
        assert_eq!(outcome, TxLockOutcome::Done(n));
        let others = "application_name = 'acteon' AND pid <> pg_backend_pid()";
        let ended =
            ask(&server, &format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}"));
        assert!(ended.parse::<u32>().unwrap() >= 1);
    }
}

#[tokio::test]
async fn unused_connections_are_closed_and_closing_the_store_closes_the_rest() {
    let server = start_with_table();
    let config = PostgresConfig::from_url(&server.url()).unwrap();
    let idle_timeout = Duration::from_millis(1_000);
    let store = PostgresStore::connect(PostgresConfig { idle_timeout, ..config }).await.unwrap();
    let work = async |tx: &mut PgConnection| {
        let (pid,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
        Ok::<_, Failure>(pid)
    };
    let run = async || match store.with_tx_lock(&key("tx"), PATIENCE, work).await.unwrap() {
        TxLockOutcome::Done(pid) => pid,
        TxLockOutcome::Busy => panic!("nobody else holds it"),
    };
    let is_open = |pid: i32| ask(&server, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "1";
    let first = run().await;
    assert_eq!(run().await, first);
    until("the connection is closed", || async { !is_open(first) }).await;
    let second = run().await;
    assert!(is_open(second));
    store.close().await.unwrap();
    until("no connection is left", || async { !is_open(second) }).await;
    let error =
        store.with_tx_lock(&key("tx"), PATIENCE, async |_: &mut PgConnection| Ok::<_, Error>(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
