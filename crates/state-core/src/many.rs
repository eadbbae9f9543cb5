//! Several keys in one call: independent operations in a batch, or all or nothing in a transaction.

use crate::capabilities::{Capabilities, TransactScope};
use crate::counter::{Increment, IncrementOutcome};
use crate::entry::{Entry, Get};
use crate::error::{Error, ErrorKind, Result};
use crate::key::StateKey;
use crate::write::{Condition, DeleteOutcome, Put, PutOutcome};

/// The most operations in one batch. Longer work is cut by the caller, so that no request is unbounded.
pub const BATCH_OPS_MAX: usize = 1_000;

/// One operation of a batch: the same as the method of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOp {
    /// [`StateStore::get`](crate::StateStore::get).
    Get(StateKey, Get),
    /// [`StateStore::put`](crate::StateStore::put).
    Put(StateKey, Put),
    /// [`StateStore::delete`](crate::StateStore::delete).
    Delete(StateKey, Condition),
    /// [`StateStore::take`](crate::StateStore::take).
    Take(StateKey),
    /// [`StateStore::increment`](crate::StateStore::increment).
    Increment(StateKey, Increment),
}

impl BatchOp {
    /// The key that it is about.
    #[must_use]
    pub const fn key(&self) -> &StateKey {
        match self {
            Self::Get(key, _)
            | Self::Put(key, _)
            | Self::Delete(key, _)
            | Self::Take(key)
            | Self::Increment(key, _) => key,
        }
    }
}

/// What came of one operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchReply {
    /// Of `Get`.
    Got(Option<Entry>),
    /// Of `Put`.
    Put(PutOutcome),
    /// Of `Delete`.
    Deleted(DeleteOutcome),
    /// Of `Take`.
    Taken(Option<Entry>),
    /// Of `Increment`.
    Incremented(IncrementOutcome),
}

/// Checks the length of a batch. Drivers check each operation by itself, so that one bad item does not fail the others.
///
/// # Errors
/// `TooLarge` above [`BATCH_OPS_MAX`].
pub fn check_batch(ops: &[BatchOp]) -> Result<()> {
    if ops.len() > BATCH_OPS_MAX {
        let message = format!("the batch has {} operations; allowed are {BATCH_OPS_MAX}", ops.len());
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactOp {
    /// The condition must hold; nothing is written.
    Check(StateKey, Condition),
    /// The condition must hold; then the value is written.
    Put(StateKey, Put),
    /// The condition must hold; then the entry, if any, is deleted.
    Delete(StateKey, Condition),
    /// The step must fit its bounds; clamping is not possible here.
    Increment(StateKey, Increment),
}

impl TransactOp {
    /// The key that it is about.
    #[must_use]
    pub const fn key(&self) -> &StateKey {
        match self {
            Self::Check(key, _) | Self::Put(key, _) | Self::Delete(key, _) | Self::Increment(key, _) => key,
        }
    }
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactOutcome {
    /// Every operation was applied, at one moment.
    Committed,
    /// Nothing was applied: the condition or bound of this operation did not hold.
    Refused {
        /// Its place in the request: the first that did not hold.
        index: usize,
        /// The live entry of its key at that moment.
        current: Option<Entry>,
    },
}

/// Checks a transaction against the limits of a backend, before anything is sent.
///
/// # Errors
/// `Unsupported` where there are none, `TooLarge` for too many operations, `Invalid` for none, for two on one key, for a
/// clamped increment, and whatever its single operations report.
pub fn check_transact(ops: &[TransactOp], capabilities: &Capabilities) -> Result<()> {
    let Some(limits) = &capabilities.transact else {
        return Err(Error::unsupported("transact"));
    };
    if ops.is_empty() || ops.len() > limits.ops_max {
        let kind = if ops.is_empty() { ErrorKind::Invalid } else { ErrorKind::TooLarge };
        let message = format!("the transaction has {} operations; allowed are 1 to {}", ops.len(), limits.ops_max);
        return Err(Error::new(kind, message));
    }
    let mut texts: Vec<&str> = ops.iter().map(|op| op.key().text()).collect();
    texts.sort_unstable();
    if let Some(pair) = texts.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("the transaction has two operations on key {}; combine them", pair[0])));
    }
    if limits.scope == TransactScope::OneKey && ops.len() > 1 {
        return Err(Error::unsupported("transact over several keys"));
    }
    ops.iter().try_for_each(|op| match op {
        TransactOp::Check(_, condition) | TransactOp::Delete(_, condition) => condition.check(capabilities),
        TransactOp::Put(_, put) => put.check(capabilities),
        TransactOp::Increment(_, increment) if increment.at_bound == crate::counter::AtBound::Clamp => {
            Err(Error::invalid("a transaction cannot clamp an increment: it applies all of it or nothing"))
        }
        TransactOp::Increment(_, increment) => increment.check().map(|_| ()),
    })
}
