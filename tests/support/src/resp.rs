//! Just enough of the Redis protocol to see that a server is up and to ask it single questions.
//!
//! Blocking and one connection per call: plain enough to be obviously right next to the drivers under test, which it must not use.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LINE_BYTES_MAX: u64 = 64 * 1024; // longer than any status or error line of Redis
const BULK_BYTES_MAX: usize = 16 * 1024 * 1024; // a test that reads more wants a real client

/// Sends one command, after AUTH if there is a password, and returns its reply as text. Nil is `None`.
///
/// # Errors
/// Connecting, reading or writing failed or took longer than `timeout`; or the server answered with an error, which is the message.
pub(crate) fn query(
    address: SocketAddr,
    password: Option<&str>,
    timeout: Duration,
    arguments: &[&str],
) -> io::Result<Option<String>> {
    read_reply(&mut ask(address, password, timeout, arguments)?)
}

/// The same for a command that answers with a list of texts.
///
/// # Errors
/// As for [`query`], or another answer.
pub(crate) fn query_list(
    address: SocketAddr,
    password: Option<&str>,
    timeout: Duration,
    arguments: &[&str],
) -> io::Result<Vec<String>> {
    read_list(&mut ask(address, password, timeout, arguments)?)
}

/// Sends one command, after AUTH if there is a password. The reply to it comes next.
fn ask(
    address: SocketAddr,
    password: Option<&str>,
    timeout: Duration,
    arguments: &[&str],
) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut replies = BufReader::new(stream);
    if let Some(password) = password {
        replies.get_mut().write_all(&encode(&["AUTH", password]))?;
        read_reply(&mut replies)?;
    }
    replies.get_mut().write_all(&encode(arguments))?;
    Ok(replies)
}

fn encode(arguments: &[&str]) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        frame.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    frame
}

fn read_line(replies: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    replies.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_list(replies: &mut impl BufRead) -> io::Result<Vec<String>> {
    let line = read_line(replies)?;
    let count: usize = match line.split_at_checked(1) {
        Some(("*", count)) => count.parse().map_err(|_| invalid(format!("a list of length {count:?}")))?,
        Some(("-", message)) => return Err(io::Error::other(message.to_owned())),
        _ => return Err(invalid(format!("no list: {line:?}"))),
    };
    (0..count).map(|_| read_reply(replies)?.ok_or_else(|| invalid("nil in a list".to_owned()))).collect()
}

fn read_reply(replies: &mut impl BufRead) -> io::Result<Option<String>> {
    let text = &*read_line(replies)?;
    match text.split_at_checked(1) {
        Some(("+" | ":", value)) => Ok(Some(value.to_owned())),
        Some(("$", "-1")) => Ok(None),
        Some(("$", length)) => read_bulk(replies, length).map(Some),
        Some(("-", message)) => Err(io::Error::other(message.to_owned())),
        Some(_) => Err(invalid(format!("a reply of an unsupported kind: {text:?}"))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn read_bulk(replies: &mut impl Read, length: &str) -> io::Result<String> {
    let length: usize = length
        .parse()
        .ok()
        .filter(|&length| length <= BULK_BYTES_MAX)
        .ok_or_else(|| invalid(format!("a bulk reply of length {length:?}")))?;
    let mut bytes = vec![0; length + b"\r\n".len()];
    replies.read_exact(&mut bytes)?;
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| invalid(error.to_string()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::{encode, read_list, read_reply};

    #[test]
    fn arguments_with_spaces_stay_one_argument() {
        assert_eq!(encode(&["SET", "a b"]), b"*2\r\n$3\r\nSET\r\n$3\r\na b\r\n");
    }

    #[test]
    fn single_value_replies_are_read() {
        let cases: [(&str, Option<&str>); 4] = [
            ("+PONG\r\n", Some("PONG")),
            (":42\r\n", Some("42")),
            ("$-1\r\n", None),
            ("$4\r\na\r\nb\r\n", Some("a\r\nb")),
        ];
        for (bytes, expected) in cases {
            let reply = read_reply(&mut bytes.as_bytes()).unwrap();
            assert_eq!(reply.as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn lists_of_texts_are_read() {
        assert_eq!(read_list(&mut "*2\r\n$1\r\na\r\n$2\r\nbc\r\n".as_bytes()).unwrap(), ["a", "bc"]);
        assert!(read_list(&mut "*0\r\n".as_bytes()).unwrap().is_empty());
        for bytes in ["+a\r\n", "-ERR no\r\n", "*1\r\n$-1\r\n", "*1\r\n", "*x\r\n", ""] {
            assert!(read_list(&mut bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn errors_and_broken_replies_are_errors() {
        for bytes in ["-ERR no\r\n", "", "*1\r\n+a\r\n", "$x\r\n", "$9\r\nshort\r\n", "é"] {
            assert!(read_reply(&mut bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }
}
