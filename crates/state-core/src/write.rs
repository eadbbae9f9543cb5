//! Conditional writes: what to write, under which condition, and what came of it.

use std::time::Duration;

use bytes::Bytes;

use crate::capabilities::Capabilities;
use crate::entry::{Entry, FencingToken, Ttl, Version};
use crate::error::{Error, ErrorKind, Result};

/// What must hold for a write to happen, checked in the same atomic step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The key has no live entry.
    Absent,
    /// The key has a live entry.
    Present,
    /// The key holds the value with exactly this version (compare-and-swap). `WrongType` on a counter.
    Version(Version),
    /// The stored token, if any, is not above this one; the write stores it. An absent key passes. `WrongType` on a counter.
    Fence(FencingToken),
}

/// One write of a value.
///
/// ```
/// use std::time::Duration;
/// use acteon_state_core::Put;
/// let claim = Put::new("worker 7").if_absent().expires_after(Duration::from_secs(60));
/// # let _ = claim;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The bytes to store. Empty is a value, not absence.
    pub value: Bytes,
    /// What must hold.
    pub condition: Condition,
    /// What happens to the time to live.
    pub ttl: Ttl,
    /// The version that this write makes. Drawn by [`Put::new`]: a `Put` sent twice is one operation, repeated.
    pub version: Version,
}

impl Put {
    /// Writes unconditionally and without time to live, unless told otherwise.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), condition: Condition::Always, ttl: Ttl::Clear, version: Version::draw() }
    }

    /// Writes only under this condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }

    /// Writes only if the key has no live entry.
    #[must_use]
    pub fn if_absent(self) -> Self {
        self.when(Condition::Absent)
    }

    /// Writes only if the key still holds this version.
    #[must_use]
    pub fn if_version(self, version: Version) -> Self {
        self.when(Condition::Version(version))
    }

    /// Writes only if no higher token was stored, and stores this one.
    #[must_use]
    pub fn fenced_by(self, token: FencingToken) -> Self {
        self.when(Condition::Fence(token))
    }

    /// Sets what happens to the time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// The entry expires this long after the write.
    #[must_use]
    pub fn expires_after(self, ttl: Duration) -> Self {
        self.ttl(Ttl::After(ttl))
    }

    /// Checks the request against the limits of a backend, before anything is sent.
    ///
    /// # Errors
    /// `TooLarge` for the value, `Invalid` for the ttl, `Unsupported` for a fence where there are none.
    pub fn check(&self, capabilities: &Capabilities) -> Result<()> {
        let (bytes, bytes_max) = (self.value.len() as u64, capabilities.value_bytes_max);
        if bytes > bytes_max {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the value has {bytes} bytes; this backend takes at most {bytes_max}"),
            ));
        }
        self.ttl.after_ms()?;
        self.condition.check(capabilities)
    }
}

impl Condition {
    /// Checks that the backend has what the condition needs.
    ///
    /// # Errors
    /// `Unsupported` for a version or a fence that the backend does not declare.
    pub fn check(self, capabilities: &Capabilities) -> Result<()> {
        match self {
            Self::Version(_) if !capabilities.cas => Err(Error::unsupported("cas")),
            Self::Fence(_) if !capabilities.fencing => Err(Error::unsupported("fencing")),
            _ => Ok(()),
        }
    }
}

/// What came of a [`Put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// Written, with this version.
    Applied(Version),
    /// Not written. The live entry at that moment; `None` when there was none.
    NotMet(Option<Entry>),
}

impl PutOutcome {
    /// Whether it was written.
    #[must_use]
    pub const fn is_applied(&self) -> bool {
        matches!(self, Self::Applied(_))
    }
}

/// What came of a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// There was an entry, and it is gone.
    Deleted,
    /// There was none.
    Absent,
    /// The condition did not hold; the entry is still there.
    NotMet(Entry),
}

impl DeleteOutcome {
    /// Whether something was deleted.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted)
    }
}
