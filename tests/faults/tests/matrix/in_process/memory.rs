//! The memory driver. Its clients are in the process, so they are not killed: their calls are dropped, and whole clients with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acteon_faults::job::Job;
use acteon_faults::log::{Log, now_ns, read};
use acteon_faults::{Random, SEED_VARIABLE, seed};
use acteon_state::State;
use acteon_state_conformance::objects::{Loss, Uncertainty};
use acteon_state_memory::MemoryStore;
use tempfile::TempDir;

use crate::account::Account;
use crate::bench::Bench;
use crate::clients::{CLIENTS, job};
use crate::row::{Fault, Harm, Losses, Traits, folder, time_given};

const DROPPED: Fault = Fault::new("dropped calls and clients", Harm::ClientKilled);
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
            folder: &folder(),
        };
        account.add(&DROPPED, Ok(bench.judge(logged, Loss { from: now_ns(), until: now_ns() })));
        println!("memory: {rounds} {}: {}", DROPPED.name, account.progress());
    }
    account.finish(seed);
}

/// What clients over handles of one store were told, of which one after the other was dropped.
async fn record(store: &MemoryStore, seed: u64) -> acteon_faults::log::Logged {
    let (folder, stop) = (TempDir::new().expect("a folder"), Arc::new(AtomicBool::new(false)));
    let (mut logs, mut clients) = (Vec::new(), Vec::new());
    for number in 0..2 * CLIENTS {
        let job = job(String::new(), "faults:matrix:object:scope".to_owned(), seed + u64::from(number), 60);
        let job = Job {
            first_process: number * job.tasks,
            patience_ms: PATIENCE_MS,
            lifetime_ms: 20,
            pause_max_ms: 2,
            ..job
        };
        let log = folder.path().join(number.to_string());
        let (writing, state) = (Log::create(&log).expect("a file"), State::new(Arc::new(store.handle())));
        logs.push(log);
        let stop = stop.clone();
        clients.push(tokio::spawn(async move { job.run_over(&state, &writing, stop).await }));
    }
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
