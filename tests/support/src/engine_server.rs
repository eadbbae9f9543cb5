//! A real `acteon-server engine` that belongs to one test: the engine alone, with a directory, as a process to kill.
//!
//! # Guarantees
//! [`EngineServer::start`] returns once *this* process answers on its port of 127.0.0.1. [`kill9`](EngineServer::kill9) returns once it is
//! gone. The directory is that of the test, or one of the server's own folder, which is removed with it.
//!
//! # Failure
//! As for a [`RedisServer`](crate::RedisServer): a port that was taken meanwhile is replaced, and a server that does not come up is reported with the
//! end of its log. The program is the one that was built with the tests, never one that is installed.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::environment::{SERVER_ENV, acteon_server_program};
use crate::fake_clock::FakeClock;
use crate::process::{Surroundings, supervised_command_in};
use crate::resp;
use crate::server_process::{Launch, ServerProcess, StartError, launch_again, launch_on_free_port};
use crate::small_disk::SmallDisk;

/// How an [`EngineServer`] is set up.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where the data are kept, if not in the server's own folder.
    pub dir: Option<PathBuf>,
    /// The size of a disk of its own for the server's own folder of data, which a test can fill.
    pub small_disk_bytes: Option<u64>,
    /// Further lines for `[engine]`, such as `fsync = "always"`.
    pub settings: Vec<String>,
    /// The clock that the server sees, unless that is the machine's.
    pub clock: Option<Arc<FakeClock>>,
}

/// A running engine with a directory. It is killed, and its folder removed, when this is dropped.
#[derive(Debug)]
pub struct EngineServer {
    options: EngineOptions,
    process: ServerProcess,
    // Below the process, so that the disk goes after the process that writes to it.
    disk: Option<SmallDisk>,
}

const CONFIG_FILE: &str = "acteon.toml";
const DATA_FOLDER: &str = "data";

const QUERY_TIMEOUT: Duration = Duration::from_secs(20); // a disk that other tests keep busy may hold up a reply for seconds
const END_TIMEOUT: Duration = Duration::from_secs(60);

impl EngineServer {
    /// Starts a server on a free port and waits until it answers.
    ///
    /// # Errors
    /// [`StartError`]: there is no program, it cannot be run, or the server does not come up within 30 seconds.
    pub fn start(options: EngineOptions) -> Result<Self, StartError> {
        let program = acteon_server_program().ok_or_else(|| {
            let how = format!("no acteon-server: cargo build -p acteon-server, or set {SERVER_ENV}");
            io::Error::new(io::ErrorKind::NotFound, how)
        })?;
        let process = ServerProcess::new(program, "acteon-engine-", None)?;
        let disk = options.small_disk_bytes.map(|bytes| {
            let folder = process.folder().join(DATA_FOLDER);
            fs::create_dir(&folder).and_then(|()| SmallDisk::over(&folder, bytes))
        });
        let mut server = Self { options, process, disk: disk.transpose()? };
        launch_on_free_port(&mut server)?;
        Ok(server)
    }

    /// Where it listens; the same after [`restart`](Self::restart).
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The URL of this server.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where the data are. On a disk of its own only the server sees what is in it.
    pub fn dir(&self) -> PathBuf {
        self.options.dir.clone().unwrap_or_else(|| self.process.folder().join(DATA_FOLDER))
    }

    /// The disk of the data, if [`EngineOptions::small_disk_bytes`] asked for one.
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// The number of its process.
    ///
    /// # Errors
    /// It is not running.
    pub fn process_id(&self) -> io::Result<u32> {
        self.process.pid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Kills the server as a crash would (SIGKILL) and returns once it is gone. Without effect on a dead server.
    ///
    /// # Errors
    /// The process could not be signalled.
    pub fn kill9(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Asks the server to stop (SIGTERM) and returns once it has.
    ///
    /// # Errors
    /// It is not running, or goes on for a minute.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.end(Signal::TERM, END_TIMEOUT)
    }

    /// Freezes the server (SIGSTOP). Returns once it stands still.
    ///
    /// # Errors
    /// The server is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// The server is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Starts the server again on the same port and with the same directory, killing it first if it still runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.kill9()?;
        launch_again(self)
    }

    /// Starts the server again without waiting until it answers, killing it first if it still runs: for a crash while it loads its data.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn begin_restart(&mut self) -> Result<(), StartError> {
        self.kill9()?;
        let command = self.command()?;
        Ok(self.process.spawn(command)?)
    }

    /// Sends one command and returns its reply as text; nil is `None`. For single values, not for arrays.
    ///
    /// # Errors
    /// The server cannot be reached, stays silent, or answers with an error, which is then the message.
    pub fn query(&self, arguments: &[&str]) -> io::Result<Option<String>> {
        resp::query(self.address(), None, QUERY_TIMEOUT, arguments)
    }

    /// All that the server has written to its log since it was last started.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn config(&self) -> String {
        let mut lines = vec!["[server]\nlog = \"info\"\n[engine]".to_owned()];
        lines.push(format!("listen = \"{}\"", self.address()));
        lines.push(format!("dir = {:?}", self.dir()));
        lines.extend(self.options.settings.iter().cloned());
        lines.join("\n") + "\n"
    }

    fn command(&self) -> io::Result<Command> {
        let config = self.process.folder().join(CONFIG_FILE);
        fs::write(&config, self.config())?;
        let surroundings = Surroundings {
            folder: self.process.folder(),
            account: None,
            clock: self.options.clock.as_deref(),
            disk: self.disk.as_ref(),
        };
        let mut command = supervised_command_in(self.process.program(), &surroundings);
        command.arg("-c").arg(&config).arg("engine");
        Ok(command)
    }

    /// Asks for the process id as well, since another server may have taken the port a moment before.
    fn answers_as_itself(process: &ServerProcess) -> io::Result<()> {
        let info = resp::query(process.address(), None, QUERY_TIMEOUT, &["INFO", "server"])?.unwrap_or_default();
        let expected = format!("process_id:{}", process.pid()?.as_raw_nonzero());
        if info.lines().any(|line| line == expected) {
            Ok(())
        } else {
            Err(io::Error::other("another server answers on this port"))
        }
    }
}

impl Launch for EngineServer {
    fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let command = self.command()?;
        self.process.launch(command, Self::answers_as_itself)
    }
}

/// Runs `acteon-server engine verify` on a directory that no server has, and returns whether it is sound, and what was said of it.
///
/// # Errors
/// There is no program, or it cannot be run.
pub fn verify_engine_dir(dir: &Path) -> io::Result<(bool, String)> {
    let program = acteon_server_program().ok_or(io::ErrorKind::NotFound)?;
    let output = Command::new(program).args(["engine", "verify"]).arg(dir).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}
