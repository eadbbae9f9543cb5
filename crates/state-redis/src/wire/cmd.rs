//! Requests, as the bytes that the server reads.
//!
//! # How it works
//! A command is rendered into one buffer while it is put together: no list of arguments in between, and no second rendering when
//! it is sent. What all calls of a script begin with is rendered once, see [`Cmd::beginning_with`].

use std::fmt;

use itoa::{Buffer, Integer};

/// Room for a command, its key and a small value: nearly all of them are rendered without growing.
const BYTES_USUAL: usize = 256;
const LINE_END: &[u8] = b"\r\n";
/// The longest line that stands before the arguments: how many there are.
const HEADER_BYTES_MAX: usize = 1 + 20 + LINE_END.len();

/// A command with its arguments.
#[derive(Clone, PartialEq)]
pub(crate) struct Cmd {
    /// How many arguments there are, the name among them.
    count: usize,
    /// Each of them behind its length.
    body: Vec<u8>,
}

/// Commands that leave in one go. One reply each.
#[derive(Default)]
pub(crate) struct Pipeline {
    count: usize,
    bytes: Vec<u8>,
}

impl Cmd {
    pub(crate) fn new(name: &str) -> Self {
        let mut cmd = Self { count: 0, body: Vec::with_capacity(BYTES_USUAL) };
        cmd.arg(name);
        cmd
    }

    /// A command that begins as this one does, with room for so many more bytes.
    pub(crate) fn beginning_with(beginning: &Self, bytes: usize) -> Self {
        let mut body = Vec::with_capacity(beginning.body.len() + bytes);
        body.extend_from_slice(&beginning.body);
        Self { count: beginning.count, body }
    }

    /// Adds an argument.
    pub(crate) fn arg(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.parts([argument])
    }

    /// Adds an argument that is a number.
    pub(crate) fn number(&mut self, number: impl Integer) -> &mut Self {
        self.arg(Buffer::new().format(number))
    }

    /// Adds one argument that consists of these parts.
    pub(crate) fn parts<const N: usize>(&mut self, parts: [impl AsRef<[u8]>; N]) -> &mut Self {
        let bytes = parts.iter().map(|part| part.as_ref().len()).sum();
        push_size(&mut self.body, b'$', bytes);
        self.body.reserve(bytes + LINE_END.len());
        for part in &parts {
            self.body.extend_from_slice(part.as_ref());
        }
        self.body.extend_from_slice(LINE_END);
        self.count += 1;
        self
    }

    /// The arguments in order, the name first.
    pub(crate) fn args(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.body[..];
        std::iter::from_fn(move || {
            let size_end = rest.iter().position(|byte| *byte == b'\r')?;
            let bytes: usize = std::str::from_utf8(rest.get(1..size_end)?).ok()?.parse().ok()?;
            let (argument, after) = rest.get(size_end + LINE_END.len()..)?.split_at_checked(bytes)?;
            rest = after.get(LINE_END.len()..)?;
            Some(argument)
        })
    }

    /// At least as much as [`write`](Self::write) appends.
    pub(super) fn bytes_max(&self) -> usize {
        HEADER_BYTES_MAX + self.body.len()
    }

    /// Appends what the server reads.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        push_size(out, b'*', self.count);
        out.extend_from_slice(&self.body);
    }
}

impl Pipeline {
    pub(crate) fn add(&mut self, cmd: &Cmd) -> &mut Self {
        cmd.write(&mut self.bytes);
        self.count += 1;
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

/// Without its arguments: a login has the password among them.
impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = String::from_utf8_lossy(self.args().next().unwrap_or_default());
        f.debug_struct("Cmd").field("name", &name).field("count", &self.count).field("bytes", &self.body.len()).finish()
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("count", &self.count).field("bytes", &self.bytes.len()).finish()
    }
}

impl<'a> FromIterator<&'a Cmd> for Pipeline {
    fn from_iter<I: IntoIterator<Item = &'a Cmd>>(commands: I) -> Self {
        let mut pipeline = Self::default();
        for cmd in commands {
            pipeline.add(cmd);
        }
        pipeline
    }
}

/// A line with a marker and a number.
fn push_size(out: &mut Vec<u8>, marker: u8, size: usize) {
    let mut digits = Buffer::new();
    let digits = digits.format(size).as_bytes();
    out.reserve(1 + digits.len() + LINE_END.len());
    out.push(marker);
    out.extend_from_slice(digits);
    out.extend_from_slice(LINE_END);
}

#[cfg(test)]
mod tests {
    use super::{Cmd, Pipeline};

    fn bytes(cmd: &Cmd) -> String {
        let mut bytes = Vec::new();
        cmd.write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_command_is_an_array_of_strings_with_their_lengths() {
        let mut cmd = Cmd::new("SET");
        cmd.parts(["acteon:", "key"]).arg("").number(-12);
        assert_eq!(bytes(&cmd), "*4\r\n$3\r\nSET\r\n$10\r\nacteon:key\r\n$0\r\n\r\n$3\r\n-12\r\n");
        assert!(cmd.args().eq([&b"SET"[..], b"acteon:key", b"", b"-12"]));
    }

    #[test]
    fn what_is_shown_of_a_command_are_its_name_and_its_size() {
        let mut auth = Cmd::new("AUTH");
        auth.arg("x");
        let pipeline: Pipeline = [&auth].into_iter().collect();
        assert_eq!(format!("{auth:?}"), "Cmd { name: \"AUTH\", count: 2, bytes: 17 }");
        assert_eq!(format!("{pipeline:?}"), "Pipeline { count: 1, bytes: 21 }");
        assert!(auth.bytes_max() >= bytes(&auth).len());
    }

    #[test]
    fn arguments_may_hold_line_ends() {
        let mut cmd = Cmd::new("GET");
        cmd.arg("a\r\n$1\r\nb");
        assert!(cmd.args().eq([&b"GET"[..], b"a\r\n$1\r\nb"]));
    }

    #[test]
    fn a_beginning_is_shared_and_a_pipeline_is_one_command_after_the_other() {
        let beginning = Cmd::new("EVALSHA");
        let mut first = Cmd::beginning_with(&beginning, 0);
        first.arg("a");
        let pipeline: Pipeline = [&beginning, &first].into_iter().collect();
        let mut out = Vec::new();
        pipeline.write(&mut out);
        assert_eq!((pipeline.len(), out), (2, (bytes(&beginning) + &bytes(&first)).into_bytes()));
    }
}
