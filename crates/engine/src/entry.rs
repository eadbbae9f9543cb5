//! One key with its value, as it lies in memory.
//!
//! # Layout
//! A table slot is 16 bytes: a pointer with a length, or a pointer to a collection (told apart by the null that a
//! pointer cannot be, so the tag costs nothing). A string is one allocation that also holds its key:
//! ```text
//! without a deadline                       with a deadline
//! ┌─────────┬───────┬─────┬───────┐        ┌────────────────┬───────┬───────────────┬─────┬───────┐
//! │ key len │ usage │ key │ value │        │ key len | flag │ usage │ expires_at_ms │ key │ value │
//! └─────────┴───────┴─────┴───────┘        └────────────────┴───────┴───────────────┴─────┴───────┘
//!   4 bytes   4 bytes                        4 bytes          4 bytes 8 bytes          little endian
//! ```
//! Usage is when or how often the key was used, in three bytes, and in the fourth how Redis would encode the string: for eviction, and for
//! clients that ask (`OBJECT IDLETIME`, `OBJECT FREQ`, `OBJECT ENCODING`).
//!
//! The deadline is part of the header only where there is one, so keys without a ttl do not pay for it, and there is no second
//! table of deadlines. One cache miss beyond the slot reads key, deadline and value together.
//!
//! Hashes and sorted sets are boxed: they are larger, and their own tables dwarf the pointer.

use crate::value::{CollectionValue, Fields, Zset};

/// Longest key. Redis has the same limit, and the header keeps its highest bit for a flag.
pub(crate) const KEY_BYTES_MAX: usize = 512 << 20;

/// What a key costs beyond its own allocations: 17 bytes of slot and tag in a table that is two thirds full on average. Segments count
/// their tables as they are; this is for who asks about one key.
#[cfg(feature = "commands")]
pub(crate) const SLOT_COST_BYTES: u64 = 26;

/// Allocators round to this many bytes, or close to it, for small sizes.
const ALLOCATION_STEP_BYTES: u64 = 8;

const KEY_LEN_BYTES: usize = 4;
/// The key's length and its usage.
const HEADER_BYTES: usize = 8;
const DEADLINE_BYTES: usize = 8;
const DEADLINE_FLAG: u32 = 1 << 31;

/// How far into a string [`Entry::touch`] goes: two lines of a cache, beyond which processors fetch by themselves.
#[cfg(feature = "commands")]
const TOUCHED_BYTES: usize = 127;

const _: () = assert!(size_of::<Entry>() == 16, "a table slot is 16 bytes");
const _: () = assert!(KEY_BYTES_MAX < DEADLINE_FLAG as usize, "a key length never touches the flag");

/// Whether an entry with this deadline is gone.
///
/// It is still there at exactly its deadline: Redis compares `now > when`, and the state contract promises that nothing
/// vanishes early.
pub(crate) fn is_expired(expires_at_ms: Option<u64>, now_ms: u64) -> bool {
    expires_at_ms.is_some_and(|at_ms| now_ms > at_ms)
}

/// What a slot of the table holds.
pub(crate) enum Entry {
    Str(StrEntry),
    Collection(Box<Collection>),
}

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Str(string) => string.key(),
            Self::Collection(collection) => &collection.key,
        }
    }

    /// Reads a byte of each place that a lookup of the key and a read of a short value would read, so that a cache has them.
    #[cfg(feature = "commands")]
    pub(crate) fn touch(&self) -> u8 {
        match self {
            Self::Str(StrEntry(bytes)) => bytes[0] ^ bytes[(bytes.len() - 1).min(TOUCHED_BYTES)],
            Self::Collection(collection) => collection.key.first().copied().unwrap_or(0),
        }
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        match self {
            Self::Str(string) => string.expires_at_ms(),
            Self::Collection(collection) => collection.expires_at_ms,
        }
    }

    pub(crate) fn set_expires_at_ms(&mut self, expires_at_ms: Option<u64>) {
        match self {
            Self::Str(string) => string.set_expires_at_ms(expires_at_ms),
            Self::Collection(collection) => collection.expires_at_ms = expires_at_ms,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        match self {
            Self::Str(string) => string.usage(),
            Self::Collection(collection) => collection.usage,
        }
    }

    pub(crate) fn set_usage(&mut self, usage: Usage) {
        match self {
            Self::Str(string) => string.set_usage(usage),
            Self::Collection(collection) => collection.usage = usage,
        }
    }

    /// An empty collection is as good as an absent key; an empty string is a value.
    pub(crate) fn is_empty_collection(&self) -> bool {
        match self {
            Self::Str(_) => false,
            Self::Collection(collection) => collection.value.is_empty(),
        }
    }

    /// The estimated memory of this entry, for the account: without its slot in a table.
    pub(crate) fn cost_bytes(&self) -> u64 {
        match self {
            Self::Str(string) => allocation_cost_bytes(string.0.len()),
            Self::Collection(collection) => {
                allocation_cost_bytes(size_of::<Collection>())
                    + allocation_cost_bytes(collection.key.len())
                    + collection.value.cost_bytes()
            }
        }
    }
}

/// When a key was last used, or how often (`evict/frequency.rs`), in three bytes, and how Redis would encode it, if it is a string.
#[derive(Clone, Copy, Default)]
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
        match self.0 >> 24 {
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

/// A string with its key and deadline in one allocation; the layout is drawn above.
pub(crate) struct StrEntry(Box<[u8]>);

impl StrEntry {
    /// `key` must not be longer than [`KEY_BYTES_MAX`]; the value is the concatenation of `parts`.
    pub(crate) fn new(key: &[u8], parts: &[&[u8]], expires_at_ms: Option<u64>) -> Self {
        let len = encoded_len(key, parts, expires_at_ms);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&key_len_field(key, expires_at_ms).to_le_bytes());
        bytes.extend_from_slice(&Usage::default().0.to_le_bytes());
        if let Some(at_ms) = expires_at_ms {
            bytes.extend_from_slice(&at_ms.to_le_bytes());
        }
        bytes.extend_from_slice(key);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Self(bytes.into_boxed_slice())
    }

    /// Replaces deadline and value without allocating, where the new encoding is exactly as long as the old one.
    /// Returns whether it did.
    pub(crate) fn write_over(&mut self, parts: &[&[u8]], expires_at_ms: Option<u64>) -> bool {
        let had_deadline = self.expires_at_ms().is_some();
        let key_start = self.key_start();
        let value_len: usize = parts.iter().map(|part| part.len()).sum();
        // A deadline that comes or goes moves the key, which only a fresh allocation does simply.
        if had_deadline != expires_at_ms.is_some() || self.value().len() != value_len {
            return false;
        }
        if let Some(at_ms) = expires_at_ms {
            self.0[HEADER_BYTES..key_start].copy_from_slice(&at_ms.to_le_bytes());
        }
        let mut rest = self.value_mut();
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        true
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.0[self.key_start()..self.value_start()]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    /// The value of an entry whose key is known to have `key_len` bytes.
    ///
    /// Where the value lies is then known before the header is: the processor fetches both from memory at once. Over a million
    /// keys, copying a value out takes about a quarter less time than by `value`.
    pub(crate) fn value_after(&self, key_len: usize) -> &[u8] {
        debug_assert_eq!(self.key().len(), key_len, "the entry was found by its key");
        // Two cases and not one sum: a branch is predicted, a sum would wait for the flag.
        if self.key_len_field() & DEADLINE_FLAG == 0 {
            &self.0[HEADER_BYTES + key_len..]
        } else {
            &self.0[HEADER_BYTES + DEADLINE_BYTES + key_len..]
        }
    }

    pub(crate) fn value_mut(&mut self) -> &mut [u8] {
        let start = self.value_start();
        &mut self.0[start..]
    }

    fn expires_at_ms(&self) -> Option<u64> {
        if self.key_len_field() & DEADLINE_FLAG == 0 {
            return None;
        }
        let (_, rest) = self.0.split_first_chunk::<HEADER_BYTES>().expect("a string entry starts with its header");
        let deadline = rest.first_chunk::<DEADLINE_BYTES>().expect("a flagged header holds a deadline");
        Some(u64::from_le_bytes(*deadline))
    }

    fn set_expires_at_ms(&mut self, expires_at_ms: Option<u64>) {
        match (self.expires_at_ms(), expires_at_ms) {
            (None, None) => {}
            (Some(_), Some(at_ms)) => {
                self.0[HEADER_BYTES..HEADER_BYTES + DEADLINE_BYTES].copy_from_slice(&at_ms.to_le_bytes());
            }
            _ => {
                let usage = self.usage();
                *self = Self::new(self.key(), &[self.value()], expires_at_ms);
                self.set_usage(usage);
            }
        }
    }

    fn key_len_field(&self) -> u32 {
        u32::from_le_bytes(*self.0.first_chunk().expect("a string entry starts with its header"))
    }

    pub(crate) fn usage(&self) -> Usage {
        let usage = self.0.get(KEY_LEN_BYTES..HEADER_BYTES).and_then(<[u8]>::first_chunk);
        Usage(u32::from_le_bytes(*usage.expect("a string entry starts with its header")))
    }

    fn set_usage(&mut self, usage: Usage) {
        self.0[KEY_LEN_BYTES..HEADER_BYTES].copy_from_slice(&usage.0.to_le_bytes());
    }

    fn key_start(&self) -> usize {
        key_start(self.key_len_field() & DEADLINE_FLAG != 0)
    }

    fn value_start(&self) -> usize {
        self.key_start() + (self.key_len_field() & !DEADLINE_FLAG) as usize
    }
}

fn key_start(has_deadline: bool) -> usize {
    if has_deadline { HEADER_BYTES + DEADLINE_BYTES } else { HEADER_BYTES }
}

fn key_len_field(key: &[u8], expires_at_ms: Option<u64>) -> u32 {
    assert!(key.len() <= KEY_BYTES_MAX, "callers refuse keys above KEY_BYTES_MAX");
    // Fits: KEY_BYTES_MAX is below 2^31.
    let key_len = key.len() as u32;
    if expires_at_ms.is_some() { key_len | DEADLINE_FLAG } else { key_len }
}

fn encoded_len(key: &[u8], parts: &[&[u8]], expires_at_ms: Option<u64>) -> usize {
    key_start(expires_at_ms.is_some()) + key.len() + parts.iter().map(|part| part.len()).sum::<usize>()
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
    entry: &'a Entry,
    /// Known from the search, see [`StrEntry::value_after`].
    key_len: usize,
}

impl<'a> Ref<'a> {
    /// A view of `entry`, whose key has `key_len` bytes.
    pub(crate) fn new(entry: &'a Entry, key_len: usize) -> Self {
        Self { entry, key_len }
    }

    /// What the key holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.entry {
            Entry::Str(_) => Kind::String,
            Entry::Collection(collection) => collection.value.kind(),
        }
    }

    /// The bytes of a string; `None` for another kind.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a [u8]> {
        match self.entry {
            Entry::Str(string) => Some(string.value_after(self.key_len)),
            Entry::Collection(_) => None,
        }
    }

    /// The hash; `None` for another kind.
    #[must_use]
    pub fn hash(&self) -> Option<&'a Fields> {
        match self.entry {
            Entry::Collection(collection) => match &collection.value {
                CollectionValue::Hash(hash) => Some(hash),
                _ => None,
            },
            Entry::Str(_) => None,
        }
    }

    /// The sorted set; `None` for another kind.
    #[must_use]
    pub fn sorted_set(&self) -> Option<&'a Zset> {
        match self.entry {
            Entry::Collection(collection) => match &collection.value {
                CollectionValue::SortedSet(sorted_set) => Some(sorted_set),
                _ => None,
            },
            Entry::Str(_) => None,
        }
    }

    /// The last millisecond at which the key is there; `None` without a ttl.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.entry.expires_at_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, StrEntry, is_expired};

    #[test]
    fn entry_is_there_at_its_deadline_and_gone_a_millisecond_later() {
        assert!(!is_expired(Some(1_000), 999));
        assert!(!is_expired(Some(1_000), 1_000));
        assert!(is_expired(Some(1_000), 1_001));
        assert!(!is_expired(None, u64::MAX));
    }

    #[test]
    fn string_reads_back_what_was_written() {
        for deadline in [None, Some(0), Some(7), Some(u64::MAX)] {
            for (key, parts) in [(&b"key"[..], &[&b"he"[..], b"", b"llo"][..]), (b"", &[]), (b"k", &[b""])] {
                let string = StrEntry::new(key, parts, deadline);
                assert_eq!(string.key(), key);
                assert_eq!(string.value(), parts.concat());
                assert_eq!(string.expires_at_ms(), deadline);
            }
        }
    }

    #[test]
    fn string_of_the_same_length_is_written_over_in_place() {
        let mut string = StrEntry::new(b"key", &[b"value"], Some(5));
        let address = string.0.as_ptr();
        assert!(string.write_over(&[b"VA", b"LUE"], Some(6)));
        assert_eq!((string.value(), string.expires_at_ms()), (&b"VALUE"[..], Some(6)));
        assert_eq!(string.0.as_ptr(), address);

        assert!(!string.write_over(&[b"longer"], Some(7)));
        assert!(!string.write_over(&[b"value"], None));
        assert_eq!((string.value(), string.expires_at_ms()), (&b"VALUE"[..], Some(6)));
    }

    #[test]
    fn deadline_comes_and_goes_without_touching_key_or_value() {
        let mut entry = Entry::Str(StrEntry::new(b"key", &[b"value"], None));
        let bare_bytes = entry.cost_bytes();
        for deadline in [Some(9), Some(10), None, None] {
            entry.set_expires_at_ms(deadline);
            assert_eq!(entry.expires_at_ms(), deadline);
            assert_eq!(entry.key(), b"key");
            let Entry::Str(string) = &entry else { panic!("still a string") };
            assert_eq!(string.value(), b"value");
            assert_eq!(entry.cost_bytes(), bare_bytes + if deadline.is_some() { 8 } else { 0 });
        }
    }
}
