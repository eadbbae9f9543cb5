//! Values as bytes, to be kept or carried elsewhere: DUMP, RESTORE.
//!
//! # Guarantees
//! What is dumped here can be restored by redis-server 7.0 and later, and what redis-server 7.2 and older have dumped can be restored
//! here, unless it is a stream or a value of a module. A payload that is refused has changed nothing.

use super::call::Call;
use super::error::CommandError;
use super::options::{integer, is};
use super::row::{Flags, Group, Row};
use crate::observe::EventClass;
use crate::rdb::{Compression, PayloadError, Touched, read_payload, write_payload};
use crate::typed::Whole;

const BUSY_KEY: CommandError = CommandError::text("BUSYKEY Target key name already exists.");
const WRONG_FOOTER: CommandError = CommandError::text("ERR DUMP payload version or checksum are wrong");
const BAD_DATA: CommandError = CommandError::text("ERR Bad data format");
const INVALID_TTL: CommandError = CommandError::text("ERR Invalid TTL value, must be >= 0");
const INVALID_IDLE_TIME: CommandError = CommandError::text("ERR Invalid IDLETIME value, must be >= 0");
const INVALID_FREQUENCY: CommandError = CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255");

fn dump(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    match slot.to_write() {
        Some(value) => call.reply.bulk(&write_payload(value, Compression::Lzf)),
        None => call.reply.null(),
    }
    Ok(())
}

/// What RESTORE may be told besides the value.
#[derive(Default)]
struct Options {
    replace: bool,
    /// The time to live is a moment.
    is_absolute: bool,
    touched: Option<Touched>,
}

impl Options {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if is(word, "REPLACE") {
                options.replace = true;
            } else if is(word, "ABSTTL") {
                options.is_absolute = true;
            } else if is(word, "IDLETIME") && !matches!(options.touched, Some(Touched::Frequency(_))) {
                let idle_s = integer(words.next().ok_or(CommandError::Syntax)?)?;
                options.touched = Some(Touched::IdleS(u64::try_from(idle_s).map_err(|_| INVALID_IDLE_TIME)?));
            } else if is(word, "FREQ") && !matches!(options.touched, Some(Touched::IdleS(_))) {
                let frequency = integer(words.next().ok_or(CommandError::Syntax)?)?;
                options.touched = Some(Touched::Frequency(u8::try_from(frequency).map_err(|_| INVALID_FREQUENCY)?));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`
fn restore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (key, now_ms) = (call.args[1], call.keys.now_ms());
    let options = Options::parse(&call.args[4..])?;
    if !options.replace && call.keys.slot(key).exists() {
        return Err(BUSY_KEY);
    }
    let ttl_ms = u64::try_from(integer(call.args[2])?).map_err(|_| INVALID_TTL)?;
    let value = read_payload(call.args[3], &call.session.limits).map_err(|error| match error {
        PayloadError::Footer => WRONG_FOOTER,
        PayloadError::Value => BAD_DATA,
    })?;
    let expires_at_ms = deadline_ms(ttl_ms, options.is_absolute, now_ms);

    let mut slot = call.keys.slot(key);
    let before = slot.take_entry();
    if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        // Its time has come before it is there.
        if before.is_some() {
            slot.event(EventClass::GENERIC, "del");
            call.effects.changes += 1;
        }
    } else {
        let usage = slot.context.memory.eviction.restored_usage(now_ms, options.touched);
        slot.put_whole(Whole::restored(value, expires_at_ms, usage));
        slot.event(EventClass::GENERIC, "restore");
        call.effects.changes += 1;
    }
    call.effects.garbage.extend(before);
    call.reply.simple("OK");
    Ok(())
}

/// The deadline for a time to live, of which 0 is none. One that is too far away has passed already, as Redis adds it up.
fn deadline_ms(ttl_ms: u64, is_absolute: bool, now_ms: u64) -> Option<u64> {
    match ttl_ms {
        0 => None,
        _ if is_absolute => Some(ttl_ms),
        _ => Some(ttl_ms.saturating_add(now_ms)).map(|at_ms| if i64::try_from(at_ms).is_ok() { at_ms } else { 0 }),
    }
}

pub(super) const ROWS: &[Row] = &[
    Row::new("dump", 2, Group::Generic, dump)
        .flags(&[Flags::READONLY])
        .keys(1, 1, 1)
        .docs("2.6.0", "A value as bytes, for RESTORE."),
    Row::new("restore", -4, Group::Generic, restore)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::DANGEROUS])
        .keys(1, 1, 1)
        .docs("2.6.0", "Gives a key the value that DUMP has made bytes of."),
];
