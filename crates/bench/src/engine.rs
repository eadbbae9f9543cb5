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

use crate::report::Report;
use crate::{Options, Outcome};

pub(crate) use self::redis_benchmark::{RedisBenchmark, Sample};
pub(crate) use self::servers::{Keeps, Program, Server, Setup, redis_version};

/// One round of pauses for so many of others: one takes minutes, and what matters is the worst of tens of thousands of requests.
const ROUNDS_PER_PAUSE_ROUND: usize = 3;

/// Runs the suite: the cases that contain `only` in their name, `table case`.
///
/// # Errors
/// redis-server, redis-benchmark or acteon-server is missing, a server does not start, or an operation fails.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    report.line(format_args!("{}; medians of {} rounds.", redis_version()?, options.rounds));
    commands::run(options, report)?;
    memory::run(options, report)?;
    churn::run(options, report)?;
    evictions::run(options, report)?;
    disk::run(options, report)?;
    pauses::run(&Options { rounds: options.rounds.div_ceil(ROUNDS_PER_PAUSE_ROUND), ..*options }, report)
}
