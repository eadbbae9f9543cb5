//! Keys in byte order, for scans by prefix.
//!
//! # Guarantees
//! Once built, the index holds exactly the keys of the table: both change under the segment's lock. A merge returns each key
//! that is in the index from its beginning to its end exactly once, in order. It holds a bounded number of keys, however
//! many the index has.
//!
//! # How it works
//! Nothing is kept until the first scan; an engine that is never scanned pays one branch for each new key. Then every segment
//! adds its keys to one of at most 16 shards, each a B-tree with its own lock: few, because a page has to look into all of them,
//! and not one, because new keys on all threads would queue for it. Overwriting a key does not touch the index.
//!
//! Locks: a shard's lock is taken while a segment's lock is held, never the other way round. A merge holds one shard's lock while it copies
//! one batch of keys.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;
use std::vec;

use parking_lot::Mutex;

use crate::entry::allocation_cost_bytes;

/// Most shards of an index.
const SHARDS_MAX: usize = 16;

/// Most keys that are copied from a shard at a time: it bounds a merge's memory and the time that a shard stays locked.
const BATCH_KEYS_MAX: usize = 64;

/// What a key in the index costs beyond its bytes: 16 bytes in B-tree nodes that are two thirds full, and the nodes above them.
const INDEX_COST_BYTES: u64 = 29;

/// The estimated memory of a key in the index.
pub(crate) fn index_cost_bytes(key: &[u8]) -> u64 {
    INDEX_COST_BYTES + allocation_cost_bytes(key.len())
}

type Keys = BTreeSet<Box<[u8]>>;

/// The keys of all indexed segments in byte order.
pub(crate) struct OrderedIndex {
    shards: Box<[Mutex<Keys>]>,
}

impl OrderedIndex {
    pub(crate) fn new(segments: usize) -> Self {
        let shards = segments.min(SHARDS_MAX);
        Self { shards: (0..shards).map(|_| Mutex::new(Keys::new())).collect() }
    }

    pub(crate) fn insert(&self, segment: usize, key: &[u8]) {
        self.shard(segment).lock().insert(key.into());
    }

    pub(crate) fn extend<'k>(&self, segment: usize, keys: impl Iterator<Item = &'k [u8]>) {
        self.shard(segment).lock().extend(keys.map(Box::from));
    }

    pub(crate) fn remove(&self, segment: usize, key: &[u8]) {
        self.shard(segment).lock().remove(key);
    }

    /// Forgets all keys; the caller holds the locks of all segments.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            std::mem::take(&mut *shard.lock());
        }
    }

    /// Exchanges all keys with another index of as many shards; the caller holds the locks of all segments of both.
    pub(crate) fn exchange(&self, other: &Self) {
        for (shard, other_shard) in self.shards.iter().zip(&other.shards) {
            std::mem::swap(&mut *shard.lock(), &mut *other_shard.lock());
        }
    }

    /// All keys that start with `prefix` and are greater than `after`, in order. `keys_expected` sizes the batches.
    pub(crate) fn merge<'a>(&'a self, prefix: &'a [u8], after: Option<&[u8]>, keys_expected: usize) -> Merge<'a> {
        // Keys spread evenly over the shards, so this many from each make a page; two more against unevenness.
        let batch_keys = (keys_expected / self.shards.len() + 2).min(BATCH_KEYS_MAX);
        let mut merge = Merge {
            index: self,
            prefix,
            batch_keys,
            batches: self.shards.iter().map(|_| Vec::new().into_iter()).collect(),
            heads: BinaryHeap::with_capacity(self.shards.len()),
        };
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        for shard in 0..self.shards.len() {
            merge.refill(shard, from);
        }
        merge
    }

    fn shard(&self, segment: usize) -> &Mutex<Keys> {
        &self.shards[segment % self.shards.len()]
    }
}

/// A walk over the index in key order.
pub(crate) struct Merge<'a> {
    index: &'a OrderedIndex,
    prefix: &'a [u8],
    batch_keys: usize,
    /// Keys copied from each shard and not yet returned, except the lowest one, which is in `heads`.
    batches: Vec<vec::IntoIter<Box<[u8]>>>,
    heads: BinaryHeap<Reverse<(Box<[u8]>, usize)>>,
}

impl Merge<'_> {
    /// Whether there may be another key.
    pub(crate) fn is_drained(&self) -> bool {
        self.heads.is_empty()
    }

    /// Copies the next batch of a shard and puts its lowest key among the heads.
    fn refill(&mut self, shard: usize, from: Bound<&[u8]>) {
        let keys: Vec<_> = {
            let keys = self.index.shards[shard].lock();
            keys.range::<[u8], _>((from, Bound::Unbounded))
                .take_while(|key| key.starts_with(self.prefix))
                .take(self.batch_keys)
                .cloned()
                .collect()
        };
        self.batches[shard] = keys.into_iter();
        if let Some(head) = self.batches[shard].next() {
            self.heads.push(Reverse((head, shard)));
        }
    }
}

impl Iterator for Merge<'_> {
    type Item = Box<[u8]>;

    fn next(&mut self) -> Option<Box<[u8]>> {
        let Reverse((key, shard)) = self.heads.pop()?;
        match self.batches[shard].next() {
            Some(head) => self.heads.push(Reverse((head, shard))),
            None => self.refill(shard, Bound::Excluded(&key)),
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::OrderedIndex;

    fn filled(keys: u32) -> OrderedIndex {
        let index = OrderedIndex::new(1_024);
        for number in 0..keys {
            index.insert(number.wrapping_mul(7_919) as usize, format!("k{number:05}").as_bytes());
        }
        index
    }

    #[test]
    fn merge_returns_every_key_in_order_whatever_the_batch() {
        let index = filled(3_000);
        for keys_expected in [0, 1, 100, 1_000_000] {
            let keys: Vec<_> = index.merge(b"", None, keys_expected).collect();
            assert_eq!(keys.len(), 3_000);
            assert!(keys.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn merge_stays_within_prefix_and_after() {
        let index = filled(300);
        let merge = |prefix: &[u8], after: Option<&[u8]>| index.merge(prefix, after, 10).count();
        assert_eq!(merge(b"k001", None), 100);
        assert_eq!(merge(b"k001", Some(b"k00150")), 49);
        assert_eq!(merge(b"k001", Some(b"a")), 100);
        assert_eq!(merge(b"k001", Some(b"z")), 0);
        assert_eq!(merge(b"x", None), 0);
        assert_eq!(merge(b"k00150", Some(b"k00150")), 0);
    }
}
