//! The commands of an append-only file, one by one.
//!
//! # Format
//! Requests of the Redis protocol, one behind the other, and between them lines that begin with `#`, of which `#TS:` notes the time in
//! seconds.

use std::io::BufRead;

use crate::rdb::{Problem, Source};

/// The longest line: a note. Numbers are shorter.
const LINE_BYTES_MAX: usize = 1 << 10;

const NOT_A_COMMAND: Problem = Problem::Damaged("no command begins here");
const NOT_AN_ARGUMENT: Problem = Problem::Damaged("an argument of the command makes no sense");

/// What stands in the file.
pub(super) enum Item {
    /// Its arguments, at least one.
    Command(Vec<Vec<u8>>),
    /// Seconds since 1970.
    Timestamp(u64),
    Note,
}

/// An append-only file that is being read.
pub(super) struct Commands<R> {
    source: Source<R>,
    /// Where in the file the source began.
    start: u64,
}

impl<R: BufRead> Commands<R> {
    pub(super) fn new(input: R, start: u64) -> Self {
        Self { source: Source::new(input), start }
    }

    pub(super) fn offset(&self) -> u64 {
        self.start + self.source.offset()
    }

    /// `None` at the end of the file.
    pub(super) fn next_item(&mut self) -> Result<Option<Item>, Problem> {
        if self.source.is_at_end()? {
            return Ok(None);
        }
        match self.source.byte()? {
            b'#' => {
                let line = self.line()?;
                let timestamp = line.strip_prefix(b"TS:").and_then(number);
                Ok(Some(timestamp.map_or(Item::Note, Item::Timestamp)))
            }
            b'*' => {
                let count = number(&self.line()?).filter(|count| *count > 0).ok_or(NOT_A_COMMAND)?;
                let mut arguments = Vec::new();
                for _ in 0..count {
                    arguments.push(self.argument()?);
                }
                Ok(Some(Item::Command(arguments)))
            }
            _ => Err(NOT_A_COMMAND),
        }
    }

    /// Reads to the end without looking at anything.
    pub(super) fn drain(&mut self) -> Result<(), Problem> {
        self.source.drain()
    }

    fn argument(&mut self) -> Result<Vec<u8>, Problem> {
        if self.source.byte()? != b'$' {
            return Err(NOT_AN_ARGUMENT);
        }
        let len = number(&self.line()?).ok_or(NOT_AN_ARGUMENT)?;
        let mut argument = Vec::new();
        self.source.bytes_of(len, &mut argument)?;
        if self.source.array()? != *b"\r\n" {
            return Err(NOT_AN_ARGUMENT);
        }
        Ok(argument)
    }

    /// A line without its end.
    fn line(&mut self) -> Result<Vec<u8>, Problem> {
        let mut line = Vec::new();
        loop {
            match self.source.byte()? {
                b'\n' => break,
                _ if line.len() == LINE_BYTES_MAX => return Err(Problem::Damaged("a line is too long")),
                byte => line.push(byte),
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    acteon_resp::parse_i64(text).and_then(|number| u64::try_from(number).ok())
}
