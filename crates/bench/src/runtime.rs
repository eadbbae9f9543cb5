//! Which runtime serves the engine with least: tokio's multi-thread runtime, whose threads share their tasks, or a current-thread runtime for
//! each thread, whose tasks stay where they are.
//!
//! The server is this program in a process of its own (`served`), so that its processor time is seen apart from that of redis-benchmark. All
//! contestants run one after the other in each round; a ratio is that of two with as many threads in the same round.
//!
//! Runtimes with a thread each listen on a port each, and each gets half of the connections, from two redis-benchmarks. The shared
//! runtime gets as many, on its one port. That is the best case for the others: who asks by a port of its own may come to share a processor
//! with the one who answers, where waking each other costs little. A server whose clients come by one port, or from elsewhere, has no such luck.
//!
//! Few keys and short values leave the least beside what the runtime and the kernel take.

use std::thread;
use std::time::Instant;

use crate::engine::{RedisBenchmark, Sample, redis_version};
use crate::report::{Chart, Goal, Group, Report, Scale};
use crate::rounds::{alternate, middle, ratio};
use crate::{Options, Outcome};

mod served;

pub use self::served::serve;
use self::served::{Flavor, Kind, Served};

const CONNECTIONS: usize = 50;
/// So many times as many redis-benchmarks as a server has threads, if those are several.
const LOADS_PER_PORT: usize = 2;
const VALUE_BYTES: usize = 64;
/// All of them fit into the processor's caches.
const KEYS: usize = 10_000;
/// Pipelines, with the operations of one turn: about a second of work, against the 10 ms in which the kernel tells processor time.
const PIPELINES: [(usize, usize); 3] = [(1, 120_000), (16, 800_000), (64, 1_200_000)];
const COMMANDS: [(&str, &str); 2] = [("GET", "get"), ("SET", "set")];
/// Each pair of neighbours is compared.
const CONTESTANTS: [Kind; 4] = [
    Kind { flavor: Flavor::MultiThread, threads: 1 },
    Kind { flavor: Flavor::CurrentThread, threads: 1 },
    Kind { flavor: Flavor::MultiThread, threads: 2 },
    Kind { flavor: Flavor::CurrentThread, threads: 2 },
];
/// How much of the processor time of the other runtimes the one that is in use may take: more than this, and it would be worth to change it.
const CPU_ASKED: f64 = 1.10;

/// What one case was seen to do with so many threads.
struct Line {
    case: String,
    threads: usize,
    /// Of the current-thread runtimes beside the shared one.
    current_to_multi: f64,
    /// The other way round.
    multi_to_current: f64,
}

/// Runs the suite: the cases whose name contains `only`, `GET, pipeline 16`.
///
/// # Errors
/// redis-benchmark is missing, a server does not start, or an operation fails.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    report.line(format_args!(
        "{}'s redis-benchmark, {CONNECTIONS} connections, {KEYS} keys, values of {VALUE_BYTES} bytes; medians of {} rounds. \
         CPU is that of the server for a million operations.",
        redis_version()?,
        options.rounds
    ));
    let columns = [
        "case",
        "threads",
        "multi-thread: CPU s/M",
        "current-thread: CPU s/M",
        "current/multi: CPU",
        "multi-thread: op/s",
        "current-thread: op/s",
        "current/multi: op/s",
    ];
    report.table(&columns, 2);
    let servers = CONTESTANTS.map(Served::start).into_iter().collect::<Outcome<Vec<_>>>()?;
    for server in &servers {
        // Keys are random: ten times as many leave hardly one out.
        load(CONNECTIONS, 64, 10 * KEYS).run_on(server.ports[0], &test("set"))?;
    }
    let mut lines = Vec::new();
    for (command, name) in COMMANDS {
        for (pipeline, requests) in PIPELINES {
            let case = format!("{command}, pipeline {pipeline}");
            if !options.includes("", &case) {
                continue;
            }
            eprintln!("runtime: {case}");
            let requests = options.scaled(requests);
            let samples: [Vec<Sample>; CONTESTANTS.len()] =
                alternate(options.rounds, |at| measure(&servers[at], pipeline, requests, name))?;
            lines.extend(rows(&case, &samples, report));
        }
    }
    goal(&lines, report);
    chart(&lines, report);
    Ok(())
}

fn load(connections: usize, pipeline: usize, requests: usize) -> RedisBenchmark {
    RedisBenchmark { connections, pipeline, requests, keys: KEYS, value_bytes: VALUE_BYTES }
}

fn test(name: &str) -> Vec<String> {
    vec!["-t".to_owned(), name.to_owned()]
}

/// Several redis-benchmarks at once, which share connections and requests evenly.
fn measure(server: &Served, pipeline: usize, requests: usize, name: &str) -> Outcome<Sample> {
    let loads = if server.kind.threads == 1 { 1 } else { LOADS_PER_PORT * server.kind.threads };
    let (load, words) = (load(CONNECTIONS / loads, pipeline, requests / loads), test(name));
    let (before, began) = (server.cpu_time()?, Instant::now());
    thread::scope(|scope| -> Outcome {
        let running: Vec<_> = (0..loads)
            .map(|at| {
                let port = server.ports[at % server.ports.len()];
                let (load, words) = (&load, &words);
                scope.spawn(move || load.run_on(port, words))
            })
            .collect();
        running.into_iter().try_for_each(|one| {
            one.join().map_err(|_| "a redis-benchmark's thread panicked")??;
            Ok(())
        })
    })?;
    let (spent, taken) = (server.cpu_time()?.saturating_sub(before), began.elapsed());
    let done = (load.requests * loads) as f64;
    // Not the sum of what they report: whoever ends last has the machine to itself for a while.
    Ok(Sample { cpu_s_per_million: spent.as_secs_f64() * 1e6 / done, per_second: done / taken.as_secs_f64() })
}

/// One row for each number of threads.
fn rows(case: &str, samples: &[Vec<Sample>; CONTESTANTS.len()], report: &mut Report) -> Vec<Line> {
    let (cpu, rate) = (|sample: &Sample| sample.cpu_s_per_million, |sample: &Sample| sample.per_second);
    let mut lines = Vec::new();
    for (kinds, samples) in CONTESTANTS.chunks_exact(2).zip(samples.chunks_exact(2)) {
        let ([kind, _], [multi, current]) = (kinds, samples) else { continue };
        let (current_to_multi, multi_to_current) = (ratio(current, multi, cpu), ratio(multi, current, cpu));
        let line = Line { case: case.to_owned(), threads: kind.threads, current_to_multi, multi_to_current };
        report.line(format_args!(
            "| {case} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} |",
            line.threads,
            middle(multi, cpu),
            middle(current, cpu),
            current_to_multi,
            middle(multi, rate),
            middle(current, rate),
            ratio(current, multi, rate),
        ));
        lines.push(line);
    }
    lines
}

fn goal(lines: &[Line], report: &mut Report) {
    let figures = lines.iter().map(|line| (name(line), line.multi_to_current));
    report.goal(
        Goal::at_most("CPU per operation on the multi-thread runtime to current-thread ones", CPU_ASKED, "x")
            .cases(figures),
    );
}

fn chart(lines: &[Line], report: &mut Report) {
    let group = |line: &Line| Group { label: name(line), values: vec![Some(line.current_to_multi)], goal: None };
    report.chart(Chart {
        name: "",
        title: "Current-thread runtimes beside the multi-thread runtime".to_owned(),
        axis: "CPU per operation relative to the multi-thread runtime's",
        scale: Scale::Linear,
        series: vec!["current-thread".to_owned()],
        groups: lines.iter().map(group).collect(),
    });
}

fn name(line: &Line) -> String {
    let threads = if line.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", line.threads) };
    format!("{}, {threads}", line.case)
}
