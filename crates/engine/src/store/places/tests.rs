use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{Location, PLACES_MIN, Place, Places, larger};

#[derive(Clone, Debug)]
enum Change {
    Insert(u32),
    /// The entry at this position, of those that there are.
    Remove(usize),
    Shrink,
}

/// Hash bits of all kinds: spread, crowded at one place, and at both ends.
fn bits() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 7_000..7_040_u32, 0..3_u32, u32::MAX - 4..u32::MAX]
        .prop_map(|bits| bits.min(u32::MAX - 1))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => bits().prop_map(Change::Insert),
        3 => any::<usize>().prop_map(Change::Remove),
        1 => any::<bool>().prop_map(|_| Change::Shrink),
    ]
}

fn insert(places: &mut Places, bits: u32, location: Location) -> usize {
    let gap = loop {
        match places.gap(bits) {
            Some(gap) => break gap,
            None => drop(places.grow()),
        }
    };
    let before: Vec<_> = (0..places.count()).map(|number| places.get(number)).collect();
    let (number, moved) = places.insert(gap, bits, location);
    // What it says of the others is so.
    for (at, entry) in before.into_iter().enumerate().filter(|(_, entry)| entry.is_some()) {
        assert_eq!(places.get(at + usize::from(moved.contains(&at))), entry);
    }
    number
}

fn remove(places: &mut Places, number: usize) {
    let before: Vec<_> = (0..places.count()).map(|number| places.get(number)).collect();
    let moved = places.remove(number);
    for (at, entry) in before.into_iter().enumerate().filter(|(at, entry)| *at != number && entry.is_some()) {
        assert_eq!(places.get(at - usize::from(moved.contains(&at))), entry);
    }
}

/// Each entry is found from its home on, in order, and the last place is empty.
fn check(places: &Places) {
    let taken: Vec<(usize, Place)> = (0..places.count())
        .filter(|number| places.get(*number).is_some())
        .map(|number| (number, places.places[number]))
        .collect();
    assert_eq!(taken.len(), places.len());
    assert!(taken.is_sorted_by_key(|(_, place)| place.bits()));
    for (number, place) in taken {
        let home = places.home(place.bits());
        assert!((home..number).all(|between| places.get(between).is_some()), "a gap before {number} from {home}");
    }
    assert!(places.places.last().is_none_or(|last| *last == Place::EMPTY));
}

proptest! {
    #[test]
    fn entries_are_found_as_in_a_map_and_in_order(changes in vec(change(), 1..400)) {
        let mut places = Places::default();
        let mut model: BTreeMap<(u32, u32), ()> = BTreeMap::new();
        for (serial, change) in (0..).zip(changes) {
            match change {
                Change::Insert(bits) => {
                    let number = insert(&mut places, bits, Location(serial));
                    prop_assert_eq!(places.get(number), Some(Location(serial)));
                    model.insert((bits, serial), ());
                }
                Change::Remove(position) if !model.is_empty() => {
                    let (bits, serial) = *model.keys().nth(position % model.len()).expect("it is below");
                    let found = places.find(bits, |location| (location == Location(serial)).then_some(()));
                    remove(&mut places, found.expect("it is there").0);
                    model.remove(&(bits, serial));
                }
                Change::Remove(_) => {}
                Change::Shrink => {
                    let before = places.shrink_to(places.len());
                    for (from, to) in places.moves_from(&before) {
                        prop_assert_eq!(before.get(from), places.get(to));
                    }
                }
            }
            check(&places);
        }
        let all: Vec<_> = places.iter_from(0).map(|(bits, location)| (bits, location.0)).collect();
        prop_assert!(all.is_sorted_by_key(|(bits, _)| *bits));
        let mut sorted = all.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, model.keys().copied().collect::<Vec<_>>());
        for (bits, serial) in &all {
            let found = places.find(*bits, |location| (location.0 == *serial).then_some(()));
            prop_assert!(found.is_some());
            let following: Vec<_> = places.iter_from(*bits).map(|(bits, location)| (bits, location.0)).collect();
            prop_assert_eq!(following, all.iter().copied().filter(|(other, _)| other >= bits).collect::<Vec<_>>());
        }
        prop_assert!(places.find(12_345_678, |_| Some(())).is_none());
    }
}

#[test]
fn table_that_grows_stays_well_used() {
    let mut places = Places::default();
    let mut used = Vec::new();
    for serial in 0..100_000_u32 {
        // Spread as hashes are, by the golden ratio.
        insert_quickly(&mut places, serial.wrapping_mul(0x9e37_79b9), serial);
        if serial > 1_000 {
            used.push(places.len() as f64 / places.count() as f64);
        }
    }
    let average = used.iter().sum::<f64>() / used.len() as f64;
    let least = used.iter().copied().fold(1.0, f64::min);
    assert!(average > 0.72 && least > 0.62, "{average} used on average, {least} at least");
}

fn insert_quickly(places: &mut Places, bits: u32, serial: u32) {
    loop {
        if let Some(gap) = places.gap(bits) {
            places.insert(gap, bits, Location(serial));
            return;
        }
        places.grow();
    }
}

/// A table whose last places were crowded once had no end to its searches.
#[test]
fn entries_that_all_belong_to_the_end_of_the_table_find_room() {
    let mut places = Places::default();
    for serial in 0..2_000 {
        insert_quickly(&mut places, u32::MAX - 1, serial);
    }
    check(&places);
    assert_eq!(places.iter_from(u32::MAX - 1).count(), 2_000);
    assert_eq!(places.find(u32::MAX - 1, |location| (location.0 == 1_999).then_some(())).map(|_| ()), Some(()));
}

#[test]
fn sizes_are_four_to_a_doubling() {
    let mut sizes = vec![PLACES_MIN];
    while sizes.len() < 10 {
        sizes.push(larger(sizes[sizes.len() - 1]));
    }
    assert_eq!(sizes, [12, 14, 16, 20, 24, 28, 32, 40, 48, 56]);
    assert_eq!(larger(0), PLACES_MIN);
}

#[test]
fn emptied_table_gives_everything_back() {
    let mut places = Places::default();
    insert_quickly(&mut places, 1, 1);
    remove(&mut places, 0);
    places.shrink_to(0);
    assert_eq!((places.count(), places.bytes()), (0, 0));
    assert!(places.find(1, |_| Some(())).is_none() && places.gap(1).is_none());
}
