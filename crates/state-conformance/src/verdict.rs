//! How a case says what it expected and what it got.
//!
//! A check returns an error instead of panicking, so that a caller can run one case and look at its failure, and the case
//! still cleans up. The place of the check in the kit's source is kept: it is where the rule is written down.

use std::fmt::{self, Debug, Display};
use std::panic::Location;

use acteon_state_core::{Effect, Entry, Error, ErrorKind, LockBusy, LockGrant, LockOutcome, PutOutcome, Version};

/// What a case returns.
pub type Verdict<T = ()> = Result<T, Failure>;

/// Why a case failed.
pub struct Failure {
    message: String,
    location: &'static Location<'static>,
}

impl Failure {
    /// A failure with this reason, found here.
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), location: Location::caller() }
    }

    /// The same failure, told from further away.
    pub(crate) fn nested(context: impl Display, inner: &Self) -> Self {
        Self { message: format!("{context}: {}", inner.message), location: inner.location }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  checked at {}", self.message, self.location)
    }
}

impl Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self { message: format!("an operation failed that should not: {error}"), location: Location::caller() }
    }
}

/// `got` must be `expected`.
#[track_caller]
pub(crate) fn equal<T: Debug + PartialEq>(about: impl Display, what: &str, got: &T, expected: &T) -> Verdict {
    if got == expected {
        return Ok(());
    }
    Err(Failure::new(format!("{about}: {what}\n  expected: {expected:?}\n       got: {got:?}")))
}

/// `holds` must be true; `got` is what it was decided by.
#[track_caller]
pub(crate) fn holds(about: impl Display, what: &str, holds: bool, got: impl Debug) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(Failure::new(format!("{about}: {what}\n  expected: that it holds\n       got: {got:?}")))
}

/// There must be something.
#[track_caller]
pub(crate) fn present<T>(about: impl Display, what: &str, got: Option<T>) -> Verdict<T> {
    match got {
        Some(value) => Ok(value),
        None => Err(Failure::new(format!("{about}: {what}\n  expected: something\n       got: nothing"))),
    }
}

/// There must be nothing.
#[track_caller]
pub(crate) fn absent<T: Debug>(about: impl Display, what: &str, got: Option<T>) -> Verdict {
    match got {
        None => Ok(()),
        Some(value) => Err(Failure::new(format!("{about}: {what}\n  expected: nothing\n       got: {value:?}"))),
    }
}

/// The operation must fail with this kind, and have changed nothing.
#[track_caller]
pub(crate) fn refused<T: Debug>(
    about: impl Display,
    what: &str,
    got: Result<T, Error>,
    expected: ErrorKind,
) -> Verdict<Error> {
    match got {
        Err(error) if error.kind() == expected && error.effect() == Effect::NotApplied => Ok(error),
        got => Err(Failure::new(format!(
            "{about}: {what}\n  expected: an error of kind {expected:?} that changed nothing\n       got: {got:?}"
        ))),
    }
}

/// The write must have been applied.
#[track_caller]
pub(crate) fn applied(about: impl Display, what: &str, got: PutOutcome) -> Verdict<Version> {
    match got {
        PutOutcome::Applied(version) => Ok(version),
        PutOutcome::NotMet(current) => {
            Err(Failure::new(format!("{about}: {what}\n  expected: Applied\n       got: NotMet({current:?})")))
        }
    }
}

/// The condition must not have held; returns the entry at that moment.
#[track_caller]
pub(crate) fn not_met(about: impl Display, what: &str, got: PutOutcome) -> Verdict<Option<Entry>> {
    match got {
        PutOutcome::NotMet(current) => Ok(current),
        PutOutcome::Applied(_) => {
            Err(Failure::new(format!("{about}: {what}\n  expected: NotMet\n       got: {got:?}")))
        }
    }
}

/// The lock must have been granted.
#[track_caller]
pub(crate) fn granted(about: impl Display, what: &str, got: LockOutcome) -> Verdict<LockGrant> {
    match got {
        LockOutcome::Granted(grant) => Ok(grant),
        LockOutcome::Busy(_) => Err(Failure::new(format!("{about}: {what}\n  expected: Granted\n       got: {got:?}"))),
    }
}

/// The lock must have been refused.
#[track_caller]
pub(crate) fn busy(about: impl Display, what: &str, got: LockOutcome) -> Verdict<LockBusy> {
    match got {
        LockOutcome::Busy(busy) => Ok(busy),
        LockOutcome::Granted(_) => Err(Failure::new(format!("{about}: {what}\n  expected: Busy\n       got: {got:?}"))),
    }
}
