//! Reads replies: the server's values to Rust's, with an error for every other shape.

use std::time::Duration;

use acteon_state_core::record::Record;
use acteon_state_core::{Entry, Error, Result, StateKey};
use bytes::{Buf, Bytes};

use crate::error::unexpected;
use crate::wire::Value;

/// An integer.
pub(crate) fn int(reply: Value) -> Result<i64> {
    match reply {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

/// An integer that is never negative.
pub(crate) fn unsigned(reply: Value) -> Result<u64> {
    let number = int(reply)?;
    u64::try_from(number).map_err(|_| unexpected(&Value::Int(number)))
}

/// A string, or `None` for nil.
pub(crate) fn bytes_or_nil(reply: Value) -> Result<Option<Vec<u8>>> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        other => Err(unexpected(&other)),
    }
}

/// A string of text.
pub(crate) fn text(reply: Value) -> Result<String> {
    match reply {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|error| unexpected(&Value::BulkString(error.into_bytes())))
        }
        Value::SimpleString(text) | Value::VerbatimString(text) => Ok(text),
        other => Err(unexpected(&other)),
    }
}

/// An array.
pub(crate) fn array(reply: Value) -> Result<std::vec::IntoIter<Value>> {
    match reply {
        Value::Array(values) => Ok(values.into_iter()),
        other => Err(unexpected(&other)),
    }
}

/// The next element of an array.
pub(crate) fn next(values: &mut std::vec::IntoIter<Value>) -> Result<Value> {
    values.next().ok_or_else(|| unexpected(&Value::Array(Vec::new())))
}

/// Microseconds.
pub(crate) fn micros(reply: Value) -> Result<Duration> {
    unsigned(reply).map(Duration::from_micros)
}

/// The answer of PTTL: `None` without time to live, never zero.
pub(crate) fn ttl(reply: Value) -> Result<Option<Duration>> {
    let ttl_ms = int(reply)?;
    // An entry is live at the millisecond of its expiry, when PTTL says 0.
    Ok(u64::try_from(ttl_ms).ok().map(|ttl_ms| Duration::from_millis(ttl_ms.max(1))))
}

/// The server's time, in microseconds since 1970-01-01 UTC, as TIME answers.
pub(crate) fn time_us(reply: Value) -> Result<u64> {
    let mut parts = array(reply)?;
    let mut part = || -> Result<u64> {
        let text = text(next(&mut parts)?)?;
        text.parse().map_err(|_| unexpected(&Value::SimpleString(text)))
    };
    let (seconds, micros) = (part()?, part()?);
    let total_us = seconds.checked_mul(1_000_000).and_then(|seconds_us| seconds_us.checked_add(micros));
    total_us.ok_or_else(|| unexpected(&Value::Array(Vec::new())))
}

/// The entry that these bytes are the record of.
pub(crate) fn entry(key: &StateKey, bytes: Vec<u8>, ttl: Option<Duration>) -> Result<Entry> {
    let Some(record) = Record::parse(&bytes) else {
        return Err(corrupt(key));
    };
    let header_bytes = record.header_bytes();
    let (version, fence) = match record {
        Record::Value { version, fence, .. } => (Some(version), fence),
        Record::Counter(_) => (None, None),
    };
    let mut value = Bytes::from(bytes);
    // Neither a copy nor a second owner of the bytes.
    value.advance(header_bytes);
    Ok(Entry { value, version, fence, ttl })
}

/// The entry, or `None` for nil.
pub(crate) fn entry_or_nil(key: &StateKey, reply: Value) -> Result<Option<Entry>> {
    bytes_or_nil(reply)?.map(|bytes| entry(key, bytes, None)).transpose()
}

/// What is stored is neither a value nor a counter of ours.
pub(crate) fn corrupt(key: &StateKey) -> Error {
    Error::corrupt(key, "what is stored is neither a value nor a counter: something else writes under this prefix")
}

#[cfg(test)]
mod tests {
    use super::time_us;
    use crate::wire::Value;

    #[test]
    fn a_time_out_of_range_is_an_error() {
        let time = |seconds: &str, micros: &str| {
            time_us(Value::Array([seconds, micros].map(|part| Value::BulkString(part.into())).to_vec()))
        };
        assert_eq!(time("1763672172", "25").unwrap(), 1_763_672_172_000_025);
        for (seconds, micros) in
            [("18446744073709551615", "0"), ("18446744073709", "18446744073709551615"), ("-1", "0")]
        {
            assert!(time(seconds, micros).is_err(), "{seconds} {micros}");
        }
    }
}
