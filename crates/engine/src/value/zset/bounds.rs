//! Ranges of scores and of names, as commands ask for them.
//!
//! A range cuts the order into three parts: what it is above all of, what it contains, and what it does not reach. Two binary searches
//! find the cuts. A range whose bounds cross, or are NaN, contains nothing.

use std::ops::{Bound, RangeInclusive};

/// Scores between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    /// The lower bound.
    pub min: Bound<f64>,
    /// The upper bound.
    pub max: Bound<f64>,
}

impl ScoreRange {
    /// Every score.
    pub const ALL: Self = Self { min: Bound::Unbounded, max: Bound::Unbounded };

    /// Whether `score` lies within.
    #[must_use]
    pub fn contains(&self, score: f64) -> bool {
        !self.is_above_all_of(score) && self.reaches(score)
    }

    /// Whether `score` lies before the lower bound. Written so that a bound of NaN lies above everything.
    pub(super) fn is_above_all_of(&self, score: f64) -> bool {
        let is_reached = match self.min {
            Bound::Included(min) => score >= min,
            Bound::Excluded(min) => score > min,
            Bound::Unbounded => true,
        };
        !is_reached
    }

    /// Whether `score` does not lie beyond the upper bound.
    pub(super) fn reaches(&self, score: f64) -> bool {
        match self.max {
            Bound::Included(max) => score <= max,
            Bound::Excluded(max) => score < max,
            Bound::Unbounded => true,
        }
    }
}

impl From<RangeInclusive<f64>> for ScoreRange {
    fn from(scores: RangeInclusive<f64>) -> Self {
        let (min, max) = scores.into_inner();
        Self { min: Bound::Included(min), max: Bound::Included(max) }
    }
}

/// One end of a range of names. Unlike [`Bound`], either end may be the lowest or the highest there is: `ZRANGEBYLEX k + -` is
/// a valid question with an empty answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`: before every name.
    Lowest,
    /// `+`: after every name.
    Highest,
    /// `[name`: this name and what lies on the range's side of it.
    Included(&'a [u8]),
    /// `(name`: what lies on the range's side of this name.
    Excluded(&'a [u8]),
}

/// Names between two bounds, by their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexRange<'a> {
    /// The lower bound.
    pub min: LexBound<'a>,
    /// The upper bound.
    pub max: LexBound<'a>,
}

impl LexRange<'_> {
    /// Whether `name` lies within.
    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        !self.is_above_all_of(name) && self.reaches(name)
    }

    /// Whether `name` lies before the lower bound.
    pub(super) fn is_above_all_of(&self, name: &[u8]) -> bool {
        match self.min {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Included(min) => name < min,
            LexBound::Excluded(min) => name <= min,
        }
    }

    /// Whether `name` does not lie beyond the upper bound.
    pub(super) fn reaches(&self, name: &[u8]) -> bool {
        match self.max {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Included(max) => name <= max,
            LexBound::Excluded(max) => name < max,
        }
    }
}
