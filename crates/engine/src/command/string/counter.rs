//! Strings that count: INCR and its kin.

use crate::algorithm::long_double::LongDouble;
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::integer;
use crate::command::row::{Flags, Group, Row};
use crate::entry::StrEncoding;
use crate::observe::EventClass;
use crate::slot::Expiry;

const FLAGS: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::FAST];

pub(super) const INCR: Row = Row::new("incr", 2, Group::String, incr)
    .flags(FLAGS)
    .keys(1, 1, 1)
    .docs("1.0.0", "Adds 1 to an integer; an absent key is 0.");
pub(super) const DECR: Row =
    Row::new("decr", 2, Group::String, decr).flags(FLAGS).keys(1, 1, 1).docs("1.0.0", "Subtracts 1 from an integer.");
pub(super) const INCRBY: Row =
    Row::new("incrby", 3, Group::String, incrby).flags(FLAGS).keys(1, 1, 1).docs("1.0.0", "Adds to an integer.");
pub(super) const DECRBY: Row =
    Row::new("decrby", 3, Group::String, decrby).flags(FLAGS).keys(1, 1, 1).docs("1.0.0", "Subtracts from an integer.");
pub(super) const INCRBYFLOAT: Row = Row::new("incrbyfloat", 3, Group::String, incrbyfloat)
    .flags(FLAGS)
    .keys(1, 1, 1)
    .docs("2.6.0", "Adds to a number with decimals.");

fn incr(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    add(call, 1)
}

fn decr(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    add(call, -1)
}

fn incrby(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let delta = integer(call.args[2])?;
    add(call, delta)
}

fn decrby(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let delta = integer(call.args[2])?;
    add(call, delta.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?)
}

fn add(call: &mut Call<'_, '_>, delta: i64) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let before = slot.str()?.map_or(Ok(0), integer)?;
    let after = before.checked_add(delta).ok_or(CommandError::text("ERR increment or decrement would overflow"))?;
    slot.set_text(&[itoa::Buffer::new().format(after).as_bytes()], Expiry::Keep)?;
    slot.event(EventClass::STRING, "incrby");
    call.effects.changes += 1;
    call.reply.integer(after);
    Ok(())
}

fn incrbyfloat(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let before = LongDouble::parse(slot.str()?.unwrap_or(b"0")).ok_or(CommandError::NotAFloat)?;
    let delta = LongDouble::parse(call.args[2]).ok_or(CommandError::NotAFloat)?;
    let sum = before.add(delta);
    if !sum.is_finite() {
        return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
    }
    let mut text = Vec::new();
    sum.write_human(&mut text);
    slot.set_text(&[&text], Expiry::Keep)?;
    slot.set_encoding(StrEncoding::Bytes);
    slot.event(EventClass::STRING, "incrbyfloat");
    call.effects.changes += 1;
    call.reply.bulk(&text);
    Ok(())
}
