//! Counts of uses for the LFU policies, in three bytes.
//!
//! # How it works
//! ```text
//!  23                          8 7        0
//! ┌─────────────────────────────┬──────────┐
//! │ minute of the last decay    │  count   │
//! └─────────────────────────────┴──────────┘
//! ```
//! A count grows by one with a probability that falls as it grows: the more it says, the more uses one more stands for, so that eight bits
//! tell some uses from a million (see <https://redis.io/docs/latest/develop/reference/eviction/>). It falls by one for each
//! `decay_min` minutes, when somebody looks at it. A new key begins with some uses, lest it goes before it was ever asked for.

use crate::entry::Usage;

/// What a new key counts.
const NEW_COUNT: u8 = 5;

const MS_PER_MINUTE: u64 = 60_000;
/// Minutes are kept modulo 2^16, which is 45 days.
const MINUTE_MASK: u32 = 0xffff;

/// How counts grow and fall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frequency {
    pub(super) log_factor: u32,
    pub(super) decay_min: u32,
}

impl Frequency {
    pub(super) fn new_usage(now_ms: u64) -> Usage {
        Self::usage_of(NEW_COUNT, now_ms)
    }

    pub(super) fn usage_of(count: u8, now_ms: u64) -> Usage {
        Usage::default().counted(minute(now_ms), count)
    }

    /// The count of a key at this time.
    pub(super) fn count(self, usage: Usage, now_ms: u64) -> u8 {
        let elapsed_min = minute(now_ms).wrapping_sub(usage.counted_at_min()) & MINUTE_MASK;
        let periods = elapsed_min.checked_div(self.decay_min).unwrap_or(0);
        usage.count().saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
    }

    /// The usage after one more use.
    pub(super) fn used(self, usage: Usage, now_ms: u64, luck: &mut Luck) -> Usage {
        let count = self.count(usage, now_ms);
        let grown = if self.grows(count, luck) { count + 1 } else { count };
        usage.counted(minute(now_ms), grown)
    }

    fn grows(self, count: u8, luck: &mut Luck) -> bool {
        let odds = u64::from(count.saturating_sub(NEW_COUNT)) * u64::from(self.log_factor) + 1;
        count < u8::MAX && luck.has_one_in(odds)
    }
}

fn minute(now_ms: u64) -> u32 {
    // Truncated on purpose: only differences count.
    (now_ms / MS_PER_MINUTE) as u32 & MINUTE_MASK
}

/// Chance for those who hold a segment: four bytes of it. The algorithm is xorshift (Marsaglia, 2003).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Luck(u32);

impl Luck {
    pub(crate) fn new(seed: u32) -> Self {
        // Numbers that follow each other make seeds that do not resemble each other; zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Whether something happens that does so once in so many times.
    fn has_one_in(&mut self, odds: u64) -> bool {
        u64::from(self.next()).saturating_mul(odds) < 1 << 32
    }
}

#[cfg(test)]
mod tests {
    use super::{Frequency, Luck, MS_PER_MINUTE, NEW_COUNT};
    use crate::entry::{StrEncoding, Usage};

    const USUAL: Frequency = Frequency { log_factor: 10, decay_min: 1 };

    fn count_after(uses: u32, frequency: Frequency) -> u8 {
        let (mut usage, mut luck) = (Frequency::new_usage(0), Luck::new(7));
        for _ in 0..uses {
            usage = frequency.used(usage, 0, &mut luck);
        }
        frequency.count(usage, 0)
    }

    /// The table of Redis's documentation, for the factor 10.
    #[test]
    fn counts_grow_as_documented() {
        for (uses, expected) in [(100, 10), (1_000, 18), (100_000, 142)] {
            let count = count_after(uses, USUAL);
            assert!(count.abs_diff(expected) <= expected / 4, "{uses} uses: {count}, not {expected}");
        }
        assert_eq!(count_after(2_000_000, USUAL), 255);
        assert_eq!(count_after(1_000, Frequency { log_factor: 0, decay_min: 1 }), 255);
    }

    #[test]
    fn counts_fall_with_time_and_not_below_zero() {
        let usage = Frequency::usage_of(20, 0);
        let after =
            |minutes: u64, decay_min| Frequency { log_factor: 10, decay_min }.count(usage, minutes * MS_PER_MINUTE);
        assert_eq!([after(0, 1), after(1, 1), after(19, 1), after(21, 1), after(30_000, 1)], [20, 19, 1, 0, 0]);
        assert_eq!([after(9, 10), after(10, 10), after(1_000, 0)], [20, 19, 20]);
    }

    #[test]
    fn minutes_wrap_around() {
        let before = 0xffff * MS_PER_MINUTE;
        assert_eq!(USUAL.count(Frequency::usage_of(20, before), before + 3 * MS_PER_MINUTE), 17);
    }

    #[test]
    fn encoding_of_a_string_survives_its_uses() {
        let usage = Usage::default().encoded(StrEncoding::Raw);
        let used = USUAL.used(usage, 5 * MS_PER_MINUTE, &mut Luck::new(1));
        assert_eq!(used.encoding(), StrEncoding::Raw);
        assert_eq!(Frequency::new_usage(0).count(), NEW_COUNT);
    }
}
