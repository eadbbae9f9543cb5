//! The real server is killed at random moments under load, started again on the same directory, and asked what is still there.
//!
//! # What is proved
//! Several connections write over the protocol of Redis: strings, counters, lists, hashes, sets, sorted sets, times to live, transactions and
//! scripts over several keys, while the journal is rewritten and snapshots are taken. After each kill -9 the server must start, without an error in its
//! log, and:
//! - what each connection finds is what some beginning of its own steps leads to: nothing is missing in between, nothing is there that
//!   was never sent, every transaction and script is there as a whole or not at all, ends of keys are kept to the millisecond;
//! - under `always`, that beginning holds everything that was acknowledged; under `everysec` and `no`, all but what was acknowledged in the last moment;
//! - over all connections, nothing is there that was sent after something else had been acknowledged which is not.
//!
//! A server that is stopped by SIGTERM loses nothing under any setting. [`cuts`] cuts the journal at every byte of its last records, and
//! [`full_disk`] fills the disk.
//!
//! # How to run it
//! `cargo test -p acteon-engine-tests --test crashes` kills the server some hundred times. Environment:
//! - `ACTEON_TEST_SEEDS`: how many directories for each setting; 20 rounds in each.
//! - `ACTEON_TEST_SEED`: the first seed. A failure prints its own, and keeps its directory. The seed repeats what is asked; which request meets which moment is up to
//!   the machine.
//! - `ACTEON_TEST_SERVER`: another server than the one that was built beside the tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod cuts;
mod full_disk;
mod load;
mod model;
mod rounds;
mod seen;
mod steps;

use crate::rounds::{Fsync, Sums, run};

const SEED_VARIABLE: &str = "ACTEON_TEST_SEED";
const SEEDS_VARIABLE: &str = "ACTEON_TEST_SEEDS";

/// The number in a variable.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// One directory after the other, each from a seed of its own.
fn crashes(fsync: Fsync, directories: u64) {
    let first = number(SEED_VARIABLE).unwrap_or(1);
    let mut sums = Sums::default();
    for seed in first..first + number(SEEDS_VARIABLE).unwrap_or(directories) {
        let outcome = run(fsync, seed);
        sums = sums.and(outcome.unwrap_or_else(|wrong| panic!("{SEED_VARIABLE}={seed} {SEEDS_VARIABLE}=1: {wrong}")));
        println!("{}, up to seed {seed}: {sums}", fsync.name());
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_if_every_write_is_synced() {
    crashes(Fsync::Always, 4);
}

#[test]
fn only_the_last_moment_is_lost_by_kill_9_if_the_disk_is_synced_each_second() {
    crashes(Fsync::EverySecond, 2);
}

#[test]
fn only_the_last_moment_is_lost_by_kill_9_if_the_disk_is_never_synced() {
    crashes(Fsync::No, 2);
}
