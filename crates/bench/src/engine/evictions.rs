//! How well eviction chooses: hits of a cache that holds a part of what is asked for, beside redis-server.
//!
//! What fits is counted in keys, not in bytes: both servers get a `maxmemory` of their own, found by filling them, under which each holds as
//! many keys. How well they choose is one thing, how many keys fit in so many bytes another; the bounds stand beside the hits.
//!
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
use crate::report::{Report, megabytes};

const POLICIES: [&str; 3] = ["allkeys-lru", "allkeys-lfu", "allkeys-random"];
/// Different keys that are asked for again and again.
const KEYS: usize = 200_000;
/// The part of them that fits.
const FITTING_PERCENT: usize = 20;
/// What is held may differ from that by one in so many.
const FITTING_PRECISION: usize = 200;
/// Corrections by proportion of a bound that lets too many keys in or too few.
const BOUND_ATTEMPTS: usize = 10;
/// Keys that are looked at for each that goes; the default of both.
const SAMPLES: &str = "5";
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

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let traces = [(Trace::Zipf, "zipf"), (Trace::Scanned, "zipf, and scans")];
    let cases =
        POLICIES.iter().flat_map(|policy| traces.map(|(trace, name)| (*policy, trace, format!("{policy}, {name}"))));
    let chosen: Vec<_> = cases.filter(|(.., name)| options.includes("evictions", name)).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let (keys, requests) = (options.scaled(KEYS), options.scaled(REQUESTS));
    report.line(format_args!(
        "\n## Eviction\n\n{requests} requests, {REQUESTS_PER_SECOND} per second, values of {VALUE_BYTES} bytes, maxmemory-samples {SAMPLES}."
    ));
    let hits = format!("hits, with room for {FITTING_PERCENT} % of {keys} keys");
    report.table(&[&hits, "redis", "engine", "redis keeps", "engine keeps", "redis: bound", "engine: bound"], 1);
    for (policy, trace, name) in chosen {
        eprintln!("evictions: {name}");
        let redis = measure(&Server::redis()?, policy, trace, keys, requests)?;
        let engine = measure(&Server::engine(options.program, 1)?, policy, trace, keys, requests)?;
        report.line(format_args!(
            "| {name} | {:.1} % | {:.1} % | {} | {} | {} | {} |",
            redis.hits_percent,
            engine.hits_percent,
            redis.keys,
            engine.keys,
            megabytes(redis.bound_bytes),
            megabytes(engine.bound_bytes),
        ));
    }
    Ok(())
}

struct Measured {
    hits_percent: f64,
    /// Keys at the end.
    keys: usize,
    /// What the data may take beyond what the empty server uses.
    bound_bytes: u64,
}

fn measure(server: &Server, policy: &str, trace: Trace, keys: usize, requests: usize) -> Outcome<Measured> {
    for (name, value) in [("maxmemory-policy", policy), ("maxmemory-samples", SAMPLES)] {
        server.ask::<String>(&["CONFIG", "SET", name, value])?;
    }
    let bound_bytes = bound_for(server, keys, keys * FITTING_PERCENT / 100)?;
    server.ask::<String>(&["FLUSHALL"])?;
    let mut connection = redis::Client::open(("127.0.0.1", server.port()))?.get_connection()?;
    let hits = follow(&mut connection, &asked(trace, keys, requests))?;
    let keys = server.ask(&["DBSIZE"])?;
    Ok(Measured { hits_percent: hits as f64 * 100.0 / (requests / 2) as f64, keys, bound_bytes })
}

/// Gives the server a bound under which so many of `keys` are there after all were written. Returns it without what the empty server uses.
fn bound_for(server: &Server, keys: usize, fitting: usize) -> Outcome<u64> {
    let empty_bytes = server.used_bytes()?;
    load::fill(server, keys, VALUE_BYTES, &[])?;
    let mut bound_bytes = (server.used_bytes()? - empty_bytes) * fitting as u64 / keys as u64;
    for _ in 0..BOUND_ATTEMPTS {
        server.ask::<String>(&["FLUSHALL"])?;
        server.ask::<String>(&["CONFIG", "SET", "maxmemory", &(empty_bytes + bound_bytes).to_string()])?;
        load::fill(server, keys, VALUE_BYTES, &[])?;
        let held: usize = server.ask(&["DBSIZE"])?;
        if held.abs_diff(fitting) * FITTING_PRECISION <= fitting {
            return Ok(bound_bytes);
        }
        bound_bytes = bound_bytes * fitting as u64 / held.max(1) as u64;
    }
    Err(format!("no bound was found under which {fitting} keys fit; the last was {bound_bytes} bytes").into())
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
