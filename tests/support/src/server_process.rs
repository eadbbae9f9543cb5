//! What all servers of tests have in common: a port, a folder, a process and a log.
//!
//! # Guarantees
//! A server is up once *it* is ready, never another one that happened to take its port. Dropping it kills the process and removes
//! the folder, in this order.
//!
//! # Failure
//! A port can be taken between finding it free and the server binding it. [`with_free_port`] then tries another one. A server
//! that does not come up is reported with the end of its log.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use crate::account::{Account, private_folder};

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no program to start.
    #[error("no {program}: install it (Debian: apt-get install {package}) or set {variable}")]
    NoProgram {
        /// The program that was looked for.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
        /// The environment variable that can name it.
        variable: &'static str,
    },
    /// A file or a process could not be created, or a program that prepares the server failed.
    #[error("cannot set up a server: {0}")]
    Setup(#[from] io::Error),
    /// The server ended or stayed silent.
    #[error("{program} did not come up on port {port}: {reason}; end of its log:\n{log}")]
    NotReady {
        /// The program that was started.
        program: String,
        /// The port it should have answered on.
        port: u16,
        /// What was seen from outside.
        reason: String,
        /// The last lines that the server wrote.
        log: String,
    },
}

/// A server's process, or what is left of it, and its folder.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    program: PathBuf,
    port: u16,
    child: Option<Child>,
    // Below the child, so that the folder is removed after the process that writes to it is gone.
    folder: TempDir,
}

const LOG_FILE: &str = "server.log";

const READY_TIMEOUT: Duration = Duration::from_secs(30); // well under a second alone; many on a machine that compiles meanwhile
const READY_POLL: Duration = Duration::from_millis(5);
const START_ATTEMPTS_MAX: u32 = 5; // losing a race for a port is rare; losing five in a row is another problem
const PORT_RETRY_PAUSE: Duration = Duration::from_millis(100);
const LOG_LINES_SHOWN: usize = 30;

impl ServerProcess {
    /// A process that is not yet started, with a folder of its own that belongs to `account`.
    pub(crate) fn new(program: PathBuf, folder_prefix: &str, account: Option<Account>) -> io::Result<Self> {
        Ok(Self { program, port: 0, child: None, folder: private_folder(folder_prefix, account)? })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `command`, which runs the program, and waits until `is_ready` returns without an error.
    pub(crate) fn launch(
        &mut self,
        command: Command,
        is_ready: impl Fn(&Self) -> io::Result<()>,
    ) -> Result<(), StartError> {
        self.spawn(command)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(status) = self.exit_status()? {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            match is_ready(self) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    let failure = self.not_ready(format!("after {} s: {error}", READY_TIMEOUT.as_secs()));
                    self.kill()?;
                    return Err(failure);
                }
                Err(_) => thread::sleep(READY_POLL),
            }
        }
    }

    /// Starts `command`, which runs the program, without waiting for it.
    pub(crate) fn spawn(&mut self, mut command: Command) -> io::Result<()> {
        let log = File::create(self.folder().join(LOG_FILE))?;
        command.current_dir(self.folder()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(crate::process::supervised(command)?);
        Ok(())
    }

    /// Kills the process (SIGKILL) and returns once it is gone. Without effect on a dead one.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal that asks the process to end and returns once it has.
    pub(crate) fn end(&mut self, signal: Signal, limit: Duration) -> io::Result<()> {
        self.signal(signal)?;
        let deadline = Instant::now() + limit;
        while self.exit_status()?.is_none() {
            if Instant::now() >= deadline {
                let reason = format!("{} still runs after {} s", self.program.display(), limit.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            thread::sleep(READY_POLL);
        }
        Ok(())
    }

    /// Freezes the process (SIGSTOP) and returns once it stands still.
    pub(crate) fn pause(&self) -> io::Result<()> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        // NOWAIT leaves the exit status, should the server have died instead, to `Child::wait`.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), stopped)?;
        Ok(())
    }

    /// Lets a frozen process go on (SIGCONT).
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn pid(&self) -> io::Result<Pid> {
        self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, format!("{} is not running", self.program.display()))
        })
    }

    /// All that the server has written since it was last started.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder().join(LOG_FILE)).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    fn not_ready(&self, reason: String) -> StartError {
        StartError::NotReady {
            program: self.program.display().to_string(),
            port: self.port,
            reason,
            log: self.log_tail(),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // SIGKILL also ends a frozen server, and nothing of it is kept. There is nobody to report an error to.
        let _ = self.kill();
    }
}

/// A server around a [`ServerProcess`].
pub(crate) trait Launch {
    fn process(&mut self) -> &mut ServerProcess;

    /// Starts the server on the port that its process has, and waits until it is ready.
    fn launch(&mut self) -> Result<(), StartError>;
}

/// Chooses a free port and starts the server on it; on another one if it was taken meanwhile.
pub(crate) fn launch_on_free_port(server: &mut impl Launch) -> Result<(), StartError> {
    with_free_port(|port| {
        server.process().port = port;
        server.launch()
    })
}

/// The same for whatever `start` begins on the port that it is given, such as a server that listens on a further one.
pub(crate) fn with_free_port<S>(mut start: impl FnMut(u16) -> Result<S, StartError>) -> Result<S, StartError> {
    for _ in 1..START_ATTEMPTS_MAX {
        match start(free_port()?) {
            Err(error) if lost_its_port(&error) => {}
            outcome => return outcome,
        }
    }
    start(free_port()?)
}

/// Starts the server on the port that it had. A client that was given this port by chance must first end.
pub(crate) fn launch_again(server: &mut impl Launch) -> Result<(), StartError> {
    for _ in 1..START_ATTEMPTS_MAX {
        match server.launch() {
            Err(error) if lost_its_port(&error) => thread::sleep(PORT_RETRY_PAUSE),
            outcome => return outcome,
        }
    }
    server.launch()
}

/// Redis, PostgreSQL and PgBouncer all show the system's own words.
fn lost_its_port(error: &StartError) -> bool {
    matches!(error, StartError::NotReady { log, .. } if log.contains("Address already in use"))
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
