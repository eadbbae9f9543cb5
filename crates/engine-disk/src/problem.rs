//! What is wrong with a directory: in which file, where, and what helps against it.
//!
//! What to do is not a part of the message. It depends on what somebody was about to do: the same damage is met at a start, by a verification that
//! was asked for, after a repair, and in a backup. Whoever knows that puts [`Remedy`] into words.

use std::fmt;
use std::io;

use acteon_engine::ChangeError;
use acteon_engine::rdb::{Problem as RdbProblem, RdbError};

use crate::format::VERSION;
use crate::manifest::{DUMP, MANIFEST, ManifestProblem, Named};
use crate::scan::{Damage, What};
use crate::storage::FileError;

/// Something that is wrong with a directory.
#[derive(Debug)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Where in it, if it is a place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What helps against a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// [`repair`](crate::repair), which keeps what comes before the damage.
    Repair,
    /// A backup: what is wrong cannot be mended.
    Backup,
    /// The newer program that has written it.
    NewerProgram,
    /// Whatever keeps the file from being read or written.
    Disk,
    /// An import of what a Redis has left, which may leave out what the engine has not.
    Import,
}

/// What is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file could not be read or written.
    Io(FileError),
    /// The manifest names the file, and it is not there.
    Missing,
    /// Bytes have changed since they were written, or are missing in the middle.
    Damaged(String),
    /// A newer version of this program has written it.
    Newer(u32),
    /// There are files with data, but no manifest that says which of them count.
    NoManifest,
    /// The file does not begin where the one before ends.
    Gap {
        /// The position after the one before.
        expected: u64,
        /// The position that it begins with.
        found: u64,
    },
    /// A base or dump cannot be read.
    Base(RdbError),
    /// A Redis has kept what came after this dump in append-only files beside it: beginning with the dump would lose that.
    OlderDump,
    /// A group of changes does not fit what was there.
    Change {
        /// Which group.
        position: u64,
        /// Why.
        source: ChangeError,
    },
}

impl Problem {
    pub(crate) fn io(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| {
            let kind = match source.kind() {
                io::ErrorKind::NotFound => ProblemKind::Missing,
                _ => ProblemKind::Io(FileError { operation, file: file.clone(), source }),
            };
            Self { file, offset: None, kind }
        }
    }

    pub(crate) fn damaged(file: &str, offset: Option<u64>, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), offset, kind: ProblemKind::Damaged(what.into()) }
    }

    pub(crate) fn of_journal(file: &str, damage: Damage) -> Self {
        let kind = match damage.what {
            What::Header(crate::format::HeaderProblem::Newer(version)) => ProblemKind::Newer(version),
            what => ProblemKind::Damaged(what.to_string()),
        };
        Self { file: file.to_owned(), offset: Some(damage.offset), kind }
    }

    pub(crate) fn of_manifest(problem: ManifestProblem) -> Self {
        match problem {
            ManifestProblem::Damaged => Self::damaged(MANIFEST, None, "its checksum does not fit its lines"),
            ManifestProblem::Newer(version) => {
                Self { file: MANIFEST.to_owned(), offset: None, kind: ProblemKind::Newer(version) }
            }
        }
    }

    /// What helps against it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match &self.kind {
            ProblemKind::Io(_) => Remedy::Disk,
            ProblemKind::Newer(_) => Remedy::NewerProgram,
            ProblemKind::Base(error) => match error.problem() {
                RdbProblem::Io(_) => Remedy::Disk,
                RdbProblem::Format(_) => Remedy::NewerProgram,
                RdbProblem::Unsupported(_) if self.file == DUMP => Remedy::Import,
                _ => Remedy::Backup,
            },
            // Whole groups are not taken apart by a repair.
            ProblemKind::Change { source, .. } if source.is_mismatch() => Remedy::Backup,
            // All that comes after it builds on it.
            ProblemKind::Missing | ProblemKind::Damaged(_) if Named::of(&self.file).base().is_some() => Remedy::Backup,
            ProblemKind::Damaged(_) if self.file == DUMP => Remedy::Backup,
            ProblemKind::OlderDump => Remedy::Import,
            ProblemKind::Missing
            | ProblemKind::Damaged(_)
            | ProblemKind::NoManifest
            | ProblemKind::Gap { .. }
            | ProblemKind::Change { .. } => Remedy::Repair,
        }
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        Self { file: error.file.clone(), offset: None, kind: ProblemKind::Io(error) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        match &self.kind {
            ProblemKind::Io(error) => write!(f, ": {error}"),
            ProblemKind::Missing => f.write_str(": the manifest names this file, and it is not there"),
            ProblemKind::Damaged(what) => write!(f, ": damaged: {what}"),
            ProblemKind::Newer(version) => {
                write!(f, ": this is version {version} of the format, and this program knows up to {VERSION}")
            }
            ProblemKind::NoManifest => f.write_str(": this file holds data, but there is no manifest beside it"),
            ProblemKind::Gap { expected, found } => {
                write!(f, ": it should begin with group {expected}, and begins with {found}")
            }
            ProblemKind::Base(error) => write!(f, ": {error}"),
            ProblemKind::OlderDump => {
                f.write_str(": the append-only files of a Redis lie beside it, with what came after this dump")
            }
            ProblemKind::Change { position, source } => write!(f, ": group {position}: {source}"),
        }
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ProblemKind::Io(error) => Some(error),
            ProblemKind::Base(error) => Some(error),
            ProblemKind::Change { source, .. } => Some(source),
            _ => None,
        }
    }
}
