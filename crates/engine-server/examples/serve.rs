//! Serves an empty database: `cargo run -p acteon-engine-server --example serve -- --port 6380`, then `redis-cli -p 6380`.

use std::error::Error;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{Clock, EngineServer, ListenConfig};
use clap::Parser;

/// Serves an empty database.
#[derive(Debug, Parser)]
struct Cli {
    /// The port on 127.0.0.1; 0 chooses a free one.
    #[arg(long, default_value_t = 6380)]
    port: u16,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let clock: Clock = Arc::new(wall_clock_us);
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let config = ListenConfig { tcp: vec![format!("127.0.0.1:{}", cli.port)], ..ListenConfig::default() };
    let server = EngineServer::bind(instance, config, clock).await?;
    println!("listening on {}", server.addresses()[0]);
    let stopper = server.stopper();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopper.stop();
        }
    });
    server.serve().await;
    Ok(())
}

// An example is an application, which is where the time comes from.
#[allow(clippy::disallowed_methods)]
fn wall_clock_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
