//! Loading a directory into an engine, and making it ready to go on.
//!
//! # Guarantees
//! After a crash the engine holds what all whole groups lead to, in their order, without one missing. A record that was cut off at the very end
//! is reported, kept aside as `journal.<n>.torn` and left out; it was never synced, so nobody was told that it is on the disk. Anything else that
//! is wrong is an error, and then nothing of value was changed in the directory.
//!
//! # How it works
//! The base, then the journals in the order of the manifest. Then what the manifest does not name is removed: it is left over from a rewriting
//! that did not end. Before anything is appended or removed, what a process before, or whoever has copied the directory, may have left in the
//! memory of the operating system is brought to the disk: all files, their names, and the end of the last journal.
//!
//! # Failure
//! Where there is no room for the end of the last journal, which file systems need that copy on write or find out late what they have no room
//! for, the files are given up at once: all of it is in the engine, reads are served, and writes are taken once new files were begun.

use std::fmt;

use acteon_engine::Engine;

use crate::active::Active;
use crate::contents::{read_base, read_dump, read_journal};
use crate::crc32c;
use crate::format::HEADER_BYTES;
use crate::maintenance::sweep;
use crate::manifest::{Base, DUMP, Journal, MANIFEST, Manifest, Named, base_file};
use crate::problem::{Problem, ProblemKind};
use crate::scan::{End, Torn, TornReason};
use crate::shared::Place;
use crate::storage::{FileError, Storage, append_all};
use crate::synced;

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// There was nothing: the directory is new.
    pub is_new: bool,
    /// The directory had nothing but a `dump.rdb`, and begins with that.
    pub is_from_dump: bool,
    /// Keys of the base.
    pub keys: u64,
    /// Groups of changes that were applied.
    pub groups: u64,
    /// Groups of changes that there ever were.
    pub position: u64,
    /// Bytes of the base.
    pub base_bytes: u64,
    /// Bytes of all journals, without what was left out.
    pub journal_bytes: u64,
    /// What was left out at the end.
    pub torn: Option<TornTail>,
}

/// The last record of a journal, which was being written when the process or the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: String,
    /// Where the last whole record ends.
    pub offset: u64,
    /// What comes after that.
    pub bytes: u64,
    /// In which way it was cut off.
    pub reason: TornReason,
    /// Where these bytes are now, if they were moved.
    pub kept_as: Option<String>,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, reason, kept_as } = self;
        write!(f, "{file}, byte {offset}: the last {bytes} bytes are left out: {reason}")?;
        match kept_as {
            Some(kept_as) => write!(f, "; they are kept as {kept_as}"),
            None => Ok(()),
        }
    }
}

/// A directory that is ready to be written.
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    pub(crate) active: Active,
    pub(crate) next_number: u64,
    pub(crate) loaded: Loaded,
    /// The end of the last journal could not be brought to the disk, for there is no room.
    pub(crate) stuck: Option<Stuck>,
}

/// A last journal to which nothing may be appended.
pub(crate) struct Stuck {
    pub(crate) reason: FileError,
    /// Up to where it is on the disk for certain.
    pub(crate) bytes: u64,
    /// The same in groups.
    pub(crate) position: u64,
}

impl Recovered {
    /// The end of what was loaded.
    pub(crate) fn place(&self) -> Place {
        Place { number: self.active.number, bytes: self.active.bytes, position: self.loaded.position }
    }

    /// The end of what is on the disk.
    pub(crate) fn synced_place(&self) -> Place {
        match &self.stuck {
            Some(Stuck { bytes, position, .. }) => Place { bytes: *bytes, position: *position, ..self.place() },
            None => self.place(),
        }
    }
}

/// Loads what is there into `engine`, which must be empty. After an error the engine may hold a part, and is to be thrown away.
pub(crate) fn recover(storage: &dyn Storage, engine: &Engine) -> Result<Recovered, Problem> {
    let names = storage.list().map_err(Problem::io("list", "the directory"))?;
    // Not given again, whether its file counts or not.
    let next_number = names.iter().filter_map(|name| Named::of(name).number()).max().map_or(1, |number| number + 1);
    match Manifest::load(storage).map_err(Problem::io("read", MANIFEST))? {
        Some(manifest) => load(storage, engine, manifest.map_err(Problem::of_manifest)?, next_number),
        None => begin(storage, engine, &names, next_number),
    }
}

fn load(storage: &dyn Storage, engine: &Engine, manifest: Manifest, next_number: u64) -> Result<Recovered, Problem> {
    let mut loaded = Loaded::default();
    if let Some(base) = &manifest.base {
        let dump = read_base(storage, base, |record| put(engine, record))?;
        (loaded.keys, loaded.base_bytes) = (dump.keys, dump.bytes);
    }
    let first_position = manifest.journals.first().map_or(0, |journal| journal.first_position);
    let (mut position, mut torn) = (first_position, None);
    for (number, journal) in manifest.journals.iter().enumerate() {
        check_follows(journal, position)?;
        let scanned = read_journal(storage, journal, |_, group| engine.apply(group))?;
        position = scanned.position;
        loaded.groups += scanned.groups;
        loaded.journal_bytes += scanned.bytes;
        torn = torn_end(journal, scanned.end, number + 1 == manifest.journals.len())?;
    }
    loaded.position = position;
    let last = manifest.journals.last().ok_or_else(|| Problem::damaged(MANIFEST, None, "it names no journal"))?;
    remove_unfinished(storage);
    let torn = torn.map(|torn| TornTail {
        file: last.file(),
        offset: torn.offset,
        bytes: torn.bytes,
        reason: torn.reason,
        kept_as: keep_torn(storage, last, torn.offset),
    });
    sync_what_is_whole(storage, &manifest)?;
    let (active, stuck) = go_on(storage, last, torn.as_ref())?;
    loaded.journal_bytes -= torn.as_ref().map_or(0, |torn| torn.bytes);
    loaded.torn = torn;
    sweep(storage, &manifest);
    Ok(Recovered { manifest, active, next_number, loaded, stuck })
}

/// These files, their names, and the manifest itself may be in the memory of the operating system only: a process that was killed did not come to
/// sync them, nor did whoever has copied the directory. Otherwise the machine could stop and take a base away that what is appended now builds
/// on, or bring an older manifest back, that does not name what is appended now, and names what is removed now. For what is on the disk
/// already it costs nothing. The last journal is left to [`go_on`], which can do without room for it.
fn sync_what_is_whole(storage: &dyn Storage, manifest: &Manifest) -> Result<(), Problem> {
    let base = manifest.base.iter().map(Base::file);
    let journals = manifest.journals.iter().rev().skip(1).map(Journal::file);
    for file in base.chain(journals).chain([MANIFEST.to_owned()]) {
        storage.sync(&file).map_err(Problem::io("sync", &file))?;
    }
    storage.sync_directory().map_err(Problem::io("sync the directory of", MANIFEST))
}

/// Where a journal is torn; only the last one may be.
pub(crate) fn torn_end(journal: &Journal, end: End, is_last: bool) -> Result<Option<Torn>, Problem> {
    match end {
        End::Torn(torn) if is_last => Ok(Some(torn)),
        End::Torn(torn) => {
            let what = format!("{}, though another file follows", torn.reason);
            Err(Problem::damaged(&journal.file(), Some(torn.offset), what))
        }
        End::Whole | End::Damaged(_) => Ok(None),
    }
}

pub(crate) fn check_follows(journal: &Journal, position: u64) -> Result<(), Problem> {
    if journal.first_position == position {
        return Ok(());
    }
    let kind = ProblemKind::Gap { expected: position, found: journal.first_position };
    Err(Problem { file: journal.file(), offset: None, kind })
}

pub(crate) fn put(engine: &Engine, record: acteon_engine::rdb::Record) -> Result<(), String> {
    let database = record.database;
    if engine.load(record) { Ok(()) } else { Err(format!("there cannot be a database {database}")) }
}

/// Copies what will be cut off to another file. `None` if that does not work: on a full disk it is more important to go on.
fn keep_torn(storage: &dyn Storage, journal: &Journal, offset: u64) -> Option<String> {
    let aside = format!("{}.torn", journal.file());
    let copied = set_aside(storage, &journal.file(), offset, &aside);
    if copied.is_err() {
        drop(storage.remove(&aside));
    }
    copied.is_ok().then_some(aside)
}

/// Opens the last journal behind its last whole record, and brings it to the disk.
fn go_on(
    storage: &dyn Storage,
    journal: &Journal,
    torn: Option<&TornTail>,
) -> Result<(Active, Option<Stuck>), Problem> {
    let file = journal.file();
    let bytes = storage.len(&file).map_err(Problem::io("look at", &file))?;
    let mut active = Active::open(storage, journal.number, bytes)?;
    let known = synced::known(storage, journal.number);
    let is_kept = match torn {
        Some(torn) => active.cut_off(torn.offset).map_err(Problem::from),
        None => Ok(()),
    };
    // What a process wrote before it was killed may not be on the disk, and it may have been told so, which we are not told again.
    let is_kept = is_kept.and_then(|()| synced::write_again(storage, journal, &mut active, known));
    match is_kept {
        Ok(is_new) => {
            if is_new {
                // If that fails, the next opening takes longer.
                drop(synced::note(storage, journal.number, active.bytes));
            }
            Ok((active, None))
        }
        Err(Problem { kind: ProblemKind::Io(reason), .. }) if reason.is_lack_of_room() => {
            let position = synced::position_at(storage, journal, known)?;
            Ok((active, Some(Stuck { reason, bytes: known, position })))
        }
        Err(problem) => Err(problem),
    }
}

/// Copies what lies behind `offset` in a file to another one.
pub(crate) fn set_aside(storage: &dyn Storage, file: &str, offset: u64, aside: &str) -> Result<(), Problem> {
    let mut input = storage.read(file).map_err(Problem::io("open", file))?;
    let skipped = std::io::copy(&mut std::io::Read::take(&mut input, offset), &mut std::io::sink());
    skipped.map_err(Problem::io("read", file))?;
    copy(storage, &mut input, file, aside).map(drop)
}

/// Copies what is left of an input to a file, which is synced. Returns its length and checksum.
pub(crate) fn copy(
    storage: &dyn Storage,
    input: &mut dyn std::io::Read,
    from: &str,
    to: &str,
) -> Result<(u64, u32), Problem> {
    const CHUNK_BYTES: usize = 64 << 10;
    let mut output = storage.create(to).map_err(FileError::on("create", to))?;
    let (mut chunk, mut bytes, mut crc) = (vec![0; CHUNK_BYTES], 0, 0);
    loop {
        let count = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Problem::io("read", from)(error)),
        };
        append_all(&mut *output, &chunk[..count]).map_err(FileError::on("write to", to))?;
        bytes += count as u64;
        crc = crc32c::extend(crc, &chunk[..count]);
    }
    output.sync().map_err(FileError::on("sync", to))?;
    Ok((bytes, crc))
}

/// A directory without a manifest: a new one, or one with a dump to begin with.
fn begin(storage: &dyn Storage, engine: &Engine, names: &[String], number: u64) -> Result<Recovered, Problem> {
    // A crash while the first files were created may have left the first journal, which has no group yet, and the first base.
    let has_dump = names.iter().any(|name| name == DUMP);
    if has_dump {
        check_newest(names)?;
    }
    for name in names {
        let may_be_left = match Named::of(name) {
            Named::Journal(1) => storage.len(name).map_err(Problem::io("look at", name))? <= HEADER_BYTES as u64,
            Named::Base(1) => has_dump,
            Named::Journal(_) | Named::Base(_) => false,
            Named::Torn(_) | Named::Temporary | Named::Other => true,
        };
        if !may_be_left {
            return Err(Problem { file: name.clone(), offset: None, kind: ProblemKind::NoManifest });
        }
    }
    remove_unfinished(storage);
    synced::forget(storage)?;
    // The first files have the number 1 in any case, so that this can be told the next time.
    let mut loaded = Loaded { is_new: !has_dump, is_from_dump: has_dump, ..Loaded::default() };
    let base = if has_dump { Some(adopt_dump(storage, engine, &mut loaded)?) } else { None };
    let active = Active::create(storage, 1, 0)?;
    loaded.journal_bytes = active.bytes;
    let manifest = Manifest { base, journals: vec![Journal { number: 1, first_position: 0 }] };
    manifest.store(storage).map_err(|error| Problem::from(error.error))?;
    sweep(storage, &manifest);
    Ok(Recovered { manifest, active, next_number: number.max(2), loaded, stuck: None })
}

/// What a Redis calls its append-only files: since version 7 a directory, before that a file.
const LOGS_OF_REDIS: [&str; 2] = ["appendonlydir", "appendonly.aof"];

/// Refuses a dump that is not the newest of what a Redis has left.
pub(crate) fn check_newest(names: &[String]) -> Result<(), Problem> {
    if names.iter().any(|name| LOGS_OF_REDIS.contains(&name.as_str())) {
        return Err(Problem { file: DUMP.to_owned(), offset: None, kind: ProblemKind::OlderDump });
    }
    Ok(())
}

/// Makes a copy of the dump the first base.
fn adopt_dump(storage: &dyn Storage, engine: &Engine, loaded: &mut Loaded) -> Result<Base, Problem> {
    let dump = read_dump(storage, DUMP, |record| put(engine, record))?;
    let to = base_file(1);
    let mut input = storage.read(DUMP).map_err(Problem::io("open", DUMP))?;
    let (bytes, crc) = copy(storage, &mut input, DUMP, &to)?;
    if (bytes, crc) != (dump.bytes, dump.crc) {
        return Err(Problem::damaged(DUMP, None, "it changes while it is being read"));
    }
    (loaded.keys, loaded.base_bytes) = (dump.keys, bytes);
    Ok(Base { number: 1, bytes, crc })
}

fn remove_unfinished(storage: &dyn Storage) {
    for name in storage.list().unwrap_or_default() {
        if Named::of(&name) == Named::Temporary {
            drop(storage.remove(&name));
        }
    }
}
