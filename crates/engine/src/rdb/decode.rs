//! Values of every type that RDB files have had, from version 1 to 11.
//!
//! # Guarantees
//! A value that is returned is whole: each count was met, no field or member came twice, no score is NaN. It may be empty.
//!
//! # How it works
//! Element by element, whatever form they are in, into the engine's own collections, which choose their encoding as if the elements had been added by commands.

use std::io::BufRead;

use crate::value::{CollectionValue, Fields, Inserted, Limits, List, Set, Zset};

use super::error::Problem;
use super::packed::{Element, Elements, IntSet, Listpack, Ziplist, Zipmap};
use super::source::Source;
use super::{Value, types};

const TWICE: Problem = Problem::Damaged("a member or field is there twice");

/// Reads the value that follows the type byte `kind`.
///
/// What redis-server had packed stays packed up to the number of elements, however long they are: it looks no closer itself.
pub(crate) fn read<R: BufRead>(kind: u8, source: &mut Source<R>, limits: &Limits) -> Result<Value, Problem> {
    let by_number = &Limits { hash_max_listpack_value: usize::MAX, zset_max_listpack_value: usize::MAX, ..*limits };
    Ok(Value::Collection(match kind {
        types::STRING => return source.string().map(Value::Str),
        types::LIST => CollectionValue::List(list(source, limits)?),
        types::LIST_ZIPLIST => CollectionValue::List(list_of(Ziplist::open(&source.string()?)?, limits)?),
        types::LIST_QUICKLIST | types::LIST_QUICKLIST_2 => CollectionValue::List(quicklist(kind, source, limits)?),
        types::SET => CollectionValue::Set(set(source, limits)?),
        types::SET_INTSET => CollectionValue::Set(set_of(IntSet::open(&source.string()?)?, limits)?),
        types::SET_LISTPACK => CollectionValue::Set(set_of(Listpack::open(&source.string()?)?, limits)?),
        types::HASH => CollectionValue::Hash(hash(source, limits)?),
        types::HASH_ZIPMAP => CollectionValue::Hash(hash_of(Zipmap::open(&source.string()?)?, limits)?),
        types::HASH_ZIPLIST => CollectionValue::Hash(hash_of(Ziplist::open(&source.string()?)?, by_number)?),
        types::HASH_LISTPACK => CollectionValue::Hash(hash_of(Listpack::open(&source.string()?)?, by_number)?),
        types::ZSET | types::ZSET_2 => CollectionValue::SortedSet(sorted_set(kind, source, limits)?),
        types::ZSET_ZIPLIST => {
            let bytes = source.string()?;
            CollectionValue::SortedSet(sorted_set_of(|| Ziplist::open(&bytes), by_number)?)
        }
        types::ZSET_LISTPACK => {
            let bytes = source.string()?;
            CollectionValue::SortedSet(sorted_set_of(|| Listpack::open(&bytes), by_number)?)
        }
        _ => return Err(unsupported(kind)),
    }))
}

/// Why a value of a type that is not one of ours cannot be read.
pub(super) fn unsupported(kind: u8) -> Problem {
    match kind {
        types::STREAM | types::STREAM_2 | types::STREAM_3 => Problem::Unsupported("a stream"),
        types::MODULE | types::MODULE_2 => Problem::Unsupported("a value of a module"),
        _ => Problem::UnknownType(kind),
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

/// A list as nodes, each of which is packed or, from version 10 on, may be one large element.
fn quicklist<R: BufRead>(kind: u8, source: &mut Source<R>, limits: &Limits) -> Result<List, Problem> {
    /// What a node of the newer form is.
    const PLAIN: u64 = 1;
    const PACKED: u64 = 2;
    let (mut list, mut node) = (List::new(), Vec::new());
    for _ in 0..source.number()? {
        let form = if kind == types::LIST_QUICKLIST { None } else { Some(source.number()?) };
        source.string_into(&mut node)?;
        match form {
            None => extend_list(&mut list, Ziplist::open(&node)?, limits)?,
            Some(PACKED) => extend_list(&mut list, Listpack::open(&node)?, limits)?,
            Some(PLAIN) => list.push_back(&node, limits),
            Some(_) => return Err(Problem::Damaged("a node of a list has a form that does not exist")),
        }
    }
    Ok(list)
}

fn list_of<'a>(elements: impl Elements<'a>, limits: &Limits) -> Result<List, Problem> {
    let mut list = List::new();
    extend_list(&mut list, elements, limits)?;
    Ok(list)
}

fn extend_list<'a>(list: &mut List, elements: impl Elements<'a>, limits: &Limits) -> Result<(), Problem> {
    elements.each(|element| {
        list.push_back(element, limits);
        Ok(())
    })
}

fn set_of<'a>(members: impl Elements<'a>, limits: &Limits) -> Result<Set, Problem> {
    let mut set = Set::new();
    members.each(|member| if set.insert(member, limits) { Ok(()) } else { Err(TWICE) })?;
    Ok(set)
}

fn hash_of<'a>(pairs: impl Elements<'a>, limits: &Limits) -> Result<Fields, Problem> {
    let mut fields = Fields::new();
    pairs.each_pair(|field, value| {
        let is_new = value.with(|value| fields.insert(field, value, limits));
        if is_new { Ok(()) } else { Err(TWICE) }
    })?;
    Ok(fields)
}

/// Opens the pairs twice: to count them, and to read them.
fn sorted_set_of<'a, E: Elements<'a>>(open: impl Fn() -> Result<E, Problem>, limits: &Limits) -> Result<Zset, Problem> {
    let mut count = 0;
    open()?.each_pair(|_, _| {
        count += 1;
        Ok(())
    })?;
    let mut members = SortedSetBuilder::new(count, limits);
    open()?.each_pair(|member, score| members.add(member, score_of(score)?))?;
    members.finish()
}

fn score_of(element: Element<'_>) -> Result<f64, Problem> {
    match element {
        // Rounded to the nearest, as its text would be.
        Element::Integer(score) => Ok(score as f64),
        Element::Bytes(text) => parse_score(text),
    }
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
            parse_score(&text)
        }
    }
}

fn parse_score(text: &[u8]) -> Result<f64, Problem> {
    let score = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    score.ok_or(Problem::Damaged("a score is no number"))
}

/// A sorted set in the making. What will be large is large from the start, and what will be small is made at the end, so that the
/// signs of zeros are kept where redis-server keeps them.
struct SortedSetBuilder<'a> {
    /// How many members are still to come.
    left: u64,
    limits: &'a Limits,
    small: Option<Vec<(Box<[u8]>, f64)>>,
    large: Zset,
}

impl<'a> SortedSetBuilder<'a> {
    fn new(count: u64, limits: &'a Limits) -> Self {
        let is_small = count <= limits.zset_max_listpack_entries as u64;
        let mut large = Zset::new();
        if !is_small {
            large.become_large();
        }
        Self { left: count, limits, small: is_small.then(Vec::new), large }
    }

    fn add(&mut self, member: &[u8], score: f64) -> Result<(), Problem> {
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

    fn finish(self) -> Result<Zset, Problem> {
        let Some(members) = self.small else { return Ok(self.large) };
        let set = Zset::from_members(&members, self.limits);
        if set.len() == members.len() { Ok(set) } else { Err(TWICE) }
    }
}
