//! What lock operations take and return.

use std::time::Duration;

use crate::capabilities::Capabilities;
use crate::clock::BootInstant;
use crate::entry::{FencingToken, duration_ms};
use crate::error::{Error, Result};
use crate::id::identifier;
use crate::key::StateKey;

/// The most bytes of a holder's description.
pub const META_BYTES_MAX: usize = 256;
/// The most holders of one lock at a time: bounds the record, which each operation reads whole.
pub const HOLDERS_MAX: u32 = 1_000;
/// The longest wait for a lock.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

identifier! {
    /// Names one acquisition: its holder, and the operation itself when the request is repeated.
    OwnerId
}

/// How a lock is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockMode {
    /// One holder.
    #[default]
    Exclusive,
    /// Any number of holders (up to 1,000), none of them exclusive.
    Shared,
    /// At most `of` holders: a semaphore. Holders that name different numbers are each held to their own.
    Permit {
        /// The number of permits: 1 to 1,000.
        of: u32,
    },
}

/// A request for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The lock's name. It does not meet the value or counter of the same key.
    pub key: StateKey,
    /// Who asks. Drawn anew for each acquisition; a repeated request with the same owner finds its own grant.
    pub owner: OwnerId,
    /// How long the grant lasts unless extended.
    pub lease: Duration,
    /// How long to wait when it is busy; zero returns at once.
    pub wait: Duration,
    /// How it is shared.
    pub mode: LockMode,
    /// What operators see: who holds it, why. At most 256 bytes, no control characters.
    pub meta: String,
}

impl LockRequest {
    /// An exclusive lock by a fresh owner, without waiting.
    #[must_use]
    pub fn new(key: StateKey, lease: Duration) -> Self {
        Self {
            key,
            owner: OwnerId::draw(),
            lease,
            wait: Duration::ZERO,
            mode: LockMode::Exclusive,
            meta: String::new(),
        }
    }

    /// Checks the request and returns the lease in milliseconds.
    ///
    /// # Errors
    /// `Invalid`, naming the field and what is allowed; `Unsupported` for a mode that the backend does not declare.
    pub fn check(&self, capabilities: &Capabilities) -> Result<u64> {
        let (declared, name) = match self.mode {
            LockMode::Exclusive => (capabilities.locks, "locks"),
            LockMode::Shared => (capabilities.shared_locks, "shared_locks"),
            LockMode::Permit { .. } => (capabilities.semaphores, "semaphores"),
        };
        if !declared {
            return Err(Error::unsupported(name));
        }
        if let LockMode::Permit { of } = self.mode
            && (of == 0 || of > HOLDERS_MAX)
        {
            return Err(Error::invalid(format!("semaphore of {of} permits: allowed are 1 to {HOLDERS_MAX}")));
        }
        if self.meta.len() > META_BYTES_MAX || self.meta.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "lock meta: allowed are at most {META_BYTES_MAX} bytes without control characters"
            )));
        }
        if self.wait > WAIT_MAX {
            return Err(Error::invalid(format!(
                "lock wait {:?} is out of range: allowed are 0 to {WAIT_MAX:?}",
                self.wait
            )));
        }
        duration_ms("lease", self.lease)
    }
}

/// What came of a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// It is ours.
    Granted(LockGrant),
    /// Others hold it, and did until the wait was over.
    Busy(LockBusy),
}

/// A granted lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockGrant {
    /// Strictly greater than every earlier token of this lock.
    pub token: FencingToken,
    /// Until when the holder may rely on it: the moment before the granting request was sent, plus the lease.
    pub deadline: BootInstant,
}

/// A lock that others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockBusy {
    /// The newest token among the holders.
    pub token: Option<FencingToken>,
    /// How long until the first of their leases ends, if nobody extends.
    pub retry_after: Duration,
}

/// What came of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendOutcome {
    /// The lease ends the given time from now.
    Extended,
    /// It is no longer ours; it was not taken back.
    Lost,
}

/// What came of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// It was ours, and is free.
    Released,
    /// It was not ours any more: expired, taken over, or released by force.
    AlreadyLost,
}

/// The state of a lock, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// The lock's name.
    pub key: StateKey,
    /// The newest token that was granted.
    pub last_token: FencingToken,
    /// Who holds it now; none when it is free.
    pub holders: Vec<LockHolder>,
}

/// One holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// The acquisition.
    pub owner: OwnerId,
    /// How it shares.
    pub mode: LockMode,
    /// Its token.
    pub token: FencingToken,
    /// How long its lease still lasts.
    pub expires_in: Duration,
    /// How long it has held the lock.
    pub held_for: Duration,
    /// What it said of itself.
    pub meta: String,
}
