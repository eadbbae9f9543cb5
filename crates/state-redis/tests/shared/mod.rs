//! The contract over any topology: the same for a standalone server, Sentinels, a Cluster and TLS.

use std::sync::Arc;

use acteon_state_conformance::Factory;
use acteon_state_core::{Error, ErrorKind, Result, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use async_trait::async_trait;

/// Opens stores on servers, and knows the servers themselves for cleaning up.
#[derive(Debug)]
pub(crate) struct Redis {
    /// For the driver.
    pub(crate) config: RedisConfig,
    /// The URLs of all servers that may hold keys, with rights to remove them.
    pub(crate) servers: Vec<String>,
}

#[async_trait]
impl Factory for Redis {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let config = RedisConfig { prefix: prefix.to_owned(), ..self.config.clone() };
        Ok(Arc::new(RedisStore::connect(config).await?))
    }

    async fn clean(&self, prefix: &str) -> Result<()> {
        let failed = |error| Error::new(ErrorKind::Unavailable, "cleaning up").with_source(error);
        for server in &self.servers {
            remove_keys(server, prefix).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Removes keys and their companions from one server.
async fn remove_keys(url: &str, prefix: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    for pattern in [format!("{prefix}:*"), format!("{{{prefix}:*")] {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            let scan = scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            // One by one: of a Cluster, each is in a slot of its own.
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| {
                pipeline.cmd("UNLINK").arg(key).ignore();
            });
            if !keys.is_empty() {
                let () = pipeline.query_async(&mut connection).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(())
}
