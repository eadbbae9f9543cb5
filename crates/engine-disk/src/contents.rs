//! Reading what a manifest names: for loading, for verification, for repair.

use std::io::{self, BufReader, Read};

use acteon_engine::ChangeError;
use acteon_engine::rdb::{ReadOptions, Reader, Record};

use crate::crc32c;
use crate::manifest::{Base, Journal};
use crate::problem::{Problem, ProblemKind};
use crate::scan::{End, JournalReader, Next};
use crate::storage::Storage;
use crate::synced;

const CHUNK_BYTES: usize = 256 << 10;

/// What a dump holds, and what identifies it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dump {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// What a journal holds.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    pub(crate) groups: u64,
    /// After the last one.
    pub(crate) position: u64,
    /// Of the file.
    pub(crate) bytes: u64,
    pub(crate) end: End,
}

/// Reads a base, which must be the one that was written.
pub(crate) fn read_base(
    storage: &dyn Storage,
    base: &Base,
    each: impl FnMut(Record) -> Result<(), String>,
) -> Result<Dump, Problem> {
    let file = base.file();
    let dump = read_dump(storage, &file, each)?;
    if (dump.bytes, dump.crc) != (base.bytes, base.crc) {
        let what = format!("the manifest expects {} bytes with another checksum", base.bytes);
        return Err(Problem::damaged(&file, None, what));
    }
    Ok(dump)
}

/// Reads an RDB file to its end.
pub(crate) fn read_dump(
    storage: &dyn Storage,
    file: &str,
    mut each: impl FnMut(Record) -> Result<(), String>,
) -> Result<Dump, Problem> {
    let input = storage.read(file).map_err(Problem::io("open", file))?;
    let input = BufReader::with_capacity(CHUNK_BYTES, Summed { input, bytes: 0, crc: 0 });
    let base = |source| Problem { file: file.to_owned(), offset: None, kind: ProblemKind::Base(source) };
    let mut reader = Reader::open(input, ReadOptions::default()).map_err(base)?;
    while let Some(record) = reader.next_record().map_err(base)? {
        let offset = reader.offset();
        each(record).map_err(|what| Problem::damaged(file, Some(offset), what))?;
    }
    let keys = reader.report().keys;
    let mut rest = reader.into_input();
    io::copy(&mut rest, &mut io::sink()).map_err(Problem::io("read", file))?;
    let Summed { bytes, crc, .. } = *rest.get_ref();
    Ok(Dump { keys, bytes, crc })
}

/// Reads a journal, which must begin at its position, and not end before the place up to which it is known to have been on the disk. Groups are
/// given with their position.
pub(crate) fn read_journal(
    storage: &dyn Storage,
    journal: &Journal,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), ChangeError>,
) -> Result<Scanned, Problem> {
    let file = journal.file();
    let known = synced::known(storage, journal.number);
    let bytes = storage.len(&file).map_err(Problem::io("look at", &file))?;
    let input = storage.read(&file).map_err(Problem::io("open", &file))?;
    let reader = JournalReader::open(input, bytes).map_err(Problem::io("read", &file))?;
    let mut reader = reader.map_err(|damage| Problem::of_journal(&file, damage))?;
    if reader.position() != journal.first_position {
        let kind = ProblemKind::Gap { expected: journal.first_position, found: reader.position() };
        return Err(Problem { file, offset: None, kind });
    }
    let mut groups = 0;
    loop {
        let (position, offset) = (reader.position(), reader.offset());
        match reader.next().map_err(Problem::io("read", &file))? {
            Next::Group(group) => {
                each(position, group).map_err(|source| Problem {
                    file: file.clone(),
                    offset: Some(offset),
                    kind: ProblemKind::Change { position, source },
                })?;
                groups += 1;
            }
            Next::End(End::Damaged(damage)) => return Err(Problem::of_journal(&file, damage)),
            Next::End(end) => {
                synced::check_end(&file, offset, known)?;
                return Ok(Scanned { groups, position, bytes, end });
            }
        }
    }
}

/// Adds up what is read.
struct Summed<R> {
    input: R,
    bytes: u64,
    crc: u32,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.crc = crc32c::extend(self.crc, &buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
