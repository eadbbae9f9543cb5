//! The entries of a segment, found by their keys.
//!
//! # Guarantees
//! An entry keeps its bucket, the number of its place in the table, until another one is added or removed, or the table grows or shrinks: what is written
//! to it, of whatever length, does not move it. Nothing here reads more than one entry that it was not asked for.
//!
//! # How it works
//! Two parts that know little of each other: `store/places.rs` finds by hash where an entry lies, `store/cells.rs` has the entries lie close
//! together. A read of a short string takes three lines of a cache that may have to come from memory: one of the table, one or two of the entry.
//!
//! Removing an entry moves another one into its cell, whose place is then looked for by its hash: this is what it costs to
//! have no holes.

mod cells;
mod places;

use std::ops::Range;

pub(crate) use places::{Gap, Places, hash_bits};

use crate::entry::{Entry, EntryMut, EntryRef, StrParts};
use cells::{Cells, Moved};

/// Where an entry lies, in four bytes: `cells.rs` knows how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Location(u32);

/// The entries, each under another key.
#[derive(Default)]
pub(crate) struct Store {
    places: Places,
    cells: Cells,
}

impl Store {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries the table holds without growing.
    pub(crate) fn capacity(&self) -> usize {
        self.places.capacity()
    }

    /// The number of buckets, used or not.
    #[inline]
    pub(crate) fn buckets(&self) -> usize {
        self.places.count()
    }

    /// What it takes beside the entries.
    #[inline]
    pub(crate) fn overhead_bytes(&self) -> u64 {
        self.places.bytes() + self.cells.overhead_bytes()
    }

    /// By how many buckets the table may grow for one more entry. `gap` is where that would go, as far as there is room.
    #[inline]
    pub(crate) fn growth_buckets(&self, gap: Option<Gap>) -> usize {
        if gap.is_none() { self.places.growth() } else { 0 }
    }

    /// By how much what it takes beside the entries may grow for a string that is so long with its header, if the table grows by so many buckets.
    #[inline]
    pub(crate) fn growth_bytes_max(&self, more_buckets: usize, len: usize) -> u64 {
        Places::bytes_of(more_buckets) + self.cells.overhead_growth_bytes(len)
    }

    /// The bucket of a key.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.find_entry(hash, key).map(|(bucket, _)| bucket)
    }

    /// The same, with its entry.
    #[inline]
    pub(crate) fn find_entry(&self, hash: u64, key: &[u8]) -> Option<(usize, EntryRef<'_>)> {
        let entry_of = |location| self.cells.get(location).filter(|entry| entry.has_key(key));
        self.places.find(hash_bits(hash), entry_of)
    }

    /// Reads of the table what a search for this hash begins with, so that a cache has it.
    #[cfg(feature = "commands")]
    #[inline]
    pub(crate) fn touch_place(&self, hash: u64) -> u8 {
        self.places.touch(hash_bits(hash))
    }

    /// An entry whose hash looks like this one: the one that is meant, nearly always.
    #[cfg(feature = "commands")]
    pub(crate) fn find_by_hash(&self, hash: u64) -> Option<EntryRef<'_>> {
        self.places.find(hash_bits(hash), |location| self.cells.get(location)).map(|(_, entry)| entry)
    }

    /// The hash bits of the entry in a bucket.
    pub(crate) fn hash_bits(&self, bucket: usize) -> Option<u32> {
        self.places.bits(bucket)
    }

    #[inline]
    pub(crate) fn get(&self, bucket: usize) -> Option<EntryRef<'_>> {
        self.cells.get(self.places.get(bucket)?)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, bucket: usize) -> Option<EntryMut<'_>> {
        self.cells.get_mut(self.places.get(bucket)?)
    }

    /// All entries, in ascending order of their hash bits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.iter_from(0).map(|(_, entry)| entry)
    }

    /// The entries whose hash bits are not below `bits`, with these, in ascending order.
    pub(crate) fn iter_from(&self, bits: u32) -> impl Iterator<Item = (u32, EntryRef<'_>)> {
        self.places.iter_from(bits).filter_map(|(bits, location)| Some((bits, self.cells.get(location)?)))
    }

    /// Where an entry with this hash goes; `None` if the table has to grow first.
    #[inline]
    pub(crate) fn gap(&self, hash: u64) -> Option<Gap> {
        self.places.gap(hash_bits(hash))
    }

    /// Makes the table larger. Returns the one before, see [`moves_from`](Self::moves_from).
    pub(crate) fn grow(&mut self) -> Places {
        self.places.grow()
    }

    /// Makes the table smaller, for `capacity` entries at least. Keeps nothing if there are none.
    pub(crate) fn shrink_to(&mut self, capacity: usize) -> Places {
        if self.places.len() == 0 {
            self.cells = Cells::default();
        }
        self.places.shrink_to(capacity)
    }

    /// From which bucket to which one each entry went, in ascending order.
    pub(crate) fn moves_from(&self, before: &Places) -> impl Iterator<Item = (usize, usize)> {
        self.places.moves_from(before)
    }

    /// Adds an entry for a key that is absent, at the gap for its hash. Returns its bucket. Entries in the range have moved one bucket up.
    pub(crate) fn insert(&mut self, gap: Gap, hash: u64, entry: Entry) -> (usize, Range<usize>) {
        let location = self.cells.add(entry);
        self.places.insert(gap, hash_bits(hash), location)
    }

    /// The same for a string.
    #[inline]
    pub(crate) fn insert_str(&mut self, gap: Gap, hash: u64, string: &StrParts<'_>) -> (usize, Range<usize>) {
        let location = self.cells.add_str(string);
        self.places.insert(gap, hash_bits(hash), location)
    }

    /// Puts a string with the key of a bucket in the place of what that holds; returns what was boxed there, for the caller to drop.
    pub(crate) fn replace_by_str(
        &mut self,
        bucket: usize,
        string: &StrParts<'_>,
        hash_of: impl Fn(&[u8]) -> u64,
    ) -> Option<Entry> {
        let before = self.places.get(bucket).expect(BUCKET_IS_TAKEN);
        if self.cells.rewrite(before, string) {
            return None;
        }
        let after = self.cells.add_str(string);
        self.places.set(bucket, after);
        self.remove_from_cells(before, hash_of)
    }

    /// Changes the deadline of the entry in a bucket.
    pub(crate) fn set_deadline(&mut self, bucket: usize, expires_at_ms: Option<u64>, hash_of: impl Fn(&[u8]) -> u64) {
        let location = self.places.get(bucket).expect(BUCKET_IS_TAKEN);
        let string = match self.cells.get_mut(location).expect(BUCKET_IS_TAKEN) {
            EntryMut::Collection(collection) => {
                collection.expires_at_ms = expires_at_ms;
                return;
            }
            EntryMut::Str(mut string) => {
                if string.replace_deadline(expires_at_ms) {
                    return;
                }
                // One that comes or goes makes another string.
                string.view().with_deadline(expires_at_ms)
            }
        };
        if let Err(string) = self.cells.replace_long_str(location, string) {
            let parts = string.view();
            let (key, usage) = (parts.key(), parts.usage());
            self.replace_by_str(bucket, &StrParts { key, parts: &[parts.value()], expires_at_ms, usage }, hash_of);
        }
    }

    /// Whether what lies in a bucket is boxed, so that removing it returns it.
    #[inline]
    pub(crate) fn is_boxed(&self, bucket: usize) -> bool {
        self.places.get(bucket).is_some_and(Location::is_boxed)
    }

    /// Empties a bucket. Returns what was boxed there, for the caller to drop or to use. Entries in the range have moved one bucket down.
    pub(crate) fn remove(&mut self, bucket: usize, hash_of: impl Fn(&[u8]) -> u64) -> (Option<Entry>, Range<usize>) {
        let location = self.places.get(bucket).expect(BUCKET_IS_TAKEN);
        let moved = self.places.remove(bucket);
        (self.remove_from_cells(location, hash_of), moved)
    }

    fn remove_from_cells(&mut self, location: Location, hash_of: impl Fn(&[u8]) -> u64) -> Option<Entry> {
        let (entry, moved) = self.cells.remove(location);
        if let Some(Moved { from, to }) = moved
            && let Some(moved) = self.cells.get(to)
        {
            self.places.relocate(hash_bits(hash_of(moved.key())), from, to);
        }
        entry
    }
}

const BUCKET_IS_TAKEN: &str = "a bucket number is used before its entry is removed or moved";

#[cfg(test)]
mod tests;
