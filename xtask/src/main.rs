//! Project tasks, run as `cargo xtask <task>`. `cargo xtask help` lists them.
//!
//! `test` sets up the servers that the suites need and runs everything; `.ci/run` calls exactly that. `services` only starts the
//! servers. `tidy` checks the rules that the compiler does not know. `bench` runs the benchmarks, `faults` every backend under
//! faults.

mod bench;
mod faults;
mod interrupt;
mod process;
mod services;
mod test;
mod tidy;
mod workspace;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::interrupt::Interrupt;
use crate::workspace::Workspace;

/// Project tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sets up the servers that the suites need, runs all tests, and stops what it started
    Test(test::TestArguments),
    /// Starts the servers that the suites need and prints their URLs, until Ctrl-C
    Services,
    /// Checks crate borders, the README's map, file lengths and links
    Tidy,
    /// Runs benchmarks: all of them, or the one that is named
    Bench(bench::BenchArguments),
    /// Runs every backend under faults for long, and prints a table of what came of it
    Faults(faults::FaultsArguments),
}

/// Why a task failed, in words for the person who ran it.
#[derive(Debug)]
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task. `false` means that it ran and found something wrong, which it has already said.
fn run(task: Task) -> Result<bool, Failure> {
    let interrupt = Interrupt::install()?;
    let workspace = Workspace::load()?;
    match task {
        Task::Test(arguments) => test::run(&arguments, &workspace, &interrupt),
        Task::Services => services::run(&workspace, &interrupt).map(|()| true),
        Task::Tidy => tidy::run(&workspace),
        Task::Bench(arguments) => bench::run(&arguments, &workspace, &interrupt),
        Task::Faults(arguments) => faults::run(&arguments, &workspace, &interrupt),
    }
}
