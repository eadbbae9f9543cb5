//! Gates: what must let a piece of work pass before it begins, asked one after the other in as few round trips as possible.
//!
//! A worker claims its piece, counts it against limits, and takes a lock. Each answer decides whether the next question is asked
//! at all: a piece that somebody else has claimed must use up no limit, and one that a limit refuses must take no lock. So this is
//! no batch, whose operations are independent, and no transaction, which undoes what went before the refusal.
//!
//! # Guarantees
//! Gates are asked in their order. The first that does not let pass, or fails, is the last that is asked. What those before it did
//! stays done: to give a claim back is up to the caller. Each gate does exactly what the method of its name does, as one atomic step;
//! others may act between two of them. A lock is asked for once, whatever wait its request names.
//!
//! # Failure
//! An error of the whole says the same of every gate: with `NotApplied` none of them was asked, with `Unknown` each of them may
//! have let pass, a lock included. An error of one gate says nothing about those before it, which have their replies.

use crate::error::{Error, ErrorKind, Result};
use crate::key::StateKey;
use crate::lock::guard::LockAttempt;
use crate::lock::request::{LockOutcome, LockRequest};
use crate::rate::{Decision, RateLimit};
use crate::write::{Put, PutOutcome};

/// The most gates of one call: a server that carries them out in one step holds up everyone else for as long as that takes.
pub const GATES_MAX: usize = 16;

/// One gate: the same as the method of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// [`StateStore::put`](crate::StateStore::put): lets pass when it is applied.
    Put(StateKey, Put),
    /// [`StateStore::rate_limit`](crate::StateStore::rate_limit): lets pass when the request is allowed.
    RateLimit(StateKey, RateLimit),
    /// [`StateStore::lock_acquire`](crate::StateStore::lock_acquire) without waiting: lets pass when the lock is granted. Only as
    /// the last gate.
    Lock(LockRequest),
}

impl Gate {
    /// The key that it is about.
    #[must_use]
    pub const fn key(&self) -> &StateKey {
        match self {
            Self::Put(key, _) | Self::RateLimit(key, _) => key,
            Self::Lock(request) => &request.key,
        }
    }
}

/// What one gate said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateReply {
    /// Of `Put`.
    Put(PutOutcome),
    /// Of `RateLimit`.
    RateLimit(Decision),
    /// Of `Lock`.
    Lock(LockOutcome),
}

impl GateReply {
    /// Whether it lets pass.
    #[must_use]
    pub const fn passes(&self) -> bool {
        match self {
            Self::Put(outcome) => outcome.is_applied(),
            Self::RateLimit(decision) => decision.allowed,
            Self::Lock(outcome) => matches!(outcome, LockOutcome::Granted(_)),
        }
    }
}

/// What came of [`State::admit`](crate::State::admit). What is not answered here was not asked: ask it by itself.
#[derive(Debug, Default)]
pub struct Admission {
    /// What gates said, in their order. Only the last one can be a refusal or an error.
    pub replies: Vec<Result<GateReply>>,
    /// What came of asking for the lock once; `None` when it was not asked for. Who wants to wait for a busy one asks again.
    pub lock: Option<Result<LockAttempt>>,
}

/// Checks the number of gates and the place of a lock. Drivers check each gate by itself, see
/// [`StateStore::admit`](crate::StateStore::admit).
///
/// # Errors
/// `Invalid` for none, and for a lock before the last place; `TooLarge` above [`GATES_MAX`].
pub fn check_gates(gates: &[Gate]) -> Result<()> {
    let Some((_, before_last)) = gates.split_last() else {
        return Err(Error::invalid("there are no gates to ask"));
    };
    if gates.len() > GATES_MAX {
        let message = format!("there are {} gates; allowed are {GATES_MAX}", gates.len());
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    if before_last.iter().any(|gate| matches!(gate, Gate::Lock(_))) {
        return Err(Error::invalid("a lock is the last gate, if any: whoever is refused after it would hold it"));
    }
    Ok(())
}
