//! One change, and its bytes.
//!
//! # Layout
//! ```text
//! ┌────────────┬──────────┬─────────┬─────┬───────────┐      ┌────────────┬───────────┐
//! │ code       │ database │ key len │ key │ arguments │  or  │ code | 128 │ arguments │ for the key of the change before
//! └────────────┴──────────┴─────────┴─────┴───────────┘      └────────────┴───────────┘
//!   1 byte       varint     varint                             1 byte
//! ```
//! Numbers are varints: seven bits per byte, the lowest first, the highest bit set in all but the last. Bytes have their length in front. A
//! deadline is one byte that says whether there is one, and eight of milliseconds since 1970; a score is the eight bytes of the
//! double; both little endian. The value of a whole key has eight bytes of length in front, which are known last, and is as RDB writes values.
//!
//! Codes are never given to another change; a change of layout takes a new code.

use super::{ChangeError, Problem};
use crate::entry::{KEY_BYTES_MAX, Kind};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op<'a> {
    /// It is this string now, whatever it was.
    SetStr {
        expires_at_ms: Option<u64>,
        value: &'a [u8],
    },
    /// These bytes of a string are written over; behind its end it grows, with zeros in between.
    SetRange {
        at: u64,
        bytes: &'a [u8],
    },
    /// The string has these bytes behind it.
    Append(&'a [u8]),
    /// It is absent.
    Remove,
    /// Only the deadline is another one.
    SetDeadline(Option<u64>),
    /// It has this value now, whatever it was.
    PutWhole {
        expires_at_ms: Option<u64>,
        value: &'a [u8],
    },
    /// Another key, of this or another database, has its value and deadline now, whatever that was; this one is absent.
    MoveTo {
        database: usize,
        key: &'a [u8],
    },
    /// It is an empty collection now, whatever it was. Others of the same group fill it.
    Create(Kind),
    /// List.
    PushFront(&'a [u8]),
    PushBack(&'a [u8]),
    /// So many elements are gone.
    PopFront(u64),
    PopBack(u64),
    SetAt {
        index: i64,
        element: &'a [u8],
    },
    /// Next to the first element that equals the pivot.
    InsertBefore {
        pivot: &'a [u8],
        element: &'a [u8],
    },
    InsertAfter {
        pivot: &'a [u8],
        element: &'a [u8],
    },
    /// As LREM counts.
    RemoveEqual {
        count: i64,
        element: &'a [u8],
    },
    /// The elements from `start` on, `len` of them, are what is left.
    Trim {
        start: u64,
        len: u64,
    },
    /// Hash.
    SetField {
        field: &'a [u8],
        value: &'a [u8],
    },
    RemoveField(&'a [u8]),
    /// Set.
    AddMember(&'a [u8]),
    RemoveMember(&'a [u8]),
    /// Sorted set.
    SetScore {
        member: &'a [u8],
        score: f64,
    },
    RemoveScored(&'a [u8]),
    /// The members from rank `start` on, `len` of them, are gone.
    RemoveRanks {
        start: u64,
        len: u64,
    },
    /// The database is empty. It has no key.
    ClearDatabase,
    /// The contents of the database and of another one are exchanged. It has no key.
    SwapDatabases(u64),
}

/// The change has no key of its own: that of the change before it counts.
pub(super) const SAME_KEY: u8 = 128;

const SET_STR: u8 = 0x01;
const SET_RANGE: u8 = 0x02;
const APPEND: u8 = 0x03;
const REMOVE: u8 = 0x04;
const SET_DEADLINE: u8 = 0x05;
const PUT_WHOLE: u8 = 0x06;
const CREATE: u8 = 0x07;
const MOVE_TO: u8 = 0x08;
const PUSH_FRONT: u8 = 0x10;
const PUSH_BACK: u8 = 0x11;
const POP_FRONT: u8 = 0x12;
const POP_BACK: u8 = 0x13;
const SET_AT: u8 = 0x14;
const INSERT_BEFORE: u8 = 0x15;
const INSERT_AFTER: u8 = 0x16;
const REMOVE_EQUAL: u8 = 0x17;
const TRIM: u8 = 0x18;
const SET_FIELD: u8 = 0x20;
const REMOVE_FIELD: u8 = 0x21;
const ADD_MEMBER: u8 = 0x28;
const REMOVE_MEMBER: u8 = 0x29;
const SET_SCORE: u8 = 0x30;
const REMOVE_SCORED: u8 = 0x31;
const REMOVE_RANKS: u8 = 0x32;
const CLEAR_DATABASE: u8 = 0x40;
const SWAP_DATABASES: u8 = 0x41;

/// Databases that a change can name: as many as anybody configures, and far less than would exhaust memory if a broken file named them.
pub(super) const DATABASES_MAX: usize = 1 << 16;

/// Kinds by the byte that stands for them; the order never changes.
const KINDS: [Kind; 5] = [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash];

impl Op<'_> {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::SetStr { .. } => SET_STR,
            Self::SetRange { .. } => SET_RANGE,
            Self::Append(_) => APPEND,
            Self::Remove => REMOVE,
            Self::SetDeadline(_) => SET_DEADLINE,
            Self::PutWhole { .. } => PUT_WHOLE,
            Self::Create(_) => CREATE,
            Self::MoveTo { .. } => MOVE_TO,
            Self::PushFront(_) => PUSH_FRONT,
            Self::PushBack(_) => PUSH_BACK,
            Self::PopFront(_) => POP_FRONT,
            Self::PopBack(_) => POP_BACK,
            Self::SetAt { .. } => SET_AT,
            Self::InsertBefore { .. } => INSERT_BEFORE,
            Self::InsertAfter { .. } => INSERT_AFTER,
            Self::RemoveEqual { .. } => REMOVE_EQUAL,
            Self::Trim { .. } => TRIM,
            Self::SetField { .. } => SET_FIELD,
            Self::RemoveField(_) => REMOVE_FIELD,
            Self::AddMember(_) => ADD_MEMBER,
            Self::RemoveMember(_) => REMOVE_MEMBER,
            Self::SetScore { .. } => SET_SCORE,
            Self::RemoveScored(_) => REMOVE_SCORED,
            Self::RemoveRanks { .. } => REMOVE_RANKS,
            Self::ClearDatabase => CLEAR_DATABASE,
            Self::SwapDatabases(_) => SWAP_DATABASES,
        }
    }

    /// Writes the arguments, behind code and key.
    pub(super) fn write_arguments(&self, out: &mut Vec<u8>) {
        match *self {
            Self::SetStr { expires_at_ms, value } => write_string(out, expires_at_ms, &[value]),
            Self::PutWhole { expires_at_ms, value } => {
                write_whole(out, expires_at_ms, |out| out.extend_from_slice(value));
            }
            Self::SetRange { at, bytes } => {
                write_number(out, at);
                write_bytes(out, bytes);
            }
            Self::MoveTo { database, key } => {
                write_number(out, database as u64);
                write_bytes(out, key);
            }
            Self::Remove | Self::ClearDatabase => {}
            Self::SetDeadline(expires_at_ms) => write_deadline(out, expires_at_ms),
            Self::Create(kind) => {
                let at = KINDS.iter().position(|other| *other == kind);
                out.push(at.expect("the table of kinds has them all") as u8);
            }
            Self::Append(bytes)
            | Self::PushFront(bytes)
            | Self::PushBack(bytes)
            | Self::RemoveField(bytes)
            | Self::AddMember(bytes)
            | Self::RemoveMember(bytes)
            | Self::RemoveScored(bytes) => write_bytes(out, bytes),
            Self::PopFront(number) | Self::PopBack(number) | Self::SwapDatabases(number) => write_number(out, number),
            Self::SetAt { index: number, element } | Self::RemoveEqual { count: number, element } => {
                out.extend_from_slice(&number.to_le_bytes());
                write_bytes(out, element);
            }
            Self::InsertBefore { pivot: first, element: second }
            | Self::InsertAfter { pivot: first, element: second }
            | Self::SetField { field: first, value: second } => {
                write_bytes(out, first);
                write_bytes(out, second);
            }
            Self::SetScore { member, score } => {
                write_bytes(out, member);
                out.extend_from_slice(&score.to_le_bytes());
            }
            Self::Trim { start, len } | Self::RemoveRanks { start, len } => {
                write_number(out, start);
                write_number(out, len);
            }
        }
    }
}

/// The arguments of [`Op::SetStr`], with the value in parts.
pub(super) fn write_string(out: &mut Vec<u8>, expires_at_ms: Option<u64>, parts: &[&[u8]]) {
    write_deadline(out, expires_at_ms);
    write_number(out, parts.iter().map(|part| part.len() as u64).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The arguments of [`Op::PutWhole`], whose value `write` appends.
pub(super) fn write_whole(out: &mut Vec<u8>, expires_at_ms: Option<u64>, write: impl FnOnce(&mut Vec<u8>)) {
    write_deadline(out, expires_at_ms);
    let len_at = out.len();
    out.extend_from_slice(&[0; 8]);
    let start = out.len();
    write(out);
    let len = (out.len() - start) as u64;
    out[len_at..start].copy_from_slice(&len.to_le_bytes());
}

pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn write_deadline(out: &mut Vec<u8>, expires_at_ms: Option<u64>) {
    match expires_at_ms {
        None => out.push(0),
        Some(at_ms) => {
            out.push(1);
            out.extend_from_slice(&at_ms.to_le_bytes());
        }
    }
}

/// A change with its key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change<'a> {
    pub(crate) database: usize,
    /// Empty where the change concerns a whole database.
    pub(crate) key: &'a [u8],
    pub(crate) op: Op<'a>,
}

/// The changes of a group, one after the other; nothing follows an error.
pub(crate) struct Ops<'a> {
    group: &'a [u8],
    rest: &'a [u8],
    number: usize,
    /// Database and key of the change before.
    name: Option<(usize, &'a [u8])>,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(group: &'a [u8]) -> Self {
        Self { group, rest: group, number: 0, name: None }
    }

    /// The number of the next change, and where it begins.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.number, self.group.len() - self.rest.len())
    }

    fn read(&mut self) -> Result<Change<'a>, Problem> {
        let rest = &mut self.rest;
        let byte = read_byte(rest)?;
        let (code, is_same) = (byte & !SAME_KEY, byte & SAME_KEY != 0);
        let (database, key) = match (is_same, self.name) {
            (true, Some(name)) => name,
            (true, None) => return Err(Problem::Malformed("the key of a change before the first one")),
            (false, _) => (read_database(rest)?, read_key(rest)?),
        };
        self.name = Some((database, key));
        Ok(Change { database, key, op: read_op(code, rest)? })
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Change<'a>, ChangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (number, offset) = self.place();
        let result = self.read().map_err(|problem| ChangeError { number, offset, problem });
        self.number += 1;
        if result.is_err() {
            self.rest = &[];
        }
        Some(result)
    }
}

fn read_op<'a>(code: u8, rest: &mut &'a [u8]) -> Result<Op<'a>, Problem> {
    Ok(match code {
        SET_STR => Op::SetStr { expires_at_ms: read_deadline(rest)?, value: read_bytes(rest)? },
        SET_RANGE => Op::SetRange { at: read_number(rest)?, bytes: read_bytes(rest)? },
        APPEND => Op::Append(read_bytes(rest)?),
        REMOVE => Op::Remove,
        SET_DEADLINE => Op::SetDeadline(read_deadline(rest)?),
        PUT_WHOLE => {
            let expires_at_ms = read_deadline(rest)?;
            let len = u64::from_le_bytes(read_array(rest)?);
            Op::PutWhole { expires_at_ms, value: read_slice(rest, len)? }
        }
        CREATE => match KINDS.get(usize::from(read_byte(rest)?)) {
            Some(kind) if *kind != Kind::String => Op::Create(*kind),
            _ => return Err(Problem::Malformed("the kind of the collection")),
        },
        MOVE_TO => Op::MoveTo { database: read_database(rest)?, key: read_key(rest)? },
        PUSH_FRONT => Op::PushFront(read_bytes(rest)?),
        PUSH_BACK => Op::PushBack(read_bytes(rest)?),
        POP_FRONT => Op::PopFront(read_number(rest)?),
        POP_BACK => Op::PopBack(read_number(rest)?),
        SET_AT => Op::SetAt { index: i64::from_le_bytes(read_array(rest)?), element: read_bytes(rest)? },
        INSERT_BEFORE => Op::InsertBefore { pivot: read_bytes(rest)?, element: read_bytes(rest)? },
        INSERT_AFTER => Op::InsertAfter { pivot: read_bytes(rest)?, element: read_bytes(rest)? },
        REMOVE_EQUAL => Op::RemoveEqual { count: i64::from_le_bytes(read_array(rest)?), element: read_bytes(rest)? },
        TRIM => Op::Trim { start: read_number(rest)?, len: read_number(rest)? },
        SET_FIELD => Op::SetField { field: read_bytes(rest)?, value: read_bytes(rest)? },
        REMOVE_FIELD => Op::RemoveField(read_bytes(rest)?),
        ADD_MEMBER => Op::AddMember(read_bytes(rest)?),
        REMOVE_MEMBER => Op::RemoveMember(read_bytes(rest)?),
        SET_SCORE => {
            let (member, score) = (read_bytes(rest)?, f64::from_le_bytes(read_array(rest)?));
            if score.is_nan() {
                return Err(Problem::Malformed("a score that is not a number"));
            }
            Op::SetScore { member, score }
        }
        REMOVE_SCORED => Op::RemoveScored(read_bytes(rest)?),
        REMOVE_RANKS => Op::RemoveRanks { start: read_number(rest)?, len: read_number(rest)? },
        CLEAR_DATABASE => Op::ClearDatabase,
        SWAP_DATABASES => Op::SwapDatabases(read_database(rest)? as u64),
        code => return Err(Problem::UnknownCode(code)),
    })
}

fn read_byte(rest: &mut &[u8]) -> Result<u8, Problem> {
    let (byte, after) = rest.split_first().ok_or(Problem::Truncated)?;
    *rest = after;
    Ok(*byte)
}

fn read_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Problem> {
    let (array, after) = rest.split_first_chunk::<N>().ok_or(Problem::Truncated)?;
    *rest = after;
    Ok(*array)
}

fn read_number(rest: &mut &[u8]) -> Result<u64, Problem> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Problem::Malformed("a number above 64 bits"))
}

fn read_slice<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], Problem> {
    let len = usize::try_from(len).map_err(|_| Problem::Truncated)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(Problem::Truncated)?;
    *rest = after;
    Ok(bytes)
}

fn read_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Problem> {
    let len = read_number(rest)?;
    read_slice(rest, len)
}

fn read_database(rest: &mut &[u8]) -> Result<usize, Problem> {
    let number = usize::try_from(read_number(rest)?).ok().filter(|number| *number < DATABASES_MAX);
    number.ok_or(Problem::Malformed("the number of the database"))
}

fn read_key<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Problem> {
    let key = read_bytes(rest)?;
    if key.len() > KEY_BYTES_MAX { Err(Problem::Malformed("the length of the key")) } else { Ok(key) }
}

fn read_deadline(rest: &mut &[u8]) -> Result<Option<u64>, Problem> {
    match read_byte(rest)? {
        0 => Ok(None),
        1 => Ok(Some(u64::from_le_bytes(read_array(rest)?))),
        _ => Err(Problem::Malformed("whether there is a deadline")),
    }
}

#[cfg(test)]
mod tests;
