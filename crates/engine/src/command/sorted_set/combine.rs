//! Several sets at once: unions, intersections and differences, of sorted sets and plain ones.
//!
//! # How it works
//! All keys are looked up first, for their types and for statistics; then they are read where they lie, side by side. The arithmetic
//! is in `value/aggregate.rs`.

use super::{store, write_members};
use crate::command::call::{Access, Call};
use crate::command::error::CommandError;
use crate::command::options::{integer, is};
use crate::entry::EntryRef;
use crate::value::{
    Aggregate, CollectionValue, Operand, Scored, ScoredMember, Set, Zset, diff, inter, inter_count, union,
};

/// What becomes of the members of several sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// What becomes of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Reply,
    Store,
    Count,
}

pub(super) fn zunion(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    reply(call, Operation::Union)
}

pub(super) fn zinter(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    reply(call, Operation::Inter)
}

pub(super) fn zdiff(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    reply(call, Operation::Diff)
}

pub(super) fn zunionstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    combine_and_store(call, Operation::Union)
}

pub(super) fn zinterstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    combine_and_store(call, Operation::Inter)
}

pub(super) fn zdiffstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    combine_and_store(call, Operation::Diff)
}

/// `ZUNION numkeys key [key ..] [WEIGHTS weight ..] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
fn reply(call: &mut Call<'_, '_>, operation: Operation) -> Result<(), CommandError> {
    let (keys, words) = read_keys(call, 1)?;
    let options = CombineOptions::parse(operation, Outcome::Reply, keys.len(), words)?;
    let members = options.combine(operation, &Operands::look_up(&call.keys, keys));
    write_members(&mut call.reply, members.into_iter(), options.with_scores);
    Ok(())
}

/// `ZUNIONSTORE destination numkeys key [key ..] [WEIGHTS weight ..] [AGGREGATE SUM | MIN | MAX]`
fn combine_and_store(call: &mut Call<'_, '_>, operation: Operation) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let (keys, words) = read_keys(call, 2)?;
    let options = CombineOptions::parse(operation, Outcome::Store, keys.len(), words)?;
    let members = options.combine(operation, &Operands::look_up(&call.keys, keys));
    let result = Zset::from_members(&members, &limits);
    drop(members);
    let event = match operation {
        Operation::Union => "zunionstore",
        Operation::Inter => "zinterstore",
        Operation::Diff => "zdiffstore",
    };
    store(call, call.args[1], result, event);
    Ok(())
}

/// `ZINTERCARD numkeys key [key ..] [LIMIT limit]`
pub(super) fn zintercard(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (keys, words) = read_keys(call, 1)?;
    let options = CombineOptions::parse(Operation::Inter, Outcome::Count, keys.len(), words)?;
    let operands = Operands::look_up(&call.keys, keys);
    let count = inter_count(&operands.weighted(&options.weights), options.limit);
    call.reply.integer(count as i64);
    Ok(())
}

type Words<'c> = &'c [&'c [u8]];

/// The keys whose number is at `count_at`, all of the right type, and the words behind them.
fn read_keys<'c>(call: &mut Call<'c, '_>, count_at: usize) -> Result<(Words<'c>, Words<'c>), CommandError> {
    let args = call.args;
    let count = integer(args[count_at])?;
    if count < 1 {
        let text = format!("ERR at least 1 input key is needed for '{}' command", call.row.name);
        return Err(CommandError::Text(text.into()));
    }
    let rest = &args[count_at + 1..];
    let count = usize::try_from(count).ok().filter(|count| *count <= rest.len()).ok_or(CommandError::Syntax)?;
    let (keys, words) = rest.split_at(count);
    for key in keys {
        let slot = call.keys.read(key);
        // Either type will do; of any other one, either says so.
        if slot.value::<Zset>().is_err() {
            slot.value::<Set>()?;
        }
    }
    Ok((keys, words))
}

/// The sets, in the order of their keys. A key that does not exist is an empty set.
struct Operands<'a> {
    sets: Vec<&'a dyn Scored>,
}

/// What absent keys are taken for.
static EMPTY: Zset = Zset::new();

impl<'a> Operands<'a> {
    /// The keys have been read before.
    fn look_up(access: &'a Access<'_, '_>, keys: &[&[u8]]) -> Self {
        let sets = keys.iter().map(|key| -> &'a dyn Scored {
            match access.entry(key) {
                Some(EntryRef::Collection(collection)) => match &collection.value {
                    CollectionValue::SortedSet(set) => set,
                    CollectionValue::Set(set) => set,
                    CollectionValue::Hash(_) | CollectionValue::List(_) => &EMPTY,
                },
                Some(EntryRef::Str(_)) | None => &EMPTY,
            }
        });
        Self { sets: sets.collect() }
    }

    fn weighted(&self, weights: &[f64]) -> Vec<Operand<'a>> {
        let weights = weights.iter().copied().chain(std::iter::repeat(1.0));
        self.sets.iter().zip(weights).map(|(set, weight)| Operand { set: *set, weight }).collect()
    }
}

struct CombineOptions {
    /// One for each key, or none, where all are 1.
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: Option<usize>,
}

impl CombineOptions {
    fn parse(operation: Operation, outcome: Outcome, keys: usize, mut words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options =
            Self { weights: Vec::new(), aggregate: Aggregate::default(), with_scores: false, limit: None };
        let takes_scores = operation != Operation::Diff && outcome != Outcome::Count;
        while let Some((word, rest)) = words.split_first() {
            words = rest;
            if takes_scores && rest.len() >= keys && is(word, "WEIGHTS") {
                let (weights, rest) = rest.split_at(keys);
                options.weights = weights.iter().map(|weight| parse_weight(weight)).collect::<Result<_, _>>()?;
                words = rest;
            } else if takes_scores
                && is(word, "AGGREGATE")
                && let Some((name, rest)) = rest.split_first()
            {
                options.aggregate = parse_aggregate(name)?;
                words = rest;
            } else if outcome == Outcome::Reply && is(word, "WITHSCORES") {
                options.with_scores = true;
            } else if outcome == Outcome::Count
                && is(word, "LIMIT")
                && let Some((limit, rest)) = rest.split_first()
            {
                options.limit = parse_limit(limit)?;
                words = rest;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    fn combine<'a>(&self, operation: Operation, operands: &Operands<'a>) -> Vec<ScoredMember<'a>> {
        match (operation, operands.sets.split_first()) {
            (Operation::Union, _) => union(&operands.weighted(&self.weights), self.aggregate),
            (Operation::Inter, _) => inter(&operands.weighted(&self.weights), self.aggregate),
            (Operation::Diff, Some((first, others))) => diff(*first, others),
            (Operation::Diff, None) => Vec::new(),
        }
    }
}

fn parse_weight(text: &[u8]) -> Result<f64, CommandError> {
    acteon_resp::parse_f64(text).ok_or(CommandError::text("ERR weight value is not a float"))
}

fn parse_aggregate(name: &[u8]) -> Result<Aggregate, CommandError> {
    match name {
        _ if is(name, "SUM") => Ok(Aggregate::Sum),
        _ if is(name, "MIN") => Ok(Aggregate::Min),
        _ if is(name, "MAX") => Ok(Aggregate::Max),
        _ => Err(CommandError::Syntax),
    }
}

/// A limit of 0 is none.
fn parse_limit(text: &[u8]) -> Result<Option<usize>, CommandError> {
    let limit = acteon_resp::parse_i64(text).filter(|limit| *limit >= 0);
    let limit = limit.ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
    Ok((limit > 0).then(|| usize::try_from(limit).unwrap_or(usize::MAX)))
}
