//! Reads requests: arrays of bulk strings, and inline lines as a person types them.
//!
//! # Guarantees
//! Any way of cutting a stream into pieces gives the same requests and the same error. Every byte is looked at once, however
//! slowly a request arrives. Arguments are ranges of the input: an ordinary request allocates nothing once the [`Arguments`]
//! have been used before. Memory for a request is reserved as its arguments arrive, never by what a header claims.
//!
//! # Failure
//! Bytes that are no request give a [`RequestError`] with Redis's text. There is no way to find the next request after
//! one: answer with [`RequestError::write_reply`] and close the connection.
//!
//! # How it works
//! The decoder keeps how many arguments are missing and where the next one begins, counted from the first byte of the
//! pending request. The caller keeps that request's bytes in place and appends to them until it is complete.
//! Redis looks for `\r` and skips the byte behind it unseen, in headers and behind arguments; so does this.

use std::fmt;

use memchr::memchr;

use crate::arguments::{Arguments, Span};
use crate::inline;
use crate::number::parse_i64;
use crate::pipeline::read_plain;
use crate::reply::ReplyWriter;

/// Arguments that a client may send before it has authenticated: enough for `HELLO 3 AUTH user password SETNAME name`.
const UNAUTHENTICATED_ARGS_MAX: i64 = 10;

/// Bytes of one argument before authentication.
const UNAUTHENTICATED_BULK_BYTES_MAX: i64 = 16_384;

/// Digits of a length that is read without further checks: no number of nine digits overflows.
const PLAIN_DIGITS_MAX: usize = 9;

/// What a request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Arguments of one request, its name included.
    pub args_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes of an inline line, and of a line that holds a length.
    pub inline_bytes_max: usize,
    /// Whether the client may use the limits above. Until it has given its password, ten arguments of 16 KiB must do.
    pub is_authenticated: bool,
}

/// Reads one request after the other from a stream. See [`decode`](Self::decode).
#[derive(Debug, Default)]
pub struct RequestDecoder {
    /// Where the next unread line or argument begins, from the start of the request.
    at: usize,
    /// Up to here the line that begins at `at` is known to have no end.
    scanned: usize,
    /// Arguments that are still to come. None: the request has not begun.
    args_left: usize,
    /// Bytes of the argument at `at`, once its header has been read.
    bulk_bytes: Option<usize>,
}

/// Why bytes are no request. The text is what Redis answers, without the code `ERR` in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The number of arguments is no number, or beyond the limit.
    InvalidMultibulkLength,
    /// More arguments than a client may send before it has authenticated.
    UnauthenticatedMultibulkLength,
    /// The line with the number of arguments does not end.
    MultibulkLineTooBig,
    /// An argument begins with this byte instead of `$`.
    ExpectedDollar(u8),
    /// The length of an argument is no number, negative, or beyond the limit.
    InvalidBulkLength,
    /// A longer argument than a client may send before it has authenticated.
    UnauthenticatedBulkLength,
    /// The line with the length of an argument does not end.
    BulkLineTooBig,
    /// An inline line does not end.
    InlineTooBig,
    /// A quote of an inline line is not closed, or something follows its end without a blank between.
    UnbalancedQuotes,
}

impl RequestDecoder {
    /// A decoder at the start of a request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the request that begins with the first byte of `input`, and returns its length in bytes; `None` until all of it
    /// is there.
    ///
    /// After `None`, call again with the same bytes and more behind them, and with the same `args`. After a length, drop
    /// that many bytes (not before the arguments have been used) and go on with the next request. An empty line and an array
    /// of no or a negative length are requests without arguments: skip them.
    ///
    /// # Errors
    /// [`RequestError`] when the bytes can no longer become a request.
    ///
    /// ```
    /// use acteon_resp::{Arguments, RequestDecoder, RequestLimits};
    ///
    /// let input = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n";
    /// let (mut decoder, mut args) = (RequestDecoder::new(), Arguments::default());
    /// let read = decoder.decode(input, &RequestLimits::default(), &mut args);
    /// assert_eq!(read, Ok(Some(20)));
    /// assert_eq!((args.get(input, 0), args.get(input, 1)), (&b"GET"[..], &b"a"[..]));
    /// ```
    pub fn decode(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
        args: &mut Arguments,
    ) -> Result<Option<usize>, RequestError> {
        if !self.is_pending() {
            args.clear();
            if let Some(bytes) = read_plain(input, limits, |span| args.push(span)) {
                return Ok(Some(bytes));
            }
        }
        self.decode_with_care(input, limits, args)
    }

    /// The same for requests of all kinds, whole or in pieces.
    pub(crate) fn decode_with_care(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
        args: &mut Arguments,
    ) -> Result<Option<usize>, RequestError> {
        let read = self.advance(input, limits, args);
        if !matches!(read, Ok(None)) {
            self.reset();
        }
        read
    }

    /// Forgets a request that has begun: the next input starts with another one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether part of a request has been read.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.args_left > 0 || self.scanned > 0
    }

    /// Length that the input needs at least before [`decode`](Self::decode) can get any further. For a large argument that
    /// is its end as the client announced it, so that a buffer can grow once.
    #[must_use]
    pub fn input_bytes_wanted(&self) -> usize {
        match self.bulk_bytes {
            Some(bytes) => self.at.saturating_add(bytes).saturating_add(2),
            None => self.at.max(self.scanned).saturating_add(1),
        }
    }

    fn advance(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
        args: &mut Arguments,
    ) -> Result<Option<usize>, RequestError> {
        if self.args_left == 0 {
            let Some(first) = input.first() else {
                return Ok(None);
            };
            args.clear();
            if *first != b'*' {
                return self.inline(input, limits, args);
            }
            let Some(count) = self.multibulk_length(input, limits)? else {
                return Ok(None);
            };
            self.args_left = count;
            args.reserve(count);
        }
        while self.args_left > 0 {
            let Some(span) = self.argument(input, limits)? else {
                return Ok(None);
            };
            args.push(span);
            self.args_left -= 1;
        }
        Ok(Some(self.at))
    }

    fn inline(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
        args: &mut Arguments,
    ) -> Result<Option<usize>, RequestError> {
        let Some(line) = self.line(input, b'\n', limits, RequestError::InlineTooBig)? else {
            return Ok(None);
        };
        let read = line.len() + 1;
        inline::split(line.strip_suffix(b"\r").unwrap_or(line), args)?;
        Ok(Some(read))
    }

    fn multibulk_length(&mut self, input: &[u8], limits: &RequestLimits) -> Result<Option<usize>, RequestError> {
        let length = match self.plain_length(input, b'*') {
            Some(length) => length,
            None => {
                let Some(line) = self.header(input, limits, RequestError::MultibulkLineTooBig)? else {
                    return Ok(None);
                };
                parse_i64(&line[1..]).ok_or(RequestError::InvalidMultibulkLength)?
            }
        };
        // Below zero means none, as in a reply.
        let count = usize::try_from(length.max(0)).map_err(|_| RequestError::InvalidMultibulkLength)?;
        if count > limits.args_max {
            return Err(RequestError::InvalidMultibulkLength);
        }
        if length > UNAUTHENTICATED_ARGS_MAX && !limits.is_authenticated {
            return Err(RequestError::UnauthenticatedMultibulkLength);
        }
        Ok(Some(count))
    }

    fn argument(&mut self, input: &[u8], limits: &RequestLimits) -> Result<Option<Span>, RequestError> {
        let len = match self.bulk_bytes {
            Some(len) => len,
            None => {
                let Some(len) = self.bulk_length(input, limits)? else {
                    return Ok(None);
                };
                self.bulk_bytes = Some(len);
                len
            }
        };
        let start = self.at;
        if input.len().saturating_sub(start) < len.saturating_add(2) {
            return Ok(None);
        }
        self.bulk_bytes = None;
        self.at = start + len + 2;
        Ok(Some(Span { start, len }))
    }

    fn bulk_length(&mut self, input: &[u8], limits: &RequestLimits) -> Result<Option<usize>, RequestError> {
        let length = match self.plain_length(input, b'$') {
            Some(length) => length,
            None => {
                let Some(line) = self.header(input, limits, RequestError::BulkLineTooBig)? else {
                    return Ok(None);
                };
                match line {
                    [b'$', digits @ ..] => parse_i64(digits).ok_or(RequestError::InvalidBulkLength)?,
                    // The line may be empty: then its end stands where the `$` should.
                    [] => return Err(RequestError::ExpectedDollar(b'\r')),
                    [other, ..] => return Err(RequestError::ExpectedDollar(*other)),
                }
            }
        };
        let len = usize::try_from(length).map_err(|_| RequestError::InvalidBulkLength)?;
        if len > limits.bulk_bytes_max {
            return Err(RequestError::InvalidBulkLength);
        }
        if length > UNAUTHENTICATED_BULK_BYTES_MAX && !limits.is_authenticated {
            return Err(RequestError::UnauthenticatedBulkLength);
        }
        Ok(Some(len))
    }

    /// The number in a header such as `$12`, which nearly every header is. `None` says nothing: read it with care.
    fn plain_length(&mut self, input: &[u8], marker: u8) -> Option<i64> {
        let (first, digits) = input.get(self.at..)?.split_first()?;
        if *first != marker {
            return None;
        }
        let mut value = 0i64;
        for (index, byte) in digits.iter().take(PLAIN_DIGITS_MAX + 1).enumerate() {
            match byte {
                b'0'..=b'9' if index < PLAIN_DIGITS_MAX => value = value * 10 + i64::from(byte - b'0'),
                b'\r' if is_number(&digits[..index]) && digits.len() > index + 1 => {
                    self.at += index + 3;
                    self.scanned = 0;
                    return Some(value);
                }
                _ => return None,
            }
        }
        None
    }

    /// The line at `at` without its end, `\r` and one byte, and `at` set behind that.
    fn header<'i>(
        &mut self,
        input: &'i [u8],
        limits: &RequestLimits,
        too_big: RequestError,
    ) -> Result<Option<&'i [u8]>, RequestError> {
        let Some(line) = self.line(input, b'\r', limits, too_big)? else {
            return Ok(None);
        };
        let next = self.at + line.len() + 2;
        if next > input.len() {
            self.scanned = next - 2;
            return Ok(None);
        }
        self.at = next;
        self.scanned = 0;
        Ok(Some(line))
    }

    /// The bytes from `at` to `end`, without it.
    fn line<'i>(
        &mut self,
        input: &'i [u8],
        end: u8,
        limits: &RequestLimits,
        too_big: RequestError,
    ) -> Result<Option<&'i [u8]>, RequestError> {
        let from = self.at.max(self.scanned);
        let Some(unseen) = input.get(from..) else {
            return Ok(None);
        };
        let found = memchr(end, unseen).map(|index| from + index);
        // The same bound with and without an end, so that it does not matter how the bytes were cut.
        let line = &input[self.at..found.unwrap_or(input.len())];
        if line.len() > limits.inline_bytes_max {
            return Err(too_big);
        }
        if found.is_none() {
            self.scanned = input.len();
        }
        Ok(found.map(|_| line))
    }
}

impl RequestLimits {
    /// The default limits, for a client that has not authenticated yet.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self { is_authenticated: false, ..Self::default() }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            args_max: 1_048_576,
            bulk_bytes_max: 512 * 1_024 * 1_024,
            inline_bytes_max: 64 * 1_024,
            is_authenticated: true,
        }
    }
}

impl RequestError {
    /// Writes the error reply that Redis sends before it closes the connection.
    pub fn write_reply(&self, reply: &mut ReplyWriter<'_>) {
        match self {
            // The byte as it came, which need not be text.
            Self::ExpectedDollar(got) => {
                reply.error_bytes(&[b"ERR Protocol error: expected '$', got '", &[*got][..], b"'"].concat());
            }
            other => reply.error(&format!("ERR {other}")),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        f.write_str(match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::MultibulkLineTooBig => "too big mbulk count string",
            Self::ExpectedDollar(got) => return write!(f, "expected '$', got '{}'", char::from(*got)),
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::BulkLineTooBig => "too big bulk count string",
            Self::InlineTooBig => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
        })
    }
}

impl std::error::Error for RequestError {}

/// Writes a request as clients send it: an array of bulk strings.
///
/// ```
/// # use acteon_resp::write_request;
/// let mut out = Vec::new();
/// write_request(&mut out, &["GET", "a"]);
/// assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
/// ```
pub fn write_request(out: &mut Vec<u8>, args: &[impl AsRef<[u8]>]) {
    let mut writer = ReplyWriter::new(out, crate::Protocol::Resp2);
    writer.array(args.len());
    for arg in args {
        writer.bulk(arg.as_ref());
    }
}

/// Whether digits are the one spelling of a number: there are some, and no zero leads.
fn is_number(digits: &[u8]) -> bool {
    match digits {
        [] => false,
        [b'0', _, ..] => false,
        [..] => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;

    use super::{RequestDecoder, RequestError, RequestLimits, write_request};
    use crate::arguments::{ARGS_KEPT_MAX, Arguments};
    use crate::reply::{Protocol, ReplyWriter};

    type Requests = (Vec<Vec<Vec<u8>>>, Option<RequestError>);

    /// Bounds that random bytes reach.
    const SMALL: RequestLimits =
        RequestLimits { args_max: 20, bulk_bytes_max: 60, inline_bytes_max: 30, is_authenticated: true };

    /// Feeds pieces of these lengths, the last one as often as needed, as a server does: consumed bytes go at once.
    fn requests(input: &[u8], pieces: &[usize], limits: &RequestLimits) -> Requests {
        let (mut decoder, mut args) = (RequestDecoder::new(), Arguments::default());
        let (mut buffer, mut read) = (Vec::new(), Vec::new());
        let mut rest = input;
        let mut lengths = pieces.iter().copied().chain(std::iter::repeat(pieces.last().copied().unwrap_or(1).max(1)));
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(lengths.next().unwrap().min(rest.len()));
            rest = later;
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&buffer, limits, &mut args) {
                    Ok(Some(consumed)) => {
                        assert!(!decoder.is_pending());
                        read.push(args.iter(&buffer).map(<[u8]>::to_vec).collect());
                        buffer.drain(..consumed);
                    }
                    Ok(None) => break assert!(decoder.input_bytes_wanted() >= buffer.len()),
                    Err(error) => return (read, Some(error)),
                }
            }
        }
        (read, None)
    }

    fn error(input: &[u8], limits: &RequestLimits) -> Option<String> {
        requests(input, &[input.len()], limits).1.map(|error| error.to_string())
    }

    fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(vec(any::<u8>(), 0..50), 1..6).prop_map(|args| {
                let mut out = Vec::new();
                write_request(&mut out, &args);
                out
            }),
            "[ -~]{0,20}\r?\n".prop_map(String::into_bytes),
            "(\\*|\\$|\\*1\r\n|\\*2\r\n\\$)(-?[0-9]{0,3}|x)\r\n".prop_map(String::into_bytes),
        ]
    }

    fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![any::<u8>(), select(&b"*$-0123\r\n\r\n\r\n \"'\\x"[..])], 0..120)
    }

    proptest! {
        #[test]
        fn a_stream_gives_the_same_requests_however_it_is_cut(
            stream in vec(request_bytes(), 1..6),
            pieces in vec(0usize..20, 0..20),
        ) {
            let stream = stream.concat();
            let whole = requests(&stream, &[stream.len()], &SMALL);
            prop_assert_eq!(&requests(&stream, &pieces, &SMALL), &whole);
            prop_assert_eq!(&requests(&stream, &[1], &SMALL), &whole);
        }

        #[test]
        fn any_bytes_give_requests_or_an_error_however_they_are_cut(input in hostile_bytes(), piece in 1usize..9) {
            prop_assert_eq!(requests(&input, &[piece], &SMALL), requests(&input, &[input.len()], &SMALL));
        }

        #[test]
        fn written_requests_read_back(pipeline in vec(vec(vec(any::<u8>(), 0..30), 1..20), 0..8)) {
            let mut stream = Vec::new();
            pipeline.iter().for_each(|args| write_request(&mut stream, args));
            prop_assert_eq!(requests(&stream, &[stream.len()], &RequestLimits::default()), (pipeline, None));
        }
    }

    #[test]
    fn empty_lines_and_empty_arrays_are_requests_without_arguments() {
        let (read, error) = requests(b"\r\n\n*0\r\n*-1\r\n*-99999999999\r\n \r\n", &[7], &RequestLimits::default());
        assert_eq!((read, error), (vec![Vec::<Vec<u8>>::new(); 6], None));
    }

    #[test]
    fn the_byte_behind_a_carriage_return_is_skipped_unseen() {
        let (read, error) = requests(b"*1\r\n$4\r\nPINGxx*1\rX$4\rYPINGzz", &[1], &RequestLimits::default());
        assert_eq!((read, error), (vec![vec![b"PING".to_vec()]; 2], None));
    }

    /// Texts as redis-server 7.0.15 answers these bytes.
    #[test]
    fn errors_have_the_texts_of_redis() {
        let long = |prefix: &str| [prefix.as_bytes(), &[b'1'; 70_000]].concat();
        let cases: &[(&[u8], &str)] = &[
            (b"*x\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*-0\r\n", "invalid multibulk length"),
            (b"*2147483648\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\nfoo\r\n", "expected '$', got 'f'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"*1\r\n$+4\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (&long("*"), "too big mbulk count string"),
            (&long("*1\r\n$"), "too big bulk count string"),
            (&long("*1\r\n"), "too big bulk count string"),
            (&long(""), "too big inline request"),
            (b"ECHO \"a\r\n", "unbalanced quotes in request"),
        ];
        for (input, expected) in cases {
            let shown = input[..input.len().min(30)].escape_ascii();
            assert_eq!(error(input, &RequestLimits::default()), Some(format!("Protocol error: {expected}")), "{shown}");
        }
        for fine in ["*1\r\nfoo", "*1\r\n$536870912\r\n", "*1048576\r\n"] {
            assert_eq!(error(fine.as_bytes(), &RequestLimits::default()), None, "{fine:?}");
        }
    }

    #[test]
    fn before_authentication_requests_are_small() {
        let limits = RequestLimits::unauthenticated();
        assert_eq!(error(b"*10\r\n", &limits), None);
        assert_eq!(error(b"*11\r\n", &limits).unwrap(), "Protocol error: unauthenticated multibulk length");
        assert_eq!(error(b"*99999999999\r\n", &limits).unwrap(), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1\r\n$16384\r\n", &limits), None);
        assert_eq!(error(b"*1\r\n$16385\r\n", &limits).unwrap(), "Protocol error: unauthenticated bulk length");
        assert_eq!(error(b"*1\r\n$999999999999\r\n", &limits).unwrap(), "Protocol error: invalid bulk length");
    }

    #[test]
    fn the_error_reply_quotes_the_byte_as_it_came() {
        for (got, quoted) in [(b'f', &b"f"[..]), (0xff, &b"\xff"[..]), (b'\r', &b" "[..])] {
            let mut out = Vec::new();
            RequestError::ExpectedDollar(got).write_reply(&mut ReplyWriter::new(&mut out, Protocol::Resp2));
            assert_eq!(out, [b"-ERR Protocol error: expected '$', got '", quoted, b"'\r\n"].concat());
        }
    }

    #[test]
    fn memory_is_reserved_for_what_arrives_not_for_what_is_announced() {
        let (mut decoder, mut args) = (RequestDecoder::new(), Arguments::default());
        let input = b"*1000000\r\n$500000000\r\n";
        assert_eq!(decoder.decode(input, &RequestLimits::default(), &mut args), Ok(None));
        assert!(args.capacity() <= ARGS_KEPT_MAX);
        assert_eq!(decoder.input_bytes_wanted(), input.len() + 500_000_002);
    }

    #[test]
    fn a_request_of_many_arguments_does_not_keep_their_memory() {
        let (mut decoder, mut args) = (RequestDecoder::new(), Arguments::default());
        let mut stream = Vec::new();
        write_request(&mut stream, &vec!["x"; 100_000]);
        assert_eq!(decoder.decode(&stream, &RequestLimits::default(), &mut args), Ok(Some(stream.len())));
        assert_eq!(decoder.decode(b"PING\r\n", &RequestLimits::default(), &mut args), Ok(Some(6)));
        assert!(args.capacity() < 2 * ARGS_KEPT_MAX);
    }

    #[test]
    fn a_reset_decoder_forgets_the_pending_request() {
        let (mut decoder, mut args) = (RequestDecoder::new(), Arguments::default());
        assert_eq!(decoder.decode(b"*2\r\n$4\r\nECHO\r\n$9", &RequestLimits::default(), &mut args), Ok(None));
        assert!(decoder.is_pending());
        decoder.reset();
        assert_eq!(decoder.decode(b"PING\r\n", &RequestLimits::default(), &mut args), Ok(Some(6)));
        assert_eq!(args.get(b"PING\r\n", 0), b"PING");
    }
}
