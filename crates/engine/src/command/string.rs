//! Strings and counters.

mod counter;
mod lcs;
mod range;

use super::call::Call;
use super::error::CommandError;
use super::options::{TimeOption, is};
use super::row::{Flags, Group, Row};
use crate::instance::Instance;
use crate::observe::EventClass;
use crate::slot::{Expiry, Slot};

/// Refuses a string that would become longer than `proto-max-bulk-len`.
fn check_len(instance: &Instance, len: Option<usize>) -> Result<usize, CommandError> {
    len.filter(|len| *len as u64 <= instance.bulk_bytes_max())
        .ok_or(CommandError::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)"))
}

fn get(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    match slot.str()? {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
    Ok(())
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`, in any order.
fn set(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let options = Options::parse(&call.args[3..], Accepts::Set)?;
    let expiry = options.expiry(call.now_ms(), "set", Expiry::Clear)?;
    let key = call.args[1];
    let mut slot = if options.get { call.keys.read(key) } else { call.keys.slot(key) };
    let before = if options.get { slot.str()?.map(<[u8]>::to_vec) } else { None };
    let is_met = options.must_exist.is_none_or(|must_exist| slot.exists() == must_exist);
    if is_met {
        write(&mut slot, call.args[2], expiry)?;
        call.effects.changes += 1;
    }
    match before {
        Some(before) => call.reply.bulk(&before),
        None if options.get || !is_met => call.reply.null(),
        None => call.reply.simple("OK"),
    }
    Ok(())
}

fn write(slot: &mut Slot<'_>, value: &[u8], expiry: Expiry) -> Result<(), CommandError> {
    slot.set_text(&[value], expiry)?;
    slot.event(EventClass::STRING, "set");
    if matches!(expiry, Expiry::At(_)) {
        slot.event(EventClass::GENERIC, "expire");
    }
    Ok(())
}

fn setnx(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let is_new = !slot.exists();
    if is_new {
        write(&mut slot, call.args[2], Expiry::Clear)?;
        call.effects.changes += 1;
    }
    call.reply.integer(i64::from(is_new));
    Ok(())
}

fn setex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_for(call, TimeOption::Seconds, "setex")
}

fn psetex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_for(call, TimeOption::Milliseconds, "psetex")
}

fn set_for(call: &mut Call<'_, '_>, unit: TimeOption, command: &str) -> Result<(), CommandError> {
    let expiry = Expiry::At(unit.deadline_ms(call.args[2], call.now_ms(), command)?);
    write(&mut call.keys.slot(call.args[1]), call.args[3], expiry)?;
    call.effects.changes += 1;
    call.reply.simple("OK");
    Ok(())
}

fn getset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.read(call.args[1]);
    match slot.str()? {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
    write(&mut slot, call.args[2], Expiry::Clear)?;
    call.effects.changes += 1;
    Ok(())
}

fn getdel(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.read(call.args[1]);
    match slot.str()? {
        Some(value) => call.reply.bulk(value),
        None => {
            call.reply.null();
            return Ok(());
        }
    }
    slot.remove();
    slot.event(EventClass::GENERIC, "del");
    call.effects.changes += 1;
    Ok(())
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`
fn getex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let options = Options::parse(&call.args[2..], Accepts::GetEx)?;
    let now_ms = call.now_ms();
    let mut slot = call.keys.read(call.args[1]);
    match slot.str()? {
        Some(value) => call.reply.bulk(value),
        None => {
            call.reply.null();
            return Ok(());
        }
    }
    let expiry = options.expiry(now_ms, "getex", Expiry::Keep)?;
    match expiry {
        Expiry::Keep => {}
        Expiry::Clear => {
            if slot.deadline_ms().is_some() {
                slot.set_expiry(Expiry::Clear);
                slot.event(EventClass::GENERIC, "persist");
                call.effects.changes += 1;
            }
        }
        Expiry::At(at_ms) => {
            slot.set_expiry(expiry);
            slot.event(EventClass::GENERIC, if at_ms < now_ms { "del" } else { "expire" });
            call.effects.changes += 1;
        }
    }
    Ok(())
}

fn mget(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.array(call.args.len() - 1);
    for key in &call.args[1..] {
        // Another type counts as nothing here.
        match call.keys.read(key).str() {
            Ok(Some(value)) => call.reply.bulk(value),
            Ok(None) | Err(_) => call.reply.null(),
        }
    }
    Ok(())
}

fn mset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    check_pairs(call, "mset")?;
    write_all(call)?;
    call.reply.simple("OK");
    Ok(())
}

fn msetnx(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    check_pairs(call, "msetnx")?;
    let exists = call.args[1..].iter().step_by(2).any(|key| call.keys.slot(key).exists());
    if !exists {
        write_all(call)?;
    }
    call.reply.integer(i64::from(!exists));
    Ok(())
}

fn check_pairs(call: &Call<'_, '_>, command: &str) -> Result<(), CommandError> {
    if call.args.len().is_multiple_of(2) { Err(CommandError::wrong_arity(command)) } else { Ok(()) }
}

fn write_all(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    for pair in call.args[1..].chunks_exact(2) {
        write(&mut call.keys.slot(pair[0]), pair[1], Expiry::Clear)?;
        call.effects.changes += 1;
    }
    Ok(())
}

/// Options of SET and GETEX.
#[derive(Default)]
struct Options<'a> {
    /// `Some(true)` for XX, `Some(false)` for NX.
    must_exist: Option<bool>,
    get: bool,
    time: Time<'a>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Time<'a> {
    #[default]
    Unsaid,
    /// KEEPTTL
    Keep,
    /// PERSIST
    Clear,
    Option(TimeOption, &'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Set,
    GetEx,
}

impl<'a> Options<'a> {
    /// Options exclude each other as in Redis; the same one may be repeated, and the last one counts.
    fn parse(words: &[&'a [u8]], accepts: Accepts) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let is_set = accepts == Accepts::Set;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if is_set && is(word, "NX") && options.must_exist != Some(true) {
                options.must_exist = Some(false);
            } else if is_set && is(word, "XX") && options.must_exist != Some(false) {
                options.must_exist = Some(true);
            } else if is_set && is(word, "GET") {
                options.get = true;
            } else if is_set && is(word, "KEEPTTL") && matches!(options.time, Time::Unsaid | Time::Keep) {
                options.time = Time::Keep;
            } else if !is_set && is(word, "PERSIST") && matches!(options.time, Time::Unsaid | Time::Clear) {
                options.time = Time::Clear;
            } else if let Some(unit) = TimeOption::parse(word)
                && options.time.allows(unit)
                && let Some(text) = words.next()
            {
                options.time = Time::Option(unit, text);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    fn expiry(&self, now_ms: u64, command: &str, unsaid: Expiry) -> Result<Expiry, CommandError> {
        Ok(match self.time {
            Time::Unsaid => unsaid,
            Time::Keep => Expiry::Keep,
            Time::Clear => Expiry::Clear,
            Time::Option(unit, text) => Expiry::At(unit.deadline_ms(text, now_ms, command)?),
        })
    }
}

impl Time<'_> {
    fn allows(self, unit: TimeOption) -> bool {
        match self {
            Self::Unsaid => true,
            Self::Option(before, _) => before == unit,
            Self::Keep | Self::Clear => false,
        }
    }
}

const READ_FAST: &[Flags] = &[Flags::READONLY, Flags::FAST];
const WRITE: &[Flags] = &[Flags::WRITE, Flags::DENYOOM];
const WRITE_FAST: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::FAST];

pub(super) const ROWS: &[Row] = &[
    Row::new("get", 2, Group::String, get).flags(READ_FAST).keys(1, 1, 1).docs("1.0.0", "The string of a key."),
    Row::new("set", -3, Group::String, set)
        .flags(WRITE)
        .brief()
        .keys(1, 1, 1)
        .docs("1.0.0", "Makes a key a string, whatever it held, with conditions and a time to live."),
    Row::new("setnx", 3, Group::String, setnx)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "Makes a key a string unless it is there."),
    Row::new("setex", 4, Group::String, setex)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("2.0.0", "Makes a key a string for some seconds."),
    Row::new("psetex", 4, Group::String, psetex)
        .flags(WRITE)
        .keys(1, 1, 1)
        .docs("2.6.0", "Makes a key a string for some milliseconds."),
    Row::new("getset", 3, Group::String, getset)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "Makes a key a string and returns what it was; SET with GET does the same."),
    Row::new("getdel", 2, Group::String, getdel)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, 1, 1)
        .docs("6.2.0", "Returns the string of a key and removes the key."),
    Row::new("getex", -2, Group::String, getex)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(1, 1, 1)
        .docs("6.2.0", "Returns the string of a key and changes its time to live."),
    Row::new("mget", -2, Group::String, mget)
        .flags(READ_FAST)
        .keys(1, -1, 1)
        .docs("1.0.0", "The strings of several keys."),
    Row::new("mset", -3, Group::String, mset)
        .flags(WRITE)
        .keys(1, -1, 2)
        .docs("1.0.1", "Makes several keys strings, all at once."),
    Row::new("msetnx", -3, Group::String, msetnx)
        .flags(WRITE)
        .keys(1, -1, 2)
        .docs("1.0.1", "Makes several keys strings unless one of them is there."),
    range::STRLEN,
    range::APPEND,
    range::GETRANGE,
    range::SUBSTR,
    range::SETRANGE,
    counter::INCR,
    counter::DECR,
    counter::INCRBY,
    counter::DECRBY,
    counter::INCRBYFLOAT,
    lcs::LCS,
];
