//! Reads what a server sends, one header or leaf at a time.
//!
//! # Guarantees
//! A token is a value, or the header of a collection whose elements are the next tokens. It borrows from the input. Nothing is
//! allocated, and nothing recurses: whoever builds a tree bounds its depth (as [`frame`](crate::frame()) does).
//! All types of RESP2 and RESP3 are read; both versions share one grammar.
//!
//! # Failure
//! A [`TokenError`] means that the stream is no RESP, or passes a limit. There is no way to find the next token after one.
//!
//! # How it works
//! Stateless: a token that is not complete yet is read again from its first byte, which costs one search for its line's end
//! and nothing for the bytes of a string. Unlike requests, replies are checked to the last `\n`: a client that has lost
//! its place in the stream should learn so at once.

use std::fmt;

use memchr::memchr;

use crate::number::{parse_f64, parse_i64};

/// Letters of the format of a verbatim string.
const VERBATIM_FORMAT_BYTES: usize = 3;

/// A header or a leaf. The sizes of collections are in elements, or in pairs of a key and a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// A status such as `OK`.
    Simple(&'a [u8]),
    /// An error with its code. RESP3 can also send one of many lines, which is the same to its reader.
    Error(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// A string of any bytes.
    Bulk(&'a [u8]),
    /// No value.
    Null,
    /// No array. RESP3 has [`Token::Null`] only.
    NullArray,
    /// So many tokens follow.
    Array(usize),
    /// So many pairs follow.
    Map(usize),
    /// So many tokens follow.
    Set(usize),
    /// So many tokens follow, which answer no request.
    Push(usize),
    /// So many pairs follow; they describe the value after them.
    Attribute(usize),
    /// A float, which may be infinite or NaN.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// A text for people.
    Verbatim {
        /// Three letters: `txt` or `mkd`.
        format: &'a [u8],
        /// The text itself.
        text: &'a [u8],
    },
    /// An integer of any size: an optional sign, and digits.
    BigNumber(&'a [u8]),
}

/// What a reply may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLimits {
    /// Bytes of a string with a length.
    pub bulk_bytes_max: usize,
    /// Bytes of a line: a status, an error, a number.
    pub line_bytes_max: usize,
    /// Elements or pairs of one collection.
    pub items_max: usize,
    /// Collections within collections. Only [`frame`](crate::frame()) looks at this.
    pub depth_max: usize,
}

/// Why bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// No type begins with this byte.
    UnknownType(u8),
    /// A line that holds no value of its type.
    InvalidValue,
    /// A length that is no number or negative.
    InvalidLength,
    /// A line or string does not end where it should.
    MissingLineEnd,
    /// A line that does not end within the limit.
    LineTooBig,
    /// A string beyond the limit.
    BulkTooBig,
    /// A collection beyond the limit.
    TooManyItems,
    /// Collections nested beyond the limit.
    TooDeep,
}

/// Reads the token that `input` begins with, and returns it with its length in bytes; `None` until all of it is there.
///
/// # Errors
/// [`TokenError`] when the bytes can no longer become a token.
///
/// ```
/// use acteon_resp::{Token, TokenLimits, token};
///
/// let limits = TokenLimits::default();
/// assert_eq!(token(b"*2\r\n:1\r\n:2\r\n", &limits), Ok(Some((Token::Array(2), 4))));
/// assert_eq!(token(b"$5\r\nhel", &limits), Ok(None));
/// ```
pub fn token<'a>(input: &'a [u8], limits: &TokenLimits) -> Result<Option<(Token<'a>, usize)>, TokenError> {
    let Some((marker, rest)) = input.split_first() else {
        return Ok(None);
    };
    if !is_marker(*marker) {
        return Err(TokenError::UnknownType(*marker));
    }
    let Some(line) = line(rest, limits)? else {
        return Ok(None);
    };
    let header_len = 1 + line.len() + 2;
    if !matches!(marker, b'$' | b'!' | b'=') || line == b"-1" {
        return Ok(Some((leaf_or_header(*marker, line, limits)?, header_len)));
    }
    let len = length(line, limits.bulk_bytes_max, TokenError::BulkTooBig)?;
    let Some(text) = bulk(&input[header_len..], len)? else {
        return Ok(None);
    };
    Ok(Some((sized(*marker, text)?, header_len + len + 2)))
}

/// A token that ends with its line.
fn leaf_or_header<'a>(marker: u8, line: &'a [u8], limits: &TokenLimits) -> Result<Token<'a>, TokenError> {
    let items = || length(line, limits.items_max, TokenError::TooManyItems);
    Ok(match (marker, line) {
        (b'+', text) => Token::Simple(text),
        (b'-', text) => Token::Error(text),
        (b':', digits) => Token::Integer(integer(digits)?),
        (b'$', b"-1") | (b'_', b"") => Token::Null,
        (b'*', b"-1") => Token::NullArray,
        (b'*', _) => Token::Array(items()?),
        (b'%', _) => Token::Map(items()?),
        (b'~', _) => Token::Set(items()?),
        (b'>', _) => Token::Push(items()?),
        (b'|', _) => Token::Attribute(items()?),
        (b',', text) => Token::Double(double(text)?),
        (b'#', b"t") => Token::Boolean(true),
        (b'#', b"f") => Token::Boolean(false),
        (b'(', digits) if is_big_number(digits) => Token::BigNumber(digits),
        (b'!' | b'=', _) => return Err(TokenError::InvalidLength),
        _ => return Err(TokenError::InvalidValue),
    })
}

/// A token that has a length.
fn sized(marker: u8, text: &[u8]) -> Result<Token<'_>, TokenError> {
    match marker {
        b'$' => Ok(Token::Bulk(text)),
        b'!' => Ok(Token::Error(text)),
        _ => match text.split_at_checked(VERBATIM_FORMAT_BYTES) {
            Some((format, [b':', text @ ..])) => Ok(Token::Verbatim { format, text }),
            _ => Err(TokenError::InvalidValue),
        },
    }
}

/// The bytes before `\r\n`.
fn line<'a>(input: &'a [u8], limits: &TokenLimits) -> Result<Option<&'a [u8]>, TokenError> {
    let end = memchr(b'\r', input);
    if end.unwrap_or(input.len()) > limits.line_bytes_max {
        return Err(TokenError::LineTooBig);
    }
    let Some(end) = end else {
        return Ok(None);
    };
    match input.get(end + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(&input[..end])),
        Some(_) => Err(TokenError::MissingLineEnd),
    }
}

/// `len` bytes, and `\r\n` behind them.
fn bulk(input: &[u8], len: usize) -> Result<Option<&[u8]>, TokenError> {
    let Some((text, end)) = input.split_at_checked(len) else {
        return Ok(None);
    };
    match end {
        [b'\r', b'\n', ..] => Ok(Some(text)),
        [] | [b'\r'] => Ok(None),
        _ => Err(TokenError::MissingLineEnd),
    }
}

fn length(line: &[u8], max: usize, too_big: TokenError) -> Result<usize, TokenError> {
    let length = parse_i64(line).ok_or(TokenError::InvalidLength)?;
    let length = usize::try_from(length).map_err(|_| TokenError::InvalidLength)?;
    if length > max { Err(too_big) } else { Ok(length) }
}

/// RESP3 allows a plus sign, which Redis does not write.
fn integer(digits: &[u8]) -> Result<i64, TokenError> {
    let digits = match digits.strip_prefix(b"+") {
        Some(rest) if !rest.starts_with(b"-") => rest,
        _ => digits,
    };
    parse_i64(digits).ok_or(TokenError::InvalidValue)
}

fn double(text: &[u8]) -> Result<f64, TokenError> {
    match text {
        // A NaN computed on x86 has its sign set, and C prints that.
        b"nan" | b"-nan" => Ok(f64::NAN),
        text => parse_f64(text).ok_or(TokenError::InvalidValue),
    }
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn is_marker(byte: u8) -> bool {
    b"+-:$*_#,(!=%~>|".contains(&byte)
}

impl Default for TokenLimits {
    /// What Redis itself would send at most, and a depth that no reply of a command reaches.
    fn default() -> Self {
        Self {
            bulk_bytes_max: 512 * 1_024 * 1_024,
            line_bytes_max: 64 * 1_024,
            items_max: u32::MAX as usize,
            depth_max: 128,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownType(byte) => return write!(f, "no reply begins with '{}'", byte.escape_ascii()),
            Self::InvalidValue => "a value does not fit its type",
            Self::InvalidLength => "a length is not a number",
            Self::MissingLineEnd => "a line or string does not end where it should",
            Self::LineTooBig => "a line is too long",
            Self::BulkTooBig => "a string is too long",
            Self::TooManyItems => "a collection has too many elements",
            Self::TooDeep => "collections are nested too deeply",
        })
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
mod tests {
    use super::{Token, TokenError, TokenLimits, token};

    fn read(input: &[u8]) -> Result<Option<(Token<'_>, usize)>, TokenError> {
        token(input, &TokenLimits::default())
    }

    #[test]
    fn every_type_is_read_to_its_last_byte_and_not_before() {
        let cases: &[(&[u8], Token<'_>)] = &[
            (b"+OK\r\n", Token::Simple(b"OK")),
            (b"-ERR no\r\n", Token::Error(b"ERR no")),
            (b"!6\r\nERR\r\na\r\n", Token::Error(b"ERR\r\na")),
            (b":-12\r\n", Token::Integer(-12)),
            (b":+12\r\n", Token::Integer(12)),
            (b"$3\r\na\r\n\r\n", Token::Bulk(b"a\r\n")),
            (b"$0\r\n\r\n", Token::Bulk(b"")),
            (b"$-1\r\n", Token::Null),
            (b"_\r\n", Token::Null),
            (b"*-1\r\n", Token::NullArray),
            (b"*0\r\n", Token::Array(0)),
            (b"%2\r\n", Token::Map(2)),
            (b"~3\r\n", Token::Set(3)),
            (b">4\r\n", Token::Push(4)),
            (b"|1\r\n", Token::Attribute(1)),
            (b",-1.5e3\r\n", Token::Double(-1500.0)),
            (b",inf\r\n", Token::Double(f64::INFINITY)),
            (b"#t\r\n", Token::Boolean(true)),
            (b"#f\r\n", Token::Boolean(false)),
            (b"=6\r\ntxt:hi\r\n", Token::Verbatim { format: b"txt", text: b"hi" }),
            (b"(-12345678901234567890\r\n", Token::BigNumber(b"-12345678901234567890")),
        ];
        for (input, expected) in cases {
            let mut stream = input.to_vec();
            stream.extend_from_slice(b"+next\r\n");
            assert_eq!(read(&stream), Ok(Some((*expected, input.len()))), "{}", input.escape_ascii());
            for cut in 0..input.len() {
                assert_eq!(read(&input[..cut]), Ok(None), "{}", input[..cut].escape_ascii());
            }
        }
        assert!(matches!(read(b",nan\r\n"), Ok(Some((Token::Double(value), 6))) if value.is_nan()));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let cases: &[(&[u8], TokenError)] = &[
            (b"?", TokenError::UnknownType(b'?')),
            (b":\r\n", TokenError::InvalidValue),
            (b":+-1\r\n", TokenError::InvalidValue),
            (b":9223372036854775808\r\n", TokenError::InvalidValue),
            (b"_x\r\n", TokenError::InvalidValue),
            (b"#x\r\n", TokenError::InvalidValue),
            (b",1.5x\r\n", TokenError::InvalidValue),
            (b"(1a\r\n", TokenError::InvalidValue),
            (b"(-\r\n", TokenError::InvalidValue),
            (b"=2\r\nhi\r\n", TokenError::InvalidValue),
            (b"=-1\r\n", TokenError::InvalidLength),
            (b"%-1\r\n", TokenError::InvalidLength),
            (b"$-2\r\n", TokenError::InvalidLength),
            (b"$?\r\n", TokenError::InvalidLength),
            (b"+OK\rx", TokenError::MissingLineEnd),
            (b"$1\r\nabc", TokenError::MissingLineEnd),
            (b"$536870913\r\n", TokenError::BulkTooBig),
            (b"*4294967296\r\n", TokenError::TooManyItems),
        ];
        for (input, expected) in cases {
            assert_eq!(read(input), Err(*expected), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_line_beyond_its_limit_is_refused_before_it_ends() {
        let limits = TokenLimits { line_bytes_max: 4, ..TokenLimits::default() };
        assert_eq!(token(b"+abcd\r\n", &limits), Ok(Some((Token::Simple(b"abcd"), 7))));
        assert_eq!(token(b"+abcde", &limits), Err(TokenError::LineTooBig));
    }
}
