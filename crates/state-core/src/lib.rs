//! The contract of Acteon's state layer: what every backend promises, word for word the same.
//!
//! A server that dispatches actions must not do so twice, too often, or from two nodes at once. It needs shared state: values
//! with time to live, counters, rate limits, due times and locks. This crate says what they mean; drivers implement it, and
//! `acteon-state-conformance` proves that they do.
//!
//! # Two surfaces
//! - [`StateStore`] is the small object-safe trait that a driver implements.
//! - [`State`] is the handle that an application holds: typed values, streams, lock guards.
//!
//! # Map
//! | what | where |
//! |---|---|
//! | keys, their text, companions | [`key`] |
//! | values, versions, time to live, fencing tokens | [`entry`], [`mod@write`] |
//! | counters and rate limits | [`counter`], [`rate`] |
//! | batches, transactions, listings | [`many`], [`scan`] |
//! | what must let a piece of work pass before it begins | [`gate`] |
//! | due times | [`due`] |
//! | locks: requests, guards, elections, guarantees | [`lock`] |
//! | errors with their effect | [`error`] |
//! | what a backend can do | [`capabilities`] |
//! | bytes of stored records | [`record`], [`lock::record`] |
//! | layers around a store | [`layer`], [`operation`] |
//! | faults in the log, once and not for each call | [`fault_log`] |
//! | clocks | [`clock`] |
//!
//! # Rules that are easy to get wrong
//! - A failed condition, an absent key, a busy lock are values in `Ok`. An [`Error`] means that the question was not answered.
//! - A plain write clears the time to live; say [`Ttl::Keep`] to keep it.
//! - A lock is a lease. Write what it protects with [`Put::fenced_by`].

pub mod capabilities;
pub mod clock;
pub mod counter;
pub mod due;
pub mod entry;
pub mod error;
pub mod fault_log;
mod fields;
pub mod gate;
mod id;
pub mod key;
pub mod layer;
pub mod lock;
pub mod many;
pub mod operation;
pub mod rate;
pub mod record;
pub mod scan;
pub mod secret;
mod state;
mod store;
pub mod write;

pub use capabilities::{Capabilities, TransactLimits, TransactScope};
pub use counter::{AtBound, Counter, Counting, Increment, IncrementOutcome};
pub use due::{ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Schedule, Scheduled};
pub use entry::{Entry, FencingToken, Get, TTL_MAX, Ttl, Version};
pub use error::{Effect, Error, ErrorKind, Result};
pub use gate::{Admission, Gate, GateReply};
pub use key::{Keyspace, Scope, StateKey};
pub use lock::election::{Election, LeaderWatch};
pub use lock::guard::{LockAttempt, LockGuard, LockOptions};
pub use lock::request::{
    ExtendOutcome, LockBusy, LockGrant, LockHolder, LockMode, LockOutcome, LockRequest, LockState, OwnerId,
    ReleaseOutcome,
};
pub use lock::semantics::{LockClock, LockSemantics, Survival, Waiting};
pub use many::{BatchOp, BatchReply, TransactOp, TransactOutcome};
pub use operation::Operation;
pub use rate::{Decision, OperationId, RateAlgorithm, RateLimit};
pub use scan::{Cursor, Page, Scan, ScanItem};
pub use secret::Secret;
pub use state::{State, Versioned};
pub use store::StateStore;
pub use write::{Condition, DeleteOutcome, Put, PutOutcome};
