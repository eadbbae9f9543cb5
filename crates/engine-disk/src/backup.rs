//! A copy of a directory that is in use, as of one moment.
//!
//! # Guarantees
//! A backup is a directory by itself: it opens like any other, with everything that was kept when it was asked for, in the order of the changes,
//! without a hole. It is finished once its manifest is there, which is written last.
//!
//! # How it works
//! The journal is synced; then the base and the journals are copied up to there. The base is never written again, so it is linked instead of
//! copied where that works. Rewriting waits meanwhile, and writers do not.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::disk::Disk;
use crate::manifest::{Base, Journal, MANIFEST, Manifest};
use crate::shared::Place;
use crate::storage::{FileError, Files, Storage, append_all};

/// Copied at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How long the journal may take to be synced.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Groups of changes that there ever were until then.
    pub position: u64,
    /// Of all files.
    pub bytes: u64,
    /// The base is the same file as that of the original, under another name.
    pub is_base_linked: bool,
}

/// Why there is no backup. What there is of it can be removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackupError {
    /// The target holds something already.
    NotEmpty,
    /// The journal cannot be synced at the moment.
    NotSynced(String),
    /// A file cannot be read or written.
    File(FileError),
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotEmpty => f.write_str("the directory for the backup is not empty: choose a new one"),
            Self::NotSynced(reason) => write!(f, "the journal cannot be synced: {reason}"),
            Self::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::File(error) = self { Some(error) } else { None }
    }
}

impl From<FileError> for BackupError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Disk {
    /// Makes a backup in the directory `target`, which is created, or empty. Takes as long as copying does, on the calling thread; waits for a
    /// rewriting that is under way.
    ///
    /// # Errors
    /// [`BackupError`]
    pub fn backup(&self, target: &Path) -> Result<Backup, BackupError> {
        let shared = self.shared();
        let on_target = |operation| FileError::on(operation, MANIFEST);
        let to = Files::create(target).map_err(on_target("create the directory of"))?;
        if !to.list().map_err(on_target("look for"))?.is_empty() {
            return Err(BackupError::NotEmpty);
        }
        let _files = shared.files.lock();
        let (manifest, place) = self.synced_files()?;
        let from = &*shared.storage;
        let mut backup = Backup { position: place.position, bytes: 0, is_base_linked: false };
        if let Some(base) = &manifest.base {
            backup.is_base_linked = take_base(from, &to, base)?;
            backup.bytes += base.bytes;
        }
        for journal in &manifest.journals {
            let bytes_max = if journal.number == place.number { place.bytes } else { u64::MAX };
            backup.bytes += copy(from, &to, &journal.file(), bytes_max)?;
        }
        to.sync_directory().map_err(on_target("sync the directory of"))?;
        manifest.store(&to).map_err(|error| error.error)?;
        Ok(backup)
    }

    /// What the files are at a moment at which everything until now is synced.
    fn synced_files(&self) -> Result<(Manifest, Place), BackupError> {
        let shared = self.shared();
        self.sync(SYNC_TIMEOUT).map_err(|error| BackupError::NotSynced(error.to_string()))?;
        // A new journal may begin at any time: then that one is synced up to its beginning, and so are all before it.
        let mut manifest = shared.manifest.lock().clone();
        let place = *shared.synced_place.lock();
        let is_until_place = |journal: &Journal| journal.number <= place.number;
        manifest.journals.retain(is_until_place);
        match manifest.journals.last() {
            Some(last) if last.number == place.number => Ok((manifest, place)),
            _ => Err(BackupError::NotSynced("its files are changing: try again".to_owned())),
        }
    }
}

/// Returns whether it was linked.
fn take_base(from: &dyn Storage, to: &Files, base: &Base) -> Result<bool, BackupError> {
    let file = base.file();
    let linked = from.path().zip(to.path()).map(|(from, to)| fs::hard_link(from.join(&file), to.join(&file)));
    if let Some(Ok(())) = linked {
        return Ok(true);
    }
    copy(from, to, &file, u64::MAX)?;
    Ok(false)
}

/// Copies the first bytes of a file, and syncs the copy.
fn copy(from: &dyn Storage, to: &dyn Storage, file: &str, bytes_max: u64) -> Result<u64, FileError> {
    let on = |operation| FileError::on(operation, file);
    let mut input = from.read(file).map_err(on("open"))?.take(bytes_max);
    let mut output = to.create(file).map_err(on("create the copy of"))?;
    let (mut chunk, mut bytes) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                append_all(&mut *output, &chunk[..count]).map_err(on("write to the copy of"))?;
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(on("read")(error)),
        }
    }
    output.sync().map_err(on("sync the copy of"))?;
    Ok(bytes)
}
