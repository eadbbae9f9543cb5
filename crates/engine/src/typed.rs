//! One key by the type that a command expects, and whole values on their way from key to key.
//!
//! # Guarantees
//! A value that is moved or copied keeps its encoding; its deadline is the mover's choice.

use crate::change::Edit;
use crate::entry::{Collection, Entry, EntryRef, Removed, SLOT_COST_BYTES, StrEncoding, StrEntry, Usage};
use crate::error::EngineError;
use crate::observe::EventClass;
use crate::rdb;
use crate::slot::{Expiry, Slot};
use crate::value::{CollectionValue, Fields, List, Set, Zset};

/// A type of collection.
pub(crate) trait Typed: Sized {
    fn empty() -> Self;
    fn of(value: &CollectionValue) -> Option<&Self>;
    fn of_mut(value: &mut CollectionValue) -> Option<&mut Self>;
    fn into_value(self) -> CollectionValue;
    fn cost(&self) -> u64;
}

/// A whole value without its key.
#[derive(Clone)]
pub(crate) struct Whole {
    pub(crate) value: WholeValue,
    pub(crate) expires_at_ms: Option<u64>,
    /// `None`: it is new.
    usage: Option<Usage>,
}

/// What a whole value is.
#[derive(Clone)]
pub(crate) enum WholeValue {
    Str(Vec<u8>),
    Collection(CollectionValue),
}

impl<'a> Slot<'a> {
    #[inline]
    pub(crate) fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// The string; `None` when the key is absent.
    #[inline]
    pub(crate) fn str(&self) -> Result<Option<&[u8]>, EngineError> {
        match self.get() {
            Some(value) => value.as_str().map(Some).ok_or(EngineError::WrongType),
            None => Ok(None),
        }
    }

    /// The collection, for reading; `None` when the key is absent.
    pub(crate) fn value<T: Typed>(&self) -> Result<Option<&T>, EngineError> {
        match self.bucket.and_then(|bucket| self.segment.get(bucket)) {
            Some(EntryRef::Collection(collection)) if !collection.value.is_empty() => {
                T::of(&collection.value).map(Some).ok_or(EngineError::WrongType)
            }
            Some(EntryRef::Str(_)) => Err(EngineError::WrongType),
            _ => Ok(None),
        }
    }

    /// The collection, for changing; `None` when the key is absent. After a real change call [`changed`](Self::changed) or
    /// [`notify`](Self::notify), and [`drop_if_empty`](Self::drop_if_empty) if something was removed.
    pub(crate) fn edit<T: Typed>(&mut self) -> Result<Option<Edit<'_, T>>, EngineError> {
        self.drop_empty_collection();
        match self.bucket {
            Some(bucket) => self.edit_bucket(bucket).map(Some),
            None => Ok(None),
        }
    }

    /// The same, created when the key is absent.
    pub(crate) fn edit_or_create<T: Typed>(&mut self) -> Result<Edit<'_, T>, EngineError> {
        let bucket = self.collection_bucket(|| T::empty().into_value())?;
        self.edit_bucket(bucket)
    }

    fn edit_bucket<T: Typed>(&mut self, bucket: usize) -> Result<Edit<'_, T>, EngineError> {
        let (value, account, recording) = self.collection_parts(bucket);
        let value = value.and_then(T::of_mut).ok_or(EngineError::WrongType)?;
        Ok(Edit::new(value, account, recording))
    }

    /// An event of this key. See <https://redis.io/docs/latest/develop/use/keyspace-notifications/> for the names.
    #[inline]
    pub(crate) fn event(&mut self, class: EventClass, name: &str) {
        self.context.signals.event(self.context.database, class, name, self.key);
    }

    /// The key has changed: tells watchers, those who wait, and listeners.
    #[inline]
    pub(crate) fn notify(&mut self, class: EventClass, name: &str) {
        self.changed();
        self.event(class, name);
    }

    /// Removes a collection that has become empty, which is the event `del`. Returns whether it did.
    pub(crate) fn drop_if_empty(&mut self) -> bool {
        let is_empty = self.bucket.is_some() && !self.exists();
        if is_empty {
            self.drop_empty_collection();
            self.event(EventClass::GENERIC, "del");
        }
        is_empty
    }

    /// Removes the key; returns what it held, for the caller to free.
    pub(crate) fn take_entry(&mut self) -> Option<Removed> {
        self.drop_empty_collection();
        let bucket = self.bucket.take()?;
        let removed = self.segment.remove(self.context, bucket);
        self.segment.shrink_if_sparse(self.context);
        self.changed();
        Some(removed)
    }

    /// Takes the value out, with its deadline, for who puts it elsewhere: there is no record of it.
    pub(crate) fn take_silently(&mut self) -> Option<Entry> {
        self.drop_empty_collection();
        let bucket = self.bucket.take()?;
        let entry = self.segment.take_out(self.context, bucket);
        self.segment.shrink_if_sparse(self.context);
        self.changed();
        Some(entry)
    }

    /// Puts a whole value in the place of whatever the key held; returns what that was, for the caller to free.
    pub(crate) fn put_whole(&mut self, whole: Whole) -> Option<Removed> {
        let before = self.replace(whole);
        self.record_whole();
        before
    }

    /// The same without a record.
    pub(crate) fn replace(&mut self, whole: Whole) -> Option<Removed> {
        self.drop_empty_collection();
        let before = self.bucket.take().map(|bucket| self.segment.remove_silently(self.context, bucket));
        let new_usage = self.context.memory.eviction.new_usage(self.now_ms);
        self.insert_entry(whole.into_entry(self.key, new_usage));
        if before.is_none() {
            self.announce_new();
        }
        before
    }

    /// A copy of the value.
    pub(crate) fn copy_whole(&self) -> Option<Whole> {
        let entry = self.segment.get(self.bucket?)?;
        let value = match entry {
            EntryRef::Str(string) => WholeValue::Str(string.value().to_vec()),
            EntryRef::Collection(collection) if collection.value.is_empty() => return None,
            EntryRef::Collection(collection) => WholeValue::Collection(collection.value.clone()),
        };
        let new_usage = self.context.memory.eviction.new_usage(self.now_ms);
        let usage = Some(entry.usage().with_use_of(new_usage));
        Some(Whole { value, expires_at_ms: entry.expires_at_ms(), usage })
    }

    /// The value as what can be written to a file.
    pub(crate) fn to_write(&self) -> Option<rdb::ValueRef<'_>> {
        let entry = self.segment.get(self.bucket?)?;
        (!entry.is_empty_collection()).then(|| rdb::ValueRef::from(entry))
    }

    /// The last millisecond at which the key is there.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.get()?.expires_at_ms()
    }

    /// Says how a string that was just written is encoded; by itself that is found from its bytes.
    pub(crate) fn set_encoding(&mut self, encoding: StrEncoding) {
        if let Some(mut entry) = self.bucket.and_then(|bucket| self.segment.get_mut(bucket)) {
            let usage = entry.usage();
            entry.set_usage(usage.encoded(encoding));
        }
    }

    /// Writes a string as a client sets it, with the encoding found from its bytes.
    pub(crate) fn set_text(&mut self, parts: &[&[u8]], expiry: Expiry) -> Result<(), EngineError> {
        self.set_str(parts, expiry)?;
        let counts_uses = self.context.memory.eviction.policy().is_lfu();
        if let Some(mut entry) = self.bucket.and_then(|bucket| self.segment.get_mut(bucket)) {
            let before = entry.usage();
            let encoded = before.encoded(StrEncoding::Auto);
            // Who asked for the key has counted its use.
            let usage = if counts_uses { encoded } else { encoded.at(self.now_ms) };
            if usage != before {
                entry.set_usage(usage);
            }
        }
        Ok(())
    }

    /// Estimated memory of the key and its value.
    pub(crate) fn cost_bytes(&self) -> Option<u64> {
        self.get()?;
        Some(SLOT_COST_BYTES + self.segment.get(self.bucket?)?.cost_bytes())
    }

    /// Seconds since the key was last used.
    pub(crate) fn idle_s(&self) -> Option<u32> {
        Some(self.segment.get(self.bucket?)?.usage().idle_s(self.now_ms))
    }

    /// How often the key was used of late, on the scale of `OBJECT FREQ`.
    pub(crate) fn frequency(&self) -> Option<u8> {
        let usage = self.segment.get(self.bucket?)?.usage();
        Some(self.context.memory.eviction.count(usage, self.now_ms))
    }

    /// What `OBJECT ENCODING` says of the value.
    pub(crate) fn encoding(&self) -> Option<&'static str> {
        match self.segment.get(self.bucket?)? {
            EntryRef::Collection(collection) => Some(collection.value.encoding()),
            EntryRef::Str(string) => Some(str_encoding(string.value(), string.usage().encoding())),
        }
    }
}

/// The longest string that Redis keeps in one allocation with its object.
const EMBSTR_BYTES_MAX: usize = 44;

fn str_encoding(value: &[u8], encoding: StrEncoding) -> &'static str {
    match encoding {
        StrEncoding::Raw => "raw",
        StrEncoding::Auto if is_integer(value) => "int",
        _ if value.len() <= EMBSTR_BYTES_MAX => "embstr",
        _ => "raw",
    }
}

fn is_integer(value: &[u8]) -> bool {
    // The longest are 20 bytes: the sign and 19 digits.
    let mut buffer = itoa::Buffer::new();
    value.len() <= 20
        && std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .is_some_and(|number| buffer.format(number).as_bytes() == value)
}

impl Whole {
    /// A value that a command has made, without a deadline.
    pub(crate) fn new<T: Typed>(value: T) -> Self {
        Self { value: WholeValue::Collection(value.into_value()), expires_at_ms: None, usage: None }
    }

    /// A string that a command has made, encoded by what it is. It has no deadline.
    pub(crate) fn string(bytes: Vec<u8>) -> Self {
        Self { value: WholeValue::Str(bytes), expires_at_ms: None, usage: None }
    }

    /// A value that comes from outside, with its deadline and what is known of its use.
    pub(crate) fn restored(value: rdb::Value, expires_at_ms: Option<u64>, usage: Usage) -> Self {
        let value = match value {
            rdb::Value::Str(bytes) => WholeValue::Str(bytes),
            rdb::Value::Collection(value) => WholeValue::Collection(value),
        };
        Self { value, expires_at_ms, usage: Some(usage) }
    }

    /// A value that was taken out of a key.
    pub(crate) fn of(entry: Entry) -> Self {
        let (expires_at_ms, usage) = (entry.expires_at_ms(), Some(entry.usage()));
        let value = match entry {
            Entry::Str(string) => WholeValue::Str(string.value().to_vec()),
            Entry::Collection(collection) => WholeValue::Collection(collection.value),
        };
        Self { value, expires_at_ms, usage }
    }

    fn into_entry(self, key: &[u8], new_usage: Usage) -> Entry {
        let usage = self.usage.unwrap_or(new_usage);
        let mut entry = match self.value {
            WholeValue::Str(bytes) => Entry::Str(StrEntry::new(key, &[&bytes], self.expires_at_ms)),
            WholeValue::Collection(value) => {
                let (key, expires_at_ms) = (key.into(), self.expires_at_ms);
                Entry::Collection(Box::new(Collection { key, usage, expires_at_ms, value }))
            }
        };
        entry.set_usage(usage);
        entry
    }
}

impl Typed for Fields {
    fn empty() -> Self {
        Self::default()
    }

    fn of(value: &CollectionValue) -> Option<&Self> {
        if let CollectionValue::Hash(value) = value { Some(value) } else { None }
    }

    fn of_mut(value: &mut CollectionValue) -> Option<&mut Self> {
        if let CollectionValue::Hash(value) = value { Some(value) } else { None }
    }

    fn into_value(self) -> CollectionValue {
        CollectionValue::Hash(self)
    }

    fn cost(&self) -> u64 {
        self.cost_bytes()
    }
}

impl Typed for Zset {
    fn empty() -> Self {
        Self::default()
    }

    fn of(value: &CollectionValue) -> Option<&Self> {
        if let CollectionValue::SortedSet(value) = value { Some(value) } else { None }
    }

    fn of_mut(value: &mut CollectionValue) -> Option<&mut Self> {
        if let CollectionValue::SortedSet(value) = value { Some(value) } else { None }
    }

    fn into_value(self) -> CollectionValue {
        CollectionValue::SortedSet(self)
    }

    fn cost(&self) -> u64 {
        self.cost_bytes()
    }
}

impl Typed for List {
    fn empty() -> Self {
        Self::default()
    }

    fn of(value: &CollectionValue) -> Option<&Self> {
        if let CollectionValue::List(value) = value { Some(value) } else { None }
    }

    fn of_mut(value: &mut CollectionValue) -> Option<&mut Self> {
        if let CollectionValue::List(value) = value { Some(value) } else { None }
    }

    fn into_value(self) -> CollectionValue {
        CollectionValue::List(self)
    }

    fn cost(&self) -> u64 {
        self.cost_bytes()
    }
}

impl Typed for Set {
    fn empty() -> Self {
        Self::default()
    }

    fn of(value: &CollectionValue) -> Option<&Self> {
        if let CollectionValue::Set(value) = value { Some(value) } else { None }
    }

    fn of_mut(value: &mut CollectionValue) -> Option<&mut Self> {
        if let CollectionValue::Set(value) = value { Some(value) } else { None }
    }

    fn into_value(self) -> CollectionValue {
        CollectionValue::Set(self)
    }

    fn cost(&self) -> u64 {
        self.cost_bytes()
    }
}
