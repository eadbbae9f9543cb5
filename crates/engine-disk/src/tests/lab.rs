//! An engine with a disk, and everything that was ever appended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_engine::{ChangeLog, Engine, EngineConfig, Expiry};
use parking_lot::Mutex;

use crate::config::{DiskConfig, Fsync, RewriteSchedule};
use crate::disk::{Disk, OpenError};
use crate::recovery::Loaded;
use crate::simulation::{Directory, Random};
use crate::storage::Storage;

/// Longer than anything takes that does not hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// All groups, in their order.
#[derive(Clone, Default)]
pub(super) struct History(Arc<Mutex<Vec<Vec<u8>>>>);

impl History {
    pub(super) fn len(&self) -> u64 {
        self.0.lock().len() as u64
    }

    /// Later ones are lost.
    pub(super) fn truncate(&self, position: u64) {
        self.0.lock().truncate(position as usize);
    }

    /// What the first groups lead to.
    pub(super) fn digest_at(&self, position: u64) -> u128 {
        let engine = new_engine();
        for group in &self.0.lock()[..position as usize] {
            engine.apply(group).expect("it was recorded");
        }
        engine.digest(0)
    }
}

/// Between an engine and its disk.
struct Tee {
    history: History,
    log: Arc<dyn ChangeLog>,
}

impl ChangeLog for Tee {
    fn append(&self, group: &[u8]) -> u64 {
        let mut groups = self.history.0.lock();
        groups.push(group.to_vec());
        let position = self.log.append(group);
        assert_eq!(position, groups.len() as u64, "positions count groups");
        position
    }

    fn is_writable(&self) -> bool {
        self.log.is_writable()
    }

    fn refusal(&self) -> Option<String> {
        self.log.refusal()
    }
}

/// An engine with a disk.
pub(super) struct Lab {
    pub(super) engine: Engine,
    pub(super) disk: Disk,
    pub(super) loaded: Loaded,
    /// The highest position that was acknowledged.
    pub(super) acknowledged: AtomicU64,
}

pub(super) fn new_engine() -> Engine {
    Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() })
}

/// Nothing happens by itself, and nothing is waited for long.
pub(super) fn config(fsync: Fsync) -> DiskConfig {
    DiskConfig {
        fsync,
        fsync_interval: Duration::from_millis(5),
        rewrite: RewriteSchedule { growth_percent: 0, bytes_min: 0 },
        retry: (Duration::from_micros(100), Duration::from_millis(2)),
        ..DiskConfig::default()
    }
}

impl Lab {
    pub(super) fn open(directory: &Directory, config: DiskConfig, history: &History) -> Result<Self, OpenError> {
        Self::open_in(Arc::new(directory.clone()), config, history)
    }

    pub(super) fn open_in(storage: Arc<dyn Storage>, config: DiskConfig, history: &History) -> Result<Self, OpenError> {
        let engine = new_engine();
        let history = history.clone();
        let wrap = |log| -> Arc<dyn ChangeLog> { Arc::new(Tee { history, log }) };
        let (disk, loaded) = Disk::open_with(storage, &engine, config, 0, wrap)?;
        Ok(Self { engine, disk, loaded, acknowledged: AtomicU64::new(0) })
    }

    /// Opens a directory that must be usable.
    pub(super) fn reopen(directory: &Directory, history: &History, hint: &str) -> Self {
        let lab = Self::open(directory, config(Fsync::Always), history);
        lab.unwrap_or_else(|error| panic!("{hint}: {error}; {:?}", directory))
    }

    /// What was loaded must be what the first groups lead to, up to `position` at least.
    pub(super) fn check(&self, history: &History, position: u64, hint: &str) {
        let found = self.loaded.position;
        assert!(found >= position, "{hint}: {position} groups were acknowledged, and {found} are there");
        assert!(found <= history.len(), "{hint}: {found} groups are there, and {} were appended", history.len());
        assert_eq!(self.engine.digest(0), history.digest_at(found), "{hint}: at position {found}");
    }

    pub(super) fn set(&self, key: &str, value: &str) {
        self.engine
            .update(key.as_bytes(), 1, |slot| slot.set_str(&[value.as_bytes()], Expiry::Clear))
            .expect("no bound");
    }

    /// Waits until what was written until now is kept. Returns whether it is.
    pub(super) fn acknowledge(&self) -> bool {
        let position = self.engine.log_position();
        let is_kept = self.disk.wait(position, PATIENCE).is_ok();
        if is_kept {
            self.acknowledged.fetch_max(position, Ordering::Relaxed);
        }
        is_kept
    }

    /// Writes something.
    pub(super) fn write(&self, random: &mut Random) {
        let key = format!("k{}", random.below(12));
        let value = vec![b'v'; random.below(40)];
        let number = random.below(5).to_string();
        let engine = &self.engine;
        match random.below(12) {
            0 => drop(engine.update(key.as_bytes(), 1, |slot| slot.remove())),
            1 => drop(engine.update(key.as_bytes(), 1, |slot| slot.set_expiry(Expiry::At(1_000)))),
            2 => engine.clear(),
            3 => drop(engine.update_many(&[b"h", b"z", b"s"], 1, |slots| {
                slots.slot(0).hash_mut()?.insert(number.as_bytes(), &value)?;
                slots.slot(1).sorted_set_mut()?.insert(number.as_bytes(), value.len() as f64)?;
                slots.slot(2).set_str(&[number.as_bytes()], Expiry::At(5_000))
            })),
            4 => drop(engine.update(key.as_bytes(), 1, |slot| slot.set_str(&[&vec![7; 700]], Expiry::Clear))),
            _ => drop(engine.update(key.as_bytes(), 1, |slot| slot.set_str(&[&value], Expiry::Clear))),
        }
    }
}

/// Tells other threads to end, also if the test fails.
#[derive(Default)]
pub(super) struct Ends(AtomicBool);

impl Ends {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// When what is returned is dropped.
    pub(super) fn later(&self) -> impl Drop + '_ {
        struct Later<'a>(&'a AtomicBool);
        impl Drop for Later<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Later(&self.0)
    }
}

/// Waits for something that happens soon.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl History {
    pub(super) fn extend(&self, groups: Vec<Vec<u8>>) {
        self.0.lock().extend(groups);
    }
}
