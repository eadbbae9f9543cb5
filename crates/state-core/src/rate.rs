//! Rate limits: fixed window, sliding window, and GCRA, each one atomic step by the backend's clock.
//!
//! | algorithm | holds | allows in any span of one window | memory |
//! |---|---|---|---|
//! | fixed window | a counter that expires | up to twice the limit, around a boundary | O(1) |
//! | sliding window | the time of each allowed request | exactly the limit | O(limit) |
//! | GCRA | one arrival time | the limit plus the burst | O(1) |
//!
//! GCRA is the generic cell rate algorithm of ITU-T I.371, equivalent to a token bucket that holds `burst` tokens and
//! refills at `limit` per `window`.

use std::time::Duration;

use crate::entry::duration_ms;
use crate::error::{Error, Result};
use crate::id::identifier;

/// The highest limit of a sliding window: its log holds one member for each request that is still inside.
pub const SLIDING_LIMIT_MAX: u64 = 100_000;
/// The highest limit and burst of any algorithm: keeps the arithmetic of scripts exact.
pub const RATE_LIMIT_MAX: u64 = 1_000_000_000;
/// The highest cost of one request in a sliding window: it adds as many members in one step.
pub const SLIDING_COST_MAX: u64 = 1_000;
/// The longest window of a GCRA limit, burst included: 2^52 µs, which scripts hold exactly.
const GCRA_SPAN_US_MAX: u128 = 1 << 52;

identifier! {
    /// Names one operation, so that a repeated request is recognised.
    OperationId
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateAlgorithm {
    /// `limit` in each window; a window begins with the first request after the last one ended.
    FixedWindow,
    /// `limit` in any span of one window, exactly.
    SlidingWindow,
    /// `limit` per window on average, with at most `burst` at once.
    Gcra {
        /// How many may come at once after a pause. At least 1.
        burst: u64,
    },
}

/// One request against a rate limit.
///
/// ```
/// use std::time::Duration;
/// use acteon_state_core::RateLimit;
/// let fifty_per_second = RateLimit::sliding_window(50, Duration::from_secs(1));
/// # let _ = fifty_per_second;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How requests are counted.
    pub algorithm: RateAlgorithm,
    /// How many per window.
    pub limit: u64,
    /// The window.
    pub window: Duration,
    /// How many this request counts for. At least 1.
    pub cost: u64,
    /// Names this request: the sliding window recognises a repetition by it.
    pub operation: OperationId,
}

impl RateLimit {
    /// One request under this algorithm.
    #[must_use]
    pub fn new(algorithm: RateAlgorithm, limit: u64, window: Duration) -> Self {
        Self { algorithm, limit, window, cost: 1, operation: OperationId::draw() }
    }

    /// One request in a fixed window.
    #[must_use]
    pub fn fixed_window(limit: u64, window: Duration) -> Self {
        Self::new(RateAlgorithm::FixedWindow, limit, window)
    }

    /// One request in a sliding window.
    #[must_use]
    pub fn sliding_window(limit: u64, window: Duration) -> Self {
        Self::new(RateAlgorithm::SlidingWindow, limit, window)
    }

    /// One request under GCRA.
    #[must_use]
    pub fn gcra(limit: u64, window: Duration, burst: u64) -> Self {
        Self::new(RateAlgorithm::Gcra { burst }, limit, window)
    }

    /// Counts for `cost` requests.
    #[must_use]
    pub const fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// Checks the request and returns the window in milliseconds, rounded up.
    ///
    /// # Errors
    /// `Invalid`, naming the field and what is allowed: limit and burst 1 to 10^9 (100,000 in a sliding window), window 1 ms to
    /// 100 years, cost 1 to the limit or burst (at most 1,000 in a sliding window), at most one request per microsecond in GCRA.
    pub fn check(&self) -> Result<u64> {
        let limit_max = match self.algorithm {
            RateAlgorithm::SlidingWindow => SLIDING_LIMIT_MAX,
            RateAlgorithm::FixedWindow | RateAlgorithm::Gcra { .. } => RATE_LIMIT_MAX,
        };
        within("limit", self.limit, limit_max)?;
        let window_ms = duration_ms("window", self.window)?;
        let cost_max = match self.algorithm {
            RateAlgorithm::FixedWindow => self.limit,
            RateAlgorithm::SlidingWindow => self.limit.min(SLIDING_COST_MAX),
            RateAlgorithm::Gcra { burst } => {
                within("burst", burst, RATE_LIMIT_MAX)?;
                let window_us = u128::from(window_ms) * 1_000;
                if window_us < u128::from(self.limit) {
                    return Err(Error::invalid(format!(
                        "rate limit: {} per {:?} is more than one per microsecond; lower the limit",
                        self.limit, self.window
                    )));
                }
                if u128::from(self.emission_us(window_ms)) * u128::from(burst) > GCRA_SPAN_US_MAX {
                    return Err(Error::invalid("rate limit: the burst would take more than 142 years to refill"));
                }
                burst
            }
        };
        within("cost", self.cost, cost_max)?;
        Ok(window_ms)
    }

    /// GCRA's emission interval in µs, rounded up so that the long-term rate never exceeds the limit.
    #[must_use]
    pub const fn emission_us(&self, window_ms: u64) -> u64 {
        window_ms.saturating_mul(1_000).div_ceil(self.limit)
    }
}

fn within(name: &str, value: u64, max: u64) -> Result<()> {
    if value == 0 || value > max {
        return Err(Error::invalid(format!("rate limit: {name} {value} is out of range: allowed are 1 to {max}")));
    }
    Ok(())
}

/// What a rate limit decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on. A refused request consumed nothing.
    pub allowed: bool,
    /// The limit, or GCRA's burst: what `remaining` counts down from.
    pub limit: u64,
    /// How many more requests of cost 1 would be allowed at this moment.
    pub remaining: u64,
    /// How long until all of the limit is available again, if nothing else comes.
    pub reset_after: Duration,
    /// How long until this request would be allowed; `None` when it was.
    pub retry_after: Option<Duration>,
}

/// GCRA as arithmetic, shared by the drivers that compute in Rust; scripts do the same steps.
///
/// `arrival_us` is the stored theoretical arrival time, 0 when nothing is stored. Returns the decision and, when
/// allowed, the arrival time to store.
#[must_use]
pub fn gcra(request: &RateLimit, burst: u64, window_ms: u64, arrival_us: u64, now_us: u64) -> (Decision, Option<u64>) {
    let emission_us = request.emission_us(window_ms);
    let tolerance_us = emission_us.saturating_mul(burst);
    let arrival_us = arrival_us.max(now_us);
    let next_us = arrival_us.saturating_add(emission_us.saturating_mul(request.cost));
    let allowed_at_us = next_us.saturating_sub(tolerance_us);
    let allowed = now_us >= allowed_at_us;
    let kept_us = if allowed { next_us } else { arrival_us };
    let used_us = kept_us - now_us;
    let decision = Decision {
        allowed,
        limit: burst,
        remaining: tolerance_us.saturating_sub(used_us) / emission_us,
        reset_after: Duration::from_micros(used_us),
        retry_after: (!allowed).then(|| Duration::from_micros(allowed_at_us - now_us)),
    };
    (decision, allowed.then_some(next_us))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RateLimit, gcra};

    #[test]
    fn gcra_lets_the_burst_through_and_then_one_per_interval() {
        let request = RateLimit::gcra(10, Duration::from_secs(1), 3);
        let window_ms = request.check().unwrap();
        let (mut arrival_us, mut now_us) = (0, 1_000_000);
        for remaining in [2, 1, 0] {
            let (decision, next) = gcra(&request, 3, window_ms, arrival_us, now_us);
            assert!(decision.allowed);
            assert_eq!(decision.remaining, remaining);
            arrival_us = next.unwrap();
        }
        let (refused, next) = gcra(&request, 3, window_ms, arrival_us, now_us);
        assert_eq!((refused.allowed, next), (false, None));
        assert_eq!(refused.retry_after, Some(Duration::from_millis(100)));
        now_us += 100_000;
        assert!(gcra(&request, 3, window_ms, arrival_us, now_us).0.allowed);
    }

    #[test]
    fn a_rate_that_does_not_divide_never_exceeds_the_limit() {
        let request = RateLimit::gcra(3, Duration::from_secs(1), 1);
        assert_eq!(request.emission_us(1_000), 333_334);
    }

    #[test]
    fn limits_out_of_range_name_the_field() {
        let second = Duration::from_secs(1);
        for (request, field) in [
            (RateLimit::fixed_window(0, second), "limit"),
            (RateLimit::sliding_window(100_001, second), "limit"),
            (RateLimit::gcra(1, second, 0), "burst"),
            (RateLimit::gcra(2_000_000, second, 1), "limit"),
            (RateLimit::fixed_window(1, Duration::ZERO), "window"),
            (RateLimit::fixed_window(5, second).cost(6), "cost"),
            (RateLimit::fixed_window(5, second).cost(0), "cost"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.message().contains(field), "{error}");
        }
    }
}
