//! Looks keys up before their commands are carried out, several at once: those of several commands, or all of one.
//!
//! # Guarantees
//! Nothing changes, nobody is waited for, and no key is held when it returns: without it everything is the same, only slower. However many keys
//! a command names, not more than [`KEYS_MAX`] of them are looked up, and not more than [`KEYS_AT_ONCE`] held together.
//!
//! # How it works
//! A key in a large database costs two accesses to memory that no cache holds, one after the other: the place in the table, and the
//! entry. A processor that finds many keys in one loop without a lock in it waits for those of one key and of the next at the same time; commands that are carried out one after the other, each with its lock, wait for each alone. So the segments of some
//! keys are taken together, those that are free, their places are read in one loop and their entries in the next, and what was read is forgotten:
//! the commands that follow find it in the cache. Among a million keys, MGET of ten takes little more than a third of the time.

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

/// Looks up keys that will be asked for soon, [`KEYS_AT_ONCE`] of them at most. A key may be whatever stands in its place in a request.
pub(crate) fn look_up<'k>(keyspace: &Keyspace, keys: impl Iterator<Item = &'k [u8]>) {
    look_up_group(keyspace, keys.take(KEYS_AT_ONCE).map(|key| keyspace.context.hash(key)));
}

/// Looks up the keys of one command by their hashes, if it has several.
#[inline]
pub(crate) fn look_up_hashes(keyspace: &Keyspace, hashes: &[u64]) {
    if hashes.len() > 1 {
        let mut groups = hashes[..hashes.len().min(KEYS_MAX)].chunks(KEYS_AT_ONCE);
        while groups.next().is_some_and(|group| look_up_group(keyspace, group.iter().copied())) {}
    }
}

/// Returns whether it is worth while to go on.
fn look_up_group(keyspace: &Keyspace, hashes: impl Iterator<Item = u64>) -> bool {
    let mut held: SmallVec<[_; KEYS_AT_ONCE]> = SmallVec::new();
    for hash in hashes {
        // Whoever holds it brings it into the cache as well; and two keys of one segment are rare.
        let Some(segment) = keyspace.segments[keyspace.segment_of(hash)].0.try_lock() else { continue };
        if segment.store.len() < SEGMENT_KEYS_MIN {
            return false;
        }
        held.push((segment, hash));
    }
    // In a loop of its own: so little is done for each of them that a processor has all of their lines under way before the first one comes.
    black_box(held.iter().map(|(segment, hash)| segment.store.touch_place(*hash)).fold(0, u8::wrapping_add));
    // No loop calls anything that a processor could not begin before the call before it has ended.
    let entries: SmallVec<[EntryRef<'_>; KEYS_AT_ONCE]> =
        held.iter().filter_map(|(segment, hash)| segment.store.find_by_hash(*hash)).collect();
    black_box(entries.iter().map(|entry| entry.touch()).fold(0, u8::wrapping_add));
    true
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
                look_up(engine.keyspace(), keys.iter().map(|key| key.as_bytes()).chain([&b"absent"[..]]));
                look_up(engine.keyspace(), [&b"absent"[..]].into_iter().chain(keys.iter().map(|key| key.as_bytes())));
                look_up_hashes(engine.keyspace(), &hashes);
            });
        }
        // More of them than are looked up at all, and none.
        look_up_hashes(engine.keyspace(), &hashes.repeat(2 * KEYS_MAX / hashes.len()));
        look_up_hashes(engine.keyspace(), &[]);
        assert_eq!((engine.len(), engine.stats().expired_total), (keys.len(), 0));
        for key in &keys {
            assert!(engine.read(key.as_bytes(), 5, |value| value.is_some()));
        }
    }
}
