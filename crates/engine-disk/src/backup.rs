//! Backups of a directory, whether somebody uses it or not.
//!
//! # Guarantees
//! A backup is a directory that opens by itself, with what the engine held at one moment: all changes up to there, without a hole. That moment
//! is not before the backup was begun, so what was acknowledged under `always` by then is in it; of what was not acknowledged, the last
//! changes may be in it or not. A backup is finished once its manifest is there, which is written last, after all of it was synced and
//! read again.
//!
//! # Why nobody has to be asked
//! No lock is taken, and the process that writes does not notice. That is sound because of how it writes:
//! - The manifest is replaced as a whole, and numbers of files are not given twice. So if it is the same before and after all files were opened, the
//!   open ones belonged together at one moment. Whoever has a file open keeps it, also when a rewriting removes its name.
//! - A base is complete before a manifest names it, and is never written again.
//! - A journal grows at its end only. What is cut off there again was never synced, and what is written over it are the bytes that are there.
//!   Checksums tell where the last whole record ends: there the copy ends.
//! - A file is named before it is written to, and no longer named only once a base has all that was in it. So a manifest that is read after
//!   something was acknowledged leads to that.
//!
//! # Failure
//! The files of a moment may be gone before they are open, or be given up while they are read, since the disk of the writer fails. Then it begins
//! again, as long as the manifest has changed; a directory that is damaged and stays so is an error.
//!
//! # How it works
//! The base is linked instead of copied where that works.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::disk::Disk;
use crate::format::header;
use crate::manifest::{Base, Journal, MANIFEST, Manifest, Named};
use crate::problem::{Problem, ProblemKind};
use crate::recovery::{copy, torn_end};
use crate::scan::{End, JournalReader, Next};
use crate::storage::{File, FileError, Files, Storage, append_all};
use crate::synced;
use crate::verify::{Report, check};

/// Written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How long the journal may take to be synced.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the files may change while they are being opened: that takes some microseconds, and a rewriting takes longer.
const ATTEMPTS_MAX: u32 = 100;

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
    /// The directory has no manifest: nothing was kept in it yet.
    Nothing,
    /// The journal cannot be synced at the moment.
    NotSynced(String),
    /// What is to be copied is damaged.
    Damaged(Problem),
    /// The files were replaced again and again before they could be opened.
    Changing,
    /// A file cannot be read or written.
    File(FileError),
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotEmpty => f.write_str("the directory for the backup is not empty: choose a new one"),
            Self::Nothing => f.write_str("there is no manifest: no engine has kept its data here yet"),
            Self::NotSynced(reason) => write!(f, "the journal cannot be synced: {reason}"),
            Self::Damaged(problem) => write!(f, "{problem}"),
            Self::Changing => f.write_str("the files are replaced again and again: try again"),
            Self::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Damaged(problem) => Some(problem),
            Self::NotEmpty | Self::Nothing | Self::NotSynced(_) | Self::Changing => None,
        }
    }
}

impl From<FileError> for BackupError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<Problem> for BackupError {
    fn from(problem: Problem) -> Self {
        match problem.kind {
            ProblemKind::Io(error) => Self::File(error),
            _ => Self::Damaged(problem),
        }
    }
}

/// Makes a backup of the directory `from` in the directory `target`, which is created, or empty. Another process may use `from` meanwhile, or none.
/// Takes as long as copying and reading it again do, on the calling thread; changes nothing in `from`, and takes no lock there.
///
/// # Errors
/// [`BackupError`]
pub fn backup_of(from: &Path, target: &Path) -> Result<Backup, BackupError> {
    let from = Files::open(from).map_err(FileError::on("open", &from.display().to_string()))?;
    back_up(&from, &new_target(target)?)
}

impl Disk {
    /// Makes a backup in the directory `target`, which is created, or empty, with everything until now. Takes as long as copying and reading it
    /// again do, on the calling thread. Nobody else waits for it.
    ///
    /// # Errors
    /// [`BackupError`]
    pub fn backup(&self, target: &Path) -> Result<Backup, BackupError> {
        let to = new_target(target)?;
        self.sync(SYNC_TIMEOUT).map_err(|error| BackupError::NotSynced(error.to_string()))?;
        back_up(&*self.shared().storage, &to)
    }
}

fn new_target(target: &Path) -> Result<Files, BackupError> {
    let place = target.display().to_string();
    let to = Files::create(target).map_err(FileError::on("create the directory", &place))?;
    let names = to.list().map_err(FileError::on("list", &place))?;
    if names.is_empty() { Ok(to) } else { Err(BackupError::NotEmpty) }
}

/// The target is empty.
pub(crate) fn back_up(from: &dyn Storage, to: &Files) -> Result<Backup, BackupError> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(source) = Source::open(from)? else { continue };
        let manifest = source.manifest.clone();
        match copy_all(from, to, source) {
            // The files of a disk that fails are given up, and whatever was read there does not matter.
            Err(BackupError::Damaged(_)) if load(from)? != manifest => remove_all(to)?,
            result => return result,
        }
    }
    Err(BackupError::Changing)
}

fn load(from: &dyn Storage) -> Result<Manifest, BackupError> {
    match Manifest::load(from).map_err(Problem::io("read", MANIFEST))? {
        Some(manifest) => Ok(manifest.map_err(Problem::of_manifest)?),
        None => Err(BackupError::Nothing),
    }
}

fn remove_all(to: &Files) -> Result<(), BackupError> {
    for name in to.list().map_err(FileError::on("look for", MANIFEST))? {
        to.remove(&name).map_err(FileError::on("remove the copy of", &name))?;
    }
    Ok(())
}

/// Files that belonged together at one moment.
struct Source<'a> {
    manifest: Manifest,
    base: Option<Opened<'a>>,
    journals: Vec<Opened<'a>>,
}

struct Opened<'a> {
    input: Box<dyn Read + Send + 'a>,
    /// At a moment before it was opened; a journal has grown since.
    bytes: u64,
    /// So much of it was on the disk before that, if it is a journal.
    known_bytes: u64,
}

impl<'a> Source<'a> {
    /// `None`: they have changed meanwhile.
    fn open(from: &'a dyn Storage) -> Result<Option<Self>, BackupError> {
        let manifest = load(from)?;
        let open = |file: String| -> Result<Opened<'a>, Problem> {
            let known_bytes = Named::of(&file).journal().map_or(0, |number| synced::known(from, number));
            let bytes = from.len(&file).map_err(Problem::io("look at", &file))?;
            Ok(Opened { input: from.read(&file).map_err(Problem::io("open", &file))?, bytes, known_bytes })
        };
        let base = manifest.base.map(|base| open(base.file())).transpose();
        let journals: Result<Vec<_>, _> = manifest.journals.iter().map(|journal| open(journal.file())).collect();
        if load(from)? != manifest {
            return Ok(None);
        }
        Ok(Some(Self { base: base?, journals: journals?, manifest }))
    }
}

fn copy_all(from: &dyn Storage, to: &Files, source: Source<'_>) -> Result<Backup, BackupError> {
    let Source { manifest, base, journals } = source;
    let mut is_base_linked = false;
    if let Some((base, opened)) = manifest.base.as_ref().zip(base) {
        is_base_linked = take_base(from, to, base, opened)?;
    }
    let mut last_bytes = 0;
    for (number, (journal, opened)) in manifest.journals.iter().zip(journals).enumerate() {
        last_bytes = copy_journal(to, journal, opened, number + 1 == manifest.journals.len())?;
    }
    to.sync_directory().map_err(FileError::on("sync the directory of", MANIFEST))?;
    let mut report = Report::default();
    check(to, &manifest, None, &mut report)?;
    if !report.problems.is_empty() {
        return Err(report.problems.swap_remove(0).into());
    }
    if let Some(last) = manifest.journals.last() {
        // If that fails, the first opening takes longer.
        drop(synced::note(to, last.number, last_bytes));
    }
    manifest.store(to).map_err(|error| error.error)?;
    let bytes = report.files.iter().map(|file| file.bytes).sum();
    Ok(Backup { position: report.position, bytes, is_base_linked })
}

/// Returns whether it was linked.
fn take_base(from: &dyn Storage, to: &Files, base: &Base, opened: Opened<'_>) -> Result<bool, BackupError> {
    let file = base.file();
    let linked = from.path().zip(to.path()).map(|(from, to)| fs::hard_link(from.join(&file), to.join(&file)));
    // Its name may be gone by now.
    if let Some(Ok(())) = linked {
        // It may be one that somebody has copied there, which nobody has synced.
        to.sync(&file).map_err(FileError::on("sync the link to", &file))?;
        return Ok(true);
    }
    copy(to, &mut opened.input.take(base.bytes), &file, &file)?;
    Ok(false)
}

/// Copies whole records, and syncs the copy. Returns its length.
fn copy_journal(to: &Files, journal: &Journal, opened: Opened<'_>, is_last: bool) -> Result<u64, BackupError> {
    let file = journal.file();
    let on_source = |error| Problem::io("read", &file)(error);
    let reader = JournalReader::open(opened.input, opened.bytes).map_err(on_source)?;
    let mut reader = reader.map_err(|damage| Problem::of_journal(&file, damage))?;
    if reader.position() != journal.first_position {
        let kind = ProblemKind::Gap { expected: journal.first_position, found: reader.position() };
        return Err(Problem { file, offset: None, kind }.into());
    }
    let output = to.create(&file).map_err(FileError::on("create the copy of", &file))?;
    let mut output = Output { output, buffer: header(journal.first_position).to_vec() };
    let write = |error| FileError::on("write to the copy of", &file)(error);
    loop {
        match reader.next() {
            Ok(Next::Group(_)) => {}
            Ok(Next::End(End::Damaged(damage))) => return Err(Problem::of_journal(&file, damage).into()),
            Ok(Next::End(end)) => {
                torn_end(journal, end, is_last)?;
                break;
            }
            // What had been written in part was cut off since it was looked at.
            Err(error) if is_last && error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(on_source(error).into()),
        }
        output.add(reader.record()).map_err(write)?;
    }
    synced::check_end(&file, reader.offset(), opened.known_bytes)?;
    output.flush().map_err(write)?;
    output.output.sync().map_err(FileError::on("sync the copy of", &file))?;
    Ok(reader.offset())
}

struct Output {
    output: Box<dyn File>,
    buffer: Vec<u8>,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= CHUNK_BYTES {
            self.flush()?;
            return append_all(&mut *self.output, bytes);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        append_all(&mut *self.output, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
