//! Many requests of one kind over one connection, as fast as they are answered or at a given rate.

use std::io::{self, BufWriter, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::servers::Server;
use crate::Outcome;

/// Bytes that are written or read at once.
const CHUNK_BYTES: usize = 1 << 16;
/// At a given rate, how often requests are sent: short beside the pauses that are looked for.
const BEAT: Duration = Duration::from_millis(1);

/// Requests that all get the same reply.
pub(super) struct Load {
    pub(super) requests: usize,
    /// As many as possible unless given.
    pub(super) per_second: Option<usize>,
    pub(super) reply: &'static [u8],
}

impl Load {
    /// Sends what `write` writes for each number, and waits for the last reply.
    ///
    /// # Errors
    /// A reply is another one, or the connection is lost.
    pub(super) fn run(
        &self,
        server: &Server,
        mut write: impl FnMut(&mut dyn Write, usize) -> io::Result<()>,
    ) -> Outcome {
        let connection = TcpStream::connect(("127.0.0.1", server.port()))?;
        connection.set_nodelay(true)?;
        let replies = connection.try_clone()?;
        let (requests, reply) = (self.requests, self.reply);
        let reader = thread::spawn(move || expect_replies(replies, requests, reply));
        let mut out = BufWriter::with_capacity(CHUNK_BYTES, connection);
        let per_beat = self.per_second.map_or(usize::MAX, |rate| (rate as f64 * BEAT.as_secs_f64()).ceil() as usize);
        let mut next_beat = Instant::now();
        for number in 0..requests {
            write(&mut out, number)?;
            if (number + 1) % per_beat == 0 {
                out.flush()?;
                next_beat += BEAT;
                thread::sleep(next_beat.saturating_duration_since(Instant::now()));
            }
        }
        out.flush()?;
        reader.join().map_err(|_| "the reader of replies panicked")??;
        Ok(())
    }
}

/// Sets keys `key:%012d`, from the first to the last. `options` are those of `SET`.
pub(super) fn fill(server: &Server, keys: usize, value_bytes: usize, options: &[&str]) -> Outcome {
    set_keys(server, &Load { requests: keys, per_second: None, reply: b"+OK\r\n" }, value_bytes, options)
}

/// The same with values of printable characters that compression does not make smaller, another one for each key.
pub(super) fn fill_varied(server: &Server, keys: usize, value_bytes: usize) -> Outcome {
    let load = Load { requests: keys, per_second: None, reply: b"+OK\r\n" };
    let mut random = SmallRng::seed_from_u64(keys as u64);
    let mut value = vec![0; value_bytes];
    load.run(server, |out, number| {
        value.iter_mut().for_each(|byte| *byte = random.random_range(b' '..=b'~'));
        write!(out, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${value_bytes}\r\n")?;
        out.write_all(&value)?;
        out.write_all(b"\r\n")
    })
}

/// As [`fill`], at the rate of `load`.
pub(super) fn set_keys(server: &Server, load: &Load, value_bytes: usize, options: &[&str]) -> Outcome {
    let value = "x".repeat(value_bytes);
    let words = 3 + options.len();
    let options: String = options.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    load.run(server, |out, number| {
        write!(out, "*{words}\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${value_bytes}\r\n{value}\r\n{options}")
    })
}

fn expect_replies(mut replies: impl Read, requests: usize, reply: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut seen, expected) = (0, requests * reply.len());
    while seen < expected {
        let read = replies.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_as_expected =
            buffer[..read].iter().enumerate().all(|(at, byte)| *byte == reply[(seen + at) % reply.len()]);
        if !is_as_expected {
            let said = String::from_utf8_lossy(&buffer[..read.min(200)]).into_owned();
            return Err(io::Error::other(format!("the server answers {said:?}")));
        }
        seen += read;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::expect_replies;

    #[test]
    fn another_reply_among_many_is_noticed() {
        let replies = b"+OK\r\n+OK\r\n-ERR no\r\n";
        assert!(expect_replies(&replies[..10], 2, b"+OK\r\n").is_ok());
        let error = expect_replies(&replies[..], 3, b"+OK\r\n").unwrap_err();
        assert!(error.to_string().contains("-ERR no"), "{error}");
        assert!(expect_replies(&replies[..8], 2, b"+OK\r\n").is_err());
    }
}
