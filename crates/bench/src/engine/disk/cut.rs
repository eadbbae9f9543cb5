//! For how long a snapshot, and so a rewriting, keeps the keyspace: the cut, at which nobody gets in, and then some keys of a segment at a time.
//!
//! Measured in process, around what holds the locks: over a network, the pauses of a machine with few processors hide it.

use std::time::{Duration, Instant};

use acteon_engine::{Engine, EngineConfig, Expiry};

use super::super::Options;
use crate::Outcome;
use crate::report::{Goal, Report, time};

const VALUE: [u8; 64] = [b'x'; 64];
/// The engine's clock, which is not moved: nothing expires.
const NOW_MS: u64 = 1;
/// More rounds than asked for: each is short, and the longest of many is what counts.
const ROUNDS_FACTOR: usize = 10;

/// What was seen of snapshots.
#[derive(Default)]
struct Holds {
    cuts: Vec<Duration>,
    segments: Vec<Duration>,
    took: Vec<Duration>,
}

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    if !options.includes("disk", "cut") {
        return Ok(());
    }
    report.line(format_args!("\n## How long a snapshot holds locks\n\nIn process, values of {} bytes.", VALUE.len()));
    let columns =
        ["keys", "all locks, median", "longest", "one of them, median", "p99", "p99.9", "longest", "the snapshot took"];
    report.table(&columns, 0);
    let mut held = Vec::new();
    for keys in [options.keys, options.keys_max] {
        eprintln!("disk cut: {keys} keys");
        let Holds { mut cuts, mut segments, mut took } = Holds::measure(keys, options.rounds * ROUNDS_FACTOR)?;
        for times in [&mut cuts, &mut segments, &mut took] {
            times.sort_unstable();
        }
        held.push((format!("{keys} keys"), rank(&segments, 0.999).unwrap_or_default().as_secs_f64() * 1e3));
        report.line(format_args!(
            "| {keys} | {} | {} | {} | {} | {} | {} | {} |",
            at(&cuts, 0.5),
            at(&cuts, 1.0),
            at(&segments, 0.5),
            at(&segments, 0.99),
            at(&segments, 0.999),
            at(&segments, 1.0),
            at(&took, 0.5),
        ));
    }
    report.goal(Goal::at_most("a snapshot holds a part of the keys, p99.9", 1.0, " ms").cases(held));
    Ok(())
}

impl Holds {
    fn measure(keys: usize, rounds: usize) -> Outcome<Self> {
        let engine = Engine::new(EngineConfig::default());
        for number in 0..keys {
            let key = format!("key:{number:012}");
            engine.update(key.as_bytes(), NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear))?;
        }
        let mut holds = Self::default();
        for _ in 0..rounds {
            let began = Instant::now();
            let mut snapshot = engine.cut(NOW_MS, || ()).ok_or("another snapshot runs")?;
            holds.cuts.push(began.elapsed());
            loop {
                let piece_began = Instant::now();
                let Some(piece) = snapshot.next() else { break };
                holds.segments.push(piece_began.elapsed());
                drop(piece);
            }
            holds.took.push(began.elapsed());
        }
        Ok(holds)
    }
}

/// The value at a part of a sorted list, by nearest rank.
fn rank(sorted: &[Duration], part: f64) -> Option<Duration> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn at(sorted: &[Duration], part: f64) -> String {
    rank(sorted, part).map_or_else(|| "–".to_owned(), time)
}
