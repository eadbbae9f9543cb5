//! [`StateStore`](acteon_state_core::StateStore) over Redis 7.0 or newer, or Valkey: one server, a primary
//! that Sentinels watch, or a Cluster.
//!
//! ```no_run
//! use acteon_state_core::{State, StateKey};
//! use acteon_state_redis::{RedisConfig, RedisStore};
//! # async fn example() -> acteon_state_core::Result<()> {
//! let store = RedisStore::connect(RedisConfig::from_url("redis://localhost:6379")?).await?;
//! let state = State::new(std::sync::Arc::new(store));
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! - Each operation is atomic: one command, or one script that Redis runs as a whole. The server's clock decides.
//! - A request is sent once. Nothing in here or in the client library repeats one whose answer was lost.
//! - Errors tell kind and effect: refused before sending or by the server is `NotApplied`; a write whose answer was lost, by a
//!   broken connection or a timeout, is `Unknown`; reads are never `Unknown`.
//! - A request that still waits to be sent when its call times out, or is dropped, is never sent, and is `NotApplied`. One that several
//!   acknowledgements share is sent once it was put together, for those that were there then.
//! - Calls end in time as long as the runtime is driven on which the store was connected: its tasks look after their deadlines.
//! - The connection comes back by itself, without end; meanwhile calls fail at once instead of piling up.
//!
//! # Round trips
//! | operation | commands | round trips |
//! |---|---|---|
//! | `get` | `GET`; with ttl a script | 1 |
//! | `put` | `SET NX GET` when absent, else a script | 1 |
//! | `delete` | `DEL`; by version or fence a script | 1 |
//! | `take` | a script around `GETDEL`, which spares what does not parse | 1 |
//! | `touch` | `PEXPIRE`, `EXISTS`, or a script | 1 |
//! | `increment`, `rate_limit`, `transact` | a script | 1 |
//! | `batch` | all of the above in one pipeline | 1 |
//! | `admit` | one script; not on a Cluster, nor in strict safety | 1 |
//! | `scan`, `lock_list` | `SCAN`, and `MGET` where records are read | 1 for each thousand keys visited, at most 16, and 1 |
//! | `schedule`, `cancel`, `claim_due`, `extend_claim` | a script | 1 |
//! | `ack` | a script, which those of one queue that come at the same moment share | 1 |
//! | `lock_acquire` | a script; `SUBSCRIBE` when it waits | 1 without waiting |
//! | `lock_extend`, `lock_release`, `lock_force_release` | a script | 1 |
//! | `lock_inspect` | `GET` and `TIME` in one pipeline | 1 |
//!
//! A script that the server has forgotten costs one more, once.
//!
//! # Keys
//! A value or counter lives under `prefix:namespace:tenant:kind:id` and is readable in `redis-cli` behind a header of fixed
//! width. Its companions live under `{prefix:namespace:tenant:kind:id}:lock` and so on; see `acteon_state_core::key` and
//! `acteon_state_core::record`. The memory driver writes the same bytes.
//!
//! # Rights
//! With ACLs, the user needs `+@read +@write +@scripting +@connection +time ~prefix:* ~{prefix:*`. For waking lock waiters it
//! also needs `+publish +subscribe +unsubscribe &{prefix:*`; without, waiters get their locks up to a second late. Where
//! `+info +config|get` are missing, the weaker guarantees are declared.
//!
//! # Map
//! | what | where |
//! |---|---|
//! | options and URLs; settings of the `redis` crate | [`config`], `url`, `redis_rs` |
//! | where servers are and how to get in, as URL and options say it together | `topology` |
//! | opening a connection; TLS; silence; what the server says of itself | `connect`, `dial`, `tls`, `silence`, `server` |
//! | connections that heal; the way of a request; its figures | `link`, `router`, `stats` |
//! | one connection that many calls share; when it writes | `wire`, `gather` |
//! | Sentinels; a Cluster's slots; reads from replicas | `sentinel`, `cluster`, `readers` |
//! | what is known of the servers: capabilities, guarantees, dangers | `known`, `semantics`, `safety` |
//! | locks that a failover keeps | `lock`, `quarantine` |
//! | operations by family; acknowledgements that come together | `store`, `due`, `lock`; `acks` |
//! | waking lock waiters | `wakeup` |
//! | scripts and their loader | `scripts/*.lua`, `script` |
//! | from replies and failures to results | `reply`, `error` |

mod acks;
mod cluster;
pub mod config;
mod connect;
mod dial;
mod due;
mod error;
mod gather;
mod known;
mod link;
mod lock;
mod quarantine;
mod readers;
mod redis_rs;
mod reply;
mod router;
mod safety;
mod script;
mod semantics;
mod sentinel;
mod server;
mod silence;
mod stats;
mod store;
mod tls;
mod topology;
mod url;
mod wakeup;
mod wire;

pub use config::{Protocol, RedisConfig, Safety, Secret, TopologyName};
pub use stats::{ConnectionStats, ConnectionWatch};
pub use store::RedisStore;
