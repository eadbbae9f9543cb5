//! Pages of a keyspace by a cursor that the server need not remember.
//!
//! # Guarantees
//! Every key that is there from the first page to the last one is on at least one of them, however much is written in between and
//! however the tables grow and shrink. A key may be on two pages only if it was removed and came back meanwhile.
//! One page takes at most `count * 128` segments, each held for one step.
//!
//! # Failure
//! None. A cursor that was never given out is a place like any other, or the end.
//!
//! # How it works
//! A key's hash never changes, whatever table it lies in. So a walk in the order of segments, and by the lowest 32 bits of the hash within a
//! segment, needs to remember one number only, and no table has to keep still for it:
//! ```text
//!  63       48 47        32 31                               0
//! ┌───────────┬────────────┬──────────────────────────────────┐
//! │     0     │  segment   │  lowest hash bits of what follows │
//! └───────────┴────────────┴──────────────────────────────────┘
//! ```
//! Keys whose 32 bits are equal come on the same page, because no cursor lies between them. The table of a segment is in the order of these
//! bits (`store/places.rs`), so that a page costs what is on it.

use crate::entry::EntryRef;
use crate::segment::Segment;

/// Segments without a key from the cursor on that a page passes, for each key that was asked for; Redis does the same with 10 buckets. So many
/// that a few keys come on one page of the usual 10: who tries SCAN by hand looks no further, and passing an empty segment costs next to nothing.
const EMPTY_STEPS_PER_KEY: usize = 128;

const SEGMENT_SHIFT: u32 = 32;

/// A place in the walk over a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) segment: usize,
    /// Lowest hash bits of the first key that has not been visited.
    low: u32,
}

impl Cursor {
    /// The place that a client names; `None` if it lies behind the last segment.
    pub(crate) fn from_number(number: u64, segments: usize) -> Option<Self> {
        let segment = usize::try_from(number >> SEGMENT_SHIFT).ok().filter(|segment| *segment < segments)?;
        // Truncated on purpose: the other half is the segment.
        Some(Self { segment, low: number as u32 })
    }

    /// What a client names to go on here. Never 0 except at the very beginning: clients take 0 for the end.
    pub(crate) fn number(self) -> u64 {
        (self.segment as u64) << SEGMENT_SHIFT | u64::from(self.low)
    }
}

/// Walks on from `begin` until about `count` keys were visited. `step` visits one segment from a place on: it is given the hash bits and
/// how many keys are wanted, and says how many it visited and where to go on there. Returns the cursor of the next page, 0 at the end.
///
/// # Errors
/// The first one of a step.
pub(crate) fn walk<E>(
    begin: u64,
    segments: usize,
    count: usize,
    mut step: impl FnMut(usize, u32, usize) -> Result<(usize, Option<u32>), E>,
) -> Result<u64, E> {
    let Some(mut cursor) = Cursor::from_number(begin, segments) else { return Ok(0) };
    let (mut visited, mut steps) = (0, count.saturating_mul(EMPTY_STEPS_PER_KEY));
    while visited < count && steps > 0 {
        let (visited_here, next) = step(cursor.segment, cursor.low, count - visited)?;
        visited += visited_here;
        steps -= 1;
        cursor = match next {
            Some(low) => Cursor { low, ..cursor },
            None => Cursor { segment: cursor.segment + 1, low: 0 },
        };
        if cursor.segment == segments {
            return Ok(0);
        }
    }
    Ok(cursor.number())
}

impl Segment {
    /// Visits about `count` entries from the hash bits `low` on. Returns how many, and where the next page begins if there are more.
    pub(crate) fn page(&self, low: u32, count: usize, mut visit: impl FnMut(EntryRef<'_>)) -> (usize, Option<u32>) {
        let (mut visited, mut last) = (0, None);
        for (bits, entry) in self.store.iter_from(low) {
            // Those whose bits are equal come on the same page.
            if visited >= count.max(1) && last != Some(bits) {
                return (visited, Some(bits));
            }
            visit(entry);
            (visited, last) = (visited + 1, Some(bits));
        }
        (visited, None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{Cursor, EMPTY_STEPS_PER_KEY, walk};
    use crate::entry::{StrParts, Usage};
    use crate::evict::EvictionConfig;
    use crate::index::OrderedIndex;
    use crate::memory::{Memory, Room};
    use crate::segment::{Context, Segment};

    const SEGMENTS: usize = 4;
    /// Keys that stay throughout; the others come and go.
    const STAYING: u16 = 150;

    /// What happens between two pages.
    #[derive(Clone, Debug)]
    enum Change {
        /// Many keys at once, so that tables grow.
        Insert(u16, u16),
        Remove(u16, u16),
        RemoveAll,
    }

    struct Keyspace {
        context: Context,
        segments: Vec<Segment>,
    }

    impl Keyspace {
        fn new(seed: u64) -> Self {
            let context =
                Context::new(Some(seed), Memory::new(None, EvictionConfig::default(), 1), OrderedIndex::new(SEGMENTS));
            let segments = (0..SEGMENTS).map(|number| Segment::new(number, &context)).collect();
            let mut keyspace = Self { context, segments };
            (0..STAYING).for_each(|number| keyspace.insert(number));
            keyspace
        }

        fn place(&self, key: &[u8]) -> (usize, u64) {
            let hash = self.context.hash(key);
            ((hash >> 32) as usize % SEGMENTS, hash)
        }

        fn insert(&mut self, number: u16) {
            let key = number.to_le_bytes();
            let (segment, hash) = self.place(&key);
            let segment = &mut self.segments[segment];
            if segment.find_live(&self.context, &key, hash, 0).is_none() {
                let string = StrParts { key: &key, parts: &[b"v"], expires_at_ms: None, usage: Usage::default() };
                segment.insert_str(&self.context, hash, &string, Room::Left).expect("no bound is configured");
            }
        }

        fn remove(&mut self, number: u16) {
            let key = number.to_le_bytes();
            let (segment, hash) = self.place(&key);
            let segment = &mut self.segments[segment];
            if let Some(bucket) = segment.find_live(&self.context, &key, hash, 0) {
                segment.remove(&self.context, bucket);
                segment.shrink_if_sparse(&self.context);
            }
        }

        fn apply(&mut self, change: &Change) {
            let passing = |from: u16, len: u16| (from..from.saturating_add(len)).filter(|number| *number >= STAYING);
            match *change {
                Change::Insert(from, len) => passing(from, len).for_each(|number| self.insert(number)),
                Change::Remove(from, len) => passing(from, len).for_each(|number| self.remove(number)),
                Change::RemoveAll => (STAYING..5_000).for_each(|number| self.remove(number)),
            }
        }

        fn page(&self, cursor: u64, count: usize, seen: &mut HashSet<Vec<u8>>) -> u64 {
            let next = walk(cursor, SEGMENTS, count, |segment, low, count| {
                Ok::<_, Infallible>(self.segments[segment].page(low, count, |entry| {
                    seen.insert(entry.key().to_vec());
                }))
            });
            next.expect("no step fails")
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..4_000_u16, 0..1_000_u16).prop_map(|(from, len)| Change::Insert(from, len)),
            (0..4_000_u16, 0..1_000_u16).prop_map(|(from, len)| Change::Remove(from, len)),
            Just(Change::RemoveAll),
        ]
    }

    proptest! {
        #[test]
        fn key_that_stays_is_on_a_page_whatever_happens_between_pages(
            seed in any::<u64>(), count in 1..40_usize, changes in vec(change(), 1..30),
        ) {
            let mut keyspace = Keyspace::new(seed);
            let (mut seen, mut cursor) = (HashSet::new(), 0);
            let mut changes = changes.iter();
            loop {
                cursor = keyspace.page(cursor, count, &mut seen);
                if cursor == 0 {
                    break;
                }
                // When the changes are used up the scan ends by itself.
                if let Some(change) = changes.next() {
                    keyspace.apply(change);
                }
            }
            for number in 0..STAYING {
                prop_assert!(seen.contains(&number.to_le_bytes()[..]), "key {number} was missed");
            }
        }

        #[test]
        fn pages_between_which_nothing_happens_hold_each_key_once(seed in any::<u64>(), count in 1..40_usize) {
            let keyspace = Keyspace::new(seed);
            let (mut visits, mut cursor) = (0, 0);
            loop {
                let mut seen = HashSet::new();
                cursor = keyspace.page(cursor, count, &mut seen);
                visits += seen.len();
                if cursor == 0 {
                    break;
                }
            }
            prop_assert_eq!(visits, usize::from(STAYING));
        }

        #[test]
        fn any_number_is_a_cursor(number in any::<u64>(), count in 1..40_usize) {
            let keyspace = Keyspace::new(1);
            let next = keyspace.page(number, count, &mut HashSet::new());
            prop_assert!(next == 0 || next > number);
        }
    }

    #[test]
    fn keys_of_equal_hash_bits_come_on_one_page() {
        let keyspace = Keyspace::new(1);
        let mut segment = Segment::new(0, &keyspace.context);
        for (key, hash) in [(b"d", 9_u64), (b"b", 5), (b"c", 5), (b"a", 1), (b"e", u64::MAX), (b"f", u64::MAX)] {
            let string = StrParts { key, parts: &[], expires_at_ms: None, usage: Usage::default() };
            segment.insert_str(&keyspace.context, hash, &string, Room::Left).expect("no bound is configured");
        }
        let page = |low, count| {
            let mut keys = Vec::new();
            let (visited, next) = segment.page(low, count, |entry| keys.extend_from_slice(entry.key()));
            assert_eq!(visited, keys.len());
            (String::from_utf8(keys).expect("they are text"), next)
        };
        assert_eq!(page(0, 2), ("abc".to_owned(), Some(9)));
        assert_eq!(page(2, 1), ("bc".to_owned(), Some(9)));
        assert_eq!(page(9, 2), ("def".to_owned(), None));
        assert_eq!(page(10, 1), ("ef".to_owned(), None));
    }

    #[test]
    fn empty_keyspace_is_passed_in_pages_of_bounded_work() {
        let (segments, mut steps) = (1_000, 0);
        let mut cursor = 0;
        let mut pages = 0;
        loop {
            let steps_before = steps;
            cursor = walk(cursor, segments, 3, |_, _, _| {
                steps += 1;
                Ok::<_, Infallible>((0, None))
            })
            .expect("no step fails");
            pages += 1;
            assert!(steps - steps_before <= 3 * EMPTY_STEPS_PER_KEY);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!((steps, pages), (1_000, 3));
        assert_eq!(Cursor::from_number(1_000 << 32, segments), None);
    }
}
