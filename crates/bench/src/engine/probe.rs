//! A client that asks at a fixed rate, whether or not it was answered, and tells how long it waited.
//!
//! # Guarantees
//! A wait counts from the moment when the request was due, not from when it could be sent: while a server pauses, every request that falls
//! into the pause counts with what was left of it. A client that waits for each reply before it asks again would see one long wait in its
//! place, which is known as coordinated omission.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::servers::Server;
use crate::Outcome;

/// Time from one request to the next.
const PERIOD: Duration = Duration::from_millis(1);
/// Keys that are asked for in turn, so that every part of the keyspace is.
pub(super) const KEYS: usize = 1_000;
/// What each of them holds, as a reply.
const VALUE: &[u8] = b"$1\r\nx\r\n";
/// What a key that is not there gets.
const NOTHING: &[u8] = b"$-1\r\n";
/// A reply that takes longer is none.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that is asking.
pub(super) struct Probe {
    is_over: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<()>>,
    receiver: JoinHandle<io::Result<Vec<Duration>>>,
}

/// How long it waited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waits {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) max: Duration,
}

impl Probe {
    /// Writes the keys, and begins to ask for them.
    pub(super) fn start(server: &Server) -> Outcome<Self> {
        for number in 0..KEYS {
            server.ask::<()>(&["SET", &key(number), "x"])?;
        }
        Self::ask(server, VALUE)
    }

    /// Asks for keys that are not there: for what removes all keys.
    pub(super) fn of_nothing(server: &Server) -> Outcome<Self> {
        for number in 0..KEYS {
            server.ask::<u64>(&["DEL", &key(number)])?;
        }
        Self::ask(server, NOTHING)
    }

    fn ask(server: &Server, reply: &'static [u8]) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        let replies = stream.try_clone()?;
        let (is_over, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(usize::MAX)));
        let start = Instant::now();
        let sender = {
            let (is_over, total) = (Arc::clone(&is_over), Arc::clone(&total));
            thread::spawn(move || send(stream, start, &is_over, &total))
        };
        let receiver = thread::spawn(move || receive(replies, reply, start, &total));
        Ok(Self { is_over, sender, receiver })
    }

    /// Ends it, and returns what it saw.
    pub(super) fn finish(self) -> Outcome<Waits> {
        self.is_over.store(true, Ordering::Relaxed);
        self.sender.join().map_err(|_| "the probe's sender panicked")??;
        let waits = self.receiver.join().map_err(|_| "the probe's receiver panicked")??;
        Waits::of(waits).ok_or_else(|| "the probe saw nothing".into())
    }
}

impl Waits {
    fn of(mut waits: Vec<Duration>) -> Option<Self> {
        waits.sort_unstable();
        // The nearest rank: the smallest wait that this share of all does not exceed.
        let at = |share: f64| {
            let rank = (waits.len() as f64 * share).ceil() as usize;
            waits.get(rank.max(1) - 1).copied()
        };
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, p999: at(0.999)?, max: at(1.0)? })
    }
}

fn key(number: usize) -> String {
    format!("probe:{number:03}")
}

fn send(mut stream: TcpStream, start: Instant, is_over: &AtomicBool, total: &AtomicUsize) -> io::Result<()> {
    let mut due = start;
    for number in 0.. {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += PERIOD;
        let is_last = is_over.load(Ordering::Relaxed);
        if is_last {
            // Before the request itself, so that whoever reads its reply knows that it is the last one.
            total.store(number + 1, Ordering::Release);
        }
        write!(stream, "*2\r\n$3\r\nGET\r\n$9\r\n{}\r\n", key(number % KEYS))?;
        if is_last {
            break;
        }
    }
    Ok(())
}

fn receive(mut replies: TcpStream, expected: &[u8], start: Instant, total: &AtomicUsize) -> io::Result<Vec<Duration>> {
    let (mut waits, mut due, mut reply) = (Vec::new(), start, vec![0; expected.len()]);
    while waits.len() < total.load(Ordering::Acquire) {
        replies.read_exact(&mut reply)?;
        if reply != expected {
            return Err(io::Error::other(format!("the probe is answered {:?}", String::from_utf8_lossy(&reply))));
        }
        waits.push(due.elapsed());
        due += PERIOD;
    }
    Ok(waits)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Waits;

    #[test]
    fn shares_are_nearest_ranks() {
        let ms = Duration::from_millis;
        let waits = Waits::of((1..=1_000).rev().map(ms).collect());
        assert_eq!(waits, Some(Waits { p50: ms(500), p99: ms(990), p999: ms(999), max: ms(1_000) }));
        assert_eq!(Waits::of(vec![ms(7)]), Some(Waits { p50: ms(7), p99: ms(7), p999: ms(7), max: ms(7) }));
        assert_eq!(Waits::of(Vec::new()), None);
    }
}
