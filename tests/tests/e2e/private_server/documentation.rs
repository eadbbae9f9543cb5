//! Tables of the documentation that say what real servers guarantee.

use std::fs;
use std::path::Path;

use acteon_state_core::{LockSemantics, StateStore};
use acteon_state_dynamodb::lock_semantics_on_aws;
use acteon_state_memory::MemoryStore;
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{PgBouncer, PoolMode, PostgresOptions, PostgresServer, RedisOptions, RedisServer};

const BEGIN: &str = "<!-- generated: lock semantics -->\n";
const END: &str = "<!-- end -->";
/// Set to rewrite the table instead of comparing it.
const WRITE: &str = "ACTEON_WRITE_DOCS";

async fn postgres_row(url: &str) -> String {
    let store = PostgresStore::connect(PostgresConfig::from_url(url).unwrap()).await.unwrap();
    let row = store.lock_semantics().row();
    store.close().await.unwrap();
    row
}

/// A durable server: without a standby, directly and through a pooler; with one that follows it, and with one that it waits for.
async fn postgres_rows() -> String {
    let options = || PostgresOptions { durable: true, ..PostgresOptions::default() };
    let primary = PostgresServer::start(options()).unwrap();
    let pooler = PgBouncer::start(&primary, PoolMode::Transaction).unwrap();
    let mut rows = postgres_row(&primary.url()).await + &postgres_row(&pooler.url()).await;
    let standby = primary.standby(options()).unwrap();
    // Named and taken off again: afterwards it is certain that it is connected.
    primary.set_synchronous_standby(standby.standby_name()).unwrap();
    primary.set_synchronous_standby(None).unwrap();
    rows += &postgres_row(&primary.url()).await;
    primary.set_synchronous_standby(standby.standby_name()).unwrap();
    rows + &postgres_row(&primary.url()).await
}

#[tokio::test]
async fn the_table_of_lock_guarantees_says_what_the_drivers_report() {
    let mut table = LockSemantics::TABLE_HEAD.to_owned();
    table.push_str(&MemoryStore::default().lock_semantics().row());
    for (append_only, fsync) in [(true, "always"), (true, "everysec"), (false, "no")] {
        let settings = vec![format!("appendfsync {fsync}")];
        let server = RedisServer::start(RedisOptions { append_only, settings, ..RedisOptions::default() }).unwrap();
        let store = RedisStore::connect(RedisConfig::from_url(&server.url()).unwrap()).await.unwrap();
        table.push_str(&store.lock_semantics().row());
    }
    table.push_str(&postgres_rows().await);
    // An emulator keeps nothing and has one region: what the driver reports of AWS is asked without a table.
    table.extend(lock_semantics_on_aws().iter().map(LockSemantics::row));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/locks.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the page marks where the table begins");
    let (current, after) = rest.split_once(END).expect("the page marks where the table ends");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(current, table, "docs/locks.md is out of date: run this test with {WRITE}=1");
}
