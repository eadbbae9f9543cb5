//! A set: different members, in no order that a caller may rely on, except that a set of integers is walked in ascending order.
//!
//! # How it works
//! A set whose members are all integers is a sorted array. The first other member, or one integer too many, turns it into a
//! table, and removals do not turn it back; only taking out most of a table at once does, as in Redis.

use std::borrow::Cow;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Deref, Range};

use super::intset::{IntSet, canonical_i64};
use super::limits::Limits;
use super::sample::{distinct_indexes, index_below};
use super::table::Table;

/// Redis builds a set anew, from what stays, when so many times what stays is not more than what goes.
const REBUILD_REMAINING_FACTOR: usize = 5;

/// Bytes of the longest 64-bit integer, `-9223372036854775808`.
const INTEGER_BYTES_MAX: usize = 20;

/// Different members.
#[derive(Clone)]
pub(crate) struct Set {
    form: Form,
}

#[derive(Clone)]
enum Form {
    Integers(IntSet),
    /// Boxed, so that small sets do not pay for the large form.
    Table(Box<Table<Box<[u8]>>>),
}

impl Set {
    /// An empty set.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { form: Form::Integers(IntSet::new()) }
    }

    /// The number of members.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        match &self.form {
            Form::Integers(integers) => integers.len(),
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there is no member.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING shows.
    #[must_use]
    pub(crate) fn encoding(&self) -> &'static str {
        match self.form {
            Form::Integers(_) => "intset",
            Form::Table(_) => "hashtable",
        }
    }

    /// The estimated memory of everything the set has allocated.
    #[must_use]
    pub(crate) fn cost_bytes(&self) -> u64 {
        match &self.form {
            Form::Integers(integers) => integers.cost_bytes(),
            Form::Table(table) => size_of::<Table<Box<[u8]>>>() as u64 + table.cost_bytes(),
        }
    }

    /// Whether `member` is in the set.
    #[must_use]
    pub(crate) fn contains(&self, member: &[u8]) -> bool {
        match &self.form {
            Form::Integers(integers) => canonical_i64(member).is_some_and(|member| integers.contains(member)),
            Form::Table(table) => table.contains(member),
        }
    }

    /// All members; integers in ascending order.
    #[must_use]
    pub(crate) fn iter(&self) -> Members<'_> {
        Members { set: self, indexes: 0..self.len() }
    }

    /// Adds `member`. Returns whether it is new.
    pub(crate) fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        if let Form::Integers(integers) = &mut self.form {
            if let Some(integer) = canonical_i64(member) {
                let is_new = integers.insert(integer);
                if is_new && integers.len() > limits.intset_entries_max() {
                    self.become_table(0);
                }
                return is_new;
            }
            self.become_table(1);
        }
        match &mut self.form {
            Form::Table(table) => !table.contains(member) && table.insert(member.into()),
            Form::Integers(_) => unreachable!("a member that is no integer has made the set a table"),
        }
    }

    /// Removes `member`. Returns whether it was there.
    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.form {
            Form::Integers(integers) => canonical_i64(member).is_some_and(|member| integers.remove(member)),
            Form::Table(table) => table.remove(member).is_some(),
        }
    }

    /// A member, each as likely as the others for a random `random`; `None` if the set is empty.
    #[must_use]
    pub(crate) fn random(&self, random: u64) -> Option<Member<'_>> {
        if self.is_empty() {
            return None;
        }
        self.get_index(index_below(random, self.len()))
    }

    /// `count` different members at random, or all if there are no more.
    #[must_use]
    pub(crate) fn random_distinct(&self, count: usize, random: &mut impl FnMut() -> u64) -> Vec<Member<'_>> {
        let indexes = distinct_indexes(self.len(), count, random);
        indexes.into_iter().filter_map(|index| self.get_index(index)).collect()
    }

    /// Removes a random member and returns it.
    pub(crate) fn pop(&mut self, random: u64) -> Option<Box<[u8]>> {
        if self.is_empty() {
            return None;
        }
        let index = index_below(random, self.len());
        match &mut self.form {
            Form::Integers(integers) => integers.remove_index(index).map(|integer| (*Member::from(integer)).into()),
            Form::Table(table) => table.remove_index(index),
        }
    }

    /// Removes up to `count` random members and returns them.
    ///
    /// A table of which at most a sixth stays, all integers, becomes an `intset` again, because Redis builds the set anew then.
    pub(crate) fn pop_many(
        &mut self,
        count: usize,
        limits: &Limits,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Box<[u8]>> {
        let count = count.min(self.len());
        let members = (0..count).filter_map(|_| self.pop(random())).collect();
        if self.len() * REBUILD_REMAINING_FACTOR <= count {
            self.become_integers(limits);
        }
        members
    }

    /// Shows some members to `visit`, about `count` of a table and all of a set of integers, and returns the cursor to go on
    /// with; 0 starts and means the end. Members that are there throughout a scan are visited; some may be more than once.
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Member<'_>)) -> u64 {
        match &self.form {
            Form::Integers(_) => {
                self.iter().for_each(visit);
                0
            }
            Form::Table(table) => table.scan(cursor, count, |member| visit(Member::from(&**member))),
        }
    }

    fn get_index(&self, index: usize) -> Option<Member<'_>> {
        match &self.form {
            Form::Integers(integers) => integers.get(index).map(Member::from),
            Form::Table(table) => table.get_index(index).map(|member| Member::from(&**member)),
        }
    }

    /// Turns a set of integers into a table, with room for `additional` members.
    fn become_table(&mut self, additional: usize) {
        let mut table = Table::with_capacity(self.len() + additional);
        for member in self.iter() {
            table.insert((*member).into());
        }
        self.form = Form::Table(Box::new(table));
    }

    fn become_integers(&mut self, limits: &Limits) {
        let Form::Table(table) = &self.form else {
            return;
        };
        if table.len() > limits.intset_entries_max() {
            return;
        }
        let mut integers = IntSet::new();
        for member in table.iter() {
            let Some(integer) = canonical_i64(member) else {
                return;
            };
            integers.insert(integer);
        }
        self.form = Form::Integers(integers);
    }
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

/// A member of a set: the bytes that the set holds, or the text of an integer.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a>(Text<'a>);

#[derive(Clone, Copy)]
enum Text<'a> {
    Stored(&'a [u8]),
    Formatted { bytes: [u8; INTEGER_BYTES_MAX], len: u8 },
}

impl<'a> From<&'a [u8]> for Member<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Text::Stored(bytes))
    }
}

impl From<i64> for Member<'_> {
    fn from(integer: i64) -> Self {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(integer).as_bytes();
        let mut bytes = [0; INTEGER_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Self(Text::Formatted { bytes, len: text.len() as u8 })
    }
}

impl Deref for Member<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Text::Stored(bytes) => bytes,
            Text::Formatted { bytes, len } => &bytes[..usize::from(*len)],
        }
    }
}

impl AsRef<[u8]> for Member<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<'a> From<Member<'a>> for Cow<'a, [u8]> {
    fn from(member: Member<'a>) -> Self {
        match member.0 {
            Text::Stored(bytes) => Cow::Borrowed(bytes),
            Text::Formatted { .. } => Cow::Owned(member.to_vec()),
        }
    }
}

impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// A walk over the members of a set.
#[derive(Clone)]
pub(crate) struct Members<'a> {
    set: &'a Set,
    indexes: Range<usize>,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    #[inline]
    fn next(&mut self) -> Option<Member<'a>> {
        self.set.get_index(self.indexes.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indexes.size_hint()
    }
}

impl ExactSizeIterator for Members<'_> {}

impl FusedIterator for Members<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::Set;
    use crate::value::limits::Limits;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(Vec<u8>),
        Remove(Vec<u8>),
        Pop(u64),
        PopMany(usize),
        Clone,
    }

    fn change() -> impl Strategy<Value = Change> {
        let member =
            || prop_oneof![9 => (-9..30_i64).prop_map(|n| n.to_string().into_bytes()), 1 => vec(any::<u8>(), 0..30)];
        prop_oneof![
            9 => member().prop_map(Change::Insert),
            4 => member().prop_map(Change::Remove),
            1 => any::<u64>().prop_map(Change::Pop),
            1 => (0..20_usize).prop_map(Change::PopMany),
            1 => proptest::prelude::Just(Change::Clone),
        ]
    }

    fn apply(set: &mut Set, model: &mut BTreeSet<Vec<u8>>, limits: &Limits, change: Change) {
        match change {
            Change::Insert(member) => assert_eq!(set.insert(&member, limits), model.insert(member)),
            Change::Remove(member) => assert_eq!(set.remove(&member), model.remove(&member)),
            Change::Pop(random) => {
                let member = set.pop(random);
                assert_eq!(member.is_some(), !model.is_empty());
                assert!(member.is_none_or(|member| model.remove(&*member)));
            }
            Change::PopMany(count) => {
                let count_before = model.len();
                let members = set.pop_many(count, limits, &mut random_from(count as u64));
                assert_eq!(members.len(), count.min(count_before));
                assert!(members.iter().all(|member| model.remove(&**member)));
            }
            Change::Clone => *set = set.clone(),
        }
    }

    fn random_from(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        }
    }

    fn members_of(set: &Set) -> BTreeSet<Vec<u8>> {
        set.iter().map(|member| member.to_vec()).collect()
    }

    fn numbers(range: std::ops::Range<i64>, limits: &Limits) -> Set {
        let mut set = Set::new();
        range.for_each(|number| assert!(set.insert(number.to_string().as_bytes(), limits)));
        set
    }

    proptest! {
        #[test]
        fn set_behaves_as_a_set_in_both_encodings(changes in vec(change(), 1..150), entries_max in 0..40_usize) {
            let limits = Limits { set_max_intset_entries: entries_max, ..Limits::default() };
            let (mut set, mut model) = (Set::new(), BTreeSet::new());
            for change in changes {
                apply(&mut set, &mut model, &limits, change);
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(&members_of(&set), &model);
                prop_assert!(model.iter().all(|member| set.contains(member)));
            }
            let mut scanned = BTreeSet::new();
            let mut cursor = set.scan(0, 3, |member| assert!(scanned.insert(member.to_vec())));
            while cursor != 0 {
                cursor = set.scan(cursor, 3, |member| assert!(scanned.insert(member.to_vec())));
            }
            prop_assert_eq!(scanned, model.clone());
            for count in [0, 1, model.len() / 2, model.len(), model.len() + 1] {
                let sample = set.random_distinct(count, &mut random_from(1));
                let different: BTreeSet<&[u8]> = sample.iter().map(|member| &**member).collect();
                prop_assert_eq!(different.len(), count.min(model.len()));
                prop_assert!(different.iter().all(|member| model.contains(*member)));
            }
        }
    }

    #[test]
    fn encoding_changes_where_redis_changes_it() {
        let limits = Limits::default();
        let mut set = numbers(0..512, &limits);
        assert_eq!(set.encoding(), "intset");
        assert!(!set.insert(b"7", &limits));
        assert_eq!(set.encoding(), "intset");
        assert!(set.insert(b"512", &limits));
        assert_eq!(set.encoding(), "hashtable");
        assert!(set.remove(b"512"));
        assert_eq!(set.encoding(), "hashtable");

        let mut set = numbers(0..3, &limits);
        assert!(!set.contains(b"01") && !set.remove(b"+1"));
        assert!(set.insert(b"01", &limits));
        assert_eq!(set.encoding(), "hashtable");
        assert!(set.contains(b"1") && set.contains(b"01"));
    }

    /// What redis-server 7.0.15 answers: of 20 integers in a table, popping 17 makes an intset and popping 16 does not.
    #[test]
    fn popping_most_of_a_table_makes_integers_an_intset_again() {
        let limits = Limits::default();
        for (count, encoding) in [(16, "hashtable"), (17, "intset")] {
            let mut set = numbers(0..20, &limits);
            assert!(set.insert(b"a", &limits) && set.remove(b"a"));
            assert_eq!(set.pop_many(count, &limits, &mut random_from(3)).len(), count);
            assert_eq!((set.len(), set.encoding()), (20 - count, encoding));
        }
    }

    #[test]
    fn integers_are_walked_in_ascending_order() {
        let mut set = Set::new();
        for number in ["100000", "-3", "5", "9223372036854775807", "-9223372036854775808"] {
            set.insert(number.as_bytes(), &Limits::default());
        }
        let members: Vec<String> = set.iter().map(|member| String::from_utf8_lossy(&member).into_owned()).collect();
        assert_eq!(members, ["-9223372036854775808", "-3", "5", "100000", "9223372036854775807"]);
    }

    #[test]
    fn emptied_set_costs_what_an_empty_one_does() {
        let limits = Limits::default();
        let mut set = numbers(0..100, &limits);
        (0..100).for_each(|_| assert!(set.pop(u64::MAX).is_some()));
        assert_eq!((set.pop(0), set.random(0).is_none(), set.cost_bytes()), (None, true, Set::new().cost_bytes()));

        let mut set = numbers(0..1_000, &limits);
        let full_bytes = set.cost_bytes();
        assert_eq!(set.pop_many(2_000, &limits, &mut random_from(1)).len(), 1_000);
        assert!(full_bytes > 30_000 && set.cost_bytes() == 0, "{full_bytes} {}", set.cost_bytes());
    }
}
