//! PgBouncer in between: everything works with fewer connections to the server than clients have to it.

use acteon_state_core::{Get, Increment, StateStore, Waiting};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PgBouncer, PoolMode};

use super::everything::{everything_works, many_tasks_work};
use super::findings::{Findings, forgotten, hold};
use super::load::Load;
use super::{ask, config, connect, key, start, start_durable};

/// As many as a store may have: two stores have six times as many as the PgBouncer has to the server.
const CONNECTIONS: usize = 64;

async fn connect_many(url: &str, prefix: &str) -> PostgresStore {
    connect(PostgresConfig { connections: CONNECTIONS, prefix: prefix.to_owned(), ..config(url) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_work_through_one_transaction_pooler_with_64_tasks() {
    let server = start();
    let bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let stores = [connect_many(&bouncer.url(), "one_").await, connect_many(&bouncer.url(), "two_").await];
    for store in &stores {
        assert_eq!(store.lock_semantics().waiting, Waiting::Backoff);
    }
    // A statement that met the other's prepared one would count in the other's tables.
    let counter = key("pooled", "counter");
    let count = async |store: &PostgresStore, by: i64| {
        for _ in 0..20 {
            store.increment(&counter, Increment::by(by)).await.unwrap();
        }
    };
    let [one, two] = &stores;
    tokio::join!(many_tasks_work(one, "one", 32), many_tasks_work(two, "two", 32), count(one, 1), count(two, 100));
    for (store, expected) in stores.iter().zip(["20", "2000"]) {
        assert_eq!(store.get(&counter, Get::default()).await.unwrap().unwrap().value, expected);
    }
    let prepared = "SELECT count(*) <= 20 FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'psql'";
    assert_eq!(ask(&server, prepared), "t");
    for store in stores {
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_dies_under_load_costs_nothing_that_was_acknowledged() {
    const SEED: u64 = 11;
    let server = start_durable();
    let mut bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let store = connect_many(&bouncer.url(), "acteon_").await;
    let load = Load::start(&store, "pooler", SEED);
    load.until_acknowledged(200).await;
    let held = hold(&store, "pooler", 5).await;
    bouncer.stop().unwrap();
    load.until_failing().await;
    bouncer.restart().unwrap();
    load.until_acknowledged(200).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "pooler", ledger).await.assert_none(SEED);
    assert_eq!(forgotten(&store, &held).await, 0);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_behind_the_pooler_costs_nothing_that_was_acknowledged() {
    const SEED: u64 = 12;
    let mut server = start_durable();
    let bouncer = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let store = connect_many(&bouncer.url(), "acteon_").await;
    let load = Load::start(&store, "behind", SEED);
    load.until_acknowledged(200).await;
    server.kill9().unwrap();
    load.until_failing().await;
    server.restart().unwrap();
    load.until_acknowledged(200).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "behind", ledger).await.assert_none(SEED);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_session_pooler_counts_as_a_direct_connection() {
    let server = start();
    let bouncer = PgBouncer::start(&server, PoolMode::Session).unwrap();
    let store = connect(PostgresConfig { connections: 4, ..config(&bouncer.url()) }).await;
    assert_eq!(store.lock_semantics().waiting, Waiting::NotifyAndSleep);
    everything_works(&store, "session").await;
    store.close().await.unwrap();
}
