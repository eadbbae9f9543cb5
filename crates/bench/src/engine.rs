//! The engine behind its protocol, beside the distribution's redis-server: the same redis-benchmark against both, by turns.
//!
//! What counts is the processor time of the server process per million operations: the load comes from the same machine, so a rate mostly
//! tells how much of it the load generator leaves. One server runs at a time; the other one idles.
//!
//! | table | measured |
//! |---|---|
//! | commands | redis-benchmark at pipeline 1, 16 and 64, 50 connections, values of 64 bytes |
//! | threads | the engine with two threads over one |
//! | memory | resident memory per key for values of several sizes, with and without a time to live |

mod memory;
mod servers;

use std::process::Command;
use std::time::Duration;

use crate::Outcome;
use crate::rounds::median;

use servers::Server;
pub use servers::serve;

const CONNECTIONS: &str = "50";
const PIPELINES: [usize; 3] = [1, 16, 64];

/// One command, as redis-benchmark sends it; `__rand_int__` is one of the keys.
struct Case {
    name: &'static str,
    args: &'static [&'static str],
    /// Requests at pipeline 1; eight times as many at the others.
    requests: usize,
}

const CASES: &[Case] = &[
    Case { name: "GET", args: &["GET", "key:__rand_int__"], requests: 100_000 },
    Case { name: "SET", args: &["SET", "key:__rand_int__", VALUE], requests: 100_000 },
    Case { name: "INCR", args: &["INCR", "counter:__rand_int__"], requests: 100_000 },
    Case { name: "LPUSH", args: &["LPUSH", "list:__rand_int__", VALUE], requests: 100_000 },
    Case { name: "HSET", args: &["HSET", "hash:__rand_int__", "field", VALUE], requests: 100_000 },
    Case { name: "ZADD", args: &["ZADD", "zset", "1", "member:__rand_int__"], requests: 100_000 },
    Case {
        name: "MSET",
        args: &["MSET", "a:__rand_int__", VALUE, "b:__rand_int__", VALUE, "c:__rand_int__", VALUE],
        requests: 50_000,
    },
    Case { name: "SET NX PX", args: &["SET", "lock:__rand_int__", "owner", "NX", "PX", "30000"], requests: 100_000 },
    Case { name: "EVAL", args: &["EVAL", COMPARE_AND_DELETE, "1", "lock:__rand_int__", "owner"], requests: 50_000 },
];

/// 64 bytes.
const VALUE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const COMPARE_AND_DELETE: &str =
    "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

/// What one run cost.
#[derive(Clone, Copy)]
struct Sample {
    cpu_per_million: Duration,
    per_second: f64,
}

/// Prints the tables.
///
/// # Errors
/// redis-server or redis-benchmark is missing, or a server does not start.
pub fn run(keys: usize, rounds: usize) -> Outcome {
    let redis = Server::redis()?;
    let one = Server::engine(1)?;
    let two = Server::engine(2)?;
    println!(
        "{}; {keys} keys, values of 64 bytes, {CONNECTIONS} connections, medians of {rounds} rounds\n",
        redis.version()?
    );
    for server in [&redis, &one, &two] {
        fill(server, keys)?;
    }
    println!(
        "| command | pipeline | redis: CPU s/M | engine: CPU s/M | engine/redis | redis: op/s | engine: op/s | two threads: op/s | two/one |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for case in CASES {
        for pipeline in PIPELINES {
            row(case, pipeline, keys, rounds, [&redis, &one, &two])?;
        }
    }
    drop((redis, one, two));
    memory::run()
}

fn row(case: &Case, pipeline: usize, keys: usize, rounds: usize, servers: [&Server; 3]) -> Outcome {
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            samples[at].push(measure(servers[at], case, pipeline, keys)?);
        }
    }
    let cpu = |at: usize| median(samples[at].iter().map(|sample| sample.cpu_per_million.as_secs_f64()).collect());
    let rate = |at: usize| median(samples[at].iter().map(|sample| sample.per_second).collect());
    let ratio = |of: usize, to: usize, value: fn(&Sample) -> f64| {
        median(samples[of].iter().zip(&samples[to]).map(|(of, to)| value(of) / value(to)).collect())
    };
    println!(
        "| {} | {pipeline} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} |",
        case.name,
        cpu(0),
        cpu(1),
        ratio(1, 0, |sample| sample.cpu_per_million.as_secs_f64()),
        rate(0),
        rate(1),
        rate(2),
        ratio(2, 1, |sample| sample.per_second),
    );
    Ok(())
}

fn measure(server: &Server, case: &Case, pipeline: usize, keys: usize) -> Outcome<Sample> {
    let requests = if pipeline == 1 { case.requests } else { case.requests * 8 };
    let before = server.cpu_time()?;
    let per_second = benchmark(server, case.args, requests, pipeline, keys)?;
    let spent = server.cpu_time()?.saturating_sub(before);
    Ok(Sample { cpu_per_million: spent.mul_f64(1e6 / requests as f64), per_second })
}

/// Returns the operations per second that redis-benchmark reports.
fn benchmark(server: &Server, args: &[&str], requests: usize, pipeline: usize, keys: usize) -> Outcome<f64> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &server.port().to_string(), "-c", CONNECTIONS, "--csv", "-n", &requests.to_string()]);
    command.args(["-P", &pipeline.to_string(), "-r", &keys.to_string()]).args(args);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A line with the names of the columns, then one with the figures: "name","operations per second",..
    let rate = text.lines().last().and_then(|line| line.split(',').rev().nth(6)?.trim_matches('"').parse().ok());
    rate.ok_or_else(|| format!("redis-benchmark says: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Writes every key once, in an order of redis-benchmark's own.
fn fill(server: &Server, keys: usize) -> Outcome {
    benchmark(server, &["SET", "key:__rand_int__", VALUE], keys * 2, 64, keys)?;
    Ok(())
}
