//! Tables of the documentation that say what real servers guarantee.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig};
use acteon_state_core::clock::{Clock as _, SeededClock};
use acteon_state_core::{LockSemantics, StateStore};
use acteon_state_dynamodb::lock_semantics_on_aws;
use acteon_state_memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_state_redis::{RedisConfig, RedisStore, Safety};
use acteon_test_support::{
    PgBouncer, PoolMode, PostgresOptions, PostgresServer, RedisCluster, RedisOptions, RedisSentinels, RedisServer,
    SentinelOptions,
};

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

async fn redis_row(config: RedisConfig) -> String {
    let store = RedisStore::connect(config).await.unwrap();
    // A Cluster's nodes are all connected to by this.
    store.ping().await.unwrap();
    let row = store.lock_semantics().row();
    store.close().await.unwrap();
    row
}

/// The engine of this project, as another process would reach it.
async fn engine_row() -> String {
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let listen = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
    let clock = SeededClock::new();
    let server = EngineServer::bind(instance, listen, Arc::new(move || clock.now_us())).await.unwrap();
    let url = format!("redis://{}", server.addresses()[0]);
    let (stopper, serving) = (server.stopper(), tokio::spawn(server.serve()));
    let row = redis_row(RedisConfig::from_url(&url).unwrap()).await;
    stopper.stop();
    serving.await.unwrap();
    row
}

/// One server in each way to persist; then with all that strict safety asks for: Sentinels and a Cluster, each with and without it.
async fn redis_rows() -> String {
    let url = |url: String| RedisConfig::from_url(&url).unwrap();
    let strict = |config| RedisConfig { safety: Safety::Strict, ..config };
    let mut rows = String::new();
    for (append_only, fsync) in [(true, "always"), (true, "everysec"), (false, "no")] {
        let settings = vec![format!("appendfsync {fsync}")];
        let server = RedisServer::start(RedisOptions { append_only, settings, ..RedisOptions::default() }).unwrap();
        rows += &redis_row(url(server.url())).await;
    }
    let settings = ["appendonly yes", "appendfsync always", "min-replicas-to-write 1"];
    let options = SentinelOptions { settings: settings.map(str::to_owned).to_vec(), ..SentinelOptions::default() };
    let sentinels = RedisSentinels::start(options).unwrap();
    let cluster = RedisCluster::start(None, &settings).unwrap();
    for config in [url(sentinels.url()), url(cluster.url())] {
        rows += &redis_row(config.clone()).await;
        rows += &redis_row(strict(config)).await;
    }
    rows
}

/// Without a directory, and with one by each of its settings. None is touched.
fn memory_rows() -> String {
    let keeps = [KeepFsync::Always, KeepFsync::EverySecond, KeepFsync::No];
    let keeps = keeps.map(|fsync| Some(KeepConfig { fsync, ..KeepConfig::new("data") }));
    let rows = std::iter::once(None).chain(keeps).map(|keep| {
        let config = MemoryConfig { keep, ..MemoryConfig::default() };
        let store = MemoryStore::open_to_inspect(&config, Arc::new(SeededClock::new())).unwrap();
        store.lock_semantics().row()
    });
    rows.collect()
}

#[tokio::test]
async fn the_table_of_lock_guarantees_says_what_the_drivers_report() {
    let mut table = LockSemantics::TABLE_HEAD.to_owned();
    table.push_str(&memory_rows());
    table.push_str(&engine_row().await);
    table.push_str(&redis_rows().await);
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
