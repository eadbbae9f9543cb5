//! A directory of the file system.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{File, Lock, LockError, Storage};

/// The file that is locked. It stays when the lock is gone, so that nobody locks a file that another one is about to remove.
const LOCK: &str = "lock";

/// Longest number of a process in the lock file.
const PID_BYTES_MAX: u64 = 20;

/// A directory of the file system.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
}

impl Files {
    /// The directory at `path`, which is created if it is not there, for nobody else to read.
    ///
    /// # Errors
    /// It is not a directory, or cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_levels(&path, sync_directory)?;
        Ok(Self { path })
    }

    /// The directory at `path`.
    ///
    /// # Errors
    /// It is not there, or no directory.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Creates the directory and those above it that are not there. All of them are there after a crash as well, for the data are in the last one.
fn create_levels(path: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let levels: Vec<&Path> = path.ancestors().filter(|level| !level.as_os_str().is_empty()).collect();
    for level in levels.into_iter().rev() {
        let created = match create_private(level) {
            Ok(()) => true,
            Err(_) if level.is_dir() => false,
            // "File exists" would say nothing of what is wanted.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Err(error) => return Err(error),
        };
        let Some(parent) = level.parent() else { continue };
        let synced = sync(if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        // One that was there may have been made by a process that was killed before it could sync it. Mostly it is older, and belongs to
        // somebody who does not let us.
        if created {
            synced?;
        }
    }
    Ok(())
}

fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// What is created is for nobody else to read, whatever the directory says.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Elsewhere directories cannot be opened, and file systems keep the order of their metadata.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

impl Storage for Files {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(self.at(name))?;
        Ok(Box::new(Written(file)))
    }

    fn open_to_append(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut file = OpenOptions::new().write(true).open(self.at(name))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(Written(file)))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(fs::File::open(self.at(name))?))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.at(name))?.len())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let path = self.at(name);
        // Some systems sync only what was opened to be written. Somebody who has copied the file may have let it be read only.
        let file = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fs::File::open(&path)?,
            opened => opened?,
        };
        file.sync_data()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn lock(&self) -> Result<Lock, LockError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.at(LOCK));
        let mut file = options.map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(pid(&mut file))),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let note = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        match note {
            // For messages only. A full disk is no reason not to read what there is.
            Ok(()) | Err(_) => Ok(Box::new(file)),
        }
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

fn pid(file: &mut fs::File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A file whose cursor is at its end.
struct Written(fs::File);

impl File for Written {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.0.metadata()?.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.seek(SeekFrom::Start(offset))?;
        let written = self.0.write_all(bytes);
        // Also after an error, so that nothing is ever appended in the middle.
        self.0.seek(SeekFrom::End(0))?;
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        self.0.seek(SeekFrom::Start(len)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{self, Read};
    use std::path::{Path, PathBuf};

    use super::{Files, LockError, Storage, create_levels};

    /// Only the last level was synced once: after a crash there was no `a` to find the data in.
    #[test]
    fn every_level_that_is_created_is_synced_in_the_one_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let synced = RefCell::new(Vec::new());
        let note = |path: &Path| -> io::Result<()> {
            synced.borrow_mut().push(path.to_owned());
            Ok(())
        };
        let path = folder.path().join("a/b/c");
        create_levels(&path, note).expect("created");
        assert!(path.is_dir());
        let expected: Vec<PathBuf> = ["", "a", "a/b"].map(|level| folder.path().join(level)).to_vec();
        let ends_with = |synced: &[PathBuf]| synced[synced.len() - 3..] == expected;
        assert!(ends_with(&synced.borrow()), "{synced:?}");
        // A level that is there may be one that a process made before it was killed.
        synced.borrow_mut().clear();
        create_levels(&path, note).expect("there");
        assert!(ends_with(&synced.borrow()), "{synced:?}");
        // It may be somebody else's, who does not let us; one of our own must be synced.
        let refuse = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        create_levels(&path, refuse).expect("there");
        assert!(create_levels(&path.join("d"), refuse).is_err());
        std::fs::write(path.join("file"), "text").expect("written");
        for below in ["file/e", "file"] {
            let error = create_levels(&path.join(below), note).expect_err("a file is no directory");
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{below}: {error}");
        }
    }

    #[test]
    fn files_go_on_where_they_were_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::create(folder.path().join("a/b")).expect("created");
        let mut file = files.create("f").expect("created");
        assert_eq!(file.append(b"hello, world").expect("written"), 12);
        file.truncate(5).expect("cut");
        file.append(b"!").expect("written");
        file.overwrite(1, b"ELL").expect("written");
        file.overwrite(1, b"ell").expect("written");
        assert!(file.overwrite(4, b"o!?").is_err(), "it would be longer");
        file.sync().expect("synced");
        drop(file);
        let mut file = files.open_to_append("f").expect("opened");
        file.append(b"?").expect("written");
        let mut text = String::new();
        files.read("f").expect("opened").read_to_string(&mut text).expect("text");
        assert_eq!((text.as_str(), files.len("f").expect("there")), ("hello!?", 7));
        files.rename("f", "g").expect("renamed");
        files.sync_directory().expect("synced");
        assert_eq!(files.list().expect("listed"), ["g"]);
        files.remove("g").expect("removed");
    }

    #[test]
    fn directory_has_one_writer_whose_number_others_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open(folder.path()).expect("there");
        let lock = files.lock().expect("free");
        let other = Files::open(folder.path()).expect("there");
        match other.lock() {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            Err(LockError::Io(error)) => panic!("{error}"),
            Ok(_) => panic!("it has a writer"),
        }
        drop(lock);
        assert!(other.lock().is_ok());
    }
}
