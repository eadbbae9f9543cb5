//! `cargo xtask bench`: builds the benchmarks and what they measure in release mode, and runs the suites of the table below.
//!
//! A new suite is one row here and one variant in `crates/bench`. What follows `--` goes to it unchanged.

use std::process::Command;

use clap::Args;

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
pub(crate) struct BenchArguments {
    /// The suite to run; all of them when left out
    suite: Option<String>,
    /// Passed on to the benchmark
    #[arg(last = true)]
    passed_on: Vec<String>,
}

/// One suite that can be asked for by name.
struct Suite {
    name: &'static str,
    by: By,
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
    Suite { name: "memory", by: By::Program },
    Suite { name: "lock", by: By::Program },
    Suite { name: "contention", by: By::Program },
    Suite { name: "redis", by: By::Program },
    Suite { name: "postgres", by: By::Program },
    Suite { name: "dynamodb", by: By::Program },
    Suite { name: "engine", by: By::Program },
    Suite { name: "dispatch", by: By::Program },
    Suite { name: "in-process", by: By::Criterion },
];

pub(crate) fn run(arguments: &BenchArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    let suites = chosen(SUITES, arguments.suite.as_deref())?;
    let mut build = cargo();
    build.args(["build", "--release", "--package", "acteon-bench", "--package", "acteon-server"]);
    if !process::run(build.current_dir(&workspace.root), interrupt)?.success() {
        return Ok(false);
    }
    let mut all_ran = true;
    for suite in suites {
        println!("== {} ==", suite.name);
        let release = workspace.target.join("release");
        let mut command = match suite.by {
            By::Program => {
                let mut program = Command::new(release.join("acteon-bench"));
                program.arg(suite.name).arg("--server").arg(release.join("acteon-server"));
                program
            }
            By::Criterion => {
                let mut cargo = cargo();
                let target = suite.name.replace('-', "_");
                cargo.args(["bench", "--package", "acteon-bench", "--bench", &target, "--"]);
                cargo
            }
        };
        command.args(&arguments.passed_on).current_dir(&workspace.root);
        all_ran &= process::run(&mut command, interrupt)?.success();
    }
    Ok(all_ran)
}

/// The suite of that name, or all of them.
fn chosen<'a>(suites: &'a [Suite], name: Option<&str>) -> Result<Vec<&'a Suite>, Failure> {
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
    use super::{By, Suite, chosen};

    const TWO: &[Suite] = &[Suite { name: "memory", by: By::Program }, Suite { name: "redis", by: By::Program }];

    #[test]
    fn without_a_name_all_suites_run() {
        assert_eq!(chosen(TWO, None).unwrap().len(), 2);
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
}
