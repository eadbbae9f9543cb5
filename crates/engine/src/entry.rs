//! One key with its value, as it lies in memory.
//!
//! Strings are runs of bytes (`entry/string.rs`), which lie in cells that their segment keeps for them, or in an allocation of their own.
//! Hashes and sorted sets are boxed: they are larger, and their own tables dwarf the pointer.

mod string;

use crate::value::{CollectionValue, Fields, Zset};
pub(crate) use string::{
    CELL_BYTES_MAX, KEY_BYTES_MAX, StrEntry, StrMut, StrParts, StrRef, cell_bytes, str_cost_bytes,
};

/// What a key costs beyond its own bytes: eight for its place in a table of which three quarters are used on average. Segments count
/// their tables as they are; this is for who asks about one key.
#[cfg(feature = "commands")]
pub(crate) const SLOT_COST_BYTES: u64 = 11;

/// Allocators round to this many bytes, or close to it, for small sizes.
const ALLOCATION_STEP_BYTES: u64 = 8;

/// Whether an entry with this deadline is gone.
///
/// It is still there at exactly its deadline: Redis compares `now > when`, and the state contract promises that nothing
/// vanishes early.
pub(crate) fn is_expired(expires_at_ms: Option<u64>, now_ms: u64) -> bool {
    expires_at_ms.is_some_and(|at_ms| now_ms > at_ms)
}

/// An entry on its own: what has an allocation, or is on its way in or out.
pub(crate) enum Entry {
    Str(StrEntry),
    Collection(Box<Collection>),
}

/// What is left of an entry that was removed: what it had allocated, if anything. Freeing it may take its time.
pub(crate) struct Removed(Option<Entry>);

impl Removed {
    pub(crate) fn new(boxed: Option<Entry>) -> Self {
        Self(boxed)
    }

    pub(crate) fn into_boxed(self) -> Option<Entry> {
        self.0
    }

    /// The estimated memory that it holds.
    pub(crate) fn cost_bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, Entry::cost_bytes)
    }
}

/// An entry where it lies.
#[derive(Clone, Copy)]
pub(crate) enum EntryRef<'a> {
    Str(StrRef<'a>),
    Collection(&'a Collection),
}

/// The same for who changes it.
pub(crate) enum EntryMut<'a> {
    Str(StrMut<'a>),
    Collection(&'a mut Collection),
}

impl Entry {
    #[inline]
    pub(crate) fn view(&self) -> EntryRef<'_> {
        match self {
            Self::Str(string) => EntryRef::Str(string.view()),
            Self::Collection(collection) => EntryRef::Collection(collection),
        }
    }

    #[inline]
    pub(crate) fn view_mut(&mut self) -> EntryMut<'_> {
        match self {
            Self::Str(string) => EntryMut::Str(string.view_mut()),
            Self::Collection(collection) => EntryMut::Collection(collection),
        }
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.view().expires_at_ms()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.view().usage()
    }

    pub(crate) fn set_usage(&mut self, usage: Usage) {
        self.view_mut().set_usage(usage);
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        self.view().cost_bytes()
    }
}

impl<'a> EntryRef<'a> {
    #[inline]
    pub(crate) fn key(self) -> &'a [u8] {
        match self {
            Self::Str(string) => string.key(),
            Self::Collection(collection) => &collection.key,
        }
    }

    #[inline]
    pub(crate) fn has_key(self, key: &[u8]) -> bool {
        match self {
            Self::Str(string) => string.has_key(key),
            Self::Collection(collection) => *collection.key == *key,
        }
    }

    /// Reads a byte of each place that a lookup of the key and a read of a short value would read, so that a cache has them.
    #[cfg(feature = "commands")]
    pub(crate) fn touch(self) -> u8 {
        match self {
            Self::Str(string) => string.touch(),
            Self::Collection(collection) => collection.key.first().copied().unwrap_or(0),
        }
    }

    #[inline]
    pub(crate) fn expires_at_ms(self) -> Option<u64> {
        match self {
            Self::Str(string) => string.expires_at_ms(),
            Self::Collection(collection) => collection.expires_at_ms,
        }
    }

    pub(crate) fn usage(self) -> Usage {
        match self {
            Self::Str(string) => string.usage(),
            Self::Collection(collection) => collection.usage,
        }
    }

    /// An empty collection is as good as an absent key; an empty string is a value.
    #[inline]
    pub(crate) fn is_empty_collection(self) -> bool {
        match self {
            Self::Str(_) => false,
            Self::Collection(collection) => collection.value.is_empty(),
        }
    }

    /// The estimated memory of this entry, for the account: without its place in a table.
    pub(crate) fn cost_bytes(self) -> u64 {
        match self {
            Self::Str(string) => str_cost_bytes(string.len()),
            Self::Collection(collection) => {
                allocation_cost_bytes(size_of::<Collection>())
                    + allocation_cost_bytes(collection.key.len())
                    + collection.value.cost_bytes()
            }
        }
    }

    /// A copy of a string; `None` for a collection.
    pub(crate) fn copied_str(self) -> Option<Entry> {
        match self {
            Self::Str(string) => Some(Entry::Str(string.with_deadline(string.expires_at_ms()))),
            Self::Collection(_) => None,
        }
    }
}

impl EntryMut<'_> {
    pub(crate) fn usage(&self) -> Usage {
        self.view().usage()
    }

    pub(crate) fn set_usage(&mut self, usage: Usage) {
        match self {
            Self::Str(string) => string.set_usage(usage),
            Self::Collection(collection) => collection.usage = usage,
        }
    }

    pub(crate) fn view(&self) -> EntryRef<'_> {
        match self {
            Self::Str(string) => EntryRef::Str(string.view()),
            Self::Collection(collection) => EntryRef::Collection(collection),
        }
    }
}

/// When a key was last used, or how often (`evict/frequency.rs`), in three bytes, and in the two bits above how Redis would encode it, if it
/// is a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage(u32);

/// How Redis would encode a string; it changes what `OBJECT ENCODING` says and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrEncoding {
    /// An integer where the bytes are one; otherwise by length.
    Auto,
    /// By length, even where the bytes are an integer.
    Bytes,
    /// Always `raw`, as after a change in place.
    Raw,
}

impl Usage {
    pub(crate) const CLOCK_MASK: u32 = (1 << 24) - 1;

    /// The longest time that is told apart from none. Threads read their clocks a little apart, and clocks are set: a use that lies ahead by less
    /// than an hour was just now, and not half a year ago.
    pub(crate) const IDLE_MAX_S: u32 = Self::CLOCK_MASK - 3_600;

    /// Seconds, modulo 2^24 (194 days).
    pub(crate) fn clock_s(self) -> u32 {
        self.0 & Self::CLOCK_MASK
    }

    pub(crate) fn at(self, now_ms: u64) -> Self {
        Self((self.0 & !Self::CLOCK_MASK) | Self::clock(now_ms))
    }

    pub(crate) fn clock(now_ms: u64) -> u32 {
        // Truncated on purpose: only differences count.
        (now_ms / 1_000) as u32 & Self::CLOCK_MASK
    }

    /// Seconds since then.
    pub(crate) fn idle_s(self, now_ms: u64) -> u32 {
        // The clock wraps around, and so does the difference.
        let idle_s = Self::clock(now_ms).wrapping_sub(self.clock_s()) & Self::CLOCK_MASK;
        if idle_s > Self::IDLE_MAX_S { 0 } else { idle_s }
    }

    /// Counted instead of timed: the minute of the latest decay, of which 16 bits are kept, and a count of uses.
    pub(crate) fn counted(self, minute: u32, count: u8) -> Self {
        Self((self.0 & !Self::CLOCK_MASK) | ((minute << 8) & Self::CLOCK_MASK) | u32::from(count))
    }

    /// Its count of uses, if it is counted.
    pub(crate) fn count(self) -> u8 {
        // Truncated on purpose: the count is the lowest byte.
        self.0 as u8
    }

    /// The minute of the latest decay, if it is counted.
    pub(crate) fn counted_at_min(self) -> u32 {
        (self.0 & Self::CLOCK_MASK) >> 8
    }

    /// The use of another one, with the encoding of this one.
    pub(crate) fn with_use_of(self, other: Self) -> Self {
        Self((self.0 & !Self::CLOCK_MASK) | (other.0 & Self::CLOCK_MASK))
    }

    pub(crate) fn encoding(self) -> StrEncoding {
        match self.0 >> 24 & 3 {
            1 => StrEncoding::Bytes,
            2 => StrEncoding::Raw,
            _ => StrEncoding::Auto,
        }
    }

    pub(crate) fn encoded(self, encoding: StrEncoding) -> Self {
        Self((self.0 & Self::CLOCK_MASK) | (encoding as u32) << 24)
    }
}

/// A collection with its key and deadline.
pub(crate) struct Collection {
    pub(crate) key: Box<[u8]>,
    pub(crate) usage: Usage,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) value: CollectionValue,
}

/// The estimated memory of one allocation.
pub(crate) fn allocation_cost_bytes(len: usize) -> u64 {
    (len as u64).next_multiple_of(ALLOCATION_STEP_BYTES)
}

/// The kinds of value that a key can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    String,
    /// Fields with values.
    Hash,
    /// Members ordered by score.
    SortedSet,
    /// Elements in the order of their pushes.
    List,
    /// Members in no order.
    Set,
}

/// A view of a live value, valid while its segment is locked.
#[derive(Clone, Copy)]
pub struct Ref<'a> {
    entry: EntryRef<'a>,
    /// Known from the search, see [`StrRef::value_after`].
    key_len: usize,
}

impl<'a> Ref<'a> {
    /// A view of `entry`, whose key has `key_len` bytes.
    pub(crate) fn new(entry: EntryRef<'a>, key_len: usize) -> Self {
        Self { entry, key_len }
    }

    /// What the key holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.entry {
            EntryRef::Str(_) => Kind::String,
            EntryRef::Collection(collection) => collection.value.kind(),
        }
    }

    /// The bytes of a string; `None` for another kind.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> Option<&'a [u8]> {
        match self.entry {
            EntryRef::Str(string) => Some(string.value_after(self.key_len)),
            EntryRef::Collection(_) => None,
        }
    }

    /// The hash; `None` for another kind.
    #[must_use]
    pub fn hash(&self) -> Option<&'a Fields> {
        match self.entry {
            EntryRef::Collection(collection) => match &collection.value {
                CollectionValue::Hash(hash) => Some(hash),
                _ => None,
            },
            EntryRef::Str(_) => None,
        }
    }

    /// The sorted set; `None` for another kind.
    #[must_use]
    pub fn sorted_set(&self) -> Option<&'a Zset> {
        match self.entry {
            EntryRef::Collection(collection) => match &collection.value {
                CollectionValue::SortedSet(sorted_set) => Some(sorted_set),
                _ => None,
            },
            EntryRef::Str(_) => None,
        }
    }

    /// The last millisecond at which the key is there; `None` without a ttl.
    #[inline]
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.entry.expires_at_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::is_expired;

    #[test]
    fn entry_is_there_at_its_deadline_and_gone_a_millisecond_later() {
        assert!(!is_expired(Some(1_000), 999));
        assert!(!is_expired(Some(1_000), 1_000));
        assert!(is_expired(Some(1_000), 1_001));
        assert!(!is_expired(None, u64::MAX));
    }
}
