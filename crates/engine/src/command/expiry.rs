//! Times to live: EXPIRE, TTL, PERSIST, and their kin.

use super::call::Call;
use super::error::CommandError;
use super::options::{TimeOption, integer, is};
use super::row::{Flags, Group, Row};
use crate::observe::EventClass;
use crate::slot::{Expiry, Slot};

fn expire(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_deadline(call, TimeOption::Seconds)
}

fn pexpire(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_deadline(call, TimeOption::Milliseconds)
}

fn expireat(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_deadline(call, TimeOption::UnixSeconds)
}

fn pexpireat(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_deadline(call, TimeOption::UnixMilliseconds)
}

/// `EXPIRE key time [NX | XX | GT | LT]`; a time that has passed already removes the key.
fn set_deadline(call: &mut Call<'_, '_>, unit: TimeOption) -> Result<(), CommandError> {
    let conditions = Conditions::parse(&call.args[3..])?;
    let now_ms = i64::try_from(call.now_ms()).unwrap_or(i64::MAX);
    let deadline_ms = deadline_ms(call.args[2], unit, now_ms, call.row.name)?;
    let mut slot = call.keys.slot(call.args[1]);
    if !slot.exists() || !conditions.allow(deadline_ms, slot.deadline_ms()) {
        call.reply.integer(0);
        return Ok(());
    }
    // Redis removes the key when its deadline is this very millisecond, although a key lives to the end of it otherwise.
    match u64::try_from(deadline_ms).ok().filter(|_| deadline_ms > now_ms) {
        Some(at_ms) => {
            slot.set_expiry(Expiry::At(at_ms));
            slot.event(EventClass::GENERIC, "expire");
        }
        None => {
            call.effects.garbage.extend(slot.take_entry());
            slot.event(EventClass::GENERIC, "del");
        }
    }
    call.effects.changes += 1;
    call.reply.integer(1);
    Ok(())
}

/// The deadline in ms since 1970, which may lie before it.
fn deadline_ms(text: &[u8], unit: TimeOption, now_ms: i64, command: &str) -> Result<i64, CommandError> {
    let time = integer(text)?;
    let ms = match unit {
        TimeOption::Seconds | TimeOption::UnixSeconds => time.checked_mul(1_000),
        TimeOption::Milliseconds | TimeOption::UnixMilliseconds => Some(time),
    };
    let base_ms = match unit {
        TimeOption::Seconds | TimeOption::Milliseconds => now_ms,
        TimeOption::UnixSeconds | TimeOption::UnixMilliseconds => 0,
    };
    ms.and_then(|ms| ms.checked_add(base_ms)).ok_or_else(|| CommandError::invalid_expire(command))
}

/// When a deadline may be set.
#[derive(Clone, Copy, Default)]
struct Conditions {
    if_none: bool,
    if_some: bool,
    if_later: bool,
    if_sooner: bool,
}

impl Conditions {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        for word in words {
            match () {
                () if is(word, "NX") => conditions.if_none = true,
                () if is(word, "XX") => conditions.if_some = true,
                () if is(word, "GT") => conditions.if_later = true,
                () if is(word, "LT") => conditions.if_sooner = true,
                () => return Err(CommandError::quoting("ERR Unsupported option ", word, "")),
            }
        }
        if conditions.if_none && (conditions.if_some || conditions.if_later || conditions.if_sooner) {
            return Err(CommandError::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if conditions.if_later && conditions.if_sooner {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether a deadline may follow `before`. No deadline counts as later than any.
    fn allow(self, after_ms: i64, before_ms: Option<u64>) -> bool {
        let Some(before_ms) = before_ms else { return !self.if_some && !self.if_later };
        let before_ms = i64::try_from(before_ms).unwrap_or(i64::MAX);
        !self.if_none && (!self.if_later || after_ms > before_ms) && (!self.if_sooner || after_ms < before_ms)
    }
}

/// What the commands that ask for a deadline say of a key without one, and of no key.
const NO_DEADLINE: i64 = -1;
const NO_KEY: i64 = -2;

fn ttl(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let now_ms = call.now_ms();
    write_deadline(call, |deadline_ms| to_seconds(deadline_ms.saturating_sub(now_ms)))
}

fn pttl(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let now_ms = call.now_ms();
    write_deadline(call, |deadline_ms| deadline_ms.saturating_sub(now_ms))
}

fn expiretime(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    write_deadline(call, to_seconds)
}

fn pexpiretime(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    write_deadline(call, |deadline_ms| deadline_ms)
}

/// To the nearest second, as Redis rounds.
fn to_seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1_000
}

fn write_deadline(call: &mut Call<'_, '_>, show: impl FnOnce(u64) -> u64) -> Result<(), CommandError> {
    let slot = call.keys.look(call.args[1]);
    let shown = match (slot.exists(), slot.deadline_ms()) {
        (false, _) => NO_KEY,
        (true, None) => NO_DEADLINE,
        (true, Some(deadline_ms)) => i64::try_from(show(deadline_ms)).unwrap_or(i64::MAX),
    };
    call.reply.integer(shown);
    Ok(())
}

fn persist(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let had_deadline = slot.deadline_ms().is_some();
    if had_deadline {
        clear_deadline(&mut slot);
        call.effects.changes += 1;
    }
    call.reply.integer(i64::from(had_deadline));
    Ok(())
}

fn clear_deadline(slot: &mut Slot<'_>) {
    slot.set_expiry(Expiry::Clear);
    slot.event(EventClass::GENERIC, "persist");
}

const READ_FAST: &[Flags] = &[Flags::READONLY, Flags::FAST];
const WRITE_FAST: &[Flags] = &[Flags::WRITE, Flags::FAST];

pub(super) const ROWS: &[Row] = &[
    Row::new("expire", -3, Group::Generic, expire)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "Sets the time to live of a key, in seconds."),
    Row::new("pexpire", -3, Group::Generic, pexpire)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.6.0", "Sets the time to live of a key, in milliseconds."),
    Row::new("expireat", -3, Group::Generic, expireat)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("1.2.0", "Sets the deadline of a key, in seconds since 1970."),
    Row::new("pexpireat", -3, Group::Generic, pexpireat)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.6.0", "Sets the deadline of a key, in milliseconds since 1970."),
    Row::new("ttl", 2, Group::Generic, ttl)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "The time to live of a key, in seconds."),
    Row::new("pttl", 2, Group::Generic, pttl)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("2.6.0", "The time to live of a key, in milliseconds."),
    Row::new("expiretime", 2, Group::Generic, expiretime)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("7.0.0", "The deadline of a key, in seconds since 1970."),
    Row::new("pexpiretime", 2, Group::Generic, pexpiretime)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("7.0.0", "The deadline of a key, in milliseconds since 1970."),
    Row::new("persist", 2, Group::Generic, persist)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("2.2.0", "Takes the time to live of a key away."),
];
