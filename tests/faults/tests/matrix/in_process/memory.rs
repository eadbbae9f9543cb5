//! The memory driver. Its clients are in the process, so they are not killed: their calls are dropped, and whole clients with them.
//!
//! With a directory, all clients are dropped at once, in the middle of their calls, and others go on over what a crash at that moment would have left: a
//! copy of the directory as it is then, while the store that it belongs to is still open and has closed nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acteon_faults::job::Job;
use acteon_faults::log::{Log, Logged, now_ns, read};
use acteon_faults::{Random, SEED_VARIABLE, seed};
use acteon_state::State;
use acteon_state_conformance::objects::{Loss, Uncertainty};
use acteon_state_core::clock::SeededClock;
use acteon_state_memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::account::Account;
use crate::bench::Bench;
use crate::clients::{CLIENTS, job};
use crate::row::{Fault, Harm, Losses, Traits, folder as folder_of_drawings, time_given};

const DROPPED: Fault = Fault::new("dropped calls and clients", Harm::ClientKilled);
const REOPENED: Fault = Fault::new("a crash, and its directory opened again", Harm::Crash);
/// Shorter than many waits for a lock, so that they are dropped.
const PATIENCE_MS: u64 = 4;
const RUN: Duration = Duration::from_millis(1_500);
/// At least.
const ROUNDS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_driver_keeps_what_it_declares() {
    let (seed, mut account) = (seed(), Account::new("memory"));
    println!("memory: {SEED_VARIABLE}={seed} repeats the schedule");
    let mut random = Random::new(seed);
    let until = time_given().map(|time| Instant::now() + time);
    let mut rounds = 0;
    while rounds < ROUNDS || until.is_some_and(|until| Instant::now() < until) {
        rounds += 1;
        let store = MemoryStore::default();
        account.topology = State::new(Arc::new(store.handle())).lock_semantics().topology;
        let logged = record(&store, random.number()).await;
        let bench = Bench {
            uncertainty: Uncertainty::default(),
            traits: Traits::default(),
            losses: Losses::default(),
            seed,
            folder: &folder_of_drawings(),
        };
        account.add(&DROPPED, Ok(bench.judge(logged, Loss { from: now_ns(), until: now_ns() })));
        println!("memory: {rounds} {}: {}", DROPPED.name, account.progress());
    }
    account.finish(seed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_driver_with_a_directory_keeps_what_it_declares() {
    let (seed, mut account) = (seed(), Account::new("memory with a directory"));
    println!("memory with a directory: {SEED_VARIABLE}={seed} repeats the schedule");
    let mut random = Random::new(seed);
    let until = time_given().map(|time| Instant::now() + time);
    let mut rounds = 0;
    while rounds < ROUNDS || until.is_some_and(|until| Instant::now() < until) {
        rounds += 1;
        let (folder, clock) = (TempDir::new().expect("a folder"), Arc::new(SeededClock::new()));
        let store = open(&folder.path().join("before"), &clock);
        let state = State::new(Arc::new(store.handle()));
        account.topology = state.lock_semantics().topology;
        let losses = Losses::of(&state, Traits::default(), REOPENED.harm);
        // A row in which everything may be lost would prove nothing.
        assert_eq!(losses, Losses::default(), "every write is synced");
        let (logged, span) = record_over_crash(store, folder.path(), &clock, random.number()).await;
        let (uncertainty, traits, folder) = (Uncertainty::default(), Traits::default(), folder_of_drawings());
        let bench = Bench { uncertainty, traits, losses, seed, folder: &folder };
        account.add(&REOPENED, Ok(bench.judge(logged, span)));
        println!("memory with a directory: {rounds} {}: {}", REOPENED.name, account.progress());
    }
    account.finish(seed);
}

/// What clients were told before a crash, and others after it.
async fn record_over_crash(store: MemoryStore, folder: &Path, clock: &Arc<SeededClock>, seed: u64) -> (Logged, Loss) {
    let stop = Arc::new(AtomicBool::new(false));
    let client = |store: &MemoryStore, number| start_client(store, number, seed, folder, &stop);
    let (mut logs, clients): (Vec<PathBuf>, Vec<_>) = (0..CLIENTS).map(|number| client(&store, number)).unzip();
    tokio::time::sleep(RUN / 2).await;
    let from = now_ns();
    for client in clients {
        client.abort();
        let _ = client.await;
    }
    let after = folder.join("after");
    copy(&folder.join("before"), &after).expect("the directory can be copied");
    drop(store);
    let store = open(&after, clock);
    let until = now_ns();
    let (more, clients): (Vec<PathBuf>, Vec<_>) = (CLIENTS..2 * CLIENTS).map(|number| client(&store, number)).unzip();
    logs.extend(more);
    tokio::time::sleep(RUN / 2).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic").expect("no failure but those of faults");
    }
    (read(&logs).expect("the logs that were written"), Loss { from, until })
}

fn open(dir: &Path, clock: &Arc<SeededClock>) -> MemoryStore {
    let keep = KeepConfig { fsync: KeepFsync::Always, ..KeepConfig::new(dir) };
    let config = MemoryConfig { keep: Some(keep), ..MemoryConfig::default() };
    MemoryStore::open_with_clock(&config, clock.clone()).unwrap_or_else(|error| panic!("{error}"))
}

/// Copies the files of a directory: what a crash would have left of them.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What clients over handles of one store were told, of which one after the other was dropped.
async fn record(store: &MemoryStore, seed: u64) -> Logged {
    let (folder, stop) = (TempDir::new().expect("a folder"), Arc::new(AtomicBool::new(false)));
    let start = |number| start_client(store, number, seed, folder.path(), &stop);
    let (logs, mut clients): (Vec<PathBuf>, Vec<_>) = (0..2 * CLIENTS).map(start).unzip();
    for client in clients.drain(..CLIENTS as usize) {
        tokio::time::sleep(RUN / (2 * CLIENTS)).await;
        client.abort();
        let _ = client.await;
    }
    tokio::time::sleep(RUN / 2).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic").expect("no failure but those of faults");
    }
    read(&logs).expect("the logs that were written")
}

/// A client with a handle of its own, and the log of all that it asks.
fn start_client(
    store: &MemoryStore,
    number: u32,
    seed: u64,
    folder: &Path,
    stop: &Arc<AtomicBool>,
) -> (PathBuf, JoinHandle<acteon_state_core::Result<BTreeMap<&'static str, u64>>>) {
    let job = job(String::new(), "faults:matrix:object:scope".to_owned(), seed + u64::from(number), 60);
    let job =
        Job { first_process: number * job.tasks, patience_ms: PATIENCE_MS, lifetime_ms: 20, pause_max_ms: 2, ..job };
    let log = folder.join(format!("{number}.jsonl"));
    let (writing, state) = (Log::create(&log).expect("a file"), State::new(Arc::new(store.handle())));
    let stop = stop.clone();
    (log, tokio::spawn(async move { job.run_over(&state, &writing, stop).await }))
}
