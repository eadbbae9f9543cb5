//! Why a write was refused. A refused write has changed nothing.

use std::error::Error;
use std::fmt;

use crate::entry::KEY_BYTES_MAX;

/// A write that was refused before anything changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// The write would take the engine above `memory_bytes_max`.
    OutOfMemory,
    /// The key holds another kind of value than the operation works on.
    WrongType,
    /// The key is longer than 512 MiB.
    KeyTooLong,
    /// A sorted set cannot order a score that is not a number.
    ScoreNotANumber,
    /// The journal cannot keep what is written, for example because its disk is full.
    NotWritable,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => {
                f.write_str("the write needs more memory than memory_bytes_max allows: remove keys or raise the bound")
            }
            Self::WrongType => f.write_str("the key holds another kind of value than the operation works on"),
            Self::KeyTooLong => write!(f, "the key is longer than {KEY_BYTES_MAX} bytes: use a shorter key"),
            Self::NotWritable => f.write_str(
                "the journal cannot keep what is written at the moment: look at its disk; reads go on, and writes as soon as it can",
            ),
            Self::ScoreNotANumber => f.write_str("the score is not a number: use a finite or an infinite one"),
        }
    }
}

impl Error for EngineError {}
