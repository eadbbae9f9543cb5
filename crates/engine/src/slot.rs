//! One key inside an atomic update: read it, write it, remove it, as often as needed, unseen by others until the update ends.
//!
//! # Guarantees
//! Reads within the update see its own writes. A write that returns an error has changed nothing. An empty collection counts as absent
//! and is gone when the update ends. A deadline that has already passed removes the key at once.
//!
//! # Failure
//! If the closure panics, what it wrote before stays, as it does when it returns.

use crate::change::{Op, Recording};
use crate::entry::{Collection, Entry, EntryMut, EntryRef, Kind, Ref, StrParts, is_expired};
use crate::error::EngineError;
use crate::memory::{Account, Room};
use crate::observe::EventClass;
use crate::rdb::{Compression, ValueRef, type_of, write_value};
use crate::segment::{Context, Segment, check_key};
use crate::value::{CollectionValue, Fields, HashMut, SortedSetMut, Zset};

/// What a write does to the time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// As it was; an absent key had none.
    Keep,
    /// The key stays until it is removed.
    Clear,
    /// The last millisecond at which the key is there.
    At(u64),
}

impl Expiry {
    /// `current` is asked only where it matters.
    #[inline]
    fn resolve(self, current: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::Keep => current(),
            Self::Clear => None,
            Self::At(at_ms) => Some(at_ms),
        }
    }
}

/// One key, for the time of an update.
pub struct Slot<'a> {
    pub(crate) context: &'a Context,
    pub(crate) segment: &'a mut Segment,
    pub(crate) key: &'a [u8],
    hash: u64,
    pub(crate) now_ms: u64,
    pub(crate) bucket: Option<usize>,
    /// What may be taken.
    room: Room,
}

impl<'a> Slot<'a> {
    #[inline]
    pub(crate) fn open(context: &'a Context, segment: &'a mut Segment, key: &'a [u8], hash: u64, now_ms: u64) -> Self {
        let bucket = segment.find_live(context, key, hash, now_ms);
        Self::of(context, segment, key, hash, now_ms, bucket)
    }

    /// The same, [marked as used](Self::mark_used): nearly every command does both, and the entry is at hand when it was just found.
    #[cfg(feature = "commands")]
    #[inline]
    pub(crate) fn open_used(
        context: &'a Context,
        segment: &'a mut Segment,
        key: &'a [u8],
        hash: u64,
        now_ms: u64,
    ) -> Self {
        let bucket = segment.find_used(context, key, hash, now_ms);
        Self::of(context, segment, key, hash, now_ms, bucket)
    }

    #[inline]
    fn of(
        context: &'a Context,
        segment: &'a mut Segment,
        key: &'a [u8],
        hash: u64,
        now_ms: u64,
        bucket: Option<usize>,
    ) -> Self {
        let room = context.memory.room_of_commands();
        Self { context, segment, key, hash, now_ms, bucket, room }
    }

    /// The same for a write that was told what it may take.
    #[inline]
    pub(crate) fn granted(mut self, room: Room) -> Self {
        self.room = room;
        self
    }

    /// Notes that the key is used, where a policy goes by it.
    #[inline]
    pub(crate) fn mark_used_if_needed(&mut self) {
        if self.context.memory.eviction.needs_usage() {
            self.mark_used();
        }
    }

    /// Notes that the key is used.
    pub(crate) fn mark_used(&mut self) {
        if let Some(bucket) = self.bucket
            && let Some(entry) = self.segment.get(bucket)
        {
            let usage = entry.usage();
            self.segment.note_use(self.context, bucket, usage, self.now_ms);
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key
    }

    /// The current value; `None` if the key is absent.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<Ref<'_>> {
        let entry = self.segment.get(self.bucket?)?;
        (!entry.is_empty_collection()).then(|| Ref::new(entry, self.key.len()))
    }

    /// Writes `bytes` over the part of a string that begins at `at`, where it lies. Returns whether the string has that part: not if the
    /// key is absent, holds another kind, or is too short.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) -> bool {
        let is_there = self.overwrite_silently(at, bytes);
        if is_there {
            self.changed();
        }
        is_there
    }

    /// The same for who may find that nothing changes: who does change something has to say so.
    pub(crate) fn overwrite_silently(&mut self, at: usize, bytes: &[u8]) -> bool {
        let Some(bucket) = self.bucket else { return false };
        let is_there = self.segment.overwrite_range(self.context, bucket, at, bytes);
        if is_there {
            self.record(&Op::SetRange { at: at as u64, bytes });
        }
        is_there
    }

    /// Makes the key a string: the concatenation of `parts`, so that a header and a value need no buffer of their own.
    /// Replaces any kind. A value as long as the old one is written in place.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`], [`EngineError::KeyTooLong`].
    #[inline]
    pub fn set_str(&mut self, parts: &[&[u8]], expiry: Expiry) -> Result<(), EngineError> {
        self.set_str_silently(parts, expiry)?;
        self.changed();
        Ok(())
    }

    /// The same for who may find that nothing else changes: who does change something has to say so.
    #[inline]
    pub(crate) fn set_str_silently(&mut self, parts: &[&[u8]], expiry: Expiry) -> Result<(), EngineError> {
        let expires_at_ms = expiry.resolve(|| self.expires_at_ms());
        if is_expired(expires_at_ms, self.now_ms) {
            check_key(self.key)?;
            self.remove();
            return Ok(());
        }
        self.write_str(parts, expires_at_ms)?;
        self.segment.recorder.record_string(self.context.database, self.key, expires_at_ms, parts);
        Ok(())
    }

    /// Makes a string `len` bytes long, with zeros at its end, and an absent key one of zeros; who changes something has to say so. Returns
    /// whether it was shorter.
    ///
    /// # Errors
    /// [`EngineError::WrongType`] and those of [`set_str`](Self::set_str).
    pub(crate) fn grow_silently(&mut self, len: usize) -> Result<bool, EngineError> {
        let before = self.get();
        let value = match before {
            Some(value) => value.as_str().ok_or(EngineError::WrongType)?,
            None => &[],
        };
        if value.len() >= len {
            return Ok(false);
        }
        let (is_new, expires_at_ms) = (before.is_none(), before.and_then(|before| before.expires_at_ms()));
        let mut grown = Vec::with_capacity(len);
        grown.extend_from_slice(value);
        grown.resize(len, 0);
        self.write_str(&[&grown], expires_at_ms)?;
        if is_new {
            // On record it begins empty: what was there before may be absent only because its time has come.
            self.segment.recorder.record_string(self.context.database, self.key, None, &[]);
        }
        // The last zero says it all, and long strings of zeros are not written out.
        self.record(&Op::SetRange { at: len as u64 - 1, bytes: &[0] });
        Ok(true)
    }

    /// Puts `tail` behind a string, or makes an absent key that. Returns the length.
    ///
    /// # Errors
    /// [`EngineError::WrongType`] and those of [`set_str`](Self::set_str).
    pub(crate) fn append(&mut self, tail: &[u8]) -> Result<usize, EngineError> {
        let Some(value) = self.get() else {
            self.set_str(&[tail], Expiry::Clear)?;
            return Ok(tail.len());
        };
        let before = value.as_str().ok_or(EngineError::WrongType)?.to_vec();
        self.write_str(&[&before, tail], self.expires_at_ms())?;
        self.record(&Op::Append(tail));
        self.changed();
        Ok(before.len() + tail.len())
    }

    /// Writes a string without a record.
    #[inline]
    fn write_str(&mut self, parts: &[&[u8]], expires_at_ms: Option<u64>) -> Result<(), EngineError> {
        check_key(self.key)?;
        match self.bucket {
            Some(bucket) => {
                self.segment.overwrite_str(self.context, bucket, self.key, parts, expires_at_ms, self.room)?;
            }
            None => {
                let usage = self.context.memory.eviction.new_usage(self.now_ms);
                let string = StrParts { key: self.key, parts, expires_at_ms, usage };
                self.bucket = Some(self.segment.insert_str(self.context, self.hash, &string, self.room)?);
                self.announce_new();
            }
        }
        Ok(())
    }

    /// Removes the key. Returns whether it was there.
    pub fn remove(&mut self) -> bool {
        let was_there = self.get().is_some();
        if let Some(bucket) = self.bucket.take() {
            self.segment.remove(self.context, bucket);
            self.segment.shrink_if_sparse(self.context);
            self.changed();
        }
        was_there
    }

    /// Tells those who watch the key or wait for it. Strings, removals and deadlines do so by themselves; who changes a
    /// collection through [`edit`](Self::edit) calls this once it has really changed.
    #[inline]
    pub(crate) fn changed(&mut self) {
        if self.segment.notices.has_any() {
            self.tell();
        }
    }

    #[cold]
    fn tell(&mut self) {
        let serves = self.get().is_some_and(|value| matches!(value.kind(), Kind::List | Kind::SortedSet));
        self.segment.changed(self.context, self.key, serves);
    }

    /// Changes only the time to live. Returns whether the key was there. Works when memory is full as well.
    pub fn set_expiry(&mut self, expiry: Expiry) -> bool {
        self.drop_empty_collection();
        let Some(bucket) = self.bucket else {
            return false;
        };
        let expires_at_ms = expiry.resolve(|| self.expires_at_ms());
        if is_expired(expires_at_ms, self.now_ms) {
            return self.remove();
        }
        self.segment.set_deadline(self.context, bucket, expires_at_ms);
        self.record(&Op::SetDeadline(expires_at_ms));
        self.changed();
        true
    }

    /// The hash under this key, created when absent.
    ///
    /// # Errors
    /// [`EngineError::WrongType`], [`EngineError::KeyTooLong`].
    pub fn hash_mut(&mut self) -> Result<HashMut<'_>, EngineError> {
        self.changed();
        let bucket = self.collection_bucket(|| CollectionValue::Hash(Fields::default()))?;
        let (value, account, recording) = self.collection_parts(bucket);
        match value {
            Some(CollectionValue::Hash(hash)) => Ok(HashMut::new(hash, account, recording)),
            _ => Err(EngineError::WrongType),
        }
    }

    /// The sorted set under this key, created when absent.
    ///
    /// # Errors
    /// [`EngineError::WrongType`], [`EngineError::KeyTooLong`].
    pub fn sorted_set_mut(&mut self) -> Result<SortedSetMut<'_>, EngineError> {
        // What the caller adds comes after this.
        self.segment.changed(self.context, self.key, true);
        let bucket = self.collection_bucket(|| CollectionValue::SortedSet(Zset::default()))?;
        let (value, account, recording) = self.collection_parts(bucket);
        match value {
            Some(CollectionValue::SortedSet(sorted_set)) => Ok(SortedSetMut::new(sorted_set, account, recording)),
            _ => Err(EngineError::WrongType),
        }
    }

    fn expires_at_ms(&self) -> Option<u64> {
        self.get()?.expires_at_ms()
    }

    /// Puts an entry for this key, which must be absent, where it belongs. Never refused, and not recorded.
    pub(crate) fn insert_entry(&mut self, entry: Entry) {
        debug_assert!(self.bucket.is_none(), "the key is absent");
        self.bucket = Some(self.segment.insert_always(self.context, self.hash, entry));
        self.changed();
    }

    /// The bucket of this key, with an empty collection in it if the key was absent.
    pub(crate) fn collection_bucket(&mut self, create: impl FnOnce() -> CollectionValue) -> Result<usize, EngineError> {
        self.drop_empty_collection();
        if let Some(bucket) = self.bucket {
            return Ok(bucket);
        }
        check_key(self.key)?;
        let value = create();
        self.record(&Op::Create(value.kind()));
        let usage = self.context.memory.eviction.new_usage(self.now_ms);
        let collection = Collection { key: self.key.into(), usage, expires_at_ms: None, value };
        let bucket = self.segment.insert_always(self.context, self.hash, Entry::Collection(Box::new(collection)));
        self.bucket = Some(bucket);
        self.announce_new();
        Ok(bucket)
    }

    /// The event of a key that was absent before.
    pub(crate) fn announce_new(&self) {
        self.context.signals.event(self.context.database, EventClass::NEW, "new", self.key);
    }

    /// The collection to change, the account its changes go to, and where they are recorded.
    pub(crate) fn collection_parts(
        &mut self,
        bucket: usize,
    ) -> (Option<&mut CollectionValue>, Account<'_>, Recording<'_>) {
        self.segment.save_before_change(self.context, bucket);
        let (entry, account, recorder) = self.segment.entry_and_account(self.context, bucket, self.room);
        let recording = Recording { recorder, database: self.context.database, key: self.key };
        match entry {
            Some(EntryMut::Collection(collection)) => (Some(&mut collection.value), account, recording),
            _ => (None, account, recording),
        }
    }

    /// Records the whole value.
    pub(crate) fn record_whole(&mut self) {
        let segment = &mut *self.segment;
        let Some(entry) = self.bucket.and_then(|bucket| segment.store.get(bucket)) else { return };
        segment.recorder.record_whole(self.context.database, self.key, entry.expires_at_ms(), |out| {
            let value = ValueRef::from(entry);
            out.push(type_of(value));
            write_value(value, Compression::Off, out);
        });
    }

    #[inline]
    fn record(&mut self, op: &Op<'_>) {
        self.segment.recorder.record(self.context.database, self.key, op);
    }

    #[inline]
    pub(crate) fn drop_empty_collection(&mut self) {
        // Strings in cells, which most keys have, are told by their places: nothing of them is read.
        if let Some(bucket) = self.bucket
            && self.segment.store.is_boxed(bucket)
        {
            self.drop_if_empty_in(bucket);
        }
    }

    fn drop_if_empty_in(&mut self, bucket: usize) {
        if self.segment.get(bucket).is_some_and(EntryRef::is_empty_collection) {
            self.remove();
        }
    }
}

impl Drop for Slot<'_> {
    #[inline]
    fn drop(&mut self) {
        self.drop_empty_collection();
    }
}

#[cfg(test)]
mod tests {
    use crate::{Engine, EngineConfig, EngineError, Expiry, Kind};

    fn engine() -> Engine {
        Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() })
    }

    #[test]
    fn expiry_is_kept_cleared_or_set_as_asked() {
        let deadline = |engine: &Engine| engine.read(b"k", 0, |value| value.and_then(|value| value.expires_at_ms()));
        let engine = engine();
        // Same and different lengths take different paths through the entry.
        for value in [&b"four"[..], b"five", b"longer than that", b""] {
            let set = |expiry| engine.update(b"k", 0, |slot| slot.set_str(&[value], expiry));
            assert_eq!(set(Expiry::At(50)), Ok(()));
            assert_eq!(deadline(&engine), Some(50));
            assert_eq!(set(Expiry::Keep), Ok(()));
            assert_eq!(deadline(&engine), Some(50));
            assert_eq!(set(Expiry::Clear), Ok(()));
            assert_eq!(deadline(&engine), None);
            assert_eq!(set(Expiry::Keep), Ok(()));
            assert_eq!(deadline(&engine), None);
            assert_eq!(set(Expiry::At(60)), Ok(()));
            assert_eq!(deadline(&engine), Some(60));
        }
    }

    #[test]
    fn expired_value_leaves_neither_bytes_nor_deadline_to_its_successor() {
        let engine = engine();
        engine.update(b"k", 0, |slot| slot.set_str(&[b"old"], Expiry::At(10))).expect("fits");
        engine.update(b"k", 11, |slot| {
            assert!(slot.get().is_none());
            slot.set_str(&[b"new"], Expiry::Keep).expect("fits");
        });
        engine.read(b"k", u64::MAX, |value| {
            let value = value.expect("it has no deadline");
            assert_eq!((value.as_str(), value.expires_at_ms()), (Some(&b"new"[..]), None));
        });
    }

    #[test]
    fn deadline_in_the_past_removes_the_key_at_once() {
        let engine = engine();
        for set_both in [true, false] {
            engine.update(b"k", 100, |slot| {
                slot.set_str(&[b"v"], Expiry::Clear).expect("fits");
                if set_both {
                    slot.set_str(&[b"v"], Expiry::At(99)).expect("removes");
                } else {
                    assert!(slot.set_expiry(Expiry::At(99)));
                }
                assert!(slot.get().is_none());
                assert!(!slot.set_expiry(Expiry::Clear));
            });
            assert_eq!(engine.len(), 0);
        }
    }

    #[test]
    fn wrong_type_is_refused_and_a_string_replaces_any_kind() {
        let engine = engine();
        engine.update(b"k", 0, |slot| {
            slot.hash_mut().expect("absent").insert(b"f", b"v").expect("fits");
            assert_eq!(slot.sorted_set_mut().err(), Some(EngineError::WrongType));
            assert!(!slot.overwrite(0, b""));
            assert_eq!(slot.get().map(|value| value.kind()), Some(Kind::Hash));
            slot.set_str(&[b"s"], Expiry::Keep).expect("fits");
            assert_eq!(slot.hash_mut().err(), Some(EngineError::WrongType));
            assert_eq!(slot.get().and_then(|value| value.as_str()), Some(&b"s"[..]));
        });
        assert_eq!(engine.len(), 1);
    }

    #[test]
    fn empty_collection_is_absent_and_goes_when_the_update_ends() {
        let engine = engine();
        engine.update(b"k", 0, |slot| {
            slot.hash_mut().expect("absent").insert(b"f", b"v").expect("fits");
            assert!(slot.set_expiry(Expiry::At(10)));
            slot.hash_mut().expect("a hash").remove(b"f");
            assert!(slot.get().is_none());
            assert!(!slot.set_expiry(Expiry::Clear));
            // Absent, so another kind may take its place, without the old deadline.
            slot.sorted_set_mut().expect("absent").insert(b"m", 1.0).expect("fits");
            assert_eq!(slot.get().and_then(|value| value.expires_at_ms()), None);
            slot.sorted_set_mut().expect("a sorted set").remove(b"m");
        });
        assert!(engine.is_empty());
        assert_eq!(engine.stats().bytes, engine.stats().table_bytes);
    }

    #[test]
    fn string_is_changed_in_place() {
        let engine = engine();
        engine.update(b"k", 0, |slot| slot.set_str(&[b"head", b"er"], Expiry::At(9))).expect("fits");
        engine.update(b"k", 0, |slot| {
            assert!(slot.overwrite(0, b"HEAD"));
            assert!(!slot.overwrite(3, b"long") && !slot.overwrite(usize::MAX, b"e"));
        });
        engine.read(b"k", 0, |value| {
            let value = value.expect("it is there");
            assert_eq!((value.as_str(), value.expires_at_ms()), (Some(&b"HEADer"[..]), Some(9)));
        });
    }

    #[test]
    fn full_memory_refuses_growth_before_anything_changes() {
        let config = EngineConfig { segments: 1, memory_bytes_max: Some(850), ..EngineConfig::default() };
        let engine = Engine::new(config);
        let set = |key: &[u8], len| engine.update(key, 0, |slot| slot.set_str(&[&vec![7; len]], Expiry::At(9)));
        assert_eq!(set(b"a", 100), Ok(()));
        assert_eq!(set(b"b", 100), Ok(()));
        assert_eq!(set(b"c", 200), Err(EngineError::OutOfMemory));
        assert_eq!(set(b"a", 300), Err(EngineError::OutOfMemory));
        let hash_insert = engine.update(b"h", 0, |slot| slot.hash_mut()?.insert(b"f", &[0; 300]));
        assert_eq!(hash_insert, Err(EngineError::OutOfMemory));
        assert_eq!(engine.len(), 2);
        engine.read(b"a", 0, |value| {
            let value = value.expect("the refused write left it");
            assert_eq!((value.as_str(), value.expires_at_ms()), (Some(&[7; 100][..]), Some(9)));
        });
        // What expired makes room.
        assert_eq!(engine.expire_cycle(10, 100).expired, 2);
        assert_eq!(set(b"c", 200), Ok(()));
    }
}
