//! Several sets at once: intersections, unions and differences.
//!
//! # How it works
//! An intersection asks all other sets for each member of the smallest one. A union grows set by set; of a difference, what remains
//! of the first set after each further one is all that is carried along.

use std::ops::Deref;

use crate::command::call::{Access, Call};
use crate::command::error::CommandError;
use crate::command::options::is;
use crate::command::row::{Flags, Group, Row};
use crate::entry::EntryRef;
use crate::observe::EventClass;
use crate::typed::Whole;
use crate::value::{CollectionValue, Set};

const READ: &[Flags] = &[Flags::READONLY];
const STORE: &[Flags] = &[Flags::WRITE, Flags::DENYOOM];

pub(super) const SMEMBERS: Row =
    Row::new("smembers", 2, Group::Set, sinter).flags(READ).keys(1, 1, 1).docs("1.0.0", "All members.");
pub(super) const SINTER: Row =
    Row::new("sinter", -2, Group::Set, sinter).flags(READ).keys(1, -1, 1).docs("1.0.0", "The members of all sets.");
pub(super) const SINTERSTORE: Row = Row::new("sinterstore", -3, Group::Set, sinterstore)
    .flags(STORE)
    .keys(1, -1, 1)
    .docs("1.0.0", "Stores the members of all sets.");
pub(super) const SINTERCARD: Row = Row::new("sintercard", -3, Group::Set, sintercard)
    .flags(&[Flags::READONLY, Flags::MOVABLEKEYS])
    .counted_keys(&[], 1)
    .docs("7.0.0", "How many members all sets have in common, up to a limit.");
pub(super) const SUNION: Row =
    Row::new("sunion", -2, Group::Set, sunion).flags(READ).keys(1, -1, 1).docs("1.0.0", "The members of any set.");
pub(super) const SUNIONSTORE: Row = Row::new("sunionstore", -3, Group::Set, sunionstore)
    .flags(STORE)
    .keys(1, -1, 1)
    .docs("1.0.0", "Stores the members of any set.");
pub(super) const SDIFF: Row = Row::new("sdiff", -2, Group::Set, sdiff)
    .flags(READ)
    .keys(1, -1, 1)
    .docs("1.0.0", "The members of the first set that no other one has.");
pub(super) const SDIFFSTORE: Row = Row::new("sdiffstore", -3, Group::Set, sdiffstore)
    .flags(STORE)
    .keys(1, -1, 1)
    .docs("1.0.0", "Stores the members of the first set that no other one has.");

type Combine = fn(&mut Call<'_, '_>, &[&[u8]]) -> Result<Set, CommandError>;

fn sinter(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    reply(call, intersection)
}

fn sunion(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    reply(call, union)
}

fn sdiff(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    reply(call, difference)
}

fn sinterstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    store(call, intersection, "sinterstore")
}

fn sunionstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    store(call, union, "sunionstore")
}

fn sdiffstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    store(call, difference, "sdiffstore")
}

fn reply(call: &mut Call<'_, '_>, combine: Combine) -> Result<(), CommandError> {
    let set = combine(call, &call.args[1..])?;
    call.reply.set(set.len());
    set.iter().for_each(|member| call.reply.bulk(&member));
    Ok(())
}

fn store(call: &mut Call<'_, '_>, combine: Combine, event: &str) -> Result<(), CommandError> {
    let set = combine(call, &call.args[2..])?;
    let len = set.len();
    let mut slot = call.keys.slot(call.args[1]);
    if len > 0 {
        let before = slot.put_whole(Whole::new(set));
        slot.event(EventClass::SET, event);
        call.effects.garbage.extend(before);
        call.effects.changes += 1;
    } else if let Some(before) = slot.take_entry() {
        slot.event(EventClass::GENERIC, "del");
        call.effects.garbage.push(before);
        call.effects.changes += 1;
    }
    call.reply.integer(len as i64);
    Ok(())
}

/// `SINTERCARD numkeys key [key ..] [LIMIT limit]`
fn sintercard(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = acteon_resp::parse_i64(call.args[1]).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0).ok_or(CommandError::text("ERR numkeys should be greater than 0"))?;
    if count > call.args.len() - 2 {
        return Err(CommandError::text("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, words) = call.args[2..].split_at(count);
    let mut limit = 0;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(text) = words.next().filter(|_| is(word, "LIMIT")) else { return Err(CommandError::Syntax) };
        let parsed = acteon_resp::parse_i64(text).and_then(|limit| usize::try_from(limit).ok());
        limit = parsed.ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    let common = in_common(&read_all(&mut call.keys, keys)?).take(limit).count();
    call.reply.integer(common as i64);
    Ok(())
}

fn intersection(call: &mut Call<'_, '_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let limits = call.session.limits;
    let sets = read_all(&mut call.keys, keys)?;
    let mut result = Set::new();
    in_common(&sets).for_each(|member| _ = result.insert(&member, &limits));
    Ok(result)
}

/// The sets, the smallest one first; none if a key does not exist.
fn read_all<'c>(access: &'c mut Access<'_, '_>, keys: &[&[u8]]) -> Result<Vec<&'c Set>, CommandError> {
    // All types are looked at, also behind an empty set.
    for key in keys {
        access.read(key).value::<Set>()?;
    }
    let access = &*access;
    let sets = keys.iter().map(|key| match access.entry(key) {
        Some(EntryRef::Collection(collection)) => match &collection.value {
            CollectionValue::Set(set) => Some(set),
            _ => None,
        },
        _ => None,
    });
    let mut sets: Vec<&Set> = sets.collect::<Option<_>>().unwrap_or_default();
    sets.sort_by_key(|set| set.len());
    Ok(sets)
}

/// The members that all sets have.
fn in_common<'s>(sets: &'s [&'s Set]) -> impl Iterator<Item: Deref<Target = [u8]>> + use<'s> {
    let (smallest, others) = match sets {
        [smallest, others @ ..] => (Some(*smallest), others),
        [] => (None, sets),
    };
    let members = smallest.into_iter().flat_map(|set| set.iter());
    members.filter(|member| others.iter().all(|set| set.contains(member)))
}

fn union(call: &mut Call<'_, '_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let limits = call.session.limits;
    let mut result = Set::new();
    for key in keys {
        let slot = call.keys.read(key);
        for member in slot.value::<Set>()?.iter().flat_map(|set| set.iter()) {
            result.insert(&member, &limits);
        }
    }
    Ok(result)
}

fn difference(call: &mut Call<'_, '_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    for key in keys {
        call.keys.read(key).value::<Set>()?;
    }
    let Some((first, others)) = keys.split_first() else { return Ok(Set::new()) };
    let removes = removes_from_copy(call, keys)?;
    let mut result = copy(call, first)?;
    for key in others {
        if result.is_empty() {
            break;
        }
        let slot = call.keys.peek(key);
        let Some(set) = slot.value::<Set>()? else { continue };
        if removes {
            set.iter().for_each(|member| _ = result.remove(&member));
        } else {
            result = keep(&result, &call.session.limits, |member| !set.contains(member));
        }
    }
    Ok(result)
}

/// Whether a difference is made by removing from a copy of the first set, because that is less work than to ask for each of its
/// members. It shows: a copy that has become a table stays one, also when the members that made it one are gone.
fn removes_from_copy(call: &mut Call<'_, '_>, keys: &[&[u8]]) -> Result<bool, CommandError> {
    let (mut questions, mut members) = (0, 0);
    let mut first_len = None;
    for key in keys {
        let slot = call.keys.peek(key);
        let Some(len) = slot.value::<Set>()?.map(Set::len) else { continue };
        questions += *first_len.get_or_insert(len);
        members += len;
    }
    // Questions come to an end with the first set that has the member.
    Ok(questions / 2 > members)
}

fn copy(call: &mut Call<'_, '_>, key: &[u8]) -> Result<Set, CommandError> {
    let slot = call.keys.peek(key);
    Ok(slot.value::<Set>()?.map_or_else(Set::new, |set| keep(set, &call.session.limits, |_| true)))
}

/// Built anew, so that its encoding is that of what stays.
fn keep(set: &Set, limits: &crate::value::Limits, is_kept: impl Fn(&[u8]) -> bool) -> Set {
    let mut kept = Set::new();
    for member in set.iter().filter(|member| is_kept(member)) {
        kept.insert(&member, limits);
    }
    kept
}
