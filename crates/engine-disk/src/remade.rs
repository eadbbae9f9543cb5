//! A manifest that is lost, made again from the files.
//!
//! # What is chosen
//! A base that is whole and the journals that continue it, or the journals from the first group on. Where several would do, the files that lead
//! furthest: a base that was written, and never named because the disk was full at that moment, is newer than the one that counted, and what was
//! acknowledged since went on behind the older one. Of two that lead as far, the newer base.
//!
//! # What becomes of the rest
//! It is put aside, as after any repair: whether it counted is a guess, though the best one. Only a journal without a group is left to be removed.
//!
//! # Failure
//! Nothing is chosen unless every file that may count was read to its end or to its damage. One that the disk does not give, or that a newer
//! version has written, may be the one that counts: to do without it would lose what another disk or program still has.

use crate::contents::read_dump;
use crate::format::HEADER_BYTES;
use crate::manifest::{Base, Journal, MANIFEST, Manifest, Named};
use crate::problem::{Problem, Remedy};
use crate::scan::{JournalReader, Next};
use crate::storage::{FileError, Storage};

/// The manifest that the files come from.
pub(crate) fn manifest_of(storage: &dyn Storage, names: &[String]) -> Result<Manifest, Problem> {
    let journals = journals(storage, names)?;
    let mut best: Option<(u64, Manifest)> = None;
    for base in bases(storage, names, &journals)? {
        let first_number = base.map_or(0, |base| base.number);
        let continued: Vec<Extent> =
            journals.iter().filter(|one| one.journal.number >= first_number).copied().collect();
        let (end, journals) = chain(&continued);
        if best.as_ref().is_none_or(|(highest, _)| end > *highest) {
            best = Some((end, Manifest { base, journals }));
        }
    }
    best.map(|(_, manifest)| manifest).ok_or_else(|| {
        Problem::damaged(MANIFEST, None, "it is missing, and no base is whole that the journals could begin with")
    })
}

/// What the manifest leaves out of what holds data.
pub(crate) fn left_out(storage: &dyn Storage, names: &[String], manifest: &Manifest) -> Result<Vec<String>, Problem> {
    let mut left_out = Vec::new();
    for name in names.iter().filter(|name| !manifest.names(name)) {
        let holds_data = match Named::of(name) {
            Named::Base(_) => true,
            Named::Journal(_) => storage.len(name).map_err(Problem::io("look at", name))? > HEADER_BYTES as u64,
            Named::Torn(_) | Named::Temporary | Named::Other => false,
        };
        if holds_data {
            left_out.push(name.clone());
        }
    }
    Ok(left_out)
}

/// A journal, and what is in it.
#[derive(Clone, Copy)]
struct Extent {
    journal: Journal,
    /// After its last whole group.
    end: u64,
    is_empty: bool,
}

/// All that have a header, in the order of their numbers.
fn journals(storage: &dyn Storage, names: &[String]) -> Result<Vec<Extent>, Problem> {
    let mut journals = Vec::new();
    for number in names.iter().filter_map(|name| Named::of(name).journal()) {
        journals.extend(extent(storage, number)?);
    }
    journals.sort_unstable_by_key(|one| one.journal.number);
    Ok(journals)
}

fn extent(storage: &dyn Storage, number: u64) -> Result<Option<Extent>, Problem> {
    let mut journal = Journal { number, first_position: 0 };
    let file = journal.file();
    let bytes = storage.len(&file).map_err(FileError::on("look at", &file))?;
    let input = storage.read(&file).map_err(FileError::on("open", &file))?;
    let reader = JournalReader::open(input, bytes).map_err(FileError::on("read", &file))?;
    let mut reader = match reader.map_err(|damage| Problem::of_journal(&file, damage)) {
        Ok(reader) => reader,
        Err(problem) if is_damage(&problem) => return Ok(None),
        Err(problem) => return Err(problem),
    };
    journal.first_position = reader.position();
    while let Next::Group(_) = reader.next().map_err(FileError::on("read", &file))? {}
    Ok(Some(Extent { journal, end: reader.position(), is_empty: bytes <= HEADER_BYTES as u64 }))
}

/// Whether it is the file that is bad, and not what it is read with.
fn is_damage(problem: &Problem) -> bool {
    !matches!(problem.remedy(), Remedy::Disk | Remedy::NewerProgram)
}

/// Those that are whole and have their journal, the newest first; then none, if the journals begin with the first group. A later one may not
/// have been finished, an earlier one not removed.
fn bases(storage: &dyn Storage, names: &[String], journals: &[Extent]) -> Result<Vec<Option<Base>>, Problem> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| Named::of(name).base()).collect();
    numbers.retain(|number| journals.iter().any(|one| one.journal.number == *number));
    numbers.sort_unstable();
    let mut bases = Vec::new();
    for number in numbers.into_iter().rev() {
        let unknown = Base { number, bytes: 0, crc: 0 };
        match read_dump(storage, &unknown.file(), |_| Ok(())) {
            Ok(dump) => bases.push(Some(Base { bytes: dump.bytes, crc: dump.crc, ..unknown })),
            Err(problem) if is_damage(&problem) => {}
            Err(problem) => return Err(problem),
        }
    }
    if journals.first().is_some_and(|first| first.journal.first_position == 0) {
        bases.push(None);
    }
    Ok(bases)
}

/// These journals without those that were created for a rewriting which failed before a manifest named them: they hold nothing, and the one
/// before went on behind the place where they begin. Also up to which position they lead without a gap.
fn chain(journals: &[Extent]) -> (u64, Vec<Journal>) {
    let (mut kept, mut end, mut is_whole): (Vec<Journal>, u64, bool) = (Vec::new(), 0, true);
    let mut last_end = 0;
    for Extent { journal, end: journal_end, is_empty } in journals {
        if *is_empty && !kept.is_empty() && journal.first_position < last_end {
            continue;
        }
        // What comes behind a gap is for the repair to put aside.
        is_whole &= kept.is_empty() || journal.first_position == last_end;
        if is_whole {
            end = *journal_end;
        }
        last_end = *journal_end;
        kept.push(*journal);
    }
    (end, kept)
}
