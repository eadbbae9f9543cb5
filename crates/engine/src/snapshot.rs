//! The whole state of an engine at one moment, written out while the engine goes on.
//!
//! # Guarantees
//! A snapshot is the exact state at its cut: groups of changes that were handed over before the cut are in it, later ones are not,
//! none in part. Keys whose time has come may be missing. What was cut and the groups after it lead to the state of today.
//!
//! # Bounds
//! The cut itself holds all keys for the time of locking all segments and writing some words into each, some ten microseconds; it waits for
//! scripts that run long without holding anything. Afterwards one segment is held at a time, for as long as it takes to write out some hundred
//! keys, or a 32nd of its keys if that is more, and to copy what is large: a collection of a gigabyte is written out as a whole, while those
//! wait that use it or a key of its segment. Who changes a key writes out about a 32nd of its segment, once for each 32nd. A snapshot costs memory: up to the size of the parts of segments in which
//! something is changed before it comes to them, as copy-on-write after a fork does for pages. That is beyond the bound of the memory, and
//! counted ([`Engine::snapshot_held_bytes`]).
//!
//! # How it works
//! The cut leaves marks in each segment that has keys, one for each of its parts (`snapshot/marks.rs`). Whoever is about to change a key of a
//! marked part first writes that part out and leaves the bytes to the snapshot; the snapshot itself walks through the rest. A database that is
//! emptied gives its entries to the snapshot as they are, so that nobody waits for them; databases that are exchanged exchange their marks as
//! well, which say to which database the keys belonged at the cut.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::keyspace::{Engine, Keyspace, Padded};
use crate::segment::Segment;
use crate::store::Store;
use crate::sync::{Mutex, MutexGuard};

mod marks;

pub(crate) use marks::Unsaved;
use marks::records_of;

/// How long a cut waits for one segment while it holds others.
const CUT_PATIENCE: Duration = Duration::from_micros(200);

/// The snapshot that runs, if one does, as writers see it.
#[derive(Default)]
pub(crate) struct Saving {
    /// A snapshot runs. Becomes true only while all segments are held.
    is_running: AtomicBool,
    /// The time of the latest cut.
    cut_ms: AtomicU64,
    /// A lock that is taken while a segment is held, never the other way round.
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// What writers have saved.
    saved: VecDeque<Saved>,
    /// Segments of which not all is saved yet.
    left: usize,
    held: HeldBytes,
}

/// What writers have saved for a snapshot and it has not come to yet: memory beyond that of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// At this moment, about.
    pub now: u64,
    /// The most since the latest cut.
    pub peak: u64,
}

/// Keys that writers have saved.
pub(crate) enum Saved {
    /// As they stand in a file.
    Records(Vec<u8>),
    /// Entries that were to be freed, of which these are needed, and what they take.
    Store { unsaved: Unsaved, store: Store, bytes: u64 },
}

impl Saved {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Records(records) if records.is_empty())
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Records(records) => (records.capacity() + size_of::<Self>()) as u64,
            Self::Store { bytes, .. } => *bytes,
        }
    }
}

impl Saving {
    /// Whether marks mean something.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// Takes what was in marked parts of a segment, which is held, and whether they were its last ones. Gives it back if the snapshot was dropped
    /// meanwhile: a store is not to be freed here, where others wait for the segment.
    pub(crate) fn add(&self, saved: Saved, are_last: bool) -> Option<Saved> {
        let mut running = self.running.lock();
        if !self.is_running() {
            return Some(saved);
        }
        if !saved.is_nothing() {
            running.held.now += saved.bytes();
            running.held.peak = running.held.peak.max(running.held.now);
            running.saved.push_back(saved);
        }
        running.left -= usize::from(are_last);
        None
    }

    /// The snapshot itself has taken the last marked parts of a segment, which is held.
    fn segment_is_saved(&self) {
        self.running.lock().left -= 1;
    }

    /// The time of the cut of the snapshot that runs.
    pub(crate) fn cut_ms(&self) -> u64 {
        self.cut_ms.load(Ordering::Relaxed)
    }

    /// Marks `segments`, each with its database, all of which are held. Returns whether it did: not if a snapshot runs.
    fn begin<'s>(&self, segments: impl Iterator<Item = (usize, &'s mut Segment)>, now_ms: u64) -> bool {
        let mut running = self.running.lock();
        if self.is_running() {
            return false;
        }
        for (database, segment) in segments {
            debug_assert!(segment.recorder.is_empty(), "changes are handed over before a segment is released");
            // Fits: there are 2^16 at most.
            segment.unsaved = (!segment.store.is_empty()).then(|| Unsaved::all(database as u16));
            running.left += usize::from(segment.unsaved.is_some());
        }
        running.held = HeldBytes::default();
        self.cut_ms.store(now_ms, Ordering::Relaxed);
        self.is_running.store(true, Ordering::Release);
        true
    }

    /// The next that a writer has saved, and how many segments are left.
    fn take_saved(&self) -> (Option<Saved>, usize) {
        let mut running = self.running.lock();
        let saved = running.saved.pop_front();
        running.held.now -= saved.as_ref().map_or(0, Saved::bytes);
        (saved, running.left)
    }

    fn end(&self) -> VecDeque<Saved> {
        let mut running = self.running.lock();
        self.is_running.store(false, Ordering::Release);
        (running.left, running.held.now) = (0, 0);
        std::mem::take(&mut running.saved)
    }
}

impl Engine {
    /// Begins a snapshot of all databases at this moment, at which `on_cut` is called: while nothing can change, so that a log can begin a new
    /// file there. `on_cut` must be quick, and must not call the engine. `None` if another snapshot has not been dropped yet.
    ///
    /// Under a policy of eviction that goes by the use of keys, the records say when (LRU) or how often (LFU) each was used, as of `now_ms`.
    ///
    /// ```
    /// use acteon_engine::{Engine, EngineConfig, Expiry};
    ///
    /// let engine = Engine::new(EngineConfig::default());
    /// let set = |key: &[u8]| engine.update(key, 1, |slot| slot.set_str(&[b"value"], Expiry::Clear));
    /// set(b"before")?;
    /// let snapshot = engine.cut(1, || ()).expect("no other snapshot runs");
    /// set(b"after")?;
    /// let records: Vec<u8> = snapshot.flatten().collect();
    /// assert!(records.windows(6).any(|bytes| bytes == b"before"));
    /// assert!(!records.windows(5).any(|bytes| bytes == b"after"));
    /// # Ok::<(), acteon_engine::EngineError>(())
    /// ```
    pub fn cut(&self, now_ms: u64, on_cut: impl FnOnce()) -> Option<Snapshot> {
        let family = self.family();
        loop {
            if self.keyspace().context.saving.is_running() {
                return None;
            }
            let databases = family.all();
            let segments: Vec<_> = databases
                .iter()
                .flat_map(|(number, keyspace)| keyspace.segments.iter().map(|one| (*number, one)))
                .collect();
            let mut guards = hold_all(&segments);
            // Nobody can create a database until the cut is over; if somebody did before, it starts again.
            let newest = family.lock();
            if newest.len() != databases.len() {
                continue;
            }
            let numbers = segments.iter().map(|(number, _)| *number);
            let held = numbers.zip(guards.iter_mut().map(|guard| &mut **guard));
            if !self.keyspace().context.saving.begin(held, now_ms) {
                return None;
            }
            // Before the call, so that a panic there ends the snapshot.
            let snapshot = Snapshot { engine: self.clone(), pass: VecDeque::new() };
            on_cut();
            return Some(snapshot);
        }
    }
}

impl Engine {
    /// What the snapshot that runs costs in memory at this moment, and has cost at most; of the latest one, if none runs.
    #[must_use]
    pub fn snapshot_held_bytes(&self) -> HeldBytes {
        self.keyspace().context.saving.running.lock().held
    }
}

/// Takes all segments. While one of them is not to be had for long, none is held.
fn hold_all<'k>(segments: &[(usize, &'k Padded)]) -> Vec<MutexGuard<'k, Segment>> {
    loop {
        let mut guards = Vec::with_capacity(segments.len());
        let taken = segments
            .iter()
            .map(|(_, segment)| (*segment, segment.0.try_lock().or_else(|| segment.0.try_lock_for(CUT_PATIENCE))));
        let mut missing = None;
        for (segment, guard) in taken {
            match guard {
                Some(guard) => guards.push(guard),
                None => {
                    missing = Some(segment);
                    break;
                }
            }
        }
        let Some(segment) = missing else { return guards };
        drop(guards);
        drop(segment.0.lock());
    }
}

/// A snapshot under way: an iterator over pieces of the records of an RDB file, each beginning with the number of its database. Dropping it
/// ends it.
pub struct Snapshot {
    engine: Engine,
    /// What is left to be looked at in this pass.
    pass: VecDeque<(Arc<Keyspace>, usize)>,
}

impl Snapshot {
    fn saving(&self) -> &Saving {
        &self.engine.keyspace().context.saving
    }

    /// Saves some marked parts of the next segment; `None` if there are none, or if they have no keys. The others come in the next pass: who took a
    /// segment again and again would take it before those who wait for it have woken.
    fn save_next(&mut self) -> Option<Vec<u8>> {
        let (keyspace, number) = self.pass.front_mut()?;
        let mut segment = keyspace.lock(*number);
        *number += 1;
        let is_last = *number == keyspace.segments.len();
        let records = segment.save_some(&keyspace.context);
        drop(segment);
        if is_last {
            self.pass.pop_front();
        }
        records.filter(|records| !records.is_empty())
    }
}

impl Iterator for Snapshot {
    type Item = Vec<u8>;

    /// Waits for whoever holds the next segment, and holds it while some of its keys are written out.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (saved, left) = self.saving().take_saved();
            match saved {
                Some(Saved::Records(records)) => return Some(records),
                // Freed here, where nobody waits.
                Some(Saved::Store { unsaved, store, .. }) => {
                    let records = records_of(&self.engine.keyspace().context, unsaved, &store);
                    if !records.is_empty() {
                        return Some(records);
                    }
                }
                None if left == 0 => return None,
                None => {}
            }
            if self.pass.is_empty() {
                self.pass = self.engine.family().all().into_iter().map(|(_, keyspace)| (keyspace, 0)).collect();
            }
            if let Some(records) = self.save_next() {
                return Some(records);
            }
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let saved = self.saving().end();
        drop(saved);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("segments_left", &self.saving().running.lock().left).finish_non_exhaustive()
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, feature = "commands", not(shuttle)))]
mod tests;
