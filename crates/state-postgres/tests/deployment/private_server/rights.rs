//! Roles that may do little: enough is enough, and too little is said clearly.

use acteon_state_core::{Effect, Error, ErrorKind, Get, Put, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::PostgresServer;

use super::everything::everything_works;
use super::{config, connect, key, refused, start, until};

/// The options of a role that has just been created and may do nothing yet.
fn role(server: &PostgresServer, name: &str) -> PostgresConfig {
    server.query(&format!("CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")).unwrap();
    let url = format!("postgres://{name}:hunter2@{}/postgres", server.address());
    PostgresConfig { schema: "state".to_owned(), ..config(&url) }
}

async fn migrate(server: &PostgresServer) {
    let owner = PostgresConfig { schema: "state".to_owned(), ..config(&server.url()) };
    PostgresStore::migrate(owner).await.unwrap();
}

const GRANTS: &str = "GRANT USAGE ON SCHEMA state TO worker; \
                      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA state TO worker";

fn assert_denied(error: &Error) {
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::NotApplied), "{error}");
    assert!(error.message().contains("GRANT"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_role_that_may_only_read_and_write_rows_works_on_a_schema_that_is_there() {
    let server = start();
    migrate(&server).await;
    let worker = role(&server, "worker");
    server.query(GRANTS).unwrap();
    let store = connect(worker).await;
    everything_works(&store, "rows").await;
    let hidden = store.lock_semantics();
    assert_eq!(hidden.topology, "postgres, no standby");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_role_without_rights_is_told_what_to_grant() {
    let server = start();
    let worker = role(&server, "worker");
    let nothing_there = refused(worker.clone()).await;
    assert_denied(&nothing_there);
    assert!(nothing_there.message().contains("CREATE"), "{nothing_there}");
    migrate(&server).await;
    let no_usage = refused(worker.clone()).await;
    assert_denied(&no_usage);
    server.query("GRANT USAGE ON SCHEMA state TO worker").unwrap();
    let no_tables = refused(worker.clone()).await;
    assert_denied(&no_tables);
    assert!(no_tables.message().contains("acteon_schema"), "{no_tables}");
    server.query(GRANTS).unwrap();
    connect(worker).await.close().await.unwrap();
}

#[tokio::test]
async fn rights_that_are_taken_away_are_missed_until_they_are_back() {
    let server = start();
    migrate(&server).await;
    let worker = role(&server, "worker");
    server.query(GRANTS).unwrap();
    let store = connect(worker).await;
    let key = key("rights", "k");
    store.put(&key, &Put::new("1")).await.unwrap();
    server.query("REVOKE UPDATE ON ALL TABLES IN SCHEMA state FROM worker").unwrap();
    assert_denied(&store.put(&key, &Put::new("2")).await.unwrap_err());
    assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().value, "1", "reading is still allowed");
    server.query("GRANT UPDATE ON ALL TABLES IN SCHEMA state TO worker").unwrap();
    until("writing is allowed again", || async { store.put(&key, &Put::new("3")).await.is_ok() }).await;
    store.close().await.unwrap();
}
