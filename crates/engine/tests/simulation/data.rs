//! The keyspace as it is documented: plain maps, from which a key is gone the moment that its time is over.
//!
//! What a command changes is noted in order, with the kind of value that the key holds then: transactions depend on the
//! one, clients that wait on the other.

mod hashes;
mod keys;
mod lists;
mod sets;
mod sorted_sets;
mod strings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::wire::Reply;

pub(crate) const DATABASES: usize = 2;

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

/// Scores are whole numbers: how fractions are written is tested elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    List(VecDeque<String>),
    Set(BTreeSet<String>),
    Hash(BTreeMap<String, String>),
    Sorted(BTreeMap<String, i64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    List,
    Set,
    Hash,
    Sorted,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// The last millisecond at which it is there.
    pub(crate) expires_at_ms: Option<u64>,
}

/// What came of a command.
pub(crate) enum Outcome {
    Reply(Reply),
    /// There is nothing yet in `keys`. `denied` is said where nobody may wait.
    Wait {
        keys: Vec<String>,
        kind: Kind,
        timeout_ms: u64,
        denied: Reply,
    },
}

/// A refusal, in the words of the reply.
pub(crate) type Answer<T> = Result<T, String>;

#[derive(Default)]
pub(crate) struct Data {
    pub(crate) now_ms: u64,
    databases: [BTreeMap<String, Entry>; DATABASES],
    /// Keys that were changed, and what they hold since.
    pub(crate) changed: Vec<(usize, String, Option<Kind>)>,
}

impl Value {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::Hash(_) => Kind::Hash,
            Self::Sorted(_) => Kind::Sorted,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Hash(fields) => fields.is_empty(),
            Self::Sorted(members) => members.is_empty(),
        }
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Hash => "hash",
            Self::Sorted => "zset",
        }
    }
}

impl Data {
    /// Goes on to a time. Whatever has ended by then has changed.
    pub(crate) fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        for database in 0..DATABASES {
            let is_over = |entry: &Entry| entry.expires_at_ms.is_some_and(|at_ms| at_ms < now_ms);
            let over = self.databases[database].extract_if(.., |_, entry| is_over(entry)).map(|(key, _)| key);
            self.changed.extend(over.map(|key| (database, key, None)));
        }
    }

    pub(crate) fn database(&self, number: usize) -> &BTreeMap<String, Entry> {
        &self.databases[number]
    }

    pub(crate) fn kind(&self, database: usize, key: &str) -> Option<Kind> {
        self.databases[database].get(key).map(|entry| entry.value.kind())
    }

    pub(crate) fn clear(&mut self, database: usize) {
        let keys = std::mem::take(&mut self.databases[database]).into_keys();
        self.changed.extend(keys.map(|key| (database, key, None)));
    }

    /// Gives a key a value, whatever it held, and notes the change.
    pub(crate) fn put(&mut self, database: usize, key: &str, value: Value, expires_at_ms: Option<u64>) {
        self.databases[database].insert(key.to_owned(), Entry { value, expires_at_ms });
        self.note(database, key);
    }

    /// Removes a key; a change if it was there.
    pub(crate) fn remove(&mut self, database: usize, key: &str) -> Option<Entry> {
        let entry = self.databases[database].remove(key)?;
        self.note(database, key);
        Some(entry)
    }

    fn note(&mut self, database: usize, key: &str) {
        let kind = self.kind(database, key);
        self.changed.push((database, key.to_owned(), kind));
    }

    /// Carries a command out. On behalf of a client that has waited it may use the key `woken_by` only.
    pub(crate) fn run(&mut self, database: usize, args: &[&str], woken_by: Option<&str>) -> Answer<Outcome> {
        let mut run = Run { data: self, database, args, woken_by };
        if let Some(outcome) = run.lists_that_wait()? {
            return Ok(outcome);
        }
        if let Some(outcome) = run.sorted_sets_that_wait()? {
            return Ok(outcome);
        }
        for family in [Run::strings, Run::keys, Run::lists, Run::sets, Run::hashes, Run::sorted_sets] {
            if let Some(reply) = family(&mut run)? {
                return Ok(Outcome::Reply(reply));
            }
        }
        panic!("the model does not know {}", args[0])
    }
}

/// A command that is carried out.
struct Run<'r> {
    data: &'r mut Data,
    database: usize,
    args: &'r [&'r str],
    woken_by: Option<&'r str>,
}

impl<'r> Run<'r> {
    fn entry(&mut self, key: &str) -> Option<&mut Entry> {
        self.data.databases[self.database].get_mut(key)
    }

    fn exists(&mut self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    fn text(&mut self, key: &str) -> Answer<Option<&mut String>> {
        match self.entry(key).map(|entry| &mut entry.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn list(&mut self, key: &str) -> Answer<Option<&mut VecDeque<String>>> {
        match self.entry(key).map(|entry| &mut entry.value) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn set(&mut self, key: &str) -> Answer<Option<&mut BTreeSet<String>>> {
        match self.entry(key).map(|entry| &mut entry.value) {
            None => Ok(None),
            Some(Value::Set(set)) => Ok(Some(set)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn hash(&mut self, key: &str) -> Answer<Option<&mut BTreeMap<String, String>>> {
        match self.entry(key).map(|entry| &mut entry.value) {
            None => Ok(None),
            Some(Value::Hash(fields)) => Ok(Some(fields)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn sorted(&mut self, key: &str) -> Answer<Option<&mut BTreeMap<String, i64>>> {
        match self.entry(key).map(|entry| &mut entry.value) {
            None => Ok(None),
            Some(Value::Sorted(members)) => Ok(Some(members)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    /// Makes a key with an empty value of this kind, unless there is one. [`changed`](Self::changed) removes it if it stays empty.
    fn begin(&mut self, key: &str, value: Value) {
        let keys = &mut self.data.databases[self.database];
        keys.entry(key.to_owned()).or_insert(Entry { value, expires_at_ms: None });
    }

    fn remove_if_empty(&mut self, key: &str) {
        if self.entry(key).is_some_and(|entry| entry.value.is_empty()) {
            self.data.databases[self.database].remove(key);
        }
    }

    fn changed(&mut self, key: &str) {
        self.remove_if_empty(key);
        self.data.note(self.database, key);
    }

    fn put(&mut self, key: &str, value: Value, expires_at_ms: Option<u64>) {
        self.data.put(self.database, key, value, expires_at_ms);
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        self.data.remove(self.database, key)
    }

    /// Stores a collection under `key`, or nothing if it is empty.
    fn store(&mut self, key: &str, value: Value) {
        if value.is_empty() {
            self.remove(key);
        } else {
            self.put(key, value, None);
        }
    }

    /// Those of `keys` that may be used.
    fn candidates(&self, keys: &'r [&'r str]) -> Vec<&'r str> {
        keys.iter().copied().filter(|key| self.woken_by.is_none_or(|woken_by| woken_by == *key)).collect()
    }
}

/// An integer, with nothing around it.
fn integer(text: &str) -> Answer<i64> {
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    number.ok_or_else(|| NOT_AN_INTEGER.to_owned())
}

fn milliseconds(seconds: &str) -> u64 {
    let seconds: f64 = seconds.parse().expect("the plan has written a number");
    (seconds * 1_000.0).round() as u64
}

/// The positions from `start` to `stop`, both of which count from the end if they are negative.
fn positions(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len_i = i64::try_from(len).expect("a length");
    let from_front = |index: i64| if index < 0 { (index + len_i).max(-1) } else { index };
    let (start, stop) = (from_front(start).max(0), from_front(stop).min(len_i - 1));
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}
