//! The contract, on the DynamoDB driver: over the service that `ACTEON_TEST_DYNAMODB_URL` names, otherwise over an emulator in process.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_conformance::Factory;
use acteon_state_core::{Result, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::{DynamoServer, dynamodb_url_from_env};
use async_trait::async_trait;

/// All stores are in this process, so their clocks are the same, and locks need not wait for clocks to agree.
const SKEW: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct Dynamo {
    url: String,
}

#[async_trait]
impl Factory for Dynamo {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let config = DynamoConfig {
            url: Some(self.url.clone()),
            region: Some("us-east-1".to_owned()),
            table_name: "acteon-conformance".to_owned(),
            prefix: prefix.to_owned(),
            skew_max: SKEW,
            ..DynamoConfig::default()
        };
        Ok(Arc::new(DynamoStore::connect(config).await?))
    }

    /// Nothing: prefixes are used once. The emulator forgets all; elsewhere, drop the table.
    async fn clean(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    if let Some(url) = dynamodb_url_from_env() {
        return acteon_state_conformance::main(Dynamo { url });
    }
    match DynamoServer::start() {
        Ok(server) => acteon_state_conformance::main(Dynamo { url: server.url() }),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
