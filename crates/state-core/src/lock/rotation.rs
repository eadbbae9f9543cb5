//! Turns between processes: who should ask first for a lock that was released, when several processes wait for it.
//!
//! # Guarantees
//! None: it is a hint. Without one, whoever is nearest to the backend asks first each time, and waiters of the others starve.
//! Processes that follow the hint get the lock in turn; one that does not, or has never had the lock, asks at once, as before.
//!
//! # Failure
//! A process that is gone costs the next one [`HEAD_START`], once: with the next release it is forgotten.
//!
//! # How it works
//! Whoever releases says which process it is, and whether others wait there. All who wait hear the same releases in the same
//! order, and so agree on whose waiters had their last turn longest ago. Those ask at once, the others a head start later for
//! each process before them. If the lock is held for less than that, they hear of the next release first, and have spared a
//! question whose answer was no.

use std::collections::VecDeque;
use std::time::Duration;

/// How much earlier the process asks whose turn it is: more than ways to the backend differ within a region, and little beside what
/// a lease lasts.
pub const HEAD_START: Duration = Duration::from_millis(5);
/// Processes before us that are given a head start each; the wait for all of them is bounded by this.
const BEFORE_MAX: usize = 4;
/// Processes that are remembered. Those beyond ask at once.
const PROCESSES_MAX: usize = 256;

/// Who waits for one lock, as far as releases told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Those who still waited when they released, the longest ago first.
    waiting: VecDeque<u64>,
}

impl Rotation {
    /// Takes in that a process has released the lock, and whether others wait in it.
    pub fn released(&mut self, process: u64, waits_on: bool) {
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == process) {
            // Those before it had their head start and did not use it.
            self.waiting.drain(..=place);
        }
        if waits_on && self.waiting.len() < PROCESSES_MAX {
            self.waiting.push_back(process);
        }
    }

    /// How long this process lets others go first.
    #[must_use]
    pub fn head_start_of_others(&self, process: u64) -> Duration {
        let before = self.waiting.iter().position(|waiting| *waiting == process);
        HEAD_START * u32::try_from(before.unwrap_or(0).min(BEFORE_MAX)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BEFORE_MAX, HEAD_START, PROCESSES_MAX, Rotation};

    fn after(releases: &[(u64, bool)]) -> Rotation {
        let mut rotation = Rotation::default();
        releases.iter().for_each(|(process, waits_on)| rotation.released(*process, *waits_on));
        rotation
    }

    #[test]
    fn who_had_the_lock_longest_ago_goes_first() {
        let rotation = after(&[(1, true), (2, true), (3, true), (1, true)]);
        let starts = [2, 3, 1].map(|process| rotation.head_start_of_others(process));
        assert_eq!(starts, [Duration::ZERO, HEAD_START, HEAD_START * 2]);
    }

    #[test]
    fn who_has_not_had_it_waits_for_nobody() {
        assert!(after(&[(1, true), (2, true)]).head_start_of_others(7).is_zero());
        assert!(after(&[]).head_start_of_others(7).is_zero());
    }

    #[test]
    fn nobody_waits_for_a_process_without_waiters() {
        let rotation = after(&[(1, true), (2, true), (1, false)]);
        assert_eq!(rotation, after(&[(2, true)]));
        assert!(rotation.head_start_of_others(2).is_zero());
    }

    #[test]
    fn who_missed_its_turn_is_forgotten() {
        // 1 is gone; 2 was next.
        let rotation = after(&[(1, true), (2, true), (3, true), (2, true)]);
        assert_eq!(rotation, after(&[(3, true), (2, true)]));
    }

    #[test]
    fn memory_and_waiting_are_bounded() {
        let many: Vec<_> = (0..2 * PROCESSES_MAX as u64).map(|process| (process, true)).collect();
        let rotation = after(&many);
        assert_eq!(rotation.waiting.len(), PROCESSES_MAX);
        let last = rotation.head_start_of_others(PROCESSES_MAX as u64 - 1);
        assert_eq!(last, HEAD_START * u32::try_from(BEFORE_MAX).unwrap());
    }
}
