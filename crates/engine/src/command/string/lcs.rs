//! LCS: the longest common subsequence of two strings.

use crate::algorithm::lcs::{self, LcsError};
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::{integer, is};
use crate::command::row::{Flags, Group, Row};

pub(super) const LCS: Row = Row::new("lcs", -3, Group::String, lcs)
    .flags(&[Flags::READONLY])
    .keys(1, 2, 1)
    .docs("7.0.0", "The longest common subsequence of two strings, its length, or where it lies.");

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    match_len_min: i64,
}

impl Options {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if is(word, "LEN") {
                options.len = true;
            } else if is(word, "IDX") {
                options.idx = true;
            } else if is(word, "WITHMATCHLEN") {
                options.with_match_len = true;
            } else if is(word, "MINMATCHLEN")
                && let Some(text) = words.next()
            {
                options.match_len_min = integer(text)?.max(0);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if options.len && options.idx {
            return Err(CommandError::text("ERR If you want both the length and indexes, please just use IDX."));
        }
        Ok(options)
    }
}

fn lcs(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let first = text(call, 1)?;
    let second = text(call, 2)?;
    let options = Options::parse(&call.args[3..])?;
    lcs::check(&first, &second, call.instance.bulk_bytes_max()).map_err(|error| {
        CommandError::text(match error {
            LcsError::TooLong => "ERR String too long for LCS",
            LcsError::TooMuchMemory => "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        })
    })?;
    if options.len {
        call.reply.integer(lcs::length(&first, &second) as i64);
    } else if options.idx {
        write_matches(call, &first, &second, &options);
    } else {
        call.reply.bulk(&lcs::subsequence(&first, &second));
    }
    Ok(())
}

fn text(call: &mut Call<'_, '_>, position: usize) -> Result<Vec<u8>, CommandError> {
    let slot = call.keys.read(call.args[position]);
    let text = slot.str().map_err(|_| CommandError::text("ERR The specified keys must contain string values"))?;
    Ok(text.unwrap_or_default().to_vec())
}

fn write_matches(call: &mut Call<'_, '_>, first: &[u8], second: &[u8], options: &Options) {
    let (matches, length) = lcs::matches(first, second);
    let shown: Vec<_> = matches.iter().filter(|found| found.len() as i64 >= options.match_len_min).collect();
    call.reply.map(2);
    call.reply.bulk(b"matches");
    call.reply.array(shown.len());
    for found in shown {
        call.reply.array(if options.with_match_len { 3 } else { 2 });
        for range in [&found.first, &found.second] {
            call.reply.array(2);
            call.reply.integer(*range.start() as i64);
            call.reply.integer(*range.end() as i64);
        }
        if options.with_match_len {
            call.reply.integer(found.len() as i64);
        }
    }
    call.reply.bulk(b"len");
    call.reply.integer(length as i64);
}
