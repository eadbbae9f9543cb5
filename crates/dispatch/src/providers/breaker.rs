//! A circuit breaker: leaves a failing provider alone for a while instead of queueing up behind it.
//!
//! # What it promises
//! Closed, it admits everything and counts failures in a row. At `failures_max` it opens and admits nothing for
//! `open_for`. After that it is half open: one probe at a time is admitted; its success closes the breaker, its
//! failure opens it again for another `open_for`. A probe that reports nothing (its future was dropped) gives its
//! place back.
//!
//! # How it works
//! A state machine without a clock: the time is an argument. A result counts only in the phase in which its permit was
//! given, so a slow failure from before the opening cannot close or prolong anything.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When to open, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it; at least 1.
    pub failures_max: u32,
    /// How long nothing is admitted.
    pub open_for: Duration,
}

/// Guards one provider.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    /// Held for a few instructions, never across an await.
    state: Mutex<State>,
}

/// What the breaker does at the moment, for metrics and readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything is admitted.
    Closed,
    /// Nothing is admitted.
    Open,
    /// One probe at a time is admitted.
    HalfOpen,
}

#[derive(Debug)]
struct State {
    /// Counts changes of phase, so that results of an earlier phase can be told.
    epoch: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// Leave to ask the provider once. Report the result, or drop it to report none.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    epoch: u64,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: Mutex::new(State { epoch: 0, stage: Stage::Closed { failures: 0 } }) }
    }

    /// Leave to ask the provider.
    ///
    /// # Errors
    /// The time to wait before it is worth asking again.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut state = self.state.lock();
        match state.stage {
            Stage::Closed { .. } => {}
            Stage::Open { until } if now < until => return Err(until - now),
            Stage::Open { .. } => state.enter(Stage::HalfOpen { probing: true }),
            Stage::HalfOpen { probing: false } => state.stage = Stage::HalfOpen { probing: true },
            Stage::HalfOpen { probing: true } => return Err(self.options.open_for),
        }
        Ok(Permit { breaker: self, epoch: state.epoch })
    }

    /// What it does at the moment.
    #[must_use]
    pub fn phase(&self, now: Instant) -> Phase {
        match self.state.lock().stage {
            Stage::Closed { .. } => Phase::Closed,
            Stage::Open { until } if now < until => Phase::Open,
            Stage::Open { .. } | Stage::HalfOpen { .. } => Phase::HalfOpen,
        }
    }
}

impl Permit<'_> {
    /// The provider works.
    pub fn succeeded(self) {
        let mut state = self.breaker.state.lock();
        if state.epoch != self.epoch {
            return;
        }
        match state.stage {
            Stage::Closed { .. } => state.stage = Stage::Closed { failures: 0 },
            Stage::HalfOpen { .. } => state.enter(Stage::Closed { failures: 0 }),
            Stage::Open { .. } => {}
        }
    }

    /// The provider does not work.
    pub fn failed(self, now: Instant) {
        let BreakerOptions { failures_max, open_for } = self.breaker.options;
        let mut state = self.breaker.state.lock();
        if state.epoch != self.epoch {
            return;
        }
        match state.stage {
            Stage::Closed { failures } if failures + 1 < failures_max => {
                state.stage = Stage::Closed { failures: failures + 1 };
            }
            Stage::Closed { .. } | Stage::HalfOpen { .. } => state.enter(Stage::Open { until: now + open_for }),
            Stage::Open { .. } => {}
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.state.lock();
        // Still half open in the epoch of this permit: the probe ended without a result. After a result the
        // epoch is another one, and this does nothing.
        if state.epoch == self.epoch && matches!(state.stage, Stage::HalfOpen { .. }) {
            state.stage = Stage::HalfOpen { probing: false };
        }
    }
}

impl State {
    fn enter(&mut self, stage: Stage) {
        self.epoch += 1;
        self.stage = stage;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Breaker, BreakerOptions, Phase};

    const OPEN_FOR: Duration = Duration::from_secs(30);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(BreakerOptions { failures_max: 3, open_for: OPEN_FOR });
        for _ in 0..3 {
            breaker.admit(now).expect("closed").failed(now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let breaker = Breaker::new(BreakerOptions { failures_max: 2, open_for: OPEN_FOR });
        for _ in 0..5 {
            breaker.admit(now).expect("closed").failed(now);
            breaker.admit(now).expect("closed").succeeded();
        }
        assert_eq!(breaker.phase(now), Phase::Closed);
        assert_eq!(opened(now).phase(now), Phase::Open);
    }

    #[test]
    fn open_refuses_with_the_time_to_wait() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + Duration::from_secs(10);
        assert_eq!(breaker.admit(later).expect_err("open"), Duration::from_secs(20));
    }

    #[test]
    fn half_open_admits_one_probe_whose_result_decides() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + OPEN_FOR;
        let probe = breaker.admit(later).expect("half open");
        assert!(breaker.admit(later).is_err(), "a second probe");
        probe.failed(later);
        assert_eq!(breaker.phase(later), Phase::Open);

        let latest = later + OPEN_FOR;
        breaker.admit(latest).expect("half open again").succeeded();
        assert_eq!(breaker.phase(latest), Phase::Closed);
    }

    #[test]
    fn a_dropped_probe_gives_its_place_back() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + OPEN_FOR;
        drop(breaker.admit(later).expect("half open"));
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn results_from_before_the_opening_change_nothing() {
        let now = Instant::now();
        let breaker = Breaker::new(BreakerOptions { failures_max: 1, open_for: OPEN_FOR });
        let slow_success = breaker.admit(now).expect("closed");
        let slow_failure = breaker.admit(now).expect("closed");
        breaker.admit(now).expect("closed").failed(now);
        slow_success.succeeded();
        assert_eq!(breaker.phase(now), Phase::Open);
        let later = now + OPEN_FOR;
        breaker.admit(later).expect("half open").succeeded();
        slow_failure.failed(later);
        assert_eq!(breaker.phase(later), Phase::Closed);
    }
}
