//! Many clients and waiters of one store, from a seed: driver and engine beside the reference model, without any real time.
//!
//! | variable | means |
//! |---|---|
//! | `ACTEON_SIMULATION_SEED` | the first seed, as a failure names it; default 0 |
//! | `ACTEON_SIMULATION_SEEDS` | how many seeds to run; default 60 |

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as such")]

use std::sync::Arc;
use std::time::Duration;

use acteon_state_conformance::Verdict;
use acteon_state_conformance::simulation::{self, Clocks};
use acteon_state_core::clock::ManualClock;
use acteon_state_memory::{MemoryConfig, MemoryStore};

const SEEDS: u64 = 60;
const STEPS: u32 = 400;
/// At a whole millisecond, so that times to live are exact.
const START_US: u64 = 1_767_225_600_000_000;

struct Time {
    clock: Arc<ManualClock>,
    store: MemoryStore,
    /// Whether the store is told that its clock was moved.
    tells: bool,
}

impl Clocks for Time {
    async fn advance(&self, store: Duration, patience: Duration) {
        self.clock.advance(store);
        if self.tells {
            self.store.tick();
        }
        tokio::time::advance(patience).await;
        // Timers that have fired wake on the way through the runtime.
        tokio::task::yield_now().await;
    }
}

/// The history of a seed.
fn history(seed: u64) -> String {
    simulate(seed, true).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Each run has a runtime of its own, whose clock stands still unless it is moved.
fn simulate(seed: u64, tells: bool) -> Verdict<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::new(START_US));
        let store = MemoryStore::open_with_clock(&MemoryConfig::default(), clock.clone()).unwrap();
        let time = Time { clock, store: store.clone(), tells };
        simulation::run(Arc::new(store), &time, seed, STEPS).await
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

#[test]
fn clients_waiters_and_clocks_do_what_the_model_does() {
    let first = number("ACTEON_SIMULATION_SEED", 0);
    let mut together = String::new();
    for seed in first..first + number("ACTEON_SIMULATION_SEEDS", SEEDS) {
        together += &history(seed);
    }
    // Otherwise too little was compared.
    for happened in ["is let in", "gives up", "goes away, let in: true", "goes away, let in: false", "AlreadyLost"] {
        assert!(together.contains(happened), "never: {happened}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_one_another() {
    for seed in 0..10 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
    }
    assert_ne!(history(0), history(1));
}

#[test]
fn a_store_that_leaves_waiters_asleep_is_found() {
    // It is not told that time goes on, so those whose turn has come are not let in.
    let failure = simulate(0, false).unwrap_err().to_string();
    assert!(failure.contains("seed 0, step") && failure.contains("expected: a grant"), "{failure}");
}
