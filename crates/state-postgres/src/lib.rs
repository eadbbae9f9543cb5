//! [`StateStore`](acteon_state_core::StateStore) over PostgreSQL 14 or newer.

pub mod config;
mod connect;
mod error;
mod server;
mod url;

pub use config::{PostgresConfig, Secret};
