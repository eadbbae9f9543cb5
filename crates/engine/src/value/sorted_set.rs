//! A sorted set: members with a score, ordered by score and then by member.
//!
//! # Guarantees
//! The order is total: a score is never NaN, and -0.0 is stored as 0.0, so two equal scores never sort apart.
//!
//! # How it works
//! A table finds a member's score, a B-tree keeps the order; both share one allocation per member.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;

use crate::entry::allocation_cost_bytes;
use crate::error::EngineError;
use crate::memory::Account;
use crate::segment::capacity_if_sparse;

/// What a member costs beyond its bytes: the reference counts, and 24 bytes in each of two structures that are two thirds full.
const MEMBER_COST_BYTES: u64 = 88;

/// Members ordered by score, for reading.
pub struct SortedSet {
    scores: HashMap<Arc<[u8]>, f64, SeedableRandomState>,
    order: BTreeSet<Rank>,
    cost_bytes: u64,
}

impl SortedSet {
    pub(crate) fn new(hasher: SeedableRandomState) -> Self {
        Self { scores: HashMap::with_hasher(hasher), order: BTreeSet::new(), cost_bytes: 0 }
    }

    /// The score of `member`.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// The member with the lowest score.
    #[must_use]
    pub fn first(&self) -> Option<(&[u8], f64)> {
        self.order.first().map(Rank::as_pair)
    }

    /// Members with a score within `scores`, lowest first. Lazy: `take(limit)` bounds the work.
    pub fn range(&self, scores: RangeInclusive<f64>) -> impl Iterator<Item = (&[u8], f64)> {
        let (score_min, score_max) = scores.into_inner();
        // The empty member sorts before every other one of its score.
        self.order
            .range(Rank::new(score_min, Arc::default())..)
            .take_while(move |rank| rank.score <= score_max)
            .map(Rank::as_pair)
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there is no member. Only seen inside an update: an empty sorted set is removed when its update ends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        self.cost_bytes
    }
}

/// A sorted set that is being changed; reads go through to [`SortedSet`].
pub struct SortedSetMut<'a> {
    set: &'a mut SortedSet,
    account: Account<'a>,
}

impl<'a> SortedSetMut<'a> {
    pub(crate) fn new(set: &'a mut SortedSet, account: Account<'a>) -> Self {
        Self { set, account }
    }

    /// Gives `member` this score. Returns whether the member is new.
    ///
    /// # Errors
    /// [`EngineError::ScoreNotANumber`] for NaN, [`EngineError::OutOfMemory`] for a new member; the set is as it was.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Result<bool, EngineError> {
        if score.is_nan() {
            return Err(EngineError::ScoreNotANumber);
        }
        // -0.0 + 0.0 is 0.0, and every other score stays what it is.
        let score = score + 0.0;
        if let Some((shared, old_score)) = self.set.scores.get_key_value(member) {
            let (shared, old_score) = (Arc::clone(shared), *old_score);
            self.move_member(shared, old_score, score);
            return Ok(false);
        }
        let cost_bytes = member_cost_bytes(member);
        self.account.grow(cost_bytes)?;
        self.set.cost_bytes += cost_bytes;
        let shared: Arc<[u8]> = member.into();
        self.set.order.insert(Rank::new(score, Arc::clone(&shared)));
        self.set.scores.insert(shared, score);
        Ok(true)
    }

    /// Removes `member` and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let scores = &mut self.set.scores;
        let (shared, score) = scores.remove_entry(member)?;
        if let Some(capacity) = capacity_if_sparse(scores.len(), scores.capacity()) {
            scores.shrink_to(capacity);
        }
        let removed = self.set.order.remove(&Rank::new(score, shared));
        assert!(removed, "a member with a score has its place in the order");
        self.give_back(member);
        Some(score)
    }

    /// Removes all members with a score within `scores` and returns how many there were.
    pub fn remove_range(&mut self, scores: RangeInclusive<f64>) -> usize {
        let mut removed = 0;
        while let Some(member) = self.first_member_within(&scores) {
            self.remove(&member);
            removed += 1;
        }
        removed
    }

    fn first_member_within(&self, scores: &RangeInclusive<f64>) -> Option<Arc<[u8]>> {
        let rank = self.set.order.range(Rank::new(*scores.start(), Arc::default())..).next()?;
        (rank.score <= *scores.end()).then(|| Arc::clone(&rank.member))
    }

    fn move_member(&mut self, member: Arc<[u8]>, old_score: f64, score: f64) {
        if let Some(stored) = self.set.scores.get_mut(&member) {
            *stored = score;
        }
        self.set.order.remove(&Rank::new(old_score, Arc::clone(&member)));
        self.set.order.insert(Rank::new(score, member));
    }

    fn give_back(&mut self, member: &[u8]) {
        let cost_bytes = member_cost_bytes(member);
        self.account.shrink(cost_bytes);
        self.set.cost_bytes -= cost_bytes;
    }
}

impl Deref for SortedSetMut<'_> {
    type Target = SortedSet;

    fn deref(&self) -> &SortedSet {
        self.set
    }
}

/// A place in the order.
struct Rank {
    score: f64,
    member: Arc<[u8]>,
}

impl Rank {
    fn new(score: f64, member: Arc<[u8]>) -> Self {
        // A bound of -0.0 must find members at 0.0 as well.
        Self { score: score + 0.0, member }
    }

    fn as_pair(&self) -> (&[u8], f64) {
        (&self.member, self.score)
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| self.member.cmp(&other.member))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

fn member_cost_bytes(member: &[u8]) -> u64 {
    MEMBER_COST_BYTES + allocation_cost_bytes(member.len())
}

#[cfg(test)]
mod tests {
    use foldhash::quality::SeedableRandomState;

    use super::{SortedSet, SortedSetMut};
    use crate::error::EngineError;
    use crate::memory::{Account, Memory};

    fn with_set<R>(bytes_max: Option<u64>, change: impl FnOnce(&mut SortedSetMut<'_>) -> R) -> R {
        let memory = Memory::new(bytes_max);
        let mut segment_bytes = 0;
        let mut set = SortedSet::new(SeedableRandomState::fixed());
        let result =
            change(&mut SortedSetMut::new(&mut set, Account { memory: &memory, segment_bytes: &mut segment_bytes }));
        assert_eq!(set.cost_bytes(), segment_bytes);
        assert_eq!(set.order.len(), set.scores.len());
        assert_eq!(set.is_empty(), segment_bytes == 0);
        result
    }

    #[test]
    fn members_come_by_score_then_by_bytes() {
        with_set(None, |set| {
            for (member, score) in [("c", 2.0), ("b", 2.0), ("a", 3.0), ("z", f64::NEG_INFINITY)] {
                assert_eq!(set.insert(member.as_bytes(), score), Ok(true));
            }
            assert_eq!(set.insert(b"a", 1.0), Ok(false));
            let all: Vec<_> = set.range(f64::NEG_INFINITY..=f64::INFINITY).collect();
            assert_eq!(all, [(&b"z"[..], f64::NEG_INFINITY), (b"a", 1.0), (b"b", 2.0), (b"c", 2.0)]);
            assert_eq!(set.range(1.0..=2.0).take(2).count(), 2);
            assert_eq!(set.first(), Some((&b"z"[..], f64::NEG_INFINITY)));
            assert_eq!(set.score(b"c"), Some(2.0));
        });
    }

    #[test]
    fn removed_range_includes_both_bounds_and_nothing_else() {
        with_set(None, |set| {
            for member in 0_u8..10 {
                assert_eq!(set.insert(&[member], f64::from(member)), Ok(true));
            }
            assert_eq!(set.remove_range(2.0..=4.0), 3);
            assert_eq!(set.remove_range(2.0..=4.0), 0);
            assert_eq!(set.remove(&[9]), Some(9.0));
            assert_eq!(set.remove(&[9]), None);
            let left: Vec<_> = set.range(0.0..=9.0).map(|(member, _)| member[0]).collect();
            assert_eq!(left, [0, 1, 5, 6, 7, 8]);
            assert_eq!(set.remove_range(f64::NEG_INFINITY..=f64::INFINITY), 6);
        });
    }

    #[test]
    fn set_gives_its_table_back_when_most_members_have_gone() {
        with_set(None, |set| {
            for member in 0_u32..10_000 {
                assert_eq!(set.insert(&member.to_le_bytes(), f64::from(member)), Ok(true));
            }
            assert_eq!(set.remove_range(10.0..=f64::INFINITY), 9_990);
            assert!(set.set.scores.capacity() < 100, "{}", set.set.scores.capacity());
            assert_eq!(set.remove_range(0.0..=9.0), 10);
        });
    }

    #[test]
    fn negative_zero_and_zero_are_one_score() {
        with_set(None, |set| {
            assert_eq!(set.insert(b"b", -0.0), Ok(true));
            assert_eq!(set.insert(b"a", 0.0), Ok(true));
            let members: Vec<_> = set.range(0.0..=-0.0).map(|(member, _)| member).collect();
            assert_eq!(members, [b"a", b"b"]);
        });
    }

    #[test]
    fn score_that_is_not_a_number_is_refused_and_finds_nothing() {
        with_set(None, |set| {
            assert_eq!(set.insert(b"a", f64::NAN), Err(EngineError::ScoreNotANumber));
            assert_eq!(set.insert(b"a", 1.0), Ok(true));
            assert_eq!(set.range(f64::NAN..=1.0).count(), 0);
            assert_eq!(set.range(0.0..=f64::NAN).count(), 0);
        });
    }

    #[test]
    fn full_memory_refuses_new_members_but_moves_old_ones() {
        with_set(Some(100), |set| {
            assert_eq!(set.insert(b"a", 1.0), Ok(true));
            assert_eq!(set.insert(b"b", 1.0), Err(EngineError::OutOfMemory));
            assert_eq!(set.insert(b"a", 2.0), Ok(false));
            assert_eq!(set.score(b"a"), Some(2.0));
            assert_eq!(set.len(), 1);
        });
    }
}
