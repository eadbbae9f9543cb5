//! What starts its own servers, and what all of it shares.

mod ends;
mod plans;
mod search_path;
mod transactions;

use std::time::{Duration, Instant};

use acteon_state_core::{Scope, StateKey};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};

fn start() -> PostgresServer {
    PostgresServer::start(PostgresOptions::default()).unwrap()
}

async fn connect(config: PostgresConfig) -> PostgresStore {
    PostgresStore::connect(config).await.unwrap()
}

fn config(server: &PostgresServer) -> PostgresConfig {
    PostgresConfig::from_url(&server.url()).unwrap()
}

fn scope() -> Scope {
    Scope::new("core", "tests", "k").unwrap()
}

fn key(id: &str) -> StateKey {
    scope().key(id).unwrap()
}

/// The one value that `sql` gives.
fn ask(server: &PostgresServer, sql: &str) -> String {
    server.query(sql).unwrap().concat().pop().flatten().unwrap_or_default()
}

/// Waits until the server has seen all sessions of stores end.
async fn gone(server: &PostgresServer) {
    let began = Instant::now();
    while ask(server, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'acteon'") != "0" {
        assert!(began.elapsed() < Duration::from_secs(20), "sessions go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
