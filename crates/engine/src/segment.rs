//! One segment: a table of entries, and the bookkeeping that every change of the table has to keep.
//!
//! # Guarantees
//! After each method, the segment's bytes, its count of deadlines, the bounds of deadlines and the ordered index agree
//! with what the table holds. A refused change has changed none of them.
//!
//! # How it works
//! Buckets are addressed by number, so that a key is searched once per operation: find it, then read, overwrite or remove the bucket.
//! Numbers stay valid until the table moves its entries, which happens in two places only: `reserve_one`, called explicitly before an
//! insertion so that the insertion itself never does it, and `shrink_if_sparse`.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;

use crate::change::{Op, Outlet, Recorder};
use crate::entry::{Entry, KEY_BYTES_MAX, StrEntry, is_expired};
use crate::error::EngineError;
use crate::evict::Luck;
use crate::expire::Deadlines;
use crate::index::{OrderedIndex, index_cost_bytes};
use crate::memory::{Account, Memory, Room};
use crate::observe::{EventClass, Notices, Signals};
use crate::snapshot::{Saved, Saving, Unsaved, records_of};
use crate::stats::Stats;

/// Tables smaller than this are not worth shrinking.
const SHRINK_CAPACITY_MIN: usize = 64;

/// A table shrinks when less than one in so many places is used; growing and shrinking thresholds lie far apart, so that
/// a segment never alternates between them.
const SHRINK_SPARSENESS: usize = 8;

/// The table of the first entry, about.
const FIRST_TABLE_BYTES: u64 = 96;

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
}

impl Context {
    pub(crate) fn new(hash_seed: Option<u64>, memory: Memory, index: OrderedIndex) -> Self {
        // The fast variant of the hash mixes its bits less well than a table needs that takes them from three places.
        let hasher = match hash_seed {
            Some(seed) => SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            None => SeedableRandomState::random(),
        };
        Self {
            hasher,
            memory: Arc::new(memory),
            index,
            signals: Arc::default(),
            outlet: Arc::default(),
            saving: Arc::default(),
            database: 0,
        }
    }

    /// The context of another database of the same engine.
    pub(crate) fn sibling(&self, database: usize, index: OrderedIndex) -> Self {
        let (memory, signals) = (self.memory.clone(), self.signals.clone());
        let (outlet, saving) = (self.outlet.clone(), self.saving.clone());
        Self { hasher: self.hasher.clone(), memory, index, signals, outlet, saving, database }
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
    pub(crate) table: HashTable<Entry>,
    pub(crate) deadlines: Deadlines,
    /// Estimated memory of all entries, of the table with its deadlines, and of places in the ordered index.
    pub(crate) bytes: u64,
    pub(crate) keys_with_ttl: u64,
    /// Keys removed because their time had come, since the engine was created.
    pub(crate) expired: u64,
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
    /// A snapshot needs the keys as they are.
    pub(crate) unsaved: Option<Unsaved>,
}

impl Segment {
    pub(crate) fn new(number: usize, context: &Context) -> Self {
        let mut recorder = Recorder::default();
        recorder.set_on(context.outlet.is_attached());
        Self {
            table: HashTable::new(),
            deadlines: Deadlines::new(),
            bytes: 0,
            keys_with_ttl: 0,
            expired: 0,
            number: number as u16,
            is_indexed: false,
            is_counted: context.memory.counts_new_segments(),
            luck: Luck::new(number as u32),
            notices: Notices::default(),
            recorder,
            unsaved: None,
        }
    }

    /// To be called before each change of a key or value: a snapshot may need it as it was.
    #[inline]
    pub(crate) fn save_first(&mut self, context: &Context) {
        if let Some(unsaved) = self.unsaved {
            self.save(context, unsaved);
        }
    }

    #[cold]
    fn save(&mut self, context: &Context, unsaved: Unsaved) {
        self.unsaved = None;
        if context.saving.is_running() {
            let records = records_of(context, unsaved.database, &self.table, self.bytes);
            context.saving.add(Saved::Records(records));
        }
    }

    /// The bucket of `key`, unless it is absent or has expired; what has expired is removed.
    #[inline]
    pub(crate) fn find_live(&mut self, context: &Context, key: &[u8], hash: u64, now_ms: u64) -> Option<usize> {
        let bucket = self.table.find_bucket_index(hash, |entry| entry.key() == key)?;
        if is_expired(self.get(bucket)?.expires_at_ms(), now_ms) {
            self.remove_expired(context, bucket);
            return None;
        }
        Some(bucket)
    }

    #[inline]
    pub(crate) fn get(&self, bucket: usize) -> Option<&Entry> {
        self.table.get_bucket(bucket)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, bucket: usize) -> Option<&mut Entry> {
        self.table.get_bucket_mut(bucket)
    }

    /// Adds an entry for a key that is absent. Returns its bucket.
    pub(crate) fn insert(
        &mut self,
        context: &Context,
        hash: u64,
        entry: Entry,
        room: Room,
    ) -> Result<usize, EngineError> {
        self.save_first(context);
        let cost_bytes = entry.cost_bytes() + self.index_cost_bytes(entry.key());
        let table_bytes = self.next_table_bytes();
        let mut account = self.account_in(context, room);
        account.grow(cost_bytes + table_bytes)?;
        // It pays for itself.
        account.shrink(table_bytes);
        Ok(self.insert_paid(context, hash, entry))
    }

    /// Like `insert`, but never refused: for an empty collection, which is filled by writes that can be.
    pub(crate) fn insert_always(&mut self, context: &Context, hash: u64, entry: Entry) -> usize {
        self.save_first(context);
        let cost_bytes = entry.cost_bytes() + self.index_cost_bytes(entry.key());
        self.account(context).grow_always(cost_bytes);
        self.insert_paid(context, hash, entry)
    }

    /// Makes the entry in `bucket` a string.
    pub(crate) fn overwrite_str(
        &mut self,
        context: &Context,
        bucket: usize,
        parts: &[&[u8]],
        expires_at_ms: Option<u64>,
        room: Room,
    ) -> Result<(), EngineError> {
        self.save_first(context);
        let entry = self.table.get_bucket_mut(bucket).expect(BUCKET_IS_TAKEN);
        let deadline_before = entry.expires_at_ms();
        if let Entry::Str(string) = entry
            && string.write_over(parts, expires_at_ms)
        {
            self.deadline_changed(context, bucket, deadline_before, expires_at_ms);
            return Ok(());
        }
        let bytes_before = entry.cost_bytes();
        let mut new = Entry::Str(StrEntry::new(entry.key(), parts, expires_at_ms));
        new.set_usage(new.usage().with_use_of(entry.usage()));
        // Not by `account_in`: `entry` still borrows the table.
        let (segment_bytes, is_counted) = (&mut self.bytes, self.is_counted);
        let mut account = Account { memory: &context.memory, segment_bytes, is_counted, room };
        account.resize(bytes_before, new.cost_bytes())?;
        *entry = new;
        self.deadline_changed(context, bucket, deadline_before, expires_at_ms);
        Ok(())
    }

    /// Writes `bytes` over a part of the string in `bucket`, which has it. Returns whether there is such a string.
    pub(crate) fn overwrite_range(&mut self, context: &Context, bucket: usize, at: usize, bytes: &[u8]) -> bool {
        self.save_first(context);
        let Some(Entry::Str(string)) = self.get_mut(bucket) else { return false };
        let end = at.saturating_add(bytes.len());
        let Some(part) = string.value_mut().get_mut(at..end) else { return false };
        part.copy_from_slice(bytes);
        true
    }

    /// Changes the deadline of the entry in `bucket`. Never refused: a ttl is how memory comes back.
    pub(crate) fn set_deadline(&mut self, context: &Context, bucket: usize, expires_at_ms: Option<u64>) {
        self.save_first(context);
        let entry = self.table.get_bucket_mut(bucket).expect(BUCKET_IS_TAKEN);
        let (deadline_before, bytes_before) = (entry.expires_at_ms(), entry.cost_bytes());
        entry.set_expires_at_ms(expires_at_ms);
        let bytes_after = entry.cost_bytes();
        let mut account = self.account(context);
        account.grow_always(bytes_after);
        account.shrink(bytes_before);
        self.deadline_changed(context, bucket, deadline_before, expires_at_ms);
    }

    /// Removes the entry in `bucket`; other buckets keep their numbers. The removal is recorded: whoever holds the segment hands it over
    /// (`Outlet::commit`) before letting go.
    pub(crate) fn remove(&mut self, context: &Context, bucket: usize) -> Entry {
        let entry = self.take_out(context, bucket);
        self.recorder.record_removal(context.database, entry.key());
        entry
    }

    /// The same without a record, for who replaces the entry at once.
    pub(crate) fn take_out(&mut self, context: &Context, bucket: usize) -> Entry {
        self.save_first(context);
        self.forget(context, bucket)
    }

    fn forget(&mut self, context: &Context, bucket: usize) -> Entry {
        let (entry, _) = match self.table.get_bucket_entry(bucket) {
            Ok(occupied) => occupied.remove(),
            Err(_) => unreachable!("{BUCKET_IS_TAKEN}"),
        };
        let cost_bytes = entry.cost_bytes() + self.index_cost_bytes(entry.key());
        self.account(context).shrink(cost_bytes);
        self.keys_with_ttl -= u64::from(entry.expires_at_ms().is_some());
        if self.is_indexed {
            context.index.remove(usize::from(self.number), entry.key());
        }
        entry
    }

    /// Like `remove`, and counted as expired. Neither recorded nor kept for a snapshot: its deadline is, and removes it anywhere.
    #[cold]
    pub(crate) fn remove_expired(&mut self, context: &Context, bucket: usize) -> Entry {
        self.expired += 1;
        let entry = self.forget(context, bucket);
        context.signals.event(context.database, EventClass::EXPIRED, "expired", entry.key());
        self.changed(context, entry.key(), false);
        entry
    }

    /// Tells those who watch `key`, and those who wait for it if it `serves`: holds what can be waited for, or is about to.
    #[inline]
    pub(crate) fn changed(&mut self, context: &Context, key: &[u8], serves: bool) {
        self.notices.changed(&context.signals, context.database, key, serves);
    }

    /// Takes everything out, for the caller to drop after the lock: returns the number of keys, and their table, which is empty if a
    /// snapshot needs it.
    pub(crate) fn take_all(&mut self, context: &Context) -> (usize, HashTable<Entry>) {
        let bytes = self.bytes;
        self.account(context).shrink(bytes);
        self.keys_with_ttl = 0;
        self.deadlines = Deadlines::new();
        let table = std::mem::take(&mut self.table);
        self.notices.all_changed(&context.signals, context.database, false, |key| contains(&table, context, key));
        let len = table.len();
        let Some(unsaved) = self.unsaved.take() else { return (len, table) };
        let table = match context.saving.add(Saved::Table { database: unsaved.database, table, bytes }) {
            Some(Saved::Table { table, .. }) => table,
            Some(Saved::Records(_)) | None => HashTable::new(),
        };
        (len, table)
    }

    /// Exchanges all keys with a segment of another database; the caller exchanges the indexes.
    pub(crate) fn exchange(&mut self, context: &Context, other: &mut Self, other_context: &Context) {
        std::mem::swap(&mut self.table, &mut other.table);
        std::mem::swap(&mut self.deadlines, &mut other.deadlines);
        std::mem::swap(&mut self.bytes, &mut other.bytes);
        std::mem::swap(&mut self.keys_with_ttl, &mut other.keys_with_ttl);
        std::mem::swap(&mut self.is_indexed, &mut other.is_indexed);
        std::mem::swap(&mut self.is_counted, &mut other.is_counted);
        std::mem::swap(&mut self.unsaved, &mut other.unsaved);
        // Absent before and after: nothing has happened to such a key.
        let (table, other_table) = (&self.table, &other.table);
        let is_in_one = |key: &[u8]| contains(table, context, key) || contains(other_table, other_context, key);
        self.notices.all_changed(&context.signals, context.database, true, is_in_one);
        other.notices.all_changed(&other_context.signals, other_context.database, true, is_in_one);
    }

    /// Adds the numbers of this segment to `stats`.
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.keys += self.table.len() as u64;
        stats.keys_with_ttl += self.keys_with_ttl;
        stats.bytes += self.bytes;
        stats.table_bytes += self.table_bytes();
        stats.expired_total += self.expired;
    }

    /// Gives the table's memory back after most entries have gone. Moves the entries.
    pub(crate) fn shrink_if_sparse(&mut self, context: &Context) {
        if let Some(capacity) = capacity_if_sparse(self.table.len(), self.table.capacity()) {
            let bytes_before = self.table_bytes();
            self.table.shrink_to(capacity, |entry| context.hash(entry.key()));
            self.deadlines.entries_moved(self.table.num_buckets());
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
        let cost_bytes = self.table.iter().map(|entry| index_cost_bytes(entry.key())).sum();
        self.account(context).grow_always(cost_bytes);
        context.index.extend(usize::from(self.number), self.table.iter().map(Entry::key));
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
    ) -> (Option<&'a mut Entry>, Account<'a>, &'a mut Recorder) {
        let (segment_bytes, is_counted) = (&mut self.bytes, self.is_counted);
        let account = Account { memory: &context.memory, segment_bytes, is_counted, room };
        (self.table.get_bucket_mut(bucket), account, &mut self.recorder)
    }

    /// Moves the account from one size to another one.
    pub(crate) fn settle_account(&mut self, context: &Context, before: u64, after: u64) {
        if before != after {
            self.account(context).settle(before, after);
        }
    }

    /// What the table and the bounds of its deadlines take, whatever is in them.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.table.allocation_size() as u64 + self.deadlines.cost_bytes()
    }

    /// By how much the table grows for one more entry.
    fn next_table_bytes(&self) -> u64 {
        let is_full = self.table.len() == self.table.capacity();
        // It doubles, and gives the old one back once the entries have moved. The first one has four buckets.
        if is_full { self.table_bytes().max(FIRST_TABLE_BYTES) } else { 0 }
    }

    fn insert_paid(&mut self, context: &Context, hash: u64, entry: Entry) -> usize {
        self.reserve_one(context);
        if self.is_indexed {
            context.index.insert(usize::from(self.number), entry.key());
        }
        let expires_at_ms = entry.expires_at_ms();
        let occupied = self.table.insert_unique(hash, entry, |entry| context.hash(entry.key()));
        let bucket = occupied.bucket_index();
        self.deadline_changed(context, bucket, None, expires_at_ms);
        bucket
    }

    /// Makes room for one entry, so that the following insertion does not move the others.
    fn reserve_one(&mut self, context: &Context) {
        if self.table.len() == self.table.capacity() {
            let bytes_before = self.table_bytes();
            self.table.reserve(1, |entry| context.hash(entry.key()));
            self.deadlines.entries_moved(self.table.num_buckets());
            self.settle_account(context, bytes_before, self.table_bytes());
        }
    }

    fn deadline_changed(&mut self, context: &Context, bucket: usize, before: Option<u64>, after: Option<u64>) {
        self.keys_with_ttl = self.keys_with_ttl + u64::from(after.is_some()) - u64::from(before.is_some());
        if let Some(at_ms) = after {
            let bytes_before = self.deadlines.cost_bytes();
            self.deadlines.note(bucket, self.table.num_buckets(), at_ms);
            self.settle_account(context, bytes_before, self.deadlines.cost_bytes());
        }
    }

    fn index_cost_bytes(&self, key: &[u8]) -> u64 {
        if self.is_indexed { index_cost_bytes(key) } else { 0 }
    }
}

fn contains(table: &HashTable<Entry>, context: &Context, key: &[u8]) -> bool {
    table.find(context.hash(key), |entry| entry.key() == key).is_some()
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
    use crate::entry::{Entry, StrEntry};
    use crate::evict::EvictionConfig;
    use crate::index::OrderedIndex;
    use crate::memory::{Memory, Room};

    fn context() -> Context {
        Context::new(Some(1), Memory::new(None, EvictionConfig::default(), 1), OrderedIndex::new(1))
    }

    fn put(segment: &mut Segment, context: &Context, key: &[u8], expires_at_ms: Option<u64>) -> usize {
        let entry = Entry::Str(StrEntry::new(key, &[b"value"], expires_at_ms));
        segment.insert(context, context.hash(key), entry, Room::Left).expect("no bound is configured")
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
        assert_eq!((segment.bytes, segment.keys_with_ttl, segment.table.len()), (segment.table_bytes(), 0, 0));
        assert!(context.index.merge(b"", None, 1).is_drained(), "the index forgot all keys");
        assert!(segment.table.capacity() < 64, "the table gave its memory back");
        segment.take_all(&context);
        assert_eq!(segment.bytes, 0);
    }

    #[test]
    fn every_expired_entry_is_found_although_the_table_moved_it() {
        let context = context();
        let mut segment = Segment::new(0, &context);
        for number in 0_u64..5_000 {
            // Deletions leave tombstones, so that the table is tidied in place as well as grown.
            let bucket = put(&mut segment, &context, &number.to_le_bytes(), Some(number));
            if number % 3 == 0 {
                segment.remove(&context, bucket);
            }
        }
        let mut removed = Vec::new();
        for now_ms in (0..=5_000).step_by(250) {
            while !segment.expire_step(&context, now_ms, 64, &mut removed).is_done {}
            assert!(segment.table.iter().all(|entry| entry.expires_at_ms() >= Some(now_ms)));
        }
        assert_eq!((segment.table.len(), removed.len()), (0, 3_333));
    }

    #[test]
    fn lone_expired_key_costs_one_block_not_the_whole_segment() {
        let context = context();
        let mut segment = Segment::new(0, &context);
        for number in 0_u64..10_000 {
            put(&mut segment, &context, &number.to_le_bytes(), Some(1_000 + number));
        }
        let mut removed = Vec::new();
        // The first pass makes every bound exact; the later ones remove one key each.
        assert!(segment.expire_step(&context, 1_001, u32::MAX, &mut removed).is_done);
        for now_ms in 1_002..1_100 {
            let step = segment.expire_step(&context, now_ms, u32::MAX, &mut removed);
            assert!(step.is_done && step.visited <= 16, "visited {}", step.visited);
        }
        assert_eq!(removed.len(), 99);
    }
}
