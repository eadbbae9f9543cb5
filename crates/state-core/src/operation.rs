//! The operations by name, and what a layer may know of a call without knowing its arguments.

use std::time::Duration;

use crate::counter::IncrementOutcome;
use crate::due::{ClaimOutcome, Claimed, Scheduled};
use crate::entry::Entry;
use crate::error::Result;
use crate::gate::{Gate, GateReply};
use crate::key::{Scope, StateKey};
use crate::lock::request::{ExtendOutcome, LockOutcome, LockState, ReleaseOutcome};
use crate::many::{BatchOp, BatchReply, TransactOp, TransactOutcome};
use crate::rate::Decision;
use crate::scan::{Page, ScanItem};
use crate::write::{DeleteOutcome, PutOutcome};

/// A method of [`StateStore`](crate::StateStore), by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Operation {
    Ping,
    Get,
    Put,
    Delete,
    Take,
    Touch,
    Increment,
    RateLimit,
    Batch,
    Transact,
    Admit,
    Scan,
    Schedule,
    Cancel,
    ClaimDue,
    Ack,
    ExtendClaim,
    LockAcquire,
    LockExtend,
    LockRelease,
    LockInspect,
    LockForceRelease,
    LockList,
    Close,
}

impl Operation {
    /// The method's name: the value of the label `operation` in metrics and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Take => "take",
            Self::Touch => "touch",
            Self::Increment => "increment",
            Self::RateLimit => "rate_limit",
            Self::Batch => "batch",
            Self::Transact => "transact",
            Self::Admit => "admit",
            Self::Scan => "scan",
            Self::Schedule => "schedule",
            Self::Cancel => "cancel",
            Self::ClaimDue => "claim_due",
            Self::Ack => "ack",
            Self::ExtendClaim => "extend_claim",
            Self::LockAcquire => "lock_acquire",
            Self::LockExtend => "lock_extend",
            Self::LockRelease => "lock_release",
            Self::LockInspect => "lock_inspect",
            Self::LockForceRelease => "lock_force_release",
            Self::LockList => "lock_list",
            Self::Close => "close",
        }
    }

    /// Whether it changes nothing: its failure is never of unknown effect.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Ping | Self::Get | Self::Scan | Self::LockInspect | Self::LockList)
    }
}

/// Whether a call may be repeated after a failure of unknown effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The backend recognises the repetition, or nothing is changed.
    Freely,
    /// A repetition could be applied twice.
    UnlessUnknown,
}

/// The keys that a call is about.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// None.
    None,
    /// One key, lock or queue.
    One(&'a StateKey),
    /// A listing.
    Scope(&'a Scope),
    /// A batch.
    Batch(&'a [BatchOp]),
    /// A transaction.
    Transact(&'a [TransactOp]),
    /// Gates.
    Gates(&'a [Gate]),
}

/// A call, as layers see it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which method.
    pub operation: Operation,
    /// About which keys.
    pub keys: Keys<'a>,
    /// Whether it may be repeated after a failure of unknown effect.
    pub repeat: Repeat,
    /// How long the call waits on purpose, apart from the time that the backend needs: the wait for a lock.
    pub wait: Duration,
}

/// What layers may ask of a successful reply.
pub trait Reply: Send {
    /// The reply in one word, for metrics: a small fixed set.
    fn outcome(&self) -> &'static str {
        "ok"
    }

    /// Whether the reply could be the trace of this very request, sent before with unknown effect: a condition that does
    /// not hold because the first attempt was applied, and somebody wrote on top of it.
    fn may_be_own_trace(&self) -> bool {
        false
    }
}

impl Reply for () {}
impl Reply for bool {
    fn outcome(&self) -> &'static str {
        if *self { "present" } else { "absent" }
    }
}
impl Reply for usize {}
impl Reply for Decision {
    fn outcome(&self) -> &'static str {
        if self.allowed { "allowed" } else { "refused" }
    }
}
impl Reply for Vec<Result<BatchReply>> {}
impl Reply for Page<ScanItem> {}
impl Reply for Page<LockState> {}
impl Reply for Scheduled {}
impl Reply for Claimed {}
impl Reply for Option<LockState> {}

impl Reply for Option<Entry> {
    fn outcome(&self) -> &'static str {
        if self.is_some() { "present" } else { "absent" }
    }
}

impl Reply for PutOutcome {
    fn outcome(&self) -> &'static str {
        if self.is_applied() { "applied" } else { "not_met" }
    }

    fn may_be_own_trace(&self) -> bool {
        !self.is_applied()
    }
}

impl Reply for DeleteOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Deleted => "applied",
            Self::Absent => "absent",
            Self::NotMet(_) => "not_met",
        }
    }

    fn may_be_own_trace(&self) -> bool {
        !self.is_deleted()
    }
}

impl Reply for IncrementOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Clamped(_) => "clamped",
            Self::Refused(_) => "refused",
        }
    }
}

impl Reply for TransactOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Committed => "applied",
            Self::Refused { .. } => "not_met",
        }
    }
}

impl Reply for Vec<Result<GateReply>> {
    fn outcome(&self) -> &'static str {
        match self.last() {
            Some(Ok(reply)) if reply.passes() => "passed",
            Some(Ok(_)) => "refused",
            Some(Err(error)) => error.kind().as_str(),
            None => "ok",
        }
    }

    fn may_be_own_trace(&self) -> bool {
        matches!(self.last(), Some(Ok(GateReply::Put(outcome))) if !outcome.is_applied())
    }
}

impl Reply for ClaimOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Done => "applied",
            Self::Lost => "lost",
        }
    }

    fn may_be_own_trace(&self) -> bool {
        *self == Self::Lost
    }
}

impl Reply for LockOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Granted(_) => "granted",
            Self::Busy(_) => "busy",
        }
    }
}

impl Reply for ExtendOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Extended => "extended",
            Self::Lost => "lost",
        }
    }
}

impl Reply for ReleaseOutcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::AlreadyLost => "already_lost",
        }
    }

    fn may_be_own_trace(&self) -> bool {
        *self == Self::AlreadyLost
    }
}
