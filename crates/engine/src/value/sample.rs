//! Choosing members at random, from random numbers that the caller supplies.

use foldhash::quality::RandomState;
use hashbrown::HashSet;

/// A number below `len`, as evenly as 64 random bits allow. `len` must not be 0.
pub(crate) fn index_below(random: u64, len: usize) -> usize {
    // The upper half of the product lies below `len`.
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// `count` different numbers below `len`, each choice equally likely, in no particular order; all of them in order if there
/// are no more.
pub(crate) fn distinct_indexes(len: usize, count: usize, random: &mut impl FnMut() -> u64) -> Vec<usize> {
    if count >= len {
        return (0..len).collect();
    }
    // Robert Floyd's method: exactly `count` random numbers and no retries, however close `count` is to `len`.
    let mut chosen = HashSet::with_capacity_and_hasher(count, RandomState::default());
    let mut indexes = Vec::with_capacity(count);
    for last in len - count..len {
        let candidate = index_below(random(), last + 1);
        let index = if chosen.insert(candidate) { candidate } else { last };
        chosen.insert(index);
        indexes.push(index);
    }
    indexes
}

#[cfg(test)]
mod tests {
    use super::{distinct_indexes, index_below};

    #[test]
    fn sampled_indexes_are_different_and_cover_everything() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        };
        let mut hits = [0; 10];
        for _ in 0..3_000 {
            let mut indexes = distinct_indexes(10, 4, &mut random);
            indexes.iter().for_each(|index| hits[*index] += 1);
            indexes.sort_unstable();
            indexes.dedup();
            assert_eq!(indexes.len(), 4);
        }
        // 1,200 each on average; the deviation is about 27.
        assert!(hits.iter().all(|hits| (1_000..1_400).contains(hits)), "{hits:?}");
        assert_eq!(distinct_indexes(3, 9, &mut random), [0, 1, 2]);
        assert_eq!((index_below(0, 5), index_below(u64::MAX, 5)), (0, 4));
    }
}
