//! How long a client waits that asks a thousand times a second, while the server is busy with something large.
//!
//! Rewriting and saving are looked at on servers that keep a journal, synced each second, while others write at a fixed rate; the same writes
//! without them stand beside. redis-server forks, so that its pauses are those of fork and of copying pages; the engine has no second process.
//!
//! Whatever keeps the machine busy is in these figures, also the load itself; the idle server beside it shows what is the machine's own.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Options;
use super::job::Job;
use super::load::{self, Load, set_keys};
use super::probe::{self, Probe, Waits};
use super::servers::{Fsync, Keeps, Program, Server, Setup};
use crate::Outcome;
use crate::report::{Chart, Goal, Group, Report, Scale, time};
use crate::rounds::median;

const VALUE_BYTES: usize = 64;
/// Keys that are written per second while growing: a fraction of what either server can, so that it is the growing that is seen.
const GROWTH_PER_SECOND: usize = 200_000;
/// Writes per second that each evict a key.
const EVICTING_PER_SECOND: usize = 100_000;
/// Writes per second while data are saved.
const WRITES_PER_SECOND: usize = 20_000;
/// Keys that expire at once, and members of the set that is deleted.
const MANY: usize = 1_000_000;
/// From writing them to the moment when they expire: time to write them all.
const EXPIRY_LEAD: Duration = Duration::from_secs(8);
/// Time for them to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(120);
const GONE_POLL: Duration = Duration::from_millis(50);
/// Before and after a moment that is looked at.
const MARGIN: Duration = Duration::from_millis(500);

/// Something that is done while a client asks.
struct Phase {
    name: &'static str,
    keeps: Keeps,
    /// Returns what was seen, and how long it took.
    run: fn(&Place<'_>) -> Outcome<(Waits, Duration)>,
}

/// Where it is done.
struct Place<'a> {
    server: &'a Server,
    program: Program<'a>,
    options: &'a Options<'a>,
}

const JOURNAL: Keeps = Keeps::Journal(Fsync::EverySecond);

/// In an order in which none is a burden for the next; those with the same server follow each other.
const PHASES: &[Phase] = &[
    Phase { name: IDLE, keeps: Keeps::Nothing, run: idle },
    Phase { name: "keys that expire at once", keeps: Keeps::Nothing, run: expire },
    Phase { name: "deletion of a large set", keeps: Keeps::Nothing, run: delete_set },
    Phase { name: "UNLINK of a large set", keeps: Keeps::Nothing, run: unlink_set },
    Phase { name: "FLUSHALL ASYNC", keeps: Keeps::Nothing, run: flush },
    Phase { name: "eviction", keeps: Keeps::Nothing, run: evict },
    Phase { name: "growth", keeps: Keeps::Nothing, run: grow },
    Phase { name: "writes to a journal", keeps: JOURNAL, run: write },
    Phase { name: "snapshot", keeps: JOURNAL, run: save },
    Phase { name: "rewrite", keeps: JOURNAL, run: rewrite },
];

/// What is the machine's own.
const IDLE: &str = "idle";

const SERVERS: [&str; 3] = ["redis", "engine", "engine, 2 threads"];

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let phases: Vec<_> = PHASES.iter().filter(|phase| options.includes("pauses", phase.name)).collect();
    if phases.is_empty() {
        return Ok(());
    }
    let mut seen: Vec<[Vec<(Waits, Duration)>; 3]> = phases.iter().map(|_| Default::default()).collect();
    for round in 0..options.rounds {
        for turn in 0..SERVERS.len() {
            let at = (round + turn) % SERVERS.len();
            let seen: Vec<_> = seen.iter_mut().map(|seen| &mut seen[at]).collect();
            one_round(at, &phases, seen, options)?;
        }
    }
    report.line(format_args!(
        "\n## Pauses\n\nGrowth to {} keys, {GROWTH_PER_SECOND} per second; {many} keys that expire at the same millisecond; a set of {many} members; \
         FLUSHALL ASYNC, eviction, snapshot and rewrite of {many} keys, {EVICTING_PER_SECOND} writes per second that each evict, \
         {WRITES_PER_SECOND} to the journal (fsync everysec); medians of {} rounds.",
        options.keys_max,
        options.rounds,
        many = options.scaled(MANY),
    ));
    report.table(&["a GET each millisecond during", "server", "p50", "p99", "p99.9", "max", "took"], 2);
    let mut all = Vec::new();
    for (phase, seen) in phases.iter().zip(&seen) {
        let waits = [0, 1, 2].map(|at| row(phase.name, SERVERS[at], &seen[at], report));
        all.push((phase.name, waits));
    }
    goals(&all, report);
    chart(&all, report);
    Ok(())
}

/// The medians of redis-server, of the engine with one thread, and with two.
type Row = (&'static str, [Waits; 3]);

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn goals(all: &[Row], report: &mut Report) {
    let Some((_, [_, idle, _])) = all.iter().find(|(phase, _)| *phase == IDLE) else { return };
    let busy = || all.iter().filter(|(phase, _)| *phase != IDLE);
    let above = busy().map(|(phase, [_, engine, _])| (*phase, ms(engine.max) - ms(idle.max)));
    report.goal(Goal::at_most("longest wait above idle", 2.0, " ms").cases(above));
    let to_redis = busy().map(|(phase, [redis, engine, _])| (*phase, ms(engine.p999) / ms(redis.p999)));
    report.goal(Goal::at_most("p99.9 to that of redis-server", 1.0, "x").cases(to_redis));
}

fn chart(all: &[Row], report: &mut Report) {
    let group = |(phase, waits): &Row| Group {
        label: (*phase).to_owned(),
        values: waits.iter().map(|waits| Some(ms(waits.max))).collect(),
        goal: None,
    };
    report.chart(Chart {
        name: "pauses",
        title: "The longest wait of a client that asks a thousand times a second".to_owned(),
        axis: "milliseconds, logarithmic",
        scale: Scale::Log,
        series: SERVERS.map(str::to_owned).to_vec(),
        groups: all.iter().map(group).collect(),
    });
}

/// All phases on one server, and on another one where they need it to keep something else.
fn one_round(at: usize, phases: &[&Phase], seen: Vec<&mut Vec<(Waits, Duration)>>, options: &Options<'_>) -> Outcome {
    let program = if at == 0 { Program::Redis } else { Program::Engine { program: options.program, threads: at } };
    let mut running: Option<(Keeps, Server)> = None;
    for (phase, seen) in phases.iter().zip(seen) {
        let server = match running.take() {
            Some((keeps, server)) if keeps == phase.keeps => server,
            _ => Setup { program, keeps: phase.keeps }.start()?,
        };
        eprintln!("pauses: {}: {}", SERVERS[at], phase.name);
        seen.push((phase.run)(&Place { server: &server, program, options })?);
        running = Some((phase.keeps, server));
    }
    Ok(())
}

fn row(phase: &str, server: &str, seen: &[(Waits, Duration)], report: &mut Report) -> Waits {
    let middle = |value: fn(&(Waits, Duration)) -> Duration| median(seen.iter().map(value).collect());
    let waits = Waits {
        p50: middle(|(waits, _)| waits.p50),
        p99: middle(|(waits, _)| waits.p99),
        p999: middle(|(waits, _)| waits.p999),
        max: middle(|(waits, _)| waits.max),
    };
    let [p50, p99, p999, max] = [waits.p50, waits.p99, waits.p999, waits.max].map(time);
    let took = time(middle(|(_, took)| *took));
    report.line(format_args!("| {phase} | {server} | {p50} | {p99} | {p999} | {max} | {took} |"));
    waits
}

fn idle(Place { server, options, .. }: &Place<'_>) -> Outcome<(Waits, Duration)> {
    let time = Duration::from_secs(options.scaled(10) as u64);
    let probe = Probe::start(server)?;
    sleep(time);
    Ok((probe.finish()?, time))
}

fn grow(Place { server, options, .. }: &Place<'_>) -> Outcome<(Waits, Duration)> {
    let load = Load { requests: options.keys_max, per_second: Some(GROWTH_PER_SECOND), reply: b"+OK\r\n" };
    let (probe, begin) = (Probe::start(server)?, Instant::now());
    set_keys(server, &load, VALUE_BYTES, &[])?;
    let took = begin.elapsed();
    Ok((probe.finish()?, took))
}

/// Takes from the moment of expiry until the keys are removed. They cannot be read any more from that moment on.
fn expire(Place { server, options, .. }: &Place<'_>) -> Outcome<(Waits, Duration)> {
    let deadline = SystemTime::now() + EXPIRY_LEAD;
    let deadline_ms = deadline.duration_since(UNIX_EPOCH)?.as_millis().to_string();
    load::fill(server, options.scaled(MANY), VALUE_BYTES, &["PXAT", &deadline_ms])?;
    let lead = deadline.duration_since(SystemTime::now()).map_err(|_| "writing the keys took too long")?;
    sleep(lead.saturating_sub(MARGIN));
    let probe = Probe::start(server)?;
    sleep(deadline.duration_since(SystemTime::now()).unwrap_or_default());
    let begin = Instant::now();
    while server.ask::<usize>(&["DBSIZE"])? > probe::KEYS {
        if begin.elapsed() > GONE_TIMEOUT {
            return Err(format!("keys are there {GONE_TIMEOUT:?} after they expired").into());
        }
        sleep(GONE_POLL);
    }
    let took = begin.elapsed();
    sleep(MARGIN);
    Ok((probe.finish()?, took))
}

fn delete_set(place: &Place<'_>) -> Outcome<(Waits, Duration)> {
    remove_set(place, "DEL")
}

fn unlink_set(place: &Place<'_>) -> Outcome<(Waits, Duration)> {
    remove_set(place, "UNLINK")
}

/// Takes until the reply; what is freed after it falls into what is looked at as well.
fn remove_set(Place { server, options, .. }: &Place<'_>, command: &str) -> Outcome<(Waits, Duration)> {
    let load = Load { requests: options.scaled(MANY), per_second: None, reply: b":1\r\n" };
    load.run(server, |out: &mut dyn Write, number| {
        write!(out, "*3\r\n$4\r\nSADD\r\n$5\r\nlarge\r\n$15\r\nmember:{number:08}\r\n")
    })?;
    let probe = Probe::start(server)?;
    sleep(MARGIN);
    let begin = Instant::now();
    server.ask::<usize>(&[command, "large"])?;
    let took = begin.elapsed();
    sleep(MARGIN);
    Ok((probe.finish()?, took))
}

/// Takes until the reply, as [`remove_set`].
fn flush(Place { server, options, .. }: &Place<'_>) -> Outcome<(Waits, Duration)> {
    load::fill(server, options.scaled(MANY), VALUE_BYTES, &[])?;
    let probe = Probe::of_nothing(server)?;
    sleep(MARGIN);
    let begin = Instant::now();
    server.ask::<String>(&["FLUSHALL", "ASYNC"])?;
    let took = begin.elapsed();
    sleep(MARGIN);
    Ok((probe.finish()?, took))
}

/// New keys are written while there is room for as many as there are. They have a time to live, and only such keys may go: those that are
/// asked for stay.
fn evict(Place { server, options, .. }: &Place<'_>) -> Outcome<(Waits, Duration)> {
    const TTL_S: &str = "1000000";
    let keys = options.scaled(MANY);
    load::fill(server, keys, VALUE_BYTES, &["EX", TTL_S])?;
    let probe = Probe::start(server)?;
    let bound_bytes = server.used_bytes()?.to_string();
    for (name, value) in [("maxmemory-policy", "volatile-lru"), ("maxmemory", &bound_bytes)] {
        server.ask::<String>(&["CONFIG", "SET", name, value])?;
    }
    let begin = Instant::now();
    let load = Load { requests: keys, per_second: Some(EVICTING_PER_SECOND), reply: b"+OK\r\n" };
    // Behind those that are there: each is a new key.
    let value = "x".repeat(VALUE_BYTES);
    load.run(server, |out: &mut dyn Write, number| {
        let number = keys + number;
        write!(
            out,
            "*5\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${VALUE_BYTES}\r\n{value}\r\n$2\r\nEX\r\n$7\r\n{TTL_S}\r\n"
        )
    })?;
    let (took, waits) = (begin.elapsed(), probe.finish()?);
    let evicted: usize = server.info("stats", "evicted_keys")?.parse()?;
    if evicted * 2 < keys {
        return Err(format!("{keys} keys were written above the bound, and only {evicted} were evicted").into());
    }
    server.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"])?;
    server.ask::<String>(&["FLUSHALL"])?;
    Ok((waits, took))
}

/// Nothing but the writes that go on during the next two.
fn write(place: &Place<'_>) -> Outcome<(Waits, Duration)> {
    let time = Duration::from_secs(place.options.scaled(10) as u64);
    during_writes(place, || {
        sleep(time);
        Ok(time)
    })
}

fn save(place: &Place<'_>) -> Outcome<(Waits, Duration)> {
    during_writes(place, || Job::Save.run(place.server, place.program))
}

fn rewrite(place: &Place<'_>) -> Outcome<(Waits, Duration)> {
    during_writes(place, || Job::Rewrite.run(place.server, place.program))
}

/// Looks at `work`, and a moment before and after, while some keys of many are written again and again.
fn during_writes(
    Place { server, options, .. }: &Place<'_>,
    work: impl FnOnce() -> Outcome<Duration>,
) -> Outcome<(Waits, Duration)> {
    load::fill_varied(server, options.scaled(MANY), VALUE_BYTES)?;
    let probe = Probe::start(server)?;
    let is_over = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&is_over, server, options.scaled(MANY)));
        sleep(MARGIN);
        let took = work();
        sleep(MARGIN);
        is_over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        took
    })?;
    Ok((probe.finish()?, took))
}

/// Writes all over the keys, so that a snapshot meets writes everywhere.
fn write_until(is_over: &AtomicBool, server: &Server, keys: usize) -> Outcome {
    let mut random = SmallRng::seed_from_u64(0);
    let value = "y".repeat(VALUE_BYTES);
    // By short loads, between which it is seen that it is over.
    let load = Load { requests: WRITES_PER_SECOND / 10, per_second: Some(WRITES_PER_SECOND), reply: b"+OK\r\n" };
    while !is_over.load(Ordering::Relaxed) {
        load.run(server, |out: &mut dyn Write, _| {
            let number = random.random_range(0..keys);
            write!(out, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${VALUE_BYTES}\r\n{value}\r\n")
        })?;
    }
    Ok(())
}
