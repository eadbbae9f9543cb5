//! Stops calling a backend that does not answer, and tries again with single calls.
//!
//! Closed: calls go through; `failures` transient ones in a row (unavailable, timeout, failover) open the breaker. Open: calls
//! fail at once with `Unavailable`, `NotApplied`, for `open_for`. Half open: one call at a time goes through; the first success
//! closes the breaker, a failure opens it again. `ping` and `close` always go through, so that readiness tells the truth.
//! Errors of the caller (invalid, wrong type, …) prove that the backend answers. A call that the deadline layer's bound cuts off
//! is a failure; one that its caller drops earlier says nothing. The log says when it opens and when it closes, and not how often a
//! single call tried in vain in between.
//!
//! Right order: outside of retry, which counts as one failure however often it tried. Inside of retry, the attempts of one
//! unlucky call could open it for everyone.

use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::entry::TTL_MAX;
use crate::error::{Error, ErrorKind, Result};
use crate::fault_log::FaultLog;
use crate::layer::{Around, deadline};
use crate::operation::{Call, Operation, Reply};

/// The longest that a breaker stays open, whatever is asked for: a hundred years, which every clock can add.
const OPEN_FOR_MAX: Duration = TTL_MAX;

/// When to open, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Transient failures in a row that open the breaker. At least 1.
    pub failures: u32,
    /// How long it stays open before one call may try.
    pub open_for: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct CircuitBreaker {
    thresholds: Thresholds,
    /// A plain mutex: held for a few instructions on each call, never across an await.
    state: Mutex<BreakerState>,
    faults: FaultLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BreakerState {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One call is trying; if it is dropped without an answer, another may try after `until`.
    HalfOpen {
        until: Instant,
    },
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        let thresholds = Thresholds { open_for: thresholds.open_for.min(OPEN_FOR_MAX), ..thresholds };
        Self { thresholds, state: Mutex::new(BreakerState::Closed { failures: 0 }), faults: FaultLog::new() }
    }

    fn admit(&self) -> Result<()> {
        let mut state = self.state.lock();
        let now = Instant::now();
        match *state {
            BreakerState::Closed { .. } => Ok(()),
            BreakerState::Open { until } | BreakerState::HalfOpen { until } if now >= until => {
                *state = BreakerState::HalfOpen { until: now + self.thresholds.open_for };
                Ok(())
            }
            BreakerState::Open { until } | BreakerState::HalfOpen { until } => {
                let left = until.saturating_duration_since(now);
                let message =
                    format!("the backend did not answer repeatedly; calls are stopped for another {left:.1?}");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    fn settle(&self, answered: bool) {
        let mut state = self.state.lock();
        let before = *state;
        *state = match before {
            _ if answered => BreakerState::Closed { failures: 0 },
            // A call that began before the breaker opened: it is open already.
            BreakerState::Open { .. } => before,
            BreakerState::Closed { failures } if failures.saturating_add(1) < self.thresholds.failures => {
                BreakerState::Closed { failures: failures + 1 }
            }
            BreakerState::Closed { .. } | BreakerState::HalfOpen { .. } => {
                BreakerState::Open { until: Instant::now() + self.thresholds.open_for }
            }
        };
        let after = *state;
        drop(state);
        self.log(before, after);
    }

    fn log(&self, before: BreakerState, after: BreakerState) {
        let Thresholds { failures, open_for } = self.thresholds;
        match (before, after) {
            (BreakerState::Closed { .. }, BreakerState::Open { .. }) => match self.faults.admit("opened") {
                Some(passed_over) => {
                    ::tracing::warn!(
                        failures,
                        ?open_for,
                        passed_over,
                        "the state backend does not answer: circuit opened"
                    );
                }
                None => ::tracing::debug!(failures, ?open_for, "the state backend does not answer: circuit opened"),
            },
            (BreakerState::Open { .. } | BreakerState::HalfOpen { .. }, BreakerState::Closed { .. }) => {
                ::tracing::debug!("the state backend answers again: circuit closed");
            }
            _ => {}
        }
    }
}

/// A call under way, which its future's drop may end.
struct UnderWay<'a> {
    breaker: &'a CircuitBreaker,
    gives_up_at: Option<Instant>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // A server that hangs is not answered for by an error: repetitions go on until the deadline drops them all.
        if self.gives_up_at.is_some_and(|at| Instant::now() >= at) {
            self.breaker.settle(false);
        }
    }
}

impl Around for CircuitBreaker {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        if !matches!(call.operation, Operation::Ping | Operation::Close) {
            self.admit().map_err(|error| error.in_operation(call.operation.as_str()))?;
        }
        let mut under_way = UnderWay { breaker: self, gives_up_at: deadline::gives_up_at() };
        let result = attempt().await;
        under_way.gives_up_at = None;
        let failed =
            |error: &Error| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Failover);
        self.settle(!result.as_ref().is_err_and(failed));
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CircuitBreaker, Thresholds};

    #[test]
    fn it_may_stay_open_for_as_long_as_a_duration_can_say() {
        let breaker = CircuitBreaker::new(Thresholds { failures: 1, open_for: Duration::MAX });
        breaker.settle(false);
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_call_try() {
        let breaker = CircuitBreaker::new(Thresholds { failures: 2, open_for: Duration::from_secs(1) });
        breaker.settle(false);
        breaker.settle(true);
        breaker.settle(false);
        assert!(breaker.admit().is_ok(), "a success in between starts the count again");
        breaker.settle(false);
        assert!(breaker.admit().is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(breaker.admit().is_ok());
        assert!(breaker.admit().is_err(), "only one call tries");
        breaker.settle(false);
        assert!(breaker.admit().is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(breaker.admit().is_ok());
        breaker.settle(true);
        assert!(breaker.admit().is_ok());
    }
}
