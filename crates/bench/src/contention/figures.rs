//! What a round of contention amounts to, computed from the times of its turns.
//!
//! # Guarantees
//! A wait that had not ended when the round did counts for the worst wait with what it had lasted: a lock that lets somebody
//! starve does not look better for it. It does not count for the mean.
//!
//! # Failure
//! Two turns that overlap mean that the lock was held twice: then nothing is computed.

use std::ops::Range;
use std::time::Duration;

use crate::Outcome;

/// One waiter's turn. Times are since the round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) waiter: usize,
    pub(super) asked: Duration,
    pub(super) granted: Duration,
    /// The release was asked for.
    pub(super) releasing: Duration,
    /// The release was answered.
    pub(super) released: Duration,
}

/// The turns of a round, and when those had asked who still waited at its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) turns: Vec<Turn>,
    pub(super) still_waiting: Vec<Duration>,
}

/// A median and a high percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// What a round amounts to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) per_second: f64,
    /// From asking for a release to the next grant.
    pub(super) hand_over: Spread,
    /// From the answer to a release to the next grant; zero if the grant came first.
    pub(super) wake_up: Spread,
    pub(super) held_mean: Duration,
    pub(super) wait_mean: Duration,
    pub(super) wait_worst: Duration,
    /// The fewest and the most turns of a waiter.
    pub(super) turns_least: usize,
    pub(super) turns_most: usize,
}

impl Figures {
    /// The figures of those turns that were granted within the window.
    ///
    /// # Errors
    /// Two turns overlap, or fewer than two were granted in the window.
    pub(super) fn of(mut record: Record, window: Range<Duration>, waiters: usize) -> Outcome<Self> {
        record.turns.sort_unstable_by_key(|turn| turn.granted);
        let pairs = record.turns.windows(2).map(|pair| (pair[0], pair[1]));
        if let Some((one, other)) = pairs.clone().find(|(one, other)| other.granted < one.releasing) {
            return Err(format!("two held the lock at once: {one:?} and {other:?}").into());
        }
        let between = |since: fn(&Turn) -> Duration| {
            let pairs = pairs.clone().filter(|(_, next)| window.contains(&next.granted));
            Spread::of(pairs.map(|(one, next)| next.granted.saturating_sub(since(&one))).collect())
        };
        let (hand_over, wake_up) = (between(|one| one.releasing), between(|one| one.released));
        let (Some(hand_over), Some(wake_up)) = (hand_over, wake_up) else {
            return Err("the lock did not change hands within the round".into());
        };
        let turns: Vec<Turn> = record.turns.into_iter().filter(|turn| window.contains(&turn.granted)).collect();
        let unfinished = record.still_waiting.iter().map(|asked| window.end.saturating_sub(*asked));
        let wait_worst = turns.iter().map(|turn| turn.granted - turn.asked).chain(unfinished).max();
        let mut turns_of = vec![0_usize; waiters];
        turns.iter().for_each(|turn| turns_of[turn.waiter] += 1);
        Ok(Self {
            per_second: turns.len() as f64 / (window.end - window.start).as_secs_f64(),
            hand_over,
            wake_up,
            held_mean: mean(turns.iter().map(|turn| turn.releasing - turn.granted)),
            wait_mean: mean(turns.iter().map(|turn| turn.granted - turn.asked)),
            wait_worst: wait_worst.unwrap_or_default(),
            turns_least: turns_of.iter().copied().min().unwrap_or_default(),
            turns_most: turns_of.iter().copied().max().unwrap_or_default(),
        })
    }

    /// How many times the mean the worst wait is.
    pub(super) fn worst_to_mean(&self) -> f64 {
        self.wait_worst.as_secs_f64() / self.wait_mean.as_secs_f64()
    }
}

impl Spread {
    /// Of these times, by nearest rank; `None` without any.
    fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        // The smallest time that at least so many in a hundred do not exceed.
        let rank = |percent: usize| (times.len() * percent).div_ceil(100).saturating_sub(1);
        Some(Self { p50: *times.get(rank(50))?, p99: *times.get(rank(99))? })
    }
}

fn mean(times: impl Iterator<Item = Duration>) -> Duration {
    let (sum, count) = times.fold((0.0, 0_u32), |(sum, count), time| (sum + time.as_secs_f64(), count + 1));
    Duration::from_secs_f64(sum / f64::from(count.max(1)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Figures, Record, Spread, Turn};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn turn(waiter: usize, times_ms: [u64; 4]) -> Turn {
        let [asked, granted, releasing, released] = times_ms.map(ms);
        Turn { waiter, asked, granted, releasing, released }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let spread = |times: &[u64]| Spread::of(times.iter().copied().map(ms).collect());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7]), Some(Spread { p50: ms(7), p99: ms(7) }));
        assert_eq!(spread(&[4, 1, 3, 2]), Some(Spread { p50: ms(2), p99: ms(4) }));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(spread(&hundred), Some(Spread { p50: ms(50), p99: ms(99) }));
    }

    #[test]
    fn times_between_turns_are_those_from_one_holder_to_the_next() {
        // Told in the order of the waiters. The last one is granted before the answer to the release before it.
        let turns = vec![turn(0, [0, 10, 12, 13]), turn(0, [13, 30, 31, 33]), turn(1, [0, 20, 25, 26])];
        let figures = Figures::of(Record { turns, ..Record::default() }, ms(0)..ms(100), 2).unwrap();
        assert_eq!(figures.hand_over, Spread { p50: ms(5), p99: ms(8) });
        assert_eq!(figures.wake_up, Spread { p50: ms(4), p99: ms(7) });
        assert_eq!((figures.turns_least, figures.turns_most), (1, 2));
        assert!((figures.per_second - 30.0).abs() < 1e-9);
        let early = vec![turn(0, [0, 10, 12, 19]), turn(1, [0, 15, 16, 17])];
        let figures = Figures::of(Record { turns: early, ..Record::default() }, ms(0)..ms(100), 2).unwrap();
        assert_eq!((figures.hand_over.p50, figures.wake_up.p50), (ms(3), ms(0)));
    }

    #[test]
    fn grants_before_the_window_count_only_as_somebodys_predecessor() {
        let turns = vec![turn(0, [0, 10, 11, 12]), turn(1, [0, 20, 24, 25]), turn(0, [12, 30, 31, 32])];
        let figures = Figures::of(Record { turns, ..Record::default() }, ms(20)..ms(40), 2).unwrap();
        assert_eq!((figures.turns_least, figures.turns_most), (1, 1));
        assert_eq!(figures.hand_over, Spread { p50: ms(6), p99: ms(9) });
        assert_eq!((figures.wait_mean, figures.wait_worst), (ms(19), ms(20)));
        assert_eq!(figures.held_mean, Duration::from_micros(2_500));
    }

    #[test]
    fn who_starves_has_the_worst_wait() {
        let turns = vec![turn(0, [0, 10, 11, 12]), turn(0, [12, 20, 21, 22])];
        let figures = Figures::of(Record { turns, still_waiting: vec![ms(5), ms(90)] }, ms(0)..ms(100), 3).unwrap();
        assert_eq!((figures.wait_mean, figures.wait_worst), (ms(9), ms(95)));
        assert_eq!(figures.turns_least, 0);
        assert!((figures.worst_to_mean() - 95.0 / 9.0).abs() < 1e-9);
    }

    #[test]
    fn a_lock_that_is_held_twice_is_not_measured() {
        let turns = vec![turn(0, [0, 10, 20, 21]), turn(1, [0, 19, 22, 23])];
        let error = Figures::of(Record { turns, ..Record::default() }, ms(0)..ms(100), 2).unwrap_err();
        assert!(error.to_string().starts_with("two held the lock at once"), "{error}");
    }
}
