//! COMMAND GETKEYS: the keys of a command that somebody else is to carry out.
//!
//! # How it works
//! The key specifications find them. Where these leave open what happens to a key, or where the keys are, the arguments decide.

use super::facts::{self, Begin, Find, KeySpec};
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::is;
use crate::command::row::Flags;
use crate::command::{Command, check_arity, look_up};

const READS: &[&str] = &["RO", "access"];
const OVERWRITES: &[&str] = &["OW", "update"];
const READS_AND_WRITES: &[&str] = &["RW", "access", "update"];

/// A key: its position among the arguments, and what is done to it.
struct Key<'a> {
    at: usize,
    flags: &'a [&'static str],
}

pub(super) fn getkeys(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let args = &call.args[2..];
    let keys = find(args)?;
    call.reply.array(keys.len());
    keys.iter().for_each(|key| call.reply.bulk(args[key.at]));
    Ok(())
}

pub(super) fn getkeysandflags(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let args = &call.args[2..];
    let keys = find(args)?;
    call.reply.array(keys.len());
    for key in keys {
        call.reply.array(2);
        call.reply.bulk(args[key.at]);
        call.reply.set(key.flags.len());
        key.flags.iter().for_each(|flag| call.reply.simple(flag));
    }
    Ok(())
}

fn find(args: &[&[u8]]) -> Result<Vec<Key<'static>>, CommandError> {
    let command = look_up(args).map_err(|_| CommandError::text("ERR Invalid command specified"))?;
    let specs = facts::keys(&command.full_name());
    if !specs.iter().any(KeySpec::is_about_keys) {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    check_arity(&command, args)
        .map_err(|_| CommandError::text("ERR Invalid number of arguments specified for command"))?;
    let keys = by_arguments(&command, args).or_else(|| by_specs(specs, args)).or_else(|| by_loose_count(specs, args));
    let keys = keys.unwrap_or_default();
    if keys.is_empty() && !command.row.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    Ok(keys)
}

/// The keys of commands whose specifications do not say everything.
fn by_arguments(command: &Command, args: &[&[u8]]) -> Option<Vec<Key<'static>>> {
    let only_key = match command.row.name {
        "sort" => {
            let stored = sort_destination(args).map(|at| Key { at, flags: OVERWRITES });
            return Some([Key { at: 1, flags: READS }].into_iter().chain(stored).collect());
        }
        "sort_ro" => READS,
        "set" if args[3..].iter().any(|arg| is(arg, "GET")) => READS_AND_WRITES,
        "set" => OVERWRITES,
        "bitfield" if only_reads(&args[2..]) => READS,
        "bitfield" => READS_AND_WRITES,
        _ => return None,
    };
    Some(vec![Key { at: 1, flags: only_key }])
}

/// Where a SORT stores, if it does: after the last STORE that is not the value of another option. The options need not make sense.
fn sort_destination(args: &[&[u8]]) -> Option<usize> {
    let (mut at, mut found) = (2, None);
    while let Some(word) = args.get(at) {
        if is(word, "STORE") && at + 1 < args.len() {
            found = Some(at + 1);
        }
        at += match () {
            () if is(word, "LIMIT") => 3,
            () if is(word, "BY") || is(word, "GET") => 2,
            () => 1,
        };
    }
    found
}

/// Whether the operations of a BITFIELD leave the key as it is, as far as they can be read.
fn only_reads(mut words: &[&[u8]]) -> bool {
    while let Some((word, after)) = words.split_first() {
        let takes = match () {
            () if is(word, "GET") => 2,
            () if is(word, "OVERFLOW") => 1,
            () => return false,
        };
        let Some(rest) = after.get(takes..) else { return false };
        words = rest;
    }
    true
}

/// The keys that specifications find; `None` if one of them does not fit the arguments.
fn by_specs(specs: &'static [KeySpec], args: &[&[u8]]) -> Option<Vec<Key<'static>>> {
    let mut keys = Vec::new();
    for spec in specs.iter().filter(|spec| spec.is_about_keys()) {
        let begin = match spec.begin {
            Begin::Index(begin) => usize::try_from(begin).ok()?,
            Begin::Keyword(word, from) => match after_keyword(args, word, from) {
                Some(begin) => begin,
                None => continue,
            },
            Begin::Unknown => return None,
        };
        let (first, last, step) = range(&spec.find, begin, args)?;
        if first > last || last >= args.len() {
            return None;
        }
        keys.extend((first..=last).step_by(step).map(|at| Key { at, flags: &spec.flags }));
    }
    Some(keys)
}

/// Where the number of keys is not written as numbers are, Redis takes what stands at its beginning; stored keys come last then, and nothing is
/// said of what is done to keys.
fn by_loose_count(specs: &'static [KeySpec], args: &[&[u8]]) -> Option<Vec<Key<'static>>> {
    let (mut counted, mut stored) = (None, None);
    for spec in specs.iter().filter(|spec| spec.is_about_keys()) {
        let Begin::Index(begin) = spec.begin else { return None };
        match spec.find {
            Find::Count { count_at, first, step } => {
                let count = leading_number(args.get(usize::try_from(begin.checked_add(count_at)?).ok()?)?);
                let first = usize::try_from(begin.checked_add(first)?).ok()?;
                let step = usize::try_from(step).ok()?;
                let room = args.len().checked_sub(first)?.checked_div(step)?;
                let count = usize::try_from(count).ok().filter(|count| (1..=room).contains(count))?;
                counted = Some((first..).step_by(step).take(count));
            }
            Find::Range { .. } => stored = Some(usize::try_from(begin).ok()?),
            Find::Unknown => return None,
        }
    }
    Some(counted?.chain(stored).map(|at| Key { at, flags: &[] }).collect())
}

/// The number at the beginning of a text as C's `atoi` finds it, cut to 32 bits as there; 0 if there is none.
fn leading_number(text: &[u8]) -> i32 {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r')).unwrap_or(text.len());
    let text = &text[start..];
    let (is_negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        Some((b'+', digits)) => (false, digits),
        _ => (false, text),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).map(|digit| i64::from(digit - b'0'));
    let append = |number: i64, digit| {
        let number = number.saturating_mul(10);
        if is_negative { number.saturating_sub(digit) } else { number.saturating_add(digit) }
    };
    digits.fold(0, append) as i32
}

/// The position after a keyword that is looked for from a position on. The last argument is none: nothing would follow it.
fn after_keyword(args: &[&[u8]], word: &str, from: i64) -> Option<usize> {
    let from = usize::try_from(from).ok()?;
    let before_last = args.get(from..args.len().checked_sub(1)?)?;
    before_last.iter().position(|arg| is(arg, word)).map(|position| from + position + 1)
}

/// The first position, the last one, and the step between two.
fn range(find: &Find, begin: usize, args: &[&[u8]]) -> Option<(usize, usize, usize)> {
    let (first, last, step) = match *find {
        Find::Range { last, step, limit } => {
            let first = begin as i64;
            let len = args.len() as i64;
            // A limit of 2 stops halfway through the rest, and so on.
            let last = match (last, limit) {
                (0.., _) => first + last,
                (_, ..=1) => len + last,
                _ => first + (len - first) / limit + last,
            };
            (first, last, step)
        }
        Find::Count { count_at, first, step } => {
            let count_at = usize::try_from(count_at).ok()?.checked_add(begin)?;
            // Cut to 32 bits, as in Redis.
            let count = i64::from(acteon_resp::parse_i64(args.get(count_at)?)? as i32);
            let first = first.checked_add(begin as i64)?;
            (first, count.checked_sub(1)?.checked_mul(step)?.checked_add(first)?, step)
        }
        Find::Unknown => return None,
    };
    Some((usize::try_from(first).ok()?, usize::try_from(last).ok()?, usize::try_from(step).ok()?))
}

#[cfg(test)]
mod tests {
    use super::leading_number;

    #[test]
    fn numbers_are_read_as_atoi_reads_them() {
        for (text, number) in [
            ("3", 3),
            (" \t\x0b01", 1),
            ("+2", 2),
            ("-7x", -7),
            ("x", 0),
            ("", 0),
            ("- 1", 0),
            ("4294967298", 2),
            ("99999999999999999999", -1),
        ] {
            assert_eq!(leading_number(text.as_bytes()), number, "{text:?}");
        }
    }
}
