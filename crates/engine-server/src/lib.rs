//! Serves a native database to any Redis client: TCP, TLS and unix sockets, one task per connection.
//!
//! # What it promises
//! - Commands of one connection are carried out in the order in which they came, and answered in that order, however the
//!   bytes were cut into packets.
//! - What a connection can cost is bounded: its input, its output, the time it may be silent, and the number of connections. Each
//!   bound has a name in [`Limits`].
//! - [`Stopper::stop`] ends it in good order: no more connections, what was carried out is answered, then all is closed.
//!
//! # Failure
//! [`EngineServer::bind`] says what cannot be listened on. After that, whatever arrives ends at worst the connection it came from.
//!
//! # Where is what
//! | file | holds |
//! |---|---|
//! | `config.rs` | where to listen, and every limit |
//! | `server.rs` | binding, accepting, stopping |
//! | `listener.rs` | sockets |
//! | `tls.rs` | certificates |
//! | `admission.rs` | who may connect, and what the others are told |
//! | `session.rs` | one connection: reading, executing, writing |
//! | `gate.rs` | holding replies back until what they tell of is on the disk |
//! | `input.rs`, `output.rs` | its buffers |
//! | `wake.rs`, `timer.rs` | what ends its waiting |
//! | `housekeeping.rs` | removal of expired keys, schedules of the disk |
//! | `counters.rs` | what is counted |
//! | `host.rs`, `keeper.rs` | what the instance asks its server, and its disk |
//!
//! # Example
//! ```
//! use std::sync::Arc;
//!
//! use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
//! use acteon_engine_server::{EngineServer, ListenConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
//! let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
//! let server = EngineServer::bind(instance, config, Arc::new(|| 1_000_000)).await?;
//! let (address, stopper) = (server.addresses()[0], server.stopper());
//! let serving = tokio::spawn(server.serve());
//! println!("redis-cli -p {}", address.port());
//! stopper.stop();
//! serving.await?;
//! # Ok(()) }
//! ```

mod admission;
mod config;
mod counters;
mod gate;
mod host;
mod housekeeping;
mod input;
mod keeper;
mod listener;
mod output;
mod server;
mod session;
mod timer;
mod tls;
mod usage;
mod wake;

pub use config::{Limits, ListenConfig, TlsConfig, UnixConfig};
pub use counters::{Counters, Totals};
pub use server::{BindError, Clock, EngineServer, Stopper};
