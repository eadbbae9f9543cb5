//! How long a client waits that asks a thousand times a second, while the server is busy with something large.
//!
//! Whatever keeps the machine busy is in these figures, also the load itself; the idle server beside it shows what is the machine's own.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Options;
use super::load::{self, Load, set_keys};
use super::probe::{self, Probe, Waits};
use super::servers::Server;
use crate::Outcome;
use crate::report::time;
use crate::rounds::median;

const VALUE_BYTES: usize = 64;
/// Keys that are written per second while growing: a fraction of what either server can, so that it is the growing that is seen.
const GROWTH_PER_SECOND: usize = 200_000;
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
    /// Returns what was seen, and how long it took.
    run: fn(&Server, &Options<'_>) -> Outcome<(Waits, Duration)>,
}

/// In an order in which none is a burden for the next.
const PHASES: &[Phase] = &[
    Phase { name: "idle", run: idle },
    Phase { name: "keys that expire at once", run: expire },
    Phase { name: "deletion of a large set", run: delete_set },
    Phase { name: "growth", run: grow },
];

const SERVERS: [&str; 3] = ["redis", "engine", "engine, 2 threads"];

pub(super) fn run(options: &Options<'_>) -> Outcome {
    let phases: Vec<_> = PHASES.iter().filter(|phase| options.includes("pauses", phase.name)).collect();
    if phases.is_empty() {
        return Ok(());
    }
    let mut seen: Vec<[Vec<(Waits, Duration)>; 3]> = phases.iter().map(|_| Default::default()).collect();
    for round in 0..options.rounds {
        for turn in 0..SERVERS.len() {
            let at = (round + turn) % SERVERS.len();
            let server = start(at, options)?;
            for (phase, seen) in phases.iter().zip(&mut seen) {
                eprintln!("pauses: round {} of {}: {}: {}", round + 1, options.rounds, SERVERS[at], phase.name);
                seen[at].push((phase.run)(&server, options)?);
            }
        }
    }
    println!(
        "\nGrowth to {} keys, {GROWTH_PER_SECOND} per second; {} keys that expire at the same millisecond; DEL of a set of as many members; \
         medians of {} rounds\n",
        options.keys_max,
        options.scaled(MANY),
        options.rounds
    );
    println!("| a GET each millisecond during | server | p50 | p99 | p99.9 | max | took |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for (phase, seen) in phases.iter().zip(&seen) {
        for (server, seen) in SERVERS.iter().zip(seen) {
            row(phase.name, server, seen);
        }
    }
    Ok(())
}

fn start(at: usize, options: &Options<'_>) -> Outcome<Server> {
    if at == 0 { Server::redis() } else { Server::engine(options.program, at) }
}

fn row(phase: &str, server: &str, seen: &[(Waits, Duration)]) {
    let middle = |value: fn(&(Waits, Duration)) -> Duration| time(median(seen.iter().map(value).collect()));
    println!(
        "| {phase} | {server} | {} | {} | {} | {} | {} |",
        middle(|(waits, _)| waits.p50),
        middle(|(waits, _)| waits.p99),
        middle(|(waits, _)| waits.p999),
        middle(|(waits, _)| waits.max),
        middle(|(_, took)| *took),
    );
}

fn idle(server: &Server, options: &Options<'_>) -> Outcome<(Waits, Duration)> {
    let time = Duration::from_secs(options.scaled(10) as u64);
    let probe = Probe::start(server)?;
    sleep(time);
    Ok((probe.finish()?, time))
}

fn grow(server: &Server, options: &Options<'_>) -> Outcome<(Waits, Duration)> {
    let load = Load { requests: options.keys_max, per_second: Some(GROWTH_PER_SECOND), reply: b"+OK\r\n" };
    let (probe, begin) = (Probe::start(server)?, Instant::now());
    set_keys(server, &load, VALUE_BYTES, &[])?;
    let took = begin.elapsed();
    Ok((probe.finish()?, took))
}

/// Takes from the moment of expiry until the keys are removed. They cannot be read any more from that moment on.
fn expire(server: &Server, options: &Options<'_>) -> Outcome<(Waits, Duration)> {
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

fn delete_set(server: &Server, options: &Options<'_>) -> Outcome<(Waits, Duration)> {
    let load = Load { requests: options.scaled(MANY), per_second: None, reply: b":1\r\n" };
    load.run(server, |out: &mut dyn Write, number| {
        write!(out, "*3\r\n$4\r\nSADD\r\n$5\r\nlarge\r\n$15\r\nmember:{number:08}\r\n")
    })?;
    let probe = Probe::start(server)?;
    sleep(MARGIN);
    let begin = Instant::now();
    server.ask::<usize>(&["DEL", "large"])?;
    let took = begin.elapsed();
    sleep(MARGIN);
    Ok((probe.finish()?, took))
}
