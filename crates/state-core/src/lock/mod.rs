//! Locks: leases with an owner and a fencing token.
//!
//! A lease gives at most one holder by the lock service's clock. It never gives mutual exclusion of effects: a paused
//! holder can wake up after its lease. What makes effects safe is the token that each grant carries, checked by the
//! resource: write with [`Put::fenced_by`](crate::Put::fenced_by). See Martin Kleppmann, "How to do distributed locking"
//! (2016), for the argument, and [`semantics`] for what each backend guarantees.
//!
//! - [`request`]: what drivers take and return
//! - [`record`]: the lock record as text, and its transitions
//! - [`guard`]: what an application holds: extension, renewal, the lost signal, release
//! - [`mod@line`]: those who wait for a lock in one process, for drivers
//! - [`rotation`]: whose waiters ask first when several processes wait, for drivers
//! - [`election`]: one leader at a time, on top of a guard
//! - [`semantics`]: the guarantees of a connected backend as data

pub mod election;
pub mod guard;
pub mod line;
pub mod record;
pub mod request;
pub mod rotation;
pub mod semantics;
