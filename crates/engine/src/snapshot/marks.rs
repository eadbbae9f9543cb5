//! Which parts of a segment a snapshot still needs as they were.
//!
//! # Guarantees
//! A part is written out once: by the snapshot, or by whoever is the first to change one of its keys, before the change. Who changes a key writes out
//! no other part.
//!
//! # How it works
//! A segment has 32 parts, by the first bits of those that order its table: so a part lies in one piece, a key stays in its part whatever moves in
//! the table, and one word tells which parts are left. Whole segments were marked once: after a cut nearly every write met one that was
//! marked and wrote out its thousand keys, which kept a thread for 50 ms.

use std::num::NonZeroU32;

use crate::entry::EntryRef;
use crate::rdb::{Compression, RecordRef, ValueRef, write_record, write_select_database};
use crate::segment::{Context, Segment};
use crate::snapshot::Saved;
use crate::store::{Store, hash_bits};

/// As many as a word has bits.
const PARTS: u32 = u32::BITS;

/// About how many keys the snapshot writes out while it holds a segment. Tests have few keys, and are to see segments of which a part is written out.
const KEYS_AT_ONCE: usize = if cfg!(any(test, shuttle)) { 4 } else { 256 };

/// What a cut leaves in a segment: parts that have not been written out yet. It means something only while a snapshot runs, and each cut leaves
/// new ones in all segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// The database that the keys belonged to at the cut.
    database: u16,
    /// A bit for each part.
    parts: NonZeroU32,
}

impl Unsaved {
    pub(super) fn all(database: u16) -> Self {
        Self { database, parts: NonZeroU32::MAX }
    }

    fn with_parts(self, parts: u32) -> Option<Self> {
        NonZeroU32::new(parts).map(|parts| Self { parts, ..self })
    }

    /// Divides it: these parts, as far as they are left, and the others.
    fn split(self, parts: u32) -> (Option<Self>, Option<Self>) {
        (self.with_parts(self.parts.get() & parts), self.with_parts(self.parts.get() & !parts))
    }

    /// Divides it: the first `count` parts that are left, one at least, and the others.
    fn split_first(self, count: u32) -> (Option<Self>, Option<Self>) {
        let all = self.parts.get();
        // Each step takes the lowest bit away.
        let rest = (0..count).fold(all, |rest, _| rest & rest.wrapping_sub(1));
        self.split(all & !rest)
    }

    /// The parts, by their numbers.
    fn numbers(self) -> impl Iterator<Item = u32> {
        (0..PARTS).filter(move |number| self.parts.get() >> number & 1 == 1)
    }
}

/// The part that a key with these hash bits belongs to.
fn part_of(hash_bits: u32) -> u32 {
    hash_bits / FIRST_BITS
}

/// The lowest hash bits of part 1, and the distance from each part to the next.
const FIRST_BITS: u32 = 1 << (u32::BITS - PARTS.ilog2());

impl Segment {
    /// To be called before an entry with this hash is added: a snapshot may need those beside it as they were.
    #[inline]
    pub(crate) fn save_before_insert(&mut self, context: &Context, hash: u64) {
        if let Some(unsaved) = self.unsaved {
            self.save_part(context, unsaved, hash_bits(hash));
        }
    }

    /// To be called before each change of the entry in a bucket: a snapshot may need it as it was.
    #[inline]
    pub(crate) fn save_before_change(&mut self, context: &Context, bucket: usize) {
        if let Some(unsaved) = self.unsaved {
            self.save_bucket(context, unsaved, bucket);
        }
    }

    #[cold]
    fn save_bucket(&mut self, context: &Context, unsaved: Unsaved, bucket: usize) {
        if let Some(hash_bits) = self.store.hash_bits(bucket) {
            self.save_part(context, unsaved, hash_bits);
        }
    }

    #[cold]
    fn save_part(&mut self, context: &Context, unsaved: Unsaved, hash_bits: u32) {
        if !context.saving.is_running() {
            self.unsaved = None;
            return;
        }
        let (saved, rest) = unsaved.split(1 << part_of(hash_bits));
        let Some(saved) = saved else { return };
        self.unsaved = rest;
        let records = records_of(context, saved, &self.store);
        context.saving.add(Saved::Records(records), rest.is_none());
    }

    /// Takes the next marked parts for the snapshot, about [`KEYS_AT_ONCE`] keys, and returns their records. `None` if none is marked.
    pub(super) fn save_some(&mut self, context: &Context) -> Option<Vec<u8>> {
        let parts = (KEYS_AT_ONCE * PARTS as usize / self.store.len().max(1)).clamp(1, PARTS as usize);
        let (saved, rest) = self.unsaved?.split_first(parts as u32);
        self.unsaved = rest;
        if rest.is_none() {
            context.saving.segment_is_saved();
        }
        saved.map(|saved| records_of(context, saved, &self.store))
    }
}

/// The entries of these parts of a segment as they stand in a file; empty if there are none. Not compressed: others wait meanwhile.
pub(super) fn records_of(context: &Context, parts: Unsaved, store: &Store) -> Vec<u8> {
    let entries = || parts.numbers().flat_map(|part| entries_of(store, part));
    // Allocated once: who waits is not to wait for copies, also where one of the values is large. An entry takes about as much as its record.
    let bytes: u64 = entries().map(EntryRef::cost_bytes).sum();
    if bytes == 0 {
        return Vec::new();
    }
    let (eviction, cut_ms) = (&context.memory.eviction, context.saving.cut_ms());
    let mut records = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    write_select_database(usize::from(parts.database), &mut records);
    for entry in entries() {
        let (value, expires_at_ms) = (ValueRef::from(entry), entry.expires_at_ms());
        let record =
            RecordRef { key: entry.key(), value, expires_at_ms, touched: eviction.touched(entry.usage(), cut_ms) };
        write_record(&record, Compression::Off, &mut records);
    }
    records
}

fn entries_of(store: &Store, part: u32) -> impl Iterator<Item = EntryRef<'_>> {
    store
        .iter_from(part * FIRST_BITS)
        .take_while(move |(bits, _)| part_of(*bits) == part)
        .map(|(_, entry)| entry)
        .filter(|entry| !entry.is_empty_collection())
}

#[cfg(test)]
mod tests {
    use super::{FIRST_BITS, PARTS, Unsaved, part_of};

    #[test]
    fn parts_are_taken_once_in_order_until_none_is_left() {
        let (mut left, mut taken) = (Some(Unsaved::all(3)), Vec::new());
        while let Some(unsaved) = left {
            let some;
            (some, left) = unsaved.split_first(10);
            let some = some.expect("there were some");
            assert!(some.database == 3 && some.numbers().count() <= 10);
            taken.extend(some.numbers());
        }
        assert_eq!(taken, (0..PARTS).collect::<Vec<_>>());
        let (one, rest) = Unsaved::all(3).split(1 << 5);
        let (one, rest) = (one.expect("it is left"), rest.expect("others are left"));
        assert_eq!(one.numbers().collect::<Vec<_>>(), [5]);
        assert_eq!((one.split(1 << 5), rest.numbers().count()), ((Some(one), None), 31));
        assert_eq!(rest.split(1 << 5), (None, Some(rest)));
    }

    #[test]
    fn every_hash_belongs_to_a_part() {
        assert_eq!([0, 1, FIRST_BITS - 1, FIRST_BITS, u32::MAX - 1].map(part_of), [0, 0, 0, 1, PARTS - 1]);
    }
}
