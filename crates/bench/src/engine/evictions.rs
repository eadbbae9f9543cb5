//! How well eviction chooses: hits of a cache that holds a part of what is asked for, beside redis-server.
//!
//! Both servers get `maxmemory` for the same part of what all keys take in them, each by its own figures, so that about as many keys fit.
//! The trace is the same for both, at the same rate, because the clock that tells uses apart ticks once in a second. A key that is
//! missed is set. The first half of the trace fills the cache, the second one counts.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis::Connection;

use super::servers::Server;
use super::{Options, load};
use crate::Outcome;

const POLICIES: [&str; 3] = ["allkeys-lru", "allkeys-lfu", "allkeys-random"];
/// Different keys that are asked for again and again.
const KEYS: usize = 200_000;
/// The part of them that fits.
const FITTING_PERCENT: u64 = 20;
const VALUE_BYTES: usize = 200;
const REQUESTS: usize = 500_000;
const REQUESTS_PER_SECOND: f64 = 25_000.0;
/// Requests that are sent together.
const BATCH: usize = 100;
/// How long a scan goes on, and how long it pauses, in requests.
const SCAN_REQUESTS: usize = 8_000;
const SEED: u64 = 42;

/// Which keys are asked for.
#[derive(Clone, Copy, PartialEq)]
enum Trace {
    /// The n-th key about n times less often than the first.
    Zipf,
    /// The same, and by turns a scan over keys that nobody asks for again.
    Scanned,
}

pub(super) fn run(options: &Options<'_>) -> Outcome {
    if !options.includes("evictions", "") {
        return Ok(());
    }
    let (keys, requests) = (options.scaled(KEYS), options.scaled(REQUESTS));
    println!(
        "\n| hits, with room for {FITTING_PERCENT} % of {keys} keys | redis | engine | redis keeps | engine keeps |"
    );
    println!("|---|---:|---:|---:|---:|");
    for policy in POLICIES {
        for (trace, name) in [(Trace::Zipf, "zipf"), (Trace::Scanned, "zipf, and scans")] {
            eprintln!("evictions: {policy}, {name}");
            let redis = measure(&Server::redis()?, policy, trace, keys, requests)?;
            let engine = measure(&Server::engine(options.program, 1)?, policy, trace, keys, requests)?;
            println!(
                "| {policy}, {name} | {:.1} % | {:.1} % | {} | {} |",
                redis.hits_percent, engine.hits_percent, redis.keys, engine.keys
            );
        }
    }
    Ok(())
}

struct Measured {
    hits_percent: f64,
    /// Keys at the end.
    keys: usize,
}

fn measure(server: &Server, policy: &str, trace: Trace, keys: usize, requests: usize) -> Outcome<Measured> {
    let used = |server: &Server| -> Outcome<u64> {
        let info: String = server.ask(&["INFO", "memory"])?;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("INFO has no used_memory")?;
        Ok(line.trim().parse()?)
    };
    let empty = used(server)?;
    load::fill(server, keys, VALUE_BYTES, &[])?;
    let bound = empty + (used(server)? - empty) * FITTING_PERCENT / 100;
    for command in [
        &["FLUSHALL"][..],
        &["CONFIG", "SET", "maxmemory-policy", policy],
        &["CONFIG", "SET", "maxmemory", &bound.to_string()],
    ] {
        server.ask::<String>(command)?;
    }
    let mut connection = redis::Client::open(("127.0.0.1", server.port()))?.get_connection()?;
    let hits = follow(&mut connection, &asked(trace, keys, requests))?;
    let keys = server.ask(&["DBSIZE"])?;
    Ok(Measured { hits_percent: hits as f64 * 100.0 / (requests / 2) as f64, keys })
}

/// The numbers of the keys that are asked for.
fn asked(trace: Trace, keys: usize, requests: usize) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(SEED);
    let request = |number: usize| {
        if trace == Trace::Scanned && (number / SCAN_REQUESTS) % 2 == 1 {
            return keys + number;
        }
        // Zipf's law with exponent 1, but for the grain of whole numbers.
        ((keys as f64).powf(random.random::<f64>()) as usize).min(keys) - 1
    };
    (0..requests).map(request).collect()
}

/// Asks for the keys, and sets those that are missed. Returns the hits in the second half.
fn follow(connection: &mut Connection, asked: &[usize]) -> Outcome<usize> {
    let value = "x".repeat(VALUE_BYTES);
    let (begin, mut hits) = (Instant::now(), 0);
    for (batch, numbers) in asked.chunks(BATCH).enumerate() {
        let names: Vec<String> = numbers.iter().map(|number| format!("key:{number:012}")).collect();
        let mut reads = redis::pipe();
        names.iter().for_each(|name| _ = reads.get(name));
        let found: Vec<Option<String>> = reads.query(connection)?;
        if batch * BATCH >= asked.len() / 2 {
            hits += found.iter().flatten().count();
        }
        let mut writes = redis::pipe();
        let missed = names.iter().zip(&found).filter(|(_, found)| found.is_none());
        missed.for_each(|(name, _)| _ = writes.set(name, &value).ignore());
        writes.query::<()>(connection)?;
        let due = Duration::from_secs_f64(((batch + 1) * BATCH) as f64 / REQUESTS_PER_SECOND);
        sleep(due.saturating_sub(begin.elapsed()));
    }
    Ok(hits)
}
