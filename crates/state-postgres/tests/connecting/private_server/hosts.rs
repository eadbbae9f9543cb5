//! Several hosts, of which one is writable, and what standbys mean for locks.

use std::time::Duration;

use acteon_state_core::{Effect, ErrorKind, Put, StateKey, StateStore, Survival};
use acteon_state_postgres::PostgresConfig;
use acteon_test_support::{PostgresOptions, PostgresServer};

use super::{ask, config, connect, refused, start};

fn url(primary: &PostgresServer, hosts: &[String]) -> String {
    format!("postgres://{}:{}@{}/postgres", primary.user(), primary.password(), hosts.join(","))
}

#[tokio::test]
async fn the_writable_one_of_several_hosts_is_used() {
    let primary = start();
    let standby = primary.standby(PostgresOptions::default()).unwrap();
    let [primary_at, standby_at] = [&primary, &standby].map(|server| server.address().to_string());
    let dead_at = "127.0.0.1:1".to_owned();
    for hosts in [[&standby_at, &primary_at, &dead_at], [&dead_at, &standby_at, &primary_at]] {
        let hosts = hosts.map(Clone::clone);
        let config = config(&format!("{}?target_session_attrs=read-write", url(&primary, &hosts)));
        let store = connect(PostgresConfig { application_name: "under test".to_owned(), ..config }).await;
        let connections = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'under test'";
        assert_eq!((ask(&primary, connections), ask(&standby, connections)), ("t".to_owned(), "f".to_owned()));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_a_writable_host_it_is_a_failover_that_names_each() {
    let primary = start();
    let standby = primary.standby(PostgresOptions::default()).unwrap();
    let error = refused(config(&url(&primary, &["127.0.0.1:1".to_owned(), standby.address().to_string()]))).await;
    assert_eq!(error.kind(), ErrorKind::Failover, "{error}");
    let message = error.message();
    assert!(message.contains("127.0.0.1:1: the server cannot be reached"), "{message}");
    assert!(message.contains(&format!("{}: the server is a standby", standby.address())), "{message}");
}

/// Who switches over makes the old server read-only first; sessions that ask for READ WRITE would go on writing to it.
#[tokio::test]
async fn open_sessions_obey_a_server_that_is_made_read_only() {
    let server = start();
    let store = connect(config(&server.url())).await;
    let key = StateKey::new("test", "tenant", "kind", "id").unwrap();
    store.put(&key, &Put::new("before")).await.unwrap();
    server.query("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()").unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            // The sessions learn of it between two statements.
            if let Err(error) = store.put(&key, &Put::new("after")).await {
                return error;
            }
        }
    });
    let error = error.await.unwrap();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn standbys_decide_what_locks_guarantee() {
    let primary = start();
    let semantics = async || {
        let store = connect(config(&primary.url())).await;
        let semantics = store.lock_semantics();
        store.close().await.unwrap();
        semantics
    };
    assert_eq!(semantics().await.topology, "postgres, no standby");
    let standby = primary.standby(PostgresOptions::default()).unwrap();
    // A synchronous one is certain to be connected when this returns, and stays so when it is asynchronous again.
    primary.set_synchronous_standby(standby.standby_name()).unwrap();
    let synchronous = semantics().await;
    assert_eq!(synchronous.topology, "postgres, synchronous standby");
    assert_eq!(synchronous.survives_failover, Survival::Yes);
    primary.set_synchronous_standby(None).unwrap();
    let asynchronous = semantics().await;
    assert_eq!(asynchronous.topology, "postgres, asynchronous standby");
    assert!(matches!(asynchronous.survives_failover, Survival::MayBeLost { .. }));
}

#[tokio::test]
async fn a_role_that_may_not_see_standbys_is_told_so() {
    let primary = start();
    let standby = primary.standby(PostgresOptions::default()).unwrap();
    primary.set_synchronous_standby(standby.standby_name()).unwrap();
    primary
        .query("CREATE ROLE worker LOGIN PASSWORD 'hunter2'; GRANT CREATE, USAGE ON SCHEMA public TO worker")
        .unwrap();
    let store = connect(config(&format!("postgres://worker:hunter2@{}/postgres", primary.address()))).await;
    let semantics = store.lock_semantics();
    assert_eq!(semantics.topology, "postgres, synchronous standby");
    assert!(semantics.notes.iter().any(|note| note.contains("GRANT pg_monitor")), "{:?}", semantics.notes);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_server_decides_what_is_durable() {
    let durable = PostgresServer::start(PostgresOptions { durable: true, ..PostgresOptions::default() }).unwrap();
    for (server, survives) in [(durable, Survival::Yes), (start(), Survival::No)] {
        let store = connect(config(&server.url())).await;
        assert_eq!(store.capabilities().durable, survives == Survival::Yes);
        assert_eq!(store.lock_semantics().survives_server_crash, survives);
        store.close().await.unwrap();
    }
}
