//! Many threads on one instance: whatever they do to the same keys, each command takes effect at one moment.
//!
//! # What it promises
//! - [`histories`]: commands on one key, on several, on whole databases, transactions and scripts, recorded and judged by the
//!   linearizability checker of the conformance suite, all keys together: there has to be one order that explains every reply.
//! - [`transfers`]: money moves between accounts by WATCH and MULTI and by scripts, members between sets; no snapshot ever misses any.
//! - [`queues`]: what is pushed is taken once, in the order of each producer, whether its consumer waits for it or comes later.
//!
//! # How to run it
//! `ACTEON_SEED` repeats the choices of a run that failed, as its report names it; which thread comes first is up to the
//! machine. `ACTEON_ATOMICITY_ROUNDS` is the number of histories per test.

mod histories;
mod queues;
mod store;
mod transfers;
mod worker;

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run, and how many rounds to make of what is done `rounds` times unless told otherwise.
fn plan(rounds: u64) -> (u64, u64) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = number("ACTEON_SEED").unwrap_or(now.as_nanos() as u64);
    println!("ACTEON_SEED={seed}");
    (seed, number("ACTEON_ATOMICITY_ROUNDS").unwrap_or(rounds))
}
