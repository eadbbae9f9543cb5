//! What a lock guarantees on the connected backend and topology, as data.
//!
//! The table in `docs/locks.md` is generated from it, and `acteon-server check` prints it.

use std::fmt;

/// The guarantees of one connected backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockSemantics {
    /// Backend and topology, such as "redis standalone".
    pub topology: String,
    /// Whose clock ends a lease.
    pub clock: LockClock,
    /// Across what events tokens keep rising.
    pub tokens_rise_across: String,
    /// Whether a grant survives a crash of the server.
    pub survives_server_crash: Survival,
    /// Whether a grant survives a failover.
    pub survives_failover: Survival,
    /// How a waiter learns that the lock is free.
    pub waiting: Waiting,
    /// What to use it for.
    pub fit_for: String,
    /// Assumptions and what would make it stronger, one sentence each.
    pub notes: Vec<String>,
}

/// Whose clock ends a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockClock {
    /// A monotonic clock inside of the process that keeps the locks.
    Monotonic,
    /// The wall clock of the server.
    ServerWall,
    /// Elapsed time that each client observes by itself.
    Observed,
}

/// Whether a grant survives an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// It does.
    Yes,
    /// It is lost.
    No,
    /// It may be lost, within this bound on what was granted last.
    MayBeLost {
        /// In words, such as "the last 2 s".
        bound: &'static str,
    },
    /// There is no such event.
    NotApplicable,
}

/// How a waiter learns that the lock is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It is handed over in the order of arrival.
    FifoHandOff,
    /// A notification wakes all waiters; a jittered sleep stands in for lost ones.
    NotifyAndSleep,
    /// A jittered, growing sleep.
    Backoff,
}

impl fmt::Display for LockClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Monotonic => "monotonic",
            Self::ServerWall => "server wall",
            Self::Observed => "observed",
        })
    }
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No => f.write_str("no"),
            Self::MayBeLost { bound } => write!(f, "may be lost: {bound}"),
            Self::NotApplicable => f.write_str("n.a."),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FifoHandOff => "FIFO hand-off",
            Self::NotifyAndSleep => "notification and jittered sleep",
            Self::Backoff => "jittered back-off",
        })
    }
}

impl LockSemantics {
    /// The header of the table that [`row`](Self::row) continues.
    pub const TABLE_HEAD: &'static str = "| backend and topology | clock | tokens keep rising across | grant survives server \
        crash / failover | waiting | fit for |\n|---|---|---|---|---|---|\n";

    /// One row of a Markdown table.
    #[must_use]
    pub fn row(&self) -> String {
        format!(
            "| {} | {} | {} | {} / {} | {} | {} |\n",
            self.topology,
            self.clock,
            self.tokens_rise_across,
            self.survives_server_crash,
            self.survives_failover,
            self.waiting,
            self.fit_for
        )
    }
}
