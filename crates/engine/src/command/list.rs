//! Lists: pushing, popping, moving and finding elements, and waiting for some.
//!
//! # Guarantees
//! A list without elements does not exist. A command that waits (`BLPOP`, ..) takes the first element that others leave for it, in the order
//! in which the waiting came; see `instance/blocked.rs`.

use std::ops::Range;

use acteon_resp::ReplyWriter;

use super::call::Call;
use super::error::CommandError;
use super::options::{integer, is, timeout};
use super::row::{Flags, Group, Row};
use crate::change::Edit;
use crate::error::EngineError;
use crate::observe::EventClass;
use crate::slot::Slot;
use crate::value::{Limits, List, Place, index_range};

const LIST: EventClass = EventClass::LIST;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The head, which has index 0.
    Left,
    /// The tail, which has index -1.
    Right,
}

impl End {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word {
            _ if is(word, "LEFT") => Ok(Self::Left),
            _ if is(word, "RIGHT") => Ok(Self::Right),
            _ => Err(CommandError::Syntax),
        }
    }

    fn first(self, list: &List) -> Option<&[u8]> {
        match self {
            Self::Left => list.front(),
            Self::Right => list.back(),
        }
    }

    fn push(self, list: &mut Edit<'_, List>, element: &[u8], limits: &Limits) {
        match self {
            Self::Left => list.push_front(element, limits),
            Self::Right => list.push_back(element, limits),
        }
    }

    fn pop(self, list: &mut Edit<'_, List>, read: impl FnOnce(&[u8])) {
        match self {
            Self::Left => list.pop_front_with(read),
            Self::Right => list.pop_back_with(read),
        };
    }

    fn notify_push(self, slot: &mut Slot<'_>) {
        slot.notify(LIST, if self == Self::Left { "lpush" } else { "rpush" });
    }

    fn notify_pop(self, slot: &mut Slot<'_>) {
        slot.notify(LIST, if self == Self::Left { "lpop" } else { "rpop" });
        slot.drop_if_empty();
    }
}

fn lpush(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    push(call, End::Left)
}

fn rpush(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    push(call, End::Right)
}

fn push(call: &mut Call<'_, '_>, end: End) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let elements = &call.args[2..];
    let mut slot = call.keys.slot(call.args[1]);
    let mut list = slot.edit_or_create::<List>()?;
    elements.iter().for_each(|element| end.push(&mut list, element, &limits));
    call.reply.integer(list.len() as i64);
    drop(list);
    end.notify_push(&mut slot);
    call.effects.changes += elements.len() as u64;
    Ok(())
}

fn lpushx(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    push_if_exists(call, End::Left)
}

fn rpushx(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    push_if_exists(call, End::Right)
}

fn push_if_exists(call: &mut Call<'_, '_>, end: End) -> Result<(), CommandError> {
    let slot = call.keys.slot(call.args[1]);
    if slot.value::<List>()?.is_none() {
        call.reply.integer(0);
        return Ok(());
    }
    drop(slot);
    push(call, end)
}

fn lpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop(call, End::Left)
}

fn rpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop(call, End::Right)
}

/// `LPOP key [count]`: with a count the reply is an array, also of one.
fn pop(call: &mut Call<'_, '_>, end: End) -> Result<(), CommandError> {
    let count = match call.args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(CommandError::wrong_arity(call.row.name)),
    };
    let mut slot = call.keys.slot(call.args[1]);
    let popped = match count {
        None => pop_one(&mut slot, end, &mut call.reply)?,
        Some(count) => pop_many(&mut slot, end, count, &mut call.reply)?,
    };
    match (popped, count) {
        (Some(popped), _) => call.effects.changes += popped as u64,
        (None, None) => call.reply.null(),
        (None, Some(_)) => call.reply.null_array(),
    }
    Ok(())
}

fn positive(text: &[u8]) -> Result<usize, CommandError> {
    let count = acteon_resp::parse_i64(text).and_then(|count| usize::try_from(count).ok());
    count.ok_or(CommandError::text("ERR value is out of range, must be positive"))
}

/// Pops an element and replies with it. Returns how many there were; without a list there is no reply.
fn pop_one(slot: &mut Slot<'_>, end: End, reply: &mut ReplyWriter<'_>) -> Result<Option<usize>, EngineError> {
    let Some(mut list) = slot.edit::<List>()? else { return Ok(None) };
    end.pop(&mut list, |element| reply.bulk(element));
    drop(list);
    end.notify_pop(slot);
    Ok(Some(1))
}

/// The same with up to `count` elements, as an array.
fn pop_many(
    slot: &mut Slot<'_>,
    end: End,
    count: usize,
    reply: &mut ReplyWriter<'_>,
) -> Result<Option<usize>, EngineError> {
    let Some(mut list) = slot.edit::<List>()? else { return Ok(None) };
    let count = count.min(list.len());
    reply.array(count);
    for _ in 0..count {
        end.pop(&mut list, |element| reply.bulk(element));
    }
    drop(list);
    if count > 0 {
        end.notify_pop(slot);
    }
    Ok(Some(count))
}

fn llen(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    call.reply.integer(slot.value::<List>()?.map_or(0, List::len) as i64);
    Ok(())
}

fn lindex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    // The index of an absent list is not looked at, as in Redis.
    let element = match slot.value::<List>()? {
        Some(list) => list.get(integer(call.args[2])?),
        None => None,
    };
    match element {
        Some(element) => call.reply.bulk(element),
        None => call.reply.null(),
    }
    Ok(())
}

fn lset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let Some(mut list) = slot.edit::<List>()? else { return Err(CommandError::NoSuchKey) };
    if !list.set(integer(call.args[2])?, call.args[3], &limits) {
        return Err(CommandError::IndexOutOfRange);
    }
    drop(list);
    slot.notify(LIST, "lset");
    call.reply.simple("OK");
    call.effects.changes += 1;
    Ok(())
}

/// `LINSERT key BEFORE | AFTER pivot element`: replies with the new length, -1 without the pivot, 0 without the list.
fn linsert(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let place = match call.args[2] {
        word if is(word, "AFTER") => Place::After,
        word if is(word, "BEFORE") => Place::Before,
        _ => return Err(CommandError::Syntax),
    };
    let mut slot = call.keys.slot(call.args[1]);
    let Some(mut list) = slot.edit::<List>()? else {
        call.reply.integer(0);
        return Ok(());
    };
    if list.insert(place, call.args[3], call.args[4], &limits) {
        call.reply.integer(list.len() as i64);
        drop(list);
        slot.notify(LIST, "linsert");
        call.effects.changes += 1;
    } else {
        call.reply.integer(-1);
    }
    Ok(())
}

fn lrem(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = integer(call.args[2])?;
    let mut slot = call.keys.slot(call.args[1]);
    let removed = slot.edit::<List>()?.map_or(0, |mut list| list.remove(count, call.args[3]));
    if removed > 0 {
        slot.notify(LIST, "lrem");
        slot.drop_if_empty();
        call.effects.changes += removed as u64;
    }
    call.reply.integer(removed as i64);
    Ok(())
}

/// Counts as a change even if it removes nothing, as in Redis.
fn ltrim(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (start, stop) = (integer(call.args[2])?, integer(call.args[3])?);
    let mut slot = call.keys.slot(call.args[1]);
    if let Some(len) = slot.value::<List>()?.map(List::len) {
        let keep = index_range(start, stop, len);
        call.effects.changes += (len - keep.len()) as u64;
        if keep.is_empty() {
            slot.event(LIST, "ltrim");
            call.effects.garbage.extend(slot.take_entry());
            slot.event(EventClass::GENERIC, "del");
        } else {
            if let Some(mut list) = slot.edit::<List>()? {
                list.trim(keep);
            }
            slot.notify(LIST, "ltrim");
        }
    }
    call.reply.simple("OK");
    Ok(())
}

fn lrange(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (start, stop) = (integer(call.args[2])?, integer(call.args[3])?);
    let slot = call.keys.read(call.args[1]);
    let Some(list) = slot.value::<List>()? else {
        call.reply.array(0);
        return Ok(());
    };
    let elements = list.range(index_range(start, stop, list.len()));
    call.reply.array(elements.len());
    elements.for_each(|element| call.reply.bulk(element));
    Ok(())
}

/// `LPOS key element [RANK rank] [COUNT matches] [MAXLEN len]`: with COUNT the reply is an array.
fn lpos(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let search = Search::parse(&call.args[3..])?;
    let slot = call.keys.read(call.args[1]);
    let list = slot.value::<List>()?;
    let mut found = list.map(|list| search.run(list, call.args[2])).into_iter().flatten();
    if search.count.is_some() {
        let array = call.reply.array_deferred();
        let mut count = 0;
        for index in found {
            call.reply.integer(index);
            count += 1;
        }
        call.reply.close(array, count);
    } else {
        match found.next() {
            Some(index) => call.reply.integer(index),
            None => call.reply.null(),
        }
    }
    Ok(())
}

/// What LPOS looks for.
struct Search {
    from_tail: bool,
    /// The number of the first match that counts.
    rank: i64,
    /// 0 is all.
    count: Option<usize>,
    /// The most elements to look at; 0 is all.
    visits_max: usize,
}

impl Search {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        const ZERO_RANK: CommandError = CommandError::text(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
        );
        let mut search = Self { from_tail: false, rank: 1, count: None, visits_max: 0 };
        for pair in words.chunks(2) {
            let [word, value] = pair else { return Err(CommandError::Syntax) };
            if is(word, "RANK") {
                let rank = integer(value)?;
                if rank == 0 {
                    return Err(ZERO_RANK);
                }
                // The lowest rank stays negative, which makes the first match count, as in Redis.
                (search.from_tail, search.rank) = (rank < 0, if rank < 0 { rank.wrapping_neg() } else { rank });
            } else if is(word, "COUNT") {
                search.count = Some(not_negative(value, CommandError::text("ERR COUNT can't be negative"))?);
            } else if is(word, "MAXLEN") {
                search.visits_max = not_negative(value, CommandError::text("ERR MAXLEN can't be negative"))?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(search)
    }

    /// The indexes of the matches.
    fn run<'l>(&self, list: &'l List, element: &'l [u8]) -> Box<dyn Iterator<Item = i64> + 'l> {
        let all_if_zero = |number: usize| if number == 0 { usize::MAX } else { number };
        let visits_max = all_if_zero(self.visits_max);
        let skipped = usize::try_from(self.rank.saturating_sub(1)).unwrap_or(0);
        let count = all_if_zero(self.count.unwrap_or(1));
        let matches = move |(index, candidate): (usize, &[u8])| (candidate == element).then_some(index as i64);
        if self.from_tail {
            let last = list.len() as i64 - 1;
            let found = list.iter().rev().take(visits_max).enumerate().filter_map(matches);
            Box::new(found.skip(skipped).take(count).map(move |distance| last - distance))
        } else {
            Box::new(list.iter().take(visits_max).enumerate().filter_map(matches).skip(skipped).take(count))
        }
    }
}

fn not_negative(text: &[u8], error: CommandError) -> Result<usize, CommandError> {
    acteon_resp::parse_i64(text).and_then(|number| usize::try_from(number).ok()).ok_or(error)
}

fn lmove(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let ends = Ends { from: End::parse(call.args[3])?, to: End::parse(call.args[4])? };
    move_or_null(call, ends)
}

fn rpoplpush(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    move_or_null(call, Ends { from: End::Right, to: End::Left })
}

fn move_or_null(call: &mut Call<'_, '_>, ends: Ends) -> Result<(), CommandError> {
    if !move_element(call, ends)? {
        call.reply.null();
    }
    Ok(())
}

/// Where an element is taken, and where it is put.
#[derive(Clone, Copy)]
struct Ends {
    from: End,
    to: End,
}

/// Moves an element from the first key to the second one, which may be the same, and replies with it. Returns whether there was one.
fn move_element(call: &mut Call<'_, '_>, ends: Ends) -> Result<bool, CommandError> {
    let limits = call.session.limits;
    let (source_key, destination_key) = (call.args[1], call.args[2]);
    let source = call.keys.slot(source_key);
    let element = source.value::<List>()?.and_then(|list| ends.from.first(list)).map(<[u8]>::to_vec);
    drop(source);
    let Some(element) = element else { return Ok(false) };

    // Within one list the copy must not be what is popped.
    if source_key == destination_key {
        let mut slot = call.keys.slot(source_key);
        if let Some(mut list) = slot.edit::<List>()? {
            ends.from.pop(&mut list, |_| ());
            ends.to.push(&mut list, &element, &limits);
        }
        ends.to.notify_push(&mut slot);
        ends.from.notify_pop(&mut slot);
    } else {
        let mut destination = call.keys.slot(destination_key);
        ends.to.push(&mut destination.edit_or_create::<List>()?, &element, &limits);
        ends.to.notify_push(&mut destination);
        drop(destination);
        let mut source = call.keys.slot(source_key);
        if let Some(mut list) = source.edit::<List>()? {
            ends.from.pop(&mut list, |_| ());
        }
        ends.from.notify_pop(&mut source);
    }
    call.reply.bulk(&element);
    call.effects.changes += 1;
    Ok(true)
}

fn lmpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let pops = MultiPop::parse(call.args, 1)?;
    if !pops.run(call)? {
        call.reply.null_array();
    }
    Ok(())
}

/// `numkeys key .. LEFT | RIGHT [COUNT count]`
struct MultiPop {
    /// Positions among the arguments.
    keys: Range<usize>,
    end: End,
    count: usize,
}

impl MultiPop {
    fn parse(args: &[&[u8]], numkeys_at: usize) -> Result<Self, CommandError> {
        const NUMKEYS: CommandError = CommandError::text("ERR numkeys should be greater than 0");
        const COUNT: CommandError = CommandError::text("ERR count should be greater than 0");
        let keys_start = numkeys_at + 1;
        let end_at = at_least_one(args[numkeys_at], NUMKEYS)?.saturating_add(keys_start);
        let end = End::parse(args.get(end_at).ok_or(CommandError::Syntax)?)?;
        let count = match &args[end_at + 1..] {
            [] => 1,
            [word, count] if is(word, "COUNT") => at_least_one(count, COUNT)?,
            // A wrong count is told before what follows it.
            [word, count, ..] if is(word, "COUNT") => {
                at_least_one(count, COUNT)?;
                return Err(CommandError::Syntax);
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Self { keys: keys_start..end_at, end, count })
    }

    /// Pops from the first list that there is, and replies with its key and the elements. Returns whether there was one.
    fn run(&self, call: &mut Call<'_, '_>) -> Result<bool, CommandError> {
        for key in call.candidates(self.keys.clone()) {
            let mut slot = call.keys.slot(key);
            if slot.value::<List>()?.is_none() {
                continue;
            }
            call.reply.array(2);
            call.reply.bulk(key);
            let popped = pop_many(&mut slot, self.end, self.count, &mut call.reply)?;
            call.effects.changes += popped.unwrap_or(0) as u64;
            return Ok(true);
        }
        Ok(false)
    }
}

fn at_least_one(text: &[u8], error: CommandError) -> Result<usize, CommandError> {
    not_negative(text, error.clone()).and_then(|number| if number == 0 { Err(error) } else { Ok(number) })
}

fn blpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop_or_wait(call, End::Left)
}

fn brpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop_or_wait(call, End::Right)
}

/// `BLPOP key .. timeout`
fn pop_or_wait(call: &mut Call<'_, '_>, end: End) -> Result<(), CommandError> {
    let keys = 1..call.args.len() - 1;
    let until_us = timeout(call.args[keys.end], call.keys.now_us)?;
    for key in call.candidates(keys.clone()) {
        let mut slot = call.keys.slot(key);
        if slot.value::<List>()?.is_none() {
            continue;
        }
        call.reply.array(2);
        call.reply.bulk(key);
        call.effects.changes += pop_one(&mut slot, end, &mut call.reply)?.unwrap_or(0) as u64;
        return Ok(());
    }
    wait(call, keys, until_us)
}

fn blmpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let pops = MultiPop::parse(call.args, 2)?;
    let until_us = timeout(call.args[1], call.keys.now_us)?;
    if pops.run(call)? { Ok(()) } else { wait(call, pops.keys, until_us) }
}

fn blmove(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let ends = Ends { from: End::parse(call.args[3])?, to: End::parse(call.args[4])? };
    move_or_wait(call, ends, call.args[5])
}

fn brpoplpush(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    move_or_wait(call, Ends { from: End::Right, to: End::Left }, call.args[3])
}

fn move_or_wait(call: &mut Call<'_, '_>, ends: Ends, until: &[u8]) -> Result<(), CommandError> {
    let until_us = timeout(until, call.keys.now_us)?;
    if move_element(call, ends)? {
        return Ok(());
    }
    if call.deny_blocking {
        // Not the reply of a wait that ended, which is a null array.
        call.reply.null();
        return Ok(());
    }
    wait(call, 1..2, until_us)
}

fn wait(call: &mut Call<'_, '_>, keys: Range<usize>, until_us: Option<u64>) -> Result<(), CommandError> {
    let keys = call.args[keys].iter().map(|key| Box::from(*key)).collect();
    call.block(keys, until_us, |reply| reply.null_array())
}

const FAST_WRITE: &[Flags] = &[Flags::WRITE, Flags::FAST];
const FAST_GROWING: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::FAST];
const WRITE: &[Flags] = &[Flags::WRITE];
const GROWING: &[Flags] = &[Flags::WRITE, Flags::DENYOOM];
const READ: &[Flags] = &[Flags::READONLY];
const WAITING: &[Flags] = &[Flags::WRITE, Flags::NOSCRIPT, Flags::BLOCKING];
const WAITING_GROWING: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::NOSCRIPT, Flags::BLOCKING];

pub(super) const ROWS: &[Row] = &[
    Row::new("lpush", -3, Group::List, lpush)
        .flags(FAST_GROWING)
        .keys(1, 1, 1)
        .docs("1.0.0", "Puts elements before the head of a list, one after the other."),
    Row::new("rpush", -3, Group::List, rpush)
        .flags(FAST_GROWING)
        .keys(1, 1, 1)
        .docs("1.0.0", "Puts elements behind the tail of a list."),
    Row::new("lpushx", -3, Group::List, lpushx)
        .flags(FAST_GROWING)
        .keys(1, 1, 1)
        .docs("2.2.0", "Puts elements before the head of a list that exists."),
    Row::new("rpushx", -3, Group::List, rpushx)
        .flags(FAST_GROWING)
        .keys(1, 1, 1)
        .docs("2.2.0", "Puts elements behind the tail of a list that exists."),
    Row::new("lpop", -2, Group::List, lpop)
        .flags(FAST_WRITE)
        .keys(1, 1, 1)
        .docs("1.0.0", "Takes elements from the head of a list."),
    Row::new("rpop", -2, Group::List, rpop)
        .flags(FAST_WRITE)
        .keys(1, 1, 1)
        .docs("1.0.0", "Takes elements from the tail of a list."),
    Row::new("llen", 2, Group::List, llen)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, 1, 1)
        .docs("1.0.0", "The number of elements of a list."),
    Row::new("lindex", 3, Group::List, lindex)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("1.0.0", "The element of a list at an index."),
    Row::new("lset", 4, Group::List, lset)
        .flags(GROWING)
        .keys(1, 1, 1)
        .docs("1.0.0", "Replaces the element of a list at an index."),
    Row::new("linsert", 5, Group::List, linsert)
        .flags(GROWING)
        .keys(1, 1, 1)
        .docs("2.2.0", "Puts an element before or behind another one of a list."),
    Row::new("lrem", 4, Group::List, lrem)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("1.0.0", "Removes elements that equal a given one, from either end."),
    Row::new("ltrim", 4, Group::List, ltrim)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("1.0.0", "Keeps a range of a list and removes all other elements."),
    Row::new("lrange", 4, Group::List, lrange).flags(READ).keys(1, 1, 1).docs("1.0.0", "A range of a list."),
    Row::new("lpos", -3, Group::List, lpos)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("6.0.6", "The indexes at which a list has an element."),
    Row::new("lmove", 5, Group::List, lmove)
        .flags(GROWING)
        .keys(1, 2, 1)
        .docs("6.2.0", "Takes an element from an end of a list and puts it at an end of another one."),
    Row::new("rpoplpush", 3, Group::List, rpoplpush)
        .flags(GROWING)
        .keys(1, 2, 1)
        .docs("1.2.0", "Takes the last element of a list and puts it before the head of another one."),
    Row::new("lmpop", -4, Group::List, lmpop)
        .flags(&[Flags::WRITE, Flags::MOVABLEKEYS])
        .counted_keys(&[], 1)
        .docs("7.0.0", "Takes elements from the first of several lists that has any."),
    Row::new("blpop", -3, Group::List, blpop).flags(WAITING).keys(1, -2, 1).docs(
        "2.0.0",
        "Takes the first element of the first of several lists that has any, and waits for one if none has.",
    ),
    Row::new("brpop", -3, Group::List, brpop).flags(WAITING).keys(1, -2, 1).docs(
        "2.0.0",
        "Takes the last element of the first of several lists that has any, and waits for one if none has.",
    ),
    Row::new("blmove", 6, Group::List, blmove).flags(WAITING_GROWING).keys(1, 2, 1).docs(
        "6.2.0",
        "Moves an element from an end of a list to an end of another one, and waits for one if there is none.",
    ),
    Row::new("brpoplpush", 4, Group::List, brpoplpush).flags(WAITING_GROWING).keys(1, 2, 1).docs(
        "2.2.0",
        "Moves the last element of a list before the head of another one, and waits for one if there is none.",
    ),
    Row::new("blmpop", -5, Group::List, blmpop)
        .flags(&[Flags::WRITE, Flags::BLOCKING, Flags::MOVABLEKEYS])
        .counted_keys(&[], 2)
        .docs("7.0.0", "Takes elements from the first of several lists that has any, and waits for some if none has."),
];

#[cfg(test)]
mod tests {
    use crate::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};

    /// The replies to commands, one after the other, line by line.
    fn replies(commands: &[&str]) -> String {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let mut client = Client::connect(&instance, ClientOptions::default());
        let mut out = Vec::new();
        for command in commands {
            let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            assert_eq!(client.execute(&args, 1_000, &mut out), Flow::Done, "{command}");
        }
        String::from_utf8(out).expect("text").trim_end().replace("\r\n", " ")
    }

    #[test]
    fn ranks_at_the_ends_of_their_range_are_searched_for() {
        // The negation of the lowest rank overflows in Redis, which then takes the first match from the tail.
        let search = |rank: i64| replies(&["RPUSH l a b a", &format!("LPOS l a RANK {rank} COUNT 0")]);
        assert_eq!(search(i64::MIN), ":3 *2 :2 :0");
        assert_eq!(search(i64::MIN + 1), ":3 *0");
        assert_eq!(search(i64::MAX), ":3 *0");
        assert_eq!(search(-2), ":3 *1 :0");
    }

    #[test]
    fn refused_move_leaves_the_source_as_it_was() {
        let commands = ["RPUSH l a", "SET s text", "LMOVE l s LEFT LEFT", "LRANGE l 0 -1"];
        let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        assert_eq!(replies(&commands), format!(":1 +OK {wrong_type} *1 $1 a"));
    }

    #[test]
    fn waiting_inside_a_transaction_is_over_at_once() {
        let commands = ["MULTI", "BLPOP l 0", "BLMOVE l m LEFT LEFT 0", "BLMPOP 0 1 l LEFT", "EXEC"];
        assert_eq!(replies(&commands), "+OK +QUEUED +QUEUED +QUEUED *3 *-1 $-1 *-1");
    }
}
