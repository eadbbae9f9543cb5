//! Unions, intersections and differences of sorted sets and plain sets: the arithmetic of ZUNION, ZINTER, ZDIFF and their kin.
//!
//! # Guarantees
//! Results come lowest score first, as a sorted set holds them. Scores combine in Redis's order, from the smallest set to the
//! largest, sets of one size in the order given, so that sums of floating point numbers come out the same to the last bit.
//! What is not a number becomes 0: infinity times weight 0, and infinity minus infinity.
//!
//! # Failure
//! None. Time is bounded by the members of all sets, times their number for an intersection and a difference.

use std::borrow::Cow;
use std::cmp::Ordering;

use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::set::Set;
use super::zset::{Zset, compare};

/// What a member of a plain set counts.
const MEMBER_SCORE: f64 = 1.0;

/// A set whose members have scores: a sorted set, or a plain set, where each member counts 1.
pub(crate) trait Scored {
    /// The number of members.
    fn len(&self) -> usize;

    /// The score of `member`.
    fn score(&self, member: &[u8]) -> Option<f64>;

    /// All members in any order. A set of integers writes its members out and so hands them over owned.
    fn members(&self) -> Box<dyn Iterator<Item = ScoredMember<'_>> + '_>;
}

/// A member and its score.
pub(crate) type ScoredMember<'a> = (Cow<'a, [u8]>, f64);

/// One operand. A key that does not exist is an empty set.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    /// The members.
    pub(crate) set: &'a dyn Scored,
    /// What each score is multiplied with; 1 changes nothing.
    pub(crate) weight: f64,
}

/// How the scores of a member that is in several sets become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Aggregate {
    /// Their sum.
    #[default]
    Sum,
    /// The lowest.
    Min,
    /// The highest.
    Max,
}

impl Aggregate {
    /// One score of two. Of two that are equal the first stays, which shows with 0.0 and -0.0.
    #[must_use]
    pub(crate) fn combine(self, first: f64, second: f64) -> f64 {
        match self {
            Self::Sum => number_or_zero(first + second),
            Self::Min if second < first => second,
            Self::Max if second > first => second,
            Self::Min | Self::Max => first,
        }
    }
}

/// The members of at least one operand.
#[must_use]
pub(crate) fn union<'a>(operands: &[Operand<'a>], aggregate: Aggregate) -> Vec<ScoredMember<'a>> {
    let mut scores: IndexMap<Cow<'a, [u8]>, f64, RandomState> = IndexMap::default();
    for operand in smallest_first(operands) {
        for (member, score) in operand.set.members() {
            let score = number_or_zero(operand.weight * score);
            scores.entry(member).and_modify(|sum| *sum = aggregate.combine(*sum, score)).or_insert(score);
        }
    }
    in_order(scores.into_iter())
}

/// The members of every operand; none of no operands.
#[must_use]
pub(crate) fn inter<'a>(operands: &[Operand<'a>], aggregate: Aggregate) -> Vec<ScoredMember<'a>> {
    let operands = smallest_first(operands);
    let Some((smallest, others)) = operands.split_first() else { return Vec::new() };
    in_order(smallest.set.members().filter_map(|(member, score)| {
        let score = others.iter().try_fold(number_or_zero(smallest.weight * score), |sum, other| {
            // Redis leaves the product as it is: with `Min` and `Max` a NaN loses, with `Sum` it makes the sum 0.
            Some(aggregate.combine(sum, other.weight * other.set.score(&member)?))
        })?;
        Some((member, score))
    }))
}

/// The number of members of every operand. Stops counting at `limit`, if there is one.
#[must_use]
pub(crate) fn inter_count(operands: &[Operand<'_>], limit: Option<usize>) -> usize {
    let operands = smallest_first(operands);
    let Some((smallest, others)) = operands.split_first() else { return 0 };
    let shared =
        smallest.set.members().filter(|(member, _)| others.iter().all(|other| other.set.score(member).is_some()));
    shared.take(limit.unwrap_or(usize::MAX)).count()
}

/// The members of the first set that no other set has, with their scores there.
#[must_use]
pub(crate) fn diff<'a>(first: &'a dyn Scored, others: &[&dyn Scored]) -> Vec<ScoredMember<'a>> {
    in_order(first.members().filter(|(member, _)| others.iter().all(|other| other.score(member).is_none())))
}

impl Scored for Zset {
    fn len(&self) -> usize {
        self.len()
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        self.score(member)
    }

    fn members(&self) -> Box<dyn Iterator<Item = ScoredMember<'_>> + '_> {
        Box::new(self.iter().map(|(member, score)| (Cow::Borrowed(member), score)))
    }
}

impl Scored for Set {
    fn len(&self) -> usize {
        self.len()
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        self.contains(member).then_some(MEMBER_SCORE)
    }

    fn members(&self) -> Box<dyn Iterator<Item = ScoredMember<'_>> + '_> {
        Box::new(self.iter().map(|member| (member.into(), MEMBER_SCORE)))
    }
}

/// The sort is stable, as the C library's is for so few items.
fn smallest_first<'a>(operands: &[Operand<'a>]) -> Vec<Operand<'a>> {
    let mut operands = operands.to_vec();
    operands.sort_by_key(|operand| operand.set.len());
    operands
}

fn in_order<'a>(members: impl Iterator<Item = ScoredMember<'a>>) -> Vec<ScoredMember<'a>> {
    let mut members: Vec<_> = members.collect();
    members.sort_unstable_by(|left, right| by_score(left, right));
    members
}

fn by_score(left: &ScoredMember<'_>, right: &ScoredMember<'_>) -> Ordering {
    compare((&left.0, left.1), (&right.0, right.1))
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

#[cfg(test)]
mod tests {
    use super::{Aggregate, Operand, ScoredMember, diff, inter, inter_count, union};
    use crate::value::limits::Limits;
    use crate::value::set::Set;
    use crate::value::zset::Zset;

    const INF: f64 = f64::INFINITY;

    fn zset(members: &[(&str, f64)]) -> Zset {
        Zset::from_members(members, &Limits::default())
    }

    fn operands<'a>(sets: &'a [(Zset, f64)]) -> Vec<Operand<'a>> {
        sets.iter().map(|(set, weight)| Operand { set, weight: *weight }).collect()
    }

    fn shown(members: Vec<ScoredMember<'_>>) -> String {
        let pairs: Vec<_> =
            members.iter().map(|(member, score)| format!("{}={score}", String::from_utf8_lossy(member))).collect();
        pairs.join(" ")
    }

    fn union_of(sets: &[(Zset, f64)], aggregate: Aggregate) -> String {
        shown(union(&operands(sets), aggregate))
    }

    #[test]
    fn weights_and_aggregates_combine_scores_in_order() {
        let sets = [(zset(&[("a", 1.0), ("b", 2.0)]), 2.0), (zset(&[("b", 3.0), ("c", -1.0), ("d", 9.0)]), 1.0)];
        assert_eq!(union_of(&sets, Aggregate::Sum), "c=-1 a=2 b=7 d=9");
        assert_eq!(union_of(&sets, Aggregate::Min), "c=-1 a=2 b=3 d=9");
        assert_eq!(union_of(&sets, Aggregate::Max), "c=-1 a=2 b=4 d=9");
        assert_eq!(shown(inter(&operands(&sets), Aggregate::Sum)), "b=7");
        assert_eq!(shown(diff(&sets[1].0, &[&sets[0].0])), "c=-1 d=9");
        assert_eq!(shown(diff(&sets[1].0, &[])), "c=-1 b=3 d=9");
    }

    #[test]
    fn members_of_plain_sets_count_one_each() {
        let mut set = Set::new();
        for member in [&b"17"[..], b"-3"] {
            set.insert(member, &Limits::default());
        }
        let sorted = zset(&[("17", 5.0), ("x", 0.0)]);
        let operands = [Operand { set: &sorted, weight: 2.0 }, Operand { set: &set, weight: 3.0 }];
        assert_eq!(shown(union(&operands, Aggregate::Sum)), "x=0 -3=3 17=13");
        assert_eq!(shown(inter(&operands, Aggregate::Sum)), "17=13");
        assert_eq!(shown(diff(&set, &[&sorted])), "-3=1");
    }

    #[test]
    fn negative_zero_of_a_weight_is_kept_in_the_answer() {
        assert_eq!(union_of(&[(zset(&[("a", 0.0)]), -1.0)], Aggregate::Sum), "a=-0");
    }

    #[test]
    fn what_is_not_a_number_becomes_zero() {
        let opposite = [(zset(&[("a", INF)]), 1.0), (zset(&[("a", INF)]), -1.0)];
        assert_eq!(union_of(&opposite, Aggregate::Sum), "a=0");
        assert_eq!(shown(inter(&operands(&opposite), Aggregate::Sum)), "a=0");
        assert_eq!(union_of(&[(zset(&[("a", INF)]), 0.0)], Aggregate::Max), "a=0");
    }

    /// Redis checks the product in a union and forgets to in an intersection beyond the first set.
    #[test]
    fn product_that_is_not_a_number_differs_between_union_and_intersection() {
        let sets = [(zset(&[("a", 5.0)]), 1.0), (zset(&[("a", INF)]), 0.0)];
        assert_eq!(union_of(&sets, Aggregate::Sum), "a=5");
        assert_eq!(shown(inter(&operands(&sets), Aggregate::Sum)), "a=0");
        assert_eq!(union_of(&sets, Aggregate::Min), "a=0");
        assert_eq!(shown(inter(&operands(&sets), Aggregate::Min)), "a=5");
    }

    #[test]
    fn intersection_counts_up_to_its_limit() {
        let members = [("a", 1.0), ("b", 1.0), ("c", 1.0)];
        let sets = [(zset(&members), 1.0), (zset(&members[1..]), 1.0)];
        assert_eq!(inter_count(&operands(&sets), None), 2);
        assert_eq!(inter_count(&operands(&sets), Some(1)), 1);
        assert_eq!(inter_count(&[], None), 0);
        assert_eq!(shown(inter(&operands(&[(zset(&members), 1.0), (zset(&[]), 1.0)]), Aggregate::Sum)), "");
    }
}
