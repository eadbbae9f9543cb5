//! A whole reply as a tree that owns its bytes: for clients and tests that compare replies.
//!
//! # Guarantees
//! Depth and sizes are bounded by the caller's [`TokenLimits`], and memory by the bytes that have arrived: a header alone reserves
//! almost nothing. What [`Frame::write`] writes in RESP3 reads back as the same frame, up to what RESP3 merges (an absent array
//! is a null there, every NaN is one) and line breaks in a status or an error, which become spaces.
//!
//! # Failure
//! As in [`token`](token()).
//!
//! # How it works
//! Recursion over tokens. A frame that is not complete yet is read again from its start, so a reader of huge replies in
//! small pieces should walk over tokens instead.

use crate::reply::ReplyWriter;
use crate::token::{Token, TokenError, TokenLimits, token};

/// Elements that are reserved on the word of a header.
const ITEMS_RESERVED_MAX: usize = 64;

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A status such as `OK`.
    Simple(Vec<u8>),
    /// An error with its code.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A string of any bytes.
    Bulk(Vec<u8>),
    /// No value.
    Null,
    /// No array.
    NullArray,
    /// Replies in order.
    Array(Vec<Frame>),
    /// Pairs in the order in which they came.
    Map(Vec<(Frame, Frame)>),
    /// Members in the order in which they came.
    Set(Vec<Frame>),
    /// A message that answers no request.
    Push(Vec<Frame>),
    /// A reply, and data about it.
    Attributed {
        /// The data, as pairs.
        attributes: Vec<(Frame, Frame)>,
        /// The reply.
        frame: Box<Frame>,
    },
    /// A float.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// A text for people.
    Verbatim {
        /// Three letters: `txt` or `mkd`.
        format: [u8; 3],
        /// The text itself.
        text: Vec<u8>,
    },
    /// An integer of any size, in digits.
    BigNumber(Vec<u8>),
}

/// Reads the frame that `input` begins with, and returns it with its length in bytes; `None` until all of it is there.
///
/// # Errors
/// [`TokenError`] when the bytes can no longer become a frame.
///
/// ```
/// use acteon_resp::{Frame, TokenLimits, frame};
///
/// let read = frame(b"*2\r\n:1\r\n+OK\r\n", &TokenLimits::default());
/// assert_eq!(read, Ok(Some((Frame::Array(vec![Frame::Integer(1), Frame::Simple(b"OK".to_vec())]), 13))));
/// ```
pub fn frame(input: &[u8], limits: &TokenLimits) -> Result<Option<(Frame, usize)>, TokenError> {
    let mut reader = Reader { input, at: 0, limits };
    Ok(reader.frame(limits.depth_max)?.map(|frame| (frame, reader.at)))
}

impl Frame {
    /// Writes this frame as a server would, in the writer's version of the protocol. RESP2 has no attributes and leaves them out.
    pub fn write(&self, reply: &mut ReplyWriter<'_>) {
        match self {
            Self::Simple(text) => reply.simple_bytes(text),
            Self::Error(text) => reply.error_bytes(text),
            Self::Integer(value) => reply.integer(*value),
            Self::Bulk(bytes) => reply.bulk(bytes),
            Self::Null => reply.null(),
            Self::NullArray => reply.null_array(),
            Self::Double(value) => reply.double(*value),
            Self::Boolean(value) => reply.boolean(*value),
            Self::Verbatim { format, text } => reply.verbatim_bytes(*format, text),
            Self::BigNumber(digits) => reply.big_number_bytes(digits),
            Self::Array(items) => {
                reply.array(items.len());
                write_all(items, reply);
            }
            Self::Set(items) => {
                reply.set(items.len());
                write_all(items, reply);
            }
            Self::Push(items) => {
                reply.push(items.len());
                write_all(items, reply);
            }
            Self::Map(pairs) => {
                reply.map(pairs.len());
                write_pairs(pairs, reply);
            }
            Self::Attributed { attributes, frame } => {
                if reply.attribute(attributes.len()) {
                    write_pairs(attributes, reply);
                }
                frame.write(reply);
            }
        }
    }
}

fn write_all(items: &[Frame], reply: &mut ReplyWriter<'_>) {
    for item in items {
        item.write(reply);
    }
}

fn write_pairs(pairs: &[(Frame, Frame)], reply: &mut ReplyWriter<'_>) {
    for (key, value) in pairs {
        key.write(reply);
        value.write(reply);
    }
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    limits: &'a TokenLimits,
}

impl Reader<'_> {
    /// The next frame, which may hold collections nested `depth_left` deep.
    fn frame(&mut self, depth_left: usize) -> Result<Option<Frame>, TokenError> {
        let Some((token, len)) = token(&self.input[self.at..], self.limits)? else {
            return Ok(None);
        };
        self.at += len;
        Ok(match token {
            Token::Array(len) => self.items(len, depth_left)?.map(Frame::Array),
            Token::Set(len) => self.items(len, depth_left)?.map(Frame::Set),
            Token::Push(len) => self.items(len, depth_left)?.map(Frame::Push),
            Token::Map(len) => self.pairs(len, depth_left)?.map(Frame::Map),
            Token::Attribute(len) => self.attributed(len, depth_left)?,
            leaf => Some(leaf_frame(leaf)?),
        })
    }

    fn items(&mut self, len: usize, depth_left: usize) -> Result<Option<Vec<Frame>>, TokenError> {
        let depth_left = depth_left.checked_sub(1).ok_or(TokenError::TooDeep)?;
        let mut items = Vec::with_capacity(len.min(ITEMS_RESERVED_MAX));
        for _ in 0..len {
            match self.frame(depth_left)? {
                Some(item) => items.push(item),
                None => return Ok(None),
            }
        }
        Ok(Some(items))
    }

    fn pairs(&mut self, len: usize, depth_left: usize) -> Result<Option<Vec<(Frame, Frame)>>, TokenError> {
        let depth_left = depth_left.checked_sub(1).ok_or(TokenError::TooDeep)?;
        let mut pairs = Vec::with_capacity(len.min(ITEMS_RESERVED_MAX));
        for _ in 0..len {
            let Some(key) = self.frame(depth_left)? else {
                return Ok(None);
            };
            let Some(value) = self.frame(depth_left)? else {
                return Ok(None);
            };
            pairs.push((key, value));
        }
        Ok(Some(pairs))
    }

    /// Attributes count as a level of depth: nothing else would bound how many of them may precede one value.
    fn attributed(&mut self, len: usize, depth_left: usize) -> Result<Option<Frame>, TokenError> {
        let Some(attributes) = self.pairs(len, depth_left)? else {
            return Ok(None);
        };
        let frame = self.frame(depth_left.saturating_sub(1))?;
        Ok(frame.map(|frame| Frame::Attributed { attributes, frame: Box::new(frame) }))
    }
}

fn leaf_frame(token: Token<'_>) -> Result<Frame, TokenError> {
    Ok(match token {
        Token::Simple(text) => Frame::Simple(text.to_vec()),
        Token::Error(text) => Frame::Error(text.to_vec()),
        Token::Integer(value) => Frame::Integer(value),
        Token::Bulk(bytes) => Frame::Bulk(bytes.to_vec()),
        Token::Null => Frame::Null,
        Token::NullArray => Frame::NullArray,
        Token::Double(value) => Frame::Double(value),
        Token::Boolean(value) => Frame::Boolean(value),
        Token::Verbatim { format, text } => {
            Frame::Verbatim { format: format.try_into().map_err(|_| TokenError::InvalidValue)?, text: text.to_vec() }
        }
        Token::BigNumber(digits) => Frame::BigNumber(digits.to_vec()),
        // Collections are read by their own functions.
        Token::Array(_) | Token::Map(_) | Token::Set(_) | Token::Push(_) | Token::Attribute(_) => {
            return Err(TokenError::InvalidValue);
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{Frame, frame};
    use crate::reply::{Protocol, ReplyWriter};
    use crate::token::{Token, TokenError, TokenLimits, token};

    fn written(frame: &Frame, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        frame.write(&mut ReplyWriter::new(&mut out, protocol));
        out
    }

    fn read(input: &[u8]) -> Result<Option<(Frame, usize)>, TokenError> {
        frame(input, &TokenLimits::default())
    }

    /// Frames that RESP3 gives back as they were.
    fn frames() -> impl Strategy<Value = Frame> {
        let leaf = prop_oneof![
            "[ -~]{0,12}".prop_map(|text| Frame::Simple(text.into_bytes())),
            "[A-Z]{3} [ -~]{0,12}".prop_map(|text| Frame::Error(text.into_bytes())),
            any::<i64>().prop_map(Frame::Integer),
            vec(any::<u8>(), 0..40).prop_map(Frame::Bulk),
            Just(Frame::Null),
            any::<f64>().prop_filter("NaN equals nothing", |value| !value.is_nan()).prop_map(Frame::Double),
            any::<bool>().prop_map(Frame::Boolean),
            (any::<[u8; 3]>(), vec(any::<u8>(), 0..20)).prop_map(|(format, text)| Frame::Verbatim { format, text }),
            "-?[1-9][0-9]{0,40}".prop_map(|digits| Frame::BigNumber(digits.into_bytes())),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let pairs = vec((inner.clone(), inner.clone()), 0..4);
            prop_oneof![
                vec(inner.clone(), 0..5).prop_map(Frame::Array),
                vec(inner.clone(), 0..5).prop_map(Frame::Set),
                vec(inner.clone(), 0..5).prop_map(Frame::Push),
                pairs.clone().prop_map(Frame::Map),
                (pairs, inner).prop_map(|(attributes, frame)| Frame::Attributed { attributes, frame: Box::new(frame) }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_written_frame_reads_back_and_no_part_of_it_does(original in frames(), cut in any::<proptest::sample::Index>()) {
            let mut bytes = written(&original, Protocol::Resp3);
            let len = bytes.len();
            prop_assert_eq!(read(&bytes[..cut.index(len)]), Ok(None));
            bytes.extend_from_slice(b"+next\r\n");
            prop_assert_eq!(read(&bytes), Ok(Some((original, len))));
        }

        #[test]
        fn what_is_written_for_resp2_has_only_types_of_resp2(original in frames()) {
            let bytes = written(&original, Protocol::Resp2);
            let (_, len) = read(&bytes).unwrap().unwrap();
            prop_assert_eq!(len, bytes.len());
            let mut at = 0;
            while let Some((token, len)) = token(&bytes[at..], &TokenLimits::default()).unwrap() {
                prop_assert!(matches!(
                    token,
                    Token::Simple(_) | Token::Error(_) | Token::Integer(_) | Token::Bulk(_) | Token::Null | Token::Array(_)
                ));
                at += len;
            }
        }

        #[test]
        fn any_bytes_give_a_frame_or_an_error(input in vec(prop_oneof![any::<u8>(), byte_of_the_grammar()], 0..200)) {
            if let Ok(Some((_, len))) = read(&input) {
                prop_assert!(len <= input.len());
            }
        }
    }

    fn byte_of_the_grammar() -> impl Strategy<Value = u8> {
        proptest::sample::select(&b"+-:$*_#,(!=%~>|0123\r\n\r\n"[..])
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let limits = TokenLimits { depth_max: 3, ..TokenLimits::default() };
        assert!(matches!(frame(b"*1\r\n*1\r\n*1\r\n:1\r\n", &limits), Ok(Some((_, 16)))));
        for too_deep in ["*1\r\n", "~1\r\n", "%1\r\n", "|0\r\n"] {
            let input = format!("*1\r\n*1\r\n*1\r\n{too_deep}");
            assert_eq!(frame(input.as_bytes(), &limits), Err(TokenError::TooDeep), "{too_deep:?}");
        }
        let endless = "*1\r\n".repeat(100_000);
        assert_eq!(read(endless.as_bytes()), Err(TokenError::TooDeep));
    }

    #[test]
    fn attributes_come_before_the_value_that_they_describe() {
        let expected = Frame::Attributed {
            attributes: vec![(Frame::Simple(b"ttl".to_vec()), Frame::Integer(3))],
            frame: Box::new(Frame::Array(vec![Frame::Integer(1)])),
        };
        assert_eq!(read(b"|1\r\n+ttl\r\n:3\r\n*1\r\n:1\r\n"), Ok(Some((expected.clone(), 22))));
        assert_eq!(written(&expected, Protocol::Resp2), b"*1\r\n:1\r\n");
    }
}
