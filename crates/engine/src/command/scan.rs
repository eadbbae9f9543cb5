//! The options that SCAN, HSCAN, SSCAN and ZSCAN share, and the shape of their replies.

use acteon_resp::ReplyWriter;

use super::error::CommandError;
use super::options::{integer, is};
use crate::algorithm::glob;

/// Elements per call unless asked for otherwise.
const COUNT_DEFAULT: usize = 10;

/// How to go on, and what to show.
pub(super) struct ScanOptions<'a> {
    pub(super) count: usize,
    /// `None` matches everything.
    pattern: Option<&'a [u8]>,
    /// The type that `TYPE` names; only SCAN takes it.
    pub(super) kind: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads what follows the cursor.
    pub(super) fn parse(words: &[&'a [u8]], takes_type: bool) -> Result<Self, CommandError> {
        let mut options = Self { count: COUNT_DEFAULT, pattern: None, kind: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if is(word, "COUNT") {
                let count = integer(value)?;
                options.count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(CommandError::Syntax)?;
            } else if is(word, "MATCH") {
                options.pattern = (*value != b"*").then_some(*value);
            } else if is(word, "TYPE") && takes_type {
                options.kind = Some(*value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    pub(super) fn shows(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, glob::Case::Sensitive))
    }
}

/// The cursor of a scan, as Redis reads it: by C's `strtoul`, so that no text is 0 and a negative number counts from the end.
pub(super) fn cursor(text: &[u8]) -> Result<u64, CommandError> {
    let (is_negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|digits| digits.parse::<u64>().ok());
    let number = number.ok_or(CommandError::text("ERR invalid cursor"))?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

/// Writes `[next, [elements ..]]`.
pub(super) fn write_page(reply: &mut ReplyWriter<'_>, next: u64, elements: &[Vec<u8>]) {
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    reply.array(elements.len());
    for element in elements {
        reply.bulk(element);
    }
}
