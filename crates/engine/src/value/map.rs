//! A hash: fields with values; in the order in which they came while it is small, and then in no order that a caller may rely on.
//!
//! # How it works
//! A small hash is one packed buffer, field after value after field, that is searched from its start. One field too many, or a field or
//! value too long, turns it into a table whose rows hold field and value in one allocation; nothing turns it back.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::iter::FusedIterator;

use super::limits::Limits;
use super::packed::{Elements, Length, Packed, read_length};
use super::sample::{distinct_indexes, index_below};
use super::table::{Row, Table};

/// Fields with values.
#[derive(Clone)]
pub struct Fields {
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// A field at every even number, and its value at the next one.
    Packed(Packed),
    /// Boxed, so that small hashes do not pay for the large form.
    Table(Box<Table<Pair>>),
}

impl Fields {
    /// An empty hash.
    #[must_use]
    pub const fn new() -> Self {
        Self { form: Form::Packed(Packed::new()) }
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Packed(packed) => packed.len() / 2,
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a field is found by walking through them.
    #[cfg(feature = "commands")]
    pub(crate) const fn is_packed(&self) -> bool {
        matches!(self.form, Form::Packed(_))
    }

    /// The name that OBJECT ENCODING shows.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self.form {
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// The estimated memory of everything the hash has allocated.
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        match &self.form {
            Form::Packed(packed) => packed.cost_bytes(),
            Form::Table(table) => size_of::<Table<Pair>>() as u64 + table.cost_bytes(),
        }
    }

    /// The value of `field`.
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.form {
            Form::Packed(packed) => find(packed, field).map(|(_, value)| value),
            Form::Table(table) => table.get(field).map(Pair::value),
        }
    }

    /// Whether there is a value for `field`.
    #[must_use]
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// All fields with their values.
    #[must_use]
    pub fn iter(&self) -> Pairs<'_> {
        let walk = match &self.form {
            Form::Packed(packed) => Walk::Packed(packed.iter()),
            Form::Table(table) => Walk::Table(table.iter()),
        };
        Pairs { walk, left: self.len() }
    }

    /// Sets `field` to `value`. Returns whether the field is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        if field.len().max(value.len()) > limits.hash_max_listpack_value {
            self.become_table();
        }
        let is_new = match &mut self.form {
            Form::Packed(packed) => insert_packed(packed, field, value),
            Form::Table(table) => return insert_row(table, field, value),
        };
        // Also when a value was replaced: the limit may have been lowered since the last write.
        if self.len() > limits.hash_max_listpack_entries {
            self.become_table();
        }
        is_new
    }

    /// Removes `field`. Returns whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.form {
            Form::Packed(packed) => match find(packed, field) {
                Some((index, _)) => {
                    packed.remove(index..index + 2);
                    true
                }
                None => false,
            },
            Form::Table(table) => table.remove(field).is_some(),
        }
    }

    /// Removes `field` and returns its value.
    pub fn take(&mut self, field: &[u8]) -> Option<Box<[u8]>> {
        let value = self.get(field)?.into();
        self.remove(field);
        Some(value)
    }

    /// A field with its value, each as likely as the others for a random `random`; `None` if the hash is empty.
    #[must_use]
    pub fn random(&self, random: u64) -> Option<(&[u8], &[u8])> {
        if self.is_empty() {
            return None;
        }
        let index = index_below(random, self.len());
        match &self.form {
            Form::Packed(packed) => next_pair(&mut packed.iter_from(2 * index)),
            Form::Table(table) => table.get_index(index).map(Pair::as_slices),
        }
    }

    /// `count` different fields at random, with their values, or all if there are no more.
    #[must_use]
    pub fn random_distinct(&self, count: usize, random: &mut impl FnMut() -> u64) -> Vec<(&[u8], &[u8])> {
        let indexes = distinct_indexes(self.len(), count, random);
        match &self.form {
            Form::Packed(_) => {
                // One walk instead of one per index.
                let pairs: Vec<_> = self.iter().collect();
                indexes.into_iter().map(|index| pairs[index]).collect()
            }
            Form::Table(table) => {
                indexes.into_iter().filter_map(|index| table.get_index(index)).map(Pair::as_slices).collect()
            }
        }
    }

    /// Shows some fields with their values to `visit`, about `count` of a table and all of a small hash, and returns the cursor
    /// to go on with; 0 starts and means the end. Fields that are there throughout a scan are visited; some may be more than once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        match &self.form {
            Form::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Table(table) => table.scan(cursor, count, |pair| visit(pair.field(), pair.value())),
        }
    }

    fn become_table(&mut self) {
        if let Form::Table(_) = self.form {
            return;
        }
        // Whatever makes a hash a table is about to be added.
        let mut table = Table::with_capacity(self.len() + 1);
        for (field, value) in self.iter() {
            table.insert(Pair::new(field, value));
        }
        self.form = Form::Table(Box::new(table));
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::new()
    }
}

/// A walk over the fields of a hash and their values.
#[derive(Clone)]
pub struct Pairs<'a> {
    walk: Walk<'a>,
    left: usize,
}

#[derive(Clone)]
enum Walk<'a> {
    Packed(Elements<'a>),
    Table(indexmap::set::Iter<'a, Pair>),
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let pair = match &mut self.walk {
            Walk::Packed(elements) => next_pair(elements),
            Walk::Table(pairs) => pairs.next().map(Pair::as_slices),
        }?;
        self.left -= 1;
        Some(pair)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

impl FusedIterator for Pairs<'_> {}

/// A row of the large form: the length of the field, the field, the value.
#[derive(Clone)]
struct Pair(Box<[u8]>);

impl Pair {
    fn new(field: &[u8], value: &[u8]) -> Self {
        let length = Length::of(field);
        let length = length.as_slice();
        let mut bytes = Vec::with_capacity(length.len() + field.len() + value.len());
        bytes.extend_from_slice(length);
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    /// Makes the value another one of the same length. Returns whether it is.
    fn write_over(&mut self, value: &[u8]) -> bool {
        let start = self.0.len() - self.value().len();
        let is_as_long = self.0.len() - start == value.len();
        if is_as_long {
            self.0[start..].copy_from_slice(value);
        }
        is_as_long
    }

    #[inline]
    fn as_slices(&self) -> (&[u8], &[u8]) {
        let (len, used) = read_length(self.0.iter());
        self.0[used..].split_at(len)
    }

    fn field(&self) -> &[u8] {
        self.as_slices().0
    }

    fn value(&self) -> &[u8] {
        self.as_slices().1
    }
}

impl Row for Pair {
    fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

impl Borrow<[u8]> for Pair {
    fn borrow(&self) -> &[u8] {
        self.field()
    }
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.field().hash(state);
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.field() == other.field()
    }
}

impl Eq for Pair {}

/// The number of the element that holds `field`, and its value.
fn find<'a>(packed: &'a Packed, field: &[u8]) -> Option<(usize, &'a [u8])> {
    let mut elements = packed.iter();
    let mut index = 0;
    while let Some((candidate, value)) = next_pair(&mut elements) {
        if candidate == field {
            return Some((index, value));
        }
        index += 2;
    }
    None
}

/// Returns whether the field is new.
fn insert_row(table: &mut Table<Pair>, field: &[u8], value: &[u8]) -> bool {
    let was_there = table.update(field, |pair| {
        // Without asking for memory and giving it back, if the new value takes as much as the old one.
        if !pair.write_over(value) {
            *pair = Pair::new(field, value);
        }
    });
    !was_there && table.insert(Pair::new(field, value))
}

fn insert_packed(packed: &mut Packed, field: &[u8], value: &[u8]) -> bool {
    match find(packed, field) {
        Some((index, _)) => {
            packed.replace(index + 1, value);
            false
        }
        None => {
            packed.push_back(field);
            packed.push_back(value);
            true
        }
    }
}

fn next_pair<'a>(elements: &mut Elements<'a>) -> Option<(&'a [u8], &'a [u8])> {
    Some((elements.next()?, elements.next()?))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::Fields;
    use crate::value::limits::Limits;

    type Model = HashMap<Vec<u8>, Vec<u8>>;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(Vec<u8>, Vec<u8>),
        Remove(Vec<u8>),
        Take(Vec<u8>),
        Clone,
    }

    fn change() -> impl Strategy<Value = Change> {
        let field = || prop_oneof![8 => (0..30_u8).prop_map(|number| vec![number]), 1 => vec(0..2_u8, 0..12)];
        let value = prop_oneof![8 => vec(any::<u8>(), 0..10), 1 => vec(any::<u8>(), 0..200)];
        prop_oneof![
            9 => (field(), value).prop_map(|(field, value)| Change::Insert(field, value)),
            2 => field().prop_map(Change::Remove),
            2 => field().prop_map(Change::Take),
            1 => Just(Change::Clone),
        ]
    }

    fn apply(fields: &mut Fields, model: &mut Model, limits: &Limits, change: Change) {
        match change {
            Change::Insert(field, value) => {
                assert_eq!(fields.insert(&field, &value, limits), model.insert(field, value).is_none());
            }
            Change::Remove(field) => assert_eq!(fields.remove(&field), model.remove(&field).is_some()),
            Change::Take(field) => assert_eq!(fields.take(&field).map(Vec::from), model.remove(&field)),
            Change::Clone => *fields = fields.clone(),
        }
    }

    fn random_from(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        }
    }

    proptest! {
        #[test]
        fn hash_behaves_as_a_map_in_both_encodings(
            changes in vec(change(), 1..150),
            hash_max_listpack_entries in 0..40_usize,
            hash_max_listpack_value in prop_oneof![Just(64_usize), Just(5), Just(1_000)],
        ) {
            let limits = Limits { hash_max_listpack_entries, hash_max_listpack_value, ..Limits::default() };
            let (mut fields, mut model) = (Fields::new(), Model::new());
            for change in changes {
                apply(&mut fields, &mut model, &limits, change);
                let pairs: Model = fields.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
                prop_assert_eq!(&pairs, &model);
                prop_assert_eq!((fields.len(), fields.iter().len()), (model.len(), model.len()));
                prop_assert!(model.iter().all(|(field, value)| fields.get(field) == Some(value.as_slice())));
            }
            let mut scanned = Model::new();
            let mut cursor = fields.scan(0, 3, |field, value| drop(scanned.insert(field.to_vec(), value.to_vec())));
            while cursor != 0 {
                cursor = fields.scan(cursor, 3, |field, value| drop(scanned.insert(field.to_vec(), value.to_vec())));
            }
            prop_assert_eq!(&scanned, &model);
            for count in [0, 1, model.len() / 2, model.len(), model.len() + 1] {
                let sample: HashMap<&[u8], &[u8]> =
                    fields.random_distinct(count, &mut random_from(1)).into_iter().collect();
                prop_assert_eq!(sample.len(), count.min(model.len()));
                prop_assert!(sample.iter().all(|(field, value)| model.get(*field).is_some_and(|held| held == value)));
            }
            model.keys().for_each(|field| assert!(fields.remove(field)));
            let is_small = fields.encoding() == "listpack";
            prop_assert!(fields.is_empty() && fields.random(7).is_none());
            prop_assert!(fields.cost_bytes() <= if is_small { 0 } else { 100 }, "{}", fields.cost_bytes());
        }
    }

    #[test]
    fn encoding_changes_where_redis_changes_it() {
        let limits = Limits::default();
        let mut fields = Fields::new();
        for number in 0..512 {
            assert!(fields.insert(format!("field-{number}").as_bytes(), &[b'v'; 64], &limits));
        }
        assert_eq!(fields.encoding(), "listpack");
        assert!(!fields.insert(b"field-0", b"", &limits));
        assert_eq!(fields.encoding(), "listpack");
        assert!(fields.insert(b"one more", b"", &limits));
        assert_eq!(fields.encoding(), "hashtable");
        assert!(fields.remove(b"one more"));
        assert_eq!(fields.encoding(), "hashtable");

        for (field, value) in [(vec![b'f'; 65], vec![]), (vec![b'f'], vec![b'v'; 65])] {
            let mut fields = Fields::new();
            assert!(fields.insert(b"small", b"small", &limits));
            assert_eq!(fields.encoding(), "listpack");
            assert!(fields.insert(&field, &value, &limits));
            assert_eq!(fields.encoding(), "hashtable");
        }
    }

    #[test]
    fn lowered_limit_takes_effect_when_a_value_is_replaced() {
        let mut fields = Fields::new();
        for field in [b"a", b"b", b"c"] {
            fields.insert(field, b"1", &Limits::default());
        }
        fields.insert(b"a", b"2", &Limits { hash_max_listpack_entries: 2, ..Limits::default() });
        assert_eq!((fields.encoding(), fields.get(b"a")), ("hashtable", Some(&b"2"[..])));
    }

    #[test]
    fn small_hash_is_walked_in_the_order_in_which_fields_came() {
        let mut fields = Fields::new();
        for (field, value) in [("z", "1"), ("a", "2"), ("m", "3"), ("z", "a longer value"), ("b", "4")] {
            fields.insert(field.as_bytes(), value.as_bytes(), &Limits::default());
        }
        assert!(fields.remove(b"a"));
        let names: Vec<&[u8]> = fields.iter().map(|(field, _)| field).collect();
        assert_eq!(names, [b"z", b"m", b"b"]);
    }
}
