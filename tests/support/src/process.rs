//! Starts child processes that do not outlive this process.
//!
//! # How it works
//! On Linux the kernel can signal a child when its parent dies. Asking for that in the child takes `unsafe` in Rust, so
//! `setpriv --pdeathsig` (util-linux) asks for it and then becomes the program: same process id, nothing in between. Where setpriv is
//! missing, children are started plainly and only `Drop` stops them.
//!
//! "Parent" means the *thread* that started the child. A test's thread ends long before the test process does, and a server shared by
//! several tests would die with the first one. All children are therefore started by one thread that lives as long as the process.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::environment::find_program;

/// A command that runs `program` and, where the system allows it, is killed when this process ends.
///
/// Start it with [`supervised`]; a child started from another thread is killed when that thread ends.
pub fn supervised_command(program: impl AsRef<OsStr>) -> Command {
    match setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Starts `command` from a thread that lives as long as this process.
///
/// # Errors
/// What [`Command::spawn`] reports. A program that is missing shows only as an early exit when it is started through setpriv.
pub fn supervised(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let (reply, spawned) = mpsc::channel();
    SPAWNER.get_or_init(start_spawner).send(Job { command, reply }).map_err(|_| spawner_gone())?;
    spawned.recv().map_err(|_| spawner_gone())?
}

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

fn start_spawner() -> Sender<Job> {
    let (jobs, inbox) = mpsc::channel::<Job>();
    thread::spawn(move || {
        for mut job in inbox {
            // A caller that went away has no use for the child, and nobody else knows of it.
            if let Err(mpsc::SendError(Ok(mut child))) = job.reply.send(job.command.spawn()) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    });
    jobs
}

fn spawner_gone() -> io::Error {
    io::Error::other("the thread that starts child processes is gone")
}

fn setpriv() -> Option<&'static OsStr> {
    static SETPRIV: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let found = SETPRIV.get_or_init(|| cfg!(target_os = "linux").then(|| find_program("setpriv")).flatten());
    found.as_deref().map(OsStr::new)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{supervised, supervised_command};

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = thread::spawn(|| {
            let mut command = supervised_command("sleep");
            command.arg("60");
            supervised(command)
        })
        .join()
        .expect("the asking thread does not panic")
        .expect("sleep starts");
        assert!(child.try_wait().unwrap().is_none(), "killed with its thread");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_supervised_program_gets_its_arguments_as_they_are() {
        let mut command = supervised_command("test");
        command.args(["--help me", "=", "--help me"]);
        assert!(supervised(command).unwrap().wait().unwrap().success());
    }
}
