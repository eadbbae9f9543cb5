//! [`StateStore`](acteon_state_core::StateStore) over Amazon DynamoDB: one table, one request for nearly every operation.
//!
//! ```no_run
//! use acteon_state_core::{State, StateKey, Ttl};
//! use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
//! # async fn example() -> acteon_state_core::Result<()> {
//! let config = DynamoConfig { region: Some("eu-central-1".to_owned()), ..DynamoConfig::default() };
//! let state = State::new(std::sync::Arc::new(DynamoStore::connect(config).await?));
//! state.put_json(&StateKey::new("shop", "acme", "cart", "42")?, &["apples"], Ttl::Clear).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! - Each operation is atomic: one conditional write, or one transaction. Where something else must be written to an item that has
//!   expired, a refused condition brings the item along, and a second write is made under the condition that it is still so.
//! - What was acknowledged is on the disks of several data centres. Reads see it at once, unless `consistent_reads` is off.
//! - An item that has expired is absent in every condition, whether or not the service has removed it yet.
//! - Nothing is repeated whose answer was lost: the AWS client's own retries are off, and the layers of the store repeat by what
//!   may have happened. A transaction is the exception, since the service recognises it.
//! - Errors tell kind and effect: an answer of the 400 family is `NotApplied`; one of the 500 family, or none, leaves a write
//!   `Unknown`; reads are never `Unknown`. Throttling says whether the table, a hot key or the account is at its limit. No error
//!   shows credentials or a stored value.
//! - No operation reads a whole partition or table, and every request is counted with what it cost ([`Capacity`]).
//!
//! # Time
//! DynamoDB has no clock in its conditions. Times are those of this client's clock, corrected by the `Date` of the answers; two
//! clients may differ by the declared bound `skew_max`. Leases end for others by that bound, or by watching a record stay
//! unchanged for a whole lease; see `lock`.
//!
//! # Requests
//! | operation | request | how many |
//! |---|---|---|
//! | `get`, `lock_inspect`, `ping` | `GetItem` | 1 |
//! | `put`, `touch`, `increment` | `UpdateItem` or `PutItem` | 1; 2 where an expired item is in the way, or a bound clamps |
//! | `delete`, `take` | `DeleteItem` | 1 |
//! | `batch` | `BatchGetItem` where a key is only read, else as alone | 1 for each 100 keys, 1 for each other operation |
//! | `transact` | `TransactWriteItems` | 1; more where an expired item or another transaction is in the way |
//! | `rate_limit`, fixed window | `UpdateItem` | 1; 2 when a window that ended is still there |
//! | `rate_limit`, GCRA | `UpdateItem` | 1 when idle or refused, 2 while the burst is in use |
//! | `rate_limit`, sliding window | `GetItem`, `PutItem` | 1 when refused, 2 when allowed |
//! | `scan` | `Query` | 1 for each shard and page, a second one of shards that were used up |
//! | `schedule`, `cancel`, `ack`, `extend_claim` | `PutItem`, `DeleteItem`, `UpdateItem` | 1 |
//! | `claim_due` | `Query` of the index, `UpdateItem` | 1 for each shard, 1 for each item |
//! | `lock_acquire`, `lock_extend`, `lock_release` | `UpdateItem` | 1 by the only holder; 2 otherwise |
//! | `lock_force_release` | `GetItem`, `UpdateItem` | 2 |
//! | `lock_list` | `Query` of the index, `GetItem` | 1 for each shard and page, 1 for each lock |
//!
//! `docs/backends/dynamodb.md` says what they cost.
//!
//! # Table
//! Key `pk` and `sk`, both text; an index `due` of the items that queues and lock listings find by time; removal of expired items by
//! the attribute `gc`. Keys are in `address`, attributes in `item`, `due` and `lock::record`. It is created at the first
//! connection, or by [`DynamoStore::migrate`].
//!
//! # Rights
//! To work: `GetItem`, `BatchGetItem`, `PutItem`, `UpdateItem`, `DeleteItem`, `ConditionCheckItem` on the table, `Query` on the table
//! and its index. `DescribeTable` and `DescribeTimeToLive` let it check the table. To migrate: `CreateTable`, `UpdateTable` and
//! `UpdateTimeToLive`, and both of those. `docs/backends/dynamodb.md` has the policies.
//!
//! # Map
//! | what | where |
//! |---|---|
//! | options | [`config`] |
//! | the AWS client; sending, and how many at once | `connect`, `call` |
//! | the table: creating and checking it; when it is not there yet | `table`, `preparation` |
//! | what it guarantees, as data | `guarantees` |
//! | where items lie; what is in them; conditions | `address`, `item`, `condition` |
//! | operations by family | `store`, `due`, `lock` |
//! | time that clients agree on | `clock` |
//! | what requests have cost | `capacity` |
//! | from error codes to kind, effect and advice | `error` |

mod address;
mod call;
mod capacity;
mod clock;
mod condition;
pub mod config;
mod connect;
mod due;
mod error;
mod guarantees;
mod item;
mod lock;
mod preparation;
mod store;
mod table;

pub use capacity::{Capacity, Consumed};
pub use config::{DynamoConfig, MigrateMode};
pub use guarantees::lock_semantics_on_aws;
pub use store::DynamoStore;
pub use table::{Change, Migrated};
