//! What is stored under a key: values with their versions, time to live and fence; and how to read them.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::id::identifier;

/// The longest time to live that every backend can hold: 100 years.
pub const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

identifier! {
    /// Names one write of one value. Only equality means anything.
    ///
    /// A version never repeats for a key, across delete, expiry and re-creation, so ABA is impossible. The caller draws
    /// it when it makes the [`Put`](crate::Put), hence it also identifies the operation: a repeated request finds its own
    /// version stored and knows that the first one was applied.
    Version
}

/// A lock grant's number, or the number that a write is fenced by.
///
/// Strictly greater than every earlier token of the same lock. Opaque apart from its order. Below 2^53, so that scripts
/// and JSON hold it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// Tokens stay below this: 2^53.
    pub const LIMIT: u64 = 1 << 53;

    /// The token with this number.
    ///
    /// # Errors
    /// `Invalid` for 0, which means "no fence" in a record, and for 2^53 and above.
    pub fn new(number: u64) -> Result<Self> {
        if number == 0 || number >= Self::LIMIT {
            return Err(Error::invalid(format!("fencing token {number} is out of range: allowed are 1 to 2^53 - 1")));
        }
        Ok(Self(number))
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The token rule of all backends: `max(previous + 1, backend time in µs)`.
    ///
    /// The counter makes tokens rise while the record exists, the time floor keeps them rising when it was lost.
    ///
    /// `None` when tokens have run out: microseconds stay below 2^53 until the year 2255.
    #[must_use]
    pub fn next(previous: u64, now_us: u64) -> Option<Self> {
        Self::new(previous.saturating_add(1).max(now_us)).ok()
    }
}

impl std::fmt::Display for FencingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a write does to the time to live. Resolution 1 ms; fractions are rounded up, since an entry never vanishes early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The entry never expires. What a plain write does.
    #[default]
    Clear,
    /// The entry expires when it would have expired before. A new entry never expires.
    Keep,
    /// The entry expires this long after the write, by the backend's clock.
    After(Duration),
}

impl Ttl {
    /// The milliseconds of `After`, rounded up.
    ///
    /// # Errors
    /// `Invalid` for `After(0)` and for more than [`TTL_MAX`].
    pub fn after_ms(self) -> Result<Option<u64>> {
        match self {
            Self::Clear | Self::Keep => Ok(None),
            Self::After(ttl) => duration_ms("ttl", ttl).map(Some),
        }
    }
}

/// Whole milliseconds, rounded up, of a duration that must lie above zero and within [`TTL_MAX`].
///
/// # Errors
/// `Invalid`, with `name` and the bounds.
pub fn duration_ms(name: &str, duration: Duration) -> Result<u64> {
    if duration.is_zero() || duration > TTL_MAX {
        return Err(Error::invalid(format!("{name} {duration:?} is out of range: allowed are 1ms to 100 years")));
    }
    Ok(ceil_ms(duration))
}

/// Whole milliseconds, rounded up.
#[must_use]
pub fn ceil_ms(duration: Duration) -> u64 {
    // Not by `as_nanos`, which would divide 128 bits on each write with a time to live.
    let fraction_ms = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration.as_secs().saturating_mul(1_000).saturating_add(fraction_ms)
}

/// What a read asks for besides the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Get {
    /// Also return the remaining time to live, in the same round trip.
    pub with_ttl: bool,
    /// Whether a replica may answer, with what it had some moments ago: an entry that was deleted since, or none that was written
    /// since. Two such reads in a row may be answered by two replicas, the second one with something older. For reads that many
    /// make and whose age does not matter; never for a read that decides about a write.
    ///
    /// A permission, not a demand, and therefore no capability: when no replica answers, the primary does. Only the Redis driver
    /// reads from replicas, behind Sentinels and in a Cluster; others read as always, and so does every driver in a batch. Locks
    /// are never read like this.
    pub stale_ok: bool,
}

impl Get {
    /// The value and its remaining time to live.
    #[must_use]
    pub const fn with_ttl() -> Self {
        Self { with_ttl: true, stale_ok: false }
    }

    /// The value, as some replica has it.
    #[must_use]
    pub const fn stale_ok() -> Self {
        Self { with_ttl: false, stale_ok: true }
    }
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes of a value, or the decimal text of a counter.
    pub value: Bytes,
    /// The version of a value. `None` on a counter: counters have no versions.
    pub version: Option<Version>,
    /// The highest token that this value was written with, if any.
    pub fence: Option<FencingToken>,
    /// The remaining time to live, if it was asked for and the entry expires. Never zero.
    pub ttl: Option<Duration>,
}

impl Entry {
    /// Whether this is a counter rather than a value.
    #[must_use]
    pub const fn is_counter(&self) -> bool {
        self.version.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FencingToken, TTL_MAX, Ttl, ceil_ms};

    #[test]
    fn ttl_below_a_millisecond_is_rounded_up_never_to_zero() {
        assert_eq!(Ttl::After(Duration::from_nanos(1)).after_ms().unwrap(), Some(1));
        assert_eq!(Ttl::After(Duration::from_micros(1_001)).after_ms().unwrap(), Some(2));
        assert!(Ttl::After(Duration::ZERO).after_ms().is_err());
        assert!(Ttl::After(TTL_MAX + Duration::from_nanos(1)).after_ms().is_err());
    }

    #[test]
    fn milliseconds_are_rounded_up_and_end_at_the_largest_number() {
        let nanos = |nanos| ceil_ms(Duration::from_nanos(nanos));
        assert_eq!([0, 1, 999_999, 1_000_000, 1_000_001, 999_999_999].map(nanos), [0, 1, 1, 1, 2, 1_000]);
        assert_eq!(ceil_ms(Duration::from_secs(7)), 7_000);
        assert_eq!(ceil_ms(Duration::MAX), u64::MAX);
        let longest = Duration::from_millis(u64::MAX);
        assert_eq!((ceil_ms(longest), ceil_ms(longest - Duration::from_nanos(1))), (u64::MAX, u64::MAX));
    }

    #[test]
    fn tokens_rise_by_counter_and_by_time() {
        assert_eq!(FencingToken::next(10, 5).map(FencingToken::get), Some(11));
        assert_eq!(FencingToken::next(10, 50).map(FencingToken::get), Some(50));
        assert_eq!(FencingToken::next(FencingToken::LIMIT - 1, 5), None);
        assert!(FencingToken::new(0).is_err());
        assert!(FencingToken::new(FencingToken::LIMIT).is_err());
    }
}
