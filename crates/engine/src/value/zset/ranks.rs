//! Entries in order, found by rank as quickly as by score.
//!
//! # Guarantees
//! No chunk and no group is empty, a chunk holds at most [`CHUNK_ENTRIES_MAX`] entries and a group at most [`GROUP_CHUNKS_MAX`] chunks.
//!
//! # How it works
//! A B+ tree of fixed height: a list of groups, each a list of chunks, each a list of entries. A group knows how many entries it holds. An entry is
//! found by three binary searches; its rank is the sum of what stands before it, at most 128 chunks and, for a million entries, about a hundred
//! groups. A fixed height costs O(groups) where a taller tree would cost O(log n), but those are adjacent words: at ten million
//! entries the sum takes less time than the cache misses of the search.
//! Entries often arrive in order (times, sequences), so a chunk that overflows at the far end of the list stays full and the next one
//! begins, rather than two halves that no later entry would fill.

use std::ops::Range;
use std::sync::Arc;

use super::compare;

/// 3 KiB of entries: an insertion moves half of them, which costs no more than finding the chunk.
const CHUNK_ENTRIES_MAX: usize = 128;
const GROUP_CHUNKS_MAX: usize = 128;
/// Below a quarter, a chunk or a group joins a neighbour if the two fill at most three quarters: far from the next split.
const QUARTER: usize = 4;

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) score: f64,
    pub(super) member: Arc<[u8]>,
}

impl Entry {
    pub(super) fn as_pair(&self) -> (&[u8], f64) {
        (&self.member, self.score)
    }
}

/// Where an entry is. The place after the last entry is the first one of a group that does not exist.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    group: usize,
    chunk: usize,
    entry: usize,
}

type Chunk = Vec<Entry>;

#[derive(Clone)]
struct Group {
    chunks: Vec<Chunk>,
    /// The entries in all chunks.
    len: usize,
}

#[derive(Clone, Default)]
pub(super) struct Ranks {
    groups: Vec<Group>,
}

impl Ranks {
    /// The entry at a place that has one.
    pub(super) fn get(&self, place: Place) -> &Entry {
        &self.groups[place.group].chunks[place.chunk][place.entry]
    }

    /// The place of the first entry that is not `before`; every entry that is `before` must precede those that are not.
    pub(super) fn partition_point(&self, before: impl Fn(&Entry) -> bool) -> Place {
        let ends_before = |chunk: &Chunk| chunk.last().is_some_and(&before);
        let group = self.groups.partition_point(|group| group.chunks.last().is_some_and(ends_before));
        let Some(chunks) = self.groups.get(group).map(|group| &group.chunks) else { return Place::first_of(group) };
        let chunk = chunks.partition_point(ends_before);
        let entry = chunks.get(chunk).map_or(0, |entries| entries.partition_point(&before));
        Place { group, chunk, entry }
    }

    /// Where an entry is, or would be if it were there.
    pub(super) fn find(&self, member: &[u8], score: f64) -> Place {
        self.partition_point(|entry| compare(entry.as_pair(), (member, score)).is_lt())
    }

    /// How many entries stand before a place.
    pub(super) fn rank_of(&self, place: Place) -> usize {
        let groups: usize = self.groups[..place.group].iter().map(|group| group.len).sum();
        let chunks = self.groups.get(place.group).map_or(0, |group| entries_in(&group.chunks[..place.chunk]));
        groups + chunks + place.entry
    }

    /// The place with this many entries before it; the one after the last for anything beyond.
    pub(super) fn place_of(&self, rank: usize) -> Place {
        let mut left = rank;
        for (group, Group { chunks, len }) in self.groups.iter().enumerate() {
            if left >= *len {
                left -= len;
                continue;
            }
            for (chunk, entries) in chunks.iter().enumerate() {
                if left < entries.len() {
                    return Place { group, chunk, entry: left };
                }
                left -= entries.len();
            }
        }
        Place::first_of(self.groups.len())
    }

    /// The place after one that has an entry.
    pub(super) fn after(&self, place: Place) -> Place {
        let chunks = &self.groups[place.group].chunks;
        if place.entry + 1 < chunks[place.chunk].len() {
            Place { entry: place.entry + 1, ..place }
        } else if place.chunk + 1 < chunks.len() {
            Place { chunk: place.chunk + 1, entry: 0, ..place }
        } else {
            Place::first_of(place.group + 1)
        }
    }

    /// The place before one that is not the first.
    pub(super) fn before(&self, place: Place) -> Place {
        if place.entry > 0 {
            return Place { entry: place.entry - 1, ..place };
        }
        let (group, chunk) = if place.chunk > 0 {
            (place.group, place.chunk - 1)
        } else {
            (place.group - 1, self.groups[place.group - 1].chunks.len() - 1)
        };
        Place { group, chunk, entry: self.groups[group].chunks[chunk].len() - 1 }
    }

    /// Adds an entry that is absent.
    pub(super) fn insert(&mut self, entry: Entry) {
        let mut place = self.find(&entry.member, entry.score);
        if place.group == self.groups.len() {
            match self.end_of_last_chunk() {
                Some(end) => place = end,
                None => self.groups.push(Group { chunks: vec![Chunk::new()], len: 0 }),
            }
        }
        let group = &mut self.groups[place.group];
        group.len += 1;
        let chunk = &mut group.chunks[place.chunk];
        if chunk.len() == CHUNK_ENTRIES_MAX {
            // By itself it would double, for the moment until it is split.
            chunk.reserve_exact(1);
        }
        chunk.insert(place.entry, entry);
        if chunk.len() > CHUNK_ENTRIES_MAX {
            self.split(place);
        }
    }

    /// Removes an entry that is there.
    pub(super) fn remove(&mut self, member: &[u8], score: f64) {
        let place = self.find(member, score);
        self.take(place);
    }

    /// Gives an entry that is there another score.
    pub(super) fn change_score(&mut self, member: &[u8], old: f64, score: f64) {
        let place = self.find(member, old);
        let chunk = &mut self.groups[place.group].chunks[place.chunk];
        // A small step often changes no rank: a counter among others far apart.
        if let (Some(previous), Some(next)) = (place.entry.checked_sub(1), chunk.get(place.entry + 1))
            && compare((member, score), next.as_pair()).is_lt()
            && compare(chunk[previous].as_pair(), (member, score)).is_lt()
        {
            chunk[place.entry].score = score;
            return;
        }
        let entry = self.take(place);
        self.insert(Entry { score, ..entry });
    }

    /// Removes the entries with these ranks, all of which are there, and shows each.
    pub(super) fn remove_range(&mut self, ranks: Range<usize>, mut removed: impl FnMut(Entry)) {
        let mut left = ranks.len();
        while left > 0 {
            let place = self.place_of(ranks.start);
            let group = &mut self.groups[place.group];
            let chunk = &mut group.chunks[place.chunk];
            let count = left.min(chunk.len() - place.entry);
            chunk.drain(place.entry..place.entry + count).for_each(&mut removed);
            group.len -= count;
            left -= count;
            self.mend(place);
        }
    }

    fn end_of_last_chunk(&self) -> Option<Place> {
        let group = self.groups.len().checked_sub(1)?;
        let chunk = self.groups[group].chunks.len() - 1;
        Some(Place { group, chunk, entry: self.groups[group].chunks[chunk].len() })
    }

    fn take(&mut self, place: Place) -> Entry {
        let group = &mut self.groups[place.group];
        let entry = group.chunks[place.chunk].remove(place.entry);
        group.len -= 1;
        self.mend(place);
        entry
    }

    /// Makes two of a chunk that overflowed when an entry was put at `place`, and two of its group if that overflows in turn.
    fn split(&mut self, place: Place) {
        let is_last_group = place.group + 1 == self.groups.len();
        let group = &mut self.groups[place.group];
        let is_last_chunk = is_last_group && place.chunk + 1 == group.chunks.len();
        let is_first_chunk = place.group == 0 && place.chunk == 0;
        let chunk = &mut group.chunks[place.chunk];
        let middle = if is_last_chunk && place.entry + 1 == chunk.len() {
            chunk.len() - 1
        } else if is_first_chunk && place.entry == 0 {
            1
        } else {
            chunk.len() / 2
        };
        let right = chunk.split_off(middle);
        chunk.shrink_to(CHUNK_ENTRIES_MAX);
        group.chunks.insert(place.chunk + 1, right);
        if group.chunks.len() > GROUP_CHUNKS_MAX {
            let middle = if is_last_chunk { group.chunks.len() - 1 } else { group.chunks.len() / 2 };
            let chunks = group.chunks.split_off(middle);
            let len = entries_in(&chunks);
            group.len -= len;
            self.groups.insert(place.group + 1, Group { chunks, len });
        }
    }

    /// Restores the guarantees after a removal at `place`.
    fn mend(&mut self, place: Place) {
        let group = &mut self.groups[place.group];
        let entries = group.chunks[place.chunk].len();
        if entries == 0 {
            group.chunks.remove(place.chunk);
        } else if entries < CHUNK_ENTRIES_MAX / QUARTER {
            join_neighbour(&mut group.chunks, place.chunk, CHUNK_ENTRIES_MAX, Vec::len, |left, mut right| {
                left.append(&mut right);
            });
        }
        if group.chunks.is_empty() {
            self.groups.remove(place.group);
        } else if group.chunks.len() < GROUP_CHUNKS_MAX / QUARTER {
            let chunks_in = |group: &Group| group.chunks.len();
            join_neighbour(&mut self.groups, place.group, GROUP_CHUNKS_MAX, chunks_in, |left, mut right| {
                left.chunks.append(&mut right.chunks);
                left.len += right.len;
            });
        }
    }
}

impl Place {
    fn first_of(group: usize) -> Self {
        Self { group, chunk: 0, entry: 0 }
    }
}

fn entries_in(chunks: &[Chunk]) -> usize {
    chunks.iter().map(Vec::len).sum()
}

/// Joins the item at `index` with the next or else the previous one, if the two are well below `len_max` together.
fn join_neighbour<T>(
    items: &mut Vec<T>,
    index: usize,
    len_max: usize,
    len: impl Fn(&T) -> usize,
    join: impl FnOnce(&mut T, T),
) {
    let fits = |left: usize| {
        let both = items.get(left).zip(items.get(left + 1));
        both.is_some_and(|(left, right)| len(left) + len(right) <= len_max - len_max / QUARTER)
    };
    let left = if fits(index) { Some(index) } else { index.checked_sub(1).filter(|left| fits(*left)) };
    if let Some(left) = left {
        let right = items.remove(left + 1);
        join(&mut items[left], right);
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_ENTRIES_MAX, Entry, GROUP_CHUNKS_MAX, Ranks};

    /// Enough entries for several groups.
    const MANY: u32 = 40_000;

    fn add(ranks: &mut Ranks, number: u32) {
        ranks.insert(Entry { score: f64::from(number), member: number.to_be_bytes().as_slice().into() });
    }

    fn check(ranks: &Ranks) {
        for group in &ranks.groups {
            assert!((1..=GROUP_CHUNKS_MAX).contains(&group.chunks.len()));
            assert_eq!(group.len, group.chunks.iter().map(Vec::len).sum::<usize>());
            assert!(group.chunks.iter().all(|chunk| (1..=CHUNK_ENTRIES_MAX).contains(&chunk.len())));
        }
    }

    fn chunks(ranks: &Ranks) -> usize {
        ranks.groups.iter().map(|group| group.chunks.len()).sum()
    }

    #[test]
    fn entries_that_arrive_in_order_fill_their_chunks() {
        let (mut up, mut down) = (Ranks::default(), Ranks::default());
        (0..MANY).for_each(|number| add(&mut up, number));
        (0..MANY).rev().for_each(|number| add(&mut down, number));
        for ranks in [&up, &down] {
            check(ranks);
            assert_eq!(chunks(ranks), (MANY as usize).div_ceil(CHUNK_ENTRIES_MAX));
        }
    }

    #[test]
    fn entries_of_several_groups_are_found_by_rank_and_by_score() {
        let mut ranks = Ranks::default();
        // 7,919 is a prime that does not divide the number of entries, so this is each of them once.
        (0..MANY).for_each(|step| add(&mut ranks, step * 7_919 % MANY));
        check(&ranks);
        assert!(ranks.groups.len() > 2, "{}", ranks.groups.len());
        let mut place = ranks.place_of(0);
        for number in 0..MANY {
            assert_eq!(ranks.get(place).score, f64::from(number));
            assert_eq!(ranks.rank_of(place), number as usize);
            assert_eq!(ranks.place_of(number as usize), place);
            assert_eq!(ranks.find(&number.to_be_bytes(), f64::from(number)), place);
            let after = ranks.after(place);
            assert!(number + 1 == MANY || ranks.before(after) == place);
            place = after;
        }
        assert_eq!(ranks.place_of(MANY as usize), place);
    }

    #[test]
    fn thinned_out_chunks_and_groups_join() {
        let mut ranks = Ranks::default();
        (0..MANY).for_each(|number| add(&mut ranks, number));
        for number in (0..MANY).filter(|number| number % 100 != 0) {
            ranks.remove(&number.to_be_bytes(), f64::from(number));
        }
        check(&ranks);
        assert_eq!(ranks.groups.len(), 1);
        assert!(chunks(&ranks) < 20, "{}", chunks(&ranks));
        let mut removed = Vec::new();
        ranks.remove_range(1..399, |entry| removed.push(entry.score as u32));
        assert_eq!(removed, (1..399).map(|hundreds| hundreds * 100).collect::<Vec<_>>());
        check(&ranks);
        ranks.remove_range(0..2, drop);
        assert!(ranks.groups.is_empty());
    }

    #[test]
    fn changed_score_moves_the_entry_wherever_it_belongs() {
        let mut ranks = Ranks::default();
        (0..1_000).for_each(|number| add(&mut ranks, number * 2));
        let member = 500_u32.to_be_bytes();
        let mut old = 500.0;
        for (score, rank) in [(501.0, 250), (500.0, 250), (9_999.0, 999), (-1.0, 0), (3.5, 2)] {
            ranks.change_score(&member, old, score);
            assert_eq!(ranks.rank_of(ranks.find(&member, score)), rank);
            old = score;
        }
        check(&ranks);
    }
}
