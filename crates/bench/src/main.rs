//! `cargo xtask bench [suite]`: runs one suite of the library.

use std::path::PathBuf;
use std::process::ExitCode;

use acteon_bench::{contention, dispatch, dynamodb, engine, lock, machine, memory, postgres, redis_driver};
use clap::{Parser, ValueEnum};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// get, put and increment in process, beside DashMap, moka and a mutexed map.
    Memory,
    /// Locks in process: uncontended, and with waiters beside a polling lock.
    Lock,
    /// Many waiters on one lock, on each backend, beside a polling lock.
    Contention,
    /// The Redis driver beside raw redis-rs.
    Redis,
    /// The PostgreSQL driver beside raw sqlx.
    Postgres,
    /// The DynamoDB driver beside the raw AWS SDK.
    Dynamodb,
    /// The emulator that the suite `dynamodb` starts for itself.
    #[value(hide = true)]
    DynamodbService,
    /// The engine behind its protocol, beside redis-server.
    Engine,
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
    /// Keys in a large store, in the suite `engine`.
    #[arg(long, default_value_t = 5_000_000)]
    keys_max: usize,
    /// Only cases whose name contains this, in the suites `contention` (backends), `postgres` and `engine` ("commands GET", "sizes", "memory", "churn", "evictions", "disk throughput always", "pauses growth").
    #[arg(long, default_value = "")]
    only: String,
    /// A tenth of everything in one round, to see that it runs, in the suite `engine`.
    #[arg(long)]
    quick: bool,
    /// The acteon-server binary for the suites `contention`, `dispatch` and `engine`.
    #[arg(long, default_value = "target/release/acteon-server")]
    server: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("{}", machine::describe());
    let result = match arguments.suite {
        Suite::Memory => memory::run(arguments.keys, arguments.rounds),
        Suite::Lock => lock::run(arguments.rounds),
        Suite::Contention => contention::run(&arguments.server, arguments.rounds, &arguments.only),
        Suite::Redis => redis_driver::run(arguments.rounds),
        Suite::Postgres => postgres::run(arguments.rounds, &arguments.only),
        Suite::Dynamodb => dynamodb::run(arguments.rounds),
        Suite::DynamodbService => dynamodb::serve(),
        Suite::Engine => engine::run(engine::Options {
            program: &arguments.server,
            rounds: arguments.rounds,
            keys: arguments.keys,
            keys_max: arguments.keys_max,
            only: &arguments.only,
            is_quick: arguments.quick,
        }),
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
