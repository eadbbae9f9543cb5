//! What is asked of a directory: a real one, or one that fails by plan.
//!
//! # Guarantees expected of an implementation
//! What was appended or overwritten before a successful [`File::sync`] survives a crash. Names that were created, renamed and removed before a successful
//! [`Storage::sync_directory`] are so after a crash; a rename takes effect as a whole or not at all. Nothing is expected of anything
//! else: it may survive in part.
//!
//! # Failure
//! An operation that fails may have had a part of its effect.

mod files;

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

pub use files::Files;

/// A directory.
pub trait Storage: Send + Sync {
    /// Creates the file, empty; one of that name is emptied.
    ///
    /// # Errors
    /// Those of the directory.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file that is there, to go on at its end.
    ///
    /// # Errors
    /// Those of the directory.
    fn open_to_append(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file to be read from its start.
    ///
    /// # Errors
    /// Those of the directory.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// Those of the directory.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// Renames a file, in the place of one that has the new name already.
    ///
    /// # Errors
    /// Those of the directory.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the directory.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes what anybody has written to a file survive a crash, and its length. A file that is on the disk already costs little.
    ///
    /// # Errors
    /// Those of the file; what is said of [`File::sync`] holds for it.
    fn sync(&self, name: &str) -> io::Result<()> {
        self.open_to_append(name)?.sync()
    }

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// Those of the directory.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes what was created, renamed and removed survive a crash.
    ///
    /// # Errors
    /// Those of the directory; afterwards nothing is known of what survives.
    fn sync_directory(&self) -> io::Result<()>;

    /// Takes the directory for one writer, until what is returned is dropped or the process ends.
    ///
    /// # Errors
    /// [`LockError::Held`] if there is one.
    fn lock(&self) -> Result<Lock, LockError>;

    /// Where it is, if it is in a file system: backups link files from there instead of copying them.
    fn path(&self) -> Option<&Path> {
        None
    }
}

/// What keeps a directory locked.
pub type Lock = Box<dyn Send + Sync>;

/// A file that is being written at its end.
pub trait File: Send {
    /// Appends the first bytes of `bytes`. Returns how many.
    ///
    /// # Errors
    /// Those of the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes over what is there from `offset` on, all of `bytes`; the file keeps its length, and what is appended next goes to its end. With the
    /// bytes that are there already, this makes the next sync take them to the disk, whatever became of an earlier attempt.
    ///
    /// # Errors
    /// Those of the file; it must be as long already.
    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was appended survive a crash.
    ///
    /// # Errors
    /// Those of the file; afterwards nothing is known of what was appended since the last success, and asking again does not help.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file off at `len` bytes; what is appended next goes there.
    ///
    /// # Errors
    /// Those of the file.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Why a directory could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it: the process of this number, if it says so.
    Held(Option<u32>),
    /// The lock could not be asked for.
    Io(io::Error),
}

/// An operation on a file that failed.
#[derive(Debug)]
pub struct FileError {
    /// What was attempted: `write to`, `sync`, ..
    pub operation: &'static str,
    /// The file within the directory.
    pub file: String,
    /// Why it failed.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn on(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self { operation, file, source }
    }

    /// The disk, or the share of it that this user has, is full.
    pub(crate) fn is_lack_of_room(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.file, self.source)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Appends all of `bytes`, however small the steps are.
pub(crate) fn append_all(file: &mut dyn File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a small file that takes the place of `name` as a whole, or not at all.
pub(crate) fn replace(storage: &dyn Storage, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
    let temporary = format!("{name}{TEMPORARY}");
    let before = |operation| {
        let file = temporary.clone();
        move |source| ReplaceError { error: FileError { operation, file, source }, may_have_happened: false }
    };
    let mut file = storage.create(&temporary).map_err(before("create"))?;
    append_all(&mut *file, bytes).map_err(before("write to"))?;
    file.sync().map_err(before("sync"))?;
    drop(file);
    exchange(storage, &temporary, name)
}

/// Lets a synced file take the place of `name`.
pub(crate) fn exchange(storage: &dyn Storage, temporary: &str, name: &str) -> Result<(), ReplaceError> {
    let after = |operation| {
        move |source| ReplaceError {
            error: FileError { operation, file: name.to_owned(), source },
            may_have_happened: true,
        }
    };
    storage.rename(temporary, name).map_err(after("replace"))?;
    storage.sync_directory().map_err(after("sync the directory of"))
}

/// What the names of files end with that are not finished.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Why a file was not replaced.
#[derive(Debug)]
pub(crate) struct ReplaceError {
    pub(crate) error: FileError,
    /// Whether a crash may find the old file or the new one.
    pub(crate) may_have_happened: bool,
}
