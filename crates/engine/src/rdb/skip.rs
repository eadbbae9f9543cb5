//! Reading past what the engine does not have: streams, and what modules have written.
//!
//! # Guarantees
//! What comes behind is found, without understanding any of it: both forms say what they consist of. Only values of modules before
//! Redis 4 do not, and cannot be passed.

use std::io::BufRead;

use super::decode::unsupported;
use super::error::Problem;
use super::source::Source;
use super::types;

/// The bytes of a stream's entry id.
const STREAM_ID_BYTES: u64 = 16;

/// The bytes of a moment, in milliseconds.
const TIME_BYTES: u64 = 8;

/// A kind of value that can be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    Stream,
    Module,
}

impl Skipped {
    /// What the type byte `kind` stands for, if it is one of those.
    pub(super) fn of(kind: u8) -> Option<Self> {
        match kind {
            types::STREAM | types::STREAM_2 | types::STREAM_3 => Some(Self::Stream),
            types::MODULE_2 => Some(Self::Module),
            _ => None,
        }
    }
}

/// Reads past the value that follows the type byte `kind`.
pub(super) fn value<R: BufRead>(kind: u8, source: &mut Source<R>) -> Result<(), Problem> {
    match Skipped::of(kind) {
        Some(Skipped::Stream) => stream(kind, source),
        Some(Skipped::Module) => {
            source.number()?;
            module_parts(source)
        }
        None => Err(unsupported(kind)),
    }
}

/// Reads past what a module keeps besides values.
pub(super) fn module_aux<R: BufRead>(source: &mut Source<R>) -> Result<(), Problem> {
    // The module, then the word for a number, and the number: whether this was written before or behind the keys.
    numbers(3, source)?;
    module_parts(source)
}

/// The parts say what they are, and where they end.
fn module_parts<R: BufRead>(source: &mut Source<R>) -> Result<(), Problem> {
    const END: u64 = 0;
    const SIGNED: u64 = 1;
    const UNSIGNED: u64 = 2;
    const FLOAT: u64 = 3;
    const DOUBLE: u64 = 4;
    const STRING: u64 = 5;
    loop {
        match source.number()? {
            END => return Ok(()),
            SIGNED | UNSIGNED => numbers(1, source)?,
            FLOAT => source.skip(4)?,
            DOUBLE => source.skip(8)?,
            STRING => source.skip_string()?,
            _ => return Err(Problem::Damaged("a value of a module has a part that does not exist")),
        }
    }
}

fn stream<R: BufRead>(kind: u8, source: &mut Source<R>) -> Result<(), Problem> {
    let (is_second, is_third) = (kind != types::STREAM, kind == types::STREAM_3);
    for _ in 0..source.number()? {
        // The id that the node begins with, and its entries.
        source.skip_string()?;
        source.skip_string()?;
    }
    // The length, and the last id. From version 10 on: the first id, the highest that was deleted, and the entries ever added.
    numbers(if is_second { 8 } else { 3 }, source)?;
    for _ in 0..source.number()? {
        group(is_second, is_third, source)?;
    }
    Ok(())
}

/// A group of consumers.
fn group<R: BufRead>(is_second: bool, is_third: bool, source: &mut Source<R>) -> Result<(), Problem> {
    source.skip_string()?;
    // The last id delivered. From version 10 on: the entries read.
    numbers(if is_second { 3 } else { 2 }, source)?;
    for _ in 0..source.number()? {
        // An entry that waits for its acknowledgement: its id, when it was delivered, and how often.
        source.skip(STREAM_ID_BYTES + TIME_BYTES)?;
        numbers(1, source)?;
    }
    for _ in 0..source.number()? {
        // A consumer: its name, when it was seen, from version 11 on when it was active, and what it has not acknowledged.
        source.skip_string()?;
        source.skip(if is_third { 2 * TIME_BYTES } else { TIME_BYTES })?;
        for _ in 0..source.number()? {
            source.skip(STREAM_ID_BYTES)?;
        }
    }
    Ok(())
}

fn numbers<R: BufRead>(count: usize, source: &mut Source<R>) -> Result<(), Problem> {
    (0..count).try_for_each(|_| source.number().map(drop))
}
