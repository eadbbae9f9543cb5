//! What a redis-server answered, kept as text and replayed.
//!
//! # Format
//! A file is a list of lines:
//! - `> SET k v` sends a command as redis-cli would take it and reads one reply; the lines `< …` after it are that reply, as
//!   [`Reply`] writes it;
//! - `>> BLPOP k 0` sends a command without reading; `@receive` reads the next reply or push, `@blocked 1` waits until that many
//!   connections wait for data;
//! - `@raw "PING\r\n"` sends bytes as they are and reads one reply, `@closed` finds the connection closed by the server;
//! - `@connection 2` goes on on another connection, `@resp3` switches the current one to RESP3;
//! - `= …` after a reply are the lines of what the engine answers instead, on purpose, for a reason in `docs/engine-compatibility.md`;
//! - `# …` is a comment.
//!
//! The server is empty at the start. Replies that Redis leaves open are compared by the rules of [`crate::compare`].
//!
//! # Recording
//! [`record`] replaces the replies in a text by those of a server, and keeps everything else as it is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::thread;
use std::time::Duration;

use crate::command::{Command, parse_quoted};
use crate::compare::{Comparison, essence};
use crate::endpoint::{Client, Endpoint};
use crate::reply::Reply;
use crate::sequence::{self, Outcome};

/// Replays a transcript and returns every difference, ready to print; empty if there is none.
///
/// # Errors
/// The text is no transcript, or the server cannot be reached at all.
pub fn replay(endpoint: &mut dyn Endpoint, text: &str) -> io::Result<String> {
    let mut player = Player::new(endpoint)?;
    let mut comparison = Comparison::default();
    let mut differences = String::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(found) = player.line(line).unwrap_or_else(|error| Some(Answer::Failed(error))) else {
            continue;
        };
        let (expected, own) = recorded(&lines[index + 1..]);
        let wanted = if own.is_empty() { &expected } else { &own };
        if !is_right(&mut comparison, player.command(line), wanted, &found)? {
            let _ = writeln!(differences, "line {}: {line}\n  wanted:\n{wanted}\n  the engine:\n{found}", index + 1);
        }
        if matches!(found, Answer::Failed(_)) {
            break;
        }
    }
    Ok(differences)
}

/// The reply that follows a command, and what the engine answers instead, if that is another.
fn recorded(lines: &[&str]) -> (String, String) {
    let mut lines = lines.iter().peekable();
    let mut marked = |mark| {
        let mut text = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with(mark)) {
            text.extend(line.strip_prefix(mark));
        }
        text.join("\n")
    };
    (marked("< "), marked("= "))
}

/// The text with the replies of this server.
///
/// # Errors
/// The text is no transcript, or the server cannot be reached or does not answer.
pub fn record(endpoint: &mut dyn Endpoint, text: &str) -> io::Result<String> {
    let mut player = Player::new(endpoint)?;
    let mut recorded = String::new();
    for line in text.lines().filter(|line| !line.starts_with("< ")) {
        let _ = writeln!(recorded, "{line}");
        let answer = player.line(line).map_err(|error| io::Error::other(format!("{line}: {error}")))?;
        let answer = answer.map(|answer| match answer {
            Answer::Reply(reply) => Answer::Reply(essence(&player.command(line).arguments, reply)),
            other => other,
        });
        for line in answer.map(|answer| answer.to_string()).unwrap_or_default().lines() {
            let _ = writeln!(recorded, "< {line}");
        }
    }
    Ok(recorded)
}

enum Answer {
    Reply(Reply),
    Closed,
    Failed(io::Error),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(reply) => reply.fmt(f),
            Self::Closed => f.write_str(CLOSED),
            Self::Failed(error) => write!(f, "({error})"),
        }
    }
}

const CLOSED: &str = "(closed)";

fn is_right(comparison: &mut Comparison, command: Command, expected: &str, found: &Answer) -> io::Result<bool> {
    let Answer::Reply(found) = found else {
        return Ok(expected == CLOSED && matches!(found, Answer::Closed));
    };
    if expected.is_empty() {
        return Err(io::Error::other(format!("no reply is recorded for `{command}`")));
    }
    if expected == CLOSED {
        return Ok(false);
    }
    let outcome = |reply: Reply| Outcome { replies: vec![reply], ..Outcome::default() };
    let expected = Reply::parse(&mut expected.lines())?;
    Ok(comparison.agrees(&command, &outcome(expected), &outcome(found.clone())))
}

struct Player<'a> {
    endpoint: &'a mut dyn Endpoint,
    clients: BTreeMap<u8, Client>,
    connection: u8,
}

impl<'a> Player<'a> {
    fn new(endpoint: &'a mut dyn Endpoint) -> io::Result<Self> {
        sequence::reset(endpoint)?;
        Ok(Self { endpoint, clients: BTreeMap::new(), connection: 1 })
    }

    /// The command of a line, on the connection that is current after it.
    fn command(&self, line: &str) -> Command {
        let command = line.strip_prefix("> ").and_then(Command::parse).unwrap_or_default();
        Command { connection: self.connection, ..command }
    }

    /// Does what a line says; the answer if it asks for one.
    fn line(&mut self, line: &str) -> io::Result<Option<Answer>> {
        let wrong = || io::Error::other(format!("no line of a transcript: {line}"));
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" | "<" | "=" => Ok(None),
            ">" => {
                let command = Command::parse(rest).ok_or_else(wrong)?;
                Ok(Some(Answer::Reply(self.client()?.call(&command)?)))
            }
            ">>" => {
                let command = Command::parse(rest).ok_or_else(wrong)?;
                self.client()?.send_commands(&[command])?;
                Ok(None)
            }
            "@raw" => {
                self.client()?.send(&parse_quoted(rest).ok_or_else(wrong)?)?;
                self.client()?.receive().map(|reply| Some(Answer::Reply(reply)))
            }
            "@receive" => self.client()?.receive().map(|reply| Some(Answer::Reply(reply))),
            "@closed" => match self.client()?.receive() {
                Ok(reply) => Ok(Some(Answer::Reply(reply))),
                Err(error) if is_closed(&error) => Ok(Some(Answer::Closed)),
                Err(error) => Err(error),
            },
            "@connection" => {
                self.connection = rest.parse().map_err(|_| wrong())?;
                Ok(None)
            }
            "@resp3" => self.client()?.call(&Command::words("HELLO 3")).map(|_| None),
            "@blocked" => self.wait_for_blocked(rest.parse().map_err(|_| wrong())?).map(|()| None),
            _ => Err(wrong()),
        }
    }

    fn client(&mut self) -> io::Result<&mut Client> {
        if !self.clients.contains_key(&self.connection) {
            self.clients.insert(self.connection, Client::connect(self.endpoint)?);
        }
        self.clients
            .get_mut(&self.connection)
            .ok_or_else(|| io::Error::other("a connection that was just opened is gone"))
    }

    fn wait_for_blocked(&mut self, count: usize) -> io::Result<()> {
        /// Looks that often before giving up, with a pause between them: five seconds.
        const LOOKS_MAX: usize = 1_000;
        const PAUSE: Duration = Duration::from_millis(5);
        let mut observer = Client::connect(self.endpoint)?;
        let wanted = format!("blocked_clients:{count}\r\n");
        for _ in 0..LOOKS_MAX {
            let info = observer.call(&Command::words("INFO clients"))?;
            if String::from_utf8_lossy(info.bytes().unwrap_or_default()).contains(&wanted) {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        Err(io::Error::other(format!("INFO never showed {count} blocked clients")))
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}
