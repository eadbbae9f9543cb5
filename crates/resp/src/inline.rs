//! Splits an inline line into arguments: `SET greeting "hello\nworld"`.
//!
//! # Guarantees
//! Quotes and escapes are those of Redis. Between double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xff` are
//! bytes, and a backslash before anything else is dropped; between single quotes only `\'` is an escape. A quote may open in
//! the middle of an argument, and what follows its end must be a blank.
//!
//! # Failure
//! An open quote, or one that is closed inside an argument, is [`RequestError::UnbalancedQuotes`].
//!
//! # How it works
//! A line without quotes is cut into ranges. With a quote anywhere all its arguments are copied, which keeps one source
//! for the arguments of a request.

use memchr::memchr2;

use crate::arguments::{Arguments, Span};
use crate::request::RequestError;

/// Adds the arguments of `line`, which is the beginning of the input without the line's end.
pub(crate) fn split(line: &[u8], args: &mut Arguments) -> Result<(), RequestError> {
    let is_quoted = memchr2(b'"', b'\'', line).is_some();
    let mut at = skip_blanks(line, 0);
    while at < line.len() {
        if is_quoted {
            args.push_unquoted(|out| {
                at = unquote(line, at, out)?;
                Ok(())
            })?;
        } else {
            let len = line[at..].iter().take_while(|byte| !ends_argument(**byte)).count();
            args.push(Span { start: at, len });
            at += len;
        }
        at = skip_blanks(line, at);
    }
    Ok(())
}

/// Appends the argument that begins at `at`, and returns where it ends.
fn unquote(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, RequestError> {
    while let Some(byte) = line.get(at) {
        match byte {
            b'"' => return closed(line, double_quoted(line, at + 1, out)?),
            b'\'' => return closed(line, single_quoted(line, at + 1, out)?),
            byte if ends_argument(*byte) => break,
            byte => out.push(*byte),
        }
        at += 1;
    }
    Ok(at)
}

/// Appends what stands before the next double quote, and returns where that quote ends.
fn double_quoted(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, RequestError> {
    loop {
        match line.get(at..).unwrap_or_default() {
            [] => return Err(RequestError::UnbalancedQuotes),
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                out.push(unescape(*escaped));
                at += 2;
            }
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
        }
    }
}

/// Appends what stands before the next single quote, and returns where that quote ends.
fn single_quoted(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, RequestError> {
    loop {
        match line.get(at..).unwrap_or_default() {
            [] => return Err(RequestError::UnbalancedQuotes),
            [b'\'', ..] => return Ok(at + 1),
            [b'\\', b'\'', ..] => {
                out.push(b'\'');
                at += 2;
            }
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
        }
    }
}

/// Checks that a quote which ends before `end` also ends its argument.
fn closed(line: &[u8], end: usize) -> Result<usize, RequestError> {
    match line.get(end) {
        Some(byte) if !is_blank(*byte) => Err(RequestError::UnbalancedQuotes),
        _ => Ok(end),
    }
}

fn skip_blanks(line: &[u8], at: usize) -> usize {
    at + line[at..].iter().take_while(|byte| is_blank(**byte)).count()
}

/// Blanks between arguments: C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// A vertical tab and a form feed separate arguments but do not end one: Redis takes `a\vb` as one argument.
fn ends_argument(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::split;
    use crate::arguments::Arguments;
    use crate::request::RequestError;

    fn arguments(line: &[u8]) -> Result<Vec<Vec<u8>>, RequestError> {
        let mut args = Arguments::default();
        split(line, &mut args)?;
        Ok(args.iter(line).map(<[u8]>::to_vec).collect())
    }

    #[track_caller]
    fn assert_splits(line: &[u8], expected: &[&[u8]]) {
        assert_eq!(arguments(line).unwrap(), expected, "{}", line.escape_ascii());
    }

    #[test]
    fn blanks_separate_arguments() {
        assert_splits(b"", &[]);
        assert_splits(b" \t ", &[]);
        assert_splits(b"  SET  a\tb ", &[b"SET", b"a", b"b"]);
        assert_splits(b"ECHO a\rb", &[b"ECHO", b"a", b"b"]);
        assert_splits(b"\x0bECHO a\x0bb", &[b"ECHO", b"a\x0bb"]);
    }

    #[test]
    fn double_quotes_resolve_escapes() {
        assert_splits(br#"ECHO "a\x41\n\r\t\b\a\q\"\xzz""#, &[b"ECHO", b"aA\n\r\t\x08\x07q\"xzz"]);
        assert_splits(br#"ECHO """#, &[b"ECHO", b""]);
        assert_splits(br#"ECHO "\xF""#, &[b"ECHO", b"xF"]);
    }

    #[test]
    fn single_quotes_resolve_only_the_single_quote() {
        assert_splits(br"ECHO 'a\'b\n'", &[b"ECHO", b"a'b\\n"]);
    }

    #[test]
    fn a_quote_may_open_inside_an_argument() {
        assert_splits(br#"ECHO ab"c d" e"#, &[b"ECHO", b"abc d", b"e"]);
    }

    #[test]
    fn a_quote_that_does_not_end_its_argument_is_refused() {
        for line in [r#"ECHO "abc"#, r#"ECHO "abc"d"#, "ECHO 'abc'd", r#"ECHO ab"c d"e"#, r#"ECHO "\"#, r"ECHO '\"] {
            assert_eq!(arguments(line.as_bytes()), Err(RequestError::UnbalancedQuotes), "{line}");
        }
    }
}
