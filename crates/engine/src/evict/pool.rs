//! The best candidates for eviction that were seen so far.
//!
//! # How it works
//! A handful of keys, ordered by how well they would go. A step adds those of its samples that are better than the worst, so that after some
//! steps the pool holds better ones than any single step has seen. Keys may be gone, or used again, by the time they are taken
//! out: who takes one looks at it again.

use super::EvictionPolicy;
use crate::algorithm::random::Random;

/// As many as Redis remembers.
const CANDIDATES_MAX: usize = 16;

/// A key that may go.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The higher, the better it goes.
    pub(super) score: u64,
    pub(super) database: usize,
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
}

/// What is remembered from search to search.
pub(super) struct Pool {
    /// The best last.
    candidates: Vec<Candidate>,
    /// What they were chosen by.
    policy: EvictionPolicy,
    pub(super) random: Random,
    /// Databases take turns where one key is chosen at random.
    pub(super) turn: usize,
    /// Where a walk through all keys goes on: a database, a segment, a bucket.
    pub(super) place: (usize, usize, usize),
}

impl Pool {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            candidates: Vec::with_capacity(CANDIDATES_MAX),
            policy: EvictionPolicy::NoEviction,
            random: Random::new(seed),
            turn: 0,
            place: (0, 0, 0),
        }
    }

    /// What was chosen by another policy says nothing.
    pub(super) fn begin(&mut self, policy: EvictionPolicy) {
        if self.policy != policy || policy.is_random() {
            self.policy = policy;
            self.candidates.clear();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Whether a key with this score would be remembered.
    pub(super) fn wants(&self, score: u64) -> bool {
        self.candidates.len() < CANDIDATES_MAX || self.candidates.first().is_some_and(|worst| worst.score < score)
    }

    pub(super) fn add(&mut self, candidate: Candidate) {
        // At most a handful: comparing hashes is quicker than any order.
        let is_same = |other: &Candidate| other.hash == candidate.hash && other.key == candidate.key;
        self.candidates.retain(|other| other.database != candidate.database || !is_same(other));
        if !self.wants(candidate.score) {
            return;
        }
        if self.candidates.len() == CANDIDATES_MAX {
            self.candidates.remove(0);
        }
        let position = self.candidates.partition_point(|other| other.score <= candidate.score);
        self.candidates.insert(position, candidate);
    }

    pub(super) fn take_best(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::{CANDIDATES_MAX, Candidate, Pool};

    fn candidate(score: u64, name: u64) -> Candidate {
        Candidate { score, database: 0, hash: name, key: name.to_le_bytes().into() }
    }

    #[test]
    fn best_of_many_are_kept_and_come_out_in_order() {
        let mut pool = Pool::new(1);
        for number in 0..1_000 {
            let score = number * 7_919 % 1_000;
            if pool.wants(score) {
                pool.add(candidate(score, number));
            }
        }
        let scores: Vec<u64> = std::iter::from_fn(|| pool.take_best()).map(|one| one.score).collect();
        let best: Vec<u64> = (0..1_000).rev().take(CANDIDATES_MAX).collect();
        assert_eq!(scores, best);
    }

    #[test]
    fn key_that_is_seen_again_has_its_newest_score() {
        let mut pool = Pool::new(1);
        [candidate(5, 1), candidate(7, 2), candidate(9, 1)].into_iter().for_each(|one| pool.add(one));
        assert_eq!(pool.take_best().map(|one| (one.score, one.hash)), Some((9, 1)));
        assert_eq!(pool.take_best().map(|one| (one.score, one.hash)), Some((7, 2)));
        assert!(pool.is_empty());
    }
}
