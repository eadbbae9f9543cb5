//! What stands around the records of a file: its header, facts about it, and the checksum at its end.
//!
//! # How it works
//! ```text
//! REDIS0010 │ facts │ SELECTDB 0, records.. │ SELECTDB 3, records.. │ EOF │ checksum, 8 bytes
//! ```
//! Records come in pieces from a snapshot, each piece beginning with its database. The caller writes them where it likes and shows each to
//! the writer, so that nothing here waits for a disk.

use std::io::{self, Write};

use super::crc64::Crc64;
use super::encode::write_aux;
use super::{FORMAT, FORMAT_FACT, MAGIC, VERSION, opcode};

/// The version of Redis whose format this is, for tools that ask the file.
const REDIS_VERSION: &[u8] = b"7.0.15";

/// Bytes at the end of each file.
pub const END_BYTES: usize = 9;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Seconds since 1970.
    pub created_at_s: u64,
    /// The memory of the data, about.
    pub used_memory_bytes: u64,
}

/// Writes a whole file: `pieces`, which a snapshot yields, between what begins and what ends it. Returns its length in bytes.
///
/// ```
/// use acteon_engine::rdb::{FileFacts, ReadOptions, Reader, write_file};
/// use acteon_engine::{Engine, EngineConfig, Expiry};
///
/// let engine = Engine::new(EngineConfig::default());
/// engine.update(b"greeting", 1, |slot| slot.set_str(&[b"hello"], Expiry::Clear))?;
/// let mut file = Vec::new();
/// let snapshot = engine.cut(1, || ()).expect("no other snapshot runs");
/// write_file(&FileFacts::default(), snapshot, &mut file)?;
///
/// let mut reader = Reader::open(&*file, ReadOptions::default())?;
/// assert_eq!(reader.next_record()?.map(|record| record.key), Some(b"greeting".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of `out`; what was written until then is no file.
pub fn write_file(
    facts: &FileFacts,
    pieces: impl IntoIterator<Item = Vec<u8>>,
    out: &mut impl Write,
) -> io::Result<u64> {
    let mut head = Vec::new();
    let mut writer = FileWriter::begin(facts, &mut head);
    out.write_all(&head)?;
    let mut bytes = (head.len() + END_BYTES) as u64;
    for piece in pieces {
        writer.add(&piece);
        out.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    out.write_all(&writer.end())?;
    Ok(bytes)
}

/// A file that is being written, by whoever has to look at each piece.
///
/// ```
/// use acteon_engine::rdb::{FileFacts, FileWriter};
///
/// let mut file = Vec::new();
/// let writer = FileWriter::begin(&FileFacts::default(), &mut file);
/// file.extend_from_slice(&writer.end());
/// assert!(file.starts_with(b"REDIS0010"));
/// ```
#[derive(Debug)]
pub struct FileWriter {
    crc: Crc64,
}

impl FileWriter {
    /// Appends what stands before the first record to `out`.
    #[must_use]
    pub fn begin(facts: &FileFacts, out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(format!("{VERSION:04}").as_bytes());
        let mut number = itoa::Buffer::new();
        write_aux(b"redis-ver", REDIS_VERSION, out);
        write_aux(b"redis-bits", b"64", out);
        write_aux(b"ctime", number.format(facts.created_at_s).as_bytes(), out);
        write_aux(b"used-mem", number.format(facts.used_memory_bytes).as_bytes(), out);
        write_aux(FORMAT_FACT, number.format(FORMAT).as_bytes(), out);
        let mut writer = Self { crc: Crc64::default() };
        writer.add(&out[start..]);
        writer
    }

    /// Counts a piece of records in, which the caller appends to the file.
    pub fn add(&mut self, piece: &[u8]) {
        self.crc.add(piece);
    }

    /// What ends the file.
    #[must_use]
    pub fn end(mut self) -> [u8; END_BYTES] {
        self.crc.add(&[opcode::END]);
        let mut end = [opcode::END; END_BYTES];
        end[1..].copy_from_slice(&self.crc.value().to_le_bytes());
        end
    }
}
