//! Complete requests that have come together, read in one go.
//!
//! # Guarantees
//! What is read here, [`RequestDecoder`](crate::RequestDecoder) reads in the same way, byte for byte. What is not plain (a request that is not all there, an
//! inline one, an unusual length, an error) ends the reading before it, and is left to the decoder.
//!
//! # How it works
//! Nearly every request is a few arguments with lengths of one or two digits, and all there. Reading one needs no state to go on with and
//! no question but whether the next byte is what it should be, so that it takes a fraction of the time.

use smallvec::SmallVec;

use crate::arguments::Span;
use crate::request::RequestLimits;

/// Arguments of a plain request.
const ARGS_MAX: usize = 64;
/// Requests that are read together without allocating, with six arguments each, as many as SET with all of its usual options has.
const REQUESTS_INLINE: usize = 16;
const SPANS_INLINE: usize = REQUESTS_INLINE * 6;
/// Longest argument that counts as plain: what may be sent before authentication as well.
const BULK_BYTES_MAX: usize = 16_384;

/// Requests in the order in which they came.
///
/// ```
/// use acteon_resp::{Pipeline, RequestLimits};
///
/// let input = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI";
/// let pipeline = Pipeline::read(input, &RequestLimits::default(), 16);
/// let mut rest = &input[..];
/// let mut names = Vec::new();
/// for request in pipeline.requests() {
///     names.extend(request.args(rest).next());
///     rest = &rest[request.bytes()..];
/// }
/// assert_eq!(names, [b"GET", &b"PING"[..]]);
/// assert_eq!(rest, b"*1\r\n$4\r\nPI");
/// ```
#[derive(Debug, Default)]
pub struct Pipeline {
    spans: SmallVec<[Span; SPANS_INLINE]>,
    requests: SmallVec<[Read; REQUESTS_INLINE]>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    bytes: usize,
    /// Where its arguments end among all spans.
    spans_end: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct PlainRequest<'p> {
    bytes: usize,
    spans: &'p [Span],
}

impl Pipeline {
    /// Reads the requests that `input` begins with, at most so many.
    #[must_use]
    pub fn read(input: &[u8], limits: &RequestLimits, requests_max: usize) -> Self {
        let (mut pipeline, mut rest) = (Self::default(), input);
        while pipeline.requests.len() < requests_max
            && let Some(bytes) = read_plain(rest, limits, |span| pipeline.spans.push(span))
        {
            pipeline.requests.push(Read { bytes, spans_end: pipeline.spans.len() });
            rest = &rest[bytes..];
        }
        pipeline
    }

    /// The number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none: then the input does not begin with a plain request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// All requests in order.
    #[inline]
    pub fn requests(&self) -> impl Iterator<Item = PlainRequest<'_>> + Clone {
        let mut spans_start = 0;
        self.requests.iter().map(move |read| {
            let spans = &self.spans[spans_start..read.spans_end];
            spans_start = read.spans_end;
            PlainRequest { bytes: read.bytes, spans }
        })
    }

    /// The arguments of all requests in order, each with the command's name first. `input` begins with the first request.
    ///
    /// # Panics
    /// The iterators do, when `input` is shorter than the requests.
    #[inline]
    pub fn args<'a>(&'a self, mut input: &'a [u8]) -> impl Iterator<Item: ExactSizeIterator<Item = &'a [u8]>> + Clone {
        self.requests().map(move |request| {
            let args = request.args(input);
            input = &input[request.bytes()..];
            args
        })
    }
}

impl<'p> PlainRequest<'p> {
    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its arguments, the command's name first; there is one at least. `input` begins with the request.
    ///
    /// # Panics
    /// The iterator does, when `input` is shorter than the request.
    #[inline]
    pub fn args<'a>(self, input: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a, 'p> {
        self.spans.iter().map(move |span| span.of(input))
    }
}

/// Reads the request that `input` begins with if it is plain and all there, shows its arguments to `add`, and returns its length. What was shown
/// of a request that was not is not to be used.
#[inline]
pub(crate) fn read_plain(input: &[u8], limits: &RequestLimits, mut add: impl FnMut(Span)) -> Option<usize> {
    let bulk_bytes_max = limits.bulk_bytes_max.min(BULK_BYTES_MAX);
    let args_max = if limits.is_authenticated { limits.args_max.min(ARGS_MAX) } else { 0 };
    let (count, mut at) = header(input, 0, b'*')?;
    if count == 0 || count > args_max {
        return None;
    }
    for _ in 0..count {
        let (len, start) = header(input, at, b'$')?;
        at = start + len + 2;
        if len > bulk_bytes_max || at > input.len() {
            return None;
        }
        add(Span { start, len });
    }
    Some(at)
}

/// The number in a header such as `$12`, which begins at `at`, and where the header ends.
#[inline(always)]
fn header(input: &[u8], at: usize, marker: u8) -> Option<(usize, usize)> {
    // All that a header of one or two digits may be is looked at as one number: fewer questions than one for each byte.
    const ONE_DIGIT: u32 = u32::from_le_bytes([0xff, 0, 0xff, 0]);
    const TWO_DIGITS: u32 = u32::from_le_bytes([0xff, 0, 0, 0xff]);
    let rest = input.get(at..)?;
    let bytes = *rest.first_chunk::<4>()?;
    let (head, digit) = (u32::from_le_bytes(bytes), |at: usize| usize::from(bytes[at].wrapping_sub(b'0')));
    let (first, second) = (digit(1), digit(2));
    if head & ONE_DIGIT == u32::from_le_bytes([marker, 0, b'\r', 0]) && first <= 9 {
        return Some((first, at + 4));
    }
    let is_short = head & TWO_DIGITS == u32::from_le_bytes([marker, 0, 0, b'\r']) && rest.len() > 4;
    if is_short && (1..=9).contains(&first) && second <= 9 {
        return Some((10 * first + second, at + 5));
    }
    if bytes[0] == marker { long_header(&rest[1..], at) } else { None }
}

/// The same with more digits. Apart, so that the usual ones need no room for what it needs.
#[inline(never)]
fn long_header(rest: &[u8], at: usize) -> Option<(usize, usize)> {
    /// More than plain arguments have, and few enough not to overflow.
    const DIGITS_MAX: usize = 6;
    let end = rest.iter().take(DIGITS_MAX + 1).position(|byte| *byte == b'\r')?;
    let digits = &rest[..end];
    let is_number = digits.iter().all(u8::is_ascii_digit) && digits.first().is_some_and(|first| *first != b'0');
    if !is_number || rest.len() < end + 2 {
        return None;
    }
    Some((digits.iter().fold(0, |number, byte| 10 * number + usize::from(byte - b'0')), at + end + 3))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;

    use super::Pipeline;
    use crate::arguments::Arguments;
    use crate::request::{RequestDecoder, RequestLimits, write_request};

    /// Requests as the decoder reads them, one after the other, until the first that is not all there or an error.
    fn decoded(mut input: &[u8], limits: &RequestLimits) -> Vec<(usize, Vec<Vec<u8>>)> {
        let (mut read, mut args) = (Vec::new(), Arguments::default());
        while let Ok(Some(bytes)) = RequestDecoder::new().decode_with_care(input, limits, &mut args) {
            read.push((bytes, args.iter(input).map(<[u8]>::to_vec).collect()));
            input = &input[bytes..];
        }
        read
    }

    fn read(mut input: &[u8], limits: &RequestLimits, requests_max: usize) -> Vec<(usize, Vec<Vec<u8>>)> {
        let pipeline = Pipeline::read(input, limits, requests_max);
        let requests = pipeline.requests().map(|request| {
            let args = request.args(input).map(<[u8]>::to_vec).collect();
            input = &input[request.bytes()..];
            (request.bytes(), args)
        });
        requests.collect()
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let args = vec(vec(any::<u8>(), 0..120), 1..20);
        let plain = args.prop_map(|args| {
            let mut bytes = Vec::new();
            write_request(&mut bytes, &args);
            bytes
        });
        let odd = select(vec![
            &b"PING\r\n"[..],
            b"*0\r\n",
            b"*-1\r\n",
            b"*01\r\n$4\r\nPING\r\n",
            b"*1\r\n$04\r\nPING\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\rx$4\rxPINGxx",
            b"*2\r\n$4\r\nPING\r\n",
            b"*1\r\n+4\r\nPING\r\n",
            b"*1\r\n$99999999999999999999\r\n",
            b"*1\r\n$\r\n",
            b"*1\r\n$3 \r\nGET\r\n",
            b"\r\n",
        ]);
        prop_oneof![8 => plain, 1 => odd.prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..10)]
    }

    proptest! {
        #[test]
        fn what_is_read_together_is_what_the_decoder_reads(
            requests in vec(request(), 0..8),
            cut in 0..40_usize,
            requests_max in 0..10_usize,
            bulk_bytes_max in select(vec![5_usize, 100, 1 << 20]),
            args_max in select(vec![3_usize, 1 << 20]),
            is_authenticated in any::<bool>(),
        ) {
            let limits = RequestLimits { args_max, bulk_bytes_max, is_authenticated, ..RequestLimits::default() };
            let input = requests.concat();
            let input = &input[..input.len().saturating_sub(cut)];
            let (expected, read) = (decoded(input, &limits), read(input, &limits, requests_max));
            prop_assert!(read.len() <= requests_max && read.len() <= expected.len());
            prop_assert_eq!(&read[..], &expected[..read.len()]);
        }
    }

    #[test]
    fn usual_requests_are_all_plain() {
        let mut input = Vec::new();
        for bytes in [0, 9, 10, 99, 100, 1_000, 16_384] {
            write_request(&mut input, &[b"SET".to_vec(), vec![b'x'; bytes]]);
        }
        assert_eq!(Pipeline::read(&input, &RequestLimits::default(), 100).len(), 7);
        assert_eq!(Pipeline::read(&input, &RequestLimits::default(), 3).len(), 3);
        assert!(Pipeline::read(&input, &RequestLimits::unauthenticated(), 3).is_empty());
    }
}
