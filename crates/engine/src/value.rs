//! The collections that a key can hold.

#[cfg(feature = "commands")]
mod aggregate;
#[cfg_attr(not(feature = "commands"), allow(dead_code, reason = "only commands read and write what is in it"))]
mod intset;
mod limits;
#[cfg_attr(not(feature = "commands"), allow(dead_code, reason = "only commands read and write what is in it"))]
mod list;
mod map;
mod packed;
mod sample;
#[cfg_attr(not(feature = "commands"), allow(dead_code, reason = "only commands read and write what is in it"))]
mod set;
mod strict;
mod table;
mod zset;

#[cfg(feature = "commands")]
pub(crate) use aggregate::{Aggregate, Operand, Scored, ScoredMember, diff, inter, inter_count, union};
pub use limits::Limits;
#[cfg(feature = "commands")]
pub(crate) use list::index_range;
pub(crate) use list::{List, Place};
pub use map::{Fields, Pairs};
pub(crate) use set::Set;
pub use strict::{HashMut, SortedSetMut};
pub use zset::{Inserted, LexBound, LexRange, RankedMembers, ScoreRange, Zset};

use crate::entry::Kind;

/// With fewer members, most of them lie in the caches anyway. Tests have fewer.
#[cfg(feature = "commands")]
const LARGE_MEMBERS_MIN: usize = if cfg!(test) { 600 } else { 16_384 };

/// What a boxed collection is.
#[derive(Clone)]
pub(crate) enum CollectionValue {
    Hash(Fields),
    SortedSet(Zset),
    List(List),
    Set(Set),
}

impl CollectionValue {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Hash(value) => value.is_empty(),
            Self::SortedSet(value) => value.is_empty(),
            Self::List(value) => value.is_empty(),
            Self::Set(value) => value.is_empty(),
        }
    }

    /// Whether its members are so many that most of them lie in no cache, and are found without a walk. Of a list, commands seldom ask for
    /// what is not at its ends.
    #[cfg(feature = "commands")]
    pub(crate) fn is_large(&self) -> bool {
        let members = match self {
            Self::Hash(value) if !value.is_packed() => value.len(),
            Self::SortedSet(value) if !value.is_packed() => value.len(),
            Self::Set(value) => value.len(),
            Self::Hash(_) | Self::SortedSet(_) | Self::List(_) => 0,
        };
        members >= LARGE_MEMBERS_MIN
    }

    /// The member that a command names, if this is large: the word behind the key, or the last one, where most commands have it.
    /// Where one has something else there, that costs a look.
    #[cfg(feature = "commands")]
    pub(crate) fn member_among<'w>(&self, mut words: impl Iterator<Item = &'w [u8]>) -> Option<&'w [u8]> {
        if !self.is_large() {
            return None;
        }
        match self {
            Self::Hash(_) | Self::Set(_) => words.next(),
            Self::SortedSet(_) => words.last(),
            Self::List(_) => None,
        }
    }

    /// Looks the member up, whether it is there or not.
    #[cfg(feature = "commands")]
    pub(crate) fn touch_member(&self, member: &[u8]) -> bool {
        match self {
            Self::Hash(value) => value.contains(member),
            Self::SortedSet(value) => value.score(member).is_some(),
            Self::List(_) => false,
            Self::Set(value) => value.contains(member),
        }
    }

    pub(crate) fn cost_bytes(&self) -> u64 {
        match self {
            Self::Hash(value) => value.cost_bytes(),
            Self::SortedSet(value) => value.cost_bytes(),
            Self::List(value) => value.cost_bytes(),
            Self::Set(value) => value.cost_bytes(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Hash(_) => Kind::Hash,
            Self::SortedSet(_) => Kind::SortedSet,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
        }
    }

    /// What `OBJECT ENCODING` says.
    pub(crate) fn encoding(&self) -> &'static str {
        match self {
            Self::Hash(value) => value.encoding(),
            Self::SortedSet(value) => value.encoding(),
            Self::List(value) => value.encoding(),
            Self::Set(value) => value.encoding(),
        }
    }
}

#[cfg(all(test, feature = "commands"))]
mod tests {
    use super::{CollectionValue, Fields, LARGE_MEMBERS_MIN, Limits, Set, Zset};

    fn collections(members: usize, limits: &Limits) -> [CollectionValue; 3] {
        let (mut fields, mut set, mut sorted_set) = (Fields::new(), Set::new(), Zset::new());
        for number in 0..members {
            let member = format!("m{number}");
            fields.insert(member.as_bytes(), b"value", limits);
            set.insert(member.as_bytes(), limits);
            sorted_set.insert(member.as_bytes(), 1.0, limits);
        }
        [CollectionValue::Hash(fields), CollectionValue::Set(set), CollectionValue::SortedSet(sorted_set)]
    }

    #[test]
    fn large_collections_look_up_the_member_that_most_commands_name() {
        let [hash, set, sorted_set] = collections(LARGE_MEMBERS_MIN, &Limits::default());
        let words = || [&b"m7"[..], b"m8", b"absent"].into_iter();
        for (value, member) in [(&hash, &b"m7"[..]), (&set, &b"m7"[..]), (&sorted_set, &b"absent"[..])] {
            assert_eq!(value.member_among(words()), Some(member));
            assert_eq!(value.member_among([].into_iter()), None);
            assert!(value.touch_member(b"m7") && !value.touch_member(b"absent") && !value.touch_member(b""));
        }
    }

    #[test]
    fn small_collections_and_those_that_are_walked_through_look_nothing_up() {
        let small = collections(LARGE_MEMBERS_MIN - 1, &Limits::default());
        let entries = 2 * LARGE_MEMBERS_MIN;
        let limits =
            Limits { hash_max_listpack_entries: entries, zset_max_listpack_entries: entries, ..Limits::default() };
        let [hash, _, sorted_set] = collections(LARGE_MEMBERS_MIN, &limits);
        assert_eq!((hash.encoding(), sorted_set.encoding()), ("listpack", "listpack"));
        for value in small.iter().chain([&hash, &sorted_set]) {
            assert_eq!(value.member_among([&b"m7"[..]].into_iter()), None);
        }
    }
}
