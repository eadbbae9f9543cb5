//! Sorted sets: members with scores.
//!
//! # Guarantees
//! A sorted set without members does not exist. Bounds and options are read before any key is touched, so a command that is refused for them
//! has changed nothing.
//!
//! # How it works
//! Here is what changes and asks about single members, and the table of all commands of the family; ranges, unions and their kin, and
//! what takes members out have files of their own. `value/zset.rs` does the ordering.

mod bounds;
mod combine;
mod pop;
mod random;
mod range;

use acteon_resp::{Protocol, ReplyWriter, format_g17};

use self::bounds::{lex_range, score_range};
use super::call::Call;
use super::error::CommandError;
use super::options::{float, integer, is};
use super::row::{Flags, Group, Row};
use super::scan::{ScanOptions, cursor, write_page};
use crate::change::Edit;
use crate::observe::EventClass;
use crate::slot::Slot;
use crate::typed::Whole;
use crate::value::{Inserted, Limits, Zset, index_range};

const SORTED_SET: EventClass = EventClass::SORTED_SET;

/// Which members ZADD may touch, and what it tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddOptions {
    /// NX: members that are there stay as they are.
    only_new: bool,
    /// XX: members that are not there are not added.
    only_present: bool,
    /// GT: no score goes down.
    only_greater: bool,
    /// LT: no score goes up.
    only_less: bool,
    /// CH: the reply counts changed scores as well.
    counts_changed: bool,
    /// INCR: the score is added to that of the member.
    increments: bool,
}

impl AddOptions {
    /// NX, XX and CH, which GEOADD takes as well.
    pub(super) fn of_places(only_new: bool, only_present: bool, counts_changed: bool) -> Self {
        Self { only_new, only_present, counts_changed, ..Self::default() }
    }

    /// Reads options up to the first word that is none; returns what follows.
    fn parse<'w, 'a>(mut self, mut words: &'w [&'a [u8]]) -> (Self, &'w [&'a [u8]]) {
        while let Some((word, rest)) = words.split_first() {
            let option = match *word {
                word if is(word, "NX") => &mut self.only_new,
                word if is(word, "XX") => &mut self.only_present,
                word if is(word, "GT") => &mut self.only_greater,
                word if is(word, "LT") => &mut self.only_less,
                word if is(word, "CH") => &mut self.counts_changed,
                word if is(word, "INCR") => &mut self.increments,
                _ => break,
            };
            *option = true;
            words = rest;
        }
        (self, words)
    }

    fn check(&self, members: usize) -> Result<(), CommandError> {
        if self.only_new && self.only_present {
            return Err(CommandError::text("ERR XX and NX options at the same time are not compatible"));
        }
        if usize::from(self.only_new) + usize::from(self.only_greater) + usize::from(self.only_less) > 1 {
            return Err(CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        if self.increments && members > 1 {
            return Err(CommandError::text("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The score that `member` is to get; `None` leaves it as it is.
    fn new_score(&self, before: Option<f64>, score: f64) -> Result<Option<f64>, CommandError> {
        let Some(before) = before else { return Ok((!self.only_present).then_some(score)) };
        if self.only_new {
            return Ok(None);
        }
        let score = if self.increments { before + score } else { score };
        if score.is_nan() {
            return Err(CommandError::text("ERR resulting score is not a number (NaN)"));
        }
        let is_refused = (self.only_greater && score <= before) || (self.only_less && score >= before);
        Ok((!is_refused).then_some(score))
    }
}

/// What an addition did.
#[derive(Default)]
struct Added {
    new: usize,
    changed: usize,
    /// The score of the last member that was added or not left alone.
    score: Option<f64>,
}

fn zadd(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    parse_and_add(call, AddOptions::default())
}

fn zincrby(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    parse_and_add(call, AddOptions { increments: true, ..AddOptions::default() })
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ..]`
fn parse_and_add(call: &mut Call<'_, '_>, options: AddOptions) -> Result<(), CommandError> {
    let (options, pairs) = options.parse(&call.args[2..]);
    let (pairs, rest) = pairs.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(CommandError::Syntax);
    }
    options.check(pairs.len())?;
    let members: Result<Vec<_>, CommandError> =
        pairs.iter().map(|[score, member]| Ok((float(score)?, *member))).collect();
    add(call, options, &members?)
}

/// Adds members to the key of the command, and replies.
pub(super) fn add(call: &mut Call<'_, '_>, options: AddOptions, members: &[(f64, &[u8])]) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let added = add_to(&mut slot, options, members, &limits)?;
    if added.new + added.changed > 0 {
        slot.notify(SORTED_SET, if options.increments { "zincr" } else { "zadd" });
        call.effects.changes += (added.new + added.changed) as u64;
    }
    match (options.increments, added.score) {
        (true, Some(score)) => call.reply.double(score),
        (true, None) => call.reply.null(),
        (false, _) if options.counts_changed => call.reply.integer((added.new + added.changed) as i64),
        (false, _) => call.reply.integer(added.new as i64),
    }
    Ok(())
}

fn add_to(
    slot: &mut Slot<'_>,
    options: AddOptions,
    members: &[(f64, &[u8])],
    limits: &Limits,
) -> Result<Added, CommandError> {
    let mut added = Added::default();
    if slot.value::<Zset>()?.is_none() && options.only_present {
        return Ok(added);
    }
    let mut set = slot.edit_or_create::<Zset>()?;
    for (score, member) in members {
        let before = set.score(member);
        let Some(score) = options.new_score(before, *score)? else { continue };
        added.score = Some(score);
        match set.insert(member, score, limits) {
            Inserted::Added => added.new += 1,
            Inserted::Updated(_) => added.changed += 1,
            Inserted::Same => {}
        }
    }
    Ok(added)
}

fn zrem(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let members = &call.args[2..];
    remove(call, "zrem", |set| members.iter().filter(|member| set.remove(member).is_some()).count())
}

fn zremrangebyrank(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (start, stop) = (integer(call.args[2])?, integer(call.args[3])?);
    remove(call, "zremrangebyrank", |set| set.remove_range(index_range(start, stop, set.len())))
}

fn zremrangebyscore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let scores = score_range(call.args[2], call.args[3])?;
    remove(call, "zremrangebyscore", |set| set.remove_range_by_score(&scores))
}

fn zremrangebylex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let names = lex_range(call.args[2], call.args[3])?;
    remove(call, "zremrangebylex", |set| set.remove_range_by_lex(&names))
}

/// Lets `take` remove members, which it counts, and replies their number.
fn remove(
    call: &mut Call<'_, '_>,
    event: &str,
    take: impl FnOnce(&mut Edit<'_, Zset>) -> usize,
) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let removed = match slot.edit::<Zset>()? {
        Some(mut set) => take(&mut set),
        None => 0,
    };
    if removed > 0 {
        slot.notify(SORTED_SET, event);
        slot.drop_if_empty();
        call.effects.changes += removed as u64;
    }
    call.reply.integer(removed as i64);
    Ok(())
}

fn zscore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    write_score(&mut call.reply, slot.value::<Zset>()?.and_then(|set| set.score(call.args[2])));
    Ok(())
}

fn zmscore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let set = slot.value::<Zset>()?;
    let members = &call.args[2..];
    call.reply.array(members.len());
    for member in members {
        write_score(&mut call.reply, set.and_then(|set| set.score(member)));
    }
    Ok(())
}

fn write_score(reply: &mut ReplyWriter<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zrank(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    write_rank(call, |rank, _| rank)
}

fn zrevrank(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    write_rank(call, |rank, len| len - 1 - rank)
}

fn write_rank(call: &mut Call<'_, '_>, count: fn(usize, usize) -> usize) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let rank = slot.value::<Zset>()?.and_then(|set| Some(count(set.rank(call.args[2])?, set.len())));
    match rank {
        Some(rank) => call.reply.integer(rank as i64),
        None => call.reply.null(),
    }
    Ok(())
}

fn zcard(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    count(call, Zset::len)
}

fn zcount(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let scores = score_range(call.args[2], call.args[3])?;
    count(call, |set| set.ranks_by_score(&scores).len())
}

fn zlexcount(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let names = lex_range(call.args[2], call.args[3])?;
    count(call, |set| set.ranks_by_lex(&names).len())
}

fn count(call: &mut Call<'_, '_>, count: impl FnOnce(&Zset) -> usize) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    call.reply.integer(slot.value::<Zset>()?.map_or(0, count) as i64);
    Ok(())
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`; scores are strings in either protocol.
fn zscan(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let cursor = cursor(call.args[2])?;
    let slot = call.keys.read(call.args[1]);
    // Redis looks at the options only if there is something to scan.
    let Some(set) = slot.value::<Zset>()? else {
        write_page(&mut call.reply, 0, &[]);
        return Ok(());
    };
    let options = ScanOptions::parse(&call.args[3..], false)?;
    let mut elements = Vec::new();
    let next = set.scan(cursor, options.count, |member, score| {
        if options.shows(member) {
            let mut text = Vec::new();
            format_g17(score, &mut text);
            elements.extend([member.to_vec(), text]);
        }
    });
    write_page(&mut call.reply, next, &elements);
    Ok(())
}

/// Writes an array of members, each with its score if asked for: pairs in RESP3, flat in RESP2.
fn write_members<M: AsRef<[u8]>>(
    reply: &mut ReplyWriter<'_>,
    members: impl ExactSizeIterator<Item = (M, f64)>,
    with_scores: bool,
) {
    let is_nested = with_scores && reply.protocol() == Protocol::Resp3;
    let width = if with_scores && !is_nested { 2 } else { 1 };
    reply.array(members.len() * width);
    for (member, score) in members {
        if is_nested {
            reply.array(2);
        }
        reply.bulk(member.as_ref());
        if with_scores {
            reply.double(score);
        }
    }
}

/// Makes `key` hold `set` whatever it held before, or nothing if the set is empty, and replies the number of members.
pub(super) fn store(call: &mut Call<'_, '_>, key: &[u8], set: Zset, event: &str) {
    let len = set.len();
    let mut slot = call.keys.slot(key);
    if len > 0 {
        let before = slot.put_whole(Whole::new(set));
        slot.event(SORTED_SET, event);
        call.effects.garbage.extend(before);
        call.effects.changes += 1;
    } else if let Some(before) = slot.take_entry() {
        slot.event(EventClass::GENERIC, "del");
        call.effects.garbage.push(before);
        call.effects.changes += 1;
    }
    call.reply.integer(len as i64);
}

const GROWING: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::FAST];
const WRITE: &[Flags] = &[Flags::WRITE];
const WRITE_FAST: &[Flags] = &[Flags::WRITE, Flags::FAST];
const READ: &[Flags] = &[Flags::READONLY];
const READ_FAST: &[Flags] = &[Flags::READONLY, Flags::FAST];
const READ_MANY: &[Flags] = &[Flags::READONLY, Flags::MOVABLEKEYS];
const STORE: &[Flags] = &[Flags::WRITE, Flags::DENYOOM];
const STORE_MANY: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::MOVABLEKEYS];
const WAITING: &[Flags] = &[Flags::WRITE, Flags::NOSCRIPT, Flags::BLOCKING, Flags::FAST];

const fn row(name: &'static str, arity: i32, handler: super::row::Handler) -> Row {
    Row::new(name, arity, Group::SortedSet, handler)
}

pub(super) const ROWS: &[Row] = &[
    row("zadd", -4, zadd)
        .flags(GROWING)
        .keys(1, 1, 1)
        .docs("1.2.0", "Adds members with their scores, or gives members other scores, under conditions."),
    row("zincrby", 4, zincrby).flags(GROWING).keys(1, 1, 1).docs("1.2.0", "Adds to the score of a member."),
    row("zrem", -3, zrem).flags(WRITE_FAST).keys(1, 1, 1).docs("1.2.0", "Removes members."),
    row("zscore", 3, zscore).flags(READ_FAST).keys(1, 1, 1).docs("1.2.0", "The score of a member."),
    row("zmscore", -3, zmscore).flags(READ_FAST).keys(1, 1, 1).docs("6.2.0", "The scores of members."),
    row("zcard", 2, zcard).flags(READ_FAST).keys(1, 1, 1).docs("1.2.0", "The number of members."),
    row("zcount", 4, zcount)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "How many members have a score within a range."),
    row("zlexcount", 4, zlexcount)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("2.8.9", "How many members lie within a range of names."),
    row("zrank", 3, zrank).flags(READ_FAST).keys(1, 1, 1).docs("2.0.0", "How many members stand before a member."),
    row("zrevrank", 3, zrevrank)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "How many members stand behind a member."),
    row("zrange", -4, range::zrange)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("1.2.0", "The members within a range of ranks, scores or names, from either end."),
    row("zrangestore", -5, range::zrangestore)
        .flags(STORE)
        .keys(1, 2, 1)
        .docs("6.2.0", "Stores the members within a range under another key."),
    row("zrangebyscore", -4, range::zrangebyscore)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("1.0.5", "The members with a score within a range, lowest first."),
    row("zrevrangebyscore", -4, range::zrevrangebyscore)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("2.2.0", "The members with a score within a range, highest first."),
    row("zrangebylex", -4, range::zrangebylex)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("2.8.9", "The members within a range of names, lowest first."),
    row("zrevrangebylex", -4, range::zrevrangebylex)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("2.8.9", "The members within a range of names, highest first."),
    row("zrevrange", -4, range::zrevrange)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("1.2.0", "The members within a range of ranks, highest first."),
    row("zremrangebyrank", 4, zremrangebyrank)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("2.0.0", "Removes the members within a range of ranks."),
    row("zremrangebyscore", 4, zremrangebyscore)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("1.2.0", "Removes the members with a score within a range."),
    row("zremrangebylex", 4, zremrangebylex)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("2.8.9", "Removes the members within a range of names."),
    row("zunion", -3, combine::zunion)
        .flags(READ_MANY)
        .counted_keys(&[], 1)
        .docs("6.2.0", "The members of any of several sets, their scores combined."),
    row("zinter", -3, combine::zinter)
        .flags(READ_MANY)
        .counted_keys(&[], 1)
        .docs("6.2.0", "The members of all of several sets, their scores combined."),
    row("zdiff", -3, combine::zdiff)
        .flags(READ_MANY)
        .counted_keys(&[], 1)
        .docs("6.2.0", "The members of the first set that no other one has."),
    row("zunionstore", -4, combine::zunionstore)
        .flags(STORE_MANY)
        .counted_keys(&[1], 2)
        .docs("2.0.0", "Stores the members of any of several sets, their scores combined."),
    row("zinterstore", -4, combine::zinterstore)
        .flags(STORE_MANY)
        .counted_keys(&[1], 2)
        .docs("2.0.0", "Stores the members of all of several sets, their scores combined."),
    row("zdiffstore", -4, combine::zdiffstore)
        .flags(STORE_MANY)
        .counted_keys(&[1], 2)
        .docs("6.2.0", "Stores the members of the first set that no other one has."),
    row("zintercard", -3, combine::zintercard)
        .flags(READ_MANY)
        .counted_keys(&[], 1)
        .docs("7.0.0", "How many members all sets have in common, up to a limit."),
    row("zpopmin", -2, pop::zpopmin)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("5.0.0", "Takes out the members with the lowest scores."),
    row("zpopmax", -2, pop::zpopmax)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("5.0.0", "Takes out the members with the highest scores."),
    row("zmpop", -4, pop::zmpop)
        .flags(&[Flags::WRITE, Flags::MOVABLEKEYS])
        .counted_keys(&[], 1)
        .docs("7.0.0", "Takes members out of the first of several sorted sets that exists."),
    row("bzpopmin", -3, pop::bzpopmin)
        .flags(WAITING)
        .keys(1, -2, 1)
        .docs("5.0.0", "Takes out the member with the lowest score, or waits for one."),
    row("bzpopmax", -3, pop::bzpopmax)
        .flags(WAITING)
        .keys(1, -2, 1)
        .docs("5.0.0", "Takes out the member with the highest score, or waits for one."),
    row("bzmpop", -5, pop::bzmpop)
        .flags(&[Flags::WRITE, Flags::BLOCKING, Flags::MOVABLEKEYS])
        .counted_keys(&[], 2)
        .docs("7.0.0", "Takes members out of the first of several sorted sets that exists, or waits for one."),
    row("zrandmember", -2, random::zrandmember).flags(READ).keys(1, 1, 1).docs("6.2.0", "Members at random."),
    row("zscan", -3, zscan).flags(READ).keys(1, 1, 1).docs("2.8.0", "Walks over the members, page by page."),
];
