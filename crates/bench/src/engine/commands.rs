//! redis-benchmark against the servers by turns: processor time of the server per million operations, and operations per second.

use super::redis_benchmark::{RedisBenchmark, Sample};
use super::servers::Server;
use super::{Options, load};
use crate::Outcome;
use crate::report::{Chart, Goal, Group, Report, Scale};
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

/// What one line of the tables says.
struct Line {
    case: &'static str,
    keys: usize,
    pipeline: usize,
    /// Processor time of the engine beside that of Redis.
    cpu: f64,
    /// Throughput of two threads beside that of one.
    threads: f64,
}

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let mut lines = Vec::new();
    let chosen: Vec<_> = CASES.iter().filter(|case| options.includes("commands", case.name)).collect();
    if !chosen.is_empty() {
        report.line(format_args!(
            "\n## Commands\n\nredis-benchmark, {CONNECTIONS} connections, values of {VALUE_BYTES} bytes."
        ));
        head(&format!("command, {} keys", options.keys), report);
        for case in &chosen {
            lines.extend(rows(case, case.name, options.keys, options, report)?);
        }
        chart(&lines, report);
    }
    let chosen: Vec<_> = CASES[..2].iter().filter(|case| options.includes("sizes", case.name)).collect();
    if !chosen.is_empty() {
        head("command, number of keys", report);
        for (case, keys) in chosen.iter().flat_map(|case| [(case, KEYS_FEW), (case, options.keys_max)]) {
            lines.extend(rows(case, &format!("{}, {keys} keys", case.name), keys, options, report)?);
        }
    }
    goals(&lines, options, report);
    Ok(())
}

fn head(title: &str, report: &mut Report) {
    let columns = [
        title,
        "pipeline",
        "redis: CPU s/M",
        "engine: CPU s/M",
        "engine/redis",
        "redis: op/s",
        "engine: op/s",
        "2 threads: CPU s/M",
        "2 threads: op/s",
        "2 threads/1: op/s",
    ];
    report.table(&columns, 1);
}

/// The rows of one case, on servers of its own: what one case leaves behind is no burden for the next.
fn rows(
    case: &Case,
    label: &str,
    keys: usize,
    options: &Options<'_>,
    report: &mut Report,
) -> Outcome<[Line; PIPELINES.len()]> {
    let servers = [Server::redis()?, Server::engine(options.program, 1)?, Server::engine(options.program, 2)?];
    eprintln!("{label}: filling");
    for server in &servers {
        load::fill(server, keys, VALUE_BYTES, &[])?;
    }
    let mut lines =
        PIPELINES.map(|pipeline| Line { case: case.name, keys, pipeline, cpu: f64::NAN, threads: f64::NAN });
    for line in &mut lines {
        let pipeline = line.pipeline;
        eprintln!("{label}: pipeline {pipeline}");
        let requests = options.scaled(case.requests) * if pipeline == 1 { 1 } else { PIPELINED_FACTOR };
        let bench = RedisBenchmark { connections: CONNECTIONS, pipeline, requests, keys, value_bytes: VALUE_BYTES };
        let samples = alternate(options.rounds, |at| case.measure(&servers[at], &bench))?;
        (line.cpu, line.threads) = row(label, pipeline, &samples, report);
    }
    Ok(lines)
}

/// Returns the ratios of processor time to Redis, and of the throughput of two threads to one.
fn row(label: &str, pipeline: usize, [redis, one, two]: &[Vec<Sample>; 3], report: &mut Report) -> (f64, f64) {
    let (cpu, rate) = (|sample: &Sample| sample.cpu_s_per_million, |sample: &Sample| sample.per_second);
    let (to_redis, to_one) = (ratio(one, redis, cpu), ratio(two, one, rate));
    report.line(format_args!(
        "| {label} | {pipeline} | {:.2} | {:.2} | {to_redis:.2} | {:.0} | {:.0} | {:.2} | {:.0} | {to_one:.2} |",
        middle(redis, cpu),
        middle(one, cpu),
        middle(redis, rate),
        middle(one, rate),
        middle(two, cpu),
        middle(two, rate),
    ));
    (to_redis, to_one)
}

/// The most of Redis's processor time that a command may take.
fn cpu_asked(case: &str, pipeline: usize) -> f64 {
    match (case, pipeline) {
        (_, 1) => 1.0,
        ("GET", 16) => 0.40,
        ("GET", _) => 0.30,
        ("SET", _) => 0.50,
        _ => 0.75,
    }
}

fn goals(lines: &[Line], options: &Options<'_>, report: &mut Report) {
    let named = |line: &Line| {
        let keys = if line.keys == options.keys { String::new() } else { format!(", {} keys", line.keys) };
        format!("{}{keys}", line.case)
    };
    let cpu = |what: String, asked: f64, chosen: &dyn Fn(&Line) -> bool| {
        Goal::at_most(what, asked, "x")
            .cases(lines.iter().filter(|line| chosen(line)).map(|line| (named(line), line.cpu)))
    };
    report.goal(cpu("CPU per operation to Redis's, pipeline 1".to_owned(), 1.0, &|line| line.pipeline == 1));
    for pipeline in [16, 64] {
        for case in ["GET", "SET"] {
            let what = format!("CPU per operation to Redis's, pipeline {pipeline}, {case}");
            report.goal(cpu(what, cpu_asked(case, pipeline), &|line| line.pipeline == pipeline && line.case == case));
        }
        let what = format!("CPU per operation to Redis's, pipeline {pipeline}, other commands");
        let is_other = |line: &Line| line.pipeline == pipeline && !matches!(line.case, "GET" | "SET");
        report.goal(cpu(what, cpu_asked("", pipeline), &is_other));
    }
    let threads = lines.iter().filter(|line| line.pipeline == 16).map(|line| (named(line), line.threads));
    report.goal(Goal::at_least("throughput of two threads to one, pipeline 16", 1.5, "x").cases(threads));
}

fn chart(lines: &[Line], report: &mut Report) {
    let group = |line: &Line| Group {
        label: format!("{}, pipeline {}", line.case, line.pipeline),
        values: vec![Some(line.cpu)],
        goal: Some(cpu_asked(line.case, line.pipeline)),
    };
    report.chart(Chart {
        name: "",
        title: "The engine's processor time per operation beside redis-server's".to_owned(),
        axis: "engine's CPU relative to redis-server's",
        scale: Scale::Linear,
        series: vec!["engine".to_owned()],
        groups: lines.iter().map(group).collect(),
    });
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
