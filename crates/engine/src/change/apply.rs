//! Brings an engine to the state that changes lead to.
//!
//! # Guarantees
//! Values and deadlines are those of the engine that recorded the changes. When keys were used is not recorded: what a change has made or
//! touched was used at the time of loading, as when Redis reads an append-only file; what only a file holds, when the file says.
//!
//! # How it works
//! No deadline has passed while changes are applied: what a key held is there until the changes say otherwise, and removing what has
//! expired is left to those who come afterwards. Changes are strict: one that does not find the key as it was when it was recorded is an
//! error, because then something is missing or was applied twice.

use super::op::{Change, DATABASES_MAX, Ops};
use super::{ChangeError, Op, Problem};
use crate::entry::{Collection, Entry, EntryMut, EntryRef, Kind, StrEntry, Usage};
use crate::keyspace::{Engine, Keyspace};
use crate::memory::Room;
use crate::rdb::{self, Touched};
use crate::segment::{Context, Segment};
use crate::value::{CollectionValue, Fields, Limits, List, Place, Set, Zset};

impl Engine {
    /// Says when keys are loaded, for [`load`](Self::load) and [`apply`](Self::apply): policies of eviction go by when keys were used.
    pub fn set_load_time(&self, now_ms: u64) {
        self.keyspace().context.memory.eviction.set_loaded_ms(now_ms);
    }

    /// Applies the changes of a group, one after the other. Meant for loading, before others use the engine and before a log is attached: what
    /// is applied is not recorded again, and others could see a part of a group. Works above the bound of the memory.
    ///
    /// # Errors
    /// [`ChangeError`]; the changes before the one that it names were applied.
    pub fn apply(&self, group: &[u8]) -> Result<(), ChangeError> {
        let mut ops = Ops::new(group);
        // Finding a database takes a lock, and most changes are of the same one.
        let mut database: Option<(usize, Self)> = None;
        loop {
            let (number, offset) = ops.place();
            let Some(change) = ops.next() else { return Ok(()) };
            let change = change?;
            let engine = match database.take() {
                Some((number, engine)) if number == change.database => engine,
                _ => self.sibling(change.database),
            };
            engine.apply_one(&change).map_err(|problem| ChangeError { number, offset, problem })?;
            database = Some((change.database, engine));
        }
    }

    fn apply_one(&self, change: &Change<'_>) -> Result<(), Problem> {
        match change.op {
            Op::ClearDatabase => self.clear(),
            Op::SwapDatabases(other) => self.swap_with(other as usize),
            Op::MoveTo { database, key } => {
                let entry = Target::find(self.keyspace(), change.key, |target| target.take())?;
                let engine = self.sibling(database);
                Target::find(engine.keyspace(), key, |target| target.put(renamed(entry, key)));
            }
            op => return apply_to_key(self.keyspace(), change.key, &op),
        }
        Ok(())
    }

    /// Puts a key of a file where it belongs, whatever was there: for loading, like [`apply`](Self::apply). Returns whether it did: not if no
    /// engine can have a database of that number.
    #[must_use]
    pub fn load(&self, record: rdb::Record) -> bool {
        let number = usize::try_from(record.database).ok().filter(|number| *number < DATABASES_MAX);
        let Some(number) = number else { return false };
        let (key, entry) = (&*record.key, entry_of(&record.key, record.value, record.expires_at_ms));
        Target::find(self.sibling(number).keyspace(), key, |target| target.put_used(entry, record.touched));
        true
    }
}

fn entry_of(key: &[u8], value: rdb::Value, expires_at_ms: Option<u64>) -> Entry {
    match value {
        rdb::Value::Str(bytes) => Entry::Str(StrEntry::new(key, &[&bytes], expires_at_ms)),
        rdb::Value::Collection(value) => collection(key, value, expires_at_ms),
    }
}

fn renamed(entry: Entry, key: &[u8]) -> Entry {
    let expires_at_ms = entry.expires_at_ms();
    match entry {
        Entry::Str(string) => Entry::Str(StrEntry::new(key, &[string.value()], expires_at_ms)),
        Entry::Collection(before) => collection(key, before.value, expires_at_ms),
    }
}

fn collection(key: &[u8], value: CollectionValue, expires_at_ms: Option<u64>) -> Entry {
    Entry::Collection(Box::new(Collection { key: key.into(), usage: Usage::default(), expires_at_ms, value }))
}

/// The longest string that changes can make; no command makes a longer one.
const STRING_BYTES_MAX: usize = 512 << 20;

/// The key of a change.
struct Target<'a> {
    context: &'a Context,
    segment: &'a mut Segment,
    hash: u64,
    bucket: Option<usize>,
}

fn apply_to_key(keyspace: &Keyspace, key: &[u8], op: &Op<'_>) -> Result<(), Problem> {
    Target::find(keyspace, key, |target| match *op {
        Op::SetStr { expires_at_ms, value } => {
            target.set_string(key, value, expires_at_ms);
            Ok(())
        }
        Op::SetRange { at, bytes } => target.set_range(key, at, bytes),
        Op::Append(bytes) => {
            let len = target.string()?.len() as u64;
            target.set_range(key, len, bytes)
        }
        Op::Remove => target.remove(),
        Op::SetDeadline(expires_at_ms) => {
            target.segment.set_deadline(target.context, target.bucket.ok_or(ABSENT)?, expires_at_ms);
            Ok(())
        }
        Op::PutWhole { expires_at_ms, value } => {
            let entry = entry_of(key, read_whole(value)?, expires_at_ms);
            target.put(entry);
            Ok(())
        }
        Op::Create(kind) => {
            target.put(collection(key, empty(kind)?, None));
            Ok(())
        }
        _ => target.change_collection(op),
    })
}

const ABSENT: Problem = Problem::Mismatch("it is absent");

impl Target<'_> {
    fn find<R>(keyspace: &Keyspace, key: &[u8], act: impl FnOnce(&mut Target<'_>) -> R) -> R {
        let context = &keyspace.context;
        let hash = context.hash(key);
        let mut segment = keyspace.lock(keyspace.segment_of(hash));
        let bucket = segment.store.find(hash, key);
        act(&mut Target { context, segment: &mut segment, hash, bucket })
    }

    fn take(&mut self) -> Result<Entry, Problem> {
        let entry = self.segment.take_out(self.context, self.bucket.take().ok_or(ABSENT)?);
        self.segment.shrink_if_sparse(self.context);
        Ok(entry)
    }

    fn remove(&mut self) -> Result<(), Problem> {
        self.segment.remove_silently(self.context, self.bucket.take().ok_or(ABSENT)?);
        self.segment.shrink_if_sparse(self.context);
        Ok(())
    }

    fn put(&mut self, entry: Entry) {
        self.put_used(entry, None);
    }

    fn put_used(&mut self, mut entry: Entry, touched: Option<Touched>) {
        let usage = self.context.memory.eviction.loaded_usage(touched);
        entry.set_usage(entry.usage().with_use_of(usage));
        if let Some(bucket) = self.bucket.take() {
            self.segment.remove_silently(self.context, bucket);
        }
        self.bucket = Some(self.segment.insert_always(self.context, self.hash, entry));
    }

    fn set_string(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
        if let Some(bucket) = self.bucket
            && self.segment.overwrite_str(self.context, bucket, key, &[value], expires_at_ms, Room::Made).is_ok()
        {
            return self.mark_used();
        }
        self.put(Entry::Str(StrEntry::new(key, &[value], expires_at_ms)));
    }

    fn mark_used(&mut self) {
        let (eviction, segment) = (&self.context.memory.eviction, &mut *self.segment);
        if let Some(mut entry) = self.bucket.and_then(|bucket| segment.store.get_mut(bucket)) {
            let before = entry.usage();
            entry.set_usage(eviction.applied(before, &mut segment.luck));
        }
    }

    fn string(&self) -> Result<&[u8], Problem> {
        match self.segment.get(self.bucket.ok_or(ABSENT)?) {
            Some(EntryRef::Str(string)) => Ok(string.value()),
            _ => Err(Problem::Mismatch("it is no string")),
        }
    }

    fn set_range(&mut self, key: &[u8], at: u64, bytes: &[u8]) -> Result<(), Problem> {
        let len = self.string()?.len();
        let range = usize::try_from(at).ok().and_then(|at| Some(at..at.checked_add(bytes.len())?));
        let range = range.filter(|range| range.end <= STRING_BYTES_MAX).ok_or(Problem::Malformed("the place"))?;
        if range.end > len {
            let value = self.string()?;
            let mut grown = Vec::with_capacity(range.end);
            grown.extend_from_slice(&value[..range.start.min(len)]);
            grown.resize(range.start, 0);
            grown.extend_from_slice(bytes);
            let expires_at_ms =
                self.bucket.and_then(|bucket| self.segment.get(bucket)).and_then(EntryRef::expires_at_ms);
            self.set_string(key, &grown, expires_at_ms);
        } else if let Some(bucket) = self.bucket {
            self.segment.overwrite_range(self.context, bucket, range.start, bytes);
            self.mark_used();
        }
        Ok(())
    }

    fn change_collection(&mut self, op: &Op<'_>) -> Result<(), Problem> {
        let bucket = self.bucket.ok_or(ABSENT)?;
        self.mark_used();
        self.segment.save_before_change(self.context, bucket);
        let (entry, mut account, _) = self.segment.entry_and_account(self.context, bucket, Room::Made);
        let Some(EntryMut::Collection(collection)) = entry else {
            return Err(Problem::Mismatch("it is a string"));
        };
        let value = &mut collection.value;
        let cost_before = value.cost_bytes();
        let result = match value {
            CollectionValue::List(list) => change_list(list, op),
            CollectionValue::Hash(fields) => change_hash(fields, op),
            CollectionValue::Set(set) => change_set(set, op),
            CollectionValue::SortedSet(set) => change_sorted_set(set, op),
        };
        account.settle(cost_before, value.cost_bytes());
        if result? { Ok(()) } else { Err(Problem::Mismatch("what it names is not there")) }
    }
}

fn read_whole(value: &[u8]) -> Result<rdb::Value, Problem> {
    let (kind, mut rest) = value.split_first().ok_or(Problem::Truncated)?;
    let value =
        rdb::read_value(*kind, &mut rest, &Limits::default()).map_err(|error| Problem::Value(error.to_string()))?;
    let is_empty = matches!(&value, rdb::Value::Collection(value) if value.is_empty());
    if !rest.is_empty() || is_empty { Err(Problem::Malformed("the length of the value")) } else { Ok(value) }
}

fn empty(kind: Kind) -> Result<CollectionValue, Problem> {
    match kind {
        Kind::Hash => Ok(CollectionValue::Hash(Fields::default())),
        Kind::SortedSet => Ok(CollectionValue::SortedSet(Zset::default())),
        Kind::List => Ok(CollectionValue::List(List::default())),
        Kind::Set => Ok(CollectionValue::Set(Set::default())),
        Kind::String => Err(Problem::Malformed("the kind of the collection")),
    }
}

const OTHER_KIND: Problem = Problem::Mismatch("it holds another kind of value");

/// A number of elements, of which there are `len`; `None` if there are not so many.
fn within(number: u64, len: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|number| *number <= len)
}

/// Each of these returns whether what the change names was there.
fn change_list(list: &mut List, op: &Op<'_>) -> Result<bool, Problem> {
    let (limits, len) = (Limits::default(), list.len());
    match *op {
        Op::PushFront(element) => list.push_front(element, &limits),
        Op::PushBack(element) => list.push_back(element, &limits),
        Op::PopFront(count) => match within(count, len) {
            Some(count) => list.trim(count..len),
            None => return Ok(false),
        },
        Op::PopBack(count) => match within(count, len) {
            Some(count) => list.trim(0..len - count),
            None => return Ok(false),
        },
        Op::SetAt { index, element } => return Ok(list.set(index, element, &limits)),
        Op::InsertBefore { pivot, element } => return Ok(list.insert(Place::Before, pivot, element, &limits)),
        Op::InsertAfter { pivot, element } => return Ok(list.insert(Place::After, pivot, element, &limits)),
        Op::RemoveEqual { count, element } => return Ok(list.remove(count, element) > 0),
        Op::Trim { start, len: kept } => match start.checked_add(kept).and_then(|end| within(end, len)) {
            // Fits: it is below the end.
            Some(end) => list.trim(start as usize..end),
            None => return Ok(false),
        },
        _ => return Err(OTHER_KIND),
    }
    Ok(true)
}

fn change_hash(fields: &mut Fields, op: &Op<'_>) -> Result<bool, Problem> {
    match *op {
        Op::SetField { field, value } => {
            fields.insert(field, value, &Limits::default());
            Ok(true)
        }
        Op::RemoveField(field) => Ok(fields.remove(field)),
        _ => Err(OTHER_KIND),
    }
}

fn change_set(set: &mut Set, op: &Op<'_>) -> Result<bool, Problem> {
    match *op {
        Op::AddMember(member) => Ok(set.insert(member, &Limits::default())),
        Op::RemoveMember(member) => Ok(set.remove(member)),
        _ => Err(OTHER_KIND),
    }
}

fn change_sorted_set(set: &mut Zset, op: &Op<'_>) -> Result<bool, Problem> {
    match *op {
        Op::SetScore { member, score } => {
            set.insert(member, score, &Limits::default());
            Ok(true)
        }
        Op::RemoveScored(member) => Ok(set.remove(member).is_some()),
        Op::RemoveRanks { start, len } => match start.checked_add(len).and_then(|end| within(end, set.len())) {
            // Fits: it is below the end.
            Some(end) => Ok(set.remove_range(start as usize..end) > 0),
            None => Ok(false),
        },
        _ => Err(OTHER_KIND),
    }
}
