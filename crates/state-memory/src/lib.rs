//! The state contract over an engine in this process: `backend = "memory"`.
//!
//! # Guarantees
//! Everything that [`StateStore`](acteon_state_core::StateStore) promises, with every capability but two: something survives the end of the
//! process only with a directory, and everything acknowledged (`durable`) only with [`KeepFsync::Always`] and without eviction; and other processes
//! share the store only where the application publishes its engine (`shared`). With eviction, what is [never evicted](MemoryConfig::eviction) is
//! as durable as without. Keys, values and records are written byte for byte as the Redis driver writes them, so an engine that is
//! embedded here and reached by protocol elsewhere is one store.
//!
//! # Failure
//! Writes are refused with `OutOfMemory` when the configured bound is reached and nothing may be evicted, and have then changed nothing. After
//! [`close`](acteon_state_core::StateStore::close) every call is `Closed`. Without a directory nothing is ever of unknown effect;
//! with one, see [`KeepConfig`]: a disk that fails refuses writes, and leaves those unknown that it was to keep.
//!
//! # Time
//! The store reads one clock: the wall clock at its creation, continued by a monotonic one. Tests pass a
//! [`ManualClock`](acteon_state_core::clock::ManualClock) to [`MemoryStore::open_with_clock`] and call [`MemoryStore::tick`] after moving
//! it. How long a request for a lock waits is patience, not state, and is measured by tokio's clock.
//!
//! # How it works
//! Each method is one atomic step of the engine, carried out by the calling thread; only a wait for a lock suspends. It needs
//! a tokio runtime for its timer, and expired keys are removed in the background as soon as a call is made inside one.
//!
//! The work of a step is bounded by its arguments, with one exception: the first listing of an engine orders all of its keys, which
//! takes the calling thread on the order of a second per million keys. List once at the start, if that matters.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | the options |
//! | `keep.rs` | the directory, if there is one, and waiting for it |
//! | `store.rs` | [`MemoryStore`]: handles on an engine |
//! | `contract.rs` | what it says of itself, and the trait |
//! | `value.rs`, `counter.rs`, `rate.rs`, `due.rs`, `lock.rs` | what the methods of their names do to the engine |
//! | `many.rs`, `scan.rs` | batches and transactions; listings |
//! | `wait.rs` | who waits for a lock, in order |
//! | `sweep.rs` | removal of expired keys in the background |
//! | `evict.rs` | what stays when memory is short |
//! | `text.rs`, `error.rs` | texts of keys without allocation; errors of the engine as errors of the contract |

mod config;
mod contract;
mod counter;
mod due;
mod error;
mod evict;
mod keep;
mod lock;
mod many;
mod rate;
mod scan;
mod store;
mod sweep;
mod text;
mod value;
mod wait;

pub use config::{Eviction, MemoryConfig};
pub use keep::{KeepConfig, KeepFsync};
pub use store::MemoryStore;
