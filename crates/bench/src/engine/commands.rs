//! redis-benchmark against the servers by turns: processor time of the server per million operations, and operations per second.

use super::redis_benchmark::{RedisBenchmark, Sample};
use super::servers::Server;
use super::{Options, load};
use crate::Outcome;
use crate::rounds::{alternate, middle, ratio};

const CONNECTIONS: usize = 50;
const PIPELINES: [usize; 3] = [1, 16, 64];
/// Operations at pipeline 16 and 64 for each at pipeline 1: then either takes a second or two, against the 10 ms in which the kernel
/// tells processor time.
const PIPELINED_FACTOR: usize = 10;
const VALUE_BYTES: usize = 64;
/// Keys of a small store: all of it fits in the processor's caches.
const KEYS_FEW: usize = 1_000;
const COMPARE_AND_DELETE: &str =
    "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

/// One load of redis-benchmark.
struct Case {
    name: &'static str,
    kind: Kind,
    /// Operations at pipeline 1.
    requests: usize,
}

enum Kind {
    /// A test of redis-benchmark, by its name there.
    Test(&'static str),
    /// The same on a key that every run begins anew.
    TestOn(&'static str, &'static str),
    /// A command; `__rand_int__` is the number of a key.
    Words(&'static [&'static str]),
    /// A script that compares and deletes, on locks that are there.
    CompareAndDelete,
}

const CASES: &[Case] = &[
    Case { name: "GET", kind: Kind::Test("get"), requests: 200_000 },
    Case { name: "SET", kind: Kind::Test("set"), requests: 200_000 },
    Case { name: "INCR", kind: Kind::Test("incr"), requests: 200_000 },
    Case { name: "LPUSH", kind: Kind::TestOn("lpush", "mylist"), requests: 200_000 },
    Case { name: "HSET", kind: Kind::Test("hset"), requests: 200_000 },
    Case { name: "ZADD", kind: Kind::Test("zadd"), requests: 150_000 },
    Case { name: "MSET, 10 keys", kind: Kind::Test("mset"), requests: 40_000 },
    // After its second, which is over before a server's next turn, a lock can be taken again.
    Case {
        name: "SET NX PX",
        kind: Kind::Words(&["SET", "lock:__rand_int__", "owner", "NX", "PX", "1000"]),
        requests: 200_000,
    },
    Case { name: "EVALSHA compare and delete", kind: Kind::CompareAndDelete, requests: 100_000 },
];

pub(super) fn run(options: &Options<'_>) -> Outcome {
    let chosen: Vec<_> = CASES.iter().filter(|case| options.includes("commands", case.name)).collect();
    if !chosen.is_empty() {
        head(&format!("command, {} keys", options.keys));
        chosen.iter().try_for_each(|case| rows(case, case.name, options.keys, options))?;
    }
    let chosen: Vec<_> = CASES[..2].iter().filter(|case| options.includes("sizes", case.name)).collect();
    if !chosen.is_empty() {
        head("command, number of keys");
        for (case, keys) in chosen.iter().flat_map(|case| [(case, KEYS_FEW), (case, options.keys_max)]) {
            rows(case, &format!("{}, {keys} keys", case.name), keys, options)?;
        }
    }
    Ok(())
}

fn head(title: &str) {
    println!(
        "\n| {title} | pipeline | redis: CPU s/M | engine: CPU s/M | engine/redis | redis: op/s | engine: op/s \
         | 2 threads: CPU s/M | 2 threads: op/s | 2 threads/1: op/s |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
}

/// The rows of one case, on servers of its own: what one case leaves behind is no burden for the next.
fn rows(case: &Case, label: &str, keys: usize, options: &Options<'_>) -> Outcome {
    let servers = [Server::redis()?, Server::engine(options.program, 1)?, Server::engine(options.program, 2)?];
    eprintln!("{label}: filling");
    for server in &servers {
        load::fill(server, keys, VALUE_BYTES, &[])?;
    }
    for pipeline in PIPELINES {
        eprintln!("{label}: pipeline {pipeline}");
        let requests = options.scaled(case.requests) * if pipeline == 1 { 1 } else { PIPELINED_FACTOR };
        let bench = RedisBenchmark { connections: CONNECTIONS, pipeline, requests, keys, value_bytes: VALUE_BYTES };
        row(label, pipeline, &alternate(options.rounds, |at| case.measure(&servers[at], &bench))?);
    }
    Ok(())
}

fn row(label: &str, pipeline: usize, [redis, one, two]: &[Vec<Sample>; 3]) {
    let (cpu, rate) = (|sample: &Sample| sample.cpu_s_per_million, |sample: &Sample| sample.per_second);
    println!(
        "| {label} | {pipeline} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} | {:.0} | {:.2} |",
        middle(redis, cpu),
        middle(one, cpu),
        ratio(one, redis, cpu),
        middle(redis, rate),
        middle(one, rate),
        middle(two, cpu),
        middle(two, rate),
        ratio(two, one, rate),
    );
}

impl Case {
    fn measure(&self, server: &Server, bench: &RedisBenchmark) -> Outcome<Sample> {
        bench.measure(server, &self.prepare(server, bench)?)
    }

    /// What redis-benchmark is to be called with, once the server is ready for it.
    fn prepare(&self, server: &Server, bench: &RedisBenchmark) -> Outcome<Vec<String>> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match self.kind {
            Kind::Test(test) => Ok(owned(&["-t", test])),
            Kind::TestOn(test, key) => {
                server.ask::<u64>(&["DEL", key])?;
                Ok(owned(&["-t", test]))
            }
            Kind::Words(words) => Ok(owned(words)),
            Kind::CompareAndDelete => {
                let locks = RedisBenchmark { pipeline: 64, ..*bench };
                locks.run(server, &owned(&["SET", "lock:__rand_int__", "owner"]))?;
                let sha: String = server.ask(&["SCRIPT", "LOAD", COMPARE_AND_DELETE])?;
                Ok(owned(&["EVALSHA", &sha, "1", "lock:__rand_int__", "owner"]))
            }
        }
    }
}
