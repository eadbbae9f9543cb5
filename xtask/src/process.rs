//! Runs programs so that they end with this process and are ended when it is interrupted.
//!
//! Each program gets a process group of its own. An interrupt ends the whole group, and with it what the program started itself.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Failure;
use crate::interrupt::Interrupt;

const INTERRUPT_POLL: Duration = Duration::from_millis(50);
const GRACE: Duration = Duration::from_secs(5); // enough for a test server to flush and for cargo to remove its locks

/// Runs `command` with its output on ours.
pub(crate) fn run(command: &mut Command, interrupt: &Interrupt) -> Result<ExitStatus, Failure> {
    let mut child = spawn(command.stdout(Stdio::inherit()))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt.requested() {
            end_group(&mut child);
            return Err(interrupted());
        }
        thread::sleep(INTERRUPT_POLL);
    }
}

/// For programs that end by themselves, such as cargo.
pub(crate) const NO_LIMIT: Duration = Duration::MAX;

/// Runs `command` and hands each line of its standard output to `on_line` as it appears. Errors go where ours go.
///
/// A program that runs longer than `limit` is ended; its status then says by which signal.
pub(crate) fn run_by_line(
    command: &mut Command,
    interrupt: &Interrupt,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<ExitStatus, Failure> {
    let mut child = spawn(command.stdout(Stdio::piped()))?;
    let begin = Instant::now();
    let (lines, inbox) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || forward_lines(output, |line| lines.send(line).is_ok()));
    }
    loop {
        match inbox.recv_timeout(INTERRUPT_POLL) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?),
            Err(RecvTimeoutError::Timeout) => {
                // A forgotten grandchild can hold the pipe open long after the program itself has ended.
                if let Some(status) = child.try_wait()? {
                    inbox.try_iter().for_each(|line| on_line(&line));
                    return Ok(status);
                }
            }
        }
        if begin.elapsed() >= limit {
            eprintln!("no end after {} s: ending it", limit.as_secs());
            end_group(&mut child);
            return Ok(child.wait()?);
        }
        if interrupt.requested() {
            end_group(&mut child);
            return Err(interrupted());
        }
    }
}

/// Starts `command` in a group of its own, without input.
fn spawn(command: &mut Command) -> Result<Child, Failure> {
    use std::os::unix::process::CommandExt;
    command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| Failure(format!("cannot run {:?}: {error}", command.get_program())))
}

/// Hands over each line, also one that is not UTF-8, until `accept` wants no more.
pub(crate) fn forward_lines(output: impl Read, mut accept: impl FnMut(String) -> bool) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while matches!(output.read_until(b'\n', &mut bytes), Ok(1..)) {
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        bytes.clear();
        if !accept(line) {
            return;
        }
    }
}

/// Asks the group to end, and makes it end after a while.
fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(group) = group else { return };
    let _ = kill_process_group(group, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(INTERRUPT_POLL);
    }
    // Also when the leader has ended: others of its group may be left. ESRCH then says that none are.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

fn interrupted() -> Failure {
    Failure("interrupted".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::process::Command;
    use std::time::Duration;

    use super::{NO_LIMIT, run, run_by_line};
    use crate::interrupt::Interrupt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_arrive_in_order_and_the_status_is_kept() {
        let mut lines = Vec::new();
        let mut command = shell("echo one; printf 'two\\377\\nthree'; exit 3");
        let status =
            run_by_line(&mut command, &Interrupt::fixed(false), NO_LIMIT, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two\u{fffd}", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn an_interrupt_ends_a_program_and_its_children() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = shell("sleep 600 & wait");
        command.stderr(writer);
        let failure = run(&mut command, &Interrupt::fixed(true)).unwrap_err();
        assert_eq!(failure.0, "interrupted");
        drop(command); // it holds our end of the pipe
        // The pipe ends once nobody has it open any more, so this would wait for the sleeping child if it were alive.
        reader.read_to_end(&mut Vec::new()).unwrap();
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_does_not_hold_us_up() {
        let mut lines = Vec::new();
        let mut command = shell("echo done; sleep 3 & exit 0");
        let begin = std::time::Instant::now();
        run_by_line(&mut command, &Interrupt::fixed(false), NO_LIMIT, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["done"]);
        assert!(begin.elapsed().as_secs() < 3, "waited for the grandchild");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let mut command = shell("sleep 600 & wait");
        let limit = Duration::from_millis(1);
        let status = run_by_line(&mut command, &Interrupt::fixed(false), limit, |_| {}).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = run(&mut Command::new("acteon-no-such-program"), &Interrupt::fixed(false)).unwrap_err();
        assert!(failure.0.contains("acteon-no-such-program"), "{}", failure.0);
    }
}
