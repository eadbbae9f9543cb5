//! `cargo xtask faults`: every backend under faults for as long as is asked for, and a table of what came of it.
//!
//! The rows are the tests of the matrix in `tests/faults`, each run alone, with its share of the time. The servers are those that the tests start for
//! themselves: their programs must be installed (`cargo xtask services` does that). A row that finds something wrong says what, with the seed and the
//! drawing; the others go on.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
pub(crate) struct FaultsArguments {
    /// For how long, over all rows together
    #[arg(long, default_value_t = 60.0, value_name = "MINUTES")]
    minutes: f64,
    /// Only rows whose name has this in it, such as postgres or sentinels
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Repeats the schedule of faults and questions of a run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// What rows of the matrix are called, unlike tests about them.
const ROW: &str = "keeps_what_it_declares";

const HEADER: &str = "\
| backend | topology | operations | faults | histories | objects | anomalies | lost updates: versions compared | fenced only | no condition |
|---|---|---|---|---|---|---|---|---|---|";

/// Runs the rows. `false` means that one of them found something wrong.
pub(crate) fn run(arguments: &FaultsArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    let rows = chosen(list(workspace)?, arguments.backend.as_deref())?;
    let summary = tempfile::NamedTempFile::new()?;
    let minutes = arguments.minutes / rows.len() as f64;
    let mut is_clean = true;
    for row in &rows {
        println!("== {row}, {minutes:.1} minutes ==");
        let mut command = matrix(workspace);
        command.args(["--", row, "--exact", "--nocapture", "--test-threads", "1"]);
        command.env("ACTEON_FAULTS_MINUTES", minutes.to_string()).env("ACTEON_FAULTS_SUMMARY", summary.path());
        command.envs(arguments.seed.map(|seed| ("ACTEON_SEED", seed.to_string())));
        is_clean &= process::run(&mut command, interrupt)?.success();
    }
    print!("{}", table(summary.path())?);
    Ok(is_clean)
}

fn table(summary: &Path) -> Result<String, Failure> {
    Ok(format!("\n{HEADER}\n{}", std::fs::read_to_string(summary)?))
}

fn matrix(workspace: &Workspace) -> Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "acteon-faults", "--test", "matrix"]).current_dir(&workspace.root);
    command
}

/// The names of all rows.
fn list(workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let mut command = matrix(workspace);
    command.args(["--", "--list", "--format", "terse"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(Failure("the matrix cannot be built".to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.filter(|name| name.contains(ROW)).map(str::to_owned).collect())
}

fn chosen(rows: Vec<String>, backend: Option<&str>) -> Result<Vec<String>, Failure> {
    let known = rows.join("\n  ");
    let chosen: Vec<String> =
        rows.into_iter().filter(|row| backend.is_none_or(|backend| row.contains(backend))).collect();
    if chosen.is_empty() {
        return Err(Failure(format!("no row is called {}; there are:\n  {known}", backend.unwrap_or_default())));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name_and_an_unknown_one_is_refused_with_the_known_ones() {
        let rows = || vec!["redis::redis".to_owned(), "postgres::postgres".to_owned()];
        assert_eq!(chosen(rows(), Some("postgres")).unwrap(), ["postgres::postgres"]);
        assert_eq!(chosen(rows(), None).unwrap().len(), 2);
        assert!(chosen(rows(), Some("mysql")).unwrap_err().0.contains("redis::redis"));
    }
}
