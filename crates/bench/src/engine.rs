//! The engine behind its protocol, beside the distribution's redis-server: the same load on both, by turns.
//!
//! What counts is the processor time of the server process per million operations: the load comes from the same machine, so a rate mostly
//! tells how much of it the load generator leaves. Of two processors redis-benchmark takes one; a second thread of the server can only
//! have what is left. One server has work at a time; the others idle.
//!
//! | table | measured | file |
//! |---|---|---|
//! | `commands` | redis-benchmark at pipeline 1, 16 and 64, 50 connections, values of 64 bytes; one thread and two | `commands.rs` |
//! | `sizes` | the same for GET and SET with few keys and with many | `commands.rs` |
//! | `memory` | resident memory per key for values of several sizes, with and without a time to live | `memory.rs` |
//! | `evictions` | hits of a cache with room for a part of the keys, by policy and trace | `evictions.rs` |
//! | `churn` | resident memory while values of mixed sizes are overwritten, deleted and written again | `churn.rs` |
//! | `disk` | what keeping data costs: SET by fsync, loading, saving, and writes in process | `disk.rs` |
//! | `pauses` | how long a client waits that asks at a fixed rate, while the server is busy with something large | `pauses.rs` |
//!
//! The engine is the `acteon-server` that users run, with its allocator: `acteon-server engine`.

mod churn;
mod commands;
mod disk;
mod evictions;
mod job;
mod load;
mod memory;
mod pauses;
mod probe;
mod redis_benchmark;
mod servers;

use std::path::Path;

use crate::Outcome;

pub(crate) use self::servers::Server;

/// Rounds beyond which pauses are not measured: one takes minutes, and what matters is the worst of tens of thousands of requests.
const PAUSE_ROUNDS_MAX: usize = 3;

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The `acteon-server` binary.
    pub program: &'a Path,
    /// Rounds; each server has its turn in each.
    pub rounds: usize,
    /// Keys in the store, unless a table is about their number.
    pub keys: usize,
    /// Keys that a large store has.
    pub keys_max: usize,
    /// Only what has this in its name, `table case`.
    pub only: &'a str,
    /// A tenth of everything, in one round: to see that it runs.
    pub is_quick: bool,
}

impl Options<'_> {
    fn includes(&self, table: &str, case: &str) -> bool {
        format!("{table} {case}").contains(self.only)
    }

    /// A number of operations or keys, or a tenth of it.
    fn scaled(&self, count: usize) -> usize {
        if self.is_quick { count / 10 } else { count }
    }
}

/// Prints the tables.
///
/// # Errors
/// redis-server, redis-benchmark or acteon-server is missing, a server does not start, or an operation fails.
pub fn run(options: Options<'_>) -> Outcome {
    let options = Options {
        rounds: if options.is_quick { 1 } else { options.rounds },
        keys: options.scaled(options.keys),
        keys_max: options.scaled(options.keys_max),
        ..options
    };
    println!("{}; medians of {} rounds", servers::redis_version()?, options.rounds);
    commands::run(&options)?;
    memory::run(&options)?;
    churn::run(&options)?;
    evictions::run(&options)?;
    disk::run(&options)?;
    pauses::run(&Options { rounds: options.rounds.min(PAUSE_ROUNDS_MAX), ..options })
}
