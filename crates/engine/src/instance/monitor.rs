//! MONITOR: every command that is carried out, as a line to each connection that asked for them.
//!
//! # Guarantees
//! Passwords do not show. Commands of one connection arrive in the order in which they were carried out.
//!
//! A script that has to begin again, to hold more keys, shows once, and so do the commands that it calls.
//!
//! # How it works
//! While nobody listens, a command costs one load. A line is written once and copied into the mailbox of each listener.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::Session;
use super::mailbox::Peer;
use crate::command::{Command, Flags};

/// Who listens.
#[derive(Default)]
pub(crate) struct Monitors {
    is_active: AtomicBool,
    peers: RwLock<Vec<Arc<Peer>>>,
}

impl Monitors {
    pub(crate) fn join(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.write();
        peers.push(peer.clone());
        self.is_active.store(true, Ordering::Release);
    }

    pub(crate) fn leave(&self, peer: &Peer) {
        let mut peers = self.peers.write();
        peers.retain(|other| other.id != peer.id);
        self.is_active.store(!peers.is_empty(), Ordering::Release);
    }

    /// Tells of a command that was carried out. Those of administrators stay secret.
    #[inline]
    pub(crate) fn tell(&self, session: &mut Session, command: &Command, args: &[&[u8]], now_us: u64) {
        if self.is_active.load(Ordering::Acquire) && !command.row.flags.has(Flags::SKIP_MONITOR.and(Flags::ADMIN)) {
            self.write(session, args, now_us);
        }
    }

    /// Tells of a script before it runs, since what it calls is told on the way.
    #[inline]
    pub(crate) fn tell_script(&self, session: &mut Session, command: &Command, args: &[&[u8]], now_us: u64) {
        if self.is_active.load(Ordering::Acquire) && command.row.name.starts_with("eval") {
            self.write(session, args, now_us);
        }
    }

    #[cold]
    fn write(&self, session: &mut Session, args: &[&[u8]], now_us: u64) {
        if !session.told.is_next_new() {
            return;
        }
        let line = line(session, args, now_us);
        for peer in self.peers.read().iter() {
            peer.send(|mailbox| mailbox.extend_from_slice(&line));
        }
    }
}

/// Lines about the command under way, which may be a script that has to begin again: those that it has told already are not told again.
#[derive(Default)]
pub(crate) struct Told {
    /// Of this attempt, told or not.
    lines: usize,
    /// What an earlier attempt has told.
    known: usize,
}

impl Told {
    /// The command begins again.
    pub(crate) fn begin_again(&mut self) {
        self.known = self.known.max(std::mem::take(&mut self.lines));
    }

    fn is_next_new(&mut self) -> bool {
        self.lines += 1;
        self.lines > self.known
    }
}

/// Whether the argument at `at` is a password, which neither MONITOR nor SLOWLOG show.
pub(crate) fn is_secret(args: &[&[u8]], at: usize) -> bool {
    let Some(name) = args.first() else { return false };
    if is(name, "AUTH") {
        return at > 0;
    }
    if !is(name, "HELLO") {
        return false;
    }
    let mut option = 2;
    while let Some(word) = args.get(option) {
        if is(word, "AUTH") {
            if (option + 1..=option + 2).contains(&at) {
                return true;
            }
            option += 3;
        } else {
            option += if is(word, "SETNAME") { 2 } else { 1 };
        }
    }
    false
}

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

fn line(session: &Session, args: &[&[u8]], now_us: u64) -> Vec<u8> {
    let facts = &session.peer.facts;
    let mut line = Vec::with_capacity(64 + args.iter().map(|arg| arg.len() + 4).sum::<usize>());
    let source = if session.is_in_script {
        "lua".to_owned()
    } else if facts.is_unix {
        format!("unix:{}", facts.peer_address.trim_end_matches(":0"))
    } else {
        facts.peer_address.clone()
    };
    let (seconds, micros) = (now_us / 1_000_000, now_us % 1_000_000);
    // Writing into memory does not fail.
    let _ = write!(line, "+{seconds}.{micros:06} [{} {source}]", session.database);
    for (at, arg) in args.iter().enumerate() {
        line.extend_from_slice(b" \"");
        if is_secret(args, at) {
            line.extend_from_slice(b"(redacted)");
        } else {
            quote(arg, &mut line);
        }
        line.push(b'"');
    }
    line.extend_from_slice(b"\r\n");
    line
}

fn quote(bytes: &[u8], line: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x07 => line.extend_from_slice(b"\\a"),
            0x08 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(byte),
            _ => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_secret, quote};

    #[test]
    fn bytes_are_quoted_as_redis_cli_reads_them() {
        let mut line = Vec::new();
        quote(b"a\"\\\n\r\t\x07\x08\x00\x7f\xff ", &mut line);
        assert_eq!(line, br#"a\"\\\n\r\t\a\b\x00\x7f\xff "#);
    }

    #[test]
    fn passwords_do_not_show() {
        let secrets = |text: &str| {
            let args: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            (0..args.len()).filter(|at| is_secret(&args, *at)).collect::<Vec<_>>()
        };
        assert_eq!(secrets("auth x"), [1]);
        assert_eq!(secrets("AUTH default x"), [1, 2]);
        assert_eq!(secrets("HELLO 3 AUTH default x SETNAME auth"), [3, 4]);
        assert_eq!(secrets("HELLO 3 SETNAME auth AUTH a b"), [5, 6]);
        assert_eq!(secrets("SET auth x"), [] as [usize; 0]);
    }
}
