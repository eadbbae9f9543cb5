//! Why data of a Redis cannot be taken over: in which file, where, and what to do.

use std::error::Error;
use std::fmt;
use std::io;

use crate::rdb::RdbError;

/// Why an import stopped.
#[derive(Debug)]
pub struct ImportError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub problem: ImportProblem,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImportProblem {
    /// It cannot be opened or read.
    Open(io::Error),
    /// It is a dump, or begins with one, that cannot be read.
    Dump(RdbError),
    /// It cannot be read on.
    Read {
        /// How many bytes were read before.
        offset: u64,
        /// What the reader says.
        source: io::Error,
    },
    /// It is not a list of commands.
    Damaged {
        /// Where the command begins that makes no sense.
        offset: u64,
        /// In which way.
        how: &'static str,
    },
    /// It ends within a command, although another file follows.
    TornInTheMiddle {
        /// Where the last whole command ends.
        offset: u64,
        /// What comes after that.
        bytes: u64,
    },
    /// The engine does not have the command, or it changes no data.
    UnknownCommand {
        /// Where the command begins.
        offset: u64,
        /// Its name.
        name: String,
    },
    /// The command was not carried out.
    Refused {
        /// Where the command begins.
        offset: u64,
        /// Its name.
        name: String,
        /// The error reply.
        reply: String,
    },
}

impl ImportError {
    pub(super) fn new(file: &str, problem: ImportProblem) -> Self {
        Self { file: file.to_owned(), problem }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

impl fmt::Display for ImportProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "cannot be read: {error}"),
            Self::Dump(error) => error.fmt(f),
            Self::Read { offset, source } => write!(f, "byte {offset}: cannot read on: {source}"),
            Self::Damaged { offset, how } => {
                write!(f, "byte {offset}: {how}: repair a copy with redis-check-aof --fix, or use another copy")
            }
            Self::TornInTheMiddle { offset, bytes } => write!(
                f,
                "byte {offset}: the file ends within a command, {bytes} bytes later, although it is not the last one: use another copy of it"
            ),
            Self::UnknownCommand { offset, name } => write!(
                f,
                "byte {offset}: {name} is no command that changes data here: remove its keys and let Redis rewrite its files, or skip such commands"
            ),
            Self::Refused { offset, name, reply } => {
                write!(f, "byte {offset}: {name} was answered with an error: {reply}")
            }
        }
    }
}

impl Error for ImportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

impl Error for ImportProblem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(source) | Self::Read { source, .. } => Some(source),
            Self::Dump(error) => error.source(),
            _ => None,
        }
    }
}
