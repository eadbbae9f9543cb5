//! What starts its own servers, and what all of it shares.

mod crash;
mod everything;
mod failover;
mod findings;
mod load;
mod nodes;
mod pooler;
mod rights;

use std::time::{Duration, Instant};

use acteon_state_core::{Error, LockGrant, LockOutcome, LockRequest, Scope, StateKey, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn start() -> PostgresServer {
    PostgresServer::start(PostgresOptions::default()).unwrap()
}

fn start_durable() -> PostgresServer {
    PostgresServer::start(PostgresOptions { durable: true, ..PostgresOptions::default() }).unwrap()
}

/// Options that notice an outage and its end sooner than an application needs to.
fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        reconnect_delay_max: Duration::from_millis(100),
        connect_wait: Duration::from_millis(50),
        ..PostgresConfig::from_url(url).unwrap()
    }
}

async fn connect(config: PostgresConfig) -> PostgresStore {
    PostgresStore::connect(config).await.unwrap()
}

/// The error of a connection that must not come about.
async fn refused(config: PostgresConfig) -> Error {
    PostgresStore::connect(config).await.map(drop).unwrap_err()
}

fn scope(kind: &str) -> Scope {
    Scope::new("deployment", "tests", kind).unwrap()
}

fn key(kind: &str, id: &str) -> StateKey {
    scope(kind).key(id).unwrap()
}

/// The one value that `sql` gives.
fn ask(server: &PostgresServer, sql: &str) -> String {
    server.query(sql).unwrap().concat().pop().flatten().unwrap_or_default()
}

/// Repeats until the condition holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The grant of a lock that must be free.
async fn granted(store: &PostgresStore, request: &LockRequest) -> LockGrant {
    match store.lock_acquire(request).await.unwrap() {
        LockOutcome::Granted(grant) => grant,
        LockOutcome::Busy(busy) => panic!("{} is not free: {busy:?}", request.key),
    }
}
