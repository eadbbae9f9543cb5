//! The contract, on the Redis driver over the engine: what holds on Redis holds here.

mod published;

use std::process::ExitCode;
use std::sync::Arc;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_state_conformance::Factory;
use acteon_state_core::clock::SeededClock;
use acteon_state_core::{Result, StateStore};
use async_trait::async_trait;
use published::Published;

#[derive(Debug)]
struct OverTheProtocol(Published);

#[async_trait]
impl Factory for OverTheProtocol {
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        self.0.connect(prefix).await
    }

    /// The engine ends with the process.
    async fn clean(&self, _prefix: &str) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    match Published::start(instance, Arc::new(SeededClock::new())) {
        Ok(published) => acteon_state_conformance::main(OverTheProtocol(published)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
