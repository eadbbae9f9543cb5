//! [`StateStore`](acteon_state_core::StateStore) over PostgreSQL 14 or newer: directly or behind PgBouncer, one server or a primary with
//! standbys.
//!
//! ```no_run
//! use acteon_state_core::{State, StateKey};
//! use acteon_state_postgres::{PostgresConfig, PostgresStore};
//! # async fn example() -> acteon_state_core::Result<()> {
//! let store = PostgresStore::connect(PostgresConfig::from_url("postgres://localhost/app")?).await?;
//! let state = State::new(std::sync::Arc::new(store.clone())); // the store itself is still needed for with_tx_lock
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! - Each operation is atomic: one statement, which is one transaction. A row is locked first and the server's clock read then,
//!   so what is decided is never stale, however long it waited.
//! - What was acknowledged is on the disk, and on synchronous standbys, whatever `synchronous_commit` the role has. Kinds that
//!   are declared relaxed are excepted; locks, writes under a fence and scheduled items never are.
//! - Operations that wait for a connection at the same moment travel as one statement. A lonely one leaves at once.
//! - Nothing is repeated whose answer was lost. What the server rolled back because of another transaction is repeated, since
//!   nothing of it was done.
//! - Errors tell kind and effect: an error of the server to a statement is `NotApplied`, an answer that did not come leaves a
//!   write `Unknown`, reads are never `Unknown`. No error shows a password or a stored value.
//! - Connections come back by themselves, without end, on whichever host can be written to; meanwhile calls fail at once
//!   instead of piling up.
//! - Nothing depends on the settings of the role, the database or the server: schema, isolation level, durability, plans.
//!
//! # Round trips
//! | operation | statement | round trips |
//! |---|---|---|
//! | `get` | a `SELECT`, without locks | 1 |
//! | `put`, `delete`, `take`, `touch`, `increment` | the function `apply` | 1, shared by all that wait |
//! | `batch` | a `SELECT` where all of it reads, else `apply` | 1 for each `batch_ops_max` |
//! | `transact` | the function `transact` | 1 |
//! | `rate_limit` | the function `rate` | 1, shared |
//! | `scan`, `lock_list` | a range of the primary key | 1 for each page |
//! | `schedule`, `cancel`, `ack`, `extend_claim` | the function `due_apply` | 1, shared |
//! | `claim_due` | the function `due_claim`, by `SKIP LOCKED` | 1 for all items of a claim, shared |
//! | `lock_acquire`, `lock_extend`, `lock_release`, `lock_force_release` | the function `lock` | 1 without waiting, shared |
//! | `lock_inspect` | a `SELECT` | 1 |
//! | [`with_tx_lock`](PostgresStore::with_tx_lock) | `BEGIN`, `tx_lock`, the caller's own, `COMMIT` | its own |
//!
//! Behind a pooler that works by transactions each statement costs four, since it travels inside of an explicit transaction.
//!
//! # Tables and keys
//! The four parts of a key are columns that compare byte by byte. Names begin with schema and prefix: `"public"."acteon_entries"`.
//! Tables and functions come from `migrations/*.sql`, whose comments explain them, and are brought up to date at the first
//! connection or by [`PostgresStore::migrate`]. A function that was released keeps its arguments and its meaning for ever.
//!
//! # Rights
//! To work: `CONNECT` on the database, `USAGE` on the schema, `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, `EXECUTE` on the
//! functions. To migrate: `CREATE` on the schema, or on the database where the schema is missing too. Members of `pg_monitor` also
//! learn which standbys are synchronous. `docs/backends/postgres.md` has the SQL.
//!
//! # Map
//! | what | where |
//! |---|---|
//! | options and URLs | [`config`], `url` |
//! | the writable server; TLS; what a server says of itself | `connect`, `server` |
//! | names of tables; their versions | `names`, `migrate`, `migrations/*.sql` |
//! | the way of an operation: it waits in a lane, a worker carries it on its session | `lane`, `workers`, `session` |
//! | operations by family | `store`, `due`, `claim`, `lock` |
//! | waking lock waiters; handing a lock over at home | `waiting`, `hand_over` |
//! | the caller's own transactions under a lock | `tx_lock` |
//! | removing what has expired | `sweep` |
//! | from SQLSTATEs to kind, effect and advice | `error` |

mod claim;
pub mod config;
mod connect;
mod due;
mod ends;
mod error;
mod hand_over;
mod lane;
mod lock;
mod migrate;
mod names;
mod server;
mod session;
mod store;
mod sweep;
mod tx_lock;
mod url;
mod waiting;
mod workers;

pub use config::{MigrateMode, PostgresConfig, Secret, SslMode};
pub use migrate::Migrated;
pub use sqlx;
pub use store::PostgresStore;
pub use tx_lock::TxLockOutcome;
