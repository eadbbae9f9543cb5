//! Up to where the last journal is on the disk for certain, and how the rest gets there.
//!
//! # What it is for
//! A sync that fails is told once, to the process that asked for it. If that one is killed before it has begun new files, the next one reads the
//! records from the memory of the operating system, syncs, and is told that all is well, though they never came to the disk. What it appends then
//! would lie behind a hole once the machine stops. So whatever is not known to be on the disk is written once more before anything is appended:
//! that makes it news to the operating system.
//!
//! # How it works
//! The file `synced` says how much of which journal is known to be on the disk. It is written when a directory is closed, and when it was opened
//! behind something that had to be written again. It stays true while the journal grows, so nobody has to remove it in time; only a repair, or a
//! journal that ends before it, makes it false, and then it is removed before the journal is cut.
//! It decides on nothing but this: without it, everything in the last journal is written again.
//!
//! # Failure
//! A disk that does not take the records fails the opening, and nothing was changed. If the machine stops meanwhile, bytes were written over
//! themselves.

use std::io::Read;

use crate::active::Active;
use crate::crc32c;
use crate::format::HEADER_BYTES;
use crate::manifest::{Journal, SYNCED, journal_file};
use crate::problem::Problem;
use crate::scan::{End, JournalReader, Next};
use crate::storage::{Storage, replace};

/// Longest one that is read: three words of at most twenty characters and a name.
const BYTES_MAX: u64 = 100;

/// Written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Notes that the journal of this number is on the disk up to `bytes`. If that fails, the next opening takes longer.
pub(crate) fn note(storage: &dyn Storage, number: u64, bytes: u64) {
    drop(replace(storage, SYNCED, text(number, bytes).as_bytes()));
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

/// Takes what lies behind `known` bytes to the disk, whatever became of it before. Returns whether there was something.
pub(crate) fn write_again(
    storage: &dyn Storage,
    journal: &Journal,
    active: &mut Active,
    known: u64,
) -> Result<bool, Problem> {
    if known == active.bytes {
        // A file that somebody has copied here may not be on the disk, whatever lies beside it.
        active.sync()?;
        return Ok(false);
    }
    let file = journal.file();
    let input = storage.read(&file).map_err(Problem::io("open", &file))?;
    let reader = JournalReader::open(input, active.bytes).map_err(Problem::io("read", &file))?;
    let mut reader = reader.map_err(|damage| Problem::of_journal(&file, damage))?;
    let (mut chunk, mut written_to) = (Vec::new(), known);
    loop {
        let offset = reader.offset();
        // Checked again: what was read from memory may have been dropped from there, and the disk has something else.
        let is_end = match reader.next().map_err(Problem::io("read", &file))? {
            Next::Group(_) => false,
            Next::End(End::Whole) => true,
            Next::End(_) => return Err(Problem::damaged(&file, Some(offset), "it changes while it is being read")),
        };
        if !is_end && offset >= known {
            chunk.extend_from_slice(reader.record());
        }
        if chunk.len() >= CHUNK_BYTES || (is_end && !chunk.is_empty()) {
            active.overwrite(written_to, &chunk)?;
            written_to += chunk.len() as u64;
            chunk.clear();
        }
        if is_end {
            break;
        }
    }
    active.sync()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{forget, known, note};
    use crate::format::HEADER_BYTES;
    use crate::manifest::SYNCED;
    use crate::simulation::Directory;

    #[test]
    fn mark_is_for_its_journal_and_none_once_it_is_damaged_or_forgotten() {
        let directory = Directory::new(1);
        let nothing = HEADER_BYTES as u64;
        assert_eq!(known(&directory, 7), nothing);
        note(&directory, 7, 81_234);
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
