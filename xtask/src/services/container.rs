//! Servers in Docker, for machines on which their programs cannot be had otherwise.
//!
//! testcontainers and its async runtime live in a binary of `tests/support`, which is only built when it is needed. The binary
//! keeps the container as long as its input is open, so the container is removed even when this process is killed.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use acteon_test_support::find_program;

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process::{forward_lines, run};
use crate::workspace::{Workspace, cargo};

/// A running container, removed when dropped.
pub(crate) struct Container {
    keeper: Child,
    url: String,
}

const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const KEEPER: [&str; 6] =
    ["--package", "acteon-test-support", "--features", "containers", "--bin", "acteon-test-container"];
const START_TIMEOUT: Duration = Duration::from_secs(300); // the image may have to be fetched over a slow line
const STOP_TIMEOUT: Duration = Duration::from_secs(20); // Docker waits 10 s before it kills
const POLL: Duration = Duration::from_millis(100);

/// Whether there is a Docker engine that we may use.
pub(crate) fn docker_answers() -> bool {
    UnixStream::connect(DOCKER_SOCKET).is_ok() || docker_info()
}

/// The command line tool knows of engines elsewhere: contexts, `DOCKER_HOST`, rootless ones.
fn docker_info() -> bool {
    find_program("docker").is_some()
        && Command::new("docker")
            .arg("info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

impl Container {
    /// Runs the server of this name, which the helper knows.
    pub(crate) fn start(server: &str, workspace: &Workspace, interrupt: &Interrupt) -> Result<Self, Failure> {
        let mut build = cargo();
        build.arg("build").args(KEEPER).current_dir(&workspace.root);
        if !run(&mut build, interrupt)?.success() {
            return Err(Failure("the helper that runs containers does not build".to_owned()));
        }
        let mut command = cargo();
        command.args(["run", "--quiet"]).args(KEEPER).args(["--", server]).current_dir(&workspace.root);
        Self::keep(command, interrupt)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts the keeper and waits for the URL that it prints.
    fn keep(mut command: Command, interrupt: &Interrupt) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt;
        // A group of its own: a Ctrl-C that reached the keeper would end it before it removes its container.
        let keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?;
        let mut container = Self { keeper, url: String::new() };
        let (lines, inbox) = mpsc::channel();
        if let Some(output) = container.keeper.stdout.take() {
            thread::spawn(move || forward_lines(output, |line| lines.send(line).is_ok()));
        }
        let deadline = Instant::now() + START_TIMEOUT;
        while !interrupt.requested() && Instant::now() < deadline {
            match inbox.recv_timeout(POLL) {
                Ok(url) => {
                    container.url = url;
                    return Ok(container);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(Failure("the server did not start in Docker".to_owned()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take()); // asks it to remove the container and end
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.keeper.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::Container;
    use crate::interrupt::Interrupt;

    #[test]
    fn the_keeper_is_told_to_end_and_has_time_to_clean_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", "echo redis://host:1; cat; echo removed > removed"]).current_dir(&folder);
        let container = Container::keep(keeper, &Interrupt::fixed(false)).unwrap();
        assert_eq!(container.url(), "redis://host:1");
        drop(container);
        assert_eq!(fs::read_to_string(folder.path().join("removed")).unwrap(), "removed\n");
    }

    #[test]
    fn a_keeper_that_ends_without_a_url_is_a_failure() {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", "exit 1"]);
        assert!(Container::keep(keeper, &Interrupt::fixed(false)).is_err());
    }
}
