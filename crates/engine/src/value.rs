//! The collections that a key can hold.

mod hash;
mod sorted_set;

pub use hash::{Hash, HashMut};
pub use sorted_set::{SortedSet, SortedSetMut};

/// What a boxed collection is.
pub(crate) enum CollectionValue {
    Hash(Hash),
    SortedSet(SortedSet),
}

impl CollectionValue {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Hash(hash) => hash.is_empty(),
            Self::SortedSet(sorted_set) => sorted_set.is_empty(),
        }
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        match self {
            Self::Hash(hash) => hash.cost_bytes(),
            Self::SortedSet(sorted_set) => sorted_set.cost_bytes(),
        }
    }
}
