//! BITFIELD: integers of any width at any place of a string.

use smallvec::SmallVec;

use super::{bit_offset, make_room};
use crate::algorithm::bits::{FieldType, Overflow};
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::{integer, is};
use crate::command::row::{Flags, Group, Row};
use crate::instance::Instance;
use crate::observe::EventClass;
use crate::slot::Slot;

/// Bytes that a field of 64 bits touches at most.
const FIELD_BYTES_MAX: usize = 9;

pub(super) const BITFIELD: Row = Row::new("bitfield", -2, Group::Bitmap, bitfield)
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(1, 1, 1)
    .docs("3.2.0", "Reads, writes and adds to integers of any width within a string.");
pub(super) const BITFIELD_RO: Row = Row::new("bitfield_ro", -2, Group::Bitmap, bitfield_ro)
    .flags(&[Flags::READONLY, Flags::FAST])
    .keys(1, 1, 1)
    .docs("6.0.0", "Reads integers of any width within a string.");

/// One operation on one field.
struct Step {
    what: What,
    field: FieldType,
    offset: u64,
    overflow: Overflow,
}

enum What {
    Get,
    Set(i64),
    Add(i64),
}

impl Step {
    /// The bytes that the string must have for the field to lie within.
    fn end_byte(&self) -> usize {
        // Fits: the offset was checked.
        ((self.offset + u64::from(self.field.bits()) - 1) / 8) as usize + 1
    }
}

fn bitfield(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let steps = parse(call.instance, &call.args[2..])?;
    run(call, &steps)
}

fn bitfield_ro(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let steps = parse(call.instance, &call.args[2..])?;
    if steps.iter().any(|step| !matches!(step.what, What::Get)) {
        return Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    run(call, &steps)
}

fn parse(instance: &Instance, words: &[&[u8]]) -> Result<Vec<Step>, CommandError> {
    let (mut steps, mut overflow) = (Vec::new(), Overflow::default());
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if is(word, "OVERFLOW") && !after.is_empty() {
            overflow = parse_overflow(after[0])?;
            rest = &after[1..];
            continue;
        }
        let takes = match () {
            () if is(word, "GET") => 2,
            () if is(word, "SET") || is(word, "INCRBY") => 3,
            () => return Err(CommandError::Syntax),
        };
        if after.len() < takes {
            return Err(CommandError::Syntax);
        }
        let field = FieldType::parse(after[0]).ok_or(CommandError::text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        ))?;
        let offset = field_offset(instance, after[1], field)?;
        let what = match takes {
            2 => What::Get,
            _ if is(word, "SET") => What::Set(integer(after[2])?),
            _ => What::Add(integer(after[2])?),
        };
        steps.push(Step { what, field, offset, overflow });
        rest = &after[takes..];
    }
    Ok(steps)
}

fn parse_overflow(word: &[u8]) -> Result<Overflow, CommandError> {
    [("WRAP", Overflow::Wrap), ("SAT", Overflow::Saturate), ("FAIL", Overflow::Fail)]
        .into_iter()
        .find_map(|(name, overflow)| is(word, name).then_some(overflow))
        .ok_or(CommandError::text("ERR Invalid OVERFLOW type specified"))
}

/// `#n` counts in fields, `n` in bits.
fn field_offset(instance: &Instance, text: &[u8], field: FieldType) -> Result<u64, CommandError> {
    match text.split_first() {
        Some((b'#', digits)) => bit_offset(instance, digits, u64::from(field.bits())),
        _ => bit_offset(instance, text, 1),
    }
}

fn run(call: &mut Call<'_, '_>, steps: &[Step]) -> Result<(), CommandError> {
    let writes_to = steps.iter().filter(|step| !matches!(step.what, What::Get)).map(Step::end_byte).max();
    let Some(len) = writes_to else {
        let slot = call.keys.read(call.args[1]);
        let value = slot.str()?.unwrap_or_default();
        call.reply.array(steps.len());
        steps.iter().for_each(|step| call.reply.integer(step.field.get(value, step.offset)));
        return Ok(());
    };
    let mut slot = call.keys.slot(call.args[1]);
    let grows = slot.str()?.is_none_or(|value| value.len() < len);
    make_room(&mut slot, len)?;
    let mut changes = 0;
    let replies: Vec<_> = steps.iter().map(|step| carry_out(step, &mut slot, grows, &mut changes)).collect();
    if changes > 0 {
        slot.notify(EventClass::STRING, "setbit");
        call.effects.changes += changes;
    }
    call.reply.array(replies.len());
    for reply in replies {
        match reply {
            Some(number) => call.reply.integer(number),
            None => call.reply.null(),
        }
    }
    Ok(())
}

/// What leaves the field as it was is a change only if the string has grown for it.
fn carry_out(step: &Step, slot: &mut Slot<'_>, grows: bool, changes: &mut u64) -> Option<i64> {
    let value = slot.get().and_then(|value| value.as_str()).unwrap_or_default();
    let before = step.field.get(value, step.offset);
    let (after, reply) = match step.what {
        What::Get => return Some(before),
        What::Set(value) => (step.field.fit(value, step.overflow)?, before),
        What::Add(delta) => {
            let after = step.field.add(before, delta, step.overflow)?;
            (after, after)
        }
    };
    if after != before {
        let first = (step.offset / 8) as usize;
        let mut part = SmallVec::<[u8; FIELD_BYTES_MAX]>::from_slice(&value[first..step.end_byte()]);
        step.field.put(&mut part, step.offset % 8, after);
        slot.overwrite_silently(first, &part);
    }
    *changes += u64::from(grows || after != before);
    Some(reply)
}
