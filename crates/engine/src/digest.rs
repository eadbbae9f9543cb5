//! A number that says what an engine holds, to tell whether two engines hold the same.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

use crate::entry::{EntryRef, is_expired};
use crate::keyspace::Engine;
use crate::value::CollectionValue;

impl Engine {
    /// A digest of all keys of all databases that are there at `now_ms`, with their types, deadlines and values. How they lie in memory, their
    /// last uses, the order of what has no order, and the sign of a score of zero make no difference. Engines of one build that hold the same have the same
    /// digest; that two that differ have the same is as likely as guessing 128 bits. Not made for those who want to deceive.
    ///
    /// Locks one segment after the other: while others write, it is the digest of no one moment.
    #[must_use]
    pub fn digest(&self, now_ms: u64) -> u128 {
        let mut digest = 0_u128;
        for (number, keyspace) in self.family().all() {
            for segment in 0..keyspace.segments.len() {
                let segment = keyspace.lock(segment);
                let live = segment.store.iter().filter(|entry| !is_expired(entry.expires_at_ms(), now_ms));
                for entry in live.filter(|entry| !entry.is_empty_collection()) {
                    digest = digest.wrapping_add(digest_of(number, entry));
                }
            }
        }
        digest
    }
}

fn digest_of(database: usize, entry: EntryRef<'_>) -> u128 {
    let mut digest = Digest::default();
    digest.number(database as u64);
    digest.bytes(entry.key());
    digest.number(entry.expires_at_ms().map_or(0, |_| 1));
    digest.number(entry.expires_at_ms().unwrap_or(0));
    match entry {
        EntryRef::Str(string) => {
            digest.bytes(b"string");
            digest.bytes(string.value());
        }
        EntryRef::Collection(collection) => add_collection(&mut digest, &collection.value),
    }
    digest.finish()
}

fn add_collection(digest: &mut Digest, value: &CollectionValue) {
    match value {
        CollectionValue::List(list) => {
            digest.bytes(b"list");
            list.iter().for_each(|element| digest.bytes(element));
        }
        CollectionValue::SortedSet(set) => {
            digest.bytes(b"sorted set");
            for (member, score) in set.iter() {
                digest.bytes(member);
                // Without the sign of zero, which a small set does not keep: large ones that have shrunk come back from a file as small ones.
                digest.number((score + 0.0).to_bits());
            }
        }
        CollectionValue::Hash(fields) => {
            digest.bytes(b"hash");
            digest.unordered(fields.iter().map(|(field, value)| {
                let mut pair = Digest::default();
                pair.bytes(field);
                pair.bytes(value);
                pair.finish()
            }));
        }
        CollectionValue::Set(set) => {
            digest.bytes(b"set");
            digest.unordered(set.iter().map(|member| {
                let mut one = Digest::default();
                one.bytes(&member);
                one.finish()
            }));
        }
    }
}

/// Two hashes of different seeds.
struct Digest {
    low: <FixedState as BuildHasher>::Hasher,
    high: <FixedState as BuildHasher>::Hasher,
}

impl Default for Digest {
    fn default() -> Self {
        Self { low: FixedState::with_seed(1).build_hasher(), high: FixedState::with_seed(2).build_hasher() }
    }
}

impl Digest {
    fn number(&mut self, number: u64) {
        self.low.write_u64(number);
        self.high.write_u64(number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.low.write(bytes);
        self.high.write(bytes);
    }

    fn unordered(&mut self, parts: impl Iterator<Item = u128>) {
        let sum = parts.fold(0_u128, u128::wrapping_add);
        self.number(sum as u64);
        self.number((sum >> 64) as u64);
    }

    fn finish(self) -> u128 {
        u128::from(self.high.finish()) << 64 | u128::from(self.low.finish())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Engine, EngineConfig, Expiry};

    fn engine(hash_seed: u64) -> Engine {
        Engine::new(EngineConfig { segments: 8, hash_seed: Some(hash_seed), ..EngineConfig::default() })
    }

    fn put(engine: &Engine, key: &[u8], value: &[u8], expiry: Expiry) {
        engine.update(key, 0, |slot| slot.set_str(&[value], expiry)).expect("no bound is configured");
    }

    #[test]
    fn engines_that_hold_the_same_have_the_same_digest_wherever_it_lies() {
        let (one, other) = (engine(1), engine(2));
        assert_eq!(one.digest(0), 0);
        for number in 0_u8..50 {
            put(&one, &[number], b"v", Expiry::Clear);
            put(&other, &[49 - number], b"v", Expiry::Clear);
        }
        put(&other, b"expired", b"v", Expiry::At(3));
        assert_eq!(one.digest(4), other.digest(4));
        assert_ne!(one.digest(3), other.digest(3));
    }

    #[test]
    fn key_type_value_and_deadline_make_a_difference() {
        let one = engine(1);
        let mut digests = vec![one.digest(0)];
        let mut note = |engine: &Engine| digests.push(engine.digest(0));
        put(&one, b"k", b"v", Expiry::Clear);
        note(&one);
        put(&one, b"k", b"w", Expiry::Clear);
        note(&one);
        put(&one, b"k", b"w", Expiry::At(0));
        note(&one);
        put(&one, b"k", b"w", Expiry::At(1));
        note(&one);
        put(&one, b"kw", b"", Expiry::At(1));
        note(&one);
        one.update(b"h", 0, |slot| slot.hash_mut()?.insert(b"a", b"b")).expect("no bound is configured");
        note(&one);
        one.update(b"h", 0, |slot| slot.hash_mut()?.insert(b"b", b"a")).expect("no bound is configured");
        note(&one);
        put(&one.sibling(3), b"h", b"", Expiry::Clear);
        note(&one);
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }
}
