//! What starts its own servers, and what all of it shares.

mod encryption;
mod entry;
mod hosts;
mod pooler;

use acteon_state_core::Error;
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};

fn start() -> PostgresServer {
    PostgresServer::start(PostgresOptions::default()).unwrap()
}

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url).unwrap()
}

async fn connect(config: PostgresConfig) -> PostgresStore {
    PostgresStore::connect(config).await.unwrap()
}

/// The error of a connection that must not come about. It names no password of any test.
async fn refused(config: PostgresConfig) -> Error {
    let secret = config.url.clone();
    let error = PostgresStore::connect(config).await.map(drop).unwrap_err();
    let shown = format!("{error} {error:?}");
    let password = secret.as_ref().and_then(|url| url.expose().split_once("://")?.1.split_once('@')?.0.split_once(':'));
    assert!(password.is_none_or(|(_, password)| !shown.contains(password)), "{shown}");
    error
}

/// The one value that `sql` gives.
fn ask(server: &PostgresServer, sql: &str) -> String {
    let rows = server.query(sql).unwrap();
    rows.concat().pop().flatten().unwrap_or_default()
}
