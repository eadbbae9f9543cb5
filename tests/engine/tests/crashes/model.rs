//! What one connection has written, as plain maps and lists that share no code with the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use acteon_engine_tests::reply::Reply;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    /// Scores are whole numbers: what is tried here is what is kept, not how it is written.
    Sorted(BTreeMap<Vec<u8>, i64>),
}

/// When a key ends, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Never,
    At(u64),
    /// Counted by the server from the moment at which it carried the command out.
    Between(u64, u64),
}

/// A key's value and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) data: Data,
    pub(crate) end: End,
}

/// All keys of a connection.
pub(crate) type Keys = BTreeMap<String, Entry>;

/// One key that is changed in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set(String, Vec<u8>),
    /// For so many seconds from when it is carried out.
    SetFor(String, Vec<u8>, u64),
    /// Until this moment.
    SetUntil(String, Vec<u8>, u64),
    KeepUntil(String, u64),
    Increment(String),
    Append(String, Vec<u8>),
    SetRange(String, usize, Vec<u8>),
    PushFront(String, Vec<u8>),
    PushBack(String, Vec<u8>),
    PopFront(String),
    KeepLast(String, usize),
    PutField(String, Vec<u8>, Vec<u8>),
    RemoveField(String, Vec<u8>),
    AddMember(String, Vec<u8>),
    RemoveMember(String, Vec<u8>),
    Score(String, Vec<u8>, i64),
    Unscore(String, Vec<u8>),
    Remove(String),
    Rename(String, String),
    /// Of a key that all connections share: what it holds then is known to nobody.
    IncrementShared(String),
    /// As the one before, of a list.
    PushShared(String, Vec<u8>),
}

/// Between which moments a command was carried out, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
}

impl Change {
    /// The command that does it.
    pub(crate) fn arguments(&self) -> Vec<Vec<u8>> {
        let number = |number: &dyn ToString| number.to_string().into_bytes();
        let line: Vec<&[u8]> = match self {
            Self::Set(key, text) => vec![b"SET", key.as_bytes(), text],
            Self::SetFor(key, text, seconds) => {
                return [&b"SETEX"[..], key.as_bytes(), &number(seconds), text].map(<[u8]>::to_vec).into();
            }
            Self::SetUntil(key, text, at_ms) => {
                return [&b"SET"[..], key.as_bytes(), text, b"PXAT", &number(at_ms)].map(<[u8]>::to_vec).into();
            }
            Self::KeepUntil(key, at_ms) => {
                return [&b"PEXPIREAT"[..], key.as_bytes(), &number(at_ms)].map(<[u8]>::to_vec).into();
            }
            Self::Increment(key) | Self::IncrementShared(key) => vec![b"INCR", key.as_bytes()],
            Self::Append(key, text) => vec![b"APPEND", key.as_bytes(), text],
            Self::SetRange(key, offset, text) => {
                return [&b"SETRANGE"[..], key.as_bytes(), &number(offset), text].map(<[u8]>::to_vec).into();
            }
            Self::PushFront(key, text) => vec![b"LPUSH", key.as_bytes(), text],
            Self::PushBack(key, text) | Self::PushShared(key, text) => vec![b"RPUSH", key.as_bytes(), text],
            Self::PopFront(key) => vec![b"LPOP", key.as_bytes()],
            Self::KeepLast(key, count) => {
                let first = format!("-{count}").into_bytes();
                return [&b"LTRIM"[..], key.as_bytes(), &first, b"-1"].map(<[u8]>::to_vec).into();
            }
            Self::PutField(key, field, text) => vec![b"HSET", key.as_bytes(), field, text],
            Self::RemoveField(key, field) => vec![b"HDEL", key.as_bytes(), field],
            Self::AddMember(key, member) => vec![b"SADD", key.as_bytes(), member],
            Self::RemoveMember(key, member) => vec![b"SREM", key.as_bytes(), member],
            Self::Score(key, member, score) => {
                return [&b"ZADD"[..], key.as_bytes(), &number(score), member].map(<[u8]>::to_vec).into();
            }
            Self::Unscore(key, member) => vec![b"ZREM", key.as_bytes(), member],
            Self::Remove(key) => vec![b"DEL", key.as_bytes()],
            Self::Rename(from, to) => vec![b"RENAME", from.as_bytes(), to.as_bytes()],
        };
        line.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// The keys that it may change.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Rename(from, to) => vec![from, to],
            Self::Set(key, ..)
            | Self::SetFor(key, ..)
            | Self::SetUntil(key, ..)
            | Self::KeepUntil(key, ..)
            | Self::Increment(key)
            | Self::Append(key, ..)
            | Self::SetRange(key, ..)
            | Self::PushFront(key, ..)
            | Self::PushBack(key, ..)
            | Self::PopFront(key)
            | Self::KeepLast(key, ..)
            | Self::PutField(key, ..)
            | Self::RemoveField(key, ..)
            | Self::AddMember(key, ..)
            | Self::RemoveMember(key, ..)
            | Self::Score(key, ..)
            | Self::Unscore(key, ..)
            | Self::Remove(key)
            | Self::IncrementShared(key)
            | Self::PushShared(key, ..) => vec![key],
        }
    }

    /// Carries it out, and returns what the server must answer; `None` where that is up to other connections.
    pub(crate) fn apply(&self, keys: &mut Keys, span: Span) -> Option<Reply> {
        Some(match self {
            Self::Set(key, text) => set(keys, key, text, End::Never),
            Self::SetFor(key, text, seconds) => {
                let lasting_ms = seconds * 1_000;
                set(keys, key, text, End::Between(span.from_ms + lasting_ms, span.until_ms + lasting_ms))
            }
            Self::SetUntil(key, text, at_ms) => set(keys, key, text, End::At(*at_ms)),
            Self::KeepUntil(key, at_ms) => match keys.get_mut(key) {
                Some(entry) => {
                    entry.end = End::At(*at_ms);
                    number(1)
                }
                None => number(0),
            },
            Self::Increment(key) => {
                let text = text_of(keys, key);
                let next: i64 = 1 + std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                *text = next.to_string().into_bytes();
                number(next)
            }
            Self::Append(key, more) => {
                let text = text_of(keys, key);
                text.extend_from_slice(more);
                count(text.len())
            }
            Self::SetRange(key, offset, part) => {
                let text = text_of(keys, key);
                text.resize(text.len().max(offset + part.len()), 0);
                text[*offset..offset + part.len()].copy_from_slice(part);
                count(text.len())
            }
            Self::PushFront(..) | Self::PushBack(..) | Self::PopFront(_) | Self::KeepLast(..) => {
                self.apply_to_list(keys)
            }
            Self::PutField(key, field, text) => {
                let Data::Hash(hash) = data_of(keys, key, || Data::Hash(BTreeMap::new())) else { wrong_type(key) };
                number(i64::from(hash.insert(field.clone(), text.clone()).is_none()))
            }
            Self::AddMember(key, member) => {
                let Data::Set(set) = data_of(keys, key, || Data::Set(BTreeSet::new())) else { wrong_type(key) };
                number(i64::from(set.insert(member.clone())))
            }
            Self::Score(key, member, score) => {
                let Data::Sorted(sorted) = data_of(keys, key, || Data::Sorted(BTreeMap::new())) else {
                    wrong_type(key)
                };
                number(i64::from(sorted.insert(member.clone(), *score).is_none()))
            }
            Self::RemoveField(key, member) | Self::RemoveMember(key, member) | Self::Unscore(key, member) => {
                remove_member(keys, key, member)
            }
            Self::Remove(key) => number(i64::from(keys.remove(key).is_some())),
            Self::Rename(from, to) => match keys.remove(from) {
                Some(entry) => {
                    keys.insert(to.clone(), entry);
                    ok()
                }
                None => Reply::Line(b'-', b"ERR no such key".to_vec()),
            },
            Self::IncrementShared(_) | Self::PushShared(..) => return None,
        })
    }

    fn apply_to_list(&self, keys: &mut Keys) -> Reply {
        let (key, reply) = match self {
            Self::PushFront(key, text) => {
                let list = list_of(keys, key);
                list.push_front(text.clone());
                (key, count(list.len()))
            }
            Self::PushBack(key, text) => {
                let list = list_of(keys, key);
                list.push_back(text.clone());
                (key, count(list.len()))
            }
            Self::PopFront(key) => {
                let first = list_of(keys, key).pop_front();
                (key, first.map_or(Reply::Missing(b'$'), |text| Reply::Blob(b'$', text)))
            }
            Self::KeepLast(key, kept) => {
                let list = list_of(keys, key);
                list.drain(..list.len().saturating_sub(*kept));
                (key, ok())
            }
            _ => unreachable!("only what changes lists comes here"),
        };
        drop_if_empty(keys, key);
        reply
    }
}

fn set(keys: &mut Keys, key: &str, text: &[u8], end: End) -> Reply {
    keys.insert(key.to_owned(), Entry { data: Data::Text(text.to_vec()), end });
    ok()
}

fn remove_member(keys: &mut Keys, key: &str, member: &[u8]) -> Reply {
    let is_removed = match keys.get_mut(key).map(|entry| &mut entry.data) {
        Some(Data::Hash(hash)) => hash.remove(member).is_some(),
        Some(Data::Set(set)) => set.remove(member),
        Some(Data::Sorted(sorted)) => sorted.remove(member).is_some(),
        Some(Data::Text(_) | Data::List(_)) => wrong_type(key),
        None => false,
    };
    drop_if_empty(keys, key);
    number(i64::from(is_removed))
}

fn text_of<'a>(keys: &'a mut Keys, key: &str) -> &'a mut Vec<u8> {
    let Data::Text(text) = data_of(keys, key, || Data::Text(Vec::new())) else { wrong_type(key) };
    text
}

fn list_of<'a>(keys: &'a mut Keys, key: &str) -> &'a mut VecDeque<Vec<u8>> {
    let Data::List(list) = data_of(keys, key, || Data::List(VecDeque::new())) else { wrong_type(key) };
    list
}

fn data_of<'a>(keys: &'a mut Keys, key: &str, empty: fn() -> Data) -> &'a mut Data {
    &mut keys.entry(key.to_owned()).or_insert_with(|| Entry { data: empty(), end: End::Never }).data
}

/// A collection without members is no key.
fn drop_if_empty(keys: &mut Keys, key: &str) {
    let is_empty = keys.get(key).is_some_and(|entry| match &entry.data {
        Data::Text(_) => false,
        Data::List(list) => list.is_empty(),
        Data::Hash(hash) => hash.is_empty(),
        Data::Set(set) => set.is_empty(),
        Data::Sorted(sorted) => sorted.is_empty(),
    });
    if is_empty {
        keys.remove(key);
    }
}

fn wrong_type(key: &str) -> ! {
    panic!("{key} has another type: names of keys say their type")
}

pub(crate) fn ok() -> Reply {
    Reply::Line(b'+', b"OK".to_vec())
}

pub(crate) fn number(number: i64) -> Reply {
    Reply::Line(b':', number.to_string().into_bytes())
}

pub(crate) fn count(count: usize) -> Reply {
    Reply::Line(b':', count.to_string().into_bytes())
}
