//! A list: elements in the order in which they were put, reached from both ends.
//!
//! # Guarantees
//! Pushing and popping at either end take constant time on average. Reaching an element in the middle takes one step per chunk from
//! the nearer end, and then one per element of a chunk.
//!
//! # How it works
//! A deque of chunks, each a packed buffer of about 8 KiB. No chunk is empty. An element larger than a chunk lies in one of its own.
//! A chunk that an insertion in the middle made too large is cut in half.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::ops::Range;

use super::limits::{ChunkLimit, Limits};
use super::packed::{Elements, Packed, element_bytes};
use crate::segment::capacity_if_sparse;

/// On which side of a pivot an element is inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nearer to the head.
    Before,
    /// Nearer to the tail.
    After,
}

/// Elements in order.
#[derive(Default)]
pub(crate) struct List {
    chunks: VecDeque<Packed>,
    len: usize,
    /// What the buffers of all chunks take.
    chunk_bytes: u64,
}

impl List {
    /// An empty list.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The number of elements.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name that OBJECT ENCODING shows; Redis 7.0 has one for lists.
    #[must_use]
    pub(crate) fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// The estimated memory of everything the list has allocated.
    #[must_use]
    pub(crate) fn cost_bytes(&self) -> u64 {
        self.chunk_bytes + (self.chunks.capacity() * size_of::<Packed>()) as u64
    }

    /// The element at `index`; a negative one counts from the tail, which is -1.
    #[must_use]
    pub(crate) fn get(&self, index: i64) -> Option<&[u8]> {
        let (chunk, inside) = self.locate(self.resolve(index)?);
        self.chunks[chunk].get(inside)
    }

    /// The element at the head.
    #[must_use]
    pub(crate) fn front(&self) -> Option<&[u8]> {
        self.chunks.front()?.iter().next()
    }

    /// The element at the tail.
    #[must_use]
    pub(crate) fn back(&self) -> Option<&[u8]> {
        self.chunks.back()?.iter().next_back()
    }

    /// All elements from head to tail; `rev` walks from the tail.
    #[must_use]
    pub(crate) fn iter(&self) -> Items<'_> {
        self.range(0..self.len)
    }

    /// The elements with these indexes, which are cut to those that exist. Either end is found only when it is asked for.
    #[must_use]
    pub(crate) fn range(&self, indexes: Range<usize>) -> Items<'_> {
        let end = indexes.end.min(self.len);
        Items { list: self, indexes: indexes.start.min(end)..end, front: None, back: None }
    }

    /// Puts `element` before the head.
    pub(crate) fn push_front(&mut self, element: &[u8], limits: &Limits) {
        let limit = limits.list_chunk();
        if !self.chunks.front().is_some_and(|chunk| has_room(chunk, element, limit)) {
            self.open_chunk(0);
        }
        self.edit(0, |chunk| chunk.push_front(element));
        self.len += 1;
    }

    /// Puts `element` behind the tail.
    pub(crate) fn push_back(&mut self, element: &[u8], limits: &Limits) {
        let limit = limits.list_chunk();
        if !self.chunks.back().is_some_and(|chunk| has_room(chunk, element, limit)) {
            self.open_chunk(self.chunks.len());
        }
        self.edit(self.chunks.len() - 1, |chunk| chunk.push_back(element));
        self.len += 1;
    }

    /// Shows the element at the head to `read`, then removes it.
    pub(crate) fn pop_front_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let result = read(self.front()?);
        self.edit(0, |chunk| chunk.remove(0..1));
        self.len -= 1;
        if self.chunks[0].is_empty() {
            self.chunks.pop_front();
            self.release_places();
        }
        Some(result)
    }

    /// Shows the element at the tail to `read`, then removes it.
    pub(crate) fn pop_back_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let result = read(self.back()?);
        let last = self.chunks.len() - 1;
        self.edit(last, |chunk| chunk.remove(chunk.len() - 1..chunk.len()));
        self.len -= 1;
        if self.chunks[last].is_empty() {
            self.chunks.pop_back();
            self.release_places();
        }
        Some(result)
    }

    /// Replaces the element at `index`; a negative one counts from the tail. Returns whether there is such an element.
    pub(crate) fn set(&mut self, index: i64, element: &[u8], limits: &Limits) -> bool {
        let Some(index) = self.resolve(index) else {
            return false;
        };
        let (chunk, inside) = self.locate(index);
        self.edit(chunk, |packed| packed.replace(inside, element));
        self.split_oversized(chunk, limits.list_chunk());
        true
    }

    /// Inserts `element` next to the first one that equals `pivot`. Returns whether there is a pivot.
    pub(crate) fn insert(&mut self, place: Place, pivot: &[u8], element: &[u8], limits: &Limits) -> bool {
        let Some((chunk, inside)) = self.find(pivot) else {
            return false;
        };
        let inside = inside + usize::from(place == Place::After);
        self.edit(chunk, |packed| packed.insert(inside, element));
        self.len += 1;
        self.split_oversized(chunk, limits.list_chunk());
        true
    }

    /// Removes elements that equal `element`: the first `count` from the head, the first `-count` from the tail if it is
    /// negative, all if it is 0. Returns how many there were.
    pub(crate) fn remove(&mut self, count: i64, element: &[u8]) -> usize {
        let wanted = match count {
            0 => usize::MAX,
            count => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
        };
        let mut left = wanted;
        let chunks = self.chunks.len();
        for step in 0..chunks {
            if left == 0 {
                break;
            }
            left -= if count < 0 {
                self.edit(chunks - 1 - step, |chunk| {
                    let equal = chunk.count_equal(element);
                    chunk.remove_equal(element, equal.saturating_sub(left), left)
                })
            } else {
                self.edit(step, |chunk| chunk.remove_equal(element, 0, left))
            };
        }
        let removed = wanted - left;
        self.len -= removed;
        if removed > 0 {
            self.chunks.retain(|chunk| !chunk.is_empty());
            self.release_places();
        }
        removed
    }

    /// Keeps the elements with these indexes and removes all others.
    pub(crate) fn trim(&mut self, keep: Range<usize>) {
        let end = keep.end.min(self.len);
        let start = keep.start.min(end);
        self.drop_back(self.len - end);
        self.drop_front(start);
        self.release_places();
    }

    fn drop_front(&mut self, mut count: usize) {
        self.len -= count;
        while count > 0 {
            let gone = count.min(self.chunks[0].len());
            self.edit(0, |chunk| chunk.remove(0..gone));
            if self.chunks[0].is_empty() {
                self.chunks.pop_front();
            }
            count -= gone;
        }
    }

    fn drop_back(&mut self, mut count: usize) {
        self.len -= count;
        while count > 0 {
            let last = self.chunks.len() - 1;
            let len = self.chunks[last].len();
            let gone = count.min(len);
            self.edit(last, |chunk| chunk.remove(len - gone..len));
            if self.chunks[last].is_empty() {
                self.chunks.pop_back();
            }
            count -= gone;
        }
    }

    /// The index from the head that `index` stands for, if it exists.
    fn resolve(&self, index: i64) -> Option<usize> {
        let distance = usize::try_from(index.unsigned_abs()).ok()?;
        let index = if index < 0 { self.len.checked_sub(distance)? } else { distance };
        (index < self.len).then_some(index)
    }

    /// The chunk that holds the element at `index`, and its number there. The index must exist.
    fn locate(&self, index: usize) -> (usize, usize) {
        if index < self.len / 2 {
            let mut inside = index;
            for (number, chunk) in self.chunks.iter().enumerate() {
                if inside < chunk.len() {
                    return (number, inside);
                }
                inside -= chunk.len();
            }
        } else {
            let mut start = self.len;
            for (number, chunk) in self.chunks.iter().enumerate().rev() {
                start -= chunk.len();
                if index >= start {
                    return (number, index - start);
                }
            }
        }
        unreachable!("the chunks hold as many elements as the list counts")
    }

    fn find(&self, element: &[u8]) -> Option<(usize, usize)> {
        self.chunks.iter().enumerate().find_map(|(number, chunk)| {
            let inside = chunk.iter().position(|candidate| candidate == element)?;
            Some((number, inside))
        })
    }

    /// Puts an empty chunk at the front or the back, to be filled at once.
    fn open_chunk(&mut self, at: usize) {
        if self.chunks.is_empty() {
            // Most lists never have a second chunk.
            self.chunks.reserve_exact(1);
        } else {
            // The neighbour has stopped growing on this side, and usually for good.
            self.edit(at.saturating_sub(1), Packed::shrink_to_fit);
        }
        self.chunks.insert(at, Packed::new());
    }

    fn split_oversized(&mut self, chunk: usize, limit: ChunkLimit) {
        let (mut at, mut end) = (chunk, chunk + 1);
        while at < end {
            if is_oversized(&self.chunks[at], limit) {
                let tail = self.edit(at, Packed::split_half);
                self.chunk_bytes += tail.cost_bytes();
                self.chunks.insert(at + 1, tail);
                end += 1;
            } else {
                at += 1;
            }
        }
    }

    /// Changes one chunk and keeps the account.
    fn edit<R>(&mut self, chunk: usize, change: impl FnOnce(&mut Packed) -> R) -> R {
        let chunk = &mut self.chunks[chunk];
        let bytes_before = chunk.cost_bytes();
        let result = change(chunk);
        self.chunk_bytes = self.chunk_bytes + chunk.cost_bytes() - bytes_before;
        result
    }

    /// Gives places for chunks back after many have gone.
    fn release_places(&mut self) {
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        } else if let Some(capacity) = capacity_if_sparse(self.chunks.len(), self.chunks.capacity()) {
            self.chunks.shrink_to(capacity);
        }
    }
}

impl Clone for List {
    fn clone(&self) -> Self {
        let chunks = self.chunks.clone();
        // Copied buffers have no spare capacity.
        let chunk_bytes = chunks.iter().map(Packed::cost_bytes).sum();
        Self { chunks, len: self.len, chunk_bytes }
    }
}

/// A walk over elements of a list from either end.
#[derive(Clone)]
pub(crate) struct Items<'a> {
    list: &'a List,
    /// What neither end has reached.
    indexes: Range<usize>,
    /// The chunk that the front is in, and what follows there.
    front: Option<(usize, Elements<'a>)>,
    back: Option<(usize, Elements<'a>)>,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let index = self.indexes.next()?;
        let chunks = &self.list.chunks;
        let (chunk, elements) = self.front.get_or_insert_with(|| {
            let (chunk, inside) = self.list.locate(index);
            (chunk, chunks[chunk].iter_from(inside))
        });
        elements.next().or_else(|| {
            *chunk += 1;
            *elements = chunks[*chunk].iter();
            elements.next()
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indexes.size_hint()
    }
}

impl DoubleEndedIterator for Items<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.indexes.next_back()?;
        let chunks = &self.list.chunks;
        let (chunk, elements) = self.back.get_or_insert_with(|| {
            let (chunk, inside) = self.list.locate(index);
            (chunk, chunks[chunk].iter_to(inside + 1))
        });
        elements.next_back().or_else(|| {
            *chunk -= 1;
            *elements = chunks[*chunk].iter();
            elements.next_back()
        })
    }
}

impl ExactSizeIterator for Items<'_> {}

impl FusedIterator for Items<'_> {}

/// The indexes that `start` and `stop` of LRANGE, LTRIM and their like mean in a collection of `len`: both inclusive, negative ones
/// from the end, cut to what exists. An empty range is `0..0`.
#[must_use]
pub(crate) fn index_range(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_end = |index: i64| if index < 0 { index.saturating_add_unsigned(len as u64) } else { index };
    let start = usize::try_from(from_end(start).max(0)).unwrap_or(usize::MAX);
    match usize::try_from(from_end(stop)) {
        Ok(stop) if start <= stop && start < len => start..stop.min(len - 1) + 1,
        _ => 0..0,
    }
}

fn has_room(chunk: &Packed, element: &[u8], limit: ChunkLimit) -> bool {
    chunk.len() < limit.entries_max && chunk.byte_len() + element_bytes(element) <= limit.bytes_max
}

fn is_oversized(chunk: &Packed, limit: ChunkLimit) -> bool {
    chunk.len() > 1 && (chunk.len() > limit.entries_max || chunk.byte_len() > limit.bytes_max)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{List, Place, index_range, is_oversized};
    use crate::value::limits::Limits;

    #[derive(Clone, Debug)]
    enum Change {
        PushFront(Vec<u8>),
        PushBack(Vec<u8>),
        Fill(u8),
        PopFront,
        PopBack,
        Set(i64, Vec<u8>),
        Insert(Place, Vec<u8>, Vec<u8>),
        Remove(i64, Vec<u8>),
        Trim(i64, i64),
        Clone,
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![6 => vec(0..3_u8, 0..3), 2 => vec(any::<u8>(), 100..300), 1 => Just(vec![9; 9_000])]
    }

    /// An element that the list is likely to hold several times.
    fn repeated() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![vec(0..3_u8, 0..2), (0..3_u8).prop_map(|number| vec![number; 50])]
    }

    fn change() -> impl Strategy<Value = Change> {
        let place = || prop_oneof![Just(Place::Before), Just(Place::After)];
        prop_oneof![
            4 => element().prop_map(Change::PushFront),
            4 => element().prop_map(Change::PushBack),
            2 => any::<u8>().prop_map(Change::Fill),
            2 => Just(Change::PopFront),
            2 => Just(Change::PopBack),
            2 => (-60..60_i64, element()).prop_map(|(index, element)| Change::Set(index, element)),
            2 => (place(), repeated(), element()).prop_map(|(place, pivot, element)| Change::Insert(place, pivot, element)),
            3 => (-40..40_i64, repeated()).prop_map(|(count, element)| Change::Remove(count, element)),
            1 => (-300..20_i64, -20..300_i64).prop_map(|(start, stop)| Change::Trim(start, stop)),
            1 => Just(Change::Clone),
        ]
    }

    fn apply(list: &mut List, model: &mut VecDeque<Vec<u8>>, limits: &Limits, change: Change) {
        match change {
            Change::PushFront(element) => {
                list.push_front(&element, limits);
                model.push_front(element);
            }
            Change::PushBack(element) => {
                list.push_back(&element, limits);
                model.push_back(element);
            }
            Change::Fill(count) => {
                for number in 0..count {
                    list.push_back(&[number % 3; 50], limits);
                    model.push_back(vec![number % 3; 50]);
                }
            }
            Change::PopFront => assert_eq!(list.pop_front_with(<[u8]>::to_vec), model.pop_front()),
            Change::PopBack => assert_eq!(list.pop_back_with(<[u8]>::to_vec), model.pop_back()),
            Change::Set(index, element) => {
                let at = if index < 0 { index + model.len() as i64 } else { index };
                let place = usize::try_from(at).ok().and_then(|at| model.get_mut(at));
                assert_eq!(list.set(index, &element, limits), place.is_some());
                place.into_iter().for_each(|place| place.clone_from(&element));
            }
            Change::Insert(place, pivot, element) => {
                let at = model.iter().position(|candidate| *candidate == pivot);
                assert_eq!(list.insert(place, &pivot, &element, limits), at.is_some());
                if let Some(at) = at {
                    model.insert(at + usize::from(place == Place::After), element);
                }
            }
            Change::Remove(count, element) => {
                let mut equal: Vec<usize> = (0..model.len()).filter(|index| model[*index] == element).collect();
                if count < 0 {
                    equal.reverse();
                }
                if count != 0 {
                    equal.truncate(count.unsigned_abs() as usize);
                }
                assert_eq!(list.remove(count, &element), equal.len());
                equal.sort_unstable();
                equal.into_iter().rev().for_each(|index| drop(model.remove(index)));
            }
            Change::Trim(start, stop) => {
                let keep = index_range(start, stop, model.len());
                list.trim(keep.clone());
                model.truncate(keep.end);
                model.drain(..keep.start);
            }
            Change::Clone => *list = list.clone(),
        }
    }

    proptest! {
        #[test]
        fn list_behaves_as_a_deque_at_every_chunk_size(
            changes in vec(change(), 1..60),
            chunk in prop_oneof![Just(-2_i64), Just(-1), Just(1), Just(3)],
        ) {
            let limits = Limits { list_max_listpack_size: chunk, ..Limits::default() };
            let (mut list, mut model) = (List::new(), VecDeque::new());
            for change in changes {
                apply(&mut list, &mut model, &limits, change);
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.iter().eq(model.iter()));
                prop_assert!(list.iter().rev().eq(model.iter().rev()));
                prop_assert_eq!((list.front(), list.back()), (list.get(0), list.get(-1)));
                let chunk_limit = limits.list_chunk();
                prop_assert!(list.chunks.iter().all(|chunk| !chunk.is_empty() && !is_oversized(chunk, chunk_limit)));
                let chunk_bytes: u64 = list.chunks.iter().map(|chunk| chunk.cost_bytes()).sum();
                prop_assert_eq!(list.chunk_bytes, chunk_bytes);
            }
            for index in 0..model.len() {
                prop_assert_eq!(list.get(index as i64), Some(&*model[index]));
                prop_assert_eq!(list.get(-1 - index as i64), Some(&*model[model.len() - 1 - index]));
            }
            prop_assert_eq!(list.get(model.len() as i64), None);
            prop_assert_eq!(list.get(-1 - model.len() as i64), None);
            list.trim(0..0);
            prop_assert_eq!((list.len(), list.cost_bytes()), (0, 0));
        }

        #[test]
        fn both_ends_of_a_range_meet(
            len in 0..500_usize, start in 0..520_usize, count in 0..520_usize, ends in vec(any::<bool>(), 520),
        ) {
            let limits = Limits { list_max_listpack_size: 7, ..Limits::default() };
            let mut list = List::new();
            let elements: Vec<Vec<u8>> = (0..len).map(|number| number.to_string().into_bytes()).collect();
            elements.iter().for_each(|element| list.push_back(element, &limits));
            let mut range = list.range(start..start + count);
            let mut expected = elements.iter().map(Vec::as_slice).skip(start).take(count);
            for is_front in ends {
                prop_assert_eq!(range.len(), expected.len());
                if is_front {
                    prop_assert_eq!(range.next(), expected.next());
                } else {
                    prop_assert_eq!(range.next_back(), expected.next_back());
                }
            }
        }
    }

    #[test]
    fn index_range_takes_any_numbers() {
        assert_eq!(index_range(0, -1, 5), 0..5);
        assert_eq!(index_range(-2, -1, 5), 3..5);
        assert_eq!(index_range(-100, 1, 5), 0..2);
        assert_eq!(index_range(i64::MIN, i64::MAX, 5), 0..5);
        for (start, stop, len) in [(3, 1, 5), (5, 9, 5), (0, -6, 5), (0, -1, 0), (i64::MAX, i64::MIN, 5), (-1, -3, 5)] {
            assert_eq!(index_range(start, stop, len), 0..0, "{start} {stop} {len}");
        }
    }

    #[test]
    fn list_of_short_elements_costs_little_more_than_its_bytes() {
        let mut list = List::new();
        (0..100_000).for_each(|_| list.push_back(b"0123456789", &Limits::default()));
        assert!(list.cost_bytes() < 100_000 * 13, "{}", list.cost_bytes());
        (0..99_990).for_each(|_| list.pop_front_with(|_| ()).expect("an element is left"));
        // What is left is mostly the places of 64 chunks, too few to shrink.
        assert!(list.cost_bytes() < 4_000, "{}", list.cost_bytes());
    }
}
