//! What starts its own servers, and what all of it shares.

mod hand_over;
mod pooler;
mod transactions;
mod waiting;

use std::future::Future;
use std::time::{Duration, Instant};

use acteon_state_core::{LockGrant, LockOutcome, LockRequest, LockState, StateKey, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(60);

fn start() -> PostgresServer {
    PostgresServer::start(PostgresOptions::default()).unwrap()
}

async fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(PostgresConfig::from_url(url).unwrap()).await.unwrap()
}

fn key(id: &str) -> StateKey {
    StateKey::new("driver", "tests", "k", id).unwrap()
}

fn request(key: &StateKey, wait: Duration) -> LockRequest {
    LockRequest { wait, ..LockRequest::new(key.clone(), LEASE) }
}

async fn granted(store: &PostgresStore, request: &LockRequest) -> LockGrant {
    match store.lock_acquire(request).await.unwrap() {
        LockOutcome::Granted(grant) => grant,
        LockOutcome::Busy(busy) => panic!("{busy:?}"),
    }
}

async fn inspect(store: &PostgresStore, key: &StateKey) -> LockState {
    store.lock_inspect(key).await.unwrap().unwrap()
}

/// The one value that `sql` gives.
fn ask(server: &PostgresServer, sql: &str) -> String {
    server.query(sql).unwrap().concat().pop().flatten().unwrap_or_default()
}

/// How many sessions listen.
fn listeners(server: &PostgresServer) -> usize {
    ask(server, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"acteon_locks_%'").parse().unwrap()
}

/// Repeats until the condition holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
