//! When something that was written with a time to live ends, as far as those can tell who did not look at the backend's clock.
//!
//! A write takes effect at some moment of its call, so its time is over at the earliest the time to live after the call began,
//! and at the latest the time to live after it ended. Between the two it may be there or not. What the clocks of the backend and the
//! recorder may differ by comes on top.

use crate::history::{Call, NEVER};

/// By how much a lifetime, measured by the recorder, may differ from what the backend was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncertainty {
    /// Ends this much too early are right: the grain of the recorder.
    pub early_ns: u64,
    /// Ends this much too late are right: whole milliseconds of the backend, and the drift of two clocks.
    pub late_ns: u64,
    /// When the backend's clock was set, if it was.
    pub step: Option<ClockStep>,
}

/// A span in which the clock of a backend is set, all in one direction: what lives then ends early or late by that much, and what has
/// ended may be back. What begins after it is not concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// Its first place.
    pub from: u64,
    /// Its last place.
    pub until: u64,
    /// By how much the clock is set at most, in ns.
    pub by_ns: u64,
    /// Where to.
    pub direction: StepDirection,
}

/// Where a clock is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDirection {
    /// To a later time.
    Forward,
    /// To an earlier time.
    Back,
}

impl Uncertainty {
    /// Whether what this call saw to be over may be there again: by a clock that is set back, unless somebody removed it meanwhile.
    #[must_use]
    pub fn may_return<O, R>(&self, call: &Call<O, R>) -> bool {
        self.step.is_some_and(|step| step.direction == StepDirection::Back && call.began <= step.until)
    }
}

impl Default for Uncertainty {
    /// Never early, as far as a recorder can tell that reads microseconds and gives calls of one microsecond places one after the
    /// other; late by what a clock of whole milliseconds rounds up, twice.
    fn default() -> Self {
        Self { early_ns: 2_000, late_ns: 2_000_000, step: None }
    }
}

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime {
    /// It does not end before this.
    pub earliest: u64,
    /// It has ended after this.
    pub latest: u64,
    /// From when until when it may not have ended once more, by a clock that is set back.
    pub again: Option<(u64, u64)>,
}

impl Lifetime {
    /// It does not end by itself.
    pub const FOREVER: Self = Self { earliest: NEVER, latest: NEVER, again: None };

    /// It ends `ttl_ns` after this call took effect.
    #[must_use]
    pub fn after<O, R>(call: &Call<O, R>, ttl_ns: u64, uncertainty: Uncertainty) -> Self {
        let unmoved = Self {
            earliest: call.began.saturating_add(ttl_ns).saturating_sub(uncertainty.early_ns),
            latest: call.ended.saturating_add(ttl_ns).saturating_add(uncertainty.late_ns),
            again: None,
        };
        uncertainty.step.filter(|step| call.began <= step.until).map_or(unmoved, |step| unmoved.moved_by(step))
    }

    /// The lifetime of what began before the end of this step.
    fn moved_by(self, step: ClockStep) -> Self {
        match step.direction {
            // It is over at the earliest at the moment of the step.
            StepDirection::Forward if self.earliest > step.from => {
                Self { earliest: self.earliest.saturating_sub(step.by_ns).max(step.from), ..self }
            }
            StepDirection::Forward => self,
            // Also what has ended shortly before, if nobody removed it.
            StepDirection::Back => Self { again: Some((step.from, self.latest.saturating_add(step.by_ns))), ..self },
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
        let is_again = |(from, until)| call.ended >= from && call.began <= until;
        call.began <= self.latest || self.again.is_some_and(is_again)
    }
}
