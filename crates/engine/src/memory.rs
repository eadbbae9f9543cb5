//! Keeps the engine's estimate of its own memory, and refuses growth above the configured bound.
//!
//! # Guarantees
//! With a bound and no eviction, the sum of all granted growth never exceeds it, under any number of threads. With eviction a write that was let
//! in is never refused halfway: what is used exceeds the bound by what is being written at that moment. Giving memory back never fails.
//!
//! # How it works
//! Every segment counts its bytes under its own lock, for statistics. The shared counter below is touched only by segments that have been
//! told to count there, which they are when a first bound is set, so that an unbounded engine shares no cache line between writers.
//! A segment joins under its lock with all it has, so the sum is exact once all have joined, however much is written meanwhile; until then
//! nothing is refused.
//!
//! Sizes are estimates: what is asked of the allocator, rounded as allocators do. `tests/accounting.rs` holds them against a real one.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::EngineError;
use crate::evict::{Eviction, EvictionConfig, EvictionPolicy};

/// With less than this left, an engine that evicts nothing counts as full: no new key fits.
const SMALLEST_WRITE_BYTES: u64 = 32;

/// The engine-wide account.
#[derive(Debug)]
pub(crate) struct Memory {
    /// A [`Demand`].
    demand: AtomicU8,
    /// A [`Counting`].
    counting: AtomicU8,
    /// `u64::MAX`: none at present.
    bytes_max: AtomicU64,
    /// What is to go when there is no room.
    pub(crate) eviction: Eviction,
    /// Held while a setting that the demand depends on changes.
    settings: Mutex<()>,
    used_bytes: Lonely<AtomicU64>,
}

/// On a line of its own: it changes all the time, and what lies beside it is read by everybody.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Lonely<T>(pub(crate) T);

/// What a write has to ask for before it takes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Demand {
    /// Nothing: there is no bound.
    Nothing,
    /// Nothing yet: there is a bound, but some segments do not count so far.
    Counting,
    /// Each growth by itself: there is a bound, and nothing goes.
    Bound,
    /// Room, before it begins: something may have to go.
    Eviction,
}

impl Demand {
    const ALL: [Self; 4] = [Self::Nothing, Self::Counting, Self::Bound, Self::Eviction];
}

/// How far segments have been told to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Counting {
    Off,
    /// New segments count, others may not yet.
    Begun,
    Complete,
}

/// What a write was told when it asked for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What is left below the bound: growth beyond is refused.
    Left,
    /// Enough, whatever it is.
    Made,
    /// None: all growth is refused.
    None,
}

impl Memory {
    pub(crate) fn new(bytes_max: Option<u64>, eviction: EvictionConfig, seed: u64) -> Self {
        let counting = if bytes_max.is_some() { Counting::Complete } else { Counting::Off };
        let memory = Self {
            demand: AtomicU8::new(Demand::Nothing as u8),
            counting: AtomicU8::new(counting as u8),
            bytes_max: AtomicU64::new(bytes_max.unwrap_or(u64::MAX)),
            eviction: Eviction::new(eviction, seed),
            settings: Mutex::default(),
            used_bytes: Lonely(AtomicU64::new(0)),
        };
        memory.settle_demand();
        memory
    }

    #[inline]
    pub(crate) fn demand(&self) -> Demand {
        Demand::ALL[usize::from(self.demand.load(Ordering::Relaxed)) % Demand::ALL.len()]
    }

    pub(crate) fn bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max.load(Ordering::Relaxed)).filter(|bytes_max| *bytes_max != u64::MAX)
    }

    /// Changes the bound, also to none or below what is used. Whoever does so lets segments join next, see `Engine::count_memory`.
    pub(crate) fn set_bytes_max(&self, bytes_max: Option<u64>) {
        let _settings = self.settings.lock();
        self.bytes_max.store(bytes_max.unwrap_or(u64::MAX), Ordering::Relaxed);
        if bytes_max.is_some() {
            let (off, begun) = (Counting::Off as u8, Counting::Begun as u8);
            let _ = self.counting.compare_exchange(off, begun, Ordering::SeqCst, Ordering::SeqCst);
        }
        self.settle_demand();
    }

    pub(crate) fn set_policy(&self, policy: EvictionPolicy) {
        let _settings = self.settings.lock();
        self.eviction.set_policy(policy);
        self.settle_demand();
    }

    /// Whether a segment that is created now counts from its beginning.
    pub(crate) fn counts_new_segments(&self) -> bool {
        self.counting.load(Ordering::SeqCst) != Counting::Off as u8
    }

    /// All segments have joined.
    pub(crate) fn all_segments_count(&self) {
        let _settings = self.settings.lock();
        self.counting.store(Counting::Complete as u8, Ordering::SeqCst);
        self.settle_demand();
    }

    /// Adds what a segment had before it joined.
    pub(crate) fn add_segment(&self, bytes: u64) {
        self.used_bytes.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn settle_demand(&self) {
        let is_complete = self.counting.load(Ordering::SeqCst) == Counting::Complete as u8;
        let demand = match self.bytes_max() {
            None => Demand::Nothing,
            Some(_) if !is_complete => Demand::Counting,
            Some(_) if self.eviction.policy() == EvictionPolicy::NoEviction => Demand::Bound,
            Some(_) => Demand::Eviction,
        };
        self.demand.store(demand as u8, Ordering::Relaxed);
    }

    /// What a command may take, which has been let in.
    #[inline]
    pub(crate) fn room_of_commands(&self) -> Room {
        if self.demand() == Demand::Eviction { Room::Made } else { Room::Left }
    }

    /// What is used, once segments count; 0 before.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.0.load(Ordering::Relaxed)
    }

    /// Whether something has to go before anything may grow.
    #[inline]
    pub(crate) fn is_used_up(&self) -> bool {
        self.used_bytes() >= self.bytes_max.load(Ordering::Relaxed)
    }

    /// Whether no new key fits.
    #[cfg(feature = "commands")]
    pub(crate) fn is_full(&self) -> bool {
        match self.demand() {
            Demand::Nothing | Demand::Counting => false,
            Demand::Bound => {
                self.used_bytes().saturating_add(SMALLEST_WRITE_BYTES) > self.bytes_max.load(Ordering::Relaxed)
            }
            Demand::Eviction => self.is_used_up(),
        }
    }
}

/// The account of one segment, borrowed for one change.
pub(crate) struct Account<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) segment_bytes: &'a mut u64,
    /// The segment has joined the shared counter.
    pub(crate) is_counted: bool,
    pub(crate) room: Room,
}

impl Account<'_> {
    /// Takes `bytes`, or refuses and takes nothing.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), EngineError> {
        match self.room {
            Room::None => return Err(EngineError::OutOfMemory),
            Room::Left if self.is_counted => self.take_below_bound(bytes)?,
            Room::Left | Room::Made => self.count(bytes),
        }
        *self.segment_bytes += bytes;
        Ok(())
    }

    fn take_below_bound(&mut self, bytes: u64) -> Result<(), EngineError> {
        let bytes_max = self.memory.bytes_max.load(Ordering::Relaxed);
        // Relaxed: the counter orders nothing but itself; what it counts is guarded by the segment lock.
        self.memory
            .used_bytes
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= bytes_max)
            })
            .map_err(|_| EngineError::OutOfMemory)?;
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        if self.is_counted {
            self.memory.used_bytes.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Takes `bytes` even above the bound: for bookkeeping that a reader or a shrinking write needs.
    pub(crate) fn grow_always(&mut self, bytes: u64) {
        self.count(bytes);
        *self.segment_bytes += bytes;
    }

    /// Whether growth can be refused.
    pub(crate) fn is_bounded(&self) -> bool {
        self.is_counted || self.room == Room::None
    }

    /// Moves from a size to another one, also above the bound.
    pub(crate) fn settle(&mut self, before: u64, after: u64) {
        if after > before {
            self.grow_always(after - before);
        } else if after < before {
            self.shrink(before - after);
        }
    }

    /// Gives `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        if self.is_counted {
            self.memory.used_bytes.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        *self.segment_bytes -= bytes;
    }

    /// Moves from a size to another one; refuses only growth.
    pub(crate) fn resize(&mut self, before: u64, after: u64) -> Result<(), EngineError> {
        if after > before {
            return self.grow(after - before);
        }
        if after < before {
            self.shrink(before - after);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, Demand, Memory, Room};
    use crate::error::EngineError;
    use crate::evict::{EvictionConfig, EvictionPolicy};

    fn account<'a>(memory: &'a Memory, segment_bytes: &'a mut u64, room: Room) -> Account<'a> {
        Account { memory, segment_bytes, is_counted: true, room }
    }

    #[test]
    fn refused_growth_takes_nothing() {
        let memory = Memory::new(Some(100), EvictionConfig::default(), 1);
        let mut segment_bytes = 0;
        let mut account = account(&memory, &mut segment_bytes, Room::Left);
        assert_eq!(account.grow(80), Ok(()));
        assert_eq!(account.grow(21), Err(EngineError::OutOfMemory));
        assert_eq!(account.grow(u64::MAX), Err(EngineError::OutOfMemory));
        assert_eq!(account.resize(80, 100), Ok(()));
        assert_eq!(account.resize(100, 10), Ok(()));
        assert_eq!(segment_bytes, 10);
        assert_eq!(memory.used_bytes(), 10);
    }

    #[test]
    fn room_that_was_made_is_never_refused_and_where_there_is_none_all_growth_is() {
        let memory = Memory::new(Some(100), EvictionConfig::default(), 1);
        let mut segment_bytes = 0;
        assert_eq!(account(&memory, &mut segment_bytes, Room::Made).grow(150), Ok(()));
        let mut refusing = account(&memory, &mut segment_bytes, Room::None);
        assert_eq!(refusing.grow(1), Err(EngineError::OutOfMemory));
        assert_eq!(refusing.resize(150, 20), Ok(()));
        assert_eq!((segment_bytes, memory.used_bytes()), (20, 20));
    }

    #[test]
    fn what_writes_have_to_ask_for_follows_from_bound_and_policy() {
        let memory = Memory::new(None, EvictionConfig::default(), 1);
        assert_eq!(memory.demand(), Demand::Nothing);
        memory.set_policy(EvictionPolicy::AllKeysLru);
        assert_eq!(memory.demand(), Demand::Nothing);
        memory.set_bytes_max(Some(1));
        assert_eq!(memory.demand(), Demand::Counting);
        memory.all_segments_count();
        assert_eq!(memory.demand(), Demand::Eviction);
        memory.set_policy(EvictionPolicy::NoEviction);
        assert_eq!(memory.demand(), Demand::Bound);
        memory.set_bytes_max(None);
        assert_eq!(memory.demand(), Demand::Nothing);
        memory.set_bytes_max(Some(1));
        assert_eq!(memory.demand(), Demand::Bound, "segments never stop counting");
    }
}
