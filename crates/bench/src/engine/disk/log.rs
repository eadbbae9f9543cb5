//! What a journal costs writes of the process itself: typed puts into an engine without a directory, and with one.
//!
//! Processor time is that of the whole process, until the last write is on the disk: the thread that writes the journal is in it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use acteon_engine::{Engine, EngineConfig, Expiry};
use acteon_engine_disk::{Disk, DiskConfig, Files, Fsync, RewriteSchedule};
use tempfile::TempDir;

use super::super::Options;
use super::super::servers::settle_disk;
use super::place;
use crate::report::{Report, time};
use crate::rounds::{alternate, middle, ratio};
use crate::{Outcome, machine, memory};

const VALUE: [u8; 64] = [b'x'; 64];
const THREADS: [usize; 2] = [1, 2];
/// Writes of one thread in one round.
const WRITES: usize = 500_000;
/// Threads that each wait for their writes, and the writes of all of them.
const WAITING_THREADS: [usize; 4] = [1, 16, 64, 256];
const WAITING_WRITES: usize = 20_000;
/// What the disk may take for what is waited for.
const DISK_TIMEOUT: Duration = Duration::from_secs(60);
/// The engine's clock, which is not moved: nothing expires.
const NOW_MS: u64 = 1;

const SETTINGS: [(&str, Option<Fsync>); 4] = [
    ("no directory", None),
    ("no", Some(Fsync::No)),
    ("everysec", Some(Fsync::EverySecond)),
    ("always, nobody waits", Some(Fsync::Always)),
];

/// An engine, and where it keeps its changes.
struct Kept {
    engine: Engine,
    disk: Option<Disk>,
    /// Removed after the disk was closed.
    _folder: TempDir,
}

/// What a write took.
struct Sample {
    took: Duration,
    cpu: Duration,
}

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    if options.includes("disk", "log") {
        unwaited(options, report)?;
    }
    if options.includes("disk", "log waits") {
        waited(options, report)?;
    }
    Ok(())
}

fn unwaited(options: &Options<'_>, report: &mut Report) -> Outcome {
    let keys = keys(options);
    let kept: Vec<Kept> = SETTINGS.iter().map(|(_, fsync)| Kept::new(*fsync, &keys)).collect::<Outcome<_>>()?;
    report.line(format_args!(
        "\n## What a journal costs in process\n\n{} keys, {} bytes each, written by typed calls, {}.",
        options.keys,
        VALUE.len(),
        place()
    ));
    let columns = ["threads", "fsync", "a write", "to no directory", "CPU of a write", "to no directory"];
    report.table(&columns, 2);
    for threads in THREADS {
        eprintln!("disk log: {threads} threads");
        let writes = options.scaled(WRITES);
        let samples: [_; SETTINGS.len()] =
            alternate(options.rounds, |at| kept[at].measure(&keys, threads, writes, |_| Ok(())))?;
        for ((name, _), own) in SETTINGS.iter().zip(&samples) {
            report.line(format_args!("| {threads} | {name} | {}", cells(own, &samples[0])));
        }
    }
    Ok(())
}

/// Each thread waits after each write until it is on the disk.
fn waited(options: &Options<'_>, report: &mut Report) -> Outcome {
    let keys = keys(options);
    let kept = Kept::new(Some(Fsync::Always), &keys)?;
    let Some(disk) = &kept.disk else { return Err("there is no directory".into()) };
    let waiting = "threads that wait for each write, fsync = always";
    report.table(&[waiting, "writes/s", "writes per sync", "CPU of a write"], 0);
    for threads in WAITING_THREADS {
        eprintln!("disk log waits: {threads} threads");
        let writes = options.scaled(WAITING_WRITES).div_ceil(threads);
        let syncs = disk.statistics().syncs;
        let [samples] = alternate(options.rounds, |_| {
            kept.measure(&keys, threads, writes, |engine| Ok(disk.wait(engine.log_position(), DISK_TIMEOUT)?))
        })?;
        // The round that warms up syncs as well.
        let rounds = options.rounds as u64 + 1;
        let per_sync = (writes * threads) as f64 * rounds as f64 / (disk.statistics().syncs - syncs) as f64;
        let per_second = middle(&samples, |sample| threads as f64 / sample.took.as_secs_f64());
        let cpu = Duration::from_secs_f64(middle(&samples, |sample| sample.cpu.as_secs_f64()));
        report.line(format_args!("| {threads} | {per_second:.0} | {per_sync:.1} | {} |", time(cpu)));
    }
    Ok(())
}

fn keys(options: &Options<'_>) -> Vec<Vec<u8>> {
    (0..options.keys).map(|number| format!("key:{number:012}").into_bytes()).collect()
}

fn cells(own: &[Sample], base: &[Sample]) -> String {
    let (took, cpu) = (|sample: &Sample| sample.took.as_secs_f64(), |sample: &Sample| sample.cpu.as_secs_f64());
    format!(
        "{} | {:.2} | {} | {:.2} |",
        time(Duration::from_secs_f64(middle(own, took))),
        ratio(own, base, took),
        time(Duration::from_secs_f64(middle(own, cpu))),
        ratio(own, base, cpu),
    )
}

impl Kept {
    /// An engine with all keys, whose directory is beside those of others.
    fn new(fsync: Option<Fsync>, keys: &[Vec<u8>]) -> Outcome<Self> {
        let (engine, folder) = (Engine::new(EngineConfig::default()), tempfile::tempdir()?);
        let disk = fsync.map(|fsync| -> Outcome<Disk> {
            let rewrite = RewriteSchedule { growth_percent: 0, ..RewriteSchedule::default() };
            let config = DiskConfig { fsync, rewrite, ..DiskConfig::default() };
            let files = Files::create(folder.path().join("data"))?;
            Ok(Disk::open(Arc::new(files), &engine, config, NOW_MS)?.0)
        });
        let kept = Self { engine, disk: disk.transpose()?, _folder: folder };
        keys.iter().try_for_each(|key| kept.put(key))?;
        kept.settle()?;
        Ok(kept)
    }

    fn put(&self, key: &[u8]) -> Outcome {
        Ok(self.engine.update(key, NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear))?)
    }

    /// Waits until all is on the disk.
    fn settle(&self) -> Outcome {
        self.disk.iter().try_for_each(|disk| disk.sync(DISK_TIMEOUT).map(drop))?;
        Ok(())
    }

    /// Each thread writes `writes` keys in an order of its own, and does `after` after each.
    fn measure(
        &self,
        keys: &[Vec<u8>],
        threads: usize,
        writes: usize,
        after: impl Fn(&Engine) -> Outcome + Sync,
    ) -> Outcome<Sample> {
        settle_disk()?;
        let cpu_before = machine::cpu_time("self").ok_or("the processor time is unknown")?;
        let begin = Instant::now();
        let work = |thread: usize| {
            memory::walk(thread, keys.len()).take(writes).try_for_each(|at| {
                self.put(&keys[at])?;
                after(&self.engine)
            })
        };
        thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread that writes panicked")?)
        })?;
        let took = begin.elapsed();
        self.settle()?;
        let cpu = machine::cpu_time("self").ok_or("the processor time is unknown")?.saturating_sub(cpu_before);
        let writes = u32::try_from(writes)?;
        Ok(Sample { took: took / writes, cpu: cpu / (writes * u32::try_from(threads)?) })
    }
}
