//! Resident memory per key, allocator and tables included.

use std::thread::sleep;
use std::time::Duration;

use super::servers::Server;
use super::{Options, load};
use crate::Outcome;

const VALUE_BYTES: [usize; 3] = [16, 64, 256];
/// Far enough that nothing expires.
const TTL_S: &str = "1000000";
/// Time for a server to finish what it does a little at a time, such as moving to a larger table.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) fn run(options: &Options<'_>) -> Outcome {
    if !options.includes("memory", "") {
        return Ok(());
    }
    println!("\n| memory per key `key:%012d` | keys | redis: bytes | engine: bytes | engine/redis |");
    println!("|---|---:|---:|---:|---:|");
    for keys in [options.keys, options.keys_max] {
        for (ttl, with_ttl) in [(&[][..], ""), (&["EX", TTL_S], ", with ttl")] {
            for value_bytes in VALUE_BYTES {
                eprintln!("memory: {keys} keys, values of {value_bytes} bytes{with_ttl}");
                let redis = bytes_per_key(&Server::redis()?, keys, value_bytes, ttl)?;
                let engine = bytes_per_key(&Server::engine(options.program, 1)?, keys, value_bytes, ttl)?;
                println!(
                    "| values of {value_bytes} bytes{with_ttl} | {keys} | {redis:.0} | {engine:.0} | {:.2} |",
                    engine / redis
                );
            }
        }
    }
    Ok(())
}

fn bytes_per_key(server: &Server, keys: usize, value_bytes: usize, ttl: &[&str]) -> Outcome<f64> {
    let before = server.resident_bytes()?;
    load::fill(server, keys, value_bytes, ttl)?;
    sleep(SETTLE);
    Ok(server.resident_bytes()?.saturating_sub(before) as f64 / keys as f64)
}
