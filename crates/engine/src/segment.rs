//! One segment: its entries, and the bookkeeping that every change of the table has to keep.
//!
//! # Guarantees
//! After each method, the segment's bytes, its count of deadlines, the bounds of deadlines and the ordered index agree
//! with what the table holds. A refused change has changed none of them.
//!
//! # How it works
//! Buckets are addressed by number, so that a key is searched once per operation: find it, then read, overwrite or remove the bucket.
//! A number stays valid until an entry is inserted or removed, which moves those beside it, or the table shrinks. All of these pass through
//! here, where the bounds of deadlines follow.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::change::{Op, Outlet, Recorder};
use crate::entry::{Entry, EntryMut, EntryRef, KEY_BYTES_MAX, Removed, StrParts, Usage, is_expired, str_cost_bytes};
use crate::error::EngineError;
use crate::evict::Luck;
use crate::expire::Deadlines;
use crate::index::{OrderedIndex, index_cost_bytes};
use crate::memory::{Account, Lonely, Memory, Room};
use crate::observe::{EventClass, Notices, Signals};
use crate::snapshot::{Saved, Saving, Unsaved};
use crate::stats::Stats;
use crate::store::{Gap, Store};
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// Tables smaller than this are not worth shrinking.
const SHRINK_CAPACITY_MIN: usize = 64;

/// A table shrinks when less than one in so many places is used; growing and shrinking thresholds lie far apart, so that
/// a segment never alternates between them.
const SHRINK_SPARSENESS: usize = 8;

/// What all segments of a database share.
pub(crate) struct Context {
    pub(crate) hasher: SeedableRandomState,
    pub(crate) memory: Arc<Memory>,
    pub(crate) index: OrderedIndex,
    pub(crate) signals: Arc<Signals>,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) saving: Arc<Saving>,
    /// The number of the database.
    pub(crate) database: usize,
    /// Keys of this database removed because their time had come, since the engine was created.
    pub(crate) expired: Lonely<AtomicU64>,
}

impl Context {
    pub(crate) fn new(hash_seed: Option<u64>, memory: Memory, index: OrderedIndex) -> Self {
        // The fast variant of the hash mixes its bits less well than a table needs that takes them from three places.
        let hasher = match hash_seed {
            Some(seed) => SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            // The hash's own seed is made of addresses and a clock, which may be guessed. This one is the system's.
            None => SeedableRandomState::with_seed(RandomState::new().hash_one(()), SharedSeed::global_random()),
        };
        Self {
            hasher,
            memory: Arc::new(memory),
            index,
            signals: Arc::default(),
            outlet: Arc::default(),
            saving: Arc::default(),
            database: 0,
            expired: Lonely::default(),
        }
    }

    /// The context of another database of the same engine.
    pub(crate) fn sibling(&self, database: usize, index: OrderedIndex) -> Self {
        let (memory, signals) = (self.memory.clone(), self.signals.clone());
        let (outlet, saving) = (self.outlet.clone(), self.saving.clone());
        Self {
            hasher: self.hasher.clone(),
            memory,
            index,
            signals,
            outlet,
            saving,
            database,
            expired: Lonely::default(),
        }
    }

    /// Writes a change behind `group`, if anybody wants to know. The key of one that concerns the whole database is empty.
    pub(crate) fn record(&self, key: &[u8], op: &Op<'_>, group: &mut Vec<u8>) {
        let mut recorder = Recorder::default();
        recorder.set_on(self.outlet.is_attached());
        recorder.record(self.database, key, op);
        recorder.drain_into(group);
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// A table of entries; always behind its engine's lock for this segment.
pub(crate) struct Segment {
    pub(crate) store: Store,
    pub(crate) deadlines: Deadlines,
    /// Estimated memory of all entries, of the table with its deadlines, and of places in the ordered index.
    pub(crate) bytes: u64,
    /// Fewer than locations, of which there are 2^32.
    pub(crate) keys_with_ttl: u32,
    /// Position among the engine's segments, of which there are at most 2^16.
    number: u16,
    /// All keys are in the ordered index, and have to be kept there.
    is_indexed: bool,
    /// The bytes are part of what the engine uses.
    is_counted: bool,
    /// For choices that are left to chance.
    pub(crate) luck: Luck,
    pub(crate) notices: Notices,
    /// What was changed since the segment was taken.
    pub(crate) recorder: Recorder,
    /// A snapshot needs keys as they are.
    pub(crate) unsaved: Option<Unsaved>,
}

impl Segment {
    pub(crate) fn new(number: usize, context: &Context) -> Self {
        let mut recorder = Recorder::default();
        recorder.set_on(context.outlet.is_attached());
        Self {
            store: Store::default(),
            deadlines: Deadlines::new(),
            bytes: 0,
            keys_with_ttl: 0,
            number: number as u16,
            is_indexed: false,
            is_counted: context.memory.counts_new_segments(),
            luck: Luck::new(number as u32),
            notices: Notices::default(),
            recorder,
            unsaved: None,
        }
    }

    /// The bucket of `key`, unless it is absent or has expired; what has expired is removed.
    #[inline]
    pub(crate) fn find_live(&mut self, context: &Context, key: &[u8], hash: u64, now_ms: u64) -> Option<usize> {
        let (bucket, entry) = self.store.find_entry(hash, key)?;
        if is_expired(entry.expires_at_ms(), now_ms) {
            self.remove_expired(context, bucket);
            return None;
        }
        Some(bucket)
    }

    /// The same for a key that is used now: that is noted.
    // Not by a step that both share, which would cost each command 17 instructions.
    #[cfg(feature = "commands")]
    #[inline]
    pub(crate) fn find_used(&mut self, context: &Context, key: &[u8], hash: u64, now_ms: u64) -> Option<usize> {
        let (bucket, entry) = self.store.find_entry(hash, key)?;
        if is_expired(entry.expires_at_ms(), now_ms) {
            self.remove_expired(context, bucket);
            return None;
        }
        let usage = entry.usage();
        self.note_use(context, bucket, usage, now_ms);
        Some(bucket)
    }

    /// Notes that the entry in a bucket is used, of which this was known before.
    #[inline]
    pub(crate) fn note_use(&mut self, context: &Context, bucket: usize, before: Usage, now_ms: u64) {
        let usage = context.memory.eviction.used(before, now_ms, &mut self.luck);
        // A line of the cache that nobody writes to need not be written back to memory.
        if usage != before
            && let Some(mut entry) = self.store.get_mut(bucket)
        {
            entry.set_usage(usage);
        }
    }

    #[inline]
    pub(crate) fn get(&self, bucket: usize) -> Option<EntryRef<'_>> {
        self.store.get(bucket)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, bucket: usize) -> Option<EntryMut<'_>> {
        self.store.get_mut(bucket)
    }

    /// The entry in a bucket, which is used now: that is noted.
    pub(crate) fn use_entry(&mut self, context: &Context, bucket: usize, now_ms: u64) -> Option<EntryRef<'_>> {
        let mut entry = self.store.get_mut(bucket)?;
        let before = entry.usage();
        entry.set_usage(context.memory.eviction.used(before, now_ms, &mut self.luck));
        self.store.get(bucket)
    }

    /// Adds a string for a key that is absent. Returns its bucket.
    pub(crate) fn insert_str(
        &mut self,
        context: &Context,
        hash: u64,
        string: &StrParts<'_>,
        room: Room,
    ) -> Result<usize, EngineError> {
        self.save_before_insert(context, hash);
        let cost_bytes = str_cost_bytes(string.len()) + self.index_cost_bytes(string.key);
        let gap = self.store.gap(hash);
        let bytes_before = self.table_bytes();
        let bytes_after_max = bytes_before + self.growth_bytes_max(self.store.growth_buckets(gap), string);
        self.account_in(context, room).grow(cost_bytes + bytes_after_max - bytes_before)?;
        let gap = gap.unwrap_or_else(|| self.grow_for(hash));
        self.add_to_index(context, string.key);
        let (bucket, moved) = self.store.insert_str(gap, hash, string);
        self.deadlines.moved_up(moved);
        self.deadline_noted(bucket, None, string.expires_at_ms);
        self.settle_account(context, bytes_after_max, self.table_bytes());
        Ok(bucket)
    }

    /// Adds an entry for a key that is absent. Never refused: it may be an empty collection, which is filled by writes that can be.
    pub(crate) fn insert_always(&mut self, context: &Context, hash: u64, entry: Entry) -> usize {
        self.save_before_insert(context, hash);
        let cost_bytes = entry.cost_bytes() + self.index_cost_bytes(entry.view().key());
        self.account(context).grow_always(cost_bytes);
        let (bytes_before, expires_at_ms) = (self.table_bytes(), entry.expires_at_ms());
        let gap = self.store.gap(hash).unwrap_or_else(|| self.grow_for(hash));
        self.add_to_index(context, entry.view().key());
        let (bucket, moved) = self.store.insert(gap, hash, entry);
        self.deadlines.moved_up(moved);
        self.deadline_noted(bucket, None, expires_at_ms);
        self.settle_account(context, bytes_before, self.table_bytes());
        bucket
    }

    /// Makes the entry in `bucket`, whose key is given, a string.
    #[inline]
    pub(crate) fn overwrite_str(
        &mut self,
        context: &Context,
        bucket: usize,
        key: &[u8],
        parts: &[&[u8]],
        expires_at_ms: Option<u64>,
        room: Room,
    ) -> Result<(), EngineError> {
        self.save_before_change(context, bucket);
        if let EntryMut::Str(string) = self.store.get_mut(bucket).expect(BUCKET_IS_TAKEN)
            && string.write_over(parts, expires_at_ms)
        {
            if expires_at_ms.is_some() {
                // There was one before: none has come.
                self.deadline_changed(context, bucket, expires_at_ms, expires_at_ms);
            }
            return Ok(());
        }
        self.replace_by_str(context, bucket, StrParts { key, parts, expires_at_ms, usage: Usage::default() }, room)
    }

    fn replace_by_str(
        &mut self,
        context: &Context,
        bucket: usize,
        string: StrParts<'_>,
        room: Room,
    ) -> Result<(), EngineError> {
        let before = self.store.get(bucket).expect(BUCKET_IS_TAKEN);
        let (deadline_before, cost_before) = (before.expires_at_ms(), before.cost_bytes());
        let string = StrParts { usage: string.usage.with_use_of(before.usage()), ..string };
        let bytes_before = self.table_bytes();
        let bytes_after_max = bytes_before + self.growth_bytes_max(0, &string);
        let cost_after_max = str_cost_bytes(string.len()) + bytes_after_max - bytes_before;
        self.account_in(context, room).resize(cost_before, cost_after_max)?;
        self.store.replace_by_str(bucket, &string, |key| context.hash(key));
        self.deadline_noted(bucket, deadline_before, string.expires_at_ms);
        self.settle_account(context, bytes_after_max, self.table_bytes());
        Ok(())
    }

    /// Writes `bytes` over a part of the string in `bucket`, which has it. Returns whether there is such a string.
    pub(crate) fn overwrite_range(&mut self, context: &Context, bucket: usize, at: usize, bytes: &[u8]) -> bool {
        self.save_before_change(context, bucket);
        let Some(EntryMut::Str(string)) = self.get_mut(bucket) else { return false };
        let end = at.saturating_add(bytes.len());
        let Some(part) = string.into_value().get_mut(at..end) else { return false };
        part.copy_from_slice(bytes);
        true
    }

    /// Changes the deadline of the entry in `bucket`. Never refused: a ttl is how memory comes back.
    pub(crate) fn set_deadline(&mut self, context: &Context, bucket: usize, expires_at_ms: Option<u64>) {
        self.save_before_change(context, bucket);
        let entry = self.store.get(bucket).expect(BUCKET_IS_TAKEN);
        let (deadline_before, bytes_before) = (entry.expires_at_ms(), entry.cost_bytes() + self.table_bytes());
        self.store.set_deadline(bucket, expires_at_ms, |key| context.hash(key));
        let bytes_after = self.store.get(bucket).expect(BUCKET_IS_TAKEN).cost_bytes() + self.table_bytes();
        self.settle_account(context, bytes_before, bytes_after);
        self.deadline_changed(context, bucket, deadline_before, expires_at_ms);
    }

    /// Removes the entry in `bucket`. The removal is recorded: whoever holds the segment hands it over
    /// (`Outlet::commit`) before letting go.
    pub(crate) fn remove(&mut self, context: &Context, bucket: usize) -> Removed {
        self.save_before_change(context, bucket);
        let key = self.store.get(bucket).expect(BUCKET_IS_TAKEN).key();
        self.recorder.record_removal(context.database, key);
        self.forget(context, bucket)
    }

    /// The same without a record, for who replaces the entry at once.
    pub(crate) fn remove_silently(&mut self, context: &Context, bucket: usize) -> Removed {
        self.save_before_change(context, bucket);
        self.forget(context, bucket)
    }

    /// The same for who needs the entry.
    pub(crate) fn take_out(&mut self, context: &Context, bucket: usize) -> Entry {
        // Long strings are boxed, and are not to be copied.
        let is_boxed = self.store.is_boxed(bucket);
        let string = self.store.get(bucket).filter(|_| !is_boxed).and_then(EntryRef::copied_str);
        let boxed = self.remove_silently(context, bucket).into_boxed();
        boxed.or(string).expect("what is in no box is a string")
    }

    fn forget(&mut self, context: &Context, bucket: usize) -> Removed {
        let entry = self.store.get(bucket).expect(BUCKET_IS_TAKEN);
        self.keys_with_ttl -= u32::from(entry.expires_at_ms().is_some());
        let bytes_before = entry.cost_bytes() + self.index_cost_bytes(entry.key()) + self.table_bytes();
        if self.is_indexed {
            context.index.remove(usize::from(self.number), entry.key());
        }
        let (boxed, moved) = self.store.remove(bucket, |key| context.hash(key));
        self.deadlines.moved_down(moved);
        self.settle_account(context, bytes_before, self.table_bytes());
        Removed::new(boxed)
    }

    /// Like `remove`, and counted as expired. Neither recorded nor kept for a snapshot: its deadline is, and removes it anywhere.
    #[cold]
    pub(crate) fn remove_expired(&mut self, context: &Context, bucket: usize) -> Removed {
        context.expired.0.fetch_add(1, Ordering::Relaxed);
        let key = self.store.get(bucket).expect(BUCKET_IS_TAKEN).key();
        context.signals.event(context.database, EventClass::EXPIRED, "expired", key);
        self.notices.changed(&context.signals, context.database, key, false);
        self.forget(context, bucket)
    }

    /// Tells those who watch `key`, and those who wait for it if it `serves`: holds what can be waited for, or is about to.
    #[inline]
    pub(crate) fn changed(&mut self, context: &Context, key: &[u8], serves: bool) {
        self.notices.changed(&context.signals, context.database, key, serves);
    }

    /// Takes everything out, for the caller to drop after the lock: returns the number of keys, and the entries, unless a snapshot needs
    /// them.
    pub(crate) fn take_all(&mut self, context: &Context) -> (usize, Store) {
        let bytes = self.bytes;
        self.account(context).shrink(bytes);
        self.keys_with_ttl = 0;
        self.deadlines = Deadlines::new();
        let store = std::mem::take(&mut self.store);
        self.notices.all_changed(&context.signals, context.database, false, |key| contains(&store, context, key));
        let len = store.len();
        let Some(unsaved) = self.unsaved.take() else { return (len, store) };
        let store = match context.saving.add(Saved::Store { unsaved, store, bytes }, true) {
            Some(Saved::Store { store, .. }) => store,
            Some(Saved::Records(_)) | None => Store::default(),
        };
        (len, store)
    }

    /// Exchanges all keys with a segment of another database; the caller exchanges the indexes.
    pub(crate) fn exchange(&mut self, context: &Context, other: &mut Self, other_context: &Context) {
        std::mem::swap(&mut self.store, &mut other.store);
        std::mem::swap(&mut self.deadlines, &mut other.deadlines);
        std::mem::swap(&mut self.bytes, &mut other.bytes);
        std::mem::swap(&mut self.keys_with_ttl, &mut other.keys_with_ttl);
        std::mem::swap(&mut self.is_indexed, &mut other.is_indexed);
        std::mem::swap(&mut self.is_counted, &mut other.is_counted);
        std::mem::swap(&mut self.unsaved, &mut other.unsaved);
        // Absent before and after: nothing has happened to such a key.
        let (store, other_store) = (&self.store, &other.store);
        let is_in_one = |key: &[u8]| contains(store, context, key) || contains(other_store, other_context, key);
        self.notices.all_changed(&context.signals, context.database, true, is_in_one);
        other.notices.all_changed(&other_context.signals, other_context.database, true, is_in_one);
    }

    /// Adds the numbers of this segment to `stats`.
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.keys += self.store.len() as u64;
        stats.keys_with_ttl += u64::from(self.keys_with_ttl);
        stats.bytes += self.bytes;
        stats.table_bytes += self.table_bytes();
    }

    /// Gives the table's memory back after most entries have gone, all of it after the last one: where little memory is allowed, a thousand
    /// empty tables would leave no room for a key. Moves the entries.
    pub(crate) fn shrink_if_sparse(&mut self, context: &Context) {
        let capacity = match (self.store.len(), self.store.capacity()) {
            (0, 1..) => Some(0),
            (len, capacity) => capacity_if_sparse(len, capacity),
        };
        if let Some(capacity) = capacity {
            let bytes_before = self.table_bytes();
            let before = self.store.shrink_to(capacity);
            self.deadlines.table_resized(self.store.buckets(), self.store.moves_from(&before));
            self.settle_account(context, bytes_before, self.table_bytes());
        }
    }

    /// Lets the bytes of this segment be part of what the engine uses, from now on.
    pub(crate) fn join_counter(&mut self, context: &Context) {
        if !self.is_counted {
            context.memory.add_segment(self.bytes);
            self.is_counted = true;
        }
    }

    pub(crate) fn is_indexed(&self) -> bool {
        self.is_indexed
    }

    /// Puts all keys into the ordered index and keeps them there from now on.
    pub(crate) fn build_index(&mut self, context: &Context) {
        if self.is_indexed {
            return;
        }
        self.is_indexed = true;
        let cost_bytes = self.store.iter().map(|entry| index_cost_bytes(entry.key())).sum();
        self.account(context).grow_always(cost_bytes);
        context.index.extend(usize::from(self.number), self.store.iter().map(EntryRef::key));
    }

    /// The account of this segment, for what is left below the bound.
    pub(crate) fn account<'a>(&'a mut self, context: &'a Context) -> Account<'a> {
        self.account_in(context, Room::Left)
    }

    fn account_in<'a>(&'a mut self, context: &'a Context, room: Room) -> Account<'a> {
        Account { memory: &context.memory, segment_bytes: &mut self.bytes, is_counted: self.is_counted, room }
    }

    /// The same, together with the entry in a bucket.
    pub(crate) fn entry_and_account<'a>(
        &'a mut self,
        context: &'a Context,
        bucket: usize,
        room: Room,
    ) -> (Option<EntryMut<'a>>, Account<'a>, &'a mut Recorder) {
        let (segment_bytes, is_counted) = (&mut self.bytes, self.is_counted);
        let account = Account { memory: &context.memory, segment_bytes, is_counted, room };
        (self.store.get_mut(bucket), account, &mut self.recorder)
    }

    /// Moves the account from one size to another one.
    #[inline]
    pub(crate) fn settle_account(&mut self, context: &Context, before: u64, after: u64) {
        if before != after {
            self.account(context).settle(before, after);
        }
    }

    /// What tables and lists and the bounds of deadlines take, whatever is in them.
    #[inline]
    pub(crate) fn table_bytes(&self) -> u64 {
        self.store.overhead_bytes() + self.deadlines.cost_bytes()
    }

    fn add_to_index(&self, context: &Context, key: &[u8]) {
        if self.is_indexed {
            context.index.insert(usize::from(self.number), key);
        }
    }

    /// By how much tables, lists and bounds may grow for a string, if the table grows by so many buckets.
    fn growth_bytes_max(&self, more_buckets: usize, string: &StrParts<'_>) -> u64 {
        let has_deadline = string.expires_at_ms.is_some();
        self.store.growth_bytes_max(more_buckets, string.len())
            + self.deadlines.growth_bytes_max(self.store.buckets() + more_buckets, has_deadline)
    }

    /// Makes the table larger, until an entry with this hash has a place to go to. The caller settles the account.
    #[cold]
    fn grow_for(&mut self, hash: u64) -> Gap {
        loop {
            let before = self.store.grow();
            self.deadlines.table_resized(self.store.buckets(), self.store.moves_from(&before));
            if let Some(gap) = self.store.gap(hash) {
                return gap;
            }
        }
    }

    #[inline]
    fn deadline_changed(&mut self, context: &Context, bucket: usize, before: Option<u64>, after: Option<u64>) {
        let bytes_before = self.deadlines.cost_bytes();
        self.deadline_noted(bucket, before, after);
        self.settle_account(context, bytes_before, self.deadlines.cost_bytes());
    }

    /// The same for who settles the account.
    #[inline]
    fn deadline_noted(&mut self, bucket: usize, before: Option<u64>, after: Option<u64>) {
        self.keys_with_ttl = self.keys_with_ttl + u32::from(after.is_some()) - u32::from(before.is_some());
        if let Some(at_ms) = after {
            self.deadlines.note(bucket, self.store.buckets(), at_ms);
        }
    }

    fn index_cost_bytes(&self, key: &[u8]) -> u64 {
        if self.is_indexed { index_cost_bytes(key) } else { 0 }
    }
}

fn contains(store: &Store, context: &Context, key: &[u8]) -> bool {
    store.find(context.hash(key), key).is_some()
}

/// The capacity that a table shrinks to after most of its entries have gone; `None` while it is well used.
pub(crate) fn capacity_if_sparse(len: usize, capacity: usize) -> Option<usize> {
    (capacity >= SHRINK_CAPACITY_MIN && len < capacity / SHRINK_SPARSENESS).then_some(len * 2)
}

/// Refuses a key that the entry layout cannot hold.
pub(crate) fn check_key(key: &[u8]) -> Result<(), EngineError> {
    if key.len() > KEY_BYTES_MAX { Err(EngineError::KeyTooLong) } else { Ok(()) }
}

const BUCKET_IS_TAKEN: &str = "a bucket number is used before its entry is removed or moved";

#[cfg(test)]
mod tests {
    use super::{Context, Segment};
    use crate::entry::{Entry, EntryRef, StrParts, Usage};
    use crate::evict::EvictionConfig;
    use crate::index::OrderedIndex;
    use crate::memory::{Memory, Room};

    fn context() -> Context {
        Context::new(Some(1), Memory::new(None, EvictionConfig::default(), 1), OrderedIndex::new(1))
    }

    fn put(segment: &mut Segment, context: &Context, key: &[u8], expires_at_ms: Option<u64>) -> usize {
        let string = StrParts { key, parts: &[b"value"], expires_at_ms, usage: Usage::default() };
        segment.insert_str(context, context.hash(key), &string, Room::Left).expect("no bound is configured")
    }

    /// Half a gigabyte would be copied while others wait for the segment.
    #[test]
    fn long_string_is_taken_out_without_a_copy_and_a_short_one_as_it_was() {
        let context = context();
        let mut segment = Segment::new(0, &context);
        for (len, is_moved) in [(5, false), (5_000, true)] {
            let value = vec![b'v'; len];
            let string = StrParts { key: b"key", parts: &[&value], expires_at_ms: Some(7), usage: Usage::default() };
            let bucket =
                segment.insert_str(&context, context.hash(b"key"), &string, Room::Left).expect("there is no bound");
            let Some(EntryRef::Str(before)) = segment.get(bucket) else { panic!("it is a string") };
            let before = before.value().as_ptr();
            let entry = segment.take_out(&context, bucket);
            assert_eq!(entry.expires_at_ms(), Some(7));
            let Entry::Str(taken) = entry else { panic!("it is a string") };
            assert_eq!((taken.view().key(), taken.value()), (&b"key"[..], &*value));
            assert_eq!(taken.value().as_ptr() == before, is_moved, "{len} bytes");
        }
    }

    #[test]
    fn bookkeeping_returns_to_zero_when_all_entries_are_removed() {
        let context = context();
        let mut segment = Segment::new(0, &context);
        for number in 0_u32..1_000 {
            if number == 500 {
                segment.build_index(&context);
            }
            put(&mut segment, &context, &number.to_le_bytes(), (number % 2 == 0).then_some(10));
        }
        assert_eq!(segment.keys_with_ttl, 500);
        for number in 0_u32..1_000 {
            let key = number.to_le_bytes();
            let bucket = segment.find_live(&context, &key, context.hash(&key), 0).expect("it was put");
            segment.remove(&context, bucket);
            segment.shrink_if_sparse(&context);
        }
        assert_eq!((segment.bytes, segment.keys_with_ttl, segment.store.len()), (segment.table_bytes(), 0, 0));
        assert!(context.index.merge(b"", None, 1).is_drained(), "the index forgot all keys");
        assert!(segment.store.capacity() < 64, "the table gave its memory back");
        segment.take_all(&context);
        assert_eq!(segment.bytes, 0);
    }

    #[test]
    fn every_expired_entry_is_found_although_the_table_moved_it() {
        let context = context();
        let mut segment = Segment::new(0, &context);
        for number in 0_u64..5_000 {
            // Removals move entries as well, into other blocks.
            let bucket = put(&mut segment, &context, &number.to_le_bytes(), Some(number));
            if number % 3 == 0 {
                segment.remove(&context, bucket);
            }
        }
        let mut removed = Vec::new();
        for now_ms in (0..=5_000).step_by(250) {
            while !segment.expire_step(&context, now_ms, 64, &mut removed).is_done {}
            assert!(segment.store.iter().all(|entry| entry.expires_at_ms() >= Some(now_ms)));
        }
        assert_eq!((segment.store.len(), removed.len()), (0, 3_333));
    }

    #[test]
    fn lone_expired_key_costs_a_block_or_two_not_the_whole_segment() {
        let context = context();
        let mut segment = Segment::new(0, &context);
        for number in 0_u64..10_000 {
            put(&mut segment, &context, &number.to_le_bytes(), Some(1_000 + number));
        }
        let mut removed = Vec::new();
        // The first pass makes every bound exact; the later ones remove one key each.
        assert!(segment.expire_step(&context, 1_001, u32::MAX, &mut removed).is_done);
        let mut visited = 0;
        for now_ms in 1_002..1_100 {
            let step = segment.expire_step(&context, now_ms, u32::MAX, &mut removed);
            assert!(step.is_done && step.visited <= 4 * 16, "visited {}", step.visited);
            visited += step.visited;
        }
        assert_eq!(removed.len(), 99);
        assert!(visited < 99 * 2 * 16, "more than two blocks on average: {visited}");
    }
}
