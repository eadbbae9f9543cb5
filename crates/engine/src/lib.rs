//! The native in-memory database: keys, values and their deadlines, and nothing else.
//!
//! # Guarantees
//! - One [`Engine::update`] is atomic, and so is one [`Engine::update_many`] over all of its keys.
//! - A key is there up to and including the millisecond of its deadline and absent from the next one on, to every operation,
//!   whether or not it was removed yet. It never vanishes early.
//! - A refused write ([`EngineError`]) has changed nothing.
//! - [`Engine::scan`] visits every key that exists throughout it, in byte order, in pages of bounded size.
//!
//! # What is not here
//! No clock, no thread, no I/O, no async: `now_ms` is an argument, and who owns an engine calls [`Engine::expire_cycle`] from time to
//! time, and [`Engine::evict_cycle`] where keys are evicted. Any millisecond clock will do that all callers share. So a test can replay any run, and the same keyspace
//! serves an embedding application and a network listener.
//!
//! # Where is what
//! | file | holds |
//! |---|---|
//! | `keyspace.rs` | the engine: segments, locks, the operations |
//! | `segment.rs` | entries with their bookkeeping |
//! | `store.rs` | entries by their keys: the table, and where they lie |
//! | `entry.rs` | the bytes of a key with its value |
//! | `slot.rs` | reading and writing one key inside an update |
//! | `change.rs` | what writes did, as bytes for a journal, and applying it |
//! | `snapshot.rs` | the state of one moment, written out while writes go on |
//! | `family.rs` | the databases of one engine |
//! | `digest.rs` | telling whether two engines hold the same |
//! | `ahead.rs` | looking up keys of several commands at once |
//! | `expire.rs` | removal of expired keys in the background |
//! | `index.rs` | keys in order, for scans |
//! | `memory.rs` | the memory bound |
//! | `evict.rs` | what goes when the bound is reached |
//! | `value/` | hashes and sorted sets |
//! | `rdb.rs` | values and databases as bytes that Redis reads |
//! | `import.rs` | taking over the files of a Redis |
//!
//! # Example
//! ```
//! use acteon_engine::{Engine, EngineConfig, Expiry};
//!
//! let engine = Engine::new(EngineConfig::default());
//! let now_ms = 1_000;
//! engine.update(b"greeting", now_ms, |slot| slot.set_str(&[b"hello, ", b"world"], Expiry::At(now_ms + 50)))?;
//!
//! let text = engine.read(b"greeting", now_ms, |value| value.and_then(|value| value.as_str().map(<[u8]>::to_vec)));
//! assert_eq!(text.as_deref(), Some(&b"hello, world"[..]));
//! assert!(engine.read(b"greeting", now_ms + 51, |value| value.is_none()));
//! # Ok::<(), acteon_engine::EngineError>(())
//! ```

// What only commands use is written where it belongs, not behind a switch on each line.
#![cfg_attr(not(feature = "commands"), allow(dead_code))]

#[cfg(feature = "commands")]
mod ahead;
mod algorithm;
mod change;
#[cfg(feature = "commands")]
mod command;
mod config;
#[cfg(feature = "commands")]
mod cursor;
mod digest;
mod entry;
mod error;
mod evict;
mod expire;
mod family;
#[cfg(feature = "commands")]
pub mod import;
mod index;
#[cfg(feature = "commands")]
mod instance;
mod keyspace;
#[cfg(any(feature = "commands", shuttle))]
mod lock;
mod memory;
mod observe;
pub mod rdb;
#[cfg(feature = "commands")]
mod script;
mod segment;
mod slot;
mod snapshot;
mod stats;
mod store;
mod sync;
#[cfg(feature = "commands")]
mod typed;
mod value;

pub use change::{ChangeError, ChangeLog, check_group, groups_of_this_thread};
pub use config::{EngineConfig, SEGMENTS_DEFAULT, SEGMENTS_MAX};
pub use entry::{Kind, Ref};
pub use error::EngineError;
pub use evict::{EvictReport, EvictionConfig, EvictionPolicy, NeverEvict};
pub use expire::ExpireReport;
#[cfg(feature = "commands")]
pub use instance::{
    Batch, Buffers, Client, ClientOptions, Flow, Host, HostFacts, Instance, InstanceConfig, Keeper, KeeperFigures,
    KeeperJob, NetworkSettings, OutputLimit, OutputLimits, Secret, SyncPolicy, Traffic, Usage, User, Waker,
};
pub use keyspace::{Engine, Slots};
#[cfg(feature = "commands")]
pub use script::{ScriptLog, ScriptLogLevel};
pub use slot::{Expiry, Slot};
pub use snapshot::{HeldBytes, Snapshot};
pub use stats::Stats;
pub use value::{
    Fields, HashMut, Inserted, LexBound, LexRange, Limits, Pairs, RankedMembers, ScoreRange, SortedSetMut, Zset,
};
