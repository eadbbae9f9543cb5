use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{Gap, Store};
use crate::entry::{Collection, Entry, EntryRef, StrEntry, StrParts, Usage};
use crate::value::{CollectionValue, Fields};

/// Few keys of which some share their hash bits.
const KEYS: u16 = 120;

fn hash_of(key: &[u8]) -> u64 {
    let number = u64::from(u16::from_le_bytes(key.try_into().expect("two bytes")) / 2);
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[derive(Clone, Debug)]
enum Change {
    Str(u16, usize, Option<u64>),
    Boxed(u16, Option<usize>),
    Deadline(u16, Option<u64>),
    Remove(u16),
}

fn change() -> impl Strategy<Value = Change> {
    let deadline = || prop_oneof![any::<Option<u64>>(), (0..3_u64).prop_map(Some)];
    let len = || prop_oneof![0..50_usize, 990..1_030_usize, 0..3_000_usize];
    prop_oneof![
        4 => (0..KEYS, len(), deadline()).prop_map(|(key, len, at_ms)| Change::Str(key, len, at_ms)),
        1 => (0..KEYS, len(), any::<bool>()).prop_map(|(key, len, is_str)| Change::Boxed(key, is_str.then_some(len))),
        2 => (0..KEYS, deadline()).prop_map(|(key, at_ms)| Change::Deadline(key, at_ms)),
        3 => (0..KEYS).prop_map(Change::Remove),
    ]
}

fn gap(store: &mut Store, hash: u64) -> Gap {
    loop {
        match store.gap(hash) {
            Some(gap) => return gap,
            None => drop(store.grow()),
        }
    }
}

/// Length of a value, or `None` for a collection, and the deadline.
type Seen = (Option<usize>, Option<u64>);

fn seen(entry: EntryRef<'_>) -> Seen {
    let len = match entry {
        EntryRef::Str(string) => Some(string.value().len()),
        EntryRef::Collection(_) => None,
    };
    (len, entry.expires_at_ms())
}

fn apply(store: &mut Store, model: &mut HashMap<u16, Seen>, change: Change) {
    let (Change::Str(number, ..) | Change::Boxed(number, _) | Change::Deadline(number, _) | Change::Remove(number)) =
        change;
    let key = &number.to_le_bytes()[..];
    let hash = hash_of(key);
    let bucket = store.find(hash, key);
    match (change, bucket) {
        (Change::Str(_, len, expires_at_ms), _) => {
            let value = vec![number as u8; len];
            let string = StrParts { key, parts: &[&value], expires_at_ms, usage: Usage::default() };
            if let Some(bucket) = bucket {
                store.replace_by_str(bucket, &string, hash_of);
                assert_eq!(store.find(hash, key), Some(bucket), "it keeps its bucket");
            } else {
                let gap = gap(store, hash);
                store.insert_str(gap, hash, &string);
            }
            model.insert(number, (Some(len), expires_at_ms));
        }
        (Change::Boxed(_, len), None) => {
            let entry = match len {
                Some(len) => Entry::Str(StrEntry::new(key, &[&vec![number as u8; len]], None)),
                None => Entry::Collection(Box::new(Collection {
                    key: key.into(),
                    usage: Usage::default(),
                    expires_at_ms: None,
                    value: CollectionValue::Hash(Fields::default()),
                })),
            };
            let gap = gap(store, hash);
            store.insert(gap, hash, entry);
            model.insert(number, (len, None));
        }
        (Change::Deadline(_, expires_at_ms), Some(bucket)) => {
            store.set_deadline(bucket, expires_at_ms, hash_of);
            model.entry(number).and_modify(|seen| seen.1 = expires_at_ms);
        }
        (Change::Remove(_), Some(bucket)) => {
            store.remove(bucket, hash_of);
            model.remove(&number);
        }
        (Change::Boxed(..), Some(_)) | (Change::Deadline(..) | Change::Remove(_), None) => {}
    }
}

proptest! {
    #[test]
    fn store_holds_what_a_map_holds(changes in vec(change(), 1..400)) {
        let (mut store, mut model) = (Store::default(), HashMap::new());
        for change in changes {
            apply(&mut store, &mut model, change);
            prop_assert_eq!(store.len(), model.len());
            for number in 0..KEYS {
                let key = number.to_le_bytes();
                let found = store.find_entry(hash_of(&key), &key);
                prop_assert_eq!(found.map(|(_, entry)| seen(entry)), model.get(&number).copied());
                if let Some((bucket, EntryRef::Str(string))) = found {
                    prop_assert!(string.value().iter().all(|byte| *byte == number as u8));
                    prop_assert_eq!(store.get(bucket).map(EntryRef::key), Some(&key[..]));
                }
            }
        }
        prop_assert_eq!(store.iter().count(), model.len());
    }

    #[test]
    fn growth_of_what_is_not_entries_is_known_before(lens in vec(0..1_500_usize, 1..300)) {
        let mut store = Store::default();
        for (number, len) in (0_u16..).zip(lens) {
            let (key, value) = (number.to_le_bytes(), vec![0; len]);
            let string = StrParts { key: &key, parts: &[&value], expires_at_ms: None, usage: Usage::default() };
            let hash = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
            let growth = store.growth_bytes_max(store.growth_buckets(store.gap(hash)), string.len());
            let before = store.overhead_bytes();
            let gap = gap(&mut store, hash);
            store.insert_str(gap, hash, &string);
            prop_assert!(store.overhead_bytes() <= before + growth, "{number}: {before} + {growth} to {}", store.overhead_bytes());
        }
    }
}
