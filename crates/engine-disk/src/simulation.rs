//! A directory in memory that fails by plan, and forgets in a crash what was not synced.
//!
//! # What a crash leaves
//! Of each file, what was synced and a random part of what was appended since: it ends anywhere, or in zeros, or a shortening is undone. What was
//! written over since is there again, sector by sector, or not. Of the names, those that were synced, with any of the changes since in their order, each as a whole. That is what file systems are known to do, and
//! more.
//!
//! # Example
//! ```
//! use acteon_engine_disk::Storage;
//! use acteon_engine_disk::simulation::{Directory, Faults};
//!
//! let directory = Directory::new(1);
//! let mut file = directory.create("f")?;
//! file.append(b"hello")?;
//! drop(file);
//! directory.set_faults(Faults { crash_at: Some(directory.operations()), ..Faults::default() });
//! assert!(directory.sync_directory().is_err());
//! let after = directory.restarted();
//! assert!(after.list()?.len() <= 1);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::storage::{File, Lock, LockError, Storage};

/// What is lost in a crash is lost in units of this size.
const SECTOR_BYTES: usize = 512;

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The operation of this number does not happen, nor any after it: the machine has stopped.
    pub crash_at: Option<u64>,
    /// All files together cannot have more than so many bytes.
    pub bytes_max: Option<u64>,
    /// What is written over something needs room of its own as long as the old bytes are there: file systems that copy on write.
    pub copies_on_write: bool,
    /// What has no room is told by the sync of it: file systems that look for room late, or have it on another machine.
    pub allocates_late: bool,
    /// This file is read up to its middle, and then fails: a bad sector.
    pub fails_read: Option<String>,
    /// One of so many appends fails, half of them after having written a part.
    pub fails_append: Option<u32>,
    /// One of so many syncs fails; what it was to sync may be lost in a crash, whatever a later one says.
    pub fails_sync: Option<u32>,
    /// One of so many creations, renames, removals, and syncs of the directory fails.
    pub fails_name: Option<u32>,
    /// One of so many appends takes a part only.
    pub shortens_append: Option<u32>,
    /// How long each append and sync takes.
    pub latency: Duration,
}

/// A directory in memory.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// What was done to names since they were synced.
    unsynced: Vec<NameChange>,
    faults: Faults,
    random: Random,
    operations: u64,
    has_crashed: bool,
    is_locked: bool,
}

#[derive(Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// So many of them will survive.
    synced: usize,
    /// Since a sync has failed: what lies behind this will not survive, whatever later ones say, unless it is written once more.
    lost_from: Option<usize>,
    /// What it was before it was shortened, if that was not synced.
    before: Option<Vec<u8>>,
    /// What lay where something else was written since the last sync, and from which byte on; the oldest first.
    overwritten: Vec<(usize, Vec<u8>)>,
}

impl Contents {
    fn is_synced(&self) -> bool {
        self.synced == self.bytes.len() && self.overwritten.is_empty()
    }

    fn fail_sync(&mut self) {
        if self.synced < self.bytes.len() {
            self.lost_from.get_or_insert(self.synced);
        }
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let to = from + bytes.len();
        let place = self.bytes.get_mut(from..to).ok_or(io::ErrorKind::InvalidInput)?;
        self.overwritten.push((from, place.to_vec()));
        place.copy_from_slice(bytes);
        // What was lost is to be written again.
        if self.lost_from.is_some_and(|lost| (from..to).contains(&lost)) {
            self.lost_from = Some(to).filter(|to| *to < self.bytes.len());
        }
        Ok(())
    }
}

impl fmt::Debug for Contents {
    /// Without the bytes, so that a directory can be shown when a test fails.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, before) = (self.bytes.len(), self.before.as_ref().map(Vec::len));
        write!(f, "{bytes} bytes, synced {}, lost from {:?}, before {before:?}", self.synced, self.lost_from)
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl Directory {
    /// An empty one; what is random comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Vec::new(), BTreeMap::new())
    }

    fn with(seed: u64, files: Vec<Contents>, names: BTreeMap<String, usize>) -> Self {
        Self(Arc::new(Mutex::new(World {
            files,
            synced_names: names.clone(),
            names,
            random: Random(seed),
            ..World::default()
        })))
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Operations until now, those that failed included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Whether it has crashed.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.0.lock().has_crashed
    }

    /// Of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.lock().bytes()
    }

    /// What there is after a crash at this moment, without faults.
    #[must_use]
    pub fn restarted(&self) -> Self {
        let mut world = self.0.lock();
        let files = (0..world.files.len()).map(|number| world.survivor(number)).collect();
        let names = world.surviving_names();
        Self::with(world.random.next(), files, names)
    }

    /// The same, but what was not synced is not cut off: it keeps its length and has a hole, with something behind it. Pages are written in no
    /// order.
    #[must_use]
    pub fn restarted_with_holes(&self) -> Self {
        let mut world = self.0.lock();
        let files = (0..world.files.len()).map(|number| world.survivor_with_a_hole(number)).collect();
        let names = world.surviving_names();
        Self::with(world.random.next(), files, names)
    }

    /// What another process finds if only this one is killed: everything that was done, without faults. What was not synced is not synced by
    /// that, and what a failed sync has lost is still lost: if the machine stops later, it goes.
    #[must_use]
    pub fn killed(&self) -> Self {
        let mut world = self.0.lock();
        Self(Arc::new(Mutex::new(World {
            files: world.files.clone(),
            names: world.names.clone(),
            synced_names: world.synced_names.clone(),
            unsynced: world.unsynced.clone(),
            random: Random(world.random.next()),
            ..World::default()
        })))
    }

    /// The bytes of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.0.lock();
        world.names.get(name).map(|number| world.files[*number].bytes.clone())
    }

    /// A copy that somebody has made: everything is there, and nothing of it is synced, neither bytes nor names.
    #[must_use]
    pub fn copied(&self) -> Self {
        let world = self.0.lock();
        let copy = Self::new(world.random.0.wrapping_add(1));
        {
            let mut copied = copy.0.lock();
            for (name, number) in &world.names {
                let to = copied.files.len();
                copied.files.push(Contents { bytes: world.files[*number].bytes.clone(), ..Contents::default() });
                copied.names.insert(name.clone(), to);
                copied.unsynced.push(NameChange::Set(name.clone(), to));
            }
        }
        copy
    }

    /// Puts a file in place, synced.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut world = self.0.lock();
        let number = world.files.len();
        world.files.push(Contents { bytes: bytes.to_vec(), synced: bytes.len(), ..Contents::default() });
        world.names.insert(name.to_owned(), number);
        world.synced_names.insert(name.to_owned(), number);
    }

    fn world(&self) -> io::Result<parking_lot::MutexGuard<'_, World>> {
        let mut world = self.0.lock();
        if world.begins() { Ok(world) } else { Err(stopped()) }
    }

    fn change(&self, change: impl FnOnce(&mut World) -> io::Result<()>) -> io::Result<()> {
        let mut world = self.world()?;
        let fails = world.faults.fails_name;
        // One that fails may have happened.
        let (fails, happens) = (world.random.hits(fails), world.random.below(2) == 0);
        if fails && !happens {
            return Err(failure());
        }
        change(&mut world)?;
        if fails { Err(failure()) } else { Ok(()) }
    }

    fn open(&self, number: usize) -> Box<dyn File> {
        Box::new(Open { directory: self.clone(), number })
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

fn failure() -> io::Error {
    // EIO
    io::Error::from_raw_os_error(5)
}

fn is_full() -> io::Error {
    // ENOSPC
    io::Error::from_raw_os_error(28)
}

impl World {
    /// Counts an operation. Whether the machine has stopped by then.
    fn begins(&mut self) -> bool {
        self.operations += 1;
        if self.faults.crash_at.is_some_and(|at| self.operations > at) {
            self.has_crashed = true;
        }
        !self.has_crashed
    }

    fn bytes(&self) -> u64 {
        self.names.values().map(|number| self.files[*number].bytes.len() as u64).sum()
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn survivor(&mut self, number: usize) -> Contents {
        let mut file = self.files[number].clone();
        self.undo_overwriting(&mut file);
        let mut bytes = match file.before {
            Some(before) if self.random.below(3) == 0 => before,
            _ => file.bytes,
        };
        let synced = file.synced.min(bytes.len());
        let survives = synced + self.random.below(bytes.len() - synced + 1);
        if self.random.below(4) == 0 {
            // The length is on the disk, and of the contents only the first sectors.
            let zeros_from = survives.next_multiple_of(SECTOR_BYTES).clamp(synced, bytes.len());
            bytes[zeros_from..].fill(0);
        } else {
            bytes.truncate(survives);
        }
        Contents { synced: bytes.len(), bytes, ..Contents::default() }
    }

    /// Sectors of what was written over something come to the disk in no order, each as a whole.
    fn undo_overwriting(&mut self, file: &mut Contents) {
        for (from, old) in std::mem::take(&mut file.overwritten).into_iter().rev() {
            let mut at = from;
            while at < from + old.len() {
                let end = (at + 1).next_multiple_of(SECTOR_BYTES).min(from + old.len());
                if let (0, Some(place)) = (self.random.below(2), file.bytes.get_mut(at..end)) {
                    place.copy_from_slice(&old[at - from..end - from]);
                }
                at = end;
            }
        }
    }

    fn survivor_with_a_hole(&mut self, number: usize) -> Contents {
        let Contents { mut bytes, synced, .. } = self.files[number].clone();
        let sectors = (bytes.len() - synced) / SECTOR_BYTES;
        let from = (synced + self.random.below(sectors.max(1)) * SECTOR_BYTES).next_multiple_of(SECTOR_BYTES);
        let to = from + (1 + self.random.below(sectors)) * SECTOR_BYTES;
        let (from, to) = (from.min(bytes.len()), to.min(bytes.len()));
        bytes[from..to].fill(0);
        Contents { synced: bytes.len(), bytes, ..Contents::default() }
    }

    fn surviving_names(&mut self) -> BTreeMap<String, usize> {
        let mut names = self.synced_names.clone();
        for change in self.unsynced.clone() {
            if self.random.below(2) == 0 {
                match change {
                    NameChange::Set(name, number) => drop(names.insert(name, number)),
                    NameChange::Remove(name) => drop(names.remove(&name)),
                    NameChange::Rename(from, to, number) => {
                        names.remove(&from);
                        names.insert(to, number);
                    }
                }
            }
        }
        names
    }
}

impl Storage for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut created = None;
        self.change(|world| {
            let number = world.files.len();
            world.files.push(Contents::default());
            world.names.insert(name.to_owned(), number);
            world.unsynced.push(NameChange::Set(name.to_owned(), number));
            created = Some(number);
            Ok(())
        })?;
        created.map(|number| self.open(number)).ok_or_else(failure)
    }

    fn open_to_append(&self, name: &str) -> io::Result<Box<dyn File>> {
        let number = self.world()?.find(name)?;
        Ok(self.open(number))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        let world = self.world()?;
        let number = world.find(name)?;
        let mut bytes = world.files[number].bytes.clone();
        if world.faults.fails_read.as_deref() == Some(name) {
            bytes.truncate(bytes.len() / 2);
            return Ok(Box::new(Cursor::new(bytes).chain(BadSector)));
        }
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let world = self.world()?;
        let number = world.find(name)?;
        Ok(world.files[number].bytes.len() as u64)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|world| {
            let number = world.find(from)?;
            world.names.remove(from);
            world.names.insert(to.to_owned(), number);
            world.unsynced.push(NameChange::Rename(from.to_owned(), to.to_owned(), number));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|world| {
            world.find(name)?;
            world.names.remove(name);
            world.unsynced.push(NameChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world()?.names.keys().cloned().collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.change(|world| {
            world.synced_names = world.names.clone();
            world.unsynced.clear();
            Ok(())
        })
    }

    fn lock(&self) -> Result<Lock, LockError> {
        let mut world = self.0.lock();
        if std::mem::replace(&mut world.is_locked, true) {
            return Err(LockError::Held(None));
        }
        Ok(Box::new(Unlocks(self.clone())))
    }
}

struct BadSector;

impl Read for BadSector {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(failure())
    }
}

struct Unlocks(Directory);

impl Drop for Unlocks {
    fn drop(&mut self) {
        self.0.0.lock().is_locked = false;
    }
}

struct Open {
    directory: Directory,
    number: usize,
}

impl Open {
    fn pause(&self) {
        let latency = self.directory.0.lock().faults.latency;
        if !latency.is_zero() {
            thread::sleep(latency);
        }
    }
}

impl File for Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pause();
        let mut world = self.directory.0.lock();
        let had_crashed = world.has_crashed;
        if !world.begins() {
            if !had_crashed {
                // The machine has stopped in the middle of it.
                let part = world.random.below(bytes.len() + 1);
                world.files[self.number].bytes.extend_from_slice(&bytes[..part]);
            }
            return Err(stopped());
        }
        let faults = world.faults.clone();
        let fails = world.random.hits(faults.fails_append);
        let mut count = bytes.len();
        if fails {
            count = world.random.below(count + 1);
        } else if world.random.hits(faults.shortens_append) {
            count = 1 + world.random.below(count);
        }
        let room = faults.bytes_max.map_or(u64::MAX, |bytes_max| bytes_max.saturating_sub(world.bytes()));
        let taken = count.min(usize::try_from(room).unwrap_or(usize::MAX));
        world.files[self.number].bytes.extend_from_slice(&bytes[..taken]);
        match (fails, taken) {
            (true, _) => Err(failure()),
            (false, 0) if !bytes.is_empty() => Err(is_full()),
            (false, taken) => Ok(taken),
        }
    }

    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pause();
        let mut world = self.directory.0.lock();
        let had_crashed = world.has_crashed;
        if !world.begins() {
            if !had_crashed {
                // The machine has stopped in the middle of it.
                let part = world.random.below(bytes.len() + 1);
                world.files[self.number].overwrite(offset, &bytes[..part])?;
            }
            return Err(stopped());
        }
        let fails = world.faults.fails_append;
        if world.random.hits(fails) {
            let part = world.random.below(bytes.len() + 1);
            world.files[self.number].overwrite(offset, &bytes[..part])?;
            return Err(failure());
        }
        let room = world.faults.bytes_max.map_or(u64::MAX, |bytes_max| bytes_max.saturating_sub(world.bytes()));
        if world.faults.copies_on_write && room < bytes.len() as u64 {
            return Err(is_full());
        }
        world.files[self.number].overwrite(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.pause();
        let mut world = self.directory.world()?;
        let fails = world.faults.fails_sync;
        if world.random.hits(fails) {
            world.files[self.number].fail_sync();
            return Err(failure());
        }
        let has_room = world.faults.bytes_max.is_none_or(|bytes_max| world.bytes() <= bytes_max);
        if world.faults.allocates_late && !has_room && !world.files[self.number].is_synced() {
            world.files[self.number].fail_sync();
            return Err(is_full());
        }
        let file = &mut world.files[self.number];
        file.synced = file.lost_from.unwrap_or(file.bytes.len());
        file.before = None;
        file.overwritten.clear();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut world = self.directory.world()?;
        let fails = world.faults.fails_name;
        if world.random.hits(fails) {
            return Err(failure());
        }
        let file = &mut world.files[self.number];
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(file.bytes.len());
        if file.before.is_none() && len < file.bytes.len() {
            file.before = Some(file.bytes.clone());
        }
        file.bytes.truncate(len);
        file.overwritten.retain(|(from, old)| from + old.len() <= len);
        file.synced = file.synced.min(len);
        file.lost_from = file.lost_from.filter(|from| *from < len);
        Ok(())
    }
}

/// Sebastiano Vigna's splitmix64.
#[derive(Debug, Default)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    pub(crate) fn hits(&mut self, one_of: Option<u32>) -> bool {
        one_of.is_some_and(|one_of| self.below(one_of.max(1) as usize) == 0)
    }
}
