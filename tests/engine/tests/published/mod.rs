//! An engine that is published on a port, with a Redis driver that connects to it.

use std::error::Error;
use std::sync::{Arc, mpsc};
use std::thread;

use acteon_engine::Instance;
use acteon_engine_server::{EngineServer, ListenConfig};
use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{Result, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};

/// Lives until the process ends.
#[derive(Debug)]
pub(crate) struct Published {
    url: String,
}

impl Published {
    /// Publishes an engine on a free port, served by threads of its own.
    pub(crate) fn start(instance: Arc<Instance>, clock: Arc<SeededClock>) -> std::result::Result<Self, Box<dyn Error>> {
        let (bound, address) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("a runtime starts");
            runtime.block_on(async {
                let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
                let server = EngineServer::bind(instance, config, Arc::new(move || clock.now_us())).await;
                let server = server.expect("a free port can be listened on");
                bound.send(server.addresses()[0]).expect("the address is waited for");
                server.serve().await;
            });
        });
        Ok(Self { url: format!("redis://{}", address.recv()?) })
    }

    /// A handle through the protocol.
    pub(crate) async fn connect(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::from_url(&self.url)? };
        Ok(Arc::new(RedisStore::connect(config).await?))
    }
}
