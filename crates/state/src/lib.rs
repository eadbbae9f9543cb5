//! What applications depend on: from the `[state]` section to an open [`State`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use acteon_state::config::Document;
//! use acteon_state::{StateConfig, StateKey, Ttl};
//!
//! let text = r#"
//! [state]
//! backend = "memory"
//! "#;
//! let config: StateConfig = Document::parse("app.toml", text)?.read_section("state")?.unwrap_or_default();
//! let state = acteon_state::open(&config).await?;
//! let key = StateKey::new("shop", "acme", "cart", "42")?;
//! state.put_json(&key, &["apples", "pears"], Ttl::Clear).await?;
//! state.close().await?;
//! # Ok(()) }
//! ```
//!
//! # What is here
//! - [`config`]: the section, its file, environment and command line, with errors that name the place.
//! - [`Registry`]: the drivers by name. An application adds its own one under its own name.
//! - [`open()`]: connects, checks what is required, and wraps the driver in layers.
//! - [`migrate()`]: brings the tables of backends that have some up to date, or says whether they are.
//! - The whole contract of `acteon-state-core`, so that applications need no other dependency.
//!
//! # Features
//! One per driver: `memory` (default), `redis`, `postgres` and `dynamodb`. A backend whose feature is off is refused at start, by a message that names
//! the feature.
//!
//! # Failure
//! [`open()`] fails with `Config` when the settings are wrong, and with the backend's own kind of error when it does not
//! answer, unless `optional = true` or `connect = "lazy"`. `docs/configuration.md` lists every key, `docs/embedding.md` shows how to use the crate in
//! a server.

pub mod config;
mod drivers;
mod migrate;
mod open;
mod registry;

pub use acteon_state_core as core;
pub use acteon_state_core::{
    AtBound, BatchOp, BatchReply, Capabilities, ClaimDue, ClaimOutcome, ClaimToken, Claimed, Condition, Counter,
    Counting, Cursor, Decision, DeleteOutcome, DueAt, DueItem, Effect, Election, Entry, Error, ErrorKind,
    ExtendOutcome, FencingToken, Get, Increment, IncrementOutcome, Keyspace, LeaderWatch, LockAttempt, LockBusy,
    LockClock, LockGrant, LockGuard, LockHolder, LockMode, LockOptions, LockOutcome, LockRequest, LockSemantics,
    LockState, Operation, OperationId, OwnerId, Page, Put, PutOutcome, RateAlgorithm, RateLimit, ReleaseOutcome,
    Result, Scan, ScanItem, Schedule, Scheduled, Scope, State, StateKey, StateStore, Survival, TransactLimits,
    TransactOp, TransactOutcome, TransactScope, Ttl, Version, Versioned, Waiting,
};
pub use config::StateConfig;
#[cfg(feature = "memory")]
pub use drivers::{open_memory, open_memory_kept};
pub use migrate::{Migrate, SchemaReport, SchemaVersions, migrate, migrate_with};
pub use open::{OpenOptions, open, open_with};
pub use registry::{BoxFuture, DriverConfig, Registry};

/// The DynamoDB driver, for applications that connect by themselves, and for what requests have cost.
#[cfg(feature = "dynamodb")]
pub use acteon_state_dynamodb as dynamodb;
/// The memory driver, for applications that share its engine or clock.
#[cfg(feature = "memory")]
pub use acteon_state_memory as memory;
/// The PostgreSQL driver, for applications that connect by themselves, and for its transactions under a lock.
#[cfg(feature = "postgres")]
pub use acteon_state_postgres as postgres;
/// The Redis driver, for applications that connect by themselves.
#[cfg(feature = "redis")]
pub use acteon_state_redis as redis;

#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../../../docs/embedding.md")]
struct EmbeddingPage;

#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../../../docs/locks.md")]
struct LocksPage;
