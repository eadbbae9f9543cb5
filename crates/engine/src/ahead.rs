//! Looks keys up before their commands are carried out, several at once: those of several commands, or all of one. Members of a large
//! collection that several commands name are looked up likewise.
//!
//! # Guarantees
//! Nothing changes, nobody is waited for, and no key is held when it returns: without it everything is the same, only slower. However many keys
//! a command names, not more than [`KEYS_MAX`] of them are looked up, and not more than [`KEYS_AT_ONCE`] held together.
//!
//! # How it works
//! A key in a large database costs two accesses to memory that no cache holds, one after the other: the place in the table, and the
//! entry. A processor that finds many keys in one loop without a lock in it waits for those of one key and of the next at the same time; commands
//! that are carried out one after the other, each with its lock, wait for each alone. So the segments of some
//! keys are taken together, those that are free, their places are read in one loop and their entries in the next, and what was read is forgotten:
//! the commands that follow find it in the cache. Among a million keys, MGET of ten takes little more than a third of the time. A member of a large
//! hash, set or sorted set costs three such accesses more, also where it is the only key.

use std::hint::black_box;

use smallvec::SmallVec;

use crate::entry::EntryRef;
use crate::keyspace::Keyspace;

/// Keys that are looked up at once: more accesses to memory than this, a processor cannot have under way.
pub(crate) const KEYS_AT_ONCE: usize = 16;

/// With fewer keys in a segment, and so in the others, all of them lie in the caches anyway: 16,384 keys in a thousand segments.
const SEGMENT_KEYS_MIN: usize = 16;

/// Keys of one command that are looked up: what it reads of more might leave the caches again before it comes to them.
const KEYS_MAX: usize = 32 * KEYS_AT_ONCE;

/// Looks up what the next requests name, [`KEYS_AT_ONCE`] of them at most. Each is given by its words, and what stands in the place of a key may
/// be anything.
pub(crate) fn look_up<'k, W: Iterator<Item = &'k [u8]>>(
    keyspace: &Keyspace,
    requests: impl Iterator<Item = W> + Clone,
) {
    let requests = requests.take(KEYS_AT_ONCE);
    let keys = requests.clone().filter_map(|mut words| words.nth(1));
    // A step of its own, so that commands on short values, which are most, pay next to nothing for it.
    if look_up_group(keyspace, keys.map(|key| keyspace.context.hash(key))) == Met::LargeCollection {
        look_up_members(keyspace, requests);
    }
}

/// Looks up members of large collections, whose keys are in the cache.
#[cold]
fn look_up_members<'k, W: Iterator<Item = &'k [u8]>>(keyspace: &Keyspace, requests: impl Iterator<Item = W>) {
    let mut held: SmallVec<[_; KEYS_AT_ONCE]> = SmallVec::new();
    let mut wanted: SmallVec<[(usize, u64, W); KEYS_AT_ONCE]> = SmallVec::new();
    for mut words in requests {
        let Some(key) = words.nth(1) else { continue };
        let hash = keyspace.context.hash(key);
        let number = keyspace.segment_of(hash);
        // Many of them may name the same key.
        if let Some(at) = held.iter().position(|(other, _)| *other == number) {
            wanted.push((at, hash, words));
        } else if let Some(segment) = keyspace.segments[number].0.try_lock() {
            wanted.push((held.len(), hash, words));
            held.push((number, segment));
        }
    }
    let members: SmallVec<[_; KEYS_AT_ONCE]> = wanted
        .into_iter()
        .filter_map(|(at, hash, words)| match held[at].1.store.find_by_hash(hash)? {
            EntryRef::Collection(collection) => Some((&collection.value, collection.value.member_among(words)?)),
            _ => None,
        })
        .collect();
    // In a loop of its own, as keys are: the less stands between two of them, the more are waited for at the same time.
    black_box(members.iter().map(|(value, member)| u8::from(value.touch_member(member))).fold(0, u8::wrapping_add));
}

/// Looks up the keys of one command by their hashes, if it has several.
#[inline]
pub(crate) fn look_up_hashes(keyspace: &Keyspace, hashes: &[u64]) {
    if hashes.len() > 1 {
        let mut groups = hashes[..hashes.len().min(KEYS_MAX)].chunks(KEYS_AT_ONCE);
        while groups.next().is_some_and(|group| look_up_group(keyspace, group.iter().copied()) != Met::FewKeys) {}
    }
}

/// What was met among keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    /// So few keys that it is not worth while to go on.
    FewKeys,
    /// A collection of which most members lie in no cache.
    LargeCollection,
    Others,
}

fn look_up_group(keyspace: &Keyspace, hashes: impl Iterator<Item = u64>) -> Met {
    let mut held: SmallVec<[_; KEYS_AT_ONCE]> = SmallVec::new();
    for hash in hashes {
        // Whoever holds it brings it into the cache as well; and two keys of one segment are rare.
        let Some(segment) = keyspace.segments[keyspace.segment_of(hash)].0.try_lock() else { continue };
        if segment.store.len() < SEGMENT_KEYS_MIN {
            let is_large = segment.store.find_by_hash(hash).is_some_and(is_large_collection);
            return if is_large { Met::LargeCollection } else { Met::FewKeys };
        }
        held.push((segment, hash));
    }
    // In a loop of its own: so little is done for each of them that a processor has all of their lines under way before the first one comes.
    black_box(held.iter().map(|(segment, hash)| segment.store.touch_place(*hash)).fold(0, u8::wrapping_add));
    // No loop calls anything that a processor could not begin before the call before it has ended.
    let entries: SmallVec<[EntryRef<'_>; KEYS_AT_ONCE]> =
        held.iter().filter_map(|(segment, hash)| segment.store.find_by_hash(*hash)).collect();
    black_box(entries.iter().map(|entry| entry.touch()).fold(0, u8::wrapping_add));
    if entries.iter().any(|entry| is_large_collection(*entry)) { Met::LargeCollection } else { Met::Others }
}

fn is_large_collection(entry: EntryRef<'_>) -> bool {
    matches!(entry, EntryRef::Collection(collection) if collection.value.is_large())
}

#[cfg(test)]
mod tests {
    use super::{KEYS_AT_ONCE, KEYS_MAX, look_up, look_up_hashes};
    use crate::{Engine, EngineConfig, Expiry};

    #[test]
    fn keys_are_as_they_were_and_free_afterwards() {
        let engine = Engine::new(EngineConfig { segments: 2, ..EngineConfig::default() });
        let keys: Vec<String> = (0..6 * KEYS_AT_ONCE).map(|number| format!("key:{number}")).collect();
        for key in &keys {
            engine.update(key.as_bytes(), 1, |slot| slot.set_str(&[b"value"], Expiry::At(5))).expect("no bound");
        }
        let hashes: Vec<u64> = keys.iter().map(|key| engine.keyspace().context.hash(key.as_bytes())).collect();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            // Also while somebody holds one of them, and long after all have expired.
            engine.read(keys[0].as_bytes(), 1, |_| {
                let words = |key| [&b"GET"[..], key].into_iter();
                let requests = || keys.iter().map(|key| words(key.as_bytes()));
                look_up(engine.keyspace(), requests().chain([words(b"absent")]));
                look_up(engine.keyspace(), [words(b"absent")].into_iter().chain(requests()));
                look_up_hashes(engine.keyspace(), &hashes);
            });
        }
        // Members of one collection, of which some are there, and requests that name none.
        for number in 0..1_000 {
            let member = format!("m{number}");
            let added = engine.update(b"large", 1, |slot| slot.sorted_set_mut()?.insert(member.as_bytes(), 1.0));
            added.expect("no bound");
        }
        let words: Vec<Vec<&[u8]>> =
            [&["ZADD", "large", "2", "m7"][..], &["ZADD", "large", "2", "absent"], &["TYPE", "large"], &["PING"]]
                .map(|words| words.iter().map(|word| word.as_bytes()).collect())
                .to_vec();
        look_up(engine.keyspace(), words.iter().map(|words| words.iter().copied()));
        // More of them than are looked up at all, and none.
        look_up_hashes(engine.keyspace(), &hashes.repeat(2 * KEYS_MAX / hashes.len()));
        look_up_hashes(engine.keyspace(), &[]);
        assert_eq!((engine.len(), engine.stats().expired_total), (keys.len() + 1, 0));
        for key in &keys {
            assert!(engine.read(key.as_bytes(), 5, |value| value.is_some()));
        }
    }
}
