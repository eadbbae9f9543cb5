//! A small set of integers: sorted, as wide as its widest member has needed to be.

use crate::entry::allocation_cost_bytes;

/// An array shrinks when less than one in so many places is used.
const SHRINK_SPARSENESS: usize = 4;

/// Sorted integers without repetition. The width only grows, so that members do not move between widths again and again.
#[derive(Clone)]
pub(crate) enum IntSet {
    Narrow(Vec<i16>),
    Middle(Vec<i32>),
    Wide(Vec<i64>),
}

impl IntSet {
    pub(crate) const fn new() -> Self {
        Self::Narrow(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Narrow(members) => members.len(),
            Self::Middle(members) => members.len(),
            Self::Wide(members) => members.len(),
        }
    }

    /// The member at this place in ascending order.
    pub(crate) fn get(&self, index: usize) -> Option<i64> {
        match self {
            Self::Narrow(members) => members.get(index).copied().map(i64::from),
            Self::Middle(members) => members.get(index).copied().map(i64::from),
            Self::Wide(members) => members.get(index).copied(),
        }
    }

    pub(crate) fn contains(&self, member: i64) -> bool {
        self.search(member).is_ok()
    }

    /// Returns whether the member is new.
    pub(crate) fn insert(&mut self, member: i64) -> bool {
        let Err(index) = self.search(member) else {
            return false;
        };
        self.widen_for(member);
        match self {
            Self::Narrow(members) => insert_tight(members, index, member as i16),
            Self::Middle(members) => insert_tight(members, index, member as i32),
            Self::Wide(members) => insert_tight(members, index, member),
        }
        true
    }

    /// Returns whether the member was there.
    pub(crate) fn remove(&mut self, member: i64) -> bool {
        match self.search(member) {
            Ok(index) => self.remove_index(index).is_some(),
            Err(_) => false,
        }
    }

    pub(crate) fn remove_index(&mut self, index: usize) -> Option<i64> {
        let member = self.get(index)?;
        match self {
            Self::Narrow(members) => remove_tight(members, index),
            Self::Middle(members) => remove_tight(members, index),
            Self::Wide(members) => remove_tight(members, index),
        }
        Some(member)
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        allocation_cost_bytes(match self {
            Self::Narrow(members) => members.capacity() * size_of::<i16>(),
            Self::Middle(members) => members.capacity() * size_of::<i32>(),
            Self::Wide(members) => members.capacity() * size_of::<i64>(),
        })
    }

    fn search(&self, member: i64) -> Result<usize, usize> {
        match self {
            Self::Narrow(members) => members.binary_search_by(|candidate| i64::from(*candidate).cmp(&member)),
            Self::Middle(members) => members.binary_search_by(|candidate| i64::from(*candidate).cmp(&member)),
            Self::Wide(members) => members.binary_search(&member),
        }
    }

    fn widen_for(&mut self, member: i64) {
        let fits = match self {
            Self::Narrow(_) => i16::try_from(member).is_ok(),
            Self::Middle(_) => i32::try_from(member).is_ok(),
            Self::Wide(_) => true,
        };
        if fits {
            return;
        }
        let members = (0..self.len()).filter_map(|index| self.get(index));
        *self = match i32::try_from(member) {
            // Only narrow members are narrower than this one, so the conversion loses nothing.
            Ok(_) => Self::Middle(members.map(|member| member as i32).collect()),
            Err(_) => Self::Wide(members.collect()),
        };
    }
}

/// The integer that `text` is the canonical decimal form of: no plus, no leading zeros, no -0, no spaces.
pub(crate) fn canonical_i64(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    // The parser refuses what does not fit into 64 bits.
    if is_canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Inserts with a quarter to spare when the array has to grow: most small sets stop growing soon.
fn insert_tight<T>(members: &mut Vec<T>, index: usize, member: T) {
    if members.len() == members.capacity() {
        members.reserve_exact(1 + members.len() / 4);
    }
    members.insert(index, member);
}

fn remove_tight<T>(members: &mut Vec<T>, index: usize) {
    members.remove(index);
    if members.len() < members.capacity() / SHRINK_SPARSENESS || members.is_empty() {
        members.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{IntSet, canonical_i64};

    fn member() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => -20..20_i64,
            2 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
        ]
    }

    proptest! {
        #[test]
        fn integers_are_sorted_and_unique_at_every_width(changes in vec((any::<bool>(), member()), 1..200)) {
            let (mut set, mut model) = (IntSet::new(), BTreeSet::new());
            for (add, member) in changes {
                if add {
                    prop_assert_eq!(set.insert(member), model.insert(member));
                } else {
                    prop_assert_eq!(set.remove(member), model.remove(&member));
                }
                prop_assert_eq!(set.contains(member), model.contains(&member));
            }
            prop_assert!((0..=model.len()).map_while(|index| set.get(index)).eq(model.iter().copied()));
            (0..model.len()).for_each(|_| assert!(set.remove_index(0).is_some()));
            prop_assert_eq!((set.len(), set.cost_bytes()), (0, 0));
        }
    }

    #[test]
    fn only_the_canonical_text_of_an_integer_is_one() {
        for number in [0, 7, -7, i64::MAX, i64::MIN] {
            assert_eq!(canonical_i64(number.to_string().as_bytes()), Some(number));
        }
        for text in
            ["", "-", "-0", "+1", "01", "-01", " 1", "1 ", "1.0", "a", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(canonical_i64(text.as_bytes()), None, "{text:?}");
        }
    }
}
