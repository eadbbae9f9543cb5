//! Leases watched by our own clock.
//!
//! # Guarantees
//! A lease that was seen unchanged for its whole length has ended, whatever the wall clocks of its holder and of this client
//! say: its holder counts its own deadline from before the request that wrote what was seen. To act on it takes a write under the
//! condition that the lock is still as it was seen.
//!
//! # Failure
//! Forgetting only costs time: a lease that is seen again is watched from then on. At most some tens of thousands are kept.
//!
//! # How it works
//! Each look at a lock replaces what is known of it; a lease that was there before keeps the moment of its first sighting. Locks
//! that nobody has looked at since the last half of the bound was used up are forgotten first.

use std::collections::HashMap;

use acteon_state_core::OwnerId;
use acteon_state_core::clock::BootInstant;
use parking_lot::Mutex;

/// How many leases are kept in each of the two generations: 64 bytes each, so about a megabyte.
const SIGHTINGS_MAX: usize = 16_384;

/// A lease as it was written. Extending it makes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) owner: OwnerId,
    pub(super) expires_at_us: u64,
    /// The version of the record where it changes with this lease only; otherwise 0.
    pub(super) version: u128,
}

/// When leases were first seen.
#[derive(Debug, Default)]
pub(super) struct Observations {
    // Locked for a look-up, never across an await.
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Box<str>, Vec<Sighting>>,
    young_sightings: usize,
    old: HashMap<Box<str>, Vec<Sighting>>,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    mark: Mark,
    since: BootInstant,
}

impl Observations {
    /// Takes in the leases of a lock as they were read before `seen_at`, and tells since when each has been known, in their order.
    pub(super) fn look(&self, lock: &str, marks: &[Mark], seen_at: BootInstant) -> Vec<BootInstant> {
        let mut generations = self.generations.lock();
        let known = generations.remove(lock);
        if marks.is_empty() {
            return Vec::new();
        }
        let first_seen = |mark: &Mark| {
            let known = known.iter().flatten().find(|sighting| sighting.mark == *mark);
            known.map_or(seen_at, |sighting| sighting.since)
        };
        let sightings: Vec<Sighting> =
            marks.iter().map(|mark| Sighting { mark: *mark, since: first_seen(mark) }).collect();
        let since = sightings.iter().map(|sighting| sighting.since).collect();
        generations.insert(lock, sightings);
        since
    }
}

impl Generations {
    fn remove(&mut self, lock: &str) -> Option<Vec<Sighting>> {
        if let Some(sightings) = self.young.remove(lock) {
            self.young_sightings -= sightings.len();
            return Some(sightings);
        }
        self.old.remove(lock)
    }

    fn insert(&mut self, lock: &str, sightings: Vec<Sighting>) {
        if self.young_sightings + sightings.len() > SIGHTINGS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_sightings = 0;
        }
        self.young_sightings += sightings.len();
        self.young.insert(lock.into(), sightings);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::OwnerId;
    use acteon_state_core::clock::BootInstant;

    use super::{Mark, Observations, SIGHTINGS_MAX};

    fn mark(expires_at_us: u64) -> Mark {
        Mark { owner: OwnerId::from_u128(7), expires_at_us, version: 0 }
    }

    #[test]
    fn a_lease_is_known_since_it_was_first_seen_and_anew_when_it_changes() {
        let observations = Observations::default();
        let first = BootInstant::now();
        let [second, third] = [1, 2].map(|seconds| first + Duration::from_secs(seconds));
        assert_eq!(observations.look("lock", &[mark(1)], first), [first]);
        assert_eq!(observations.look("lock", &[mark(1), mark(2)], second), [first, second]);
        assert_eq!(observations.look("lock", &[mark(2), mark(3)], third), [second, third]);
        assert_eq!(observations.look("other", &[mark(2)], third), [third]);
        assert!(observations.look("lock", &[], third).is_empty());
        assert_eq!(observations.look("lock", &[mark(2)], third), [third]);
    }

    #[test]
    fn what_is_looked_at_survives_many_others_and_their_number_is_bounded() {
        let observations = Observations::default();
        let first = BootInstant::now();
        let later = first + Duration::from_secs(1);
        observations.look("lock", &[mark(1)], first);
        for number in 0..3 * SIGHTINGS_MAX {
            observations.look(&number.to_string(), &[mark(1)], later);
            if number % (SIGHTINGS_MAX / 2) == 0 {
                assert_eq!(observations.look("lock", &[mark(1)], later), [first]);
            }
        }
        let generations = observations.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * SIGHTINGS_MAX);
        assert_eq!(generations.young_sightings, generations.young.len());
    }
}
