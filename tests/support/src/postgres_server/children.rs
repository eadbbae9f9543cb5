//! The processes that a PostgreSQL server has started: one per connection, and a few of its own.
//!
//! They are found by their parent, since each leads a session of its own. A child that ends meanwhile is no error anywhere here.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(10); // one that waits for the disk ends or stops only afterwards
const POLL: Duration = Duration::from_millis(1);

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
}

/// The children that `parent` has now. Complete only while it stands still.
pub(super) fn of(parent: Pid) -> io::Result<Vec<Pid>> {
    let processes = match fs::read_dir("/proc") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        processes => processes?,
    };
    let parent = parent.as_raw_nonzero().get();
    Ok(processes
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect())
}

/// Kills them and returns once none runs any more.
pub(super) fn kill(children: &[Pid]) -> io::Result<()> {
    signal(children, Signal::KILL)?;
    // Whoever adopted them may take its time to collect them, or never do it.
    wait_for(children, |stat| stat.state == 'Z')
}

/// Freezes them and returns once all stand still.
pub(super) fn pause(children: &[Pid]) -> io::Result<()> {
    signal(children, Signal::STOP)?;
    wait_for(children, |stat| matches!(stat.state, 'T' | 'Z'))
}

pub(super) fn resume(children: &[Pid]) -> io::Result<()> {
    signal(children, Signal::CONT)
}

fn signal(children: &[Pid], signal: Signal) -> io::Result<()> {
    children.iter().try_for_each(|child| match kill_process(*child, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    })
}

/// Waits until each one is gone or as it should be.
fn wait_for(children: &[Pid], is_there: impl Fn(&Stat) -> bool) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for child in children {
        while stat(*child).is_some_and(|stat| !is_there(&stat)) {
            if Instant::now() >= deadline {
                let reason = format!("process {} of a server does not react", child.as_raw_nonzero());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// `None` when there is no such process.
fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// The name in parentheses may itself have spaces and parentheses; what follows the last one has not.
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{Stat, parse};

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let stat = parse("42 (postgres: x) S 1) S 7 42 42 0 -1");
        assert_eq!(stat, Some(Stat { state: 'S', parent: 7 }));
        assert_eq!(parse("42 (cut off"), None);
    }
}
