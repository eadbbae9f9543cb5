//! Locks in process: one lock and release, beside a flag in a bare map; and how long waiters wait, beside a lock that polls
//! every 50 ms.
//!
//! The flag in a map (insert if absent, remove) has no owner, no lease, no token and no waiters: it is what the map work alone
//! costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_state_core::{LockOptions, LockRequest, State, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use dashmap::DashMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

use crate::report::{Chart, Goal, Group, Report, Scale, time};
use crate::rounds::{Contestant, compare, median};
use crate::{Options, Outcome};

const CYCLES: usize = 200_000;
const LEASE: Duration = Duration::from_secs(30);
/// What the naive lock sleeps when it finds the lock taken.
const POLL: Duration = Duration::from_millis(50);
/// Acquisitions per waiter in one round: enough that a moment in which the machine stands still is not all that is seen.
const TURNS: usize = 64;
/// The same with the naive lock, which needs seconds for them.
const TURNS_POLLING: usize = 4;

/// What a lock of the store is called in the tables.
const CYCLE: &str = "lock_acquire + lock_release";

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
    let cycle = uncontended(&runtime, &store, options, report);
    let contended = contended(&runtime, &store, options.rounds, report)?;
    report.goal(Goal::at_most("lock and release, uncontended", 1_000.0, " ns").case("", cycle.as_nanos() as f64));
    for (waiters, ours, polling) in &contended {
        let turns = ours.per_second / polling.per_second;
        report.goal(Goal::at_least(format!("{waiters} waiters: turns to polling"), 20.0, "x").case("", turns));
        report.goal(
            Goal::at_most(format!("{waiters} waiters: worst wait to the mean"), 5.0, "x").case("", ours.spread()),
        );
    }
    chart(&contended, report);
    Ok(())
}

/// Returns the time of a lock and its release.
fn uncontended(runtime: &Runtime, store: &Arc<dyn StateStore>, options: &Options<'_>, report: &mut Report) -> Duration {
    let (cycles, rounds) = (options.scaled(CYCLES), options.rounds);
    report.line(format_args!("## Uncontended\n\n{cycles} cycles per round, medians of {rounds} rounds."));
    report.standings_table("DashMap");
    let (dash, moka) = (DashMap::new(), moka::sync::Cache::new(1_000));
    let contestants = vec![
        Contestant::new("flag in DashMap", || {
            flags(cycles, |key| drop(dash.entry(key).or_insert(())), |key| _ = dash.remove(key))
        }),
        Contestant::new("flag in moka", || {
            flags(cycles, |key| drop(moka.entry(key).or_insert(())), |key| moka.invalidate(key))
        }),
        Contestant::new(CYCLE, || runtime.block_on(operations(store, cycles))),
        Contestant::new("LockGuard: try_lock + release", || {
            runtime.block_on(guards(&State::new(store.clone()), cycles))
        }),
    ];
    let standings = compare(contestants, rounds);
    report.standings("lock + release", &standings);
    standings.iter().find(|standing| standing.name == CYCLE).map(|standing| standing.median).unwrap_or_default()
}

/// Returns the medians of both locks for each number of waiters.
fn contended(
    runtime: &Runtime,
    store: &Arc<dyn StateStore>,
    rounds: usize,
    report: &mut Report,
) -> Outcome<Vec<(usize, Waits, Waits)>> {
    report.line(format_args!(
        "\n## Contended\n\n{TURNS} turns per waiter, {TURNS_POLLING} with the polling lock; an empty section, medians of {rounds} rounds."
    ));
    report.table(&["waiters", "lock", "turns per second", "mean wait", "worst wait", "worst / mean"], 2);
    let mut all = Vec::new();
    for waiters in [16, 256] {
        eprintln!("lock: {waiters} waiters");
        let mut waited: Vec<Waits> = Vec::new();
        let mut polled: Vec<Waits> = Vec::new();
        for _ in 0..rounds {
            waited.push(runtime.block_on(contend(store, waiters, false))?);
            // The naive lock takes tens of seconds with many waiters: fewer rounds tell enough.
            if polled.len() < rounds.min(3) {
                polled.push(runtime.block_on(contend(store, waiters, true))?);
            }
        }
        let (ours, polling) = (Waits::medians(&waited), Waits::medians(&polled));
        ours.row(waiters, "this", report);
        polling.row(waiters, "polling every 50 ms", report);
        all.push((waiters, ours, polling));
    }
    Ok(all)
}

fn chart(contended: &[(usize, Waits, Waits)], report: &mut Report) {
    let group = |(waiters, ours, polling): &(usize, Waits, Waits)| Group {
        label: format!("{waiters} waiters"),
        values: vec![Some(ours.per_second), Some(polling.per_second)],
        goal: Some(20.0 * polling.per_second),
    };
    report.chart(Chart {
        name: "",
        title: "Waiters on one lock in process".to_owned(),
        axis: "turns per second, logarithmic",
        scale: Scale::Log,
        series: vec!["this".to_owned(), "polling every 50 ms".to_owned()],
        groups: contended.iter().map(group).collect(),
    });
}

/// The bare map work of a lock and its release.
fn flags(cycles: usize, set: impl Fn(Vec<u8>), clear: impl Fn(&[u8])) -> Duration {
    let key = b"acteon:bench:acme:lock:flag".to_vec();
    let started = Instant::now();
    for _ in 0..cycles {
        set(key.clone());
        clear(&key);
    }
    started.elapsed().div_f64(cycles as f64)
}

async fn operations(store: &Arc<dyn StateStore>, cycles: usize) -> Duration {
    let key = expect(StateKey::new("bench", "acme", "lock", "operations"));
    let started = Instant::now();
    for _ in 0..cycles {
        let request = LockRequest::new(key.clone(), LEASE);
        expect(store.lock_acquire(&request).await);
        expect(store.lock_release(&key, request.owner).await);
    }
    started.elapsed().div_f64(cycles as f64)
}

async fn guards(state: &State, cycles: usize) -> Duration {
    let key = expect(StateKey::new("bench", "acme", "lock", "guards"));
    let started = Instant::now();
    for _ in 0..cycles {
        let guard = expect(state.try_lock(&key, LEASE).await).acquired();
        expect(guard.expect("nobody else asks for it").release().await);
    }
    started.elapsed().div_f64(cycles as f64)
}

struct Waits {
    per_second: f64,
    mean: Duration,
    worst: Duration,
}

async fn contend(store: &Arc<dyn StateStore>, waiters: usize, poll: bool) -> Outcome<Waits> {
    let state = State::new(store.clone());
    let key = StateKey::new("bench", "acme", "lock", "contended")?;
    // All begin at once: otherwise the first ones are through before the last ones are there, and nobody waits.
    let start = Arc::new(Barrier::new(waiters));
    let started = Instant::now();
    let tasks: Vec<_> = (0..waiters)
        .map(|_| {
            let (start, turns) = (start.clone(), take_turns(state.clone(), key.clone(), poll));
            tokio::spawn(async move {
                start.wait().await;
                turns.await
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let total: Duration = waits.iter().sum();
    Ok(Waits {
        per_second: waits.len() as f64 / started.elapsed().as_secs_f64(),
        mean: total / u32::try_from(waits.len())?,
        worst: waits.iter().copied().max().unwrap_or_default(),
    })
}

async fn take_turns(state: State, key: StateKey, poll: bool) -> acteon_state_core::Result<Vec<Duration>> {
    let mut waits = Vec::new();
    let (turns, wait) = if poll { (TURNS_POLLING, Duration::ZERO) } else { (TURNS, Duration::from_secs(600)) };
    for _ in 0..turns {
        let started = Instant::now();
        let guard = loop {
            match state.lock(&key, &LockOptions::new(LEASE).wait(wait)).await?.acquired() {
                Some(guard) => break guard,
                None => tokio::time::sleep(POLL).await,
            }
        };
        waits.push(started.elapsed());
        tokio::task::yield_now().await;
        guard.release().await?;
    }
    Ok(waits)
}

impl Waits {
    fn medians(of: &[Self]) -> Self {
        Self {
            per_second: median(of.iter().map(|waits| waits.per_second).collect()),
            mean: median(of.iter().map(|waits| waits.mean).collect()),
            worst: median(of.iter().map(|waits| waits.worst).collect()),
        }
    }

    /// The worst wait beside the mean one.
    fn spread(&self) -> f64 {
        self.worst.as_secs_f64() / self.mean.as_secs_f64()
    }

    fn row(&self, waiters: usize, name: &str, report: &mut Report) {
        let Self { per_second, mean, worst } = self;
        let (mean, worst, spread) = (time(*mean), time(*worst), self.spread());
        report.line(format_args!("| {waiters} | {name} | {per_second:.0} | {mean} | {worst} | {spread:.1} |"));
    }
}

fn expect<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("an operation failed while being measured: {error}"))
}
