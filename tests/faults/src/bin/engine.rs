//! The native engine as a server of its own that speaks Redis, on the port that its argument names: something to kill and to freeze.

use std::process::ExitCode;
use std::sync::Arc;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig};
use acteon_state_core::clock::{Clock as _, SeededClock};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(port) = std::env::args().nth(1) else {
        eprintln!("usage: acteon-faults-engine PORT");
        return ExitCode::FAILURE;
    };
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let config = ListenConfig { tcp: vec![format!("127.0.0.1:{port}")], ..ListenConfig::default() };
    let clock = SeededClock::new();
    match EngineServer::bind(instance, config, Arc::new(move || clock.now_us())).await {
        Ok(server) => {
            server.serve().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
