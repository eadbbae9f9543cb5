//! Where items lie: partition and sort keys.
//!
//! # How it works
//! The items of a point kind lie in a partition each, so DynamoDB spreads them as far as it likes. Those of a listable kind
//! share a few partitions, their shards, sorted by id; a listing asks each shard for a page and merges them. A partition
//! takes about 1,000 writes per second, so a kind with more than that is either given more shards or made a point kind.
//!
//! | what | `pk` | `sk` |
//! |---|---|---|
//! | value, counter of a point kind | `prefix:namespace:tenant:kind:id` | `-` |
//! | value, counter of a listable kind | `shard#prefix:namespace:tenant:kind:` | the id |
//! | lock, rate limit | `{prefix:namespace:tenant:kind:id}:lock` and so on | `-` |
//! | item of a queue | `shard#{prefix:namespace:tenant:kind:id}:items` | the item's id |
//!
//! Texts are those of the contract crate, so no part of a key can reach into another. Shards are two hexadecimal digits of a
//! hash that never changes; how many there are is fixed when the table is first used.

use std::collections::HashSet;

use acteon_state_core::key::{Companion, Keyspace};
use acteon_state_core::{Scope, StateKey};
use aws_sdk_dynamodb::types::AttributeValue;

use crate::item::{Item, PK, SK, text};

/// The sort key of what has a partition for itself.
pub(crate) const ALONE: &str = "-";

/// The primary key of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl Address {
    pub(crate) fn alone(pk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: ALONE.to_owned() }
    }

    /// The two attributes of the key.
    pub(crate) fn attributes(&self) -> [(String, AttributeValue); 2] {
        [(PK.to_owned(), text(&self.pk)), (SK.to_owned(), text(&self.sk))]
    }

    /// The same, of an address that is not needed any more.
    pub(crate) fn into_item(self) -> Item {
        [(PK.to_owned(), AttributeValue::S(self.pk)), (SK.to_owned(), AttributeValue::S(self.sk))].into()
    }

    /// The key as an item of just that.
    pub(crate) fn item(&self) -> Item {
        self.attributes().into()
    }
}

/// Finds addresses.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    keyspace: Keyspace,
    point_kinds: HashSet<String>,
    shards: u8,
    due_shards: u8,
}

impl Addresses {
    pub(crate) fn new(keyspace: Keyspace, point_kinds: HashSet<String>, shards: u8, due_shards: u8) -> Self {
        Self { keyspace, point_kinds, shards, due_shards }
    }

    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Of the value or counter of a key.
    pub(crate) fn entry(&self, key: &StateKey) -> Address {
        let [_, _, kind, id] = key.parts();
        if self.point_kinds.contains(&*kind) {
            return Address::alone(self.keyspace.text(key));
        }
        let shard = shard_of(&id, self.shards);
        Address { pk: self.shard_pk(shard, &key.scope()), sk: id.into_owned() }
    }

    /// Of a lock or a rate limit.
    pub(crate) fn companion(&self, key: &StateKey, companion: Companion) -> Address {
        Address::alone(self.keyspace.companion(key, companion))
    }

    /// Of an item of a queue.
    pub(crate) fn due_item(&self, queue: &StateKey, id: &str) -> Address {
        Address { pk: self.due_pk(queue, shard_of(id, self.due_shards)), sk: id.to_owned() }
    }

    /// The partition of one shard of a queue.
    pub(crate) fn due_pk(&self, queue: &StateKey, shard: u8) -> String {
        format!("{shard:02x}#{}", self.keyspace.companion(queue, Companion::Items))
    }

    pub(crate) fn due_shards(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.due_shards
    }

    /// Whether the keys of a scope can be listed.
    pub(crate) fn is_listable(&self, scope: &Scope) -> bool {
        !self.point_kinds.contains(&scope.kind())
    }

    /// The partitions that hold the keys of a listable scope.
    pub(crate) fn scope_pks(&self, scope: &Scope) -> impl Iterator<Item = String> {
        (0..self.shards).map(|shard| self.shard_pk(shard, scope))
    }

    /// The partition of the index that lists the locks of a scope, by shard.
    pub(crate) fn lock_list_pk(&self, scope: &Scope, shard: u8) -> String {
        format!("{shard:02x}#{}{}lock", self.keyspace.prefix(), scope.text())
    }

    /// The shard in which a lock is listed.
    pub(crate) fn lock_list_shard(&self, key: &StateKey) -> u8 {
        shard_of(&key.id(), self.shards)
    }

    pub(crate) fn list_shards(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.shards
    }

    fn shard_pk(&self, shard: u8, scope: &Scope) -> String {
        format!("{shard:02x}#{}{}", self.keyspace.prefix(), scope.text())
    }
}

/// FNV-1a: what a table was written with must be found by every later version.
fn shard_of(id: &str, shards: u8) -> u8 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = id.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    // The low bits alone mix badly over short ids.
    let folded = (hash ^ (hash >> 32)) % u64::from(shards.max(1));
    u8::try_from(folded).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use acteon_state_core::StateKey;
    use acteon_state_core::key::Keyspace;

    use super::{Address, Addresses, shard_of};

    fn addresses() -> Addresses {
        Addresses::new(Keyspace::new("acteon").unwrap(), HashSet::from(["dedup".to_owned()]), 4, 4)
    }

    #[test]
    fn point_kinds_have_partitions_of_their_own() {
        let key = StateKey::new("mail", "acme", "dedup", "a:b").unwrap();
        assert_eq!(addresses().entry(&key), Address::alone("acteon:mail:acme:dedup:a;0b"));
        let listed = StateKey::new("mail", "acme", "session", "a:b").unwrap();
        let address = addresses().entry(&listed);
        assert!(address.pk.ends_with("#acteon:mail:acme:session:") && address.sk == "a:b", "{address:?}");
    }

    #[test]
    fn shards_are_where_they_have_always_been_and_even() {
        assert_eq!(["a", "b", "user:1", "ünï"].map(|id| shard_of(id, 8)), SHARDS_OF_SAMPLES);
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            counts[usize::from(shard_of(&format!("key:{number:012}"), 8))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    const SHARDS_OF_SAMPLES: [u8; 4] = [0, 1, 1, 3];
}
