//! Writes replies, in the form that the client's protocol version has for them.
//!
//! # Guarantees
//! A command writes each reply once, by its meaning: a map, a set, a missing value. RESP3 has a form for each; in RESP2 a map
//! becomes a flat array, a double a bulk string, exactly as Redis 7.0 does it. A text that must stay on one line stays there
//! whatever it holds, so that no argument echoed in an error can forge a second reply.
//!
//! # Failure
//! None. Beyond [`bounded`](ReplyWriter::bounded) strings are left out: what is there is no reply any more, and is thrown away. The caller must write as many elements as a header promises; nothing here counts them.
//!
//! # How it works
//! Everything is appended to one buffer. When the number of elements is known only at the end, the header is inserted
//! before them then: elements move once, which costs less than counting them in advance.

use std::mem;

use crate::number::format_g17;

/// The version of the protocol that a client has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// What every client speaks until it sends `HELLO 3`.
    #[default]
    Resp2,
    /// With types for maps, sets, doubles, booleans and pushed messages.
    Resp3,
}

/// Appends replies to a buffer.
///
/// ```
/// use acteon_resp::{Protocol, ReplyWriter};
///
/// let mut out = Vec::new();
/// let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
/// reply.map(1);
/// reply.bulk(b"role");
/// reply.bulk(b"master");
/// assert_eq!(out, b"*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n");
/// ```
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
    /// A buffer that holds more takes no further string.
    bytes_max: usize,
}

/// An array, map or set whose header is still missing: see [`ReplyWriter::array_deferred`].
#[derive(Debug)]
#[must_use = "the reply has no header until it is closed"]
pub struct Deferred {
    at: usize,
    marker: u8,
    items_per_element: usize,
}

impl<'a> ReplyWriter<'a> {
    /// A writer that appends to `out`, which may hold earlier replies.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol, bytes_max: usize::MAX }
    }

    /// Leaves strings out once the buffer holds more than `bytes_max`. Whoever sees a buffer beyond that must not send it, but end the
    /// connection: a short request can ask for any number of long strings, and none of them would be read.
    #[must_use]
    #[inline]
    pub fn bounded(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// The version of the protocol that replies are written in.
    #[must_use]
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Writes what follows in another version: the answer to `HELLO` is in the version it asks for.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes in the buffer, earlier replies included.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether the buffer holds nothing, earlier replies included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes back everything written since [`len`](Self::len) was `len`.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// A status such as `OK`. A line break in it becomes a space.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.simple_bytes(text.as_bytes());
    }

    /// A status that need not be text: scripts make them of any bytes.
    #[inline]
    pub fn simple_bytes(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// An error: the whole text, code included, as in `ERR syntax error`. A line break in it becomes a space, one at its end
    /// is dropped.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// An error that need not be text: it may quote an argument.
    pub fn error_bytes(&mut self, text: &[u8]) {
        let kept = text.iter().rposition(|byte| !is_line_break(*byte)).map_or(0, |last| last + 1);
        self.line(b'-', &text[..kept]);
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A string of any bytes.
    // One call for all of it, rather than one for each of its parts.
    #[inline(never)]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.out.len() > self.bytes_max {
            return;
        }
        // The header takes 23 bytes at most, the end 2.
        self.out.reserve(bytes.len() + 25);
        self.length(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// The absence of a value.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(self.by_protocol(b"$-1\r\n", b"_\r\n"));
    }

    /// The absence of an array: `BLPOP` after its timeout, an aborted `EXEC`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(self.by_protocol(b"*-1\r\n", b"_\r\n"));
    }

    /// The header of an array: `len` replies follow.
    pub fn array(&mut self, len: usize) {
        self.length(b'*', len);
    }

    /// The header of a map: for each pair a key and a value follow. RESP2: an array of twice that length.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs.saturating_mul(2)),
            Protocol::Resp3 => self.header(b'%', pairs),
        }
    }

    /// The header of a set: `len` replies follow. RESP2: an array.
    pub fn set(&mut self, len: usize) {
        self.header(*self.by_protocol(&b'*', &b'~'), len);
    }

    /// The header of a message that answers no request: `len` replies follow. RESP2: an array.
    pub fn push(&mut self, len: usize) {
        self.header(*self.by_protocol(&b'*', &b'>'), len);
    }

    /// The header of data about the reply that comes next: for each pair a key and a value follow.
    ///
    /// RESP2 has no form for these: then nothing is written, and `false` tells the caller to leave out the pairs as well.
    #[must_use = "without a header the pairs must be left out"]
    pub fn attribute(&mut self, pairs: usize) -> bool {
        let has_form = self.protocol == Protocol::Resp3;
        if has_form {
            self.header(b'|', pairs);
        }
        has_form
    }

    /// A float with 17 digits. RESP2: a bulk string.
    pub fn double(&mut self, value: f64) {
        match self.protocol {
            Protocol::Resp2 => self.double_as_bulk(value),
            Protocol::Resp3 => {
                self.out.push(b',');
                format_g17(value, self.out);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Yes or no. RESP2: 1 or 0.
    pub fn boolean(&mut self, value: bool) {
        let (resp2, resp3) = if value { (b":1\r\n", b"#t\r\n") } else { (b":0\r\n", b"#f\r\n") };
        self.out.extend_from_slice(self.by_protocol(resp2, resp3));
    }

    /// A text for people. `format` has three letters: `txt` or `mkd`. RESP2: a bulk string.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        match format.as_bytes().try_into() {
            Ok(format) => self.verbatim_bytes(format, text),
            Err(_) => unreachable!("the format of a verbatim string has three letters: {format}"),
        }
    }

    /// An integer beyond 64 bits, in decimal digits. RESP2: a bulk string.
    pub fn big_number(&mut self, digits: &str) {
        self.big_number_bytes(digits.as_bytes());
    }

    /// Bytes that are encoded already, in the client's protocol.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.out.len() <= self.bytes_max {
            self.out.extend_from_slice(bytes);
        }
    }

    /// The buffer itself, for a while in which something else appends to it; it must be [given back](Self::give_back).
    #[must_use]
    pub fn lend(&mut self) -> Vec<u8> {
        mem::take(self.out)
    }

    /// The buffer that was lent.
    pub fn give_back(&mut self, out: Vec<u8>) {
        debug_assert!(self.out.is_empty(), "nothing may be written while the buffer is lent");
        *self.out = out;
    }

    /// Begins an array whose length is not known yet: write the elements, then [`close`](Self::close) it.
    ///
    /// Deferred replies may lie in each other; the inner one is closed first.
    ///
    /// ```
    /// # use acteon_resp::{Protocol, ReplyWriter};
    /// # let mut out = Vec::new();
    /// # let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
    /// let found = reply.array_deferred();
    /// reply.integer(7);
    /// reply.close(found, 1);
    /// assert_eq!(out, b"*1\r\n:7\r\n");
    /// ```
    pub fn array_deferred(&mut self) -> Deferred {
        self.deferred(b'*', 1)
    }

    /// Begins a map whose number of pairs is not known yet.
    pub fn map_deferred(&mut self) -> Deferred {
        match self.protocol {
            Protocol::Resp2 => self.deferred(b'*', 2),
            Protocol::Resp3 => self.deferred(b'%', 1),
        }
    }

    /// Begins a set whose length is not known yet.
    pub fn set_deferred(&mut self) -> Deferred {
        self.deferred(*self.by_protocol(&b'*', &b'~'), 1)
    }

    /// Puts the header before what was written since `deferred` began. `count` is in elements, for a map in pairs.
    pub fn close(&mut self, deferred: Deferred, count: usize) {
        let end = self.out.len();
        debug_assert!(deferred.at <= end, "a deferred reply was truncated before it was closed");
        self.header(deferred.marker, count.saturating_mul(deferred.items_per_element));
        let header_len = self.out.len() - end;
        if let Some(reply) = self.out.get_mut(deferred.at..) {
            reply.rotate_right(header_len);
        }
    }

    pub(crate) fn verbatim_bytes(&mut self, format: [u8; 3], text: &[u8]) {
        if self.protocol == Protocol::Resp2 {
            return self.bulk(text);
        }
        self.header(b'=', format.len() + 1 + text.len());
        self.out.extend_from_slice(&format);
        self.out.push(b':');
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    pub(crate) fn big_number_bytes(&mut self, digits: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits),
            Protocol::Resp3 => self.line(b'(', digits),
        }
    }

    fn deferred(&self, marker: u8, items_per_element: usize) -> Deferred {
        Deferred { at: self.out.len(), marker, items_per_element }
    }

    #[inline]
    fn by_protocol<'b, T: ?Sized>(&self, resp2: &'b T, resp3: &'b T) -> &'b T {
        match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        }
    }

    #[inline]
    fn header(&mut self, marker: u8, value: impl itoa::Integer) {
        /// The marker, the longest number and the end.
        const LINE_BYTES: usize = 1 + 20 + 2;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        // Appended in one piece: each piece costs as much as all the digits.
        let mut line = [marker; LINE_BYTES];
        let end = 1 + digits.len();
        line[1..end].copy_from_slice(digits);
        line[end..end + 2].copy_from_slice(b"\r\n");
        self.out.extend_from_slice(&line[..end + 2]);
    }

    /// The same for a small length, as nearly all strings have.
    #[inline(always)]
    fn length(&mut self, marker: u8, len: usize) {
        let digit = |number: usize| b'0' + number as u8;
        match len {
            0..10 => self.out.extend_from_slice(&[marker, digit(len), b'\r', b'\n']),
            10..100 => self.out.extend_from_slice(&[marker, digit(len / 10), digit(len % 10), b'\r', b'\n']),
            _ => self.header(marker, len),
        }
    }

    #[inline]
    fn line(&mut self, marker: u8, text: &[u8]) {
        /// In texts as short as `OK` a break is looked for on the spot, which takes nothing where the compiler knows them.
        const SHORT_BYTES: usize = 8;
        self.out.reserve(text.len() + 3);
        self.out.push(marker);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        let has_break = match text.len() {
            ..=SHORT_BYTES => text.iter().any(|byte| is_line_break(*byte)),
            _ => memchr::memchr2(b'\r', b'\n', text).is_some(),
        };
        if has_break {
            self.out[start..].iter_mut().filter(|byte| is_line_break(**byte)).for_each(|byte| *byte = b' ');
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn double_as_bulk(&mut self, value: f64) {
        let start = self.out.len();
        format_g17(value, self.out);
        let digits_len = self.out.len() - start;
        // A header of one or two digits: `%.17g` writes 24 bytes at most.
        self.header(b'$', digits_len);
        let header_len = self.out.len() - start - digits_len;
        self.out[start..].rotate_right(header_len);
        self.out.extend_from_slice(b"\r\n");
    }
}

#[inline]
fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::{Protocol, ReplyWriter};

    fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut ReplyWriter::new(&mut out, protocol));
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn assert_written(write: impl Fn(&mut ReplyWriter<'_>), resp2: &str, resp3: &str) {
        assert_eq!(written(Protocol::Resp2, &write), resp2);
        assert_eq!(written(Protocol::Resp3, &write), resp3);
    }

    #[test]
    fn each_meaning_has_its_form_in_each_version() {
        assert_written(|reply| reply.simple("OK"), "+OK\r\n", "+OK\r\n");
        assert_written(|reply| reply.error("ERR no"), "-ERR no\r\n", "-ERR no\r\n");
        assert_written(|reply| reply.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        assert_written(|reply| reply.bulk(b"a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n");
        assert_written(|reply| reply.null(), "$-1\r\n", "_\r\n");
        assert_written(|reply| reply.null_array(), "*-1\r\n", "_\r\n");
        assert_written(|reply| reply.array(2), "*2\r\n", "*2\r\n");
        assert_written(|reply| reply.map(2), "*4\r\n", "%2\r\n");
        assert_written(|reply| reply.set(2), "*2\r\n", "~2\r\n");
        assert_written(|reply| reply.push(2), "*2\r\n", ">2\r\n");
        assert_written(|reply| assert_eq!(reply.attribute(2), !reply.is_empty()), "", "|2\r\n");
        assert_written(|reply| reply.double(0.5), "$3\r\n0.5\r\n", ",0.5\r\n");
        assert_written(|reply| reply.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        assert_written(
            |reply| reply.double(-1.0 / 3.0 * 1e-300),
            "$24\r\n-3.3333333333333334e-301\r\n",
            ",-3.3333333333333334e-301\r\n",
        );
        assert_written(|reply| reply.boolean(true), ":1\r\n", "#t\r\n");
        assert_written(|reply| reply.boolean(false), ":0\r\n", "#f\r\n");
        assert_written(|reply| reply.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        assert_written(|reply| reply.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
        assert_written(|reply| reply.raw(b":1\r\n"), ":1\r\n", ":1\r\n");
    }

    #[test]
    fn a_line_break_cannot_forge_a_second_reply() {
        assert_eq!(written(Protocol::Resp2, |reply| reply.error("ERR a\r\n:1\r\n")), "-ERR a  :1\r\n");
        assert_eq!(written(Protocol::Resp2, |reply| reply.simple("a\nb\r")), "+a b \r\n");
    }

    #[test]
    fn deferred_replies_get_their_headers_inside_one_another() {
        let write = |reply: &mut ReplyWriter<'_>| {
            reply.integer(0);
            let outer = reply.map_deferred();
            for key in 1..=11 {
                reply.integer(key);
                let inner = reply.set_deferred();
                reply.integer(-key);
                reply.close(inner, 1);
            }
            reply.close(outer, 11);
            reply.null();
        };
        let pairs = |set: char| (1..=11).map(|key| format!(":{key}\r\n{set}1\r\n:-{key}\r\n")).collect::<String>();
        let resp2 = format!(":0\r\n*22\r\n{}$-1\r\n", pairs('*'));
        let resp3 = format!(":0\r\n%11\r\n{}_\r\n", pairs('~'));
        assert_written(write, &resp2, &resp3);
    }

    #[test]
    fn beyond_its_bound_a_reply_takes_no_more_strings() {
        let text = written(Protocol::Resp2, |reply| {
            let mut reply = ReplyWriter::new(reply.out, Protocol::Resp2).bounded(10);
            (0..9).for_each(|_| reply.bulk(b"abc"));
            reply.raw(b":1\r\n");
        });
        assert_eq!(text, "$3\r\nabc\r\n$3\r\nabc\r\n");
    }

    #[test]
    fn a_reply_can_be_taken_back() {
        let text = written(Protocol::Resp2, |reply| {
            reply.integer(1);
            let before = reply.len();
            reply.bulk(b"half a reply");
            reply.truncate(before);
            reply.error("ERR no");
        });
        assert_eq!(text, ":1\r\n-ERR no\r\n");
    }
}
