//! How often which duration happened, within an eighth of the duration.
//!
//! # How it works
//! Every doubling of the duration is cut into eight buckets of the same width; shorter ones than eight nanoseconds have one each.

/// Bits of a duration below its highest one that choose the bucket.
const PRECISION_BITS: u32 = 3;
const STEPS: usize = 1 << PRECISION_BITS;
/// Longer durations, of some 9 minutes and more, count as this long.
const LONGEST_NS: u64 = (1 << 39) - 1;
const BUCKETS: usize = STEPS * (39 - PRECISION_BITS as usize + 1);

/// Counts of durations. Short commands fall into a few buckets, which 32 bits would not serve for a day.
#[derive(Clone)]
pub(crate) struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    /// Adds a duration that so many commands had.
    #[inline]
    pub(crate) fn add(&mut self, duration_ns: u64, commands: u64) {
        self.0[bucket(duration_ns)] += commands;
    }

    /// Adds the counts of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to += from;
        }
    }

    /// How many durations were added.
    pub(crate) fn count(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }

    /// The duration that `percentile` of 100 do not exceed; 0 if there are none.
    pub(crate) fn percentile_ns(&self, percentile: f64) -> u64 {
        let wanted = ((self.count() as f64 * percentile / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0, |(longest_ns, _)| longest_ns)
    }

    /// How many durations end at each doubling of 1,024 ns or before, in µs, those that add something.
    pub(crate) fn cumulative_us(&self) -> Vec<(u64, u64)> {
        let (mut steps, mut seen) = (Vec::new(), 0);
        let mut counts = self.counts().peekable();
        let mut until_ns = 1_024_u64;
        while counts.peek().is_some() {
            let before = seen;
            while let Some((_, count)) = counts.next_if(|(longest_ns, _)| *longest_ns < until_ns) {
                seen += count;
            }
            if seen > before {
                // The longest that the histogram of Redis cannot tell from it.
                steps.push(((until_ns + until_ns / 128 - 1) / 1_000, seen));
            }
            until_ns *= 2;
        }
        steps
    }

    /// The longest duration of each bucket with its count.
    fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().enumerate().map(|(at, count)| (longest_ns(at), *count))
    }
}

fn bucket(duration_ns: u64) -> usize {
    let duration_ns = duration_ns.min(LONGEST_NS);
    if duration_ns < STEPS as u64 {
        return duration_ns as usize;
    }
    let doubling = duration_ns.ilog2() - PRECISION_BITS;
    let step = (duration_ns >> doubling) as usize - STEPS;
    (doubling as usize + 1) * STEPS + step
}

fn longest_ns(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (doubling, step) = (bucket / STEPS - 1, bucket % STEPS);
    (((STEPS + step + 1) as u64) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, LONGEST_NS, bucket, longest_ns};

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(longest_ns(at)), at);
            if at + 1 < BUCKETS {
                assert_eq!(bucket(longest_ns(at) + 1), at + 1);
            }
        }
        assert_eq!(longest_ns(BUCKETS - 1), LONGEST_NS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_right_within_an_eighth() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|us| histogram.add(us * 1_000, 1));
        for (percentile, us) in [(50.0, 500), (99.0, 990), (100.0, 1_000), (0.0, 1)] {
            let found = histogram.percentile_ns(percentile);
            assert!((us * 1_000..=us * 1_125).contains(&found), "{percentile}: {found}");
        }
        assert_eq!(Histogram::default().percentile_ns(50.0), 0);
    }

    #[test]
    fn counts_go_on_beyond_32_bits() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.0[bucket(100)] = u32::MAX.into();
        one.add(100, 1);
        other.merge(&one);
        other.merge(&one);
        assert_eq!((one.count(), other.count()), (1 << 32, 1 << 33));
    }

    #[test]
    fn cumulative_counts_name_the_doublings_that_add_something() {
        let mut histogram = Histogram::default();
        [100, 900, 1_500, 40_000, u64::MAX].into_iter().for_each(|ns| histogram.add(ns, 1));
        assert_eq!(histogram.cumulative_us(), [(1, 2), (2, 3), (66, 4), (554_050_781, 5)]);
    }
}
