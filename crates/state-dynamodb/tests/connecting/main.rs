//! Getting in: the table, rights, connections that fail. Every test has an emulator of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod front;
mod lost;
mod reuse;
mod rights;
mod table;

use acteon_state_core::Error;
use acteon_state_dynamodb::{DynamoConfig, DynamoStore, MigrateMode};
use acteon_test_support::DynamoServer;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};

const TABLE: &str = "acteon";

fn start() -> DynamoServer {
    DynamoServer::start().unwrap()
}

fn config(url: &str) -> DynamoConfig {
    DynamoConfig { region: Some("us-east-1".to_owned()), ..DynamoConfig::from_url(url).unwrap() }
}

fn checking(url: &str) -> DynamoConfig {
    DynamoConfig { migrate: MigrateMode::Check, ..config(url) }
}

async fn connect(config: DynamoConfig) -> DynamoStore {
    DynamoStore::connect(config).await.unwrap()
}

/// The error of a store that must not open.
async fn refused(config: DynamoConfig) -> Error {
    DynamoStore::connect(config).await.map(drop).unwrap_err()
}

/// A client that has nothing to do with the driver.
fn raw(url: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(url)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("somebody", "else", None, None, "test"));
    Client::from_conf(config.build())
}
