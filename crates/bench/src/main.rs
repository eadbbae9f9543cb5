//! `cargo xtask bench [suite]`: runs one suite of the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use acteon_bench::report::{Report, page};
use acteon_bench::{
    Options, Outcome, contention, dispatch, due, dynamodb, engine, lock, machine, memory, postgres, redis_driver,
    runtime, scan, start,
};
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
    /// Claims from a long queue on each backend, beside SKIP LOCKED by hand.
    Due,
    /// The DynamoDB driver beside the raw AWS SDK.
    Dynamodb,
    /// The emulator that the suite `dynamodb` starts for itself.
    #[value(hide = true)]
    DynamodbService,
    /// The first page among many keys, and listings, on each backend.
    Scan,
    /// The engine behind its protocol, beside redis-server.
    Engine,
    /// The engine's server on runtimes of several kinds.
    Runtime,
    /// One of the servers that the suite `runtime` starts for itself, named by `--only`.
    #[value(hide = true)]
    RuntimeServer,
    /// Dispatches per second through HTTP, on memory and on Redis.
    Dispatch,
    /// From starting a server until it is ready, and what it takes then.
    Start,
}

#[derive(Debug, Parser)]
#[command(about = "Runs one suite and prints its tables as Markdown")]
struct Arguments {
    suite: Suite,
    /// Rounds; each contestant runs once in each. Each suite has its own number unless given.
    #[arg(long)]
    rounds: Option<usize>,
    /// Keys in the store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Keys in a large store, in the suite `engine`.
    #[arg(long, default_value_t = 5_000_000)]
    keys_max: usize,
    /// Only cases whose name contains this, in the suites `contention`, `due` and `scan` (backends), `runtime` ("GET, pipeline 16"), `postgres` and `engine` ("commands GET", "sizes", "memory", "churn", "evictions", "disk throughput always", "pauses growth").
    #[arg(long, default_value = "", conflicts_with = "write")]
    only: String,
    /// Connections of the driver in the suite `postgres`; raw sqlx always has eight.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// A tenth of everything in one round, to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Write the tables as a page into this folder, with charts, and the goals into the document beside it, FOLDER.md.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// The acteon-server binary.
    #[arg(long, default_value = "target/release/acteon-server")]
    server: PathBuf,
}

impl Suite {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// So many that all suites together take about an hour.
    const fn rounds(self) -> usize {
        match self {
            Self::Start => 20,
            Self::Memory | Self::Lock | Self::Redis | Self::Dynamodb | Self::Dispatch | Self::Scan | Self::Runtime => 5,
            Self::Postgres | Self::Due => 3,
            Self::Contention | Self::Engine | Self::DynamodbService | Self::RuntimeServer => 2,
        }
    }

    fn run(self, options: &Options<'_>, report: &mut Report) -> Outcome {
        match self {
            Self::Memory => memory::run(options, report),
            Self::Lock => lock::run(options, report),
            Self::Contention => contention::run(options, report),
            Self::Redis => redis_driver::run(options, report),
            Self::Postgres => postgres::run(options, report),
            Self::Due => due::run(options, report),
            Self::Dynamodb => dynamodb::run(options, report),
            Self::DynamodbService => dynamodb::serve(),
            Self::Scan => scan::run(options, report),
            Self::Engine => engine::run(options, report),
            Self::Runtime => runtime::run(options, report),
            Self::RuntimeServer => runtime::serve(options.only),
            Self::Dispatch => dispatch::run(options, report),
            Self::Start => start::run(options, report),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome {
    let began = Instant::now();
    let scaled = |count: usize| if arguments.quick { count / 10 } else { count };
    let options = Options {
        program: &arguments.server,
        rounds: if arguments.quick { 1 } else { arguments.rounds.unwrap_or(arguments.suite.rounds()) },
        keys: scaled(arguments.keys),
        keys_max: scaled(arguments.keys_max),
        only: &arguments.only,
        is_quick: arguments.quick,
        connections: arguments.connections,
    };
    let (machine, mut report) = (machine::describe(), Report::default());
    if !matches!(arguments.suite, Suite::DynamodbService | Suite::RuntimeServer) {
        println!("{machine}\n");
    }
    arguments.suite.run(&options, &mut report)?;
    report.finish();
    let Some(folder) = &arguments.write else { return Ok(()) };
    let facts = page::Facts {
        suite: &arguments.suite.name(),
        command: &command(std::env::args().skip(1)),
        machine: &machine,
        took: began.elapsed(),
    };
    page::write(&report, &facts, folder)
}

/// How a user asks for the same, out of the arguments that the task runner passed on.
fn command(mut arguments: impl Iterator<Item = String>) -> String {
    let (mut own, mut passed_on) = (String::from("cargo xtask bench"), String::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--server" => drop(arguments.next()),
            "--quick" => own.push_str(" --quick"),
            "--write" => own.push_str(&format!(" --write {}", arguments.next().unwrap_or_default())),
            option if option.starts_with("--") || !passed_on.is_empty() => passed_on.push_str(&format!(" {option}")),
            suite => own.push_str(&format!(" {suite}")),
        }
    }
    if passed_on.is_empty() { own } else { format!("{own} --{passed_on}") }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Arguments, command};

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        assert!(
            Arguments::try_parse_from(["bench", "due", "--only", "redis", "--write", "x"]).is_err(),
            "a part of a page"
        );
    }

    #[test]
    fn a_page_names_the_command_that_a_user_gives() {
        let said = |line: &str| command(line.split(' ').map(str::to_owned));
        assert_eq!(said("memory --server target/x/acteon-server"), "cargo xtask bench memory");
        assert_eq!(
            said("engine --server s --write docs/performance --quick --rounds 3"),
            "cargo xtask bench engine --write docs/performance --quick -- --rounds 3"
        );
    }
}
