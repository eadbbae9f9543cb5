//! From starting a process until it answers, with all keys that it kept.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::job::Job;
use super::super::servers::{Fsync, Keeps, Program, Server, Setup, bytes_below, data_in, settle_disk};
use super::super::{Options, load};
use super::programs;
use crate::Outcome;
use crate::report::{Report, megabytes, times};
use crate::rounds::{alternate, middle, ratio};

const VALUE_BYTES: usize = 64;
const DUMP: &str = "dump.rdb";
const JOURNAL: Keeps = Keeps::Journal(Fsync::EverySecond);

/// What the data come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// There are none: what starting a process takes.
    Empty,
    /// The journal alone, as it was written: of commands in Redis, of changes in the engine.
    Journal,
    /// A journal that was rewritten: its base.
    Base,
    /// A snapshot.
    Dump,
}

const SOURCES: [(Source, &str); 4] = [
    (Source::Empty, "nothing"),
    (Source::Journal, "journal"),
    (Source::Base, "rewritten journal"),
    (Source::Dump, "dump.rdb"),
];

/// What one start took.
struct Sample {
    took: Duration,
    cpu: Duration,
}

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let chosen: Vec<_> = SOURCES.iter().filter(|(_, name)| options.includes("disk", &format!("load {name}"))).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    report.line("\n## Start with data");
    let columns = [
        &format!("start with {} keys from", options.keys),
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
    for (source, name) in chosen {
        eprintln!("disk load {name}");
        row(*source, name, options, report)?;
    }
    Ok(())
}

fn row(source: Source, name: &str, options: &Options<'_>, report: &mut Report) -> Outcome {
    let keys = if source == Source::Empty { 0 } else { options.keys };
    let setups = programs(options).map(|program| Setup { program, keeps: keeps(source, program) });
    let folders = [prepare(source, setups[0], keys)?, prepare(source, setups[1], keys)?];
    let [redis, engine] = alternate(options.rounds, |at| load(source, setups[at], &folders[at], keys))?;
    let (took, cpu) =
        (|sample: &Sample| sample.took.as_secs_f64() * 1e3, |sample: &Sample| sample.cpu.as_secs_f64() * 1e3);
    report.line(format_args!(
        "| {name} | {:.0} | {:.0} | {} | {:.0} | {:.0} | {} | {} | {} |",
        middle(&redis, took),
        middle(&engine, took),
        times(ratio(&engine, &redis, took)),
        middle(&redis, cpu),
        middle(&engine, cpu),
        times(ratio(&engine, &redis, cpu)),
        megabytes(bytes_below(&data_in(&folders[0]))?),
        megabytes(bytes_below(&data_in(&folders[1]))?),
    ));
    Ok(())
}

/// redis-server begins with a dump only if it has no append-only file; the engine has a journal or nothing.
fn keeps(source: Source, program: Program<'_>) -> Keeps {
    if source == Source::Dump && matches!(program, Program::Redis) { Keeps::Nothing } else { JOURNAL }
}

/// Has a server write its data, and returns where they are.
fn prepare(source: Source, setup: Setup<'_>, keys: usize) -> Outcome<Arc<TempDir>> {
    let server = setup.start()?;
    load::fill_varied(&server, keys, VALUE_BYTES)?;
    match source {
        Source::Empty | Source::Journal => {}
        Source::Base => drop(Job::Rewrite.run(&server, setup.program)?),
        Source::Dump => drop(Job::Save.run(&server, setup.program)?),
    }
    let folder = server.stop()?;
    if source == Source::Dump { only_dump(&folder) } else { Ok(folder) }
}

/// A folder that has nothing but the snapshot of `folder`.
fn only_dump(folder: &TempDir) -> Outcome<Arc<TempDir>> {
    let copy = tempfile::tempdir()?;
    fs::create_dir_all(data_in(&copy))?;
    fs::copy(data_in(folder).join(DUMP), data_in(&copy).join(DUMP))?;
    Ok(Arc::new(copy))
}

fn load(source: Source, setup: Setup<'_>, folder: &Arc<TempDir>, keys: usize) -> Outcome<Sample> {
    // The engine begins a directory of its own with the dump, which it would find the next time.
    let folder = if source == Source::Dump { only_dump(folder)? } else { Arc::clone(folder) };
    settle_disk()?;
    let (server, took) = setup.start_in(folder)?;
    let cpu = server.cpu_time()?;
    check(&server, keys)?;
    server.stop()?;
    Ok(Sample { took, cpu })
}

/// A server that lost something was quick for nothing.
fn check(server: &Server, keys: usize) -> Outcome {
    let found: usize = server.ask(&["DBSIZE"])?;
    let path: &Path = &server.data();
    if found == keys { Ok(()) } else { Err(format!("of {keys} keys in {}, {found} are there", path.display()).into()) }
}
