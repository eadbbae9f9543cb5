//! The journal file that is being written.
//!
//! # Guarantees
//! Behind an append that failed, the file ends with the last whole record: at once, or else before the next append.

use crate::format::{HEADER_BYTES, header};
use crate::manifest::journal_file;
use crate::storage::{File, FileError, Storage, append_all};

/// A journal file that is being written.
pub(crate) struct Active {
    pub(crate) number: u64,
    name: String,
    file: Box<dyn File>,
    /// Whole records and the header.
    pub(crate) bytes: u64,
    /// What an append has left behind these may still be there.
    is_torn: bool,
}

impl Active {
    /// Creates a file, which is there after a crash.
    pub(crate) fn create(storage: &dyn Storage, number: u64, first_position: u64) -> Result<Self, FileError> {
        let name = journal_file(number);
        let on = |operation| FileError::on(operation, &name);
        let mut file = storage.create(&name).map_err(on("create"))?;
        append_all(&mut *file, &header(first_position)).map_err(on("write to"))?;
        file.sync().map_err(on("sync"))?;
        storage.sync_directory().map_err(on("sync the directory of"))?;
        Ok(Self { number, file, bytes: HEADER_BYTES as u64, is_torn: false, name })
    }

    /// Goes on with a file of `bytes` bytes.
    pub(crate) fn open(storage: &dyn Storage, number: u64, bytes: u64) -> Result<Self, FileError> {
        let name = journal_file(number);
        let file = storage.open_to_append(&name).map_err(FileError::on("open", &name))?;
        Ok(Self { number, name, file, bytes, is_torn: false })
    }

    /// Appends all of `records`, or nothing.
    pub(crate) fn append(&mut self, records: &[u8]) -> Result<(), FileError> {
        if self.is_torn {
            self.file.truncate(self.bytes).map_err(FileError::on("shorten", &self.name))?;
            self.is_torn = false;
        }
        let appended = append_all(&mut *self.file, records);
        match appended {
            Ok(()) => self.bytes += records.len() as u64,
            // Room for others, where a disk is full.
            Err(_) => self.is_torn = self.file.truncate(self.bytes).is_err(),
        }
        appended.map_err(FileError::on("write to", &self.name))
    }

    /// Writes records over themselves, so that the next sync takes them to the disk.
    pub(crate) fn overwrite(&mut self, offset: u64, records: &[u8]) -> Result<(), FileError> {
        self.file.overwrite(offset, records).map_err(FileError::on("write to", &self.name))
    }

    pub(crate) fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync().map_err(FileError::on("sync", &self.name))
    }

    /// Cuts off what follows `bytes` bytes.
    pub(crate) fn cut_off(&mut self, bytes: u64) -> Result<(), FileError> {
        self.file.truncate(bytes).map_err(FileError::on("shorten", &self.name))?;
        self.bytes = bytes;
        self.sync()
    }
}
