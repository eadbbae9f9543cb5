//! Looking at a directory that nobody uses, without changing it, and mending what can be mended.
//!
//! # What mending means
//! What comes before the damage stays. The damaged rest of a journal and all journals after it are kept aside as `….damaged`, and do not count
//! any more: changes that were acknowledged are lost with them. A manifest that is gone is made again from its files. A damaged base cannot be
//! mended: that needs a backup.
//!
//! # What is looked at
//! A directory of an engine: one with a manifest, with files of ours, or with a `dump.rdb` to begin with. Any other one is left as it is, without
//! a lock, and is an error: an empty place is no sound copy of anything.

use std::fmt;

use acteon_engine::{Engine, check_group};

use crate::active::Active;
use crate::contents::{read_base, read_dump, read_journal};
use crate::disk::{OpenError, lock};
use crate::format::HEADER_BYTES;
use crate::manifest::{Base, DUMP, Journal, MANIFEST, Manifest, Named};
use crate::problem::{Problem, ProblemKind};
use crate::recovery::{TornTail, check_follows, check_newest, put, set_aside, torn_end};
use crate::remade::{left_out, manifest_of};
use crate::scan::{JournalReader, Next};
use crate::storage::{FileError, Lock, LockError, Storage};
use crate::synced;

/// What is in a directory.
#[derive(Debug, Default)]
pub struct Report {
    /// What the manifest names, in its order, as far as it could be read; then `dump.rdb`.
    pub files: Vec<FileReport>,
    /// Groups of changes that there ever were, up to the first problem.
    pub position: u64,
    /// What keeps the directory from being used, in the order of the files. After a problem in a journal, those behind it are not read.
    pub problems: Vec<Problem>,
    /// What is wrong with a `dump.rdb` that plays no part, since there is a manifest beside it.
    pub dump_problem: Option<Problem>,
    /// Nothing can be written here, so it was not locked: a process of another user may be writing meanwhile.
    pub may_be_in_use: bool,
    /// What the next start will leave out at the end.
    pub torn: Option<TornTail>,
    /// Files of ours that nothing names; the next start removes them.
    pub left_over: Vec<String>,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its name.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Keys of a base or dump.
    pub keys: u64,
    /// Groups of changes of a journal.
    pub groups: u64,
}

impl Report {
    /// Whether the directory can be used as it is.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for FileReport { file, bytes, keys, groups } in &self.files {
            let (count, what) =
                if Named::of(file).journal().is_some() { (groups, "groups of changes") } else { (keys, "keys") };
            writeln!(f, "{file}: {bytes} bytes, {count} {what}")?;
        }
        if let Some(torn) = &self.torn {
            writeln!(f, "at the next start: {torn}")?;
        }
        for file in &self.left_over {
            writeln!(f, "{file}: left over, the next start removes it")?;
        }
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        if let Some(problem) = &self.dump_problem {
            writeln!(f, "{problem}; that does not keep the directory from being used, but is no copy to count on")?;
        }
        if self.may_be_in_use {
            f.write_str(
                "not locked, since nothing can be written here: if another user's process uses the directory, what it \
                 writes at this moment is not there, or looks damaged\n",
            )?;
        }
        match self.problems.len() {
            0 => write!(f, "sound, up to group {}", self.position),
            1 => write!(f, "1 problem, sound up to group {}", self.position),
            count => write!(f, "{count} problems, sound up to group {}", self.position),
        }
    }
}

/// What a directory is to an engine, by the names of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The directory of an engine: there is a manifest.
    Engine,
    /// Bases or journals without a manifest: a backup that was not finished, a first start that was killed, or a directory that has lost it.
    Unfinished,
    /// A `dump.rdb` and nothing else of ours: an engine begins with it.
    Dump,
    /// Nothing of ours.
    Nothing,
}

/// Says what a directory is, without reading its files and without a lock.
///
/// # Errors
/// [`OpenError::Problem`] if it cannot be listed.
pub fn look(storage: &dyn Storage) -> Result<Found, OpenError> {
    let names = storage.list().map_err(Problem::io("list", "the directory")).map_err(OpenError::Problem)?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let is_ours = |name: &String| matches!(Named::of(name), Named::Base(_) | Named::Journal(_));
    Ok(match () {
        () if has(MANIFEST) => Found::Engine,
        () if names.iter().any(is_ours) => Found::Unfinished,
        () if has(DUMP) => Found::Dump,
        () => Found::Nothing,
    })
}

/// Before a lock is left where it does not belong.
fn check_is_ours(storage: &dyn Storage) -> Result<(), OpenError> {
    if look(storage)? == Found::Nothing { Err(OpenError::Foreign) } else { Ok(()) }
}

/// Reads everything and says what is wrong. With an empty engine in `replay`, everything is loaded into it as well, which finds what does not fit
/// each other.
///
/// # Errors
/// [`OpenError::InUse`], [`OpenError::Foreign`], and what keeps the directory from being looked at.
pub fn verify(storage: &dyn Storage, replay: Option<&Engine>) -> Result<Report, OpenError> {
    check_is_ours(storage)?;
    let lock = lock_to_read(storage)?;
    let names = storage.list().map_err(Problem::io("list", "the directory")).map_err(OpenError::Problem)?;
    let mut report = Report { may_be_in_use: lock.is_none(), ..Report::default() };
    let mut begins_with_dump = false;
    match load_manifest(storage, &names) {
        Ok(None) => begins_with_dump = true,
        Ok(Some(manifest)) => {
            report.left_over = names.iter().filter(|name| !manifest.names(name)).cloned().collect();
            if let Err(problem) = check(storage, &manifest, replay, &mut report) {
                report.problems.push(problem);
            }
        }
        Err(problem) => report.problems.push(problem),
    }
    if names.iter().any(|name| name == DUMP) {
        check_dump(storage, &names, replay, begins_with_dump, &mut report);
    }
    Ok(report)
}

/// Looks at `dump.rdb`, which counts only where an engine would begin with it.
fn check_dump(storage: &dyn Storage, names: &[String], replay: Option<&Engine>, counts: bool, report: &mut Report) {
    if let (true, Err(problem)) = (counts, check_newest(names)) {
        // What it holds does not matter, then.
        return report.problems.push(problem);
    }
    let replay = replay.filter(|_| counts);
    match read_dump(storage, DUMP, |record| replay.map_or(Ok(()), |engine| put(engine, record))) {
        Ok(dump) => report.files.push(file_report(DUMP.to_owned(), dump.bytes, dump.keys, 0)),
        Err(problem) if counts => report.problems.push(problem),
        Err(problem) => report.dump_problem = Some(problem),
    }
}

/// `None`: nothing can be written here, by us. A backup on a medium that is read-only is read all the same; somebody with other rights may be writing,
/// which the report says.
fn lock_to_read(storage: &dyn Storage) -> Result<Option<Lock>, OpenError> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match storage.lock() {
        Err(LockError::Io(error)) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(lock) => Ok(Some(lock)),
    }
}

fn file_report(file: String, bytes: u64, keys: u64, groups: u64) -> FileReport {
    FileReport { file, bytes, keys, groups }
}

/// `None`: there is none, and no data either.
fn load_manifest(storage: &dyn Storage, names: &[String]) -> Result<Option<Manifest>, Problem> {
    if let Some(manifest) = Manifest::load(storage).map_err(Problem::io("read", MANIFEST))? {
        return manifest.map(Some).map_err(Problem::of_manifest);
    }
    for name in names {
        let holds_data = match Named::of(name) {
            Named::Journal(_) => storage.len(name).map_err(Problem::io("look at", name))? > HEADER_BYTES as u64,
            Named::Base(_) => true,
            Named::Torn(_) | Named::Temporary | Named::Other => false,
        };
        if holds_data {
            return Err(Problem { file: name.clone(), offset: None, kind: ProblemKind::NoManifest });
        }
    }
    Ok(None)
}

/// Reads all files that a manifest names. What is wrong with the base is noted in the report, and with a journal is the error.
pub(crate) fn check(
    storage: &dyn Storage,
    manifest: &Manifest,
    replay: Option<&Engine>,
    report: &mut Report,
) -> Result<(), Problem> {
    if let Some(base) = &manifest.base {
        let loaded = read_base(storage, base, |record| replay.map_or(Ok(()), |engine| put(engine, record)));
        match loaded {
            Ok(dump) => report.files.push(file_report(base.file(), dump.bytes, dump.keys, 0)),
            // Without it, whether changes fit cannot be told, but whether they are whole.
            Err(problem) => {
                report.problems.push(problem);
                return check_journals(storage, manifest, None, report);
            }
        }
    }
    check_journals(storage, manifest, replay, report)
}

fn check_journals(
    storage: &dyn Storage,
    manifest: &Manifest,
    replay: Option<&Engine>,
    report: &mut Report,
) -> Result<(), Problem> {
    report.position = manifest.journals.first().map_or(0, |journal| journal.first_position);
    for (number, journal) in manifest.journals.iter().enumerate() {
        check_follows(journal, report.position)?;
        let scanned = read_journal(storage, journal, |position, group| {
            check_group(group)?;
            replay.map_or(Ok(()), |engine| engine.apply(group))?;
            report.position = position + 1;
            Ok(())
        })?;
        report.files.push(file_report(journal.file(), scanned.bytes, 0, scanned.groups));
        let torn = torn_end(journal, scanned.end, number + 1 == manifest.journals.len())?;
        report.torn = torn.map(|torn| TornTail {
            file: journal.file(),
            offset: torn.offset,
            bytes: torn.bytes,
            reason: torn.reason,
            kept_as: None,
        });
    }
    Ok(())
}

/// What was mended.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was wrong, and does not count any more.
    pub problems: Vec<Problem>,
    /// The manifest was made again from the files.
    pub has_new_manifest: bool,
    /// Where what does not count any more is kept.
    pub kept_aside: Vec<String>,
    /// Groups of changes that there are now.
    pub position: u64,
}

/// Makes a directory usable again, with what comes before the damage. Changes nothing in one that is sound. A group that is whole but does not
/// fit what was there is not found here.
///
/// # Errors
/// [`OpenError`] if it is in use or not of an engine, or nothing can be kept: a base that is damaged or missing, files of a newer version, a failing
/// disk.
pub fn repair(storage: &dyn Storage) -> Result<Repaired, OpenError> {
    check_is_ours(storage)?;
    let _lock = lock(storage)?;
    mend(storage).map_err(OpenError::Problem)
}

fn mend(storage: &dyn Storage) -> Result<Repaired, Problem> {
    let names = storage.list().map_err(Problem::io("list", "the directory"))?;
    let mut repaired = Repaired::default();
    let mut manifest = match load_manifest(storage, &names) {
        Ok(None) => return Ok(repaired),
        Ok(Some(manifest)) => manifest,
        Err(problem) if matches!(problem.kind, ProblemKind::Newer(_) | ProblemKind::Io(_)) => return Err(problem),
        Err(problem) => {
            repaired.problems.push(problem);
            repaired.has_new_manifest = true;
            let manifest = manifest_of(storage, &names)?;
            sync_all(storage, &manifest)?;
            // Nothing of it is named by anything any more: the next start would remove it.
            for file in left_out(storage, &names, &manifest)? {
                keep_whole(storage, &file, &mut repaired)?;
            }
            manifest
        }
    };
    if let Some(base) = &manifest.base {
        read_base(storage, base, |_| Ok(()))?;
    }
    if let Some((number, offset)) = first_bad_journal(storage, &manifest, &mut repaired)? {
        // The first one has to be there, for the base to be continued. Of any other nothing is left without its header.
        let begins_anew = number == 0 && offset < HEADER_BYTES as u64;
        let is_cut = offset >= HEADER_BYTES as u64;
        let rest = manifest.journals.split_off(number + usize::from(begins_anew || is_cut));
        let last = manifest.journals.last().copied();
        // First everything is kept under another name, then the manifest does without it, then what it still names is cut: whoever is interrupted
        // repairs again.
        if let Some(last) = last.filter(|_| begins_anew || is_cut) {
            keep_end(storage, &last, if is_cut { offset } else { 0 }, &mut repaired)?;
        }
        for journal in &rest {
            keep_whole(storage, &journal.file(), &mut repaired)?;
        }
        synced::forget(storage)?;
        manifest.store(storage).map_err(|error| Problem::from(error.error))?;
        match last {
            Some(last) if is_cut => Active::open(storage, last.number, offset)?.cut_off(offset)?,
            Some(last) if begins_anew => drop(Active::create(storage, last.number, last.first_position)?),
            _ => {}
        }
    } else if repaired.has_new_manifest {
        // It may be about a journal that was put aside, whose number is given again.
        synced::forget(storage)?;
        manifest.store(storage).map_err(|error| Problem::from(error.error))?;
    }
    Ok(repaired)
}

/// What a process was about to name in a manifest when it was killed may be in the memory of the operating system only.
fn sync_all(storage: &dyn Storage, manifest: &Manifest) -> Result<(), Problem> {
    let base = manifest.base.iter().map(Base::file);
    for file in base.chain(manifest.journals.iter().map(Journal::file)) {
        storage.sync(&file).map_err(Problem::io("sync", &file))?;
    }
    storage.sync_directory().map_err(Problem::io("sync the directory of", MANIFEST))
}

/// Which journal is damaged first, and where.
fn first_bad_journal(
    storage: &dyn Storage,
    manifest: &Manifest,
    repaired: &mut Repaired,
) -> Result<Option<(usize, u64)>, Problem> {
    let mut position = manifest.journals.first().map_or(0, |journal| journal.first_position);
    for (number, journal) in manifest.journals.iter().enumerate() {
        let is_last = number + 1 == manifest.journals.len();
        let scanned = check_follows(journal, position)
            .and_then(|()| read_journal(storage, journal, |_, group| check_group(group).map(drop)))
            .and_then(|scanned| torn_end(journal, scanned.end.clone(), is_last).map(|_| scanned));
        match scanned {
            Ok(scanned) => position = scanned.position,
            Err(problem) if matches!(problem.kind, ProblemKind::Newer(_) | ProblemKind::Io(_)) => return Err(problem),
            Err(problem) => {
                let offset = problem.offset.unwrap_or(0);
                repaired.problems.push(problem);
                repaired.position = position_of_record(storage, journal, offset).unwrap_or(position);
                // One that does not follow is as bad as a missing one.
                return Ok(Some((number, offset)));
            }
        }
    }
    repaired.position = position;
    Ok(None)
}

/// The position of the record that begins at `offset`, or of the end.
fn position_of_record(storage: &dyn Storage, journal: &Journal, offset: u64) -> Option<u64> {
    let file = journal.file();
    let mut reader = JournalReader::open(storage.read(&file).ok()?, storage.len(&file).ok()?).ok()?.ok()?;
    while reader.offset() < offset {
        if let Next::End(_) = reader.next().ok()? {
            break;
        }
    }
    Some(reader.position())
}

/// Copies what lies behind `offset` in a journal, if there is something.
fn keep_end(storage: &dyn Storage, journal: &Journal, offset: u64, repaired: &mut Repaired) -> Result<(), Problem> {
    let file = journal.file();
    if storage.len(&file).is_ok_and(|bytes| bytes > offset) {
        let aside = name_aside(storage, &file)?;
        set_aside(storage, &file, offset, &aside)?;
        repaired.kept_aside.push(aside);
    }
    Ok(())
}

/// Gives a file another name, if there is one.
fn keep_whole(storage: &dyn Storage, file: &str, repaired: &mut Repaired) -> Result<(), Problem> {
    if storage.len(file).is_ok() {
        let aside = name_aside(storage, file)?;
        storage.rename(file, &aside).map_err(FileError::on("rename", file))?;
        repaired.kept_aside.push(aside);
    }
    Ok(())
}

/// `<file>.damaged`, or `<file>.damaged.<n>`: what an earlier repair has kept stays.
fn name_aside(storage: &dyn Storage, file: &str) -> Result<String, Problem> {
    let names = storage.list().map_err(Problem::io("list", "the directory"))?;
    let first = format!("{file}.damaged");
    // One more than there are names: one of them is free.
    let more = (2..names.len() + 3).map(|number| format!("{first}.{number}"));
    let free = std::iter::once(first.clone()).chain(more).find(|name| !names.contains(name));
    Ok(free.unwrap_or(first))
}
