//! What stands around the records of a file: its header, facts about it, and the checksum at its end.
//!
//! # How it works
//! ```text
//! REDIS0010 │ facts │ SELECTDB 0, records.. │ SELECTDB 3, records.. │ EOF │ checksum, 8 bytes
//! ```
//! Records come in pieces from a snapshot, each piece beginning with its database. The caller writes them where it likes and shows each to
//! the writer, so that nothing here waits for a disk.

use super::crc64::Crc64;
use super::encode::write_aux;
use super::{FORMAT, MAGIC, VERSION, opcode};

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

/// A file that is being written.
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
        write_aux(b"acteon-format", number.format(FORMAT).as_bytes(), out);
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
