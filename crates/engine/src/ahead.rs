//! Looks keys up before their commands are carried out, several at once.
//!
//! # Guarantees
//! Nothing changes, nobody is waited for, and no key is held when it returns: without it everything is the same, only slower.
//!
//! # How it works
//! A key in a large database costs three accesses to memory that no cache holds, one after the other: the control bytes of the table, the
//! slot, and the entry. A processor that finds many keys in one loop without a lock in it waits for those of one key and of the next
//! at the same time; commands that are carried out one after the other, each with its lock, wait for each alone. So the segments of some
//! keys are taken together, those that are free, their entries are read in one loop, and what was read is forgotten: the
//! commands that follow find it in the cache.

use std::hint::black_box;

use smallvec::SmallVec;

use crate::entry::Entry;
use crate::keyspace::Keyspace;

/// Keys that are looked up at once: more accesses to memory than this, a processor cannot have under way.
pub(crate) const KEYS_AT_ONCE: usize = 16;

/// With fewer keys in a segment, and so in the others, all of them lie in the caches anyway: 16,384 keys in a thousand segments.
const SEGMENT_KEYS_MIN: usize = 16;

/// Keys that will be asked for soon.
pub struct Lookups<'k> {
    keyspace: &'k Keyspace,
    hashes: SmallVec<[u64; KEYS_AT_ONCE]>,
}

impl<'k> Lookups<'k> {
    pub(crate) fn new(keyspace: &'k Keyspace) -> Self {
        Self { keyspace, hashes: SmallVec::new() }
    }

    /// Adds a key, or whatever stands in its place in a request.
    pub fn add(&mut self, key: &[u8]) {
        self.hashes.push(self.keyspace.context.hash(key));
    }

    /// Whether further keys should wait for the next time.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.hashes.len() >= KEYS_AT_ONCE
    }

    /// Looks them up.
    pub fn run(self) {
        let keyspace = self.keyspace;
        let mut held: SmallVec<[_; KEYS_AT_ONCE]> = SmallVec::new();
        for hash in self.hashes {
            // Whoever holds it brings it into the cache as well; and two keys of one segment are rare.
            let Some(segment) = keyspace.segments[keyspace.segment_of(hash)].0.try_lock() else { continue };
            if segment.table.len() < SEGMENT_KEYS_MIN {
                return;
            }
            held.push((segment, hash));
        }
        // No loop calls anything that a processor could not begin before the call before it has ended.
        let entries: SmallVec<[&Entry; KEYS_AT_ONCE]> =
            held.iter().filter_map(|(segment, hash)| segment.table.iter_hash(*hash).next()).collect();
        black_box(entries.iter().map(|entry| entry.touch()).fold(0, u8::wrapping_add));
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS_AT_ONCE, Lookups};
    use crate::{Engine, EngineConfig, Expiry};

    #[test]
    fn keys_are_as_they_were_and_free_afterwards() {
        let engine = Engine::new(EngineConfig { segments: 2, ..EngineConfig::default() });
        let keys: Vec<String> = (0..6 * KEYS_AT_ONCE).map(|number| format!("key:{number}")).collect();
        for key in &keys {
            engine.update(key.as_bytes(), 1, |slot| slot.set_str(&[b"value"], Expiry::At(5))).expect("no bound");
        }
        for keys in keys.chunks(KEYS_AT_ONCE) {
            // Also while somebody holds one of them, and long after all have expired.
            engine.read(keys[0].as_bytes(), 1, |_| {
                let mut lookups = Lookups::new(engine.keyspace());
                keys.iter().for_each(|key| lookups.add(key.as_bytes()));
                assert!(lookups.is_full());
                lookups.add(b"absent");
                lookups.run();
            });
        }
        assert_eq!((engine.len(), engine.stats().expired_total), (keys.len(), 0));
        for key in &keys {
            assert!(engine.read(key.as_bytes(), 5, |value| value.is_some()));
        }
    }
}
