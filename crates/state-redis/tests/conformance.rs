//! The contract, on the Redis driver over a real server: the one that `ACTEON_TEST_REDIS_URL` names, otherwise one of its own.

use std::process::ExitCode;
use std::sync::Arc;

use acteon_state_conformance::Factory;
use acteon_state_core::{Error, ErrorKind, Result, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer, redis_url_from_env};
use async_trait::async_trait;

#[derive(Debug)]
struct Redis {
    url: String,
}

#[async_trait]
impl Factory for Redis {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::from_url(&self.url)? };
        Ok(Arc::new(RedisStore::connect(config).await?))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        let failed = |error| Error::new(ErrorKind::Unavailable, "cleaning up").with_source(error);
        remove_keys(&self.url, prefix).await.map_err(failed)
    }
}

/// Removes keys and their companions.
async fn remove_keys(url: &str, prefix: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    for pattern in [format!("{prefix}:*"), format!("{{{prefix}:*")] {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            let scan = scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                let () = redis::cmd("UNLINK").arg(keys).query_async(&mut connection).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    if let Some(url) = redis_url_from_env() {
        return acteon_state_conformance::main(Redis { url });
    }
    match RedisServer::start(RedisOptions::default()) {
        Ok(server) => acteon_state_conformance::main(Redis { url: server.url() }),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
