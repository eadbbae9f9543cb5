//! A directory that tells how much of it was read: loading takes as long as reading, and whoever starts a program wants to know how far it is.
//!
//! # Failure
//! Its own: none. What cannot be looked at counts as empty, and shows when it is read.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::manifest::{DUMP, Manifest};
use crate::storage::{File, Lock, LockError, Storage};
use crate::synced;

/// How often a dump is read that a new directory begins with: once to be loaded, once to be copied.
const READS_OF_DUMP: u64 = 2;

/// A directory that counts what is read of it.
pub struct Watched {
    storage: Arc<dyn Storage>,
    read_bytes: AtomicU64,
    /// What is read last.
    file: Mutex<String>,
}

impl Watched {
    /// Watches this directory.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, read_bytes: AtomicU64::new(0), file: Mutex::default() }
    }

    /// Bytes that were read until now.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// The file that is being read, or was read last.
    #[must_use]
    pub fn file(&self) -> String {
        self.file.lock().clone()
    }

    /// Bytes that opening the directory will read, give or take the manifest.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        let len = |name: &str| self.storage.len(name).unwrap_or(0);
        match Manifest::load(&*self.storage) {
            Ok(Some(Ok(manifest))) => {
                let journals: u64 = manifest.journals.iter().map(|journal| len(&journal.file())).sum();
                let again = manifest.journals.last().map_or(0, |last| {
                    let bytes = len(&last.file());
                    // What is not known to be on the disk is written once more, after having been read once more.
                    if synced::known(&*self.storage, last.number) == bytes { 0 } else { bytes }
                });
                journals + again + manifest.base.map_or(0, |base| base.bytes)
            }
            Ok(Some(Err(_))) | Err(_) => 0,
            Ok(None) => len(DUMP) * READS_OF_DUMP,
        }
    }
}

impl Storage for Watched {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.storage.create(name)
    }

    fn open_to_append(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.storage.open_to_append(name)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        let input = self.storage.read(name)?;
        name.clone_into(&mut self.file.lock());
        Ok(Box::new(Counted { input, read_bytes: &self.read_bytes }))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.storage.len(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.remove(name)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.storage.sync(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.storage.list()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.storage.sync_directory()
    }

    fn lock(&self) -> Result<Lock, LockError> {
        self.storage.lock()
    }

    fn path(&self) -> Option<&Path> {
        self.storage.path()
    }
}

struct Counted<'a> {
    input: Box<dyn Read + Send + 'a>,
    read_bytes: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_engine::{Engine, EngineConfig, Expiry};

    use super::{DUMP, Watched};
    use crate::simulation::Directory;
    use crate::{Disk, DiskConfig};

    const NOW_MS: u64 = 1_000;
    const KEYS: u64 = 1_000;

    /// Opens what is there, and returns the engine and how much was to be read, and was.
    fn open(directory: &Directory) -> (Engine, Disk, u64, u64) {
        let (engine, watched) =
            (Engine::new(EngineConfig::default()), Arc::new(Watched::new(Arc::new(directory.clone()))));
        let expected = watched.data_bytes();
        assert_eq!(watched.read_bytes(), 0, "looking counts for nothing");
        let (disk, _) = Disk::open(watched.clone(), &engine, DiskConfig::default(), NOW_MS).expect("sound");
        (engine, disk, expected, watched.read_bytes())
    }

    /// The manifest is read as well, and not a part of the data.
    fn assert_read(expected: u64, read: u64) {
        assert!(expected > KEYS && (expected..expected + 1_000).contains(&read), "{read} of {expected} bytes");
    }

    #[test]
    fn what_is_read_while_loading_is_what_was_expected() {
        let directory = Directory::new(1);
        let (engine, disk, expected, _) = open(&directory);
        assert_eq!(expected, 0, "it is new");
        for number in 0..KEYS {
            let set = engine.update(&number.to_be_bytes(), NOW_MS, |slot| slot.set_str(&[b"value"], Expiry::Clear));
            set.expect("no bound");
        }
        // After a process that was killed, the journal is read twice.
        disk.sync(Duration::from_secs(30)).expect("written");
        let (_, _other, expected, read) = open(&directory.killed());
        assert_read(expected, read);
        disk.close().expect("written");
        let (_, disk, expected, read) = open(&directory);
        assert_read(expected, read);
        disk.rewrite().expect("there is room");
        disk.save().expect("there is room");
        disk.close().expect("written");
        let (_, disk, expected, read) = open(&directory);
        assert_read(expected, read);
        disk.close().expect("written");

        let begins_with_dump = Directory::new(2);
        begins_with_dump.put(DUMP, &directory.get(DUMP).expect("saved"));
        let (engine, _, expected, read) = open(&begins_with_dump);
        assert_read(expected, read);
        assert_eq!(engine.len() as u64, KEYS);
    }
}
