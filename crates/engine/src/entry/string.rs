//! A string with its key and its deadline, as one run of bytes.
//!
//! # Layout
//! A string is one run of bytes that also holds its key:
//! ```text
//! without a deadline                              with a deadline
//! ┌─────────┬───────┬──────┬─────┬───────┐        ┌────────────────┬───────┬──────┬───────────────┬─────┬───────┐
//! │ key len │ usage │ info │ key │ value │        │ key len | flag │ usage │ info │ expires_at_ms │ key │ value │
//! └─────────┴───────┴──────┴─────┴───────┘        └────────────────┴───────┴──────┴───────────────┴─────┴───────┘
//!   4 bytes   3       1                             4 bytes          3       1      8               little endian
//! ```
//! Short ones lie in cells that their segment keeps for them (`cells.rs`), others in an allocation of their own: it is the same bytes in both.
//!
//! Usage is when or how often the key was used: for eviction, and for clients that ask (`OBJECT IDLETIME`, `OBJECT FREQ`). Info has two bits
//! for how Redis would encode the string (`OBJECT ENCODING`), and five that belong to the cell: how many bytes at its end are not used.
//!
//! The deadline is part of the header only where there is one, so keys without a ttl do not pay for it, and there is no second
//! table of deadlines. One cache miss reads key, deadline and value together.

use super::{Usage, allocation_cost_bytes};

/// Longest key. Redis has the same limit, and the header keeps its highest bit for a flag.
pub(crate) const KEY_BYTES_MAX: usize = 512 << 20;

/// The longest string that lies in a cell. Beyond it what an allocator rounds up to hardly shows.
pub(crate) const CELL_BYTES_MAX: usize = 1_024;

const KEY_LEN_BYTES: usize = 4;
/// The key's length, its usage and the info.
const HEADER_BYTES: usize = 8;
const DEADLINE_BYTES: usize = 8;
const DEADLINE_FLAG: u32 = 1 << 31;

/// Where the bytes begin that a cell does not use: in the word of usage and info.
const SPARE_SHIFT: u32 = 26;
const SPARE_MASK: u32 = 31 << SPARE_SHIFT;

/// How far into a string [`StrRef::touch`] goes: two lines of a cache, beyond which processors fetch by themselves.
#[cfg(feature = "commands")]
const TOUCHED_BYTES: usize = 127;

const _: () = assert!(KEY_BYTES_MAX < DEADLINE_FLAG as usize, "a key length never touches the flag");
const _: () = assert!(cell_bytes(CELL_BYTES_MAX) == CELL_BYTES_MAX, "the largest cell is full");

/// A string with its key and deadline in an allocation of its own.
pub(crate) struct StrEntry(Box<[u8]>);

/// A string where it lies.
#[derive(Clone, Copy)]
pub(crate) struct StrRef<'a>(&'a [u8]);

/// The same for who changes it.
pub(crate) struct StrMut<'a>(&'a mut [u8]);

/// What a string is made of. Its value is the concatenation of `parts`.
#[derive(Clone, Copy)]
pub(crate) struct StrParts<'p> {
    /// Not longer than [`KEY_BYTES_MAX`].
    pub(crate) key: &'p [u8],
    pub(crate) parts: &'p [&'p [u8]],
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) usage: Usage,
}

impl StrParts<'_> {
    /// How long it is with its header.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let value_len: usize = self.parts.iter().map(|part| part.len()).sum();
        key_start(self.expires_at_ms.is_some()) + self.key.len() + value_len
    }

    fn header(&self, spare: usize) -> [u8; HEADER_BYTES] {
        assert!(self.key.len() <= KEY_BYTES_MAX, "callers refuse keys above KEY_BYTES_MAX");
        // Fits: KEY_BYTES_MAX is below 2^31.
        let key_len = self.key.len() as u32;
        let key_len = if self.expires_at_ms.is_some() { key_len | DEADLINE_FLAG } else { key_len };
        // Fits: no cell is larger by more than its step.
        let usage = self.usage.0 | (spare as u32) << SPARE_SHIFT;
        (u64::from(usage) << 32 | u64::from(key_len)).to_le_bytes()
    }

    /// Writes it into a cell, whatever that held.
    #[inline]
    pub(crate) fn write_to(&self, cell: &mut [u8]) {
        let header = self.header(cell.len() - self.len());
        let mut rest = put(cell, &header);
        if let Some(at_ms) = self.expires_at_ms {
            rest = put(rest, &at_ms.to_le_bytes());
        }
        rest = put(rest, self.key);
        for part in self.parts {
            rest = put(rest, part);
        }
    }
}

/// Copies `bytes` to the beginning of `out`, and returns what follows.
#[inline]
fn put<'o>(out: &'o mut [u8], bytes: &[u8]) -> &'o mut [u8] {
    let (head, rest) = out.split_at_mut(bytes.len());
    head.copy_from_slice(bytes);
    rest
}

impl StrEntry {
    pub(crate) fn new(key: &[u8], parts: &[&[u8]], expires_at_ms: Option<u64>) -> Self {
        Self::of(&StrParts { key, parts, expires_at_ms, usage: Usage::default() })
    }

    pub(crate) fn of(string: &StrParts<'_>) -> Self {
        let mut bytes = Vec::with_capacity(string.len());
        bytes.extend_from_slice(&string.header(0));
        if let Some(at_ms) = string.expires_at_ms {
            bytes.extend_from_slice(&at_ms.to_le_bytes());
        }
        bytes.extend_from_slice(string.key);
        for part in string.parts {
            bytes.extend_from_slice(part);
        }
        Self(bytes.into_boxed_slice())
    }

    #[inline]
    pub(crate) fn view(&self) -> StrRef<'_> {
        StrRef(&self.0)
    }

    #[inline]
    pub(crate) fn view_mut(&mut self) -> StrMut<'_> {
        StrMut(&mut self.0)
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.view().value()
    }

    /// How long it is with its header.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts it into a cell, whatever that held.
    pub(crate) fn copy_to(&self, cell: &mut [u8]) {
        let usage = self.view().usage();
        let spare = cell.len() - self.0.len();
        put(cell, &self.0);
        StrMut(cell).write_usage(usage, (spare as u32) << SPARE_SHIFT);
    }
}

impl<'a> StrRef<'a> {
    /// The string in a cell.
    #[inline]
    pub(crate) fn in_cell(cell: &'a [u8]) -> Self {
        let spare = usage_word(cell) >> SPARE_SHIFT;
        Self(&cell[..cell.len() - spare as usize])
    }

    /// How long it is with its header.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// Reads a byte of each line that a read of a short value would read.
    #[cfg(feature = "commands")]
    pub(crate) fn touch(self) -> u8 {
        let Self(bytes) = self;
        bytes[0] ^ bytes[(bytes.len() - 1).min(TOUCHED_BYTES)]
    }

    #[inline]
    pub(crate) fn key(self) -> &'a [u8] {
        &self.0[self.key_start()..self.value_start()]
    }

    /// Whether this is its key: only as many bytes as `key` has are looked at, and none if the lengths differ.
    #[inline]
    pub(crate) fn has_key(self, key: &[u8]) -> bool {
        let start = self.key_start();
        self.key_len() == key.len() && self.0.get(start..start + key.len()) == Some(key)
    }

    #[inline]
    pub(crate) fn value(self) -> &'a [u8] {
        &self.0[self.value_start()..]
    }

    /// The value of an entry whose key is known to have `key_len` bytes.
    ///
    /// Where the value lies is then known before the header is: the processor fetches both from memory at once. Over a million
    /// keys, copying a value out takes about a quarter less time than by `value`.
    #[inline]
    pub(crate) fn value_after(self, key_len: usize) -> &'a [u8] {
        debug_assert_eq!(self.key().len(), key_len, "the entry was found by its key");
        // Two cases and not one sum: a branch is predicted, a sum would wait for the flag.
        if self.has_deadline() {
            &self.0[HEADER_BYTES + DEADLINE_BYTES + key_len..]
        } else {
            &self.0[HEADER_BYTES + key_len..]
        }
    }

    #[inline]
    pub(crate) fn expires_at_ms(self) -> Option<u64> {
        if !self.has_deadline() {
            return None;
        }
        let (_, rest) = self.0.split_first_chunk::<HEADER_BYTES>().expect(HAS_HEADER);
        let deadline = rest.first_chunk::<DEADLINE_BYTES>().expect("a flagged header holds a deadline");
        Some(u64::from_le_bytes(*deadline))
    }

    pub(crate) fn usage(self) -> Usage {
        Usage(usage_word(self.0) & !SPARE_MASK)
    }

    /// The same string with another deadline, on its own.
    pub(crate) fn with_deadline(self, expires_at_ms: Option<u64>) -> StrEntry {
        let (key, usage) = (self.key(), self.usage());
        StrEntry::of(&StrParts { key, parts: &[self.value()], expires_at_ms, usage })
    }

    #[inline]
    fn has_deadline(self) -> bool {
        key_len_field(self.0) & DEADLINE_FLAG != 0
    }

    #[inline]
    fn key_len(self) -> usize {
        (key_len_field(self.0) & !DEADLINE_FLAG) as usize
    }

    #[inline]
    fn key_start(self) -> usize {
        key_start(self.has_deadline())
    }

    #[inline]
    fn value_start(self) -> usize {
        self.key_start() + self.key_len()
    }
}

impl<'a> StrMut<'a> {
    /// The string in a cell.
    #[inline]
    pub(crate) fn in_cell(cell: &'a mut [u8]) -> Self {
        let used = cell.len() - (usage_word(cell) >> SPARE_SHIFT) as usize;
        Self(&mut cell[..used])
    }

    #[inline]
    pub(crate) fn view(&self) -> StrRef<'_> {
        StrRef(self.0)
    }

    #[inline]
    pub(crate) fn into_value(self) -> &'a mut [u8] {
        let start = self.view().value_start();
        &mut self.0[start..]
    }

    /// Replaces deadline and value, where the new encoding is exactly as long as the old one. Returns whether it did.
    #[inline]
    pub(crate) fn write_over(mut self, parts: &[&[u8]], expires_at_ms: Option<u64>) -> bool {
        let value_len: usize = parts.iter().map(|part| part.len()).sum();
        let value_start = self.view().value_start();
        if self.0.len() != value_start + value_len || !self.replace_deadline(expires_at_ms) {
            return false;
        }
        let mut rest = &mut self.0[value_start..];
        for part in parts {
            rest = put(rest, part);
        }
        true
    }

    /// Replaces a deadline by another one, or none by none. Returns whether it did: not where one comes or goes.
    #[inline]
    pub(crate) fn replace_deadline(&mut self, expires_at_ms: Option<u64>) -> bool {
        if self.view().has_deadline() != expires_at_ms.is_some() {
            return false;
        }
        if let Some(at_ms) = expires_at_ms {
            put(&mut self.0[HEADER_BYTES..], &at_ms.to_le_bytes());
        }
        true
    }

    pub(crate) fn set_usage(&mut self, usage: Usage) {
        let spare = usage_word(self.0) & SPARE_MASK;
        self.write_usage(usage, spare);
    }

    fn write_usage(&mut self, usage: Usage, spare: u32) {
        put(&mut self.0[KEY_LEN_BYTES..], &(usage.0 | spare).to_le_bytes());
    }
}

const HAS_HEADER: &str = "a string starts with its header";

#[inline]
fn header(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect(HAS_HEADER))
}

#[inline]
fn key_len_field(bytes: &[u8]) -> u32 {
    // Truncated on purpose: the other half is the usage.
    header(bytes) as u32
}

#[inline]
fn usage_word(bytes: &[u8]) -> u32 {
    (header(bytes) >> 32) as u32
}

#[inline]
fn key_start(has_deadline: bool) -> usize {
    if has_deadline { HEADER_BYTES + DEADLINE_BYTES } else { HEADER_BYTES }
}

/// The cell for a string of `len` bytes, at most [`CELL_BYTES_MAX`]: a sixteenth larger at most, beyond the smallest ones.
pub(crate) const fn cell_bytes(len: usize) -> usize {
    let step = match len {
        0..=256 => 8,
        257..=512 => 16,
        _ => 32,
    };
    len.next_multiple_of(step)
}

/// The estimated memory of a string of `len` bytes with its header.
pub(crate) fn str_cost_bytes(len: usize) -> u64 {
    if len <= CELL_BYTES_MAX { cell_bytes(len) as u64 } else { allocation_cost_bytes(len) }
}

#[cfg(test)]
mod tests {
    use super::{CELL_BYTES_MAX, StrEntry, StrMut, StrParts, StrRef, cell_bytes};
    use crate::entry::{StrEncoding, Usage};

    #[test]
    fn string_reads_back_what_was_written() {
        for deadline in [None, Some(0), Some(7), Some(u64::MAX)] {
            for (key, parts) in [(&b"key"[..], &[&b"he"[..], b"", b"llo"][..]), (b"", &[]), (b"k", &[b""])] {
                let string = StrEntry::new(key, parts, deadline);
                assert_eq!(string.view().key(), key);
                assert_eq!(string.value(), parts.concat());
                assert_eq!(string.view().value_after(key.len()), parts.concat());
                assert_eq!(string.view().expires_at_ms(), deadline);
            }
        }
    }

    #[test]
    fn string_is_the_same_in_a_cell_however_much_of_it_is_spare() {
        let usage = Usage::default().at(77_000).encoded(StrEncoding::Raw);
        for len in 0..CELL_BYTES_MAX - 20 {
            let value = vec![7; len];
            let string = StrParts { key: b"key", parts: &[&value], expires_at_ms: Some(9), usage };
            // Whatever was there before does not matter.
            let mut cell = vec![0xff; cell_bytes(string.len())];
            string.write_to(&mut cell);
            let mut copied = vec![0xff; cell.len()];
            StrEntry::of(&string).copy_to(&mut copied);
            for cell in [cell, copied] {
                let read = StrRef::in_cell(&cell);
                assert_eq!((read.key(), read.value(), read.len()), (&b"key"[..], &value[..], string.len()));
                assert_eq!(read.expires_at_ms(), Some(9));
                assert_eq!((read.usage().clock_s(), read.usage().encoding()), (77, StrEncoding::Raw));
            }
        }
    }

    #[test]
    fn use_of_a_string_changes_nothing_else() {
        let string = StrParts { key: b"key", parts: &[b"value"], expires_at_ms: None, usage: Usage::default() };
        let mut cell = vec![0; 24];
        string.write_to(&mut cell);
        StrMut::in_cell(&mut cell).set_usage(Usage::default().at(u64::MAX).encoded(StrEncoding::Bytes));
        let read = StrRef::in_cell(&cell);
        assert_eq!((read.key(), read.value(), read.expires_at_ms()), (&b"key"[..], &b"value"[..], None));
        assert_eq!(read.usage().encoding(), StrEncoding::Bytes);
    }

    #[test]
    fn string_of_the_same_length_is_written_over_in_place() {
        let mut string = StrEntry::new(b"key", &[b"value"], Some(5));
        assert!(string.view_mut().write_over(&[b"VA", b"LUE"], Some(6)));
        assert_eq!((string.value(), string.view().expires_at_ms()), (&b"VALUE"[..], Some(6)));
        assert!(!string.view_mut().write_over(&[b"longer"], Some(7)));
        assert!(!string.view_mut().write_over(&[b"value"], None));
        assert_eq!((string.value(), string.view().expires_at_ms()), (&b"VALUE"[..], Some(6)));
    }

    #[test]
    fn deadline_comes_and_goes_without_touching_key_or_value() {
        let mut string = StrEntry::new(b"key", &[b"value"], None);
        for deadline in [Some(9), Some(10), None, None] {
            if !string.view_mut().replace_deadline(deadline) {
                string = string.view().with_deadline(deadline);
            }
            let read = string.view();
            assert_eq!((read.key(), read.value(), read.expires_at_ms()), (&b"key"[..], &b"value"[..], deadline));
            assert_eq!(read.len(), 16 + if deadline.is_some() { 8 } else { 0 });
        }
    }
}
