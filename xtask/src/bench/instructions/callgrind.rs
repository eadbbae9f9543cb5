//! One path under callgrind.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;

/// What is counted, with all that it calls on its thread: the function in `crates/hot-paths/src/meter.rs`. The star is for the hash that
/// compilers may put behind a name.
const COUNTED: &str = "acteon_hot_paths::meter::counted*";
/// A path takes about a second; one that hangs must not hold up CI.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// The instructions that path `name` of `program` executes. Leaves callgrind's file at `output`.
pub(super) fn count(program: &Path, name: &str, output: &Path, interrupt: &Interrupt) -> Result<u64, Failure> {
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind", &format!("--toggle-collect={COUNTED}")])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(program)
        .args(["run", name]);
    // Settings of allocators and the runtime, and the mere size of the environment, would change what is counted.
    command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    let status = process::run_by_line(&mut command, interrupt, LIMIT, |line| println!("{name}: {line}"))?;
    if !status.success() {
        return Err(Failure(format!("{name} ended under valgrind with {status}")));
    }
    let total = total(&fs::read_to_string(output)?);
    total.ok_or_else(|| Failure(format!("{name}: {} tells of no instruction within {COUNTED}", output.display())))
}

/// The sum in a file of callgrind. Zero means that the function was not found by its name: nothing was counted.
fn total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok().filter(|&total| total > 0)
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_sum_is_found_behind_the_functions() {
        let text = "# callgrind format\nevents: Ir\n\nfn=(1) counted\n12 7\n\ntotals: 123456\n";
        assert_eq!(total(text), Some(123_456));
    }

    #[test]
    fn a_file_in_which_nothing_was_counted_has_no_sum() {
        assert_eq!(total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
