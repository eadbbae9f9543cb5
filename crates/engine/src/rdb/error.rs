//! Why an RDB file or value cannot be read: where, in which key, and what to do.

use std::error::Error;
use std::fmt;
use std::io;

use super::{FORMAT, VERSION_READ_MAX};

/// Most bytes of a key that a message repeats.
const KEY_SHOWN_BYTES_MAX: usize = 64;

/// Why reading stopped.
#[derive(Debug)]
pub struct RdbError {
    /// How many bytes were read before.
    offset: u64,
    /// The key that was being read.
    place: Option<KeyPlace>,
    problem: Problem,
}

/// A key of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The number of the database.
    pub database: u64,
    /// The key.
    pub key: Vec<u8>,
}

/// What is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The input could not be read.
    Io(io::Error),
    /// The input ends where more has to come.
    Truncated,
    /// The input does not begin as an RDB file does.
    NotRdb,
    /// A version that is not known here.
    Version(u32),
    /// The file was written by a version of Acteon that has added to the format what is not known here.
    Format(Vec<u8>),
    /// The checksum at the end is not that of what was read.
    Checksum {
        /// What the input says.
        expected: u64,
        /// What its bytes come to.
        found: u64,
    },
    /// A kind of value that the engine does not have.
    Unsupported(&'static str),
    /// A byte that stands for no type and no opcode of the known versions.
    UnknownType(u8),
    /// A key or string that is longer than the engine can hold.
    TooLong(u64),
    /// A key of a database that is not there.
    NoSuchDatabase {
        /// How many there are.
        count: usize,
    },
    /// Bytes that make no sense, and in which way.
    Damaged(&'static str),
}

impl RdbError {
    pub(crate) fn new(offset: u64, place: Option<KeyPlace>, problem: Problem) -> Self {
        Self { offset, place, problem }
    }

    /// How many bytes were read before the problem was found.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The key that was being read.
    #[must_use]
    pub fn place(&self) -> Option<&KeyPlace> {
        self.place.as_ref()
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for RdbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.offset)?;
        if let Some(place) = &self.place {
            write!(f, ", {place}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.key.get(..KEY_SHOWN_BYTES_MAX).unwrap_or(&self.key);
        let more = if shown.len() < self.key.len() { ".." } else { "" };
        write!(f, "key \"{}\"{more} of database {}", shown.escape_ascii(), self.database)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COPY: &str = "use another copy of the file";
        match self {
            Self::Io(error) => write!(f, "cannot read on: {error}"),
            Self::Truncated => write!(f, "the file ends too early: {COPY}, or copy it again"),
            Self::NotRdb => f.write_str("this is no RDB file: it does not begin with REDIS and four digits"),
            Self::Version(version) => write!(
                f,
                "RDB version {version} is not supported, only 1 to {VERSION_READ_MAX}: write the file with Redis 7.2 or older"
            ),
            Self::Format(format) => write!(
                f,
                "the file has format {} of Acteon, and {FORMAT} is the last one known here: read it with the version that wrote it",
                format.escape_ascii()
            ),
            Self::Checksum { expected, found } => {
                write!(
                    f,
                    "its bytes have the checksum {found:016x} and not {expected:016x}, so some of them are wrong: {COPY}"
                )
            }
            Self::Unsupported(what) => {
                write!(f, "{what} cannot be held here: remove the key before the file is written, or skip such keys")
            }
            Self::UnknownType(number) => {
                write!(f, "{number} is no type of RDB up to version {VERSION_READ_MAX}: the file is newer, or damaged")
            }
            Self::TooLong(bytes) => {
                write!(f, "a key or string of {bytes} bytes is longer than the engine can hold: {COPY}")
            }
            Self::NoSuchDatabase { count } => {
                write!(
                    f,
                    "there are only {count} databases here: raise their number to that of the Redis that wrote the file"
                )
            }
            Self::Damaged(how) => write!(f, "{how}: {COPY}"),
        }
    }
}

impl Error for RdbError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
