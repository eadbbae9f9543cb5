//! What a directory in memory lacks to be told from others, and to be one that belongs to somebody else.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::simulation::Directory;
use crate::storage::{File, Lock, LockError, Storage};

/// A directory in memory that has a name.
pub(super) struct Named {
    directory: Directory,
    path: PathBuf,
    /// Why nothing can be written, so that it cannot be locked.
    denies: Option<io::ErrorKind>,
}

impl Named {
    pub(super) fn new(directory: &Directory, name: &str) -> Self {
        Self { directory: directory.clone(), path: name.into(), denies: None }
    }

    pub(super) fn denying(directory: &Directory, name: &str, why: io::ErrorKind) -> Self {
        Self { denies: Some(why), ..Self::new(directory, name) }
    }
}

impl Storage for Named {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.directory.create(name)
    }

    fn open_to_append(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.directory.open_to_append(name)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        self.directory.read(name)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.directory.len(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_directory()
    }

    fn lock(&self) -> Result<Lock, LockError> {
        match self.denies {
            Some(why) => Err(LockError::Io(why.into())),
            None => self.directory.lock(),
        }
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
