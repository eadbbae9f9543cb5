//! Tests that start, freeze and kill a server.

mod acks;
mod bytes;
mod cluster;
mod connections;
mod counters;
mod deadlines;
mod encryption;
mod fake_sentinel;
mod faults;
mod gates;
mod load;
mod locks;
mod options;
mod reconnecting;
mod replica_reads;
mod round_trips;
mod sentinel_claims;
mod sentinel_faults;
mod sentinel_strict;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::{Error, StateKey};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn server() -> RedisServer {
    start(RedisOptions::default())
}

fn start(options: RedisOptions) -> RedisServer {
    RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig::from_url(&server.url()).unwrap()
}

async fn connect(server: &RedisServer) -> RedisStore {
    RedisStore::connect(config(server)).await.unwrap()
}

/// The error of a connection that must not come about.
async fn refused(config: RedisConfig) -> Error {
    RedisStore::connect(config).await.expect_err("the connection must be refused")
}

/// A key that no other test uses.
fn key(id: &str) -> StateKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    StateKey::new("driver", "tests", "k", &format!("{id} {number}")).unwrap()
}

/// Where the driver stores the value of a key.
fn text(key: &StateKey) -> String {
    format!("acteon:{}", key.text())
}

/// Repeats until the condition holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
