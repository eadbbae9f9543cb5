//! The item format, version 1: what is stored under which attribute.
//!
//! Names are short, since they are stored and billed with every item.
//!
//! | attribute | type | of | meaning |
//! |---|---|---|---|
//! | `pk`, `sk` | S | all | the key, see `address` |
//! | `f` | N | all | the version of this format: 1 |
//! | `v` | B | value | its bytes |
//! | `r` | B | value | the version of its last write, 16 bytes |
//! | `t` | N | value | the highest fencing token that it was written with |
//! | `c` | N | counter, fixed window | its number |
//! | `e` | N | those that expire | when, in ms since 1970; from then on the item counts as absent |
//! | `iq`, `ia` | S, N | lock, item of a queue | partition and order in the index: when an item is handed out next, in ms |
//! | `gc` | N | those that expire | when DynamoDB may remove it, in seconds since 1970 |
//!
//! `e` alone decides, inside of every condition. `gc` is the table's TTL attribute: DynamoDB removes an item up to days after it,
//! and looks at its own clock, so it lies after `e` by a grace.

use std::collections::HashMap;
use std::time::Duration;

use acteon_state_core::entry::FencingToken;
use acteon_state_core::{Entry, Error, Result, StateKey, Version};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

/// An item as the service sends and takes it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// The version of the format.
pub(crate) const FORMAT: u64 = 1;

pub(crate) const PK: &str = "pk";
pub(crate) const SK: &str = "sk";
pub(crate) const FORMAT_NAME: &str = "f";
pub(crate) const VALUE: &str = "v";
pub(crate) const VERSION: &str = "r";
pub(crate) const FENCE: &str = "t";
pub(crate) const COUNT: &str = "c";
pub(crate) const EXPIRES: &str = "e";
pub(crate) const GARBAGE: &str = "gc";

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(crate) fn identifier(id: u128) -> AttributeValue {
    bytes(id.to_be_bytes())
}

/// A number attribute; `None` when it is absent or none of ours.
pub(crate) fn number_of<T: std::str::FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// An identifier attribute.
pub(crate) fn identifier_of(item: &Item, name: &str) -> Option<u128> {
    let bytes = item.get(name)?.as_b().ok()?.as_ref();
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

/// What a stored item is at a moment.
#[derive(Debug)]
pub(crate) enum Stored {
    /// There is none, or it has expired.
    Absent,
    /// A value or a counter.
    Live(Live),
}

/// A live entry.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) entry: Entry,
    /// The number of a counter.
    pub(crate) count: Option<i64>,
    pub(crate) expires_at_ms: Option<u64>,
}

impl Stored {
    /// # Errors
    /// `Corrupt` when a live item is neither a value nor a counter of a format that this program knows.
    pub(crate) fn read(key: &StateKey, item: Option<&Item>, now_ms: u64) -> Result<Self> {
        let Some(item) = item else { return Ok(Self::Absent) };
        let expires_at_ms = match item.get(EXPIRES) {
            None => None,
            Some(_) => Some(number_of::<u64>(item, EXPIRES).ok_or_else(|| corrupt(key))?),
        };
        if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Ok(Self::Absent);
        }
        if number_of::<u64>(item, FORMAT_NAME) != Some(FORMAT) {
            return Err(corrupt(key));
        }
        let (entry, count) = match item.get(COUNT) {
            Some(_) => {
                let count: i64 = number_of(item, COUNT).ok_or_else(|| corrupt(key))?;
                let value = Bytes::from(count.to_string());
                (Entry { value, version: None, fence: None, ttl: None }, Some(count))
            }
            None => (read_value(key, item)?, None),
        };
        Ok(Self::Live(Live { entry, count, expires_at_ms }))
    }
}

impl Live {
    /// The entry with the time that it has left.
    pub(crate) fn entry_with_ttl(self, now_ms: u64) -> Entry {
        let ttl = self.ttl(now_ms);
        Entry { ttl, ..self.entry }
    }

    /// What is left, never zero. The current millisecond counts as over, as it does when the expiry is set.
    pub(crate) fn ttl(&self, now_ms: u64) -> Option<Duration> {
        self.expires_at_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms + 1).max(1)))
    }
}

fn read_value(key: &StateKey, item: &Item) -> Result<Entry> {
    let value = item.get(VALUE).and_then(|value| value.as_b().ok()).ok_or_else(|| corrupt(key))?;
    let version = identifier_of(item, VERSION).ok_or_else(|| corrupt(key))?;
    let fence = match item.get(FENCE) {
        None => None,
        Some(_) => {
            let fence = number_of(item, FENCE).and_then(|token| FencingToken::new(token).ok());
            Some(fence.ok_or_else(|| corrupt(key))?)
        }
    };
    Ok(Entry {
        value: Bytes::copy_from_slice(value.as_ref()),
        version: Some(Version::from_u128(version)),
        fence,
        ttl: None,
    })
}

pub(crate) fn corrupt(key: &StateKey) -> Error {
    Error::corrupt(key, "the item does not parse: it is of a later version, or something else writes to this table")
}
