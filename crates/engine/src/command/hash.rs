//! Hashes.

use acteon_resp::{Protocol, ReplyWriter};

use super::call::Call;
use super::error::CommandError;
use super::options::{check_repetitions, integer, is};
use super::row::{Flags, Group, Row};
use super::scan::{ScanOptions, cursor, write_page};
use crate::algorithm::long_double::LongDouble;
use crate::observe::EventClass;
use crate::value::Fields;

/// Most fields of one HRANDFIELD with repetitions that are drawn before their reply is extended.
const RANDOM_PAIRS_MAX: i64 = i64::MAX / 2;

fn hset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let created = set_pairs(call, "hset")?;
    call.reply.integer(created);
    Ok(())
}

fn hmset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_pairs(call, "hmset")?;
    call.reply.simple("OK");
    Ok(())
}

/// Returns how many fields are new.
fn set_pairs(call: &mut Call<'_, '_>, command: &str) -> Result<i64, CommandError> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity(command));
    }
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let mut fields = slot.edit_or_create::<Fields>()?;
    let mut created = 0;
    for pair in call.args[2..].chunks_exact(2) {
        created += i64::from(fields.insert(pair[0], pair[1], &limits));
    }
    drop(fields);
    slot.notify(EventClass::HASH, "hset");
    call.effects.changes += call.args.len() as u64 / 2 - 1;
    Ok(created)
}

fn hsetnx(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let mut fields = slot.edit_or_create::<Fields>()?;
    let is_new = !fields.contains(call.args[2]);
    if is_new {
        fields.insert(call.args[2], call.args[3], &limits);
        drop(fields);
        slot.notify(EventClass::HASH, "hset");
        call.effects.changes += 1;
    }
    call.reply.integer(i64::from(is_new));
    Ok(())
}

fn hget(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    write_optional(&mut call.reply, slot.value::<Fields>()?.and_then(|fields| fields.get(call.args[2])));
    Ok(())
}

fn hmget(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let fields = slot.value::<Fields>()?;
    call.reply.array(call.args.len() - 2);
    for field in &call.args[2..] {
        write_optional(&mut call.reply, fields.and_then(|fields| fields.get(field)));
    }
    Ok(())
}

fn write_optional(reply: &mut ReplyWriter<'_>, value: Option<&[u8]>) {
    match value {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
}

fn hgetall(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let fields = slot.value::<Fields>()?;
    call.reply.map(fields.map_or(0, Fields::len));
    for (field, value) in fields.iter().flat_map(|fields| fields.iter()) {
        call.reply.bulk(field);
        call.reply.bulk(value);
    }
    Ok(())
}

fn hkeys(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let fields = slot.value::<Fields>()?;
    call.reply.array(fields.map_or(0, Fields::len));
    fields.iter().flat_map(|fields| fields.iter()).for_each(|(field, _)| call.reply.bulk(field));
    Ok(())
}

fn hvals(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let fields = slot.value::<Fields>()?;
    call.reply.array(fields.map_or(0, Fields::len));
    fields.iter().flat_map(|fields| fields.iter()).for_each(|(_, value)| call.reply.bulk(value));
    Ok(())
}

fn hlen(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    call.reply.integer(slot.value::<Fields>()?.map_or(0, Fields::len) as i64);
    Ok(())
}

fn hexists(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let exists = slot.value::<Fields>()?.is_some_and(|fields| fields.contains(call.args[2]));
    call.reply.integer(i64::from(exists));
    Ok(())
}

fn hstrlen(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let value = slot.value::<Fields>()?.and_then(|fields| fields.get(call.args[2]));
    call.reply.integer(value.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn hdel(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let mut removed = 0;
    if let Some(mut fields) = slot.edit::<Fields>()? {
        removed = call.args[2..].iter().filter(|field| fields.remove(field)).count();
    }
    if removed > 0 {
        slot.notify(EventClass::HASH, "hdel");
        slot.drop_if_empty();
        call.effects.changes += removed as u64;
    }
    call.reply.integer(removed as i64);
    Ok(())
}

fn hincrby(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let delta = integer(call.args[3])?;
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let before = match slot.value::<Fields>()?.and_then(|fields| fields.get(call.args[2])) {
        Some(text) => acteon_resp::parse_i64(text).ok_or(CommandError::text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let after = before.checked_add(delta).ok_or(CommandError::text("ERR increment or decrement would overflow"))?;
    let mut text = itoa::Buffer::new();
    slot.edit_or_create::<Fields>()?.insert(call.args[2], text.format(after).as_bytes(), &limits);
    slot.notify(EventClass::HASH, "hincrby");
    call.effects.changes += 1;
    call.reply.integer(after);
    Ok(())
}

fn hincrbyfloat(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let delta = LongDouble::parse(call.args[3]).ok_or(CommandError::NotAFloat)?;
    if !delta.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let before = slot.value::<Fields>()?.and_then(|fields| fields.get(call.args[2])).unwrap_or(b"0");
    let before = LongDouble::parse(before).ok_or(CommandError::text("ERR hash value is not a float"))?;
    let sum = before.add(delta);
    if !sum.is_finite() {
        return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
    }
    let mut text = Vec::new();
    sum.write_human(&mut text);
    slot.edit_or_create::<Fields>()?.insert(call.args[2], &text, &limits);
    slot.notify(EventClass::HASH, "hincrbyfloat");
    call.effects.changes += 1;
    call.reply.bulk(&text);
    Ok(())
}

/// `HRANDFIELD key [count [WITHVALUES]]`: distinct fields for a positive count, fields with repetitions for a negative one.
fn hrandfield(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let Some(count) = call.args.get(2) else { return one_random_field(call) };
    let count = integer(count)?;
    let with_values = match call.args.get(3) {
        None => false,
        Some(word) if is(word, "WITHVALUES") && call.args.len() == 4 => true,
        Some(_) => return Err(CommandError::Syntax),
    };
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    if with_values && !(-RANDOM_PAIRS_MAX..=RANDOM_PAIRS_MAX).contains(&count) {
        return Err(CommandError::text("ERR value is out of range"));
    }
    let session = &mut *call.session;
    let slot = call.keys.read(call.args[1]);
    let Some(fields) = slot.value::<Fields>()? else {
        call.reply.array(0);
        return Ok(());
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    check_repetitions(count)?;
    if count >= 0 {
        let chosen = fields.random_distinct(wanted, &mut || session.random.next_u64());
        write_pairs(&mut call.reply, chosen.len(), with_values, chosen.into_iter());
    } else {
        let drawn = (0..wanted).map_while(|_| fields.random(session.random.next_u64()));
        write_pairs(&mut call.reply, wanted, with_values, drawn);
    }
    Ok(())
}

fn one_random_field(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let random = call.session.random.next_u64();
    let slot = call.keys.read(call.args[1]);
    write_optional(
        &mut call.reply,
        slot.value::<Fields>()?.and_then(|fields| fields.random(random)).map(|(field, _)| field),
    );
    Ok(())
}

/// RESP2 has one flat list, RESP3 a list of pairs.
fn write_pairs<'f>(
    reply: &mut ReplyWriter<'_>,
    count: usize,
    with_values: bool,
    pairs: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) {
    let is_nested = with_values && reply.protocol() == Protocol::Resp3;
    reply.array(if with_values && !is_nested { count * 2 } else { count });
    for (field, value) in pairs {
        if is_nested {
            reply.array(2);
        }
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
    }
}

fn hscan(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let begin = cursor(call.args[2])?;
    let slot = call.keys.read(call.args[1]);
    let Some(fields) = slot.value::<Fields>()? else {
        // Redis does not look at the options of a scan over nothing.
        write_page(&mut call.reply, 0, &[]);
        return Ok(());
    };
    let options = ScanOptions::parse(&call.args[3..], false)?;
    let mut found = Vec::new();
    let next = fields.scan(begin, options.count, |field, value| {
        if options.shows(field) {
            found.push(field.to_vec());
            found.push(value.to_vec());
        }
    });
    write_page(&mut call.reply, next, &found);
    Ok(())
}

const READ: &[Flags] = &[Flags::READONLY];
const READ_FAST: &[Flags] = &[Flags::READONLY, Flags::FAST];
const WRITE_FAST: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::FAST];

pub(super) const ROWS: &[Row] = &[
    Row::new("hset", -4, Group::Hash, hset).flags(WRITE_FAST).keys(1, 1, 1).docs("2.0.0", "Sets fields of a hash."),
    Row::new("hmset", -4, Group::Hash, hmset)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "Sets fields of a hash; HSET does the same."),
    Row::new("hsetnx", 4, Group::Hash, hsetnx)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "Sets a field unless it is there."),
    Row::new("hget", 3, Group::Hash, hget).flags(READ_FAST).keys(1, 1, 1).docs("2.0.0", "The value of a field."),
    Row::new("hmget", -3, Group::Hash, hmget)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "The values of several fields."),
    Row::new("hgetall", 2, Group::Hash, hgetall)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("2.0.0", "All fields with their values."),
    Row::new("hdel", -3, Group::Hash, hdel)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, 1, 1)
        .docs("2.0.0", "Removes fields, and the key with its last field."),
    Row::new("hexists", 3, Group::Hash, hexists)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "Whether a field is there."),
    Row::new("hlen", 2, Group::Hash, hlen).flags(READ_FAST).keys(1, 1, 1).docs("2.0.0", "The number of fields."),
    Row::new("hkeys", 2, Group::Hash, hkeys).flags(READ).keys(1, 1, 1).docs("2.0.0", "All fields."),
    Row::new("hvals", 2, Group::Hash, hvals).flags(READ).keys(1, 1, 1).docs("2.0.0", "All values."),
    Row::new("hstrlen", 3, Group::Hash, hstrlen)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("3.2.0", "The length of a field's value."),
    Row::new("hincrby", 4, Group::Hash, hincrby)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.0.0", "Adds to the integer in a field."),
    Row::new("hincrbyfloat", 4, Group::Hash, hincrbyfloat)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.6.0", "Adds to the number in a field."),
    Row::new("hrandfield", -2, Group::Hash, hrandfield)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("6.2.0", "Fields drawn at random."),
    Row::new("hscan", -3, Group::Hash, hscan)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("2.8.0", "A page of fields with their values."),
];
