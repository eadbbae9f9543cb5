//! `cargo xtask bench`: runs the benchmarks of the table below, in release mode.
//!
//! A new benchmark is one row here. What follows `--` goes to it unchanged.

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

/// One benchmark that can be asked for by name.
struct Suite {
    name: &'static str,
    package: &'static str,
    /// The `[[bench]]` target of the package.
    target: &'static str,
}

const SUITES: &[Suite] = &[];

pub(crate) fn run(arguments: &BenchArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    let mut all_ran = true;
    for suite in chosen(SUITES, arguments.suite.as_deref())? {
        println!("== {} ==", suite.name);
        let mut command = cargo();
        command
            .args(["bench", "--package", suite.package, "--bench", suite.target, "--"])
            .args(&arguments.passed_on)
            .current_dir(&workspace.root);
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
    use super::{Suite, chosen};

    const TWO: &[Suite] =
        &[Suite { name: "memory", package: "p", target: "t" }, Suite { name: "redis", package: "p", target: "t" }];

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
