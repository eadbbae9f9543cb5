//! Errors of commands, in the words that clients match.

use std::borrow::Cow;
use std::fmt;

use crate::error::EngineError;

/// Most bytes of the command name, and of its arguments together, that an error about an unknown command repeats.
const QUOTED_BYTES_MAX: usize = 128;

/// Why a command was refused; displays as the whole text of the error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// The key holds another kind of value.
    WrongType,
    /// The options make no sense.
    Syntax,
    NotAnInteger,
    NotAFloat,
    NoSuchKey,
    IndexOutOfRange,
    OutOfMemory,
    /// Anything else: the whole text, with its code.
    Text(Cow<'static, str>),
    /// The same where it repeats what the client sent, which may be any bytes.
    Bytes(Box<[u8]>),
    /// Somebody holds what the command needs; nothing happened, and it is to be tried again. Never seen by clients.
    Contended,
}

impl CommandError {
    /// `text` is the whole reply, with its code.
    pub(crate) const fn text(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    #[cold]
    pub(crate) fn unknown(args: &[&[u8]]) -> Self {
        let name = args.first().copied().unwrap_or_default();
        let mut quoted = Vec::new();
        for arg in args.iter().skip(1) {
            if quoted.len() >= QUOTED_BYTES_MAX {
                break;
            }
            let room = QUOTED_BYTES_MAX - quoted.len();
            quoted.push(b'\'');
            quoted.extend_from_slice(as_c_string(head(arg, room)));
            quoted.extend_from_slice(b"' ");
        }
        let name = as_c_string(head(name, QUOTED_BYTES_MAX));
        Self::Bytes([b"ERR unknown command '", name, b"', with args beginning with: ", &quoted].concat().into())
    }

    /// `before`, what the client sent, and `after`.
    #[cold]
    pub(crate) fn quoting(before: &str, quoted: &[u8], after: &str) -> Self {
        Self::Bytes([before.as_bytes(), as_c_string(quoted), after.as_bytes()].concat().into())
    }

    /// A subcommand that does not exist with so many arguments.
    #[cold]
    pub(crate) fn misused_subcommand(container: &str, name: &[u8]) -> Self {
        let after = format!("'. Try {} HELP.", container.to_ascii_uppercase());
        let name = head(name, QUOTED_BYTES_MAX);
        Self::quoting("ERR unknown subcommand or wrong number of arguments for '", name, &after)
    }

    #[cold]
    pub(crate) fn unknown_subcommand(container: &str, name: &[u8]) -> Self {
        let after = format!("'. Try {} HELP.", container.to_ascii_uppercase());
        Self::quoting("ERR unknown subcommand '", head(name, QUOTED_BYTES_MAX), &after)
    }

    /// The error reply.
    pub(crate) fn to_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Text(text) => Cow::Borrowed(text.as_bytes()),
            _ => Cow::Owned(self.to_string().into_bytes()),
        }
    }

    /// The journal cannot keep a write, which was not carried out. In the words of Redis, whose journal is its append-only file.
    #[cold]
    pub(crate) fn not_writable(reason: &str) -> Self {
        Self::Text(format!("MISCONF Errors writing to the AOF file: {reason}").into())
    }

    #[cold]
    pub(crate) fn wrong_arity(full_name: &str) -> Self {
        Self::Text(format!("ERR wrong number of arguments for '{full_name}' command").into())
    }

    #[cold]
    pub(crate) fn invalid_expire(name: &str) -> Self {
        Self::Text(format!("ERR invalid expire time in '{name}' command").into())
    }
}

fn head(bytes: &[u8], bytes_max: usize) -> &[u8] {
    bytes.get(..bytes_max).unwrap_or(bytes)
}

/// Redis formats errors with the functions of C, to which a zero is the end.
fn as_c_string(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::Syntax => "ERR syntax error",
            Self::NotAnInteger => "ERR value is not an integer or out of range",
            Self::NotAFloat => "ERR value is not a valid float",
            Self::NoSuchKey => "ERR no such key",
            Self::IndexOutOfRange => "ERR index out of range",
            Self::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            Self::Text(text) => text,
            Self::Bytes(bytes) => return f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Contended => "TRYAGAIN the keys are held by another command",
        })
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::OutOfMemory => Self::OutOfMemory,
            EngineError::WrongType => Self::WrongType,
            EngineError::KeyTooLong => Self::text("ERR key exceeds the maximum allowed size"),
            EngineError::ScoreNotANumber => Self::NotAFloat,
            EngineError::NotWritable => Self::text("MISCONF Errors writing to the AOF file"),
        }
    }
}

impl From<crate::lock::Contended> for CommandError {
    fn from(_: crate::lock::Contended) -> Self {
        Self::Contended
    }
}
