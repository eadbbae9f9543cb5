//! The large form of sets and hashes: rows in a dense array, found by their key through a hash table.
//!
//! # Guarantees
//! Every operation on one row is constant time on average. A scan visits every row that is there from its first page to its last,
//! whatever is added and removed between the pages, and ends.
//!
//! # How it works
//! Removing a row moves the last one into its place. A scan runs from the end of the array to its start, and its cursor is the
//! number of rows it has still before it: a row that moves comes from the part already visited, or from one unvisited place to another.

use std::borrow::Borrow;
use std::hash::Hash;

use foldhash::quality::RandomState;
use indexmap::IndexSet;
use indexmap::set::MutableValues;

use crate::entry::allocation_cost_bytes;
use crate::segment::capacity_if_sparse;

/// A full array grows by one place in so many. Doubling, as it would by itself, leaves nearly a third of it unused on average.
const GROWTH_DIVISOR: usize = 4;

/// What a row costs in the array besides itself: its hash.
const HASH_BYTES: usize = 8;

/// A place in the index: the number of a row, and a tag.
const INDEX_PLACE_BYTES: usize = 9;

/// Tags behind the last one of an index, so that a group of them can be read from anywhere.
const INDEX_END_BYTES: usize = 16;

/// The smallest index.
const INDEX_PLACES_MIN: usize = 4;

/// What a table holds; it hashes and compares as the key that it lends.
pub(crate) trait Row: Borrow<[u8]> + Hash + Eq + Clone {
    /// Bytes that the row has allocated.
    fn heap_bytes(&self) -> usize;
}

impl Row for Box<[u8]> {
    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

/// Rows with different keys. The hash seed is the table's own; it shows in nothing that a caller sees.
#[derive(Clone)]
pub(crate) struct Table<T> {
    rows: IndexSet<T, RandomState>,
    heap_bytes: u64,
}

impl<T: Row> Table<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { rows: IndexSet::with_capacity_and_hasher(capacity, RandomState::default()), heap_bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        self.rows.get(key)
    }

    /// Lets `change` make the row of `key` another one with the same key. Returns whether there is one.
    pub(crate) fn update(&mut self, key: &[u8], change: impl FnOnce(&mut T)) -> bool {
        let row = self.rows.get_index_of(key).and_then(|index| self.rows.get_index_mut2(index));
        let Some(row) = row else { return false };
        let before = heap_cost_bytes(row);
        change(row);
        debug_assert!(*<T as Borrow<[u8]>>::borrow(row) == *key, "a row keeps its key");
        self.heap_bytes = self.heap_bytes + heap_cost_bytes(row) - before;
        true
    }

    pub(crate) fn get_index(&self, index: usize) -> Option<&T> {
        self.rows.get_index(index)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.rows.contains(key)
    }

    pub(crate) fn iter(&self) -> indexmap::set::Iter<'_, T> {
        self.rows.iter()
    }

    /// Puts the row in the place of the one with the same key, or at the end. Returns whether the key is new.
    pub(crate) fn insert(&mut self, row: T) -> bool {
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact(1 + self.rows.len() / GROWTH_DIVISOR);
        }
        self.heap_bytes += heap_cost_bytes(&row);
        let (_, old) = self.rows.replace_full(row);
        self.heap_bytes -= old.as_ref().map_or(0, heap_cost_bytes);
        old.is_none()
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<T> {
        let row = self.rows.swap_take(key);
        self.removed(row)
    }

    pub(crate) fn remove_index(&mut self, index: usize) -> Option<T> {
        let row = self.rows.swap_remove_index(index);
        self.removed(row)
    }

    /// Shows up to `count` rows to `visit`, at least one, and returns the cursor to go on with; 0 starts and means the end.
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&T)) -> u64 {
        let before = match usize::try_from(cursor) {
            Ok(0) | Err(_) => self.rows.len(),
            Ok(before) => before.min(self.rows.len()),
        };
        let next = before.saturating_sub(count.max(1));
        self.rows[next..before].iter().rev().for_each(&mut visit);
        next as u64
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        let capacity = self.rows.capacity();
        if capacity == 0 {
            return self.heap_bytes;
        }
        // The index is a power of two, of which seven places in eight may be used.
        let index_places = (capacity * 8).div_ceil(7).next_power_of_two().max(INDEX_PLACES_MIN);
        let index_bytes = index_places * INDEX_PLACE_BYTES + INDEX_END_BYTES;
        let rows_bytes = capacity * (size_of::<T>() + HASH_BYTES);
        (rows_bytes + index_bytes) as u64 + self.heap_bytes
    }

    fn removed(&mut self, row: Option<T>) -> Option<T> {
        self.heap_bytes -= row.as_ref().map_or(0, heap_cost_bytes);
        if self.rows.is_empty() {
            self.rows.shrink_to_fit();
        } else if let Some(capacity) = capacity_if_sparse(self.rows.len(), self.rows.capacity()) {
            self.rows.shrink_to(capacity);
        }
        row
    }
}

fn heap_cost_bytes(row: &impl Row) -> u64 {
    allocation_cost_bytes(row.heap_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::{prop_assert, proptest};

    use super::Table;

    fn row(number: u16) -> Box<[u8]> {
        number.to_le_bytes().into()
    }

    proptest! {
        #[test]
        fn scan_visits_what_stays_while_other_rows_come_and_go(
            staying in vec(0..200_u16, 0..100),
            pages in vec((1..20_usize, vec((any::<bool>(), 0..400_u16), 0..30)), 1..10),
        ) {
            let staying: BTreeSet<u16> = staying.into_iter().collect();
            let mut table = Table::with_capacity(0);
            (0..300).for_each(|number| assert!(table.insert(row(number))));
            let mut visited = BTreeSet::new();
            let mut cursor = 0;
            let mut pages = pages.into_iter();
            loop {
                let (count, changes) = pages.next().unwrap_or((7, Vec::new()));
                let next = table.scan(cursor, count, |row| visited.extend([row.clone()]));
                prop_assert!(next == 0 || cursor == 0 || next < cursor);
                cursor = next;
                if cursor == 0 {
                    break;
                }
                for (add, number) in changes.into_iter().filter(|(_, number)| !staying.contains(number)) {
                    if add {
                        table.insert(row(number));
                    } else {
                        table.remove(&row(number));
                    }
                }
            }
            prop_assert!(staying.iter().all(|number| visited.contains(&row(*number))));
        }

        #[test]
        fn any_cursor_is_taken(cursor in any::<u64>(), count in any::<usize>()) {
            let mut table = Table::with_capacity(0);
            (0..10).for_each(|number| assert!(table.insert(row(number))));
            let mut visited = 0;
            let next = table.scan(cursor, count, |_| visited += 1);
            prop_assert!(next < 10 && visited >= 1);
        }
    }

    #[test]
    fn emptied_table_gives_everything_back() {
        let mut table = Table::with_capacity(0);
        (0..5_000).for_each(|number| assert!(table.insert(row(number))));
        assert!(table.cost_bytes() > 5_000 * 40);
        (10..5_000).for_each(|number| assert!(table.remove(&row(number)).is_some()));
        assert!(table.cost_bytes() < 5_000, "{}", table.cost_bytes());
        (0..10).for_each(|_| assert!(table.remove_index(0).is_some()));
        assert_eq!(table.cost_bytes(), 0);
        assert_eq!(table.scan(0, 10, |_| panic!("there is nothing to visit")), 0);
    }
}
