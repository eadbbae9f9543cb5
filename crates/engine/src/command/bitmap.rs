//! Bits of strings: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP. BITFIELD is in `bitmap/field.rs`.

mod field;

use super::call::Call;
use super::error::CommandError;
use super::options::{integer, is};
use super::row::{Flags, Group, Row};
use crate::algorithm::bits::{self, Operation, Unit};
use crate::entry::StrEncoding;
use crate::instance::Instance;
use crate::observe::EventClass;
use crate::slot::Slot;
use crate::typed::Whole;

/// A position of a bit, counted in fields of so many bits. Whether a string may become so long matters to commands that read as well.
fn bit_offset(instance: &Instance, text: &[u8], bits: u64) -> Result<u64, CommandError> {
    let offset = acteon_resp::parse_i64(text).and_then(|offset| u64::try_from(offset).ok());
    offset
        .and_then(|offset| offset.checked_mul(bits))
        .filter(|offset| offset / 8 < instance.bulk_bytes_max())
        .ok_or(CommandError::text("ERR bit offset is not an integer or out of range"))
}

/// Makes the string at least `len` bytes long, to be written to. Whoever changes a byte notifies: growing alone is, as in Redis, nothing that
/// watchers hear of.
fn make_room(slot: &mut Slot<'_>, len: usize) -> Result<(), CommandError> {
    slot.grow_silently(len)?;
    slot.set_encoding(StrEncoding::Raw);
    Ok(())
}

fn setbit(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let offset = bit_offset(call.instance, call.args[2], 1)?;
    let bit = match call.args[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    // Fits: the offset was checked.
    let (byte, mask) = ((offset / 8) as usize, 0x80 >> (offset % 8));
    let mut slot = call.keys.slot(call.args[1]);
    // `None`: the string has to grow, which is a change even where the bit is not.
    let before = slot.str()?.and_then(|value| value.get(byte)).map(|byte| byte & mask != 0);
    if before == Some(bit) {
        slot.set_encoding(StrEncoding::Raw);
    } else {
        make_room(&mut slot, byte + 1)?;
        let value = slot.str()?.and_then(|value| value.get(byte)).copied().unwrap_or_default();
        slot.overwrite_silently(byte, &[if bit { value | mask } else { value & !mask }]);
        slot.notify(EventClass::STRING, "setbit");
        call.effects.changes += 1;
    }
    let before = before.unwrap_or(false);
    call.reply.integer(i64::from(before));
    Ok(())
}

fn getbit(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let offset = bit_offset(call.instance, call.args[2], 1)?;
    let slot = call.keys.read(call.args[1]);
    let byte = slot.str()?.and_then(|value| value.get((offset / 8) as usize)).copied().unwrap_or_default();
    call.reply.integer(i64::from(byte & (0x80 >> (offset % 8)) != 0));
    Ok(())
}

/// `BITCOUNT key [start end [BYTE | BIT]]`
fn bitcount(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    // Redis does not look at the range of an absent key.
    let Some(value) = slot.str()? else {
        call.reply.integer(0);
        return Ok(());
    };
    let count = match call.args {
        [_, _] => bits::count(value),
        [_, _, start, end] => bits::count_range(value, integer(start)?, integer(end)?, Unit::Byte),
        [_, _, start, end, word] => {
            let (start, end) = (integer(start)?, integer(end)?);
            // A range that turns out empty without the length is answered before anybody reads its unit.
            let is_empty = start < 0 && end < 0 && start > end;
            let unit = if is_empty { Unit::Byte } else { unit(word)? };
            bits::count_range(value, start, end, unit)
        }
        _ => return Err(CommandError::Syntax),
    };
    call.reply.integer(count as i64);
    Ok(())
}

fn unit(word: &[u8]) -> Result<Unit, CommandError> {
    if is(word, "BIT") {
        Ok(Unit::Bit)
    } else if is(word, "BYTE") {
        Ok(Unit::Byte)
    } else {
        Err(CommandError::Syntax)
    }
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`
fn bitpos(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let bit = match integer(call.args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    let slot = call.keys.read(call.args[1]);
    let Some(value) = slot.str()? else {
        call.reply.integer(if bit { -1 } else { 0 });
        return Ok(());
    };
    let (start, end, unit) = match call.args {
        [_, _, _] => (0, -1, Unit::Byte),
        [_, _, _, start] => (integer(start)?, -1, Unit::Byte),
        [_, _, _, start, end] => (integer(start)?, integer(end)?, Unit::Byte),
        [_, _, _, start, end, word] => {
            let (start, unit) = (integer(start)?, unit(word)?);
            (start, integer(end)?, unit)
        }
        _ => return Err(CommandError::Syntax),
    };
    let range = bits::bit_range(value, start, end, unit);
    call.reply.integer(bits::position_reply(value, bit, range.as_ref(), call.args.len() > 4));
    Ok(())
}

/// `BITOP AND | OR | XOR | NOT destination key [key ..]`
fn bitop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let names = [("AND", Operation::And), ("OR", Operation::Or), ("XOR", Operation::Xor), ("NOT", Operation::Not)];
    let operation = names.iter().find(|(name, _)| is(call.args[1], name)).map(|(_, operation)| *operation);
    let operation = operation.ok_or(CommandError::Syntax)?;
    if operation == Operation::Not && call.args.len() != 4 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }
    let mut sources = Vec::new();
    for key in &call.args[3..] {
        sources.push(call.keys.read(key).str()?.unwrap_or_default().to_vec());
    }
    let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
    let result = bits::combine(operation, &sources);
    let len = result.len();
    let mut slot = call.keys.slot(call.args[2]);
    if len > 0 {
        call.effects.garbage.extend(slot.put_whole(Whole::string(result)));
        slot.set_encoding(StrEncoding::Raw);
        slot.event(EventClass::STRING, "set");
        call.effects.changes += 1;
    } else if let Some(before) = slot.take_entry() {
        slot.event(EventClass::GENERIC, "del");
        call.effects.garbage.push(before);
        call.effects.changes += 1;
    }
    call.reply.integer(len as i64);
    Ok(())
}

pub(super) const ROWS: &[Row] = &[
    Row::new("setbit", 4, Group::Bitmap, setbit)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, 1, 1)
        .docs("2.2.0", "Sets or clears a bit, and returns what it was."),
    Row::new("getbit", 3, Group::Bitmap, getbit)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, 1, 1)
        .docs("2.2.0", "A bit."),
    Row::new("bitcount", -2, Group::Bitmap, bitcount)
        .flags(&[Flags::READONLY])
        .keys(1, 1, 1)
        .docs("2.6.0", "How many bits are set."),
    Row::new("bitpos", -3, Group::Bitmap, bitpos)
        .flags(&[Flags::READONLY])
        .keys(1, 1, 1)
        .docs("2.8.7", "Where the first set or clear bit is."),
    Row::new("bitop", -4, Group::Bitmap, bitop)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(2, -1, 1)
        .docs("2.6.0", "Combines strings bit by bit and stores the result."),
    field::BITFIELD,
    field::BITFIELD_RO,
];
