//! What a value, a counter and a queue item look like as bytes, on every key-value backend alike.
//!
//! An engine that is embedded in one process and reached by protocol from another is one store because both write these.
//!
//! | record | bytes |
//! |---|---|
//! | value | `v`, version (22 characters), space, value |
//! | fenced value | `f`, version (22), token (14 hexadecimal digits), space, value |
//! | counter | its decimal text, as `INCRBY` writes it |
//! | queue item | `i`, claim (22, `-` when unclaimed), space, attempt, space, due time in ms, space, payload |
//!
//! The headers have a fixed width and are text, so a script cuts them off by position and `redis-cli GET` shows the
//! value readable behind them. What matches none of these is `Corrupt`; nothing is assumed in its place.

use crate::due::ClaimToken;
use crate::entry::{FencingToken, Version};
use crate::fields::{Fields, parse_number};
use crate::id::ID_TEXT_BYTES;

const FENCE_TEXT_BYTES: usize = 14;
const VALUE_HEADER_BYTES: usize = 1 + ID_TEXT_BYTES + 1;
const FENCED_HEADER_BYTES: usize = 1 + ID_TEXT_BYTES + FENCE_TEXT_BYTES + 1;
/// A letter, a claim, and two numbers of at most ten and twenty digits, each after or before a space.
const ITEM_HEADER_BYTES_MAX: usize = 1 + ID_TEXT_BYTES + 1 + 10 + 1 + 20 + 1;
/// The most bytes that a record adds to a value.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = FENCED_HEADER_BYTES;

/// A stored value or counter, read where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A value.
    Value {
        /// The version of its last write.
        version: Version,
        /// The highest token that it was written with.
        fence: Option<FencingToken>,
        /// Its bytes: the end of the record.
        value: &'a [u8],
    },
    /// A counter.
    Counter(i64),
}

impl<'a> Record<'a> {
    /// Reads a record; `None` when the bytes are none.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? {
            b'v' => {
                let (header, value) = bytes.split_at_checked(VALUE_HEADER_BYTES)?;
                let version = Version::from_text(header.get(1..=ID_TEXT_BYTES)?)?;
                (header.last() == Some(&b' ')).then_some(Self::Value { version, fence: None, value })
            }
            b'f' => {
                let (header, value) = bytes.split_at_checked(FENCED_HEADER_BYTES)?;
                let version = Version::from_text(header.get(1..=ID_TEXT_BYTES)?)?;
                let fence = parse_fence(header.get(1 + ID_TEXT_BYTES..FENCED_HEADER_BYTES - 1)?)?;
                (header.last() == Some(&b' ')).then_some(Self::Value { version, fence: Some(fence), value })
            }
            _ => parse_counter(bytes).map(Self::Counter),
        }
    }

    /// How many bytes precede the value.
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        match self {
            Self::Value { fence: None, .. } => VALUE_HEADER_BYTES,
            Self::Value { fence: Some(_), .. } => FENCED_HEADER_BYTES,
            Self::Counter(_) => 0,
        }
    }
}

/// The header of a value record: what precedes the value.
#[derive(Clone, Copy)]
pub struct ValueHeader {
    bytes: [u8; FENCED_HEADER_BYTES],
    len: usize,
}

impl ValueHeader {
    /// The header for this version and fence.
    #[must_use]
    pub fn new(version: Version, fence: Option<FencingToken>) -> Self {
        let mut bytes = [b' '; FENCED_HEADER_BYTES];
        bytes[1..=ID_TEXT_BYTES].copy_from_slice(&version.to_text());
        let Some(fence) = fence else {
            bytes[0] = b'v';
            return Self { bytes, len: VALUE_HEADER_BYTES };
        };
        bytes[0] = b'f';
        let mut rest = fence.get();
        for digit in bytes[1 + ID_TEXT_BYTES..][..FENCE_TEXT_BYTES].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest % 16) as usize];
            rest /= 16;
        }
        Self { bytes, len: FENCED_HEADER_BYTES }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A queue item, read where it lies: a field of the hash under [`Companion::Items`](crate::key::Companion::Items), named
/// by its id. When it is handed out next is its score in the sorted set under [`Companion::Due`](crate::key::Companion::Due).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRecord<'a> {
    /// The newest claim; `None` before the first.
    pub claim: Option<ClaimToken>,
    /// How often it was handed out.
    pub attempt: u32,
    /// When it was scheduled for, in ms.
    pub due_at_ms: u64,
    /// Its payload: the end of the record.
    pub payload: &'a [u8],
}

impl<'a> ItemRecord<'a> {
    /// Reads a record; `None` when the bytes are none.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        fields.literal(b"i")?;
        let claim = fields.id_or_hyphen()?.map(ClaimToken::from_u128);
        fields.literal(b" ")?;
        let attempt = u32::try_from(fields.number()?).ok()?;
        fields.literal(b" ")?;
        let due_at_ms = fields.number()?;
        fields.literal(b" ")?;
        Some(Self { claim, attempt, due_at_ms, payload: fields.rest() })
    }

    /// Writes the record into `bytes`, replacing what it held.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.reserve(ITEM_HEADER_BYTES_MAX + self.payload.len());
        bytes.push(b'i');
        match self.claim {
            Some(claim) => bytes.extend_from_slice(&claim.to_text()),
            None => bytes.push(b'-'),
        }
        let mut number = itoa::Buffer::new();
        for field in [u64::from(self.attempt), self.due_at_ms] {
            bytes.push(b' ');
            bytes.extend_from_slice(number.format(field).as_bytes());
        }
        bytes.push(b' ');
        bytes.extend_from_slice(self.payload);
    }
}

fn parse_fence(text: &[u8]) -> Option<FencingToken> {
    let mut number = 0;
    for digit in text {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = (number << 4) | u64::from(value);
    }
    FencingToken::new(number).ok()
}

/// Only the text that formatting the number gives: no sign for positive numbers, no leading zeros.
fn parse_counter(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        // There is one zero only.
        Some(digits) => 0_i64.checked_sub_unsigned(parse_number(digits).filter(|number| *number > 0)?),
        None => i64::try_from(parse_number(text)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{ItemRecord, Record, ValueHeader};
    use crate::due::ClaimToken;
    use crate::entry::{FencingToken, Version};

    #[test]
    fn values_read_back_with_version_and_fence() {
        for fence in [None, Some(FencingToken::new(1).unwrap()), Some(FencingToken::new((1 << 53) - 1).unwrap())] {
            let version = Version::draw();
            let header = ValueHeader::new(version, fence);
            let bytes = [header.as_bytes(), b"some value"].concat();
            let record = Record::parse(&bytes).unwrap();
            assert_eq!(record, Record::Value { version, fence, value: b"some value" });
            assert_eq!(record.header_bytes(), header.as_bytes().len());
            assert!(Record::parse(header.as_bytes()).is_some(), "an empty value is a value");
            for cut in 0..header.as_bytes().len() {
                assert_eq!(Record::parse(&bytes[..cut]), None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn counters_are_their_canonical_text_only() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(Record::parse(number.to_string().as_bytes()), Some(Record::Counter(number)));
        }
        for bad in ["", "+1", "01", "-0", "1 ", "9223372036854775808", "hello", "v", "f"] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn queue_items_read_back_whatever_their_payload() {
        let mut bytes = Vec::new();
        for (claim, attempt, payload) in
            [(None, 0, &b""[..]), (Some(ClaimToken::draw()), 1, b"plain"), (None, u32::MAX, b" two  spaces \0")]
        {
            let item = ItemRecord { claim, attempt, due_at_ms: 1_700_000_000_000, payload };
            item.write(&mut bytes);
            assert_eq!(ItemRecord::parse(&bytes), Some(item));
        }
        ItemRecord { claim: None, attempt: 0, due_at_ms: 7, payload: b"p" }.write(&mut bytes);
        assert_eq!(bytes, b"i- 0 7 p");
    }

    #[test]
    fn what_is_no_queue_item_is_refused() {
        for bad in
            ["", "i", "i- 0 7", "i- -1 7 p", "i- 0 -7 p", "i- 00 7 p", "ishort 0 7 p", "v- 0 7 p", "i- 4294967296 7 p"]
        {
            assert_eq!(ItemRecord::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
