//! Values of every type that RDB files have had, from version 1 to 11.
//!
//! # Guarantees
//! A value that is returned is whole: each count was met, no field or member came twice, no score is NaN. It may be empty.
//!
//! # How it works
//! Element by element into the engine's own collections, which choose their encoding as if the elements had been added by commands.

use std::io::BufRead;

use crate::value::{CollectionValue, Fields, Inserted, Limits, List, Set, Zset};

use super::error::Problem;
use super::source::Source;
use super::{Value, types};

const TWICE: Problem = Problem::Damaged("a member or field is there twice");

/// Reads the value that follows the type byte `kind`.
pub(crate) fn read<R: BufRead>(kind: u8, source: &mut Source<R>, limits: &Limits) -> Result<Value, Problem> {
    match kind {
        types::STRING => source.string().map(Value::Str),
        types::LIST => list(source, limits).map(CollectionValue::List).map(Value::Collection),
        types::SET => set(source, limits).map(CollectionValue::Set).map(Value::Collection),
        types::HASH => hash(source, limits).map(CollectionValue::Hash).map(Value::Collection),
        types::ZSET | types::ZSET_2 => {
            sorted_set(kind, source, limits).map(CollectionValue::SortedSet).map(Value::Collection)
        }
        _ => Err(Problem::UnknownType(kind)),
    }
}

fn list<R: BufRead>(source: &mut Source<R>, limits: &Limits) -> Result<List, Problem> {
    let (mut list, mut element) = (List::new(), Vec::new());
    for _ in 0..source.number()? {
        source.string_into(&mut element)?;
        list.push_back(&element, limits);
    }
    Ok(list)
}

fn set<R: BufRead>(source: &mut Source<R>, limits: &Limits) -> Result<Set, Problem> {
    let (mut set, mut member) = (Set::new(), Vec::new());
    for _ in 0..source.number()? {
        source.string_into(&mut member)?;
        if !set.insert(&member, limits) {
            return Err(TWICE);
        }
    }
    Ok(set)
}

fn hash<R: BufRead>(source: &mut Source<R>, limits: &Limits) -> Result<Fields, Problem> {
    let (mut fields, mut field, mut value) = (Fields::new(), Vec::new(), Vec::new());
    for _ in 0..source.number()? {
        source.string_into(&mut field)?;
        source.string_into(&mut value)?;
        if !fields.insert(&field, &value, limits) {
            return Err(TWICE);
        }
    }
    Ok(fields)
}

fn sorted_set<R: BufRead>(kind: u8, source: &mut Source<R>, limits: &Limits) -> Result<Zset, Problem> {
    let mut members = SortedSetBuilder::new(source.number()?, limits);
    let mut member = Vec::new();
    while members.left > 0 {
        source.string_into(&mut member)?;
        let score = if kind == types::ZSET { text_score(source)? } else { source.double()? };
        members.add(&member, score)?;
    }
    members.finish()
}

/// A score as versions before 8 have it: its text after a length of one byte, or one of three signs in the place of that.
fn text_score<R: BufRead>(source: &mut Source<R>) -> Result<f64, Problem> {
    const NAN: u8 = 253;
    const INFINITY: u8 = 254;
    const MINUS_INFINITY: u8 = 255;
    match source.byte()? {
        NAN => Ok(f64::NAN),
        INFINITY => Ok(f64::INFINITY),
        MINUS_INFINITY => Ok(f64::NEG_INFINITY),
        len => {
            let mut text = Vec::new();
            source.bytes(usize::from(len), &mut text)?;
            score_of(&text)
        }
    }
}

pub(super) fn score_of(text: &[u8]) -> Result<f64, Problem> {
    let score = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    score.ok_or(Problem::Damaged("a score is no number"))
}

/// A sorted set in the making. What will be large is large from the start, and what will be small is made at the end, so that the
/// signs of zeros are kept where redis-server keeps them.
pub(super) struct SortedSetBuilder<'a> {
    /// How many members are still to come.
    pub(super) left: u64,
    limits: &'a Limits,
    small: Option<Vec<(Box<[u8]>, f64)>>,
    large: Zset,
}

impl<'a> SortedSetBuilder<'a> {
    pub(super) fn new(count: u64, limits: &'a Limits) -> Self {
        let is_small = count <= limits.zset_max_listpack_entries as u64;
        let mut large = Zset::new();
        if !is_small {
            large.become_large();
        }
        Self { left: count, limits, small: is_small.then(Vec::new), large }
    }

    pub(super) fn add(&mut self, member: &[u8], score: f64) -> Result<(), Problem> {
        if score.is_nan() {
            return Err(Problem::Damaged("a score is not a number"));
        }
        self.left = self.left.checked_sub(1).ok_or(Problem::Damaged("a sorted set has too many members"))?;
        match &mut self.small {
            Some(members) => members.push((member.into(), score)),
            None if self.large.insert(member, score, self.limits) != Inserted::Added => return Err(TWICE),
            None => {}
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Zset, Problem> {
        let Some(members) = self.small else { return Ok(self.large) };
        let set = Zset::from_members(&members, self.limits);
        if set.len() == members.len() { Ok(set) } else { Err(TWICE) }
    }
}
