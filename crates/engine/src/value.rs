//! The collections that a key can hold.

mod hash;
mod intset;
mod limits;
mod list;
mod map;
mod packed;
mod sample;
mod set;
mod sorted_set;
mod table;

pub use hash::{Hash, HashMut};
pub use limits::Limits;
pub use list::{Items, List, Place, index_range};
pub use map::{Fields, Pairs};
pub use set::{Member, Members, Set};
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
