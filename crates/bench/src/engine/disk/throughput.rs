//! SET under each setting of fsync: operations per second, and processor time of the server.
//!
//! Under `always` a write waits for a sync, which the writes of other connections share: what tells is how the rate grows with connections.

use super::super::redis_benchmark::{RedisBenchmark, Sample};
use super::super::servers::{Fsync, Keeps, Setup, settle_disk};
use super::super::{Options, load};
use super::{place, setups};
use crate::Outcome;
use crate::report::Report;
use crate::rounds::{alternate, middle, ratio};

const PIPELINES: [usize; 2] = [1, 16];
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
const VALUE_BYTES: usize = 64;
/// One run, about: long against the 10 ms in which the kernel tells processor time.
const RUN_MS: usize = 1_000;
/// Requests of each connection in the run that warms up and finds the rate, for each place of its pipeline; and all together.
const GUESS_PER_CONNECTION: usize = 200;
const GUESS_MIN: usize = 500;
const GUESS_MAX: usize = 100_000;

const SETTINGS: [(&str, Keeps); 4] = [
    ("always", Keeps::Journal(Fsync::Always)),
    ("everysec", Keeps::Journal(Fsync::EverySecond)),
    ("no", Keeps::Journal(Fsync::No)),
    ("nothing kept", Keeps::Nothing),
];

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let chosen = SETTINGS.iter().filter(|(name, _)| options.includes("disk", &format!("throughput {name}")));
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        return Ok(());
    }
    report.line(format_args!(
        "\n## Writes by fsync\n\nSET of {VALUE_BYTES} bytes, {} keys, {}.",
        options.keys,
        place()
    ));
    let columns = [
        "fsync",
        "pipeline",
        "connections",
        "redis: op/s",
        "engine: op/s",
        "engine/redis",
        "redis: CPU s/M",
        "engine: CPU s/M",
        "engine/redis",
    ];
    report.table(&columns, 1);
    for (name, keeps) in chosen {
        for pipeline in PIPELINES {
            for connections in CONNECTIONS {
                eprintln!("disk throughput {name}: pipeline {pipeline}, {connections} connections");
                let [redis, engine] = measure(setups(options, *keeps), pipeline, connections, options)?;
                row(&format!("{name} | {pipeline} | {connections}"), &redis, &engine, report);
            }
        }
    }
    Ok(())
}

fn row(label: &str, redis: &[Sample], engine: &[Sample], report: &mut Report) {
    let (rate, cpu) = (|sample: &Sample| sample.per_second, |sample: &Sample| sample.cpu_s_per_million);
    report.line(format_args!(
        "| {label} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
        middle(redis, rate),
        middle(engine, rate),
        ratio(engine, redis, rate),
        middle(redis, cpu),
        middle(engine, cpu),
        ratio(engine, redis, cpu),
    ));
}

/// On servers of their own, so that journals do not outgrow the disk.
fn measure(
    setups: [Setup<'_>; 2],
    pipeline: usize,
    connections: usize,
    options: &Options<'_>,
) -> Outcome<[Vec<Sample>; 2]> {
    let servers = [setups[0].start()?, setups[1].start()?];
    for server in &servers {
        load::fill(server, options.keys, VALUE_BYTES, &[])?;
    }
    let guess = (GUESS_PER_CONNECTION * connections * pipeline).clamp(GUESS_MIN, GUESS_MAX);
    let mut requests = [guess; 2];
    alternate(options.rounds, |at| {
        settle_disk()?;
        let run = RedisBenchmark {
            connections,
            pipeline,
            requests: requests[at],
            keys: options.keys,
            value_bytes: VALUE_BYTES,
        };
        let sample = run.measure(&servers[at], &["-t".to_owned(), "set".to_owned()])?;
        // Rates differ by a factor of a thousand between settings: the same time is given to all, not the same number.
        let next = (sample.per_second * options.scaled(RUN_MS) as f64 / 1e3) as usize;
        requests[at] = next.max(connections * pipeline);
        Ok(sample)
    })
}
