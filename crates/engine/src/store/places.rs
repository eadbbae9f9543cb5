//! Finds entries by hash: a table of eight bytes per place, in the order of the hashes.
//!
//! # Guarantees
//! Entries are visited in ascending order of the lowest 32 bits of their hashes, whatever the size of the table. Growing and shrinking read no
//! entry, and copy each place once, from one end of the table to the other.
//!
//! # How it works
//! Linear probing, ordered: an entry lies at the place that its hash bits give, or behind it if others have come before, and all lie in the order
//! of these bits. So a search ends at the first greater one, and a table of another size is a copy with other gaps.
//! ```text
//!  place  0    1    2    3    4    5    6    7    8    9 ..
//!       ┌────┬────┬────┬────┬────┬────┬────┬────┬────┬────┐
//!       │ 03 │ 05 │ 11 │    │    │ 51 │ 52 │ 6a │    │    │     eight homes for hash bits from 00 to ff
//!       └────┴────┴────┴────┴────┴────┴────┴────┴────┴────┘
//! ```
//! Both halves of a place are in one word: the hash bits, and where the entry lies. A search reads one line of a cache, seldom two, and
//! an entry only if all of its 32 bits agree. Behind the last home are some places more, of which the last one is always empty: no search
//! and no shift has to look for the end.
//!
//! At most six homes in seven are taken. Sizes are those that allocators have, four to a doubling: between growths a table is
//! about four fifths full. Ten bytes a key, where a table of buckets with tags that doubles takes 19 to 39.

use std::mem;
use std::ops::Range;

use super::Location;

/// The smallest table.
const PLACES_MIN: usize = 12;

/// Of so many homes, one stays empty at least.
const HOMES_PER_GAP: usize = 7;

/// Behind the last home is one place for so many, and some more.
const HOMES_PER_SPILL: usize = 32;
const SPILL_MIN: usize = 4;

/// A place of the table: the hash bits in the upper half, where the entry lies in the lower one. Ordered by the hash bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u64);

impl Place {
    /// Greater than all others: a search ends here by itself.
    const EMPTY: Self = Self(u64::MAX);

    fn new(bits: u32, location: Location) -> Self {
        Self(u64::from(bits) << 32 | u64::from(location.0))
    }

    #[inline]
    fn bits(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn location(self) -> Location {
        // Truncated on purpose: the other half is the hash bits.
        Location(self.0 as u32)
    }
}

/// The bits of a hash that order a table. The highest number is that of empty places.
#[inline]
pub(crate) fn hash_bits(hash: u64) -> u32 {
    // Truncated on purpose: what is above chooses the segment.
    (hash as u32).min(u32::MAX - 1)
}

/// The table. Its places are numbered; a number is good until the next insertion, removal or change of size.
#[derive(Default)]
pub(crate) struct Places {
    places: Box<[Place]>,
    /// Places at which a search may begin.
    homes: u32,
    len: u32,
}

/// Where an entry goes: entries from `at` on, up to the empty place, make room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    at: usize,
    empty: usize,
}

impl Places {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// How many places there are, taken or not.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// How many entries fit before it grows.
    pub(super) fn capacity(&self) -> usize {
        let homes = self.homes as usize;
        homes - homes.div_ceil(HOMES_PER_GAP)
    }

    pub(super) fn bytes(&self) -> u64 {
        size_of_val(&*self.places) as u64
    }

    /// By how many places it becomes larger at most when it grows: a crowded one may leave out a size.
    pub(super) fn growth(&self) -> usize {
        larger(larger(self.count())) - self.count()
    }

    /// What so many places take.
    #[inline]
    pub(super) fn bytes_of(places: usize) -> u64 {
        (places * size_of::<Place>()) as u64
    }

    #[inline]
    pub(super) fn get(&self, number: usize) -> Option<Location> {
        self.places.get(number).filter(|place| **place != Place::EMPTY).map(|place| place.location())
    }

    /// The hash bits of the entry in a place.
    pub(super) fn bits(&self, number: usize) -> Option<u32> {
        self.places.get(number).filter(|place| **place != Place::EMPTY).map(|place| place.bits())
    }

    /// The first entry with these hash bits that `is_it`. It says so with whatever it found.
    #[inline]
    pub(super) fn find<T>(&self, bits: u32, mut is_it: impl FnMut(Location) -> Option<T>) -> Option<(usize, T)> {
        // Whole words are compared: one instruction for each place that lies before it.
        let lowest = u64::from(bits) << 32;
        let mut number = self.home(bits);
        while self.places.get(number)?.0 < lowest {
            number += 1;
        }
        loop {
            let place = self.places.get(number).filter(|place| place.bits() == bits)?;
            if let Some(found) = is_it(place.location()) {
                return Some((number, found));
            }
            number += 1;
        }
    }

    /// Reads a byte of the line where a search for these hash bits begins.
    #[cfg(feature = "commands")]
    #[inline]
    pub(super) fn touch(&self, bits: u32) -> u8 {
        // Truncated on purpose: any byte will do.
        self.places.get(self.home(bits)).map_or(0, |place| place.0 as u8)
    }

    /// The entry that lies at `from` lies at `to` now.
    pub(super) fn relocate(&mut self, bits: u32, from: Location, to: Location) {
        let found = self.find(bits, |location| (location == from).then_some(()));
        let (number, ()) = found.expect("what lies somewhere has a place");
        self.places[number] = Place::new(bits, to);
    }

    /// The entry in a place lies at `to` now.
    pub(super) fn set(&mut self, number: usize, to: Location) {
        self.places[number] = Place::new(self.places[number].bits(), to);
    }

    /// Where an entry with these hash bits goes; `None` if the table has to grow first.
    pub(super) fn gap(&self, bits: u32) -> Option<Gap> {
        if self.len() >= self.capacity() {
            return None;
        }
        let home = self.home(bits);
        let at = home + self.places[home..].iter().position(|place| place.bits() > bits)?;
        let empty = at + self.places[at..].iter().position(|place| *place == Place::EMPTY)?;
        // The last one stays empty.
        (empty + 1 < self.places.len()).then_some(Gap { at, empty })
    }

    /// Puts an entry into its gap. Returns its place; entries in the range have moved one place up, into the one behind it.
    pub(super) fn insert(&mut self, gap: Gap, bits: u32, location: Location) -> (usize, Range<usize>) {
        let Gap { at, empty } = gap;
        self.places.copy_within(at..empty, at + 1);
        self.places[at] = Place::new(bits, location);
        self.len += 1;
        (at, at..empty)
    }

    /// Empties a place. Entries in the range have moved one place down, into the one before it.
    pub(super) fn remove(&mut self, number: usize) -> Range<usize> {
        let next = number + 1;
        let stays = |at: &usize| {
            let place = self.places[*at];
            place == Place::EMPTY || self.home(place.bits()) == *at
        };
        let end = (next..self.places.len()).find(stays).expect("the last place is empty");
        self.places.copy_within(next..end, number);
        self.places[end - 1] = Place::EMPTY;
        self.len -= 1;
        next..end
    }

    /// Makes the table larger. Returns the one before, see [`moves_from`](Self::moves_from).
    pub(super) fn grow(&mut self) -> Self {
        self.resize(larger(self.count()))
    }

    /// Makes the table as small as it can be for `capacity` entries, of which it has no more.
    pub(super) fn shrink_to(&mut self, capacity: usize) -> Self {
        if self.len == 0 && capacity == 0 {
            return mem::take(self);
        }
        let mut count = PLACES_MIN;
        while Self::without_places(count).capacity() < capacity.max(self.len()) {
            count = larger(count);
        }
        self.resize(count)
    }

    /// From which place to which one each entry went when the table took the place of another one, in ascending order.
    pub(super) fn moves_from(&self, before: &Self) -> impl Iterator<Item = (usize, usize)> {
        before.numbers().zip(self.numbers())
    }

    /// Hash bits and location of all entries, in ascending order of the bits, from `bits` on.
    pub(super) fn iter_from(&self, bits: u32) -> impl Iterator<Item = (u32, Location)> {
        let home = self.home(bits).min(self.places.len());
        let taken = self.places[home..].iter().filter(|place| **place != Place::EMPTY);
        taken.map(|place| (place.bits(), place.location())).skip_while(move |(other, _)| *other < bits)
    }

    #[inline]
    fn home(&self, bits: u32) -> usize {
        ((u64::from(bits) * u64::from(self.homes)) >> 32) as usize
    }

    /// A table that will have so many places.
    fn without_places(count: usize) -> Self {
        let homes = (count - 1 - SPILL_MIN) * HOMES_PER_SPILL / (HOMES_PER_SPILL + 1);
        // Fits: there are not more than locations, of which there are 2^32.
        Self { places: Box::default(), homes: homes as u32, len: 0 }
    }

    fn resize(&mut self, mut count: usize) -> Self {
        loop {
            let mut new = Self::without_places(count);
            new.places = vec![Place::EMPTY; count].into_boxed_slice();
            if new.copy_from(self) {
                return mem::replace(self, new);
            }
            // So many are crowded at the end that they do not fit behind it: nearly impossible, and the next size has more room there.
            count = larger(count);
        }
    }

    /// The places that are taken.
    fn numbers(&self) -> impl Iterator<Item = usize> {
        self.places.iter().enumerate().filter(|(_, place)| **place != Place::EMPTY).map(|(number, _)| number)
    }

    /// Takes all entries of another table. Returns whether they fit.
    fn copy_from(&mut self, other: &Self) -> bool {
        let mut free = 0;
        let last = self.places.len() - 1;
        for place in other.places.iter().filter(|place| **place != Place::EMPTY) {
            let at = self.home(place.bits()).max(free);
            if at >= last {
                return false;
            }
            self.places[at] = *place;
            free = at + 1;
        }
        self.len = other.len;
        true
    }
}

/// The next size: the smallest of the sizes 2^n, 5/4 of it, 6/4, 7/4 that is greater.
fn larger(count: usize) -> usize {
    if count < PLACES_MIN {
        return PLACES_MIN;
    }
    let step = 1 << (count.ilog2() - 2);
    (count / step + 1) * step
}

#[cfg(test)]
mod tests;
