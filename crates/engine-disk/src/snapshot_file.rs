//! A snapshot as an RDB file.
//!
//! # How it works
//! Pieces are gathered to writes of a quarter of a megabyte. A sync every 32 MB keeps the operating system from gathering gigabytes, whose
//! writing would stand in the way of the journal's syncs.

use acteon_engine::Snapshot;
use acteon_engine::rdb::{FileFacts, FileWriter};

use crate::crc32c;
use crate::jobs::Reason;
use crate::storage::{File, FileError, Storage, append_all};

const WRITE_BYTES: usize = 256 << 10;

const SYNC_BYTES: u64 = 32 << 20;

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenFile {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// Writes and syncs `name`. Ends with an error once `stops` says so. What there is of the file then is left to the caller.
pub(crate) fn write(
    storage: &dyn Storage,
    name: &str,
    snapshot: &mut Snapshot,
    facts: &FileFacts,
    stops: impl Fn() -> bool,
) -> Result<WrittenFile, Reason> {
    let on = |operation| FileError::on(operation, name);
    let reason = |error: FileError| Reason::from(error.to_string());
    let file = storage.create(name).map_err(on("create")).map_err(reason)?;
    let mut out = Out { file, buffer: Vec::with_capacity(WRITE_BYTES), bytes: 0, crc: 0, unsynced_bytes: 0 };
    let mut rdb = FileWriter::begin(facts, &mut out.buffer);
    for piece in snapshot {
        if stops() {
            return Err("the directory is being closed".into());
        }
        rdb.add(&piece);
        out.add(&piece).map_err(on("write to")).map_err(reason)?;
    }
    out.add(&rdb.end()).and_then(|()| out.flush()).map_err(on("write to")).map_err(reason)?;
    out.file.sync().map_err(on("sync")).map_err(reason)?;
    // So that nothing that names the file can be there after a crash without it.
    storage.sync_directory().map_err(on("sync the directory of")).map_err(reason)?;
    Ok(WrittenFile { bytes: out.bytes, crc: out.crc })
}

struct Out {
    file: Box<dyn File>,
    buffer: Vec<u8>,
    bytes: u64,
    crc: u32,
    unsynced_bytes: u64,
}

impl Out {
    fn add(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        append_all(&mut *self.file, bytes)?;
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::extend(self.crc, bytes);
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.file.sync()?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }
}
