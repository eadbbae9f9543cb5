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
use tokio::runtime::Builder;

use crate::Outcome;
use crate::report;
use crate::rounds::{Contestant, compare, median};

const CYCLES: u32 = 200_000;
const LEASE: Duration = Duration::from_secs(30);
/// What the naive lock sleeps when it finds the lock taken.
const POLL: Duration = Duration::from_millis(50);
/// Acquisitions per waiter in one round. Few: the naive lock needs seconds for them.
const TURNS: usize = 4;

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(rounds: usize) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
    println!("## Uncontended: {CYCLES} cycles per round, {rounds} rounds\n");
    report::head("DashMap");
    let (dash, moka) = (DashMap::new(), moka::sync::Cache::new(1_000));
    let cycles = vec![
        Contestant::new("flag in DashMap", || {
            flags(|key| drop(dash.entry(key).or_insert(())), |key| _ = dash.remove(key))
        }),
        Contestant::new("flag in moka", || {
            flags(|key| drop(moka.entry(key).or_insert(())), |key| moka.invalidate(key))
        }),
        Contestant::new("lock_acquire + lock_release", || runtime.block_on(operations(&store))),
        Contestant::new("LockGuard: try_lock + release", || runtime.block_on(guards(&State::new(store.clone())))),
    ];
    report::rows("lock + release", &compare(cycles, rounds));
    println!("\n## Contended: {TURNS} turns per waiter, an empty section, medians of {rounds} rounds\n");
    println!("| waiters | lock | turns per second | mean wait | worst wait | worst / mean |");
    println!("|---:|---|---:|---:|---:|---:|");
    for waiters in [16, 256] {
        let mut waited: Vec<Waits> = Vec::new();
        let mut polled: Vec<Waits> = Vec::new();
        for _ in 0..rounds {
            waited.push(runtime.block_on(contend(&store, waiters, false))?);
            // The naive lock takes tens of seconds with many waiters: fewer rounds tell enough.
            if polled.len() < rounds.min(3) {
                polled.push(runtime.block_on(contend(&store, waiters, true))?);
            }
        }
        row(waiters, "this", &waited);
        row(waiters, "polling every 50 ms", &polled);
    }
    Ok(())
}

/// The bare map work of a lock and its release.
fn flags(set: impl Fn(Vec<u8>), clear: impl Fn(&[u8])) -> Duration {
    let key = b"acteon:bench:acme:lock:flag".to_vec();
    let started = Instant::now();
    for _ in 0..CYCLES {
        set(key.clone());
        clear(&key);
    }
    started.elapsed() / CYCLES
}

async fn operations(store: &Arc<dyn StateStore>) -> Duration {
    let key = expect(StateKey::new("bench", "acme", "lock", "operations"));
    let started = Instant::now();
    for _ in 0..CYCLES {
        let request = LockRequest::new(key.clone(), LEASE);
        expect(store.lock_acquire(&request).await);
        expect(store.lock_release(&key, request.owner).await);
    }
    started.elapsed() / CYCLES
}

async fn guards(state: &State) -> Duration {
    let key = expect(StateKey::new("bench", "acme", "lock", "guards"));
    let started = Instant::now();
    for _ in 0..CYCLES {
        let guard = expect(state.try_lock(&key, LEASE).await).acquired();
        expect(guard.expect("nobody else asks for it").release().await);
    }
    started.elapsed() / CYCLES
}

struct Waits {
    turns_per_second: f64,
    mean: Duration,
    worst: Duration,
}

async fn contend(store: &Arc<dyn StateStore>, waiters: usize, poll: bool) -> Outcome<Waits> {
    let state = State::new(store.clone());
    let key = StateKey::new("bench", "acme", "lock", "contended")?;
    let started = Instant::now();
    let tasks: Vec<_> = (0..waiters).map(|_| tokio::spawn(take_turns(state.clone(), key.clone(), poll))).collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let total: Duration = waits.iter().sum();
    Ok(Waits {
        turns_per_second: waits.len() as f64 / started.elapsed().as_secs_f64(),
        mean: total / u32::try_from(waits.len())?,
        worst: waits.iter().copied().max().unwrap_or_default(),
    })
}

async fn take_turns(state: State, key: StateKey, poll: bool) -> acteon_state_core::Result<Vec<Duration>> {
    let mut waits = Vec::new();
    let wait = if poll { Duration::ZERO } else { Duration::from_secs(600) };
    for _ in 0..TURNS {
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

fn row(waiters: usize, name: &str, waits: &[Waits]) {
    let turns = median(waits.iter().map(|waits| waits.turns_per_second).collect());
    let mean = median(waits.iter().map(|waits| waits.mean).collect());
    let worst = median(waits.iter().map(|waits| waits.worst).collect());
    let spread = worst.as_secs_f64() / mean.as_secs_f64();
    println!("| {waiters} | {name} | {turns:.0} | {} | {} | {spread:.1} |", report::time(mean), report::time(worst));
}

fn expect<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("an operation failed while being measured: {error}"))
}
