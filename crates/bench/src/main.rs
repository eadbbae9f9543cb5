//! Benchmarks. Each suite runs its contestants alternately in one process and prints medians and ratios as Markdown.
//!
//! Machines are noisy: an absolute figure means little, a ratio taken within one round means something. Run them by
//! `cargo xtask bench [suite]`, which builds in release mode.

mod dispatch;
mod lock;
mod machine;
mod memory;
mod redis_driver;
mod report;
mod rounds;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// get, put and increment in process, beside DashMap, moka and a mutexed map.
    Memory,
    /// Locks in process: uncontended, and with waiters beside a polling lock.
    Lock,
    /// The Redis driver beside raw redis-rs.
    Redis,
    /// Dispatches per second through HTTP, on memory and on Redis.
    Dispatch,
}

#[derive(Debug, Parser)]
#[command(about = "Runs one suite and prints its table as Markdown")]
struct Arguments {
    suite: Suite,
    /// Rounds; each contestant runs once in each.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Keys in the store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// The acteon-server binary for the suite `dispatch`.
    #[arg(long, default_value = "target/release/acteon-server")]
    server: std::path::PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("{}", machine::describe());
    let result = match arguments.suite {
        Suite::Memory => memory::run(arguments.keys, arguments.rounds),
        Suite::Lock => lock::run(arguments.rounds),
        Suite::Redis => redis_driver::run(arguments.rounds),
        Suite::Dispatch => dispatch::run(&arguments.server, arguments.rounds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a suite returns: a failure is told, and nothing of it is reported as measured.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
