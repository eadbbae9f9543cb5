use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{CELL_BYTES_MAX, CHUNK_BYTES_MAX, Cells, Location, OFFSET_STEP, cell_bytes, chunk_bytes};
use crate::entry::{Entry, EntryRef, StrEntry, StrParts, Usage};

fn string<'p>(key: &'p [u8], parts: &'p [&'p [u8]]) -> StrParts<'p> {
    StrParts { key, parts, expires_at_ms: None, usage: Usage::default() }
}

fn add(cells: &mut Cells, serial: u32, value_len: usize) -> Location {
    cells.add_str(&string(&serial.to_le_bytes(), &[&vec![serial as u8; value_len]]))
}

/// Serial number and length of the value at a location.
fn look(cells: &Cells, location: Location) -> Option<(u32, usize)> {
    match cells.get(location)? {
        EntryRef::Str(string) => {
            let serial = u32::from_le_bytes(string.key().try_into().expect("four bytes"));
            assert!(string.value().iter().all(|byte| *byte == serial as u8), "the value of another one");
            Some((serial, string.value().len()))
        }
        EntryRef::Collection(_) => None,
    }
}

/// The bytes of all chunks, and those of them that are cells in use.
fn chunk_use(cells: &Cells) -> (usize, usize) {
    let all = cells.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    let Some(rest) = &cells.rest else { return (all, 0) };
    let used = rest.pools.iter().map(|pool| {
        let full: usize =
            pool.chunks[..pool.full].iter().map(|number| cells.chunks[*number as usize].bytes.len()).sum();
        full + pool.used * pool.cell_bytes
    });
    (all, used.sum())
}

#[derive(Clone, Debug)]
enum Change {
    Add(usize),
    Remove(usize),
    /// To another length, if it fits there.
    Rewrite(usize, usize),
}

fn len() -> impl Strategy<Value = usize> {
    // Of few sizes, so that pools grow, and of all.
    prop_oneof![0..40_usize, 200..260_usize, 500..530_usize, 1_000..1_030_usize, 0..2_000_usize]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => len().prop_map(Change::Add),
        3 => any::<usize>().prop_map(Change::Remove),
        1 => (any::<usize>(), len()).prop_map(|(position, len)| Change::Rewrite(position, len)),
    ]
}

proptest! {
    #[test]
    fn entries_stay_as_they_are_whatever_happens_to_others(changes in vec(change(), 1..300)) {
        let mut cells = Cells::default();
        let mut model: Vec<(Location, u32, usize)> = Vec::new();
        for (serial, change) in (0..).zip(changes) {
            match change {
                Change::Add(len) => model.push((add(&mut cells, serial, len), serial, len)),
                Change::Remove(position) if !model.is_empty() => {
                    let position = position % model.len();
                    let (location, serial, len) = model.swap_remove(position);
                    let (boxed, moved) = cells.remove(location);
                    // What is returned is what was there.
                    prop_assert_eq!(boxed.is_some(), len + 12 > CELL_BYTES_MAX);
                    if let Some(Entry::Str(boxed)) = &boxed {
                        prop_assert_eq!(boxed.view().key(), serial.to_le_bytes());
                    }
                    if let Some(moved) = moved {
                        prop_assert_eq!(moved.to, location);
                        let other = model.iter_mut().find(|(location, ..)| *location == moved.from);
                        other.expect("what moves is there").0 = moved.to;
                    }
                }
                Change::Rewrite(position, len) if !model.is_empty() => {
                    let position = position % model.len();
                    let (location, serial, len_before) = model[position];
                    let fits = cells.rewrite(location, &string(&serial.to_le_bytes(), &[&vec![serial as u8; len]]));
                    let both_in_cells = len.max(len_before) + 12 <= CELL_BYTES_MAX;
                    prop_assert_eq!(fits, both_in_cells && cell_bytes(len + 12) == cell_bytes(len_before + 12));
                    if fits {
                        model[position].2 = len;
                    }
                }
                Change::Remove(_) | Change::Rewrite(..) => {}
            }
            for (location, serial, len) in &model {
                prop_assert_eq!(look(&cells, *location), Some((*serial, *len)));
            }
            let in_cells: usize =
                model.iter().map(|(_, _, len)| len + 12).filter(|len| *len <= CELL_BYTES_MAX).map(cell_bytes).sum();
            prop_assert_eq!(chunk_use(&cells).1, in_cells);
        }
        for position in (0..model.len()).rev() {
            let (location, ..) = model[position];
            if let (_, Some(moved)) = cells.remove(location) {
                model.iter_mut().find(|(location, ..)| *location == moved.from).expect("it is there").0 = moved.to;
            }
            model.pop();
        }
        prop_assert_eq!(chunk_use(&cells), (0, 0));
        prop_assert!(cells.chunks.is_empty());
    }
}

#[test]
fn little_is_allocated_that_is_not_used() {
    for len in [12, 28, 76, 268, 900] {
        let mut cells = Cells::default();
        let mut spare = Vec::new();
        for serial in 0..20_000 {
            add(&mut cells, serial, len);
            let (all, used) = chunk_use(&cells);
            assert!(all - used <= used / 12 + CELL_BYTES_MAX, "{len}: {used} of {all} after {serial}");
            if serial > 500 {
                spare.push((all - used) as f64 / used as f64);
            }
            // Looking at all chunks each time takes its time.
            if serial > 3_000 {
                break;
            }
        }
        let average = spare.iter().sum::<f64>() / spare.len() as f64;
        assert!(average < 0.05, "{average} of cells of {len} bytes");
    }
}

/// A segment whose last key came and went once allocated and freed a chunk each time.
#[test]
fn chunk_is_not_given_back_that_is_needed_at_once_again() {
    let mut cells = Cells::default();
    let mut locations: Vec<_> =
        (0..).map(|serial| add(&mut cells, serial, 20)).take_while(|_| true).take(300).collect();
    // To the beginning of a chunk.
    while cells.rest.as_ref().expect("it has cells").pools[0].used != 1 {
        locations.push(add(&mut cells, 1_000, 20));
    }
    let chunk = |cells: &Cells| cells.chunks.iter().map(|chunk| chunk.bytes.as_ptr()).collect::<Vec<_>>();
    let before = chunk(&cells);
    for _ in 0..100 {
        let last = locations.pop().expect("there are some");
        assert_eq!(cells.remove(last).1, None, "it was the last one");
        locations.push(add(&mut cells, 2_000, 20));
        assert_eq!(chunk(&cells), before);
    }
}

#[test]
fn every_cell_of_every_chunk_has_a_location_of_its_own() {
    for len in 12..=CELL_BYTES_MAX {
        let size = cell_bytes(len);
        assert!(size >= len && size.is_multiple_of(OFFSET_STEP) && size <= CELL_BYTES_MAX && size - len < 32);
        assert_eq!(cell_bytes(size), size);
        for before in [0, 1, 5_000, 100_000, usize::MAX] {
            let bytes = chunk_bytes(before, size);
            assert!(bytes >= size && bytes <= CHUNK_BYTES_MAX && bytes.is_multiple_of(size));
        }
    }
    for (chunk, offset) in [(0, 0), (1, 8), (524_287, 32_760)] {
        let location = Location::of_cell(chunk, offset);
        assert_eq!((location.chunk(), location.offset(), location.boxed()), (chunk as usize, offset, None));
    }
    assert_eq!(Location::of_boxed(12).boxed(), Some(12));
}

#[test]
fn strings_that_come_with_an_allocation_lie_in_cells_as_well() {
    let mut cells = Cells::default();
    let location = cells.add(Entry::Str(StrEntry::new(&7_u32.to_le_bytes(), &[&[7; 33]], Some(9))));
    assert_eq!(location.boxed(), None);
    assert_eq!(look(&cells, location), Some((7, 33)));
    assert_eq!(cells.get(location).and_then(EntryRef::expires_at_ms), Some(9));
    let locations: HashMap<_, _> = (0..100).map(|serial| (add(&mut cells, serial, 2_000).boxed(), serial)).collect();
    assert_eq!(locations.len(), 100);
}
