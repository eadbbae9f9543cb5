//! Parts of strings: APPEND, STRLEN, GETRANGE, SETRANGE.

use std::ops::Range;

use super::check_len;
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::integer;
use crate::command::row::{Flags, Group, Row};
use crate::entry::StrEncoding;
use crate::observe::EventClass;

pub(super) const STRLEN: Row = Row::new("strlen", 2, Group::String, strlen)
    .flags(&[Flags::READONLY, Flags::FAST])
    .keys(1, 1, 1)
    .docs("2.2.0", "The length of a string in bytes.");
pub(super) const APPEND: Row = Row::new("append", 3, Group::String, append)
    .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
    .keys(1, 1, 1)
    .docs("2.0.0", "Puts bytes behind a string.");
pub(super) const GETRANGE: Row = Row::new("getrange", 4, Group::String, getrange)
    .flags(&[Flags::READONLY])
    .keys(1, 1, 1)
    .docs("2.4.0", "A part of a string; negative positions count from its end.");
pub(super) const SUBSTR: Row = Row::new("substr", 4, Group::String, getrange)
    .flags(&[Flags::READONLY])
    .keys(1, 1, 1)
    .docs("1.0.0", "The older name of GETRANGE.");
pub(super) const SETRANGE: Row = Row::new("setrange", 4, Group::String, setrange)
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(1, 1, 1)
    .docs("2.2.0", "Writes bytes over a part of a string, which grows as needed.");

fn strlen(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    call.reply.integer(slot.str()?.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn append(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let tail = call.args[2];
    let mut slot = call.keys.slot(call.args[1]);
    let len_before = slot.str()?.map(<[u8]>::len);
    if let Some(len_before) = len_before {
        check_len(call.instance, len_before.checked_add(tail.len()))?;
    }
    let len = slot.append(tail)?;
    slot.set_encoding(if len_before.is_some() { StrEncoding::Raw } else { StrEncoding::Auto });
    slot.event(EventClass::STRING, "append");
    call.effects.changes += 1;
    call.reply.integer(len as i64);
    Ok(())
}

fn getrange(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (start, end) = (integer(call.args[2])?, integer(call.args[3])?);
    let slot = call.keys.read(call.args[1]);
    let value = slot.str()?.unwrap_or_default();
    call.reply.bulk(&value[byte_range(start, end, value.len())]);
    Ok(())
}

/// The bytes from `start` to `end`, both included; negative positions count from the end.
fn byte_range(start: i64, end: i64, len: usize) -> Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let position = |at: i64| match usize::try_from(at) {
        Ok(at) => at,
        Err(_) => len.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let (start, end) = (position(start), position(end).saturating_add(1).min(len));
    if start < end { start..end } else { 0..0 }
}

fn setrange(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let offset = integer(call.args[2])?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let patch = call.args[3];
    let mut slot = call.keys.slot(call.args[1]);
    let len_before = slot.str()?.map_or(0, <[u8]>::len);
    if patch.is_empty() {
        call.reply.integer(len_before as i64);
        return Ok(());
    }
    let end = check_len(call.instance, offset.checked_add(patch.len()))?;
    slot.grow_silently(end)?;
    slot.overwrite(offset, patch);
    slot.set_encoding(StrEncoding::Raw);
    slot.event(EventClass::STRING, "setrange");
    call.effects.changes += 1;
    call.reply.integer(end.max(len_before) as i64);
    Ok(())
}
