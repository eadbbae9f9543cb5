//! Starts child processes that do not outlive this process.
//!
//! # How it works
//! On Linux the kernel can signal a child when its parent dies. Asking for that in the child takes `unsafe` in Rust, so
//! `setpriv --pdeathsig` (util-linux) asks for it and then becomes the program: same process id, nothing in between. Where setpriv is
//! missing, children are started plainly and only `Drop` stops them.
//!
//! "Parent" means the *thread* that started the child. A test's thread ends long before the test process does, and a server shared by
//! several tests would die with the first one. All children are therefore started by one thread that lives as long as the process.
//!
//! A change of user makes the kernel forget the request. setpriv makes it last, after the change, whatever the order of its options.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::account::Account;
use crate::environment::find_program;
use crate::fake_clock::FakeClock;
use crate::small_disk::SmallDisk;

/// A command that runs `program` and, where the system allows it, is killed when this process ends.
///
/// Start it with [`supervised`]; a child started from another thread is killed when that thread ends.
pub fn supervised_command(program: impl AsRef<OsStr>) -> Command {
    supervised_command_as(program, None)
}

/// The same for a program that runs as `account`; `None` is the account that we have.
pub(crate) fn supervised_command_as(program: impl AsRef<OsStr>, account: Option<Account>) -> Command {
    let Some(setpriv) = setpriv() else {
        let mut command = Command::new(program);
        if let Some(Account { user, group }) = account {
            command.uid(user).gid(group); // which also drops the groups of root
        }
        return command;
    };
    let mut command = Command::new(setpriv);
    if let Some(Account { user, group }) = account {
        command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A supervised program among what a test has arranged for it.
pub(crate) fn supervised_command_in(program: impl AsRef<OsStr>, surroundings: &Surroundings<'_>) -> Command {
    let mut command = match surroundings.clock {
        Some(clock) => {
            let mut command = supervised_command_as("env", surroundings.account);
            command.args(clock.settings()).arg(program);
            command
        }
        None => supervised_command_as(program, surroundings.account),
    };
    if let Some(disk) = surroundings.disk {
        // Entered first, since whoever enters a namespace forgets whom to die with.
        command = disk.enter(&command, surroundings.folder);
    }
    command
}

/// What a program is started among.
pub(crate) struct Surroundings<'a> {
    /// Where it works.
    pub(crate) folder: &'a Path,
    /// As whom; `None` is the account that we have.
    pub(crate) account: Option<Account>,
    /// The clock that it sees, unless that is the machine's.
    pub(crate) clock: Option<&'a FakeClock>,
    /// A disk that only it sees.
    pub(crate) disk: Option<&'a SmallDisk>,
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

/// Runs a program that ends by itself, gives it `input`, and returns what it printed. It is killed when it takes longer than `limit`.
///
/// # Errors
/// The program cannot be run or takes too long. One that fails is no error here; its status says so.
pub(crate) fn output_within(mut command: Command, input: &[u8], limit: Duration) -> io::Result<Output> {
    // Started through setpriv, the program is what follows its options.
    let program = command.get_args().skip_while(|argument| *argument != "--").nth(1).unwrap_or(command.get_program());
    let program = program.display().to_string();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = supervised(command)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stdin = child.stdin.take();
    let (done, outcome) = mpsc::channel();
    let waiting = thread::spawn(move || done.send(child.wait_with_output()));
    if let Some(mut stdin) = stdin {
        let input = input.to_owned();
        // A program that ends without reading all of it has said why in its output.
        thread::spawn(move || stdin.write_all(&input));
    }
    if let Ok(output) = outcome.recv_timeout(limit) {
        return output;
    }
    if let Some(pid) = pid {
        // Should it have ended just now, its id is not yet given to another: only the thread above could have collected it.
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = waiting.join();
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{program} did not end within {} s", limit.as_secs())))
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
    use std::io;
    use std::thread;
    use std::time::Duration;

    use super::{output_within, supervised, supervised_command};

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

    #[test]
    fn a_program_is_given_its_input_and_its_output_is_kept() {
        let input = vec![b'x'; 300_000]; // more than a pipe holds
        let output = output_within(supervised_command("cat"), &input, Duration::from_secs(60)).unwrap();
        assert_eq!(output.stdout, input);
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let mut command = supervised_command("sleep");
        command.arg("600");
        let error = output_within(command, b"", Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().starts_with("sleep "), "{error}");
    }
}
