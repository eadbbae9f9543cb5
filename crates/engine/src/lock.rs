//! Holding several segments at once, of one database or of many.
//!
//! # Guarantees
//! Who holds segments has their keys to itself. Acquisition never deadlocks, and waits for a bounded time: it then holds nothing and says so.
//!
//! # How it works
//! Segments are taken in ascending order of database and number, so that no circle of waiting can arise. The one exception is a script
//! that meets a key it has not declared: it already holds segments, and may have written to them, so it cannot start again in order.
//! It then is the only one that may wait while holding (`Signals::escalations`), and those who take segments in order give theirs back
//! while it waits.
//!
//! Two scripts that have both written and want a segment of each other cannot both go on; the one that comes second gets an error after
//! a bounded wait. Scripts that do not keep to their declared keys run alone from their second run on, so this needs two that do so for
//! the first time, at the same moment.

use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use crate::change::{Op, Outlet, Section};
use crate::entry::{EntryRef, Removed};
use crate::keyspace::{Cleared, Engine, Keyspace};
use crate::observe::Signals;
use crate::segment::{Context, Segment};
use crate::slot::Slot;
use crate::sync::{Mutex, MutexGuard};
#[cfg(feature = "commands")]
use crate::typed::Whole;

/// How long an acquisition usually waits for one segment before it gives up. Segments are held for microseconds, except by long
/// scripts and by commands over whole databases.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2);

/// How long a script waits for a segment that it has not declared.
const ESCALATION_PATIENCE: Duration = Duration::from_secs(1);

/// Somebody held a segment for too long. Nothing is held and nothing was done: try again a moment later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contended;

/// The databases of one engine, created when they are first used.
pub(crate) struct Databases {
    /// The one that is there from the beginning, with what all have in common.
    first: Engine,
    list: Box<[OnceLock<Engine>]>,
}

/// A segment of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    database: u32,
    segment: u32,
}

/// The places of one command; most have one, and few more than ten.
pub(crate) type Places = SmallVec<[Place; 16]>;

type Held<'e> = (Place, MutexGuard<'e, Segment>);

/// Waits for a segment.
type Wait<'w, 'e> = &'w dyn Fn() -> Option<MutexGuard<'e, Segment>>;

/// Segments that are held.
pub(crate) struct Locked<'e> {
    databases: &'e Databases,
    /// Where changes go, in all databases.
    outlet: &'e Outlet,
    /// In ascending order of place.
    held: SmallVec<[Held<'e>; 2]>,
    /// Changes that came before those that the held segments have on record: those of whole databases, and what preceded them.
    group: Vec<u8>,
    /// Below the locks: it ends after they are released.
    section: Option<Section>,
}

impl Databases {
    /// `first` becomes database 0.
    pub(crate) fn new(first: Engine, count: usize) -> Self {
        let list: Box<[OnceLock<Engine>]> = (0..count.max(1)).map(|_| OnceLock::new()).collect();
        if let Some(slot) = list.first() {
            slot.get_or_init(|| first.clone());
        }
        // Those that something was loaded into.
        let loaded = first.databases();
        for (number, slot) in list.iter().enumerate().filter(|(number, _)| loaded.contains(number)) {
            slot.get_or_init(|| first.sibling(number));
        }
        Self { first, list }
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(crate) fn get(&self, database: usize) -> &Engine {
        self.list[database].get_or_init(|| self.first().sibling(database))
    }

    /// Those that were used at some time, with their numbers.
    pub(crate) fn used(&self) -> impl Iterator<Item = (usize, &Engine)> {
        self.list.iter().enumerate().filter_map(|(number, engine)| Some((number, engine.get()?)))
    }

    #[inline]
    pub(crate) fn first(&self) -> &Engine {
        &self.first
    }

    #[inline]
    pub(crate) fn signals(&self) -> &Signals {
        &self.first().keyspace().context.signals
    }

    pub(crate) fn place(&self, database: usize, key: &[u8]) -> Place {
        self.place_of_hash(database, self.hash(key))
    }

    /// The hash of a key, which is the same in all databases.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.first().keyspace().context.hash(key)
    }

    /// The place of a key with this hash.
    #[inline]
    pub(crate) fn place_of_hash(&self, database: usize, hash: u64) -> Place {
        Place::new(database, self.get(database).keyspace().segment_of(hash))
    }

    /// All places of a database.
    pub(crate) fn places_of(&self, database: usize) -> impl Iterator<Item = Place> + use<> {
        (0..self.get(database).keyspace().segments.len()).map(move |segment| Place::new(database, segment))
    }

    #[inline]
    fn keyspace(&self, place: Place) -> &Keyspace {
        self.get(place.database as usize).keyspace()
    }

    #[inline]
    fn try_lock(&self, place: Place, patience: Duration) -> Option<MutexGuard<'_, Segment>> {
        let mutex = &self.keyspace(place).segments[place.segment as usize].0;
        match mutex.try_lock() {
            Some(guard) => Some(guard),
            None => wait(mutex, patience),
        }
    }
}

#[cold]
fn wait(mutex: &Mutex<Segment>, patience: Duration) -> Option<MutexGuard<'_, Segment>> {
    // Without patience it would still spin, and let other threads run meanwhile.
    if patience.is_zero() { None } else { mutex.try_lock_for(patience) }
}

impl Place {
    pub(crate) fn new(database: usize, segment: usize) -> Self {
        // Both are small: databases are configured in thousands at most, segments end at 2^16.
        Self { database: database as u32, segment: segment as u32 }
    }
}

impl<'e> Locked<'e> {
    pub(crate) fn none(databases: &'e Databases) -> Self {
        let outlet = &databases.first().keyspace().context.outlet;
        Self { databases, outlet, held: SmallVec::new(), group: Vec::new(), section: None }
    }

    /// Takes all `places`, in any order and with repetitions, or none. Waits for each of them for as long as `patience`.
    pub(crate) fn acquire(databases: &'e Databases, mut places: Places, patience: Duration) -> Result<Self, Contended> {
        if places.len() > 1 {
            places.sort_unstable();
            places.dedup();
        }
        let mut locked = Self::none(databases);
        locked.held.reserve_exact(places.len());
        if !places.is_empty() {
            locked.begin_section();
        }
        for place in places {
            locked.take_in_order(place, patience)?;
        }
        Ok(locked)
    }

    /// Takes the segment of one key, given its hash, where nothing is held: by far the most commands need no more. Has the wait carried out by
    /// `aside`, if there is one; how long it may be is asked only then.
    #[inline]
    pub(crate) fn take_first(
        &mut self,
        database: usize,
        hash: u64,
        patience: impl Fn() -> Duration,
        aside: impl FnOnce(Wait<'_, 'e>) -> Option<MutexGuard<'e, Segment>>,
    ) -> Result<(), Contended> {
        debug_assert!(self.is_empty(), "what is taken first is in order");
        let keyspace = self.databases.get(database).keyspace();
        let segment = keyspace.segment_of(hash);
        let mutex = &keyspace.segments[segment].0;
        self.begin_section();
        let guard = match mutex.try_lock() {
            Some(guard) => guard,
            None => aside(&|| wait(mutex, patience())).ok_or(Contended)?,
        };
        self.held.push((Place::new(database, segment), guard));
        Ok(())
    }

    /// Takes all of these databases.
    pub(crate) fn acquire_databases(
        databases: &'e Databases,
        numbers: &[usize],
        patience: Duration,
    ) -> Result<Self, Contended> {
        Self::acquire(databases, numbers.iter().flat_map(|number| databases.places_of(*number)).collect(), patience)
    }

    /// Takes all databases that are in use.
    pub(crate) fn acquire_everything(databases: &'e Databases, patience: Duration) -> Result<Self, Contended> {
        let numbers: Vec<usize> = databases.used().map(|(number, _)| number).collect();
        let locked = Self::acquire_databases(databases, &numbers, patience)?;
        // Somebody may have come to use another one meanwhile, before using one that is held now.
        if databases.used().count() == numbers.len() { Ok(locked) } else { Err(Contended) }
    }

    /// Takes one more segment while others are held: for scripts.
    pub(crate) fn escalate(&mut self, place: Place) -> Result<(), Contended> {
        let Err(position) = self.position(place) else { return Ok(()) };
        let escalations = &self.databases.signals().escalations;
        escalations.fetch_add(1, Ordering::SeqCst);
        let guard = self.databases.try_lock(place, ESCALATION_PATIENCE);
        escalations.fetch_sub(1, Ordering::SeqCst);
        self.held.insert(position, (place, guard.ok_or(Contended)?));
        self.begin_section();
        Ok(())
    }

    /// Takes one more segment, out of order, if nobody holds it at this moment. Without waiting there is no circle of waiting.
    pub(crate) fn try_take(&mut self, place: Place) -> bool {
        let Err(position) = self.position(place) else { return true };
        let Some(guard) = self.databases.try_lock(place, Duration::ZERO) else { return false };
        self.held.insert(position, (place, guard));
        self.begin_section();
        true
    }

    pub(crate) fn databases(&self) -> &'e Databases {
        self.databases
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether all databases are held.
    pub(crate) fn holds_everything(&self) -> bool {
        self.databases.used().all(|(number, _)| self.holds_database(number))
    }

    pub(crate) fn holds(&self, place: Place) -> bool {
        self.position(place).is_ok()
    }

    /// Whether all segments of a database are held.
    pub(crate) fn holds_database(&self, database: usize) -> bool {
        let count = self.bound(database + 1) - self.bound(database);
        count > 0 && count == self.databases.get(database).keyspace().segments.len()
    }

    /// Where the segments of a database begin among those that are held.
    fn bound(&self, database: usize) -> usize {
        self.held.partition_point(|(place, _)| *place < Place::new(database, 0))
    }

    /// The key, for reading and writing. Its segment must be held.
    ///
    /// # Panics
    /// If it is not: whoever takes the segments of a command takes those of all keys that it names.
    pub(crate) fn slot<'s>(&'s mut self, database: usize, key: &'s [u8], now_ms: u64) -> Slot<'s> {
        let hash = self.databases.hash(key);
        self.slot_of_hash(database, key, hash, now_ms)
    }

    /// The same for who knows the hash of the key.
    ///
    /// # Panics
    /// If its segment is not held.
    // A slot is large enough to be handed back through memory, twice if this is a call of its own.
    #[inline(always)]
    pub(crate) fn slot_of_hash<'s>(&'s mut self, database: usize, key: &'s [u8], hash: u64, now_ms: u64) -> Slot<'s> {
        let (context, segment) = self.segment_of_hash(database, key, hash);
        Slot::open(context, segment, key, hash, now_ms)
    }

    /// The same for a key that is used now: that is noted.
    ///
    /// # Panics
    /// If its segment is not held.
    #[cfg(feature = "commands")]
    #[inline(always)]
    pub(crate) fn used_slot_of_hash<'s>(
        &'s mut self,
        database: usize,
        key: &'s [u8],
        hash: u64,
        now_ms: u64,
    ) -> Slot<'s> {
        let (context, segment) = self.segment_of_hash(database, key, hash);
        Slot::open_used(context, segment, key, hash, now_ms)
    }

    #[inline(always)]
    fn segment_of_hash(&mut self, database: usize, key: &[u8], hash: u64) -> (&'e Context, &mut Segment) {
        let keyspace = self.databases.get(database).keyspace();
        debug_assert_eq!(hash, keyspace.context.hash(key), "the hash is that of the key");
        let place = Place::new(database, keyspace.segment_of(hash));
        let position = self.position(place).expect("the segments of all keys of a command are held");
        (&keyspace.context, &mut self.held[position].1)
    }

    /// The value of a key as it lies there, without regard to its deadline: several can be looked at side by side, after each was
    /// opened by [`slot`](Self::slot), which removes what has expired. `None` also if its segment is not held.
    pub(crate) fn entry(&self, database: usize, key: &[u8]) -> Option<EntryRef<'_>> {
        let keyspace = self.databases.get(database).keyspace();
        let hash = keyspace.context.hash(key);
        let position = self.position(Place::new(database, keyspace.segment_of(hash))).ok()?;
        let segment = &self.held[position].1;
        segment.store.find_entry(hash, key).map(|(_, entry)| entry)
    }

    /// Runs `step` on a segment: on the held one, or on one that is taken for this step only.
    pub(crate) fn step<R>(
        &mut self,
        place: Place,
        step: impl FnOnce(&Context, &mut Segment) -> R,
    ) -> Result<R, Contended> {
        if self.holds(place) {
            return Ok(self.step_held(place, step));
        }
        let context = &self.databases.keyspace(place).context;
        let _section = Section::begin(&context.outlet);
        let mut segment = self.databases.try_lock(place, PATIENCE).ok_or(Contended)?;
        let result = step(context, &mut segment);
        context.outlet.commit(&mut segment);
        Ok(result)
    }

    /// Runs `step` on a segment that is held.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn step_held<R>(&mut self, place: Place, step: impl FnOnce(&Context, &mut Segment) -> R) -> R {
        let position = self.position(place).expect("the segment of a step is held");
        step(&self.databases.keyspace(place).context, &mut self.held[position].1)
    }

    /// Exchanges the contents of two databases, all of whose segments are held.
    pub(crate) fn exchange(&mut self, one: usize, other: usize) {
        let (low, high) = (one.min(other), one.max(other));
        if low == high {
            return;
        }
        let (low_keyspace, high_keyspace) = (self.databases.get(low).keyspace(), self.databases.get(high).keyspace());
        let high_start = self.bound(high);
        let (lower, upper) = self.held.split_at_mut(high_start);
        let mut lower: Vec<_> = segments_of(lower, low).collect();
        let mut upper: Vec<_> = segments_of(upper, high).collect();
        low_keyspace.exchange(&mut lower, high_keyspace, &mut upper);
        self.record_whole_database(low, &Op::SwapDatabases(high as u64));
    }

    /// Empties a database, all of whose segments are held.
    pub(crate) fn clear(&mut self, database: usize) -> Cleared {
        let keyspace = self.databases.get(database).keyspace();
        let cleared = keyspace.clear(segments_of(&mut self.held, database));
        self.record_whole_database(database, &Op::ClearDatabase);
        cleared
    }

    /// Gives the value of a key, with its deadline, to another one of any database, whatever that held; returns what that was, for the
    /// caller to free. On record this is a few bytes, however large the value. The segments of both must be held.
    #[cfg(feature = "commands")]
    pub(crate) fn move_value(&mut self, from: (usize, &[u8]), to: (usize, &[u8]), now_ms: u64) -> Option<Removed> {
        let entry = self.slot(from.0, from.1, now_ms).take_silently()?;
        let before = self.slot(to.0, to.1, now_ms).replace(Whole::of(entry));
        if self.databases.first().keyspace().context.outlet.is_attached() {
            // What happened to both before comes first; afterwards it is no matter which of them noted what.
            for (database, key) in [from, to] {
                let place = self.databases.place(database, key);
                if let Ok(position) = self.position(place) {
                    self.held[position].1.recorder.drain_into(&mut self.group);
                }
            }
            let op = Op::MoveTo { database: to.0, key: to.1 };
            self.databases.get(from.0).keyspace().context.record(from.1, &op, &mut self.group);
        }
        before
    }

    /// Notes a change of a whole database, behind all changes of keys until now: some of them are of that database.
    fn record_whole_database(&mut self, database: usize, op: &Op<'_>) {
        self.held.iter_mut().for_each(|(_, segment)| segment.recorder.drain_into(&mut self.group));
        self.databases.get(database).keyspace().context.record(&[], op, &mut self.group);
    }

    /// Takes a segment above all that are held.
    fn take_in_order(&mut self, place: Place, patience: Duration) -> Result<(), Contended> {
        let guard = self.databases.try_lock(place, Duration::ZERO);
        let guard = match guard {
            Some(guard) => guard,
            // A script may wait for what is held here: give it back rather than wait for each other.
            None if !self.held.is_empty() && self.databases.signals().escalations.load(Ordering::SeqCst) > 0 => {
                return Err(Contended);
            }
            None => self.databases.try_lock(place, patience).ok_or(Contended)?,
        };
        self.held.push((place, guard));
        Ok(())
    }

    /// From here on there may be changes that others must not be told of yet.
    #[inline]
    fn begin_section(&mut self) {
        if self.section.is_none() {
            self.section = Section::begin(self.outlet);
        }
    }

    #[inline]
    fn position(&self, place: Place) -> Result<usize, usize> {
        match self.held.first() {
            Some((first, _)) if *first == place => Ok(0),
            _ => self.held.binary_search_by_key(&place, |(place, _)| *place),
        }
    }
}

impl Drop for Locked<'_> {
    /// Hands over what was done, before anything is released.
    #[inline]
    fn drop(&mut self) {
        match &mut *self.held {
            [(_, only)] if self.group.is_empty() => self.outlet.commit(only),
            _ => self.commit_all(),
        }
    }
}

impl Locked<'_> {
    fn commit_all(&mut self) {
        if !self.held.is_empty() {
            let segments = self.held.iter_mut().map(|(_, segment)| &mut **segment);
            self.outlet.commit_all(mem::take(&mut self.group), segments);
        }
    }
}

/// Those of the segments that belong to a database, in order.
fn segments_of<'s, 'e>(
    held: &'s mut [Held<'e>],
    database: usize,
) -> impl Iterator<Item = &'s mut Segment> + use<'s, 'e> {
    let is_of = move |place: &Place| place.database as usize == database;
    held.iter_mut().filter(move |(place, _)| is_of(place)).map(|(_, segment)| &mut **segment)
}

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, not(shuttle)))]
mod tests;
