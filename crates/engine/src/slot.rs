//! One key inside an atomic update: read it, write it, remove it, as often as needed, unseen by others until the update ends.
//!
//! # Guarantees
//! Reads within the update see its own writes. A write that returns an error has changed nothing. An empty collection counts as absent
//! and is gone when the update ends. A deadline that has already passed removes the key at once.
//!
//! # Failure
//! If the closure panics, what it wrote before stays, as it does when it returns.

use crate::entry::{Collection, Entry, Kind, Ref, StrEntry, Usage, is_expired};
use crate::error::EngineError;
use crate::memory::Account;
use crate::observe::EventClass;
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
    fn resolve(self, current: Option<u64>) -> Option<u64> {
        match self {
            Self::Keep => current,
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
}

impl<'a> Slot<'a> {
    #[inline]
    pub(crate) fn open(context: &'a Context, segment: &'a mut Segment, key: &'a [u8], hash: u64, now_ms: u64) -> Self {
        let bucket = segment.find_live(context, key, hash, now_ms);
        Self { context, segment, key, hash, now_ms, bucket }
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

    /// The bytes of a string, to be changed where they are; `None` if the key is absent or holds another kind.
    pub fn str_mut(&mut self) -> Option<&mut [u8]> {
        self.changed();
        self.str_mut_silently()
    }

    /// The same for who may find that nothing changes: who does change something has to say so.
    pub(crate) fn str_mut_silently(&mut self) -> Option<&mut [u8]> {
        match self.segment.get_mut(self.bucket?)? {
            Entry::Str(string) => Some(string.value_mut()),
            Entry::Collection(_) => None,
        }
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
        check_key(self.key)?;
        let expires_at_ms = expiry.resolve(self.expires_at_ms());
        if is_expired(expires_at_ms, self.now_ms) {
            self.remove();
            return Ok(());
        }
        match self.bucket {
            Some(bucket) => self.segment.overwrite_str(self.context, bucket, parts, expires_at_ms)?,
            None => {
                let entry = Entry::Str(StrEntry::new(self.key, parts, expires_at_ms));
                self.bucket = Some(self.segment.insert(self.context, self.hash, entry)?);
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
        let expires_at_ms = expiry.resolve(self.expires_at_ms());
        if is_expired(expires_at_ms, self.now_ms) {
            return self.remove();
        }
        self.segment.set_deadline(self.context, bucket, expires_at_ms);
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
        let (value, account) = self.collection_parts(bucket);
        match value {
            Some(CollectionValue::Hash(hash)) => Ok(HashMut::new(hash, account)),
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
        let (value, account) = self.collection_parts(bucket);
        match value {
            Some(CollectionValue::SortedSet(sorted_set)) => Ok(SortedSetMut::new(sorted_set, account)),
            _ => Err(EngineError::WrongType),
        }
    }

    fn expires_at_ms(&self) -> Option<u64> {
        self.get()?.expires_at_ms()
    }

    /// Puts an entry for this key, which must be absent, where it belongs. Never refused.
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
        let usage = Usage::default().at(self.now_ms);
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

    /// The collection to change, and the account its changes go to.
    pub(crate) fn collection_parts(&mut self, bucket: usize) -> (Option<&mut CollectionValue>, Account<'_>) {
        let account = Account { memory: &self.context.memory, segment_bytes: &mut self.segment.bytes };
        match self.segment.table.get_bucket_mut(bucket) {
            Some(Entry::Collection(collection)) => (Some(&mut collection.value), account),
            _ => (None, account),
        }
    }

    #[inline]
    pub(crate) fn drop_empty_collection(&mut self) {
        let entry = self.bucket.and_then(|bucket| self.segment.get(bucket));
        if entry.is_some_and(Entry::is_empty_collection) {
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
            assert!(slot.str_mut().is_none());
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
        assert_eq!(engine.stats().bytes, 0);
    }

    #[test]
    fn string_is_changed_in_place() {
        let engine = engine();
        engine.update(b"k", 0, |slot| slot.set_str(&[b"head", b"er"], Expiry::At(9))).expect("fits");
        engine.update(b"k", 0, |slot| slot.str_mut().expect("a string")[..4].copy_from_slice(b"HEAD"));
        engine.read(b"k", 0, |value| {
            let value = value.expect("it is there");
            assert_eq!((value.as_str(), value.expires_at_ms()), (Some(&b"HEADer"[..]), Some(9)));
        });
    }

    #[test]
    fn full_memory_refuses_growth_before_anything_changes() {
        let config = EngineConfig { segments: 1, memory_bytes_max: Some(400), ..EngineConfig::default() };
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
