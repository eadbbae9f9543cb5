//! Values and key records as bytes.
//!
//! # How it works
//! Strings that are 32-bit integers are written as such, others of more than 20 bytes compressed where that saves anything. Collections are
//! written element by element and in no packed form: redis-server packs what is small when it loads them, and so do we.

use crate::entry::EntryRef;
use crate::value::CollectionValue;

use super::source::{
    ENCODED_INT8, ENCODED_INT16, ENCODED_INT32, ENCODED_LZF, LENGTH_14_BITS, LENGTH_32_BITS, LENGTH_64_BITS,
    LENGTH_ENCODED,
};
use super::{Touched, Value, lzf, opcode, types};

/// Shorter strings are not worth a try.
const COMPRESSED_BYTES_MIN: usize = 21;

/// What compression has to save at least: its own lengths take that much.
const SAVED_BYTES_MIN: usize = 4;

/// The longest text of a 32-bit integer: `-2147483648`.
const INTEGER_BYTES_MAX: usize = 11;

/// Whether strings are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Never: less work, more bytes.
    Off,
    /// Those that LZF makes smaller, as redis-server does by default.
    #[default]
    Lzf,
}

/// A value to be written.
#[derive(Clone, Copy)]
pub(crate) enum ValueRef<'a> {
    Str(&'a [u8]),
    Collection(&'a CollectionValue),
}

impl<'a> From<EntryRef<'a>> for ValueRef<'a> {
    fn from(entry: EntryRef<'a>) -> Self {
        match entry {
            EntryRef::Str(string) => Self::Str(string.value()),
            EntryRef::Collection(collection) => Self::Collection(&collection.value),
        }
    }
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Str(string) => Self::Str(string),
            Value::Collection(collection) => Self::Collection(collection),
        }
    }
}

/// A key with what belongs to it, to be written.
#[derive(Clone, Copy)]
pub(crate) struct RecordRef<'a> {
    pub(crate) key: &'a [u8],
    /// Not an empty collection: nobody loads one.
    pub(crate) value: ValueRef<'a>,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) touched: Option<Touched>,
}

/// The type byte of `value`, which stands before its key in a file and first in a `DUMP` payload.
pub(crate) fn type_of(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::Str(_) => types::STRING,
        ValueRef::Collection(CollectionValue::List(_)) => types::LIST,
        ValueRef::Collection(CollectionValue::Set(_)) => types::SET,
        ValueRef::Collection(CollectionValue::Hash(_)) => types::HASH,
        ValueRef::Collection(CollectionValue::SortedSet(_)) => types::ZSET_2,
    }
}

/// Appends the value without its type byte.
pub(crate) fn write_value(value: ValueRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    let collection = match value {
        ValueRef::Str(string) => return write_string(string, compression, out),
        ValueRef::Collection(collection) => collection,
    };
    match collection {
        CollectionValue::List(list) => {
            write_number(list.len() as u64, out);
            list.iter().for_each(|element| write_string(element, compression, out));
        }
        CollectionValue::Set(set) => {
            write_number(set.len() as u64, out);
            set.iter().for_each(|member| write_string(&member, compression, out));
        }
        CollectionValue::Hash(fields) => {
            write_number(fields.len() as u64, out);
            for (field, value) in fields.iter() {
                write_string(field, compression, out);
                write_string(value, compression, out);
            }
        }
        CollectionValue::SortedSet(members) => {
            write_number(members.len() as u64, out);
            // Highest first, as redis-server writes them: it puts each at the head of its list when it loads them.
            for (member, score) in members.iter().rev() {
                write_string(member, compression, out);
                out.extend_from_slice(&score.to_le_bytes());
            }
        }
    }
}

/// Appends a key with its deadline and value, as it stands in a file.
pub(crate) fn write_record(record: &RecordRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    if let Some(at_ms) = record.expires_at_ms {
        out.push(opcode::EXPIRE_TIME_MS);
        out.extend_from_slice(&at_ms.to_le_bytes());
    }
    match record.touched {
        Some(Touched::IdleS(idle_s)) => {
            out.push(opcode::IDLE);
            write_number(idle_s, out);
        }
        Some(Touched::Frequency(frequency)) => out.extend_from_slice(&[opcode::FREQUENCY, frequency]),
        None => {}
    }
    out.push(type_of(record.value));
    write_string(record.key, compression, out);
    write_value(record.value, compression, out);
}

/// Appends that what follows is of this database; may be said again for the same one.
pub(crate) fn write_select_database(database: usize, out: &mut Vec<u8>) {
    out.push(opcode::SELECT_DATABASE);
    write_number(database as u64, out);
}

/// Appends a fact about the file.
pub(crate) fn write_aux(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(opcode::AUX);
    write_string(name, Compression::Off, out);
    write_string(value, Compression::Off, out);
}

pub(crate) fn write_number(number: u64, out: &mut Vec<u8>) {
    match number {
        0..0x40 => out.push(number as u8),
        0x40..0x4000 => {
            let [high, low] = (number as u16).to_be_bytes();
            out.extend_from_slice(&[LENGTH_14_BITS | high, low]);
        }
        0x4000..=0xffff_ffff => {
            out.push(LENGTH_32_BITS);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64_BITS);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

pub(crate) fn write_string(string: &[u8], compression: Compression, out: &mut Vec<u8>) {
    if let Some(integer) = as_integer(string) {
        return write_integer(integer, out);
    }
    if compression == Compression::Lzf && string.len() >= COMPRESSED_BYTES_MIN && write_compressed(string, out) {
        return;
    }
    write_number(string.len() as u64, out);
    out.extend_from_slice(string);
}

fn write_integer(integer: i32, out: &mut Vec<u8>) {
    if let Ok(byte) = i8::try_from(integer) {
        out.push(LENGTH_ENCODED | ENCODED_INT8);
        out.extend_from_slice(&byte.to_le_bytes());
    } else if let Ok(short) = i16::try_from(integer) {
        out.push(LENGTH_ENCODED | ENCODED_INT16);
        out.extend_from_slice(&short.to_le_bytes());
    } else {
        out.push(LENGTH_ENCODED | ENCODED_INT32);
        out.extend_from_slice(&integer.to_le_bytes());
    }
}

/// Returns whether it was worth it.
fn write_compressed(string: &[u8], out: &mut Vec<u8>) -> bool {
    let mut compressed = Vec::new();
    if !lzf::compress(string, string.len() - SAVED_BYTES_MIN, &mut compressed) {
        return false;
    }
    out.push(LENGTH_ENCODED | ENCODED_LZF);
    write_number(compressed.len() as u64, out);
    write_number(string.len() as u64, out);
    out.extend_from_slice(&compressed);
    true
}

/// The integer whose decimal form is exactly this.
fn as_integer(string: &[u8]) -> Option<i32> {
    if string.is_empty() || string.len() > INTEGER_BYTES_MAX || !matches!(string[0], b'-' | b'0'..=b'9') {
        return None;
    }
    let integer = std::str::from_utf8(string).ok()?.parse().ok()?;
    (itoa::Buffer::new().format::<i32>(integer).as_bytes() == string).then_some(integer)
}
