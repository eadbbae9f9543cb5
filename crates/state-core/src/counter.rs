//! Counters: atomic addition with bounds and a window.
//!
//! A counter and a value are distinct types. [`increment`](crate::StateStore::increment) on a value and a compare-and-swap
//! on a counter are `WrongType`; `get` on a counter returns its decimal text; a plain put replaces it by a value.

use std::time::Duration;

use crate::entry::duration_ms;
use crate::error::{Error, Result};

/// One atomic addition.
///
/// ```
/// use std::time::Duration;
/// use acteon_state_core::{Counting, Increment};
/// // At most 100 in each minute that begins with the first one.
/// let one = Increment::by(1).at_most(100).window(Counting::OnCreate(Duration::from_secs(60)));
/// # let _ = one;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increment {
    /// What to add; may be negative or zero. An absent counter begins at 0.
    pub delta: i64,
    /// The counter does not fall below this by a falling step.
    pub min: Option<i64>,
    /// The counter does not rise above this by a rising step.
    pub max: Option<i64>,
    /// What a step that would cross a bound does.
    pub at_bound: AtBound,
    /// What happens to the time to live.
    pub window: Counting,
}

/// What a step that would cross a bound does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtBound {
    /// Nothing changes.
    #[default]
    Refuse,
    /// The counter moves to the bound, or stays where it is if it is beyond already.
    Clamp,
}

/// What an increment does to the time to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// Nothing: a new counter never expires, an existing one keeps its time.
    #[default]
    Unlimited,
    /// A fixed window: a new counter expires after this, an existing one keeps its time.
    OnCreate(Duration),
    /// Each applied step restarts the time.
    Refresh(Duration),
}

impl Increment {
    /// Adds `delta`, without bounds and without window.
    #[must_use]
    pub const fn by(delta: i64) -> Self {
        Self { delta, min: None, max: None, at_bound: AtBound::Refuse, window: Counting::Unlimited }
    }

    /// The counter does not rise above `max`.
    #[must_use]
    pub const fn at_most(mut self, max: i64) -> Self {
        self.max = Some(max);
        self
    }

    /// The counter does not fall below `min`.
    #[must_use]
    pub const fn at_least(mut self, min: i64) -> Self {
        self.min = Some(min);
        self
    }

    /// A step that would cross a bound stops at it instead of being refused.
    #[must_use]
    pub const fn clamped(mut self) -> Self {
        self.at_bound = AtBound::Clamp;
        self
    }

    /// Sets what happens to the time to live.
    #[must_use]
    pub const fn window(mut self, window: Counting) -> Self {
        self.window = window;
        self
    }

    /// The milliseconds of the window, rounded up.
    ///
    /// # Errors
    /// `Invalid` for a window of zero or above [`TTL_MAX`](crate::TTL_MAX), and for `min` above `max`.
    pub fn check(&self) -> Result<Option<u64>> {
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(Error::invalid(format!("the counter's min {min} is above its max {max}")));
        }
        match self.window {
            Counting::Unlimited => Ok(None),
            Counting::OnCreate(window) | Counting::Refresh(window) => duration_ms("window", window).map(Some),
        }
    }

    /// What this step makes of a counter at `current`: the arithmetic that every driver agrees on.
    ///
    /// A counter that is beyond a bound already (the bound was lowered) may still move towards it.
    #[must_use]
    pub fn step(&self, current: i64) -> Step {
        let exact = i128::from(current) + i128::from(self.delta);
        let bound = match self.delta {
            1.. => self.max.filter(|max| exact > i128::from(*max)).map(|max| max.max(current)),
            ..=-1 => self.min.filter(|min| exact < i128::from(*min)).map(|min| min.min(current)),
            0 => None,
        };
        match (bound, self.at_bound) {
            (Some(_), AtBound::Refuse) => Step::Refused,
            (Some(bound), AtBound::Clamp) => Step::Clamped(bound),
            (None, _) => i64::try_from(exact).map_or(Step::Overflow, Step::Applied),
        }
    }
}

/// What a step makes of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The full step fits.
    Applied(i64),
    /// It was cut at the bound.
    Clamped(i64),
    /// It would cross the bound.
    Refused,
    /// It would leave the range of a signed 64-bit integer.
    Overflow,
}

/// A counter after an increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its value now.
    pub value: i64,
    /// How long until it expires and begins at 0 again; `None` when it does not expire.
    pub resets_after: Option<Duration>,
}

/// What came of an [`Increment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrementOutcome {
    /// The full step was made.
    Applied(Counter),
    /// The step was cut at the bound.
    Clamped(Counter),
    /// The step would have crossed the bound; nothing changed. An absent counter reads 0 and was not created.
    Refused(Counter),
}

impl IncrementOutcome {
    /// The counter after the operation.
    #[must_use]
    pub const fn counter(&self) -> Counter {
        match self {
            Self::Applied(counter) | Self::Clamped(counter) | Self::Refused(counter) => *counter,
        }
    }

    /// Whether the full step was made.
    #[must_use]
    pub const fn is_applied(&self) -> bool {
        matches!(self, Self::Applied(_))
    }
}

#[cfg(test)]
mod tests {
    use super::{Increment, Step};

    #[test]
    fn bounds_stop_only_steps_that_move_away_from_them() {
        let up = Increment::by(5).at_most(10);
        assert_eq!(up.step(5), Step::Applied(10));
        assert_eq!(up.step(6), Step::Refused);
        assert_eq!(up.clamped().step(6), Step::Clamped(10));
        assert_eq!(up.clamped().step(20), Step::Clamped(20));
        assert_eq!(Increment::by(-5).at_most(10).step(20), Step::Applied(15));
        assert_eq!(Increment::by(-5).at_least(0).clamped().step(3), Step::Clamped(0));
    }

    #[test]
    fn leaving_the_range_is_overflow_unless_a_bound_comes_first() {
        assert_eq!(Increment::by(1).step(i64::MAX), Step::Overflow);
        assert_eq!(Increment::by(-1).step(i64::MIN), Step::Overflow);
        assert_eq!(Increment::by(i64::MAX).at_most(100).step(1), Step::Refused);
        assert_eq!(Increment::by(i64::MAX).at_most(100).clamped().step(1), Step::Clamped(100));
    }
}
