//! One value with its type in front and a checksum behind: what `DUMP` gives and `RESTORE` takes.
//!
//! # Format
//! ```text
//! type (u8) │ value │ RDB version (u16) │ CRC-64 of everything before it (u64)
//! ```
//! The numbers at the end are little-endian.

use super::crc64::Crc64;
use super::encode::{Compression, ValueRef, type_of, write_value};
use super::{VERSION, VERSION_READ_MAX, Value, read_value};
use crate::value::Limits;

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// The end is not that of a payload of a known version.
    Footer,
    /// The value makes no sense, is empty, or cannot be held here.
    Value,
}

/// `value` as a payload.
pub(crate) fn write_payload(value: ValueRef<'_>, compression: Compression) -> Vec<u8> {
    let mut payload = vec![type_of(value)];
    write_value(value, compression, &mut payload);
    // 10: it fits.
    payload.extend_from_slice(&(VERSION as u16).to_le_bytes());
    payload.extend_from_slice(&Crc64::of(&payload).to_le_bytes());
    payload
}

/// The value of a payload. Bytes between its end and the version are ignored, as redis-server ignores them.
pub(crate) fn read_payload(payload: &[u8], limits: &Limits) -> Result<Value, PayloadError> {
    let (counted, checksum) = payload.split_last_chunk().ok_or(PayloadError::Footer)?;
    let (body, version) = counted.split_last_chunk().ok_or(PayloadError::Footer)?;
    let is_known = u32::from(u16::from_le_bytes(*version)) <= VERSION_READ_MAX;
    if !is_known || u64::from_le_bytes(*checksum) != Crc64::of(counted) {
        return Err(PayloadError::Footer);
    }
    let (kind, mut rest) = body.split_first().ok_or(PayloadError::Value)?;
    match read_value(*kind, &mut rest, limits) {
        Ok(Value::Collection(collection)) if collection.is_empty() => Err(PayloadError::Value),
        result => result.map_err(|_| PayloadError::Value),
    }
}

#[cfg(test)]
mod tests {
    use super::{PayloadError, read_payload, write_payload};
    use crate::rdb::{Compression, Value, ValueRef};
    use crate::value::Limits;

    #[test]
    fn payload_with_any_bit_flipped_is_refused() {
        let text = b"nothing that could be compressed";
        let payload = write_payload(ValueRef::Str(text), Compression::Lzf);
        let Ok(Value::Str(back)) = read_payload(&payload, &Limits::default()) else { panic!("a string") };
        assert_eq!(back, text);
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = read_payload(&flipped, &Limits::default());
            assert!(matches!(result, Err(PayloadError::Footer)), "bit {bit}");
        }
    }
}
