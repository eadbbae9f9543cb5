//! How long to wait before another attempt.
//!
//! Exponential with full jitter: a random time up to `delay_min`, then up to twice that, and so on up to `delay_max`.
//! Full jitter spreads clients that failed together best (AWS Architecture Blog, "Exponential Backoff And Jitter"). A
//! receiver that says `Retry-After` is believed instead, up to [`RETRY_AFTER_MAX`].

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Longest `Retry-After` that is waited for. Beyond it, the attempt counts as the last one.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often to try, and how long to wait in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1.
    pub attempts_max: u32,
    /// The bound of the first wait.
    pub delay_min: Duration,
    /// The bound that no wait exceeds.
    pub delay_max: Duration,
}

impl RetryPolicy {
    /// The wait after `attempt` (from 1) failed. `random` lies in `0.0..1.0` and comes from outside.
    #[must_use]
    pub fn delay_after(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let bound = self.delay_min.saturating_mul(1 << doublings).min(self.delay_max);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date. `None` when it is neither.
#[must_use]
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTimeParser::new().parse_timestamp(value).ok()?;
    // A date that has passed means: now.
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{RetryPolicy, parse_retry_after};

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_covers_the_whole_range() {
        let policy =
            RetryPolicy { attempts_max: 5, delay_min: Duration::from_millis(100), delay_max: Duration::from_secs(1) };
        let longest: Vec<u128> = (1..=6).map(|attempt| policy.delay_after(attempt, 1.0).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(policy.delay_after(3, 0.5), Duration::from_millis(200));
        assert_eq!(policy.delay_after(3, 0.0), Duration::ZERO);
        assert_eq!(policy.delay_after(u32::MAX, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now: Timestamp = "2015-10-21T07:27:30Z".parse().expect("timestamp");
        assert_eq!(parse_retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
    }
}
