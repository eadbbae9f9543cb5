//! A command as bytes for a server and as a line for people.
//!
//! The line is what redis-cli takes: arguments between spaces, quoted where they hold anything but plain letters. In a saved
//! sequence, `2:` in front names the connection, and `+` says that the command goes together with the one before.

use std::fmt;

/// One command, and on which connection it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Connections are numbered from 0; see [`crate::sequence`].
    pub connection: u8,
    /// Whether the command before must not be sent without this one: it undoes what is left to chance there.
    pub is_glued: bool,
    /// The command's name and its arguments.
    pub arguments: Vec<Vec<u8>>,
}

impl Command {
    /// A command on the first connection.
    pub fn new(arguments: Vec<Vec<u8>>) -> Self {
        Self { arguments, ..Self::default() }
    }

    /// A command of plain words, between spaces.
    pub fn words(line: &str) -> Self {
        Self::new(line.split(' ').map(|word| word.as_bytes().to_vec()).collect())
    }

    /// The name in upper case. Empty if there is none.
    pub fn name(&self) -> String {
        self.word(0)
    }

    /// An argument in upper case; the name is number 0. Empty if there is none.
    pub fn word(&self, index: usize) -> String {
        word(&self.arguments, index)
    }

    /// Appends the command as a client sends it.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(format!("*{}\r\n", self.arguments.len()).as_bytes());
        for argument in &self.arguments {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Reads what [`Display`](fmt::Display) wrote. `None` if the quotes are not balanced or nothing is there.
    pub fn parse(line: &str) -> Option<Self> {
        let (is_glued, line) = line.strip_prefix('+').map_or((false, line), |line| (true, line));
        let (connection, line) = match line.split_once(':') {
            Some((number, rest)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
                (number.parse().ok()?, rest)
            }
            _ => (0, line),
        };
        Some(Self { connection, is_glued, arguments: parse_arguments(line)? })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_glued {
            f.write_str("+")?;
        }
        if self.connection > 0 {
            write!(f, "{}:", self.connection)?;
        }
        for (index, argument) in self.arguments.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            // A colon in the first word would read as a connection.
            if !argument.is_empty()
                && argument.iter().all(|byte| is_plain(*byte))
                && (index > 0 || !argument.contains(&b':'))
            {
                f.write_str(&String::from_utf8_lossy(argument))?;
            } else {
                let mut quoted = String::new();
                write_quoted(argument, &mut quoted);
                f.write_str(&quoted)?;
            }
        }
        Ok(())
    }
}

/// An argument in upper case, for finding commands and options in any spelling. Empty if there is none.
pub fn word(arguments: &[Vec<u8>], index: usize) -> String {
    arguments.get(index).map(|argument| String::from_utf8_lossy(argument).to_ascii_uppercase()).unwrap_or_default()
}

/// Appends `bytes` between quotes, with escapes for everything that is not printable ASCII.
pub fn write_quoted(bytes: &[u8], out: &mut String) {
    out.push('"');
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' => out.push(char::from(*byte)),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out.push('"');
}

/// Reads what [`write_quoted`] wrote; the whole text must be one quoted string.
pub fn parse_quoted(text: &str) -> Option<Vec<u8>> {
    let (bytes, rest) = take_quoted(text.strip_prefix('"')?)?;
    rest.is_empty().then_some(bytes)
}

/// Reads the arguments of a line.
pub fn parse_arguments(line: &str) -> Option<Vec<Vec<u8>>> {
    let mut arguments = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (argument, after) = take_quoted(quoted)?;
            arguments.push(argument);
            rest = after;
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            arguments.push(rest[..end].into());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    (!arguments.is_empty()).then_some(arguments)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

/// The bytes up to the closing quote, and what follows it.
fn take_quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((bytes, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                'x' => {
                    let digits = text.get(index + 2..index + 4)?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                    characters.next();
                    characters.next();
                }
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            },
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn a_line_reads_back_as_the_same_command() {
        let all: Vec<u8> = (0..=255).collect();
        let arguments = vec![b"1:x".to_vec(), Vec::new(), all, b"a b".to_vec(), b"plain".to_vec()];
        for (connection, is_glued) in [(0, false), (2, true)] {
            let command = Command { connection, is_glued, arguments: arguments.clone() };
            assert_eq!(Command::parse(&command.to_string()), Some(command));
        }
    }

    #[test]
    fn unbalanced_quotes_are_no_command() {
        assert_eq!(Command::parse("GET \"a"), None);
        assert_eq!(Command::parse(""), None);
    }
}
