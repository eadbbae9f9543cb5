//! From the bytes of a server to replies and messages, at whatever point they are cut.
//!
//! # Guarantees
//! Memory is bounded by the bytes that have arrived: a header alone reserves almost nothing. No byte is looked at twice, but those
//! of a header that has not arrived as a whole.
//!
//! # Failure
//! Bytes that are no replies are an error, after which nothing more can be read.

use acteon_resp::{Token, TokenError, TokenLimits, token};

use super::value::{ServerError, Value};

/// Elements that are reserved on the word of a header.
const ITEMS_RESERVED_MAX: usize = 64;
/// Strings are as long as the server is configured to allow, and take memory only as they arrive.
const LIMITS: TokenLimits = TokenLimits {
    bulk_bytes_max: isize::MAX as usize / 2,
    line_bytes_max: 64 * 1_024,
    items_max: u32::MAX as usize,
    depth_max: 128,
};

/// What arrives as a whole.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The answer to the oldest request.
    Reply(Value),
    /// What nobody asked for, or a confirmation of a subscription.
    Push(Vec<Value>),
}

/// Where the reading has got to.
#[derive(Default)]
pub(super) struct Decoder {
    /// Collections that have not arrived as a whole, each within the one before it.
    open: Vec<Open>,
}

struct Open {
    sort: Sort,
    /// Elements that are missing.
    left: usize,
    items: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Array,
    Map,
    Push,
    /// Describes the value behind it, which is all that is wanted.
    Attribute,
}

impl Decoder {
    /// Reads on. Returns how many bytes are read for good, and what has arrived with them; `None` when more bytes are needed.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Incoming>), TokenError> {
        let mut at = 0;
        loop {
            let Some((token, bytes)) = token(&input[at..], &LIMITS)? else { return Ok((at, None)) };
            at += bytes;
            let leaf = match token {
                Token::Array(items) | Token::Set(items) => self.open(Sort::Array, items)?,
                Token::Map(pairs) => self.open(Sort::Map, pairs)?,
                Token::Push(items) => self.open(Sort::Push, items)?,
                Token::Attribute(pairs) => self.open(Sort::Attribute, pairs)?,
                leaf => Some(Incoming::Reply(value(leaf))),
            };
            if let Some(incoming) = leaf.and_then(|leaf| self.close(leaf)) {
                return Ok((at, Some(incoming)));
            }
        }
    }

    /// Begins a collection; one without elements is there at once.
    fn open(&mut self, sort: Sort, size: usize) -> Result<Option<Incoming>, TokenError> {
        if self.open.len() >= LIMITS.depth_max {
            return Err(TokenError::TooDeep);
        }
        let is_pairs = matches!(sort, Sort::Map | Sort::Attribute);
        // Fits: `size` is below 2^32.
        let left = if is_pairs { size * 2 } else { size };
        let open = Open { sort, left, items: Vec::with_capacity(left.min(ITEMS_RESERVED_MAX)) };
        if left == 0 {
            return Ok(open.finish());
        }
        self.open.push(open);
        Ok(None)
    }

    /// Puts a value where it belongs; returns it, or the collection that it completes, when it belongs into no other.
    fn close(&mut self, incoming: Incoming) -> Option<Incoming> {
        let mut incoming = incoming;
        loop {
            let Some(open) = self.open.last_mut() else { return Some(incoming) };
            open.items.push(match incoming {
                Incoming::Reply(value) => value,
                // Only ever between replies.
                Incoming::Push(_) => Value::Other,
            });
            open.left -= 1;
            if open.left > 0 {
                return None;
            }
            incoming = self.open.pop()?.finish()?;
        }
    }
}

impl Open {
    fn finish(self) -> Option<Incoming> {
        match self.sort {
            Sort::Array => Some(Incoming::Reply(Value::Array(self.items))),
            Sort::Push => Some(Incoming::Push(self.items)),
            Sort::Attribute => None,
            Sort::Map => {
                let mut pairs = Vec::with_capacity(self.items.len() / 2);
                let mut items = self.items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Some(Incoming::Reply(Value::Map(pairs)))
            }
        }
    }
}

fn value(leaf: Token<'_>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match leaf {
        Token::Bulk(bytes) => Value::BulkString(bytes.to_vec()),
        Token::Integer(number) => Value::Int(number),
        Token::Null | Token::NullArray => Value::Nil,
        Token::Simple(status) => Value::SimpleString(text(status)),
        Token::Error(error) => Value::ServerError(ServerError::new(text(error))),
        Token::Verbatim { text: bytes, .. } => Value::VerbatimString(text(bytes)),
        _ => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use acteon_resp::TokenError;

    use super::{Decoder, Incoming};
    use crate::wire::value::{ServerError, Value};

    const REPLIES: &[u8] =
        b"$3\r\nabc\r\n*3\r\n:1\r\n*0\r\n*2\r\n$-1\r\n-ERR no\r\n%1\r\n+a\r\n_\r\n>2\r\n$1\r\nx\r\n:2\r\n\
        |1\r\n+k\r\n+v\r\n=5\r\ntxt:q\r\n,1.5\r\n*-1\r\n%0\r\n";

    fn replies() -> Vec<Incoming> {
        let nested = Value::Array(vec![Value::Nil, Value::ServerError(ServerError::new("ERR no"))]);
        vec![
            Incoming::Reply(Value::BulkString(b"abc".to_vec())),
            Incoming::Reply(Value::Array(vec![Value::Int(1), Value::Array(Vec::new()), nested])),
            Incoming::Reply(Value::Map(vec![(Value::SimpleString("a".to_owned()), Value::Nil)])),
            Incoming::Push(vec![Value::BulkString(b"x".to_vec()), Value::Int(2)]),
            Incoming::Reply(Value::VerbatimString("q".to_owned())),
            Incoming::Reply(Value::Other),
            Incoming::Reply(Value::Nil),
            Incoming::Reply(Value::Map(Vec::new())),
        ]
    }

    #[test]
    fn replies_are_the_same_wherever_the_bytes_are_cut() {
        for piece in 1..=REPLIES.len() {
            let (mut decoder, mut kept, mut seen) = (Decoder::default(), Vec::new(), Vec::new());
            for bytes in REPLIES.chunks(piece) {
                kept.extend_from_slice(bytes);
                loop {
                    let (read, incoming) = decoder.read(&kept).unwrap();
                    kept.drain(..read);
                    let Some(incoming) = incoming else { break };
                    seen.push(incoming);
                }
            }
            assert!(kept.is_empty());
            assert_eq!(seen, replies(), "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_a_header_alone_takes_no_memory() {
        assert_eq!(Decoder::default().read(b"GET /"), Err(TokenError::UnknownType(b'G')));
        assert_eq!(Decoder::default().read(&b"*1\r\n".repeat(1_000)), Err(TokenError::TooDeep));
        let mut decoder = Decoder::default();
        assert_eq!(decoder.read(b"*4294967295\r\n"), Ok((13, None)));
        assert!(decoder.open[0].items.capacity() < 100);
    }
}
