//! The engine for Redis clients: published beside the dispatch server, or alone.
//!
//! # What it promises
//! Clients and the store that `backend = "memory"` opened work on the same keys, by the same clock: what one writes the other sees,
//! and both agree on what has expired.
//!
//! # How it works
//! The store is opened by way of a registry whose memory driver keeps what it has opened. Releases of locks are announced in both directions:
//! the store tells subscribers, as the Redis driver does, and hears what the Redis driver of other nodes tells them.

pub mod config;
#[cfg(feature = "memory")]
mod metrics;
#[cfg(feature = "memory")]
mod publish;
#[cfg(feature = "memory")]
pub mod tools;

pub use config::{EngineConfig, EngineFsync, SaveConfig};
#[cfg(feature = "memory")]
pub(crate) use publish::SECOND_ENGINE;
#[cfg(feature = "memory")]
pub use publish::{EngineSource, PublishedEngine, run_alone};
