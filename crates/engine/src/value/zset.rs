//! A sorted set: members with a score, ordered by score and then by the bytes of the member.
//!
//! # Guarantees
//! The order is total: a score is never NaN, and -0.0 stands where 0.0 stands. A rank, a bound or a count costs O(log n)
//! plus a short sum, never a walk over the members.
//! A scan visits every member that is there from its start to its end, whatever is added or removed meanwhile.
//!
//! # Failure
//! None. Memory is counted by the owner, who reads [`Zset::cost_bytes`] before and after a change.
//!
//! # How it works
//! A small set is one buffer in order. The first member too long or too many turns it into a table from
//! members to scores next to a list in order; it never turns back, as in Redis.
//! Questions about scores and names become ranges of ranks first, so that counting, reading in both directions, paging
//! and removing are each written once:
//! `set.range(set.ranks_by_score(&scores)).rev().take(10)`.

mod bounds;
mod large;
mod packed;
mod ranks;

use std::cmp::Ordering;
use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::Arc;

pub use self::bounds::{LexBound, LexRange, ScoreRange};
use self::large::Large;
use self::packed::Packed;
use self::ranks::{Place, Ranks};
use super::limits::Limits;
use super::sample::{distinct_indexes, index_below};

/// Members with scores, in order.
#[derive(Clone)]
pub struct Zset {
    repr: Repr,
}

#[derive(Clone)]
enum Repr {
    Packed(Packed),
    Large(Box<Large>),
}

impl Default for Zset {
    fn default() -> Self {
        Self::new()
    }
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inserted {
    /// The member is new.
    Added,
    /// The member had this other score before.
    Updated(f64),
    /// The member had this score already; -0.0 and 0.0 are one score, and the older one stays.
    Same,
}

impl Zset {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { repr: Repr::Packed(Packed::new()) }
    }

    /// A set of these members, in any order; of a member given twice the last score stays. Unlike insertion one by one, which
    /// starts small, this begins large if it ends large, so that every -0.0 keeps its sign.
    ///
    /// # Panics
    /// If a score is NaN.
    #[must_use]
    pub fn from_members<M: AsRef<[u8]>>(members: &[(M, f64)], limits: &Limits) -> Self {
        let is_small = members.len() <= limits.zset_max_listpack_entries
            && members.iter().all(|(member, _)| member.as_ref().len() <= limits.zset_max_listpack_value);
        let mut set = if is_small { Self::new() } else { Self { repr: Repr::Large(Box::default()) } };
        for (member, score) in members {
            set.insert(member.as_ref(), *score, limits);
        }
        set
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.len(),
            Repr::Large(large) => large.len(),
        }
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a member is found by walking through them.
    #[cfg(feature = "commands")]
    pub(crate) const fn is_packed(&self) -> bool {
        matches!(self.repr, Repr::Packed(_))
    }

    /// The memory that the set holds, about, in bytes. O(1).
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        match &self.repr {
            Repr::Packed(packed) => packed.cost_bytes(),
            Repr::Large(large) => large.cost_bytes(),
        }
    }

    /// The name that OBJECT ENCODING answers.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self.repr {
            Repr::Packed(_) => "listpack",
            Repr::Large(_) => "skiplist",
        }
    }

    /// The score of `member`.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.repr {
            Repr::Packed(packed) => packed.find(member).map(|rank| packed.get(rank).1),
            Repr::Large(large) => large.score(member),
        }
    }

    /// How many members stand before `member`.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.repr {
            Repr::Packed(packed) => packed.find(member),
            Repr::Large(large) => large.rank(member),
        }
    }

    /// The member at `rank`, counted from 0, the lowest.
    #[must_use]
    pub fn by_rank(&self, rank: usize) -> Option<(&[u8], f64)> {
        if rank >= self.len() {
            return None;
        }
        match &self.repr {
            Repr::Packed(packed) => Some(packed.get(rank)),
            Repr::Large(large) => Some(large.ranks().get(large.ranks().place_of(rank)).as_pair()),
        }
    }

    /// All members, lowest first; `rev()` for highest first.
    #[must_use]
    pub fn iter(&self) -> RankedMembers<'_> {
        self.range(0..self.len())
    }

    /// The members with these ranks, lazily and from either end. What lies beyond the end is left out.
    #[must_use]
    pub fn range(&self, ranks: Range<usize>) -> RankedMembers<'_> {
        let source = match &self.repr {
            Repr::Packed(packed) => Source::Packed(packed),
            Repr::Large(large) => Source::Large(large.ranks()),
        };
        RankedMembers { source, ranks: self.clamp(ranks), front: None, back: None }
    }

    /// The ranks of the members with a score within `scores`; its length is their number. O(log n).
    #[must_use]
    pub fn ranks_by_score(&self, scores: &ScoreRange) -> Range<usize> {
        let start = self.partition_point(|_, score| scores.is_above_all_of(score));
        let end = self.partition_point(|_, score| scores.reaches(score));
        start..end.max(start)
    }

    /// The ranks of the members within `names`; its length is their number. O(log n).
    /// Means something only while all members have one score; otherwise the answer is some range.
    #[must_use]
    pub fn ranks_by_lex(&self, names: &LexRange<'_>) -> Range<usize> {
        let start = self.partition_point(|member, _| names.is_above_all_of(member));
        let end = self.partition_point(|member, _| names.reaches(member));
        start..end.max(start)
    }

    /// Gives `member` this score. Turns a small set into a large one when Redis would: a new member is longer than
    /// `zset_max_listpack_value` or one more than `zset_max_listpack_entries`.
    ///
    /// # Panics
    /// If `score` is NaN: whoever reads or computes a score refuses NaN with an error of its own.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Inserted {
        assert!(!score.is_nan(), "a score is checked before it is stored");
        match &mut self.repr {
            Repr::Packed(packed) => {
                if let Some(rank) = packed.find(member) {
                    return packed.set_score(rank, member, score);
                }
                if packed.can_take(member, limits) {
                    packed.insert(member, score);
                    return Inserted::Added;
                }
                self.grow_up().insert(member, score)
            }
            Repr::Large(large) => large.insert(member, score),
        }
    }

    /// Removes `member` and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.repr {
            Repr::Packed(packed) => {
                let rank = packed.find(member)?;
                let (_, score) = packed.get(rank);
                packed.remove_range(rank..rank + 1);
                Some(score)
            }
            Repr::Large(large) => large.remove(member),
        }
    }

    /// Removes the member with the lowest score and returns it.
    pub fn pop_min(&mut self) -> Option<(Arc<[u8]>, f64)> {
        self.pop_at(0)
    }

    /// Removes the member with the highest score and returns it.
    pub fn pop_max(&mut self) -> Option<(Arc<[u8]>, f64)> {
        self.pop_at(self.len().checked_sub(1)?)
    }

    /// Removes the members with these ranks and returns how many there were.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        let ranks = self.clamp(ranks);
        let removed = ranks.len();
        if removed > 0 {
            match &mut self.repr {
                Repr::Packed(packed) => packed.remove_range(ranks),
                Repr::Large(large) => large.remove_range(ranks),
            }
        }
        removed
    }

    /// Removes the members with a score within `scores` and returns how many there were.
    pub fn remove_range_by_score(&mut self, scores: &ScoreRange) -> usize {
        self.remove_range(self.ranks_by_score(scores))
    }

    /// Removes the members within `names` and returns how many there were; see [`ranks_by_lex`](Self::ranks_by_lex).
    pub fn remove_range_by_lex(&mut self, names: &LexRange<'_>) -> usize {
        self.remove_range(self.ranks_by_lex(names))
    }

    /// A member, each as likely as the others for a random `random`; `None` if the set is empty.
    #[must_use]
    pub fn random(&self, random: u64) -> Option<(&[u8], f64)> {
        if self.is_empty() {
            return None;
        }
        self.at(index_below(random, self.len()))
    }

    /// `count` different members at random, or all if there are no more.
    #[must_use]
    pub fn random_distinct(&self, count: usize, random: &mut impl FnMut() -> u64) -> Vec<(&[u8], f64)> {
        let positions = distinct_indexes(self.len(), count, random);
        positions.into_iter().filter_map(|position| self.at(position)).collect()
    }

    /// Visits about `count` members, at least one, and returns the cursor to go on from: 0 once all have been visited, and 0 to begin.
    /// A small set is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match &self.repr {
            Repr::Packed(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
            Repr::Large(large) => large.scan(cursor, count, visit),
        }
    }

    /// Some member: each position below the length names another one. O(1), unlike a rank.
    fn at(&self, position: usize) -> Option<(&[u8], f64)> {
        match &self.repr {
            Repr::Packed(_) => self.by_rank(position),
            Repr::Large(large) => large.at(position),
        }
    }

    fn pop_at(&mut self, rank: usize) -> Option<(Arc<[u8]>, f64)> {
        let (member, score) = self.by_rank(rank)?;
        let member = Arc::from(member);
        self.remove_range(rank..rank + 1);
        Some((member, score))
    }

    fn clamp(&self, ranks: Range<usize>) -> Range<usize> {
        let end = ranks.end.min(self.len());
        ranks.start.min(end)..end
    }

    /// The rank of the first member that is not `before`; every member that is `before` must precede those that are not.
    fn partition_point(&self, before: impl Fn(&[u8], f64) -> bool) -> usize {
        match &self.repr {
            Repr::Packed(packed) => packed.partition_point(before),
            Repr::Large(large) => {
                let ranks = large.ranks();
                ranks.rank_of(ranks.partition_point(|entry| before(&entry.member, entry.score)))
            }
        }
    }

    /// Takes the form of a large set, whatever the size: what SORT leaves behind in Redis.
    pub(crate) fn become_large(&mut self) {
        self.grow_up();
    }

    /// Turns a small set into a large one with the same members.
    fn grow_up(&mut self) -> &mut Large {
        if let Repr::Packed(packed) = &self.repr {
            let mut large = Large::default();
            for rank in 0..packed.len() {
                let (member, score) = packed.get(rank);
                large.insert(member, score);
            }
            self.repr = Repr::Large(Box::new(large));
        }
        match &mut self.repr {
            Repr::Large(large) => large,
            Repr::Packed(_) => unreachable!("a small set was replaced above"),
        }
    }
}

/// Members in order with their scores, from either end.
pub struct RankedMembers<'a> {
    source: Source<'a>,
    ranks: Range<usize>,
    /// Where the next member from the front lies, once the first has been asked for: finding a place costs a sum.
    front: Option<Place>,
    /// Where the latest member from the back lies.
    back: Option<Place>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Packed(&'a Packed),
    Large(&'a Ranks),
}

impl<'a> Iterator for RankedMembers<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        let rank = self.ranks.next()?;
        match self.source {
            Source::Packed(packed) => Some(packed.get(rank)),
            Source::Large(ranks) => {
                let place = self.front.unwrap_or_else(|| ranks.place_of(rank));
                self.front = Some(ranks.after(place));
                Some(ranks.get(place).as_pair())
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }
}

impl DoubleEndedIterator for RankedMembers<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let rank = self.ranks.next_back()?;
        match self.source {
            Source::Packed(packed) => Some(packed.get(rank)),
            Source::Large(ranks) => {
                let place = self.back.map_or_else(|| ranks.place_of(rank), |place| ranks.before(place));
                self.back = Some(place);
                Some(ranks.get(place).as_pair())
            }
        }
    }
}

impl ExactSizeIterator for RankedMembers<'_> {}
impl FusedIterator for RankedMembers<'_> {}

/// The order of the set. Scores are never NaN, so what is neither less nor greater is equal, as -0.0 and 0.0 are.
pub(super) fn compare(left: (&[u8], f64), right: (&[u8], f64)) -> Ordering {
    left.1.partial_cmp(&right.1).unwrap_or(Ordering::Equal).then_with(|| left.0.cmp(right.0))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Bound;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{Inserted, LexBound, LexRange, ScoreRange, Zset, compare};
    use crate::value::limits::Limits;

    type Pair = (Vec<u8>, f64);

    fn limits(entries: usize, value: usize) -> Limits {
        Limits { zset_max_listpack_entries: entries, zset_max_listpack_value: value, ..Limits::default() }
    }

    fn owned<'a>(members: impl Iterator<Item = (&'a [u8], f64)>) -> Vec<Pair> {
        members.map(|(member, score)| (member.to_vec(), score)).collect()
    }

    fn numbered(count: u32, limits: &Limits) -> Zset {
        let members: Vec<_> = (0..count).map(|number| (number.to_be_bytes(), f64::from(number))).collect();
        Zset::from_members(&members, limits)
    }

    /// What a sorted set is, said in the plainest way.
    #[derive(Default)]
    struct Model {
        scores: BTreeMap<Vec<u8>, f64>,
    }

    impl Model {
        fn sorted(&self) -> Vec<Pair> {
            let mut members: Vec<_> = self.scores.iter().map(|(member, score)| (member.clone(), *score)).collect();
            members.sort_by(|left, right| compare((&left.0, left.1), (&right.0, right.1)));
            members
        }

        fn remove_where(&mut self, matches: impl Fn(usize, &Pair) -> bool) -> usize {
            let members = self.sorted();
            let removed = members.iter().enumerate().filter(|(rank, pair)| matches(*rank, pair));
            removed.map(|(_, (member, _))| self.scores.remove(member)).filter(Option::is_some).count()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, f64),
        Remove(Vec<u8>),
        PopMin,
        PopMax,
        RemoveRanks(usize, usize),
        RemoveScores(ScoreRange),
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        // Few different ones, so that steps meet.
        prop_oneof![vec(0..6_u8, 0..4), (0..600_u16).prop_map(|number| number.to_be_bytes().to_vec())]
    }

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => (-20..20_i8).prop_map(f64::from),
            3 => -20.0..20.0_f64,
            1 => Just(-0.0),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
        ]
    }

    fn score_range() -> impl Strategy<Value = ScoreRange> {
        let bound = || {
            prop_oneof![
                4 => score().prop_map(Bound::Included),
                4 => score().prop_map(Bound::Excluded),
                1 => Just(Bound::Unbounded),
            ]
        };
        (bound(), bound()).prop_map(|(min, max)| ScoreRange { min, max })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            30 => (member(), score()).prop_map(|(member, score)| Step::Insert(member, score)),
            6 => member().prop_map(Step::Remove),
            1 => Just(Step::PopMin),
            1 => Just(Step::PopMax),
            1 => (0..700_usize, 0..40_usize).prop_map(|(start, count)| Step::RemoveRanks(start, start + count)),
            1 => (score(), 0.0..2.0_f64).prop_map(|(min, width)| Step::RemoveScores((min..=min + width).into())),
        ]
    }

    fn apply(set: &mut Zset, model: &mut Model, step: &Step, limits: &Limits) {
        match step {
            Step::Insert(member, score) => {
                let expected = match model.scores.get(member) {
                    None => Inserted::Added,
                    Some(old) if old == score => Inserted::Same,
                    Some(old) => Inserted::Updated(*old),
                };
                assert_eq!(set.insert(member, *score, limits), expected);
                model.scores.insert(member.clone(), *score);
            }
            Step::Remove(member) => assert_eq!(set.remove(member), model.scores.remove(member)),
            Step::PopMin | Step::PopMax => {
                let is_min = matches!(step, Step::PopMin);
                let expected = if is_min { model.sorted().first().cloned() } else { model.sorted().last().cloned() };
                let popped = if is_min { set.pop_min() } else { set.pop_max() };
                assert_eq!(popped.map(|(member, score)| (member.to_vec(), score)), expected);
                expected.map(|(member, _)| model.scores.remove(&member));
            }
            Step::RemoveRanks(start, end) => {
                let expected = model.remove_where(|rank, _| (*start..*end).contains(&rank));
                assert_eq!(set.remove_range(*start..*end), expected);
            }
            Step::RemoveScores(scores) => {
                let expected = model.remove_where(|_, (_, score)| scores.contains(*score));
                assert_eq!(set.remove_range_by_score(scores), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn set_of_any_size_is_a_sorted_list(
            steps in vec(step(), 0..1_000),
            entries_max in prop_oneof![Just(0_usize), Just(8), Just(128), Just(10_000)],
            ranges in vec((score_range(), 0..700_usize, 0..50_usize), 8),
        ) {
            let limits = limits(entries_max, 64);
            let (mut set, mut model) = (Zset::new(), Model::default());
            let mut len_max = 0;
            for step in &steps {
                apply(&mut set, &mut model, step, &limits);
                len_max = len_max.max(set.len());
                prop_assert_eq!(set.len(), model.scores.len());
                prop_assert_eq!(set.encoding(), if len_max > entries_max { "skiplist" } else { "listpack" });
            }
            let sorted = model.sorted();
            prop_assert_eq!(owned(set.iter()), &sorted[..]);
            prop_assert_eq!(owned(set.clone().iter().rev()), sorted.iter().rev().cloned().collect::<Vec<_>>());
            for (rank, (member, score)) in sorted.iter().enumerate() {
                prop_assert_eq!((set.rank(member), set.score(member)), (Some(rank), Some(*score)));
                prop_assert_eq!(set.by_rank(rank), Some((&member[..], *score)));
            }
            prop_assert_eq!(set.by_rank(sorted.len()), None);
            for (scores, start, count) in ranges {
                let within: Vec<_> = sorted.iter().filter(|(_, score)| scores.contains(*score)).cloned().collect();
                prop_assert_eq!(set.ranks_by_score(&scores).len(), within.len());
                prop_assert_eq!(owned(set.range(set.ranks_by_score(&scores))), within);
                let ranks = start.min(sorted.len())..(start + count).min(sorted.len());
                prop_assert_eq!(owned(set.range(start..start + count)), &sorted[ranks]);
            }
            prop_assert_eq!(set.remove_range(0..usize::MAX), sorted.len());
            prop_assert!(set.is_empty() && set.iter().next().is_none());
            prop_assert_eq!(set.scan(0, 10, |_, _| {}), 0);
        }

        #[test]
        fn names_of_one_score_are_a_sorted_list(
            names in vec(member(), 0..300),
            (low, high) in (member(), member()),
            (min, max) in (0..4_u8, 0..4_u8),
        ) {
            let bound = |kind: u8, name| match kind {
                0 => LexBound::Lowest,
                1 => LexBound::Highest,
                2 => LexBound::Included(name),
                _ => LexBound::Excluded(name),
            };
            let range = LexRange { min: bound(min, &low[..]), max: bound(max, &high[..]) };
            let names: BTreeSet<_> = names.into_iter().collect();
            let members: Vec<_> = names.iter().map(|name| (name, 1.0)).collect();
            let mut set = Zset::from_members(&members, &limits(128, 64));
            let within: Vec<_> = names.iter().filter(|name| range.contains(name)).collect();
            let found: Vec<_> = set.range(set.ranks_by_lex(&range)).map(|(name, _)| name.to_vec()).collect();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), &within[..]);
            prop_assert_eq!(set.remove_range_by_lex(&range), within.len());
            prop_assert_eq!(set.len(), names.len() - within.len());
        }

        #[test]
        fn scan_finds_what_stays_while_others_come_and_go(
            count in 0..20_usize,
            changes in vec((200..500_u32, any::<bool>()), 0..400),
        ) {
            let limits = limits(128, 64);
            let mut set = numbered(400, &limits);
            let mut changes = changes.into_iter();
            let (mut found, mut cursor) = (BTreeSet::new(), 0);
            loop {
                cursor = set.scan(cursor, count, |member, _| {
                    found.insert(member.to_vec());
                });
                if cursor == 0 {
                    break;
                }
                for (number, is_added) in changes.by_ref().take(9) {
                    if is_added {
                        set.insert(&number.to_be_bytes(), -f64::from(number), &limits);
                    } else {
                        set.remove(&number.to_be_bytes());
                    }
                }
            }
            prop_assert!((0..200_u32).all(|number| found.contains(&number.to_be_bytes()[..])));
        }
    }

    #[test]
    fn set_grows_up_at_the_limits_and_never_back() {
        let limits = limits(3, 5);
        let mut set = numbered(3, &limits);
        assert_eq!(set.encoding(), "listpack");
        set.insert(&0_u32.to_be_bytes(), 9.0, &limits);
        assert_eq!(set.encoding(), "listpack");
        set.insert(b"d", 9.0, &limits);
        assert_eq!(set.encoding(), "skiplist");
        set.remove_range(0..3);
        assert_eq!((set.encoding(), set.len()), ("skiplist", 1));
        let mut set = Zset::new();
        set.insert(b"12345", 0.0, &limits);
        assert_eq!(set.encoding(), "listpack");
        set.insert(b"123456", 0.0, &limits);
        assert_eq!(set.encoding(), "skiplist");
    }

    /// As Redis: ZADD k -0 m, then ZSCORE k m, in both encodings.
    #[test]
    fn negative_zero_keeps_its_sign_only_in_a_large_set() {
        for (entries, is_negative) in [(128, false), (0, true)] {
            let limits = limits(entries, 64);
            let mut set = Zset::new();
            set.insert(b"b", -0.0, &limits);
            assert_eq!(set.insert(b"b", 0.0, &limits), Inserted::Same);
            assert_eq!(set.score(b"b").map(f64::is_sign_negative), Some(is_negative));
            set.insert(b"a", 0.0, &limits);
            assert_eq!(owned(set.range(set.ranks_by_score(&(0.0..=-0.0).into()))).len(), 2);
            assert_eq!(set.rank(b"a"), Some(0));
        }
    }

    #[test]
    fn bound_that_is_not_a_number_finds_nothing() {
        for entries in [0, 128] {
            let set = numbered(5, &limits(entries, 64));
            assert_eq!(set.ranks_by_score(&(f64::NAN..=1.0).into()).len(), 0);
            assert_eq!(set.ranks_by_score(&(0.0..=f64::NAN).into()).len(), 0);
        }
    }

    #[test]
    fn ends_of_an_iterator_meet_and_stay_ended() {
        for entries in [0, 128] {
            let set = numbered(5, &limits(entries, 64));
            let mut members = set.range(1..5);
            assert_eq!(members.len(), 4);
            let mut take = |from_back: bool| {
                let next = if from_back { members.next_back() } else { members.next() };
                next.map(|(_, score)| score)
            };
            assert_eq!(
                [take(true), take(false), take(false), take(true)],
                [Some(4.0), Some(1.0), Some(2.0), Some(3.0)]
            );
            assert_eq!([take(true), take(false)], [None, None]);
        }
    }

    #[test]
    fn random_members_are_members() {
        for entries in [0, 128] {
            let set = numbered(100, &limits(entries, 64));
            let mut state = 1_u64;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state
            };
            let chosen = owned(set.random_distinct(30, &mut random).into_iter());
            let different: BTreeSet<_> = chosen.iter().map(|(member, _)| member).collect();
            assert_eq!(different.len(), 30);
            assert!(chosen.iter().all(|(member, score)| set.score(member) == Some(*score)));
            assert!(set.random(random()).is_some());
            assert_eq!(Zset::new().random(1), None);
        }
    }

    #[test]
    fn memory_comes_back_when_members_go() {
        for entries in [0, 100_000] {
            let limits = limits(entries, 64);
            let mut set = numbered(2_000, &limits);
            let full_bytes = set.cost_bytes();
            assert!(full_bytes >= 2_000 * 16, "{full_bytes}");
            set.remove_range(5..2_000);
            assert!(set.cost_bytes() < full_bytes / 20, "{} of {full_bytes}", set.cost_bytes());
        }
    }
}
