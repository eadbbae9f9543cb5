//! `cargo xtask bench`: builds the benchmarks and what they measure in release mode, and runs the suites of the table below.
//!
//! A new suite is one row here and one variant in `crates/bench`. What follows `--` goes to it unchanged. `--write docs/performance` has each write its
//! page, its charts, and its rows of the table of goals. Instructions and sizes are no suites: they are counted, not timed, and each has a
//! file of its own.

mod instructions;
mod size;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use self::instructions::InstructionsArguments;
use self::size::SizeArguments;
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    counted: Option<Counted>,
    /// The suite to run, or `all`; all of them when left out
    suite: Option<String>,
    /// Writes what is measured into this folder, as pages with charts, and the goals into the document beside it, FOLDER.md
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// A tenth of everything in one round, to see that it runs
    #[arg(long)]
    quick: bool,
    /// Passed on to the benchmark
    #[arg(last = true)]
    passed_on: Vec<String>,
}

/// What is counted rather than timed.
#[derive(Subcommand)]
enum Counted {
    /// Counts the instructions of hot paths, and compares them with those that are kept
    Instructions(InstructionsArguments),
    /// Builds the server with each driver alone, from nothing, and says how long that takes and how large it is
    Size(SizeArguments),
}

/// One suite that can be asked for by name.
struct Suite {
    name: &'static str,
    by: By,
    /// About how long it takes on two processors with nothing else to do.
    minutes: u32,
}

/// How a suite is run.
#[derive(Clone, Copy)]
enum By {
    /// The benchmark program, with the name as its argument.
    Program,
    /// A criterion benchmark of that name with `_` for `-`.
    Criterion,
}

const SUITES: &[Suite] = &[
    Suite { name: "memory", by: By::Program, minutes: 3 },
    Suite { name: "lock", by: By::Program, minutes: 1 },
    Suite { name: "contention", by: By::Program, minutes: 6 },
    Suite { name: "redis", by: By::Program, minutes: 2 },
    Suite { name: "postgres", by: By::Program, minutes: 4 },
    Suite { name: "due", by: By::Program, minutes: 3 },
    Suite { name: "dynamodb", by: By::Program, minutes: 1 },
    Suite { name: "scan", by: By::Program, minutes: 3 },
    Suite { name: "engine", by: By::Program, minutes: 33 },
    Suite { name: "runtime", by: By::Program, minutes: 3 },
    Suite { name: "dispatch", by: By::Program, minutes: 2 },
    Suite { name: "start", by: By::Program, minutes: 1 },
    Suite { name: "in-process", by: By::Criterion, minutes: 3 },
];

/// Asks for all suites, as no name does.
const ALL: &str = "all";

pub(crate) fn run(arguments: &BenchArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    match &arguments.counted {
        Some(Counted::Instructions(arguments)) => return instructions::run(arguments, workspace, interrupt),
        Some(Counted::Size(arguments)) => return size::run(arguments, workspace, interrupt),
        None => {}
    }
    let mut suites = chosen(SUITES, arguments.suite.as_deref())?;
    if arguments.write.is_some() || arguments.quick {
        // Criterion has files and options of its own.
        suites.retain(|suite| matches!(suite.by, By::Program));
        if suites.is_empty() {
            return Err(Failure("a suite of criterion has no short form, and writes no pages".to_owned()));
        }
    }
    let mut build = cargo();
    build.args(["build", "--release", "--package", "acteon-bench", "--package", "acteon-server"]);
    if !process::run(build.current_dir(&workspace.root), interrupt)?.success() {
        return Ok(false);
    }
    let (begin, mut failed) = (Instant::now(), Vec::new());
    for (number, suite) in suites.iter().enumerate() {
        println!("\n== {} ==\n", suite.name);
        eprintln!("{}", progress(&suites, number, arguments.quick, begin.elapsed()));
        let mut command = suite.command(arguments, workspace);
        if !process::run(command.current_dir(&workspace.root), interrupt)?.success() {
            failed.push(suite.name);
        }
    }
    if suites.len() > 1 {
        eprintln!("{} suites in {}", suites.len(), minutes(begin.elapsed()));
    }
    if !failed.is_empty() {
        eprintln!("failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Which suite comes now, and how long it and those behind it will take.
fn progress(suites: &[&Suite], number: usize, is_quick: bool, elapsed: Duration) -> String {
    let place = format!("[{}/{}] {}", number + 1, suites.len(), suites[number].name);
    if is_quick {
        return format!("{place}, after {}", minutes(elapsed));
    }
    let left: u32 = suites[number..].iter().map(|suite| suite.minutes).sum();
    format!("{place}: about {} of {left} min, after {}", suites[number].minutes, minutes(elapsed))
}

fn minutes(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}

impl Suite {
    fn command(&self, arguments: &BenchArguments, workspace: &Workspace) -> Command {
        let release = workspace.target.join("release");
        let mut command = match self.by {
            By::Program => {
                let mut program = Command::new(release.join("acteon-bench"));
                program.arg(self.name).arg("--server").arg(release.join("acteon-server"));
                program
            }
            By::Criterion => {
                let mut cargo = cargo();
                let target = self.name.replace('-', "_");
                cargo.args(["bench", "--package", "acteon-bench", "--bench", &target, "--"]);
                cargo
            }
        };
        if let Some(folder) = &arguments.write {
            command.arg("--write").arg(folder);
        }
        if arguments.quick {
            command.arg("--quick");
        }
        command.args(&arguments.passed_on);
        command
    }
}

/// The suite of that name, or all of them.
fn chosen<'a>(suites: &'a [Suite], name: Option<&str>) -> Result<Vec<&'a Suite>, Failure> {
    let name = name.filter(|name| *name != ALL);
    let chosen: Vec<_> = suites.iter().filter(|suite| name.is_none_or(|name| suite.name == name)).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let known: Vec<_> = suites.iter().map(|suite| suite.name).collect();
    let known = match known.as_slice() {
        [] => "the table in xtask/src/bench.rs is empty".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    Err(match name {
        Some(name) => Failure(format!("no benchmark suite is called {name}; {known}")),
        None => Failure(format!("nothing to run; {known}")),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use std::time::Duration;

    use super::{ALL, BenchArguments, By, Counted, SUITES, Suite, chosen, progress};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn parse(line: &str) -> Option<BenchArguments> {
        Line::try_parse_from(line.split(' ')).ok().map(|line| line.bench)
    }

    const TWO: &[Suite] =
        &[Suite { name: "memory", by: By::Program, minutes: 3 }, Suite { name: "redis", by: By::Program, minutes: 2 }];

    #[test]
    fn without_a_name_all_suites_run() {
        assert_eq!(chosen(TWO, None).unwrap().len(), 2);
        assert_eq!(chosen(TWO, Some(ALL)).unwrap().len(), 2);
    }

    #[test]
    fn progress_tells_what_is_left() {
        let suites = chosen(TWO, None).unwrap();
        let after = Duration::from_secs(200);
        assert_eq!(progress(&suites, 0, false, Duration::ZERO), "[1/2] memory: about 3 of 5 min, after 0 min 0 s");
        assert_eq!(progress(&suites, 1, false, after), "[2/2] redis: about 2 of 2 min, after 3 min 20 s");
        assert_eq!(progress(&suites, 1, true, after), "[2/2] redis, after 3 min 20 s");
    }

    #[test]
    fn all_suites_that_write_pages_take_about_an_hour() {
        let minutes: u32 =
            SUITES.iter().filter(|suite| matches!(suite.by, By::Program)).map(|suite| suite.minutes).sum();
        assert!(minutes <= 65, "{minutes} minutes");
    }

    #[test]
    fn a_name_picks_its_suite() {
        assert_eq!(chosen(TWO, Some("redis")).unwrap()[0].name, "redis");
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_names() {
        let failure = chosen(TWO, Some("rdis")).err().unwrap();
        assert_eq!(failure.0, "no benchmark suite is called rdis; there are: memory, redis");
    }

    #[test]
    fn suites_pass_their_options_on_and_counts_have_options_of_their_own() {
        let all = parse("bench all --write docs/performance --quick").unwrap();
        assert_eq!((all.suite.as_deref(), all.quick, all.write.is_some()), (Some("all"), true, true));
        let memory = parse("bench memory -- --rounds 3").unwrap();
        assert_eq!((memory.suite.as_deref(), memory.passed_on.len()), (Some("memory"), 2));
        let counted = parse("bench instructions --only store --accept").unwrap().counted;
        assert!(matches!(counted, Some(Counted::Instructions(_))));
        assert!(matches!(parse("bench size --only redis").unwrap().counted, Some(Counted::Size(_))));
        assert!(parse("bench memory --accept").is_none(), "an option that would not be used");
    }
}
