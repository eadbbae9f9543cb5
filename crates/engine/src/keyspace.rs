//! The keyspace: many small segments, each with its own lock and table.
//!
//! # Guarantees
//! Everything that one closure does to its keys happens at once for every other thread. Operations on several keys lock their
//! segments in ascending order, so they never wait for each other in a circle.
//!
//! # Failure
//! Closures run under a lock that is not reentrant: one that calls its own engine deadlocks. Nothing here blocks otherwise.
//!
//! # How it works
//! One hash of a key chooses everything. The table inside a segment goes by the lowest 32 bits, so the segment comes from those above, and
//! neither loses its spread:
//! ```text
//!  63              48 47         32 31                               0
//! ┌──────────────────┬─────────────┬──────────────────────────────────┐
//! │                  │   segment   │       place in the table         │
//! └──────────────────┴─────────────┴──────────────────────────────────┘
//! ```
//! A mutex and not a reader-writer lock: with a thousand segments two threads rarely meet, and a mutex is one atomic
//! instruction on the way in. Segments are padded to cache lines, so that neighbours do not slow each other.

mod whole;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::change::Section;
use crate::config::EngineConfig;
use crate::entry::{Ref, is_expired};
use crate::evict::EvictionPolicy;
use crate::expire::{BLOCK_BUCKETS, ExpireReport, TtlSample};
use crate::family::Family;
use crate::index::OrderedIndex;
use crate::memory::{Demand, Memory, Room};
use crate::segment::{Context, Segment};
use crate::slot::Slot;
use crate::stats::Stats;
use crate::sync::{Mutex, MutexGuard};
#[cfg(any(feature = "commands", shuttle))]
pub(crate) use whole::Cleared;

/// The lowest bit of a hash that chooses the segment.
const SEGMENT_SHIFT: u32 = 32;

/// Most entries that a cycle visits before it lets others at the segment: some tens of microseconds.
const STEP_VISITS_MAX: u32 = 256;

/// How long one segment is waited for before looking whether others should come first.
const RELOOK: Duration = Duration::from_millis(1);

/// An in-memory database. Cloning gives another handle to the same data.
#[derive(Clone)]
pub struct Engine {
    keyspace: Arc<Keyspace>,
    family: Arc<Family>,
}

pub(crate) struct Keyspace {
    pub(crate) segments: Box<[Padded]>,
    segment_mask: u64,
    pub(crate) context: Context,
    /// All segments are indexed. Set once, after the last of them.
    is_indexed: AtomicBool,
    /// Lets one thread build the index.
    index_build: Mutex<()>,
    /// The segment at which the next cycle begins; held for the time of a cycle, because two would do the same work.
    expire_cursor: Mutex<usize>,
    /// How long keys with a deadline have left, on average, as cycles have found it; 0: unknown.
    ttl_average_ms: AtomicU64,
    /// Cycles that there were.
    turns: AtomicUsize,
}

/// Two lines of 64 bytes: processors fetch lines in pairs.
#[repr(align(128))]
pub(crate) struct Padded(pub(crate) Mutex<Segment>);

// Twice as many lines would cost every access to a large keyspace: nearly all of them are misses.
#[cfg(not(shuttle))]
const _: () = assert!(size_of::<Padded>() == 128, "a segment with its lock is one pair of lines");

impl Engine {
    /// An empty engine.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let count = config.segment_count();
        let seed = config.hash_seed.unwrap_or_else(|| RandomState::new().hash_one(count));
        let memory = Memory::new(config.memory_bytes_max, config.eviction, seed);
        let context = Context::new(config.hash_seed, memory, OrderedIndex::new(count));
        let keyspace = Arc::new(Keyspace::new(count, context));
        let family = Arc::new(Family::of(Arc::clone(&keyspace)));
        Self { keyspace, family }
    }

    /// Another database of the same engine, with the same segments, hash and account. It is created empty when it is first asked for.
    pub(crate) fn sibling(&self, database: usize) -> Self {
        let count = self.keyspace.segments.len();
        let create = || Keyspace::new(count, self.keyspace.context.sibling(database, OrderedIndex::new(count)));
        Self { keyspace: self.family.get_or_create(database, create), family: Arc::clone(&self.family) }
    }

    /// The numbers of the databases that were used at some time, by commands or by what was loaded; 0 is always among them.
    #[must_use]
    pub fn databases(&self) -> Vec<usize> {
        self.family.all().into_iter().map(|(number, _)| number).collect()
    }

    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// Runs `read` with the value of `key`, or `None` if it is absent at `now_ms`. Others cannot change it meanwhile.
    #[inline]
    pub fn read<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<Ref<'_>>) -> R) -> R {
        let keyspace = &*self.keyspace;
        let hash = keyspace.context.hash(key);
        let mut segment = keyspace.lock(keyspace.segment_of(hash));
        // Not by `find_live`: a read needs no bucket number, and looking the entry up by one again is measurable.
        match segment.store.find_entry(hash, key) {
            Some((bucket, entry)) if !is_expired(entry.expires_at_ms(), now_ms) => {
                if keyspace.context.memory.eviction.needs_usage() {
                    return read(
                        segment.use_entry(&keyspace.context, bucket, now_ms).map(|entry| Ref::new(entry, key.len())),
                    );
                }
                read(Some(Ref::new(entry, key.len())))
            }
            Some(_) => {
                // Removes what has expired.
                segment.find_live(&keyspace.context, key, hash, now_ms);
                read(None)
            }
            None => read(None),
        }
    }

    /// Runs `update` as one atomic step on `key`.
    ///
    /// ```
    /// use acteon_engine::{Engine, EngineConfig, EngineError, Expiry};
    ///
    /// fn put_if_absent(engine: &Engine, key: &[u8], value: &[u8], now_ms: u64) -> Result<bool, EngineError> {
    ///     engine.update(key, now_ms, |slot| {
    ///         if slot.get().is_some() {
    ///             return Ok(false);
    ///         }
    ///         slot.set_str(&[value], Expiry::At(now_ms + 500))?;
    ///         Ok(true)
    ///     })
    /// }
    ///
    /// let engine = Engine::new(EngineConfig::default());
    /// assert_eq!(put_if_absent(&engine, b"lock", b"ada", 1_000), Ok(true));
    /// assert_eq!(put_if_absent(&engine, b"lock", b"bob", 1_500), Ok(false));
    /// assert_eq!(put_if_absent(&engine, b"lock", b"bob", 1_501), Ok(true));
    /// ```
    #[inline]
    pub fn update<R>(&self, key: &[u8], now_ms: u64, update: impl FnOnce(&mut Slot<'_>) -> R) -> R {
        let keyspace = &*self.keyspace;
        let room = self.make_room(now_ms);
        let hash = keyspace.context.hash(key);
        let mut segment = keyspace.lock_to_write(keyspace.segment_of(hash));
        let result = {
            let mut slot = Slot::open(&keyspace.context, &mut segment, key, hash, now_ms).granted(room);
            slot.mark_used_if_needed();
            update(&mut slot)
        };
        drop(segment);
        keyspace.context.signals.announce_ready(now_ms);
        result
    }

    /// Runs `update` as one atomic step on all of `keys`: nobody sees some of its writes without the others.
    /// A key may be named twice; both names then mean the same value.
    pub fn update_many<R>(&self, keys: &[&[u8]], now_ms: u64, update: impl FnOnce(&mut Slots<'_>) -> R) -> R {
        let keyspace = &*self.keyspace;
        let room = self.make_room(now_ms);
        let hashes: Vec<u64> = keys.iter().map(|key| keyspace.context.hash(key)).collect();
        let mut numbers: Vec<usize> = hashes.iter().map(|hash| keyspace.segment_of(*hash)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let guards = keyspace.lock_all(&numbers);
        let _section = Section::begin(&keyspace.context.outlet);
        let mut slots = Slots { keyspace, keys, hashes, numbers, guards, now_ms, room, _section };
        if keyspace.context.memory.eviction.needs_usage() {
            (0..keys.len()).for_each(|position| slots.slot(position).mark_used());
        }
        let result = update(&mut slots);
        drop(slots);
        keyspace.context.signals.announce_ready(now_ms);
        result
    }

    /// Visits keys in byte order: those that start with `prefix` and are greater than `after`, at most `limit` of them.
    /// Returns whether more may follow; the next page starts after the last key visited.
    ///
    /// Every key that exists throughout the scan is visited, however many pages it takes. A value is read when its key is visited, under
    /// its lock. The first scan of an engine orders all keys once; after it a page costs what it returns, plus expired keys on
    /// its way, and does not depend on the number of other keys.
    ///
    /// ```
    /// use acteon_engine::{Engine, EngineConfig, Expiry};
    ///
    /// let engine = Engine::new(EngineConfig::default());
    /// for key in ["user:2", "user:1", "order:1", "user:3"] {
    ///     engine.update(key.as_bytes(), 0, |slot| slot.set_str(&[b"x"], Expiry::Clear))?;
    /// }
    ///
    /// let mut page = Vec::new();
    /// let more = engine.scan(b"user:", None, 2, 0, |key, _| page.push(key.to_vec()));
    /// assert_eq!((page, more), (vec![b"user:1".to_vec(), b"user:2".to_vec()], true));
    ///
    /// let mut page = Vec::new();
    /// let more = engine.scan(b"user:", Some(b"user:2"), 2, 0, |key, _| page.push(key.to_vec()));
    /// assert_eq!((page, more), (vec![b"user:3".to_vec()], false));
    /// # Ok::<(), acteon_engine::EngineError>(())
    /// ```
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        now_ms: u64,
        mut visit: impl FnMut(&[u8], Ref<'_>),
    ) -> bool {
        self.keyspace.build_index();
        let mut keys = self.keyspace.context.index.merge(prefix, after, limit);
        let mut visited = 0;
        while visited < limit {
            let Some(key) = keys.next() else { return false };
            visited += self.read(&key, now_ms, |value| match value {
                Some(value) => {
                    visit(&key, value);
                    1
                }
                None => 0,
            });
        }
        !keys.is_drained()
    }

    /// Removes expired keys and gives their memory back, and samples how long others have left. Visits at most `budget` keys (16 if it is less), a few hundred under one lock.
    /// Segments in which nothing can have expired are skipped at once, and those that somebody holds are left to the next cycle, which
    /// goes on where this one ended.
    pub fn expire_cycle(&self, now_ms: u64, budget: u32) -> ExpireReport {
        let keyspace = &*self.keyspace;
        let mut cursor = keyspace.expire_cursor.lock();
        let mut sample = TtlSample::new(now_ms, keyspace.turns.fetch_add(1, Ordering::Relaxed));
        let report = keyspace.expire(now_ms, budget, &mut cursor, &mut sample);
        let average_ms = match keyspace.ttl_average_ms() {
            _ if sample.keys_with_ttl == 0 && !report.ran_out => 0,
            before_ms => sample.average_ms(before_ms),
        };
        keyspace.set_ttl_average_ms(average_ms);
        report
    }

    /// Numbers about this engine; locks one segment after the other.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.keyspace.stats();
        for number in 0..self.keyspace.segments.len() {
            self.keyspace.lock(number).add_to(&mut stats);
        }
        stats
    }

    /// The bound of the memory, which all databases of an engine share.
    pub(crate) fn memory_bytes_max(&self) -> Option<u64> {
        self.keyspace.context.memory.bytes_max()
    }

    /// Changes the bound, also to none, or below what is used: then writes and cycles evict, or writes are refused. An engine that had no bound
    /// so far counts what is there now; segments that somebody holds at this moment follow with the next writes, before which nothing is
    /// refused.
    pub fn set_memory_bytes_max(&self, bytes_max: Option<u64>) {
        let memory = &self.keyspace.context.memory;
        memory.set_bytes_max(bytes_max);
        if memory.demand() == Demand::Counting {
            self.count_memory();
        }
    }

    /// What is evicted when the memory is used up.
    #[must_use]
    pub fn eviction_policy(&self) -> EvictionPolicy {
        self.keyspace.context.memory.eviction.policy()
    }

    /// Changes what is evicted. When or how often keys were used is known only from now on, if the policies track different things.
    pub fn set_eviction_policy(&self, policy: EvictionPolicy) {
        self.keyspace.context.memory.set_policy(policy);
    }

    /// The number of keys, including expired ones that have not been removed yet, like DBSIZE.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keyspace.len()
    }

    /// The same of all databases together.
    #[must_use]
    pub fn len_of_all(&self) -> usize {
        self.family.all().iter().map(|(_, keyspace)| keyspace.len()).sum()
    }

    /// Whether there is no key, not even an expired one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keyspace.is_empty()
    }

    /// Whether [`is_empty`](Self::is_empty) holds for all databases.
    #[must_use]
    pub fn are_all_empty(&self) -> bool {
        self.family.all().iter().all(|(_, keyspace)| keyspace.is_empty())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No contents: keys and values are the application's, and may be secret.
        f.debug_struct("Engine").field("segments", &self.keyspace.segments.len()).finish_non_exhaustive()
    }
}

/// Several keys, for the time of one update.
pub struct Slots<'a> {
    keyspace: &'a Keyspace,
    keys: &'a [&'a [u8]],
    hashes: Vec<u64>,
    /// The locked segments in ascending order; `guards` has the same positions.
    numbers: Vec<usize>,
    guards: Vec<MutexGuard<'a, Segment>>,
    now_ms: u64,
    /// What may be taken.
    room: Room,
    _section: Option<Section>,
}

impl Drop for Slots<'_> {
    fn drop(&mut self) {
        let segments = self.guards.iter_mut().map(|guard| &mut **guard);
        self.keyspace.context.outlet.commit_all(Vec::new(), segments);
    }
}

impl Slots<'_> {
    /// The slot of `keys[position]`, one at a time: a slot tidies up when it is dropped, so bind what was read with `let`
    /// before asking for the next one.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn slot(&mut self, position: usize) -> Slot<'_> {
        let hash = self.hashes[position];
        let guard =
            self.numbers.binary_search(&self.keyspace.segment_of(hash)).expect("the segments of all keys are locked");
        let segment = &mut self.guards[guard];
        Slot::open(&self.keyspace.context, segment, self.keys[position], hash, self.now_ms).granted(self.room)
    }
}

/// A segment that is held by who changes something: what was done is handed over before it is released, also after a panic.
struct Writing<'k> {
    context: &'k Context,
    segment: MutexGuard<'k, Segment>,
    _section: Option<Section>,
}

impl Deref for Writing<'_> {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Segment {
        &mut self.segment
    }
}

impl Drop for Writing<'_> {
    #[inline]
    fn drop(&mut self) {
        self.context.outlet.commit(&mut self.segment);
    }
}

impl Keyspace {
    fn new(count: usize, context: Context) -> Self {
        Self {
            segments: (0..count).map(|number| Padded(Mutex::new(Segment::new(number, &context)))).collect(),
            segment_mask: count as u64 - 1,
            context,
            is_indexed: AtomicBool::new(false),
            index_build: Mutex::new(()),
            expire_cursor: Mutex::new(0),
            ttl_average_ms: AtomicU64::new(0),
            turns: AtomicUsize::new(0),
        }
    }

    fn len(&self) -> usize {
        (0..self.segments.len()).map(|number| self.lock(number).store.len()).sum()
    }

    fn is_empty(&self) -> bool {
        (0..self.segments.len()).all(|number| self.lock(number).store.is_empty())
    }

    /// A cycle that begins at the segment `cursor`, and leaves it where the next one should begin.
    fn expire(&self, now_ms: u64, budget: u32, cursor: &mut usize, sample: &mut TtlSample) -> ExpireReport {
        let block = BLOCK_BUCKETS as u32;
        let mut budget = budget.max(block);
        let mut report = ExpireReport::default();
        let mut removed = Vec::new();
        let mut sampled = None;
        for _ in 0..self.segments.len() {
            loop {
                if budget < block {
                    report.ran_out = true;
                    return report;
                }
                // Somebody may hold it for long: the thread of this cycle has other things to do.
                let Some(mut segment) = self.segments[*cursor].0.try_lock() else { break };
                let mut is_done = !segment.deadlines.is_due(now_ms);
                if !is_done {
                    let visits_max = budget.min(STEP_VISITS_MAX);
                    let step = segment.expire_step(&self.context, now_ms, visits_max, &mut removed);
                    budget -= step.visited;
                    report.visited += u64::from(step.visited);
                    is_done = step.is_done;
                }
                if is_done && sample.add(&segment) {
                    sampled = Some(*cursor);
                }
                drop(segment);
                report.expired += removed.len() as u64;
                // Only now: freeing large collections takes its time, and nobody should wait for it.
                removed.clear();
                if is_done {
                    break;
                }
            }
            *cursor = self.after(*cursor);
        }
        // All were visited, so any may be the first: one whose keys were not sampled now.
        *cursor = sampled.map_or(*cursor, |number| self.after(number));
        report
    }

    fn after(&self, segment: usize) -> usize {
        (segment + 1) % self.segments.len()
    }

    /// How long keys with a deadline have left on average; 0: unknown.
    pub(crate) fn ttl_average_ms(&self) -> u64 {
        self.ttl_average_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ttl_average_ms(&self, average_ms: u64) {
        self.ttl_average_ms.store(average_ms, Ordering::Relaxed);
    }

    /// What is known without looking at the segments.
    pub(crate) fn stats(&self) -> Stats {
        let (memory, ttl_average_ms) = (&self.context.memory, self.ttl_average_ms());
        let (bytes_max, evicted_total) = (memory.bytes_max(), memory.eviction.evicted_total());
        let expired_total = self.context.expired.0.load(Ordering::Relaxed);
        Stats { bytes_max, ttl_average_ms, expired_total, evicted_total, ..Stats::default() }
    }

    pub(crate) fn set_indexed(&self) {
        self.is_indexed.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn segment_of(&self, hash: u64) -> usize {
        ((hash >> SEGMENT_SHIFT) & self.segment_mask) as usize
    }

    #[inline]
    pub(crate) fn lock(&self, number: usize) -> MutexGuard<'_, Segment> {
        self.segments[number].0.lock()
    }

    /// The same for who changes something.
    #[inline]
    fn lock_to_write(&self, number: usize) -> Writing<'_> {
        let segment = self.lock(number);
        Writing { context: &self.context, segment, _section: Section::begin(&self.context.outlet) }
    }

    /// Takes segments in ascending order. Gives them back while a script waits for one of them, see `lock.rs`.
    fn lock_all(&self, numbers: &[usize]) -> Vec<MutexGuard<'_, Segment>> {
        let mut guards = Vec::with_capacity(numbers.len());
        while let Some(number) = numbers.get(guards.len()) {
            let guard = match self.segments[*number].0.try_lock() {
                Some(guard) => guard,
                None if !guards.is_empty() && self.context.signals.escalations.load(Ordering::SeqCst) > 0 => {
                    guards.clear();
                    std::thread::yield_now();
                    continue;
                }
                // Short, to look again whether a script waits.
                None => match self.segments[*number].0.try_lock_for(RELOOK) {
                    Some(guard) => guard,
                    None => continue,
                },
            };
            guards.push(guard);
        }
        guards
    }

    /// Orders all keys, unless that was done before.
    fn build_index(&self) {
        // Acquire pairs with the release below: who sees the flag sees complete shards.
        if self.is_indexed.load(Ordering::Acquire) {
            return;
        }
        let _building = self.index_build.lock();
        for number in 0..self.segments.len() {
            self.lock(number).build_index(&self.context);
        }
        self.is_indexed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Engine, EngineConfig, Expiry};

    fn engine() -> Engine {
        Engine::new(EngineConfig::default())
    }

    fn put(engine: &Engine, key: &[u8], expiry: Expiry) {
        engine.update(key, 0, |slot| slot.set_str(&[key], expiry)).expect("no bound is configured");
    }

    #[test]
    fn key_is_there_at_its_deadline_and_gone_a_millisecond_later() {
        let engine = engine();
        put(&engine, b"k", Expiry::At(1_000));
        assert_eq!(engine.expire_cycle(1_000, 100).expired, 0);
        assert!(engine.read(b"k", 1_000, |value| value.is_some()));
        assert!(engine.update(b"k", 1_000, |slot| slot.get().is_some()));
        assert!(engine.read(b"k", 1_001, |value| value.is_none()));
        assert_eq!(engine.len(), 0, "the read removed it");
        assert_eq!(engine.stats().expired_total, 1);
    }

    #[test]
    fn cycle_stays_within_its_budget_and_says_that_it_ran_out() {
        let engine = engine();
        for number in 0_u32..2_000 {
            put(&engine, &number.to_le_bytes(), Expiry::At(10));
        }
        let mut expired = 0;
        loop {
            let report = engine.expire_cycle(11, 100);
            assert!(report.visited <= 100);
            expired += report.expired;
            if !report.ran_out {
                break;
            }
        }
        assert_eq!(expired, 2_000);
        assert!(engine.is_empty());
    }

    #[test]
    fn smallest_budget_still_makes_progress() {
        let engine = Engine::new(EngineConfig { segments: 1, ..EngineConfig::default() });
        for number in 0_u32..500 {
            put(&engine, &number.to_le_bytes(), if number % 5 == 0 { Expiry::At(10) } else { Expiry::At(20) });
        }
        while engine.expire_cycle(11, 0).ran_out {}
        assert_eq!(engine.len(), 400);
    }

    #[test]
    fn average_of_the_time_left_follows_the_keys() {
        let engine = engine();
        let average_ms = |now_ms| {
            engine.expire_cycle(now_ms, 100);
            engine.stats().ttl_average_ms
        };
        assert_eq!(average_ms(1), 0);
        put(&engine, b"persistent", Expiry::Clear);
        put(&engine, b"lone", Expiry::At(100_000));
        assert_eq!(average_ms(1_000), 99_000);
        // Half of them have 100 s left, half of them 300 s.
        for number in 0_u32..20_000 {
            put(&engine, &number.to_le_bytes(), Expiry::At(if number % 2 == 0 { 101_000 } else { 301_000 }));
        }
        let last_ms = (0..500).fold(0, |_, _| average_ms(1_000));
        assert!((180_000..220_000).contains(&last_ms), "{last_ms}");
        for number in 0_u32..20_000 {
            engine.update(&number.to_le_bytes(), 1_000, |slot| slot.remove());
        }
        assert_eq!(average_ms(100_001), 0, "nothing is left that could expire");
        put(&engine, b"lone", Expiry::At(200_001));
        assert_eq!(average_ms(200_001), 0, "its time is over now");
        engine.clear();
        put(&engine, b"lone", Expiry::At(u64::MAX));
        assert_eq!(average_ms(200_001), 0, "what never ends is not counted");
    }

    #[test]
    fn many_keys_expiring_together_cost_one_visit_each() {
        const KEYS: u64 = 100_000;
        let engine = engine();
        for number in 0..KEYS {
            put(&engine, &number.to_le_bytes(), Expiry::At(1_000));
        }
        let report = engine.expire_cycle(1_001, u32::MAX);
        assert_eq!((report.expired, report.visited, report.ran_out), (KEYS, KEYS, false));
        assert_eq!(engine.stats().bytes, engine.stats().table_bytes);
    }

    #[test]
    fn keys_named_twice_share_one_value() {
        let engine = engine();
        engine.update_many(&[b"a", b"b", b"a"], 0, |slots| {
            slots.slot(0).set_str(&[b"1"], Expiry::Clear).expect("fits");
            assert_eq!(slots.slot(2).get().and_then(|value| value.as_str()), Some(&b"1"[..]));
            assert!(slots.slot(1).get().is_none());
            assert!(slots.slot(2).remove());
            assert!(slots.slot(0).get().is_none());
        });
        assert!(engine.is_empty());
        assert_eq!(engine.update_many(&[], 0, |_| 7), 7);
    }

    #[test]
    fn scan_follows_writes_made_after_the_index_was_built() {
        let engine = engine();
        let keys = |engine: &Engine| {
            let mut keys = Vec::new();
            assert!(!engine.scan(b"k", None, 10, 5, |key, _| keys.push(key.to_vec())));
            keys
        };
        put(&engine, b"k2", Expiry::Clear);
        assert_eq!(keys(&engine), [b"k2"]);
        put(&engine, b"k1", Expiry::At(4));
        put(&engine, b"k0", Expiry::At(5));
        put(&engine, b"j", Expiry::Clear);
        assert_eq!(keys(&engine), [b"k0", b"k2"]);
        engine.update(b"k2", 5, |slot| slot.remove());
        assert_eq!(keys(&engine), [b"k0"]);
        engine.clear();
        assert_eq!(keys(&engine), Vec::<Vec<u8>>::new());
        assert_eq!(engine.stats().bytes, engine.stats().table_bytes);
        put(&engine, b"k3", Expiry::Clear);
        assert_eq!(keys(&engine), [b"k3"]);
    }

    #[test]
    fn page_without_room_only_says_whether_more_follow() {
        let engine = engine();
        assert!(!engine.scan(b"", None, 0, 0, |_, _| panic!("no key")));
        put(&engine, b"k", Expiry::Clear);
        assert!(engine.scan(b"", None, 0, 0, |_, _| panic!("no room")));
    }
}
