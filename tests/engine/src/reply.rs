//! Replies as they came over the wire, and as lines of text.
//!
//! Nothing is interpreted: a number stays in the digits that were sent, so that `1` and `1.0` differ. As text, a reply is one line
//! per value, nested ones indented by two spaces: `+OK`, `-ERR …`, `:1`, `$"a\r\n"`, `*2`, `%1`, `~1`, `>3`, `,0.5`, `#t`, `_`,
//! `="txt:…"`, `(123`; the two nulls of RESP2 are `$-1` and `*-1`.

use std::fmt;
use std::io;

use crate::command::{parse_quoted, write_quoted};

/// One reply of either protocol. Two are equal if their bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// A value on one line with its type byte: `+`, `-`, `:`, `,`, `#`, `_` or `(`.
    Line(u8, Vec<u8>),
    /// A string with its type byte: `$`, `=` or `!`.
    Blob(u8, Vec<u8>),
    /// A null of RESP2, with the type byte of what is missing: `$` or `*`.
    Missing(u8),
    /// Values with the type byte of their container: `*`, `~`, `>` or `%`; a map holds keys and values in turns.
    Many(u8, Vec<Reply>),
}

/// Deeper nesting than this is an error: no command of Redis comes near.
const DEPTH_MAX: usize = 128;

impl Reply {
    /// Reads one reply from the start of `input` and says how many bytes it took; `None` if it is not complete yet.
    ///
    /// # Errors
    /// The bytes are no reply.
    pub fn decode(input: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut position = 0;
        Ok(decode_at(input, &mut position, 0)?.map(|reply| (reply, position)))
    }

    /// Whether this is an error of either kind.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Line(b'-', _) | Self::Blob(b'!', _))
    }

    /// Whether this is the status `text`.
    pub fn is_status(&self, text: &str) -> bool {
        matches!(self, Self::Line(b'+', line) if line == text.as_bytes())
    }

    /// The bytes of a string, a line or a number.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Line(_, bytes) | Self::Blob(_, bytes) => Some(bytes),
            Self::Missing(_) | Self::Many(..) => None,
        }
    }

    /// The values of a container; none for anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Many(_, items) => items,
            _ => &[],
        }
    }

    /// Reads what [`Display`](fmt::Display) wrote, from the front of `lines`.
    ///
    /// # Errors
    /// The lines are no reply.
    pub fn parse<'a>(lines: &mut impl Iterator<Item = &'a str>) -> io::Result<Self> {
        let line = lines.next().ok_or_else(|| invalid("a reply ends early".to_owned()))?.trim_start();
        let wrong = || invalid(format!("no reply: {line}"));
        let (kind, rest) = line.split_at_checked(1).ok_or_else(wrong)?;
        let kind = kind.as_bytes()[0];
        Ok(match (kind, rest) {
            (b'$' | b'*', "-1") => Self::Missing(kind),
            (b'$' | b'=' | b'!', quoted) => Self::Blob(kind, parse_quoted(quoted).ok_or_else(wrong)?),
            (b'*' | b'~' | b'>' | b'%', count) => {
                let count = count.parse::<usize>().map_err(|_| wrong())? * values_per_entry(kind);
                Self::Many(kind, (0..count).map(|_| Self::parse(lines)).collect::<io::Result<_>>()?)
            }
            (b'+' | b'-', text) => Self::Line(kind, parse_quoted(&format!("\"{text}\"")).ok_or_else(wrong)?),
            (b':' | b',' | b'#' | b'_' | b'(', text) => Self::Line(kind, text.into()),
            _ => return Err(wrong()),
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:1$}", "", depth * 2)?;
        match self {
            Self::Line(kind, text) => {
                let mut quoted = String::new();
                write_quoted(text, &mut quoted);
                write!(f, "{}{}", char::from(*kind), &quoted[1..quoted.len() - 1])
            }
            Self::Blob(kind, bytes) => {
                let mut quoted = String::new();
                write_quoted(bytes, &mut quoted);
                write!(f, "{}{quoted}", char::from(*kind))
            }
            Self::Missing(kind) => write!(f, "{}-1", char::from(*kind)),
            Self::Many(kind, items) => {
                write!(f, "{}{}", char::from(*kind), items.len() / values_per_entry(*kind))?;
                items.iter().try_for_each(|item| {
                    writeln!(f)?;
                    item.write(f, depth + 1)
                })
            }
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

fn values_per_entry(kind: u8) -> usize {
    if kind == b'%' { 2 } else { 1 }
}

fn decode_at(input: &[u8], position: &mut usize, depth: usize) -> io::Result<Option<Reply>> {
    if depth > DEPTH_MAX {
        return Err(invalid("a reply is nested too deeply".to_owned()));
    }
    let Some(line) = take_line(input, position) else {
        return Ok(None);
    };
    let (kind, text) = line.split_first().ok_or_else(|| invalid("an empty line instead of a reply".to_owned()))?;
    match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => Ok(Some(Reply::Line(*kind, text.to_vec()))),
        b'$' | b'*' if text == b"-1" => Ok(Some(Reply::Missing(*kind))),
        b'$' | b'=' | b'!' => Ok(take_blob(input, position, length(text)?)?.map(|bytes| Reply::Blob(*kind, bytes))),
        b'*' | b'~' | b'>' | b'%' => {
            let count = length(text)? * values_per_entry(*kind);
            let mut items = Vec::new();
            for _ in 0..count {
                match decode_at(input, position, depth + 1)? {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            Ok(Some(Reply::Many(*kind, items)))
        }
        other => Err(invalid(format!("a reply of unknown type {:?}", char::from(*other)))),
    }
}

fn take_line<'a>(input: &'a [u8], position: &mut usize) -> Option<&'a [u8]> {
    let rest = &input[*position..];
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *position += end + 2;
    Some(&rest[..end])
}

fn take_blob(input: &[u8], position: &mut usize, length: usize) -> io::Result<Option<Vec<u8>>> {
    let rest = &input[*position..];
    let Some(end) = rest.get(length..length + 2) else {
        return Ok(None);
    };
    if end != b"\r\n" {
        return Err(invalid("a string does not end where its length says".to_owned()));
    }
    *position += length + 2;
    Ok(Some(rest[..length].to_vec()))
}

fn length(text: &[u8]) -> io::Result<usize> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| invalid(format!("a bad length: {}", text.escape_ascii())))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::Reply;

    const ALL: &[u8] =
        b"*8\r\n+OK\r\n-ERR no\r\n:-1\r\n$3\r\n\x00\r\n\r\n*-1\r\n%1\r\n$1\r\na\r\n,0.5\r\n_\r\n~1\r\n#t\r\n";

    #[test]
    fn a_reply_is_read_once_its_last_byte_is_there() {
        for end in 0..ALL.len() {
            assert!(Reply::decode(&ALL[..end]).unwrap().is_none(), "{end}");
        }
        assert_eq!(Reply::decode(ALL).unwrap().unwrap().1, ALL.len());
    }

    #[test]
    fn text_reads_back_as_the_same_reply() {
        let reply = Reply::decode(ALL).unwrap().unwrap().0;
        let text = reply.to_string();
        assert_eq!(Reply::parse(&mut text.lines()).unwrap(), reply, "{text}");
        assert!(text.contains("\n  %1\n    $\"a\"\n    ,0.5\n"), "{text}");
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for input in ["?\r\n", "$x\r\n", "$1\r\nabc\r\n", "\r\n", "*1\r\n*-2\r\n"] {
            assert!(Reply::decode(input.as_bytes()).is_err(), "{input:?}");
        }
    }
}
