//! A snapshot of all keys, and rewriting the journal to what they need, while nothing else goes on.

use std::time::Duration;

use super::super::job::Job;
use super::super::servers::{Fsync, Keeps, Server, Setup, bytes_below, settle_disk};
use super::super::{Options, load};
use super::setups;
use crate::Outcome;
use crate::report::{Report, megabytes, times};
use crate::rounds::{alternate, middle, ratio};

const VALUE_BYTES: usize = 64;
const DUMP: &str = "dump.rdb";

/// What one run took.
struct Sample {
    took: Duration,
    /// Of the server and of the process that saves.
    cpu: Duration,
    /// What was written.
    bytes: u64,
}

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let jobs = [Job::Save, Job::Rewrite];
    let chosen: Vec<_> =
        jobs.into_iter().filter(|job| options.includes("disk", &format!("save {}", job.command()))).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    report.line("\n## Saving");
    let columns = [
        &format!("{} keys", options.keys),
        "redis: ms",
        "engine: ms",
        "engine/redis",
        "redis: CPU ms",
        "engine: CPU ms",
        "engine/redis",
        "redis: size",
        "engine: size",
    ];
    report.table(&columns, 1);
    let setups = setups(options, Keeps::Journal(Fsync::EverySecond));
    let servers = [setups[0].start()?, setups[1].start()?];
    for server in &servers {
        load::fill_varied(server, options.keys, VALUE_BYTES)?;
    }
    for job in chosen {
        eprintln!("disk save {}", job.command());
        let [redis, engine] = alternate(options.rounds, |at| measure(job, setups[at], &servers[at]))?;
        row(job.command(), &redis, &engine, report);
    }
    Ok(())
}

fn row(name: &str, redis: &[Sample], engine: &[Sample], report: &mut Report) {
    let (took, cpu) =
        (|sample: &Sample| sample.took.as_secs_f64() * 1e3, |sample: &Sample| sample.cpu.as_secs_f64() * 1e3);
    let bytes = |of: &[Sample]| megabytes(middle(of, |sample| sample.bytes as f64) as u64);
    report.line(format_args!(
        "| {name} | {:.0} | {:.0} | {} | {:.0} | {:.0} | {} | {} | {} |",
        middle(redis, took),
        middle(engine, took),
        times(ratio(engine, redis, took)),
        middle(redis, cpu),
        middle(engine, cpu),
        times(ratio(engine, redis, cpu)),
        bytes(redis),
        bytes(engine),
    ));
}

fn measure(job: Job, setup: Setup<'_>, server: &Server) -> Outcome<Sample> {
    settle_disk()?;
    let before = server.cpu_time_with_children()?;
    let took = job.run(server, setup.program)?;
    let cpu = server.cpu_time_with_children()?.saturating_sub(before);
    let dump_bytes = std::fs::metadata(server.data().join(DUMP)).map_or(0, |metadata| metadata.len());
    let bytes = match job {
        Job::Save => dump_bytes,
        Job::Rewrite => bytes_below(&server.data())? - dump_bytes,
    };
    Ok(Sample { took, cpu, bytes })
}
