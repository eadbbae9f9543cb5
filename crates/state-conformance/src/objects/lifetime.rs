//! When something that was written with a time to live ends, as far as those can tell who did not look at the backend's clock.
//!
//! A write takes effect at some moment of its call, so its time is over at the earliest the time to live after the call began,
//! and at the latest the time to live after it ended. Between the two it may be there or not. What the clocks of the backend and the
//! recorder may differ by comes on top.

use crate::history::{Call, NEVER};

/// By how much a lifetime, measured by the recorder, may differ from what the backend was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncertainty {
    /// Ends this much too early are right: the grain of the recorder, and more only where the backend's clock is set forward.
    pub early_ns: u64,
    /// Ends this much too late are right: whole milliseconds of the backend, and the drift of two clocks.
    pub late_ns: u64,
}

impl Default for Uncertainty {
    /// Never early, as far as a recorder can tell that reads microseconds and gives calls of one microsecond places one after the
    /// other; late by what a clock of whole milliseconds rounds up, twice.
    fn default() -> Self {
        Self { early_ns: 2_000, late_ns: 2_000_000 }
    }
}

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime {
    /// It does not end before this.
    pub earliest: u64,
    /// It has ended after this.
    pub latest: u64,
}

impl Lifetime {
    /// It does not end by itself.
    pub const FOREVER: Self = Self { earliest: NEVER, latest: NEVER };

    /// It ends `ttl_ns` after this call took effect.
    #[must_use]
    pub fn after<O, R>(call: &Call<O, R>, ttl_ns: u64, uncertainty: Uncertainty) -> Self {
        Self {
            earliest: call.began.saturating_add(ttl_ns).saturating_sub(uncertainty.early_ns),
            latest: call.ended.saturating_add(ttl_ns).saturating_add(uncertainty.late_ns),
        }
    }

    /// Whether this call may have found that it is over.
    #[must_use]
    pub fn may_be_over<O, R>(self, call: &Call<O, R>) -> bool {
        self != Self::FOREVER && call.ended >= self.earliest
    }

    /// Whether this call may have found that it is not over yet.
    #[must_use]
    pub fn may_last<O, R>(self, call: &Call<O, R>) -> bool {
        call.began <= self.latest
    }
}
