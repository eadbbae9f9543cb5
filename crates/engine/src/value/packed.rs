//! Byte strings one after another in one buffer, readable from both ends.
//!
//! # Guarantees
//! Pushing and removing at either end take constant time on average; everything else is linear in the bytes held, so the owner
//! bounds them. A buffer that grows gets a quarter to spare, and it shrinks when three quarters are unused.
//!
//! # How it works
//! ```text
//! ┌───────┬─────┬───────┬─────┬─────┬───────┬─────┬───────┐
//! │ start │ len │ bytes │ nel │ len │ bytes │ nel │ spare │
//! └───────┴─────┴───────┴─────┴─────┴───────┴─────┴───────┘
//! ```
//! A length takes seven bits to a byte, lowest first, with the highest bit set while more follow: one byte up to 127. Behind its
//! element it is repeated with its bytes in reverse order, so that one decoder serves both directions. What is removed at the
//! front leaves a gap before `start`, which later pushes at the front fill and pushes at the back reclaim.

use std::ops::Range;

use crate::entry::allocation_cost_bytes;

/// The longest element whose length takes one byte.
const SHORT_MAX: usize = 0x7f;

/// Bytes of the longest length: 64 bits in groups of seven.
const LENGTH_BYTES_MAX: usize = 10;

/// Buffers grow in such steps; allocators round small sizes to them.
const GROWTH_STEP_BYTES: usize = 16;

/// A growing buffer gets one in so many bytes to spare: less than doubling would, as most small values stop growing soon.
const GROWTH_SPARE_DIVISOR: usize = 4;

/// More than that is never spare: beyond the largest chunk of a list, a buffer is one huge element rather than one that grows.
const GROWTH_SPARE_BYTES_MAX: usize = 16 << 10;

/// Buffers smaller than this are not worth shrinking.
const SHRINK_BYTES_MIN: usize = 64;

/// A buffer shrinks when less than one in so many bytes is used.
const SHRINK_SPARSENESS: usize = 4;

/// Elements in one buffer.
#[derive(Default)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    /// Where the first element begins.
    start: usize,
    count: usize,
}

impl Packed {
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, count: 0 }
    }

    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of all elements with their lengths, without gap and spare capacity.
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// What the buffer takes from the allocator.
    pub(crate) fn cost_bytes(&self) -> u64 {
        allocation_cost_bytes(self.bytes.capacity())
    }

    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        self.iter_from(index).next()
    }

    pub(crate) fn iter(&self) -> Elements<'_> {
        Elements { rest: &self.bytes[self.start..] }
    }

    /// The elements from number `index` on.
    pub(crate) fn iter_from(&self, index: usize) -> Elements<'_> {
        Elements { rest: &self.bytes[self.offset(index)..] }
    }

    /// The elements before number `index`.
    pub(crate) fn iter_to(&self, index: usize) -> Elements<'_> {
        Elements { rest: &self.bytes[self.start..self.offset(index)] }
    }

    pub(crate) fn push_back(&mut self, element: &[u8]) {
        self.reserve_back(element_bytes(element));
        let mut length = Length::of(element);
        self.bytes.extend_from_slice(length.as_slice());
        self.bytes.extend_from_slice(element);
        length.reverse();
        self.bytes.extend_from_slice(length.as_slice());
        self.count += 1;
    }

    pub(crate) fn push_front(&mut self, element: &[u8]) {
        let len = element_bytes(element);
        if self.start < len {
            self.widen_gap(len);
        }
        self.start -= len;
        write_element(&mut self.bytes[self.start..self.start + len], element);
        self.count += 1;
    }

    /// Puts `element` before number `index`, or at the end.
    pub(crate) fn insert(&mut self, index: usize, element: &[u8]) {
        let at = self.offset(index);
        self.write_over(at..at, element);
        self.count += 1;
    }

    /// Makes number `index` hold `element`. The number must exist.
    pub(crate) fn replace(&mut self, index: usize, element: &[u8]) {
        let region = self.region(index..index + 1);
        self.write_over(region, element);
        self.shrink_if_sparse();
    }

    /// Removes the elements with these numbers; numbers beyond the end are ignored.
    pub(crate) fn remove(&mut self, indexes: Range<usize>) {
        let indexes = indexes.start.min(self.count)..indexes.end.min(self.count);
        let region = self.region(indexes.clone());
        if region.start == self.start {
            self.start = region.end;
        } else {
            self.bytes.drain(region);
        }
        self.count -= indexes.len();
        self.shrink_if_sparse();
    }

    /// How many elements equal `element`.
    pub(crate) fn count_equal(&self, element: &[u8]) -> usize {
        self.iter().filter(|candidate| *candidate == element).count()
    }

    /// Removes elements that equal `element`: the first `skip` of them stay, at most `removed_max` go. Returns how many went.
    pub(crate) fn remove_equal(&mut self, element: &[u8], skip: usize, removed_max: usize) -> usize {
        let (mut read, mut written) = (self.start, self.start);
        let (mut seen, mut removed) = (0, 0);
        while read < self.bytes.len() && removed < removed_max {
            let (len, used) = read_length(self.bytes[read..].iter());
            let end = read + 2 * used + len;
            let is_equal = self.bytes[read + used..end - used] == *element;
            seen += usize::from(is_equal);
            if is_equal && seen > skip {
                removed += 1;
            } else {
                self.bytes.copy_within(read..end, written);
                written += end - read;
            }
            read = end;
        }
        self.bytes.drain(written..read);
        self.count -= removed;
        self.shrink_if_sparse();
        removed
    }

    /// Cuts the elements in two parts of about as many bytes and returns the second. Needs two elements at least.
    pub(crate) fn split_half(&mut self) -> Self {
        assert!(self.count >= 2, "one element cannot be split");
        let half = self.byte_len() / 2;
        let mut elements = self.iter();
        let mut index = 0;
        while index < self.count - 1 && (index == 0 || self.byte_len() - elements.rest.len() < half) {
            elements.next();
            index += 1;
        }
        let at = self.bytes.len() - elements.rest.len();
        let tail = Self { bytes: self.bytes[at..].to_vec(), start: 0, count: self.count - index };
        self.bytes.truncate(at);
        self.count = index;
        self.shrink_to_fit();
        tail
    }

    /// Gives gap and spare capacity back.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.shrink_to_fit();
    }

    fn shrink_if_sparse(&mut self) {
        if self.count == 0 {
            *self = Self::new();
        } else if self.bytes.capacity() >= SHRINK_BYTES_MIN
            && self.byte_len() < self.bytes.capacity() / SHRINK_SPARSENESS
        {
            self.shrink_to_fit();
        }
    }

    /// Where number `index` begins; the end for any larger number. Walks from the nearer end.
    fn offset(&self, index: usize) -> usize {
        let mut elements = self.iter();
        if index <= self.count / 2 {
            for _ in 0..index {
                elements.next();
            }
            return self.bytes.len() - elements.rest.len();
        }
        for _ in index..self.count {
            elements.next_back();
        }
        self.start + elements.rest.len()
    }

    fn region(&self, indexes: Range<usize>) -> Range<usize> {
        let start = self.offset(indexes.start);
        if indexes.len() == 1 {
            // The common case, for which the end is one step away rather than a second walk.
            let mut elements = Elements { rest: &self.bytes[start..] };
            elements.next();
            return start..self.bytes.len() - elements.rest.len();
        }
        start..self.offset(indexes.end)
    }

    /// Replaces the bytes of `region` by one element and moves what follows.
    fn write_over(&mut self, region: Range<usize>, element: &[u8]) {
        let len = element_bytes(element);
        let element_end = region.start + len;
        let tail = region.end..self.bytes.len();
        if len > region.len() {
            let growth = len - region.len();
            self.reserve_exact(growth);
            self.bytes.resize(self.bytes.len() + growth, 0);
            self.bytes.copy_within(tail, element_end);
        } else {
            self.bytes.drain(element_end..region.end);
        }
        write_element(&mut self.bytes[region.start..element_end], element);
    }

    fn reserve_back(&mut self, additional: usize) {
        if self.bytes.capacity() - self.bytes.len() >= additional {
            return;
        }
        // The gap is as large as what moves into it, so the removals that made it have paid for the move.
        if self.start >= self.byte_len().max(additional) {
            self.bytes.drain(..self.start);
            self.start = 0;
            return;
        }
        self.reserve_exact(additional);
    }

    fn reserve_exact(&mut self, additional: usize) {
        if self.bytes.capacity() - self.bytes.len() < additional {
            let capacity = grown_capacity(self.bytes.len() + additional);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    /// Makes a gap of at least `len` bytes before the first element.
    fn widen_gap(&mut self, len: usize) {
        let capacity = grown_capacity(self.byte_len() + len);
        let gap = capacity - self.byte_len();
        let mut bytes = Vec::with_capacity(capacity);
        bytes.resize(gap, 0);
        bytes.extend_from_slice(&self.bytes[self.start..]);
        self.bytes = bytes;
        self.start = gap;
    }
}

impl Clone for Packed {
    /// A copy without gap and spare capacity.
    fn clone(&self) -> Self {
        Self { bytes: self.bytes[self.start..].to_vec(), start: 0, count: self.count }
    }
}

/// A walk over elements from either end.
#[derive(Clone)]
pub(crate) struct Elements<'a> {
    /// The elements that neither end has reached.
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (len, used) = read_length(self.rest.iter());
        let element = &self.rest[used..used + len];
        self.rest = &self.rest[2 * used + len..];
        Some(element)
    }
}

impl DoubleEndedIterator for Elements<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (len, used) = read_length(self.rest.iter().rev());
        let end = self.rest.len() - used;
        let element = &self.rest[end - len..end];
        self.rest = &self.rest[..end - len - used];
        Some(element)
    }
}

/// A length as it is written.
pub(crate) struct Length {
    bytes: [u8; LENGTH_BYTES_MAX],
    used: usize,
}

impl Length {
    #[inline]
    pub(crate) fn of(element: &[u8]) -> Self {
        let mut length = Self { bytes: [0; LENGTH_BYTES_MAX], used: 0 };
        let mut rest = element.len();
        loop {
            let has_more = rest > 0x7f;
            length.bytes[length.used] = (rest & 0x7f) as u8 | u8::from(has_more) << 7;
            length.used += 1;
            rest >>= 7;
            if !has_more {
                return length;
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    fn reverse(&mut self) {
        self.bytes[..self.used].reverse();
    }
}

/// Reads a length and how many bytes it takes, in the direction in which `bytes` runs.
#[inline]
pub(crate) fn read_length<'a>(mut bytes: impl Iterator<Item = &'a u8>) -> (usize, usize) {
    match bytes.next() {
        // Nearly all lengths, without a loop.
        Some(byte) if usize::from(*byte) <= SHORT_MAX => (usize::from(*byte), 1),
        Some(byte) => read_long_length(*byte, bytes),
        None => (0, 0),
    }
}

fn read_long_length<'a>(first: u8, bytes: impl Iterator<Item = &'a u8>) -> (usize, usize) {
    let (mut len, mut used) = (usize::from(first & 0x7f), 1);
    for byte in bytes {
        len |= usize::from(byte & 0x7f) << (7 * used);
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (len, used)
}

/// The bytes that `element` takes in a buffer.
#[inline]
pub(crate) fn element_bytes(element: &[u8]) -> usize {
    let length_bytes = if element.len() <= SHORT_MAX { 1 } else { Length::of(element).used };
    2 * length_bytes + element.len()
}

/// Writes an element into a region of exactly its size.
#[inline]
fn write_element(region: &mut [u8], element: &[u8]) {
    if element.len() <= SHORT_MAX
        && let [first, middle @ .., last] = &mut *region
    {
        (*first, *last) = (element.len() as u8, element.len() as u8);
        middle.copy_from_slice(element);
        return;
    }
    write_long(region, element);
}

fn write_long(region: &mut [u8], element: &[u8]) {
    let mut length = Length::of(element);
    let end = region.len() - length.used;
    region[..length.used].copy_from_slice(length.as_slice());
    region[length.used..end].copy_from_slice(element);
    length.reverse();
    region[end..].copy_from_slice(length.as_slice());
}

fn grown_capacity(needed: usize) -> usize {
    let spare = (needed / GROWTH_SPARE_DIVISOR).min(GROWTH_SPARE_BYTES_MAX);
    (needed + spare).next_multiple_of(GROWTH_STEP_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::Packed;

    #[derive(Clone, Debug)]
    enum Change {
        PushBack(Vec<u8>),
        PushFront(Vec<u8>),
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize, usize),
        RemoveEqual(Vec<u8>, usize, usize),
        Split(bool),
        Clone,
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        // Few short values, so that some are equal, and lengths of one, two and three bytes.
        prop_oneof![vec(0..2_u8, 0..3), vec(any::<u8>(), 120..140), Just(vec![7; 20_000])]
    }

    fn change() -> impl Strategy<Value = Change> {
        let index = || 0..40_usize;
        prop_oneof![
            3 => element().prop_map(Change::PushBack),
            3 => element().prop_map(Change::PushFront),
            1 => (index(), element()).prop_map(|(index, element)| Change::Insert(index, element)),
            1 => (index(), element()).prop_map(|(index, element)| Change::Replace(index, element)),
            2 => (0..4_usize, 0..4_usize).prop_map(|(start, len)| Change::Remove(start, start + len)),
            1 => (index(), index()).prop_map(|(start, len)| Change::Remove(start, start + len)),
            1 => (element(), 0..3_usize, 0..3_usize).prop_map(|(element, skip, max)| Change::RemoveEqual(element, skip, max)),
            1 => any::<bool>().prop_map(Change::Split),
            1 => Just(Change::Clone),
        ]
    }

    fn apply(packed: &mut Packed, model: &mut VecDeque<Vec<u8>>, change: Change) {
        match change {
            Change::PushBack(element) => {
                packed.push_back(&element);
                model.push_back(element);
            }
            Change::PushFront(element) => {
                packed.push_front(&element);
                model.push_front(element);
            }
            Change::Insert(index, element) => {
                let index = index.min(model.len());
                packed.insert(index, &element);
                model.insert(index, element);
            }
            Change::Replace(index, element) if !model.is_empty() => {
                let index = index % model.len();
                packed.replace(index, &element);
                model[index] = element;
            }
            Change::Remove(start, end) => {
                packed.remove(start..end);
                model.drain(start.min(model.len())..end.min(model.len()));
            }
            Change::RemoveEqual(element, skip, max) => {
                let equal: Vec<usize> = (0..model.len()).filter(|index| model[*index] == element).collect();
                assert_eq!(packed.count_equal(&element), equal.len());
                let gone: Vec<usize> = equal.into_iter().skip(skip).take(max).collect();
                assert_eq!(packed.remove_equal(&element, skip, max), gone.len());
                gone.into_iter().rev().for_each(|index| drop(model.remove(index)));
            }
            Change::Split(keep_tail) if model.len() >= 2 => {
                let tail = packed.split_half();
                let model_tail = model.split_off(packed.len());
                assert!(!packed.is_empty() && tail.len() == model_tail.len() && !tail.is_empty());
                if keep_tail {
                    (*packed, *model) = (tail, model_tail);
                }
            }
            Change::Clone => *packed = packed.clone(),
            Change::Replace(..) | Change::Split(_) => {}
        }
    }

    proptest! {
        #[test]
        fn packed_elements_behave_as_a_deque_of_byte_strings(changes in vec(change(), 1..80)) {
            let (mut packed, mut model) = (Packed::new(), VecDeque::new());
            for change in changes {
                apply(&mut packed, &mut model, change);
                prop_assert!(packed.iter().eq(model.iter()));
                prop_assert!(packed.iter().rev().eq(model.iter().rev()));
                prop_assert_eq!(packed.len(), model.len());
                for index in 0..=model.len() {
                    prop_assert_eq!(packed.get(index), model.get(index).map(Vec::as_slice));
                    prop_assert!(packed.iter_to(index).eq(model.iter().take(index)));
                }
            }
            packed.remove(0..model.len());
            prop_assert_eq!(packed.cost_bytes(), 0);
        }
    }

    #[test]
    fn buffer_used_as_a_queue_stays_small() {
        let mut packed = Packed::new();
        for _ in 0..10_000 {
            packed.push_back(b"0123456789");
            if packed.len() > 5 {
                packed.remove(0..1);
            }
        }
        // Live are 72 bytes at most, and the gap is reclaimed once it is as large.
        assert!(packed.cost_bytes() < 200, "{}", packed.cost_bytes());
        for _ in 0..10_000 {
            packed.push_front(b"0123456789");
            packed.remove(5..6);
        }
        assert!(packed.cost_bytes() < 200, "{}", packed.cost_bytes());
    }
}
