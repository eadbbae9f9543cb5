//! A hash: fields with values, in no order.
//!
//! # Failure
//! Only [`HashMut::insert`] can fail, when the memory bound leaves no room, and then it has changed nothing.

use std::ops::Deref;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;

use crate::entry::allocation_cost_bytes;
use crate::error::EngineError;
use crate::memory::Account;
use crate::segment::capacity_if_sparse;

/// What a field costs beyond its bytes: two boxes in a table that is two thirds full on average.
const FIELD_COST_BYTES: u64 = 50;

/// Fields with values, for reading.
pub struct Hash {
    fields: HashMap<Box<[u8]>, Box<[u8]>, SeedableRandomState>,
    cost_bytes: u64,
}

impl Hash {
    pub(crate) fn new(hasher: SeedableRandomState) -> Self {
        Self { fields: HashMap::with_hasher(hasher), cost_bytes: 0 }
    }

    /// The value of `field`.
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &**value)
    }

    /// All fields with their values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(field, value)| (&**field, &**value))
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field. Only seen inside an update: an empty hash is removed when its update ends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        self.cost_bytes
    }
}

/// A hash that is being changed; reads go through to [`struct@Hash`].
pub struct HashMut<'a> {
    hash: &'a mut Hash,
    account: Account<'a>,
}

impl<'a> HashMut<'a> {
    pub(crate) fn new(hash: &'a mut Hash, account: Account<'a>) -> Self {
        Self { hash, account }
    }

    /// Sets `field` to `value`. Returns whether the field is new.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`], and then the hash is as it was.
    pub fn insert(&mut self, field: &[u8], value: &[u8]) -> Result<bool, EngineError> {
        let after = field_cost_bytes(field, value);
        let (before, is_new) = match self.hash.fields.get_mut(field) {
            Some(old) => {
                let before = field_cost_bytes(field, old);
                self.account.resize(before, after)?;
                *old = value.into();
                (before, false)
            }
            None => {
                self.account.grow(after)?;
                self.hash.fields.insert(field.into(), value.into());
                (0, true)
            }
        };
        self.hash.cost_bytes = self.hash.cost_bytes + after - before;
        Ok(is_new)
    }

    /// Like [`insert`](Self::insert), but never refused: for bookkeeping by which memory comes back, such as noting who works
    /// an entry off. It must not be what makes a hash large.
    pub fn insert_always(&mut self, field: &[u8], value: &[u8]) -> bool {
        let after = field_cost_bytes(field, value);
        self.account.grow_always(after);
        let old = self.hash.fields.insert(field.into(), value.into());
        let before = old.as_ref().map_or(0, |old| field_cost_bytes(field, old));
        self.account.shrink(before);
        self.hash.cost_bytes = self.hash.cost_bytes + after - before;
        old.is_none()
    }

    /// Removes `field` and returns what it held.
    pub fn remove(&mut self, field: &[u8]) -> Option<Box<[u8]>> {
        let fields = &mut self.hash.fields;
        let value = fields.remove(field)?;
        if let Some(capacity) = capacity_if_sparse(fields.len(), fields.capacity()) {
            fields.shrink_to(capacity);
        }
        let cost_bytes = field_cost_bytes(field, &value);
        self.account.shrink(cost_bytes);
        self.hash.cost_bytes -= cost_bytes;
        Some(value)
    }
}

impl Deref for HashMut<'_> {
    type Target = Hash;

    fn deref(&self) -> &Hash {
        self.hash
    }
}

fn field_cost_bytes(field: &[u8], value: &[u8]) -> u64 {
    FIELD_COST_BYTES + allocation_cost_bytes(field.len()) + allocation_cost_bytes(value.len())
}

#[cfg(test)]
mod tests {
    use foldhash::quality::SeedableRandomState;

    use super::{Hash, HashMut};
    use crate::error::EngineError;
    use crate::memory::{Account, Memory};

    #[test]
    fn hash_keeps_the_latest_value_of_each_field() {
        let memory = Memory::new(None);
        let mut segment_bytes = 0;
        let mut hash = Hash::new(SeedableRandomState::fixed());
        let mut fields = HashMut::new(&mut hash, Account { memory: &memory, segment_bytes: &mut segment_bytes });
        assert_eq!(fields.insert(b"a", b"1"), Ok(true));
        assert_eq!(fields.insert(b"a", b"a longer value"), Ok(false));
        assert_eq!(fields.insert(b"b", b""), Ok(true));
        assert_eq!(fields.get(b"a"), Some(&b"a longer value"[..]));
        assert_eq!(fields.get(b"b"), Some(&b""[..]));
        assert_eq!(fields.iter().count(), 2);
        assert_eq!(fields.remove(b"a").as_deref(), Some(&b"a longer value"[..]));
        assert_eq!(fields.remove(b"a"), None);
        assert_eq!(fields.len(), 1);
        assert_eq!(fields.remove(b"b").as_deref(), Some(&b""[..]));
        assert!(hash.is_empty());
        assert_eq!((hash.cost_bytes(), segment_bytes), (0, 0));
    }

    #[test]
    fn refused_insert_leaves_the_old_value() {
        let memory = Memory::new(Some(100));
        let mut segment_bytes = 0;
        let mut hash = Hash::new(SeedableRandomState::fixed());
        let mut fields = HashMut::new(&mut hash, Account { memory: &memory, segment_bytes: &mut segment_bytes });
        assert_eq!(fields.insert(b"a", b"1"), Ok(true));
        assert_eq!(fields.insert(b"a", &[0; 100]), Err(EngineError::OutOfMemory));
        assert_eq!(fields.insert(b"b", b"2"), Err(EngineError::OutOfMemory));
        assert_eq!(fields.get(b"a"), Some(&b"1"[..]));
        assert_eq!(fields.len(), 1);
    }

    /// A queue that once held a million items kept a table for a million for as long as it was never quite empty.
    #[test]
    fn hash_gives_its_table_back_when_most_fields_have_gone() {
        let memory = Memory::new(None);
        let mut segment_bytes = 0;
        let mut hash = Hash::new(SeedableRandomState::fixed());
        let mut fields = HashMut::new(&mut hash, Account { memory: &memory, segment_bytes: &mut segment_bytes });
        for number in 0_u32..10_000 {
            assert_eq!(fields.insert(&number.to_le_bytes(), b""), Ok(true));
        }
        for number in 10_u32..10_000 {
            assert!(fields.remove(&number.to_le_bytes()).is_some());
        }
        assert!((0_u32..10).all(|number| fields.get(&number.to_le_bytes()).is_some()));
        assert!(hash.fields.capacity() < 100, "{}", hash.fields.capacity());
    }

    #[test]
    fn bookkeeping_is_written_above_the_bound_and_counted() {
        let memory = Memory::new(Some(100));
        let mut segment_bytes = 0;
        let mut hash = Hash::new(SeedableRandomState::fixed());
        let mut fields = HashMut::new(&mut hash, Account { memory: &memory, segment_bytes: &mut segment_bytes });
        assert_eq!(fields.insert(b"a", b"1"), Ok(true));
        assert!(!fields.insert_always(b"a", &[0; 100]));
        assert!(fields.insert_always(b"b", b"2"));
        assert_eq!(fields.insert(b"c", b"3"), Err(EngineError::OutOfMemory));
        fields.remove(b"a");
        fields.remove(b"b");
        assert_eq!((hash.cost_bytes(), segment_bytes), (0, 0));
    }
}
