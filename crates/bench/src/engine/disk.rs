//! What keeping data on the disk costs, beside redis-server on the same disk.
//!
//! | case | measured | file |
//! |---|---|---|
//! | `throughput` | SET under each setting of fsync, by number of connections and pipeline | `disk/throughput.rs` |
//! | `load` | from starting a process until it answers with its data | `disk/loading.rs` |
//! | `save` | a snapshot, and rewriting the journal | `disk/saving.rs` |
//! | `cut` | for how long a snapshot holds locks | `disk/cut.rs` |
//! | `log` | what a journal costs writes of the process itself | `disk/log.rs` |
//!
//! Before each run all that was written before is brought to the disk, so that nobody pays for others. What is read was written shortly before: it
//! comes from the memory of the operating system.

mod cut;
mod loading;
mod log;
mod saving;
mod throughput;

use std::env;

use super::Options;
use super::servers::{Keeps, Program, Setup};
use crate::report::Report;
use crate::{Outcome, machine};

/// Prints the tables.
pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    throughput::run(options, report)?;
    loading::run(options, report)?;
    saving::run(options, report)?;
    cut::run(options, report)?;
    log::run(options, report)
}

/// redis-server and the engine with one thread.
fn programs<'a>(options: &Options<'a>) -> [Program<'a>; 2] {
    [Program::Redis, Program::Engine { program: options.program, threads: 1 }]
}

/// Both with the same setting.
fn setups<'a>(options: &Options<'a>, keeps: Keeps) -> [Setup<'a>; 2] {
    programs(options).map(|program| Setup { program, keeps })
}

/// Where all of them keep their data, for the line above a table.
fn place() -> String {
    let folder = env::temp_dir();
    format!("in {} ({})", folder.display(), machine::file_system(&folder))
}
