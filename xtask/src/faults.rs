//! `cargo xtask faults`: every backend under faults for as long as is asked for, and a table of what came of it.
//!
//! The rows are the tests of the matrix in `tests/faults`, each run alone, with its share of the time and at least one fault. The servers are those that
//! the tests start for themselves: their programs must be installed (`cargo xtask services` does that; what steps
//! clocks is installed here). A row that finds something wrong says what, with
//! the seed and the drawing; the others go on. After Ctrl-C there is a table, too, of the rows that were finished.
//!
//! Everything is built once, and kept under a name of its own: whoever goes on working meanwhile changes nothing in a run of hours.

mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use acteon_test_support::{SERVER_ENV, supervised_command};
use clap::Args;
use tempfile::TempDir;

use self::table::Table;
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;
use crate::services::CLOCK_TOOLS;
use crate::test::build;
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct FaultsArguments {
    /// For how long, over all rows together
    #[arg(long, default_value_t = 60.0, value_name = "MINUTES", value_parser = minutes)]
    minutes: f64,
    /// Only rows whose name has this in it, such as postgres or sentinels
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Repeats the schedule of faults and questions of a run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Also writes the table to this file, which is replaced, after each row
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

/// What rows of the matrix are called, unlike tests about them.
const ROW: &str = "keeps_what_it_declares";
/// The package of the matrix, and its test program.
const PACKAGE: &str = "acteon-faults";
const MATRIX: &str = "matrix-";

/// Runs the rows. `false` means that one of them found something wrong.
pub(crate) fn run(arguments: &FaultsArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    CLOCK_TOOLS.iter().try_for_each(|tool| tool.require(interrupt))?;
    let programs = Programs::build(workspace, interrupt)?;
    let rows = chosen(programs.rows()?, arguments.backend.as_deref())?;
    let seed = arguments.seed.unwrap_or_else(seed_of_the_moment);
    let (begin, lines) = (Instant::now(), programs.folder.path().join("lines"));
    println!("{} rows, {:.1} minutes, seed {seed}", rows.len(), arguments.minutes);
    let mut table = Table::new(seed);
    let mut is_interrupted = false;
    for (number, row) in rows.iter().enumerate() {
        // A row that has to wait for its servers takes from the share of all that follow, not from that of the last.
        let left = (arguments.minutes - begin.elapsed().as_secs_f64() / 60.0).max(0.0);
        let share = left / (rows.len() - number) as f64;
        println!("\n== {} of {}: {row}, {share:.1} of {left:.1} minutes that are left ==", number + 1, rows.len());
        let mut command = programs.matrix();
        command.args([row, "--exact", "--nocapture", "--test-threads", "1"]).env("ACTEON_SEED", seed.to_string());
        command.env("ACTEON_FAULTS_MINUTES", share.to_string()).env("ACTEON_FAULTS_SUMMARY", &lines);
        match process::run(&mut command, interrupt) {
            Ok(status) if status.success() => {}
            Ok(_) => table.failed(row),
            Err(_) if interrupt.requested() => is_interrupted = true,
            Err(failure) => return Err(failure),
        }
        table.read(&lines, begin.elapsed())?;
        if let Some(path) = &arguments.summary {
            fs::write(path, table.to_string()).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        }
        if is_interrupted {
            break;
        }
    }
    print!("\n{table}");
    if is_interrupted { Err(Failure("interrupted".to_owned())) } else { Ok(table.is_clean()) }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if minutes.is_finite() && minutes > 0.0 { Ok(minutes) } else { Err("must be above zero".to_owned()) }
}

fn seed_of_the_moment() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The matrix, and the programs that it starts, under names that no later build replaces.
struct Programs {
    matrix: PathBuf,
    /// The folder of the package, in which tests expect to run.
    package: PathBuf,
    /// The dispatch server, which rows start for its engine.
    server: PathBuf,
    folder: TempDir,
}

impl Programs {
    fn build(workspace: &Workspace, interrupt: &Interrupt) -> Result<Self, Failure> {
        let built = build::build_package(workspace, PACKAGE, interrupt)?;
        let is_matrix = |program: &&build::TestProgram| program.is_integration && program.name().starts_with(MATRIX);
        let Some(matrix) = built.programs.iter().find(is_matrix) else {
            return Err(Failure(format!("{PACKAGE} has no test program {MATRIX}…")));
        };
        let Some(server) = &built.server else {
            return Err(Failure("the dispatch server was not built".to_owned()));
        };
        // Beside what was built, so that links do.
        let folder = tempfile::Builder::new().prefix("faults-").tempdir_in(&workspace.target)?;
        for binary in &built.binaries {
            keep(binary, folder.path())?;
        }
        let (matrix_kept, server) = (keep(&matrix.executable, folder.path())?, keep(server, folder.path())?);
        Ok(Self { matrix: matrix_kept, package: matrix.folder.clone(), server, folder })
    }

    fn matrix(&self) -> Command {
        let mut command = supervised_command(&self.matrix);
        command.current_dir(&self.package).env("CARGO_MANIFEST_DIR", &self.package);
        command.env("ACTEON_FAULTS_PROGRAMS", self.folder.path()).env(SERVER_ENV, &self.server);
        command
    }

    /// The names of all rows.
    fn rows(&self) -> Result<Vec<String>, Failure> {
        let mut command = self.matrix();
        let output = command.args(["--list", "--format", "terse"]).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(Failure("the matrix cannot list its rows".to_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.filter(|name| name.contains(ROW)).map(str::to_owned).collect())
    }
}

/// One more name for a program. A build replaces files, it does not write into them.
fn keep(program: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let name = program.file_name().ok_or_else(|| Failure(format!("{} is no program", program.display())))?;
    let kept = folder.join(name);
    fs::hard_link(program, &kept).or_else(|_| fs::copy(program, &kept).map(drop))?;
    Ok(kept)
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
    use super::{chosen, minutes};

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name_and_an_unknown_one_is_refused_with_the_known_ones() {
        let rows = || vec!["redis::redis".to_owned(), "postgres::postgres".to_owned()];
        assert_eq!(chosen(rows(), Some("postgres")).unwrap(), ["postgres::postgres"]);
        assert_eq!(chosen(rows(), None).unwrap().len(), 2);
        assert!(chosen(rows(), Some("mysql")).unwrap_err().0.contains("redis::redis"));
    }

    #[test]
    fn a_run_takes_some_time() {
        assert_eq!(minutes("0.5"), Ok(0.5));
        assert!(["0", "-1", "inf", "NaN", "an hour"].into_iter().all(|text| minutes(text).is_err()));
    }
}
