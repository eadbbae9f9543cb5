//! Resident memory per key, allocator and tables included.

use std::io::{BufWriter, Read as _, Write as _};
use std::net::TcpStream;

use super::servers::Server;
use crate::Outcome;

const KEYS: usize = 1_000_000;
const VALUE_BYTES: [usize; 3] = [16, 64, 256];
/// Far enough that nothing expires.
const TTL_S: usize = 1_000_000;

pub(super) fn run() -> Outcome {
    println!("\n| memory per key, {KEYS} keys `key:%012d` | redis: bytes | engine: bytes | engine/redis |");
    println!("|---|---:|---:|---:|");
    for with_ttl in [false, true] {
        for value_bytes in VALUE_BYTES {
            let redis = bytes_per_key(&Server::redis()?, value_bytes, with_ttl)?;
            let engine = bytes_per_key(&Server::engine(1)?, value_bytes, with_ttl)?;
            let ttl = if with_ttl { ", with ttl" } else { "" };
            println!("| values of {value_bytes} bytes{ttl} | {redis:.0} | {engine:.0} | {:.2} |", engine / redis);
        }
    }
    Ok(())
}

fn bytes_per_key(server: &Server, value_bytes: usize, with_ttl: bool) -> Outcome<f64> {
    let before = server.resident_bytes()?;
    let connection = TcpStream::connect(("127.0.0.1", server.port()))?;
    let mut replies = connection.try_clone()?;
    let reader = std::thread::spawn(move || {
        let expected = KEYS * b"+OK\r\n".len();
        let (mut seen, mut buffer) = (0, vec![0; 1 << 16]);
        while seen < expected {
            match replies.read(&mut buffer)? {
                0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
                read => seen += read,
            }
        }
        Ok(())
    });
    let mut requests = BufWriter::with_capacity(1 << 16, connection);
    let value = "x".repeat(value_bytes);
    for number in 0..KEYS {
        if with_ttl {
            write!(requests, "*5\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${value_bytes}\r\n{value}\r\n")?;
            write!(requests, "$2\r\nEX\r\n${}\r\n{TTL_S}\r\n", TTL_S.to_string().len())?;
        } else {
            write!(requests, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${value_bytes}\r\n{value}\r\n")?;
        }
    }
    requests.flush()?;
    reader.join().map_err(|_| "the reader of replies panicked")??;
    Ok(server.resident_bytes()?.saturating_sub(before) as f64 / KEYS as f64)
}
