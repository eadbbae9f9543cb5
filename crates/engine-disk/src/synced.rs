//! Up to where the last journal is on the disk for certain, and how the rest gets there.
//!
//! # What it is for
//! A sync that fails is told once, to the process that asked for it. If that one is killed before it has begun new files, the next one reads the
//! records from the memory of the operating system, syncs, and is told that all is well, though they never came to the disk. What it appends then
//! would lie behind a hole once the machine stops. So whatever is not known to be on the disk is written once more before anything is appended:
//! that makes it news to the operating system.
//!
//! # How it works
//! The file `synced` says how much of which journal is known to be on the disk. It is written when a directory is closed, when it was
//! opened behind something that had to be written again, after a rewriting, and about once in a minute while the journal grows, by the
//! thread that nobody waits for, unless that is busy with a rewriting or a snapshot. It stays true while the journal grows, so nobody has
//! to remove it in time; only a repair and a directory that begins anew make it false, and then it is removed first. Without it, everything
//! in the last journal is written again.
//!
//! It also proves something: a journal that ends before the place has lost what was on the disk, which no crash does. That is damage.
//!
//! # Failure
//! A disk that does not take the records fails the opening, and nothing is appended; what was torn at the end is cut off by then, and kept
//! aside where there was room. Where only room is lacking, for file systems that copy on write need some, the files are given up and new
//! ones begun. A copy of a directory brings the file `synced` with it, which speaks of another disk: if the first opening of the copy fails
//! to sync, it is not to be opened again, but copied again. If the machine stops meanwhile, bytes were written over themselves: whichever
//! sectors came to the disk, what was there is there.

use std::io::Read;

use crate::active::Active;
use crate::crc32c;
use crate::format::HEADER_BYTES;
use crate::manifest::{Journal, SYNCED, journal_file};
use crate::problem::Problem;
use crate::scan::{End, JournalReader, Next};
use crate::storage::{FileError, ReplaceError, Storage, replace};

/// Longest one that is read: three words of at most twenty characters and a name.
const BYTES_MAX: u64 = 100;

/// Written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Written again before it is synced. The operating system is not to gather gigabytes, and little is on its way if the machine stops.
const STEP_BYTES: u64 = 32 << 20;

/// Notes that the journal of this number is on the disk up to `bytes`. If that fails, the old note is there or the new one; both are true.
pub(crate) fn note(storage: &dyn Storage, number: u64, bytes: u64) -> Result<(), ReplaceError> {
    replace(storage, SYNCED, text(number, bytes).as_bytes())
}

/// To be called before a journal is cut at a place that was synced.
pub(crate) fn forget(storage: &dyn Storage) -> Result<(), Problem> {
    match storage.remove(SYNCED) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Problem::io("remove", SYNCED)(error)),
        _ => storage.sync_directory().map_err(Problem::io("sync the directory of", SYNCED)),
    }
}

/// Up to where the journal is on the disk for certain. The header of a journal always is, before anything names it.
pub(crate) fn known(storage: &dyn Storage, number: u64) -> u64 {
    let mut read = String::new();
    let is_read = storage.read(SYNCED).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut read));
    let bytes = is_read.ok().and_then(|_| read.split(' ').nth(1)?.parse().ok());
    // Any other text is none: what is damaged is not trusted.
    bytes.filter(|bytes| read == text(number, *bytes)).unwrap_or(HEADER_BYTES as u64)
}

fn text(number: u64, bytes: u64) -> String {
    let words = format!("{} {bytes} ", journal_file(number));
    let crc = crc32c::of(words.as_bytes());
    format!("{words}{crc:08x}\n")
}

/// Refuses a journal whose whole records end before what is known of it. No crash takes what was synced: whatever has, what was acknowledged is
/// gone.
pub(crate) fn check_end(file: &str, end: u64, known: u64) -> Result<(), Problem> {
    if end < known {
        let what = format!("it ends here, and was on the disk up to byte {known}");
        return Err(Problem::damaged(file, Some(end), what));
    }
    Ok(())
}

/// Takes what lies behind `known` bytes to the disk, whatever became of it before. Returns whether there was something.
pub(crate) fn write_again(
    storage: &dyn Storage,
    journal: &Journal,
    active: &mut Active,
    known: u64,
) -> Result<bool, Problem> {
    write_in_steps(storage, journal, active, known, STEP_BYTES)
}

fn write_in_steps(
    storage: &dyn Storage,
    journal: &Journal,
    active: &mut Active,
    known: u64,
    step_bytes: u64,
) -> Result<bool, Problem> {
    if known == active.bytes {
        // A file that somebody has copied here may not be on the disk, whatever lies beside it.
        active.sync()?;
        return Ok(false);
    }
    let file = journal.file();
    let mut reader = open(storage, &file, active.bytes)?;
    let mut again = Again { active, chunk: Vec::new(), chunk_offset: known, unsynced_bytes: 0, step_bytes };
    loop {
        let offset = reader.offset();
        // Checked again: what was read from memory may have been dropped from there, and the disk has something else.
        match reader.next().map_err(Problem::io("read", &file))? {
            Next::Group(_) => {}
            Next::End(End::Whole) => break,
            Next::End(_) => return Err(Problem::damaged(&file, Some(offset), "it changes while it is being read")),
        }
        // The one in which the known part ends, if it does not end with one, is a part of what is not known.
        if reader.offset() > known {
            again.add(offset, reader.record())?;
        }
    }
    again.flush()?;
    active.sync()?;
    Ok(true)
}

fn open<'a>(
    storage: &'a dyn Storage,
    file: &str,
    bytes: u64,
) -> Result<JournalReader<Box<dyn Read + Send + 'a>>, Problem> {
    let input = storage.read(file).map_err(Problem::io("open", file))?;
    let reader = JournalReader::open(input, bytes).map_err(Problem::io("read", file))?;
    reader.map_err(|damage| Problem::of_journal(file, damage))
}

/// After how many groups, of all that there ever were, the first `bytes` bytes of a journal end.
pub(crate) fn position_at(storage: &dyn Storage, journal: &Journal, bytes: u64) -> Result<u64, Problem> {
    let file = journal.file();
    let mut reader = open(storage, &file, storage.len(&file).map_err(Problem::io("look at", &file))?)?;
    let mut position = reader.position();
    while reader.offset() < bytes {
        let is_group = matches!(reader.next().map_err(Problem::io("read", &file))?, Next::Group(_));
        if !is_group || reader.offset() > bytes {
            break;
        }
        position = reader.position();
    }
    Ok(position)
}

/// Records that are written over themselves, many at once.
struct Again<'a> {
    active: &'a mut Active,
    chunk: Vec<u8>,
    chunk_offset: u64,
    unsynced_bytes: u64,
    step_bytes: u64,
}

impl Again<'_> {
    fn add(&mut self, offset: u64, record: &[u8]) -> Result<(), FileError> {
        if record.len() >= CHUNK_BYTES {
            self.flush()?;
            return self.write(offset, record);
        }
        if self.chunk.is_empty() {
            self.chunk_offset = offset;
        }
        self.chunk.extend_from_slice(record);
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FileError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        if !chunk.is_empty() {
            self.write(self.chunk_offset, &chunk)?;
            chunk.clear();
        }
        self.chunk = chunk;
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.active.overwrite(offset, bytes)?;
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= self.step_bytes {
            self.active.sync()?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, forget, known, note, position_at, write_again, write_in_steps};
    use crate::active::Active;
    use crate::format::{HEADER_BYTES, RECORD_HEADER_BYTES, frame, header, seal};
    use crate::manifest::{Journal, SYNCED};
    use crate::simulation::{Directory, Faults};
    use crate::storage::{File, Storage};

    /// Records of all sizes, none of which has come to the disk though that was asked for; some of them are known to have.
    #[test]
    fn everything_behind_what_is_known_comes_to_the_disk_and_nothing_changes() {
        let mut records = Vec::new();
        let sizes = [0, 1, 5_000, CHUNK_BYTES - RECORD_HEADER_BYTES, 10, CHUNK_BYTES * 2, 7];
        let starts: Vec<usize> = sizes
            .map(|size| {
                let start = HEADER_BYTES + records.len();
                frame(&vec![b'v'; size], &mut records);
                start
            })
            .to_vec();
        seal(&mut records, 3);
        let whole = [&header(3)[..], &records].concat();
        let journal = Journal { number: 1, first_position: 3 };
        // In the middle of a record as well, though that is never written.
        let places = starts.iter().flat_map(|start| [*start, start + 1]).chain([whole.len()]);
        for known in places {
            let directory = Directory::new(1);
            directory.put(&journal.file(), &whole[..known]);
            let mut file: Box<dyn File> = directory.open_to_append(&journal.file()).expect("there");
            file.append(&whole[known..]).expect("written");
            directory.set_faults(Faults { fails_sync: Some(1), ..Faults::default() });
            file.sync().expect_err("the disk fails");
            directory.set_faults(Faults::default());
            let mut active = Active::open(&directory, 1, whole.len() as u64).expect("there");
            let is_written = write_again(&directory, &journal, &mut active, known as u64).expect("there is room");
            assert_eq!(is_written, known < whole.len());
            for _ in 0..5 {
                assert!(directory.restarted().get(&journal.file()) == Some(whole.clone()), "known to {known}");
            }
        }
    }

    /// Gigabytes that are written without a sync stand in everybody's way, and the more is on its way, the more a machine that stops can spoil.
    #[test]
    fn what_is_written_again_is_synced_in_steps() {
        const RECORDS: usize = 40;
        let mut records = Vec::new();
        (0..RECORDS).for_each(|_| frame(&vec![b'v'; CHUNK_BYTES], &mut records));
        seal(&mut records, 0);
        let whole = [&header(0)[..], &records].concat();
        let journal = Journal { number: 1, first_position: 0 };
        let operations = |step_bytes: usize| {
            let directory = Directory::new(1);
            directory.put(&journal.file(), &whole);
            let mut active = Active::open(&directory, 1, whole.len() as u64).expect("there");
            let (before, known) = (directory.operations(), HEADER_BYTES as u64);
            let written = write_in_steps(&directory, &journal, &mut active, known, step_bytes as u64);
            assert!(written.expect("there is room"));
            directory.operations() - before
        };
        let at_once = operations(usize::MAX);
        assert_eq!(operations(10 * CHUNK_BYTES) - at_once, RECORDS as u64 / 10);
        assert_eq!(operations(CHUNK_BYTES) - at_once, RECORDS as u64);
    }

    /// Power fails while records are written over themselves, at any byte, and of the sectors before it any have come to the disk.
    #[test]
    fn power_that_fails_while_records_are_written_again_takes_nothing_that_was_on_the_disk() {
        let (mut records, mut ends) = (Vec::new(), vec![HEADER_BYTES]);
        for size in [300, 700, 5, 1_500, 600, 0, 900] {
            frame(&vec![b'v'; size], &mut records);
            ends.push(HEADER_BYTES + records.len());
        }
        seal(&mut records, 0);
        let whole = [&header(0)[..], &records].concat();
        let journal = Journal { number: 1, first_position: 0 };
        // Up to here it is on the disk, though only the header is known to be.
        for on_disk in ends {
            for seed in 0..300 {
                let directory = Directory::new(seed);
                directory.put(&journal.file(), &whole[..on_disk]);
                let mut file: Box<dyn File> = directory.open_to_append(&journal.file()).expect("there");
                file.append(&whole[on_disk..]).expect("written");
                let mut active = Active::open(&directory, 1, whole.len() as u64).expect("there");
                // Opened and looked into, and then the machine stops in the middle.
                directory.set_faults(Faults { crash_at: Some(directory.operations() + 1), ..Faults::default() });
                let written = write_in_steps(&directory, &journal, &mut active, HEADER_BYTES as u64, 1);
                assert!(written.is_err() && directory.has_crashed());
                let after = directory.restarted().get(&journal.file()).expect("there");
                assert!(after.len() >= on_disk && after[..on_disk] == whole[..on_disk], "seed {seed}, {on_disk} bytes");
            }
        }
    }

    #[test]
    fn place_in_a_journal_is_told_in_groups() {
        let mut records = Vec::new();
        let ends = [10, 0, 700].map(|size| {
            frame(&vec![b'v'; size], &mut records);
            (HEADER_BYTES + records.len()) as u64
        });
        seal(&mut records, 40);
        let directory = Directory::new(1);
        let journal = Journal { number: 1, first_position: 40 };
        directory.put(&journal.file(), &[&header(40)[..], &records].concat());
        let at = |bytes| position_at(&directory, &journal, bytes).expect("whole");
        assert_eq!(at(HEADER_BYTES as u64), 40);
        for (groups, end) in (41..).zip(ends) {
            assert_eq!((at(end - 1), at(end)), (groups - 1, groups));
        }
        assert_eq!(at(u64::MAX), 43);
    }

    #[test]
    fn directory_that_begins_anew_knows_nothing_of_another_journal() {
        let directory = Directory::new(1);
        note(&directory, 1, 30).expect("noted");
        let engine = acteon_engine::Engine::new(acteon_engine::EngineConfig::default());
        crate::recovery::recover(&directory, &engine).expect("new");
        assert_eq!((directory.get(SYNCED), directory.restarted().get(SYNCED)), (None, None));
    }

    #[test]
    fn mark_is_for_its_journal_and_none_once_it_is_damaged_or_forgotten() {
        let directory = Directory::new(1);
        let nothing = HEADER_BYTES as u64;
        assert_eq!(known(&directory, 7), nothing);
        note(&directory, 7, 81_234).expect("noted");
        assert_eq!((known(&directory, 7), known(&directory, 8)), (81_234, nothing));
        let mut bytes = directory.get(SYNCED).expect("there");
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            directory.put(SYNCED, &bytes);
            assert_eq!(known(&directory, 7), nothing, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        directory.put(SYNCED, &bytes);
        assert_eq!(known(&directory, 7), 81_234);
        forget(&directory).expect("removed");
        forget(&directory).expect("removed already");
        assert_eq!(known(&directory.restarted(), 7), nothing);
    }
}
