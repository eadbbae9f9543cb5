//! Strings and counters.

use super::call::Call;
use super::error::CommandError;
use super::options::{TimeOption, is};
use super::row::{Flags, Group, Row};
use crate::observe::EventClass;
use crate::slot::Expiry;

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
    let now_ms = call.now_ms();
    let options = SetOptions::parse(&call.args[3..], now_ms)?;
    let mut slot = call.keys.slot(call.args[1]);
    let before = if options.get { slot.str()?.map(<[u8]>::to_vec) } else { None };
    let is_met = match options.condition {
        None => true,
        Some(must_exist) => slot.exists() == must_exist,
    };
    if is_met {
        slot.set_text(&[call.args[2]], options.expiry)?;
        slot.event(EventClass::STRING, "set");
        if matches!(options.expiry, Expiry::At(_)) {
            slot.event(EventClass::GENERIC, "expire");
        }
        call.effects.changes += 1;
    }
    match (options.get, before) {
        (true, Some(before)) => call.reply.bulk(&before),
        (true, None) => call.reply.null(),
        (false, _) if is_met => call.reply.simple("OK"),
        (false, _) => call.reply.null(),
    }
    Ok(())
}

struct SetOptions {
    /// `Some(true)` for XX, `Some(false)` for NX.
    condition: Option<bool>,
    get: bool,
    expiry: Expiry,
}

impl SetOptions {
    fn parse(words: &[&[u8]], now_ms: u64) -> Result<Self, CommandError> {
        let mut options = Self { condition: None, get: false, expiry: Expiry::Clear };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if is(word, "NX") && options.condition != Some(true) {
                options.condition = Some(false);
            } else if is(word, "XX") && options.condition != Some(false) {
                options.condition = Some(true);
            } else if is(word, "GET") {
                options.get = true;
            } else if is(word, "KEEPTTL") && !matches!(options.expiry, Expiry::At(_)) {
                options.expiry = Expiry::Keep;
            } else if let Some(time) = TimeOption::parse(word)
                && options.expiry == Expiry::Clear
                && let Some(text) = words.next()
            {
                options.expiry = Expiry::At(time.deadline_ms(text, now_ms, "set")?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

pub(super) const ROWS: &[Row] = &[
    Row::new("get", 2, Group::String, get)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(1, 1, 1)
        .docs("1.0.0", "The string of a key."),
    Row::new("set", -3, Group::String, set)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, 1, 1)
        .docs("1.0.0", "Makes a key a string, whatever it held, with conditions and a time to live."),
];
