//! An engine that is embedded here and published on a port, with a Redis driver that connects to it.

use std::error::Error;
use std::sync::Arc;
use std::thread;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig};
use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use acteon_state_redis::{RedisConfig, RedisStore};

/// How the record of a lock is named: waiters listen on the channel of that name.
const LOCK_SUFFIX: &[u8] = b"}:lock";

/// Lives until the process ends.
#[derive(Debug)]
pub struct Published {
    engine: Engine,
    clock: Arc<SeededClock>,
    instance: Arc<Instance>,
    url: String,
}

impl Published {
    /// Publishes an empty engine on a free port, served by threads of its own.
    pub fn start() -> std::result::Result<Self, Box<dyn Error>> {
        let engine = Engine::new(EngineConfig::default());
        let instance = Instance::new(engine.clone(), InstanceConfig::default());
        let clock = Arc::new(SeededClock::new());
        let (bound, address) = std::sync::mpsc::channel();
        let (serving, time) = (instance.clone(), clock.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("a runtime starts");
            runtime.block_on(async {
                let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
                let server = EngineServer::bind(serving, config, Arc::new(move || time.now_us())).await;
                let server = server.expect("a free port can be listened on");
                bound.send(server.addresses()[0]).expect("the address is waited for");
                server.serve().await;
            });
        });
        let url = format!("redis://{}", address.recv()?);
        Ok(Self { engine, clock, instance, url })
    }

    /// A handle through the protocol.
    pub async fn connect(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::from_url(&self.url)? };
        Ok(Arc::new(RedisStore::connect(config).await?))
    }

    /// A handle by typed calls. Of one engine there is one such store; further handles come from it.
    pub fn embed(&self) -> Result<MemoryStore> {
        let store = MemoryStore::over(self.engine.clone(), &MemoryConfig::default(), self.clock.clone())?;
        let instance = self.instance.clone();
        store.on_lock_change(move |record| _ = instance.publish(record, b""));
        let waiting = store.clone();
        self.instance
            .on_message(|channel| channel.ends_with(LOCK_SUFFIX), move |channel| waiting.lock_changed(channel));
        Ok(store)
    }
}
