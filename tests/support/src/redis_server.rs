//! A real Redis that belongs to one test.
//!
//! # Guarantees
//! [`RedisServer::start`] returns once *this* server answers, never another one that happened to take the port. The server listens
//! on 127.0.0.1 only and keeps its files in a temporary folder, which is removed with it.
//! [`pause`](RedisServer::pause) returns once the server has stopped running, [`kill9`](RedisServer::kill9) once it is gone.
//!
//! # Failure
//! A port can be taken between finding it free and Redis binding it; starting tries again on another port. A server that does not
//! come up is reported with the end of its log.
//!
//! # Blocking
//! All methods block the thread, usually for 10 to 50 ms. That is fine in a test, also in an async one.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use crate::environment::{REDIS_SERVER_ENV, redis_server_program};
use crate::process::{supervised, supervised_command};
use crate::resp;

/// How a [`RedisServer`] is set up. The default has no password, no persistence and no unix socket.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The password of the default user: letters and digits. It goes into a file, never on the command line.
    pub password: Option<String>,
    /// Whether each write is in the append-only file before it is answered, so that [`RedisServer::restart`] finds it again.
    pub append_only: bool,
    /// Whether the server also listens on a unix socket; see [`RedisServer::socket_path`].
    pub unix_socket: bool,
    /// Further lines of `redis.conf`, such as `maxmemory 10mb`. They come last and therefore win.
    pub settings: Vec<String>,
}

/// A running `redis-server`, killed and removed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    options: RedisOptions,
    port: u16,
    child: Option<Child>,
    // Below the child, so that the folder is removed after the process that writes to it is gone.
    folder: TempDir,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no program to start.
    #[error("no redis-server: install it (Debian: apt-get install redis-server) or set {REDIS_SERVER_ENV}")]
    NoProgram,
    /// A file or a process could not be created.
    #[error("cannot set up redis-server: {0}")]
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

const CONFIG_FILE: &str = "redis.conf";
const LOG_FILE: &str = "redis.log";
const SOCKET_FILE: &str = "redis.sock";

const READY_TIMEOUT: Duration = Duration::from_secs(15); // 20 ms alone; seconds on a machine that compiles meanwhile
const READY_POLL: Duration = Duration::from_millis(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const START_ATTEMPTS_MAX: u32 = 5; // losing a race for a port is rare; losing five in a row is another problem
const LOG_LINES_SHOWN: usize = 30;

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    ///
    /// # Errors
    /// [`StartError`]: there is no program, it cannot be run, or the server does not come up within 15 seconds.
    pub fn start(options: RedisOptions) -> Result<Self, StartError> {
        let program = redis_server_program().ok_or(StartError::NoProgram)?;
        let folder = tempfile::Builder::new().prefix("acteon-redis-").tempdir()?;
        let mut server = Self { program, options, port: 0, child: None, folder };
        for attempt in 1.. {
            server.port = free_port()?;
            match server.launch() {
                Err(error) if attempt < START_ATTEMPTS_MAX && server.lost_its_port() => drop(error),
                outcome => return outcome.map(|()| server),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The URL of this server, with its password if it has one.
    pub fn url(&self) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// Where the server listens, for a proxy or a raw client.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port on 127.0.0.1; the same after [`restart`](Self::restart).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The unix socket, if [`RedisOptions::unix_socket`] asked for one.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.options.unix_socket.then(|| self.folder.path().join(SOCKET_FILE))
    }

    /// The folder with the server's files: configuration, log, data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the server as a crash would (SIGKILL) and returns once it is gone. Without effect on a dead server.
    ///
    /// # Errors
    /// The process could not be signalled.
    pub fn kill9(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Freezes the server (SIGSTOP): its connections stay open, nothing is answered. Returns once it stands still.
    ///
    /// # Errors
    /// The server is not running.
    pub fn pause(&self) -> io::Result<()> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        // NOWAIT leaves the exit status, should the server have died instead, to `Child::wait`.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), stopped)?;
        Ok(())
    }

    /// Lets a frozen server go on (SIGCONT). It answers what arrived meanwhile.
    ///
    /// # Errors
    /// The server is not running.
    pub fn resume(&self) -> io::Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Starts the server again on the same port and in the same folder, killing it first if it still runs.
    ///
    /// Only with [`RedisOptions::append_only`] does it still have its data.
    ///
    /// # Errors
    /// As for [`start`](Self::start). The port is fixed, so a client that took it in the meantime makes this fail after some attempts.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.kill9()?;
        for _ in 1..START_ATTEMPTS_MAX {
            match self.launch() {
                Err(_) if self.lost_its_port() => thread::sleep(Duration::from_millis(100)),
                outcome => return outcome,
            }
        }
        self.launch()
    }

    /// Sends one command and returns its reply as text; nil is `None`. For single values, not for arrays.
    ///
    /// # Errors
    /// The server cannot be reached, stays silent for 5 seconds, or answers with an error, which is then the message.
    pub fn query(&self, arguments: &[&str]) -> io::Result<Option<String>> {
        resp::query(self.address(), self.options.password.as_deref(), QUERY_TIMEOUT, arguments)
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(self.folder.path().join(LOG_FILE)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let config = self.folder.path().join(CONFIG_FILE);
        fs::write(&config, self.config())?;
        let log = File::create(self.folder.path().join(LOG_FILE))?;
        let mut command = supervised_command(&self.program);
        command.arg(&config).current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(supervised(command)?);
        self.wait_until_ready()
    }

    fn config(&self) -> String {
        let mut lines = vec![
            format!("port {}", self.port),
            "bind 127.0.0.1".to_owned(),
            "daemonize no".to_owned(),
            "save \"\"".to_owned(),
        ];
        if let Some(password) = &self.options.password {
            lines.push(format!("requirepass \"{password}\""));
        }
        if self.options.append_only {
            lines.extend(["appendonly yes".to_owned(), "appendfsync always".to_owned()]);
        }
        if self.options.unix_socket {
            // Relative, since a socket path has at most 108 bytes and temporary folders can be deep.
            lines.push(format!("unixsocket {SOCKET_FILE}"));
        }
        lines.extend(self.options.settings.iter().cloned());
        lines.join("\n") + "\n"
    }

    fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(status) = self.exit_status()? {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            let seen = self.answers_as_itself();
            match seen {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    let reason = format!("after {} s: {error}", READY_TIMEOUT.as_secs());
                    let failure = self.not_ready(reason);
                    self.kill9()?;
                    return Err(failure);
                }
                Err(_) => thread::sleep(READY_POLL),
            }
        }
    }

    /// Asks for the process id as well, since another server may have taken the port a moment before.
    fn answers_as_itself(&self) -> io::Result<()> {
        self.query(&["PING"])?;
        let info = self.query(&["INFO", "server"])?.unwrap_or_default();
        let expected = format!("process_id:{}", self.pid()?.as_raw_nonzero());
        if info.lines().any(|line| line == expected) {
            Ok(())
        } else {
            Err(io::Error::other("another server answers on this port"))
        }
    }

    fn exit_status(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    fn lost_its_port(&self) -> bool {
        self.log_tail().contains("Address already in use")
    }

    fn not_ready(&self, reason: String) -> StartError {
        StartError::NotReady {
            program: self.program.display().to_string(),
            port: self.port,
            reason,
            log: self.log_tail(),
        }
    }

    fn pid(&self) -> io::Result<Pid> {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "redis-server is not running"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // SIGKILL also ends a frozen server, and nothing of it is kept. There is nobody to report an error to.
        let _ = self.kill9();
    }
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
