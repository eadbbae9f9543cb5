//! Keys of any type: DEL, EXISTS, TYPE, RENAME, COPY, MOVE, OBJECT, and their kin.
//!
//! # How it works
//! A value changes its key as a whole: it is taken out of one slot and put into the other, with its deadline and the time of its last use.
//! What a command removes is left to `effects.garbage`, so that freeing it costs nobody who waits for the keys.

use super::call::Call;
use super::error::CommandError;
use super::help::help;
use super::options::{integer, is};
use super::row::{Flags, Group, Row, Scope};
use crate::entry::Kind;
use crate::observe::EventClass;
use crate::slot::Slot;
use crate::typed::Whole;

/// Redis shares one object for each integer below this among all keys that hold it.
const SHARED_INTEGERS: i64 = 10_000;

/// What `OBJECT REFCOUNT` says of such an object.
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

const SAME_OBJECT: CommandError = CommandError::text("ERR source and destination objects are the same");

/// `DEL key ..`, `UNLINK key ..`: the same here, since large values are never freed while keys are held.
fn del(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut removed = 0;
    for key in &call.args[1..] {
        let mut slot = call.keys.slot(key);
        if let Some(entry) = slot.take_entry() {
            slot.event(EventClass::GENERIC, "del");
            call.effects.garbage.push(entry);
            removed += 1;
        }
    }
    call.effects.changes += removed;
    call.reply.integer(removed as i64);
    Ok(())
}

/// Counts a key as often as it is named.
fn exists(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let found = call.args[1..].iter().filter(|key| call.keys.look(key).exists()).count();
    call.reply.integer(found as i64);
    Ok(())
}

fn touch(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let found = call.args[1..].iter().filter(|key| call.keys.read(key).exists()).count();
    call.reply.integer(found as i64);
    Ok(())
}

fn type_of(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.look(call.args[1]);
    call.reply.simple(slot.get().map_or("none", |value| kind_name(value.kind())));
    Ok(())
}

/// The number of a database, of which there are `count`.
fn database(text: &[u8], count: usize) -> Result<usize, CommandError> {
    let number = integer(text)?;
    if i32::try_from(number).is_err() {
        return Err(CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647"));
    }
    database_in_range(number, count)
}

pub(super) fn database_in_range(number: i64, count: usize) -> Result<usize, CommandError> {
    let number = usize::try_from(number).ok().filter(|number| *number < count);
    number.ok_or(CommandError::text("ERR DB index is out of range"))
}

/// What `TYPE` says.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Hash => "hash",
        Kind::SortedSet => "zset",
        Kind::List => "list",
        Kind::Set => "set",
    }
}

fn rename(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (from, to) = (call.args[1], call.args[2]);
    if !call.keys.slot(from).exists() {
        return Err(CommandError::NoSuchKey);
    }
    if from != to {
        move_value(call, from, to);
    }
    call.reply.simple("OK");
    Ok(())
}

fn renamenx(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (from, to) = (call.args[1], call.args[2]);
    if !call.keys.slot(from).exists() {
        return Err(CommandError::NoSuchKey);
    }
    let is_free = !call.keys.slot(to).exists();
    if is_free {
        move_value(call, from, to);
    }
    call.reply.integer(i64::from(is_free));
    Ok(())
}

/// Gives the value of `from` to `to`, whatever that held.
fn move_value(call: &mut Call<'_, '_>, from: &[u8], to: &[u8]) {
    let (database, now_ms) = (call.keys.database, call.now_ms());
    // Taken out first and not replaced: to listeners, `to` is a new key.
    call.effects.garbage.extend(call.keys.slot(to).take_entry());
    call.keys.locked.move_value((database, from), (database, to), now_ms);
    call.keys.peek(from).event(EventClass::GENERIC, "rename_from");
    call.keys.peek(to).event(EventClass::GENERIC, "rename_to");
    call.effects.changes += 1;
}

/// `COPY source destination [DB number] [REPLACE]`
fn copy(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (from, to) = (call.args[1], call.args[2]);
    let (mut target, mut replace) = (call.keys.database, false);
    let mut words = call.args[3..].iter();
    while let Some(word) = words.next() {
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB")
            && let Some(number) = words.next()
        {
            target = database(number, call.instance.databases.count())?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if target == call.keys.database && from == to {
        return Err(SAME_OBJECT);
    }
    let whole = call.keys.read(from).copy_whole();
    let copied = match whole {
        Some(whole) => put_copy(call, target, to, whole, replace),
        None => false,
    };
    call.reply.integer(i64::from(copied));
    Ok(())
}

fn put_copy(call: &mut Call<'_, '_>, target: usize, to: &[u8], whole: Whole, replace: bool) -> bool {
    let mut slot = call.keys.slot_in(target, to);
    if slot.exists() && !replace {
        return false;
    }
    call.effects.garbage.extend(slot.take_entry());
    slot.put_whole(whole);
    slot.event(EventClass::GENERIC, "copy_to");
    call.effects.changes += 1;
    true
}

/// The databases that COPY needs apart from the selected one.
fn copy_scope(args: &[&[u8]]) -> Scope {
    let names_database = args.iter().skip(3).any(|word| is(word, "DB"));
    if names_database { Scope::WithDatabase(copy_database) } else { Scope::Keys }
}

fn copy_database(args: &[&[u8]]) -> Option<usize> {
    // The last one counts, as it does when the command runs.
    let at = args.iter().skip(3).rposition(|word| is(word, "DB"))? + 3;
    number_of_database(args.get(at + 1)?)
}

fn number_of_database(text: &[u8]) -> Option<usize> {
    acteon_resp::parse_i64(text).and_then(|number| usize::try_from(number).ok())
}

fn move_key(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (source, key) = (call.keys.database, call.args[1]);
    let target = database(call.args[2], call.instance.databases.count())?;
    if source == target {
        return Err(SAME_OBJECT);
    }
    let may_move = call.keys.slot(key).exists() && !call.keys.slot_in(target, key).exists();
    if may_move {
        let now_ms = call.now_ms();
        call.keys.locked.move_value((source, key), (target, key), now_ms);
        call.keys.peek(key).event(EventClass::GENERIC, "move_from");
        call.keys.slot_in(target, key).event(EventClass::GENERIC, "move_to");
        call.effects.changes += 1;
    }
    call.reply.integer(i64::from(may_move));
    Ok(())
}

fn move_database(args: &[&[u8]]) -> Option<usize> {
    number_of_database(args.get(2)?)
}

fn object_encoding(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.look_silently(call.args[2]);
    match slot.encoding() {
        Some(encoding) => call.reply.bulk(encoding.as_bytes()),
        None => call.reply.null(),
    }
    Ok(())
}

fn object_freq(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.look_silently(call.args[2]);
    match slot.frequency() {
        Some(_) if !slot.context.memory.eviction.policy().is_lfu() => {
            return Err(CommandError::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(frequency) => call.reply.integer(i64::from(frequency)),
        None => call.reply.null(),
    }
    Ok(())
}

fn object_idletime(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.look_silently(call.args[2]);
    match slot.idle_s() {
        Some(_) if slot.context.memory.eviction.policy().is_lfu() => {
            return Err(CommandError::text(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(idle_s) => call.reply.integer(i64::from(idle_s)),
        None => call.reply.null(),
    }
    Ok(())
}

fn object_refcount(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.look_silently(call.args[2]);
    if slot.exists() {
        call.reply.integer(if is_shared(&slot) { SHARED_REFCOUNT } else { 1 });
    } else {
        call.reply.null();
    }
    Ok(())
}

/// Whether Redis would hold one object for this value and all like it.
fn is_shared(slot: &Slot<'_>) -> bool {
    let number = slot.get().and_then(|value| value.as_str()).and_then(acteon_resp::parse_i64);
    slot.encoding() == Some("int") && number.is_some_and(|number| (0..SHARED_INTEGERS).contains(&number))
}

fn object_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    help(
        call,
        &[
            "ENCODING <key>",
            "    How the value is laid out in memory, by Redis's names.",
            "FREQ <key>",
            "    How often the key is used; only with an LFU policy.",
            "IDLETIME <key>",
            "    Seconds since the key was last used.",
            "REFCOUNT <key>",
            "    How many references to the value there are.",
        ],
    )
}

const OBJECT: &[Row] = &[
    Row::new("help", 2, Group::Generic, object_help)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::KEYSPACE])
        .docs("6.2.0", "What the subcommands are."),
    Row::new("encoding", 3, Group::Generic, object_encoding)
        .flags(&[Flags::READONLY, Flags::KEYSPACE])
        .keys(2, 2, 1)
        .docs("2.2.3", "How the value of a key is laid out in memory."),
    Row::new("idletime", 3, Group::Generic, object_idletime)
        .flags(&[Flags::READONLY, Flags::KEYSPACE])
        .keys(2, 2, 1)
        .docs("2.2.3", "Seconds since a key was last used."),
    Row::new("refcount", 3, Group::Generic, object_refcount)
        .flags(&[Flags::READONLY, Flags::KEYSPACE])
        .keys(2, 2, 1)
        .docs("2.2.3", "References to the value of a key."),
    Row::new("freq", 3, Group::Generic, object_freq)
        .flags(&[Flags::READONLY, Flags::KEYSPACE])
        .keys(2, 2, 1)
        .docs("4.0.0", "How often a key is used."),
];

const READ_FAST: &[Flags] = &[Flags::READONLY, Flags::FAST];
const WRITE_FAST: &[Flags] = &[Flags::WRITE, Flags::FAST];

pub(super) const ROWS: &[Row] = &[
    Row::new("del", -2, Group::Generic, del).flags(&[Flags::WRITE]).keys(1, -1, 1).docs("1.0.0", "Removes keys."),
    Row::new("unlink", -2, Group::Generic, del)
        .flags(WRITE_FAST)
        .keys(1, -1, 1)
        .docs("4.0.0", "Removes keys; large values are freed later."),
    Row::new("exists", -2, Group::Generic, exists)
        .flags(READ_FAST)
        .keys(1, -1, 1)
        .docs("1.0.0", "How many of the keys are there."),
    Row::new("type", 2, Group::Generic, type_of)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "What type of value a key holds."),
    Row::new("touch", -2, Group::Generic, touch)
        .flags(READ_FAST)
        .keys(1, -1, 1)
        .docs("3.2.1", "How many of the keys are there; counts as using them."),
    Row::new("rename", 3, Group::Generic, rename)
        .flags(&[Flags::WRITE])
        .keys(1, 2, 1)
        .docs("1.0.0", "Gives a key another name, in the place of whatever had it."),
    Row::new("renamenx", 3, Group::Generic, renamenx)
        .flags(WRITE_FAST)
        .keys(1, 2, 1)
        .docs("1.0.0", "Gives a key another name unless that is taken."),
    Row::new("copy", -3, Group::Generic, copy)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, 2, 1)
        .scope(Scope::Choose(copy_scope))
        .docs("6.2.0", "Copies a value to another key, of this or another database."),
    Row::new("move", 3, Group::Generic, move_key)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .scope(Scope::WithDatabase(move_database))
        .docs("1.0.0", "Moves a key to another database unless it is there already."),
    // Its subcommands answer; without one, its arity refuses.
    Row::new("object", -2, Group::Generic, object_help)
        .subcommands(OBJECT)
        .docs("2.2.3", "What is known of a value apart from what it says."),
];
