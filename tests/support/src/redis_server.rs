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

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::environment::{REDIS_SERVER_ENV, redis_server_program};
use crate::fake_clock::FakeClock;
use crate::process::{Surroundings, supervised_command_in};
use crate::resp;
use crate::server_process::{Launch, ServerProcess, StartError, launch_again, launch_on_free_port, with_free_port};
use crate::small_disk::SmallDisk;

/// How a [`RedisServer`] is set up. The default has no password, no persistence and no unix socket.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The password of the default user: letters and digits. It goes into a file, never on the command line.
    pub password: Option<String>,
    /// Whether each write is in the append-only file before it is answered, so that [`RedisServer::restart`] finds it again.
    pub append_only: bool,
    /// Whether the server also listens on a unix socket; see [`RedisServer::socket_path`].
    pub unix_socket: bool,
    /// Whether it is a Sentinel instead of a server for data.
    pub sentinel: bool,
    /// Certificates, with which it also listens for TLS; see [`RedisServer::tls_port`].
    pub tls: Option<RedisTls>,
    /// How large the disk for the data is, if it is to be one that can be filled; see [`RedisServer::disk`].
    pub small_disk_bytes: Option<u64>,
    /// The wall clock that the server sees, instead of the machine's.
    pub clock: Option<Arc<FakeClock>>,
    /// Further lines of `redis.conf`, such as `maxmemory 10mb`. They come last and therefore win.
    pub settings: Vec<String>,
}

/// PEM files of a server that also listens for TLS. The port without TLS stays, for [`RedisServer::query`].
#[derive(Clone, Debug)]
pub struct RedisTls {
    /// Its certificate, which it also shows as a client of other servers.
    pub cert_file: PathBuf,
    /// The key of that certificate.
    pub key_file: PathBuf,
    /// The authorities that it trusts, as a server and as a client.
    pub ca_file: PathBuf,
    /// Whether clients must show a certificate.
    pub auth_clients: bool,
    /// Whether it reaches other servers by TLS: replicas their primary, Sentinels everybody, nodes each other.
    pub between_servers: bool,
}

/// A running `redis-server`, killed and removed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    tls_port: Option<u16>,
    process: ServerProcess,
    // Below the process, which ends before it.
    disk: Option<SmallDisk>,
}

const NO_PROGRAM: StartError =
    StartError::NoProgram { program: "redis-server", package: "redis-server", variable: REDIS_SERVER_ENV };

const CONFIG_FILE: &str = "redis.conf";
const SOCKET_FILE: &str = "redis.sock";
const DISK_FOLDER: &str = "disk";

const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    ///
    /// # Errors
    /// [`StartError`]: there is no program, it cannot be run, or the server does not come up within 30 seconds.
    pub fn start(options: RedisOptions) -> Result<Self, StartError> {
        let program = redis_server_program().ok_or(NO_PROGRAM)?;
        let process = ServerProcess::new(program, "acteon-redis-", None)?;
        let disk = options.small_disk_bytes.map(|bytes| {
            let folder = process.folder().join(DISK_FOLDER);
            fs::create_dir(&folder).and_then(|()| SmallDisk::over(&folder, bytes))
        });
        let mut server = Self { options, tls_port: None, process, disk: disk.transpose()? };
        if server.options.tls.is_some() {
            with_free_port(|tls_port| {
                server.tls_port = Some(tls_port);
                launch_on_free_port(&mut server)
            })?;
        } else {
            launch_on_free_port(&mut server)?;
        }
        Ok(server)
    }

    /// The URL of this server, with its password if it has one.
    pub fn url(&self) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port()),
            None => format!("redis://127.0.0.1:{}", self.port()),
        }
    }

    /// Where the server listens, for a proxy or a raw client.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The port on 127.0.0.1; the same after [`restart`](Self::restart).
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    /// The port for TLS, if [`RedisOptions::tls`] asked for one; the same after [`restart`](Self::restart).
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// The unix socket, if [`RedisOptions::unix_socket`] asked for one.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.options.unix_socket.then(|| self.folder().join(SOCKET_FILE))
    }

    /// The folder with the server's files: configuration, log, data.
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// Kills the server as a crash would (SIGKILL) and returns once it is gone. Without effect on a dead server.
    ///
    /// # Errors
    /// The process could not be signalled.
    pub fn kill9(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Freezes the server (SIGSTOP): its connections stay open, nothing is answered. Returns once it stands still.
    ///
    /// # Errors
    /// The server is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets a frozen server go on (SIGCONT). It answers what arrived meanwhile.
    ///
    /// # Errors
    /// The server is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Starts the server again on the same port and in the same folder, killing it first if it still runs.
    ///
    /// Only with [`RedisOptions::append_only`] does it still have its data.
    ///
    /// # Errors
    /// As for [`start`](Self::start). The port is fixed, so a client that took it in the meantime makes this fail after some attempts.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.kill9()?;
        launch_again(self)
    }

    /// Sends one command and returns its reply as text; nil is `None`. For single values, not for arrays.
    ///
    /// # Errors
    /// The server cannot be reached, stays silent for 5 seconds, or answers with an error, which is then the message.
    pub fn query(&self, arguments: &[&str]) -> io::Result<Option<String>> {
        resp::query(self.address(), self.options.password.as_deref(), QUERY_TIMEOUT, arguments)
    }

    /// The same for a command that answers with a list of texts.
    ///
    /// # Errors
    /// As for [`query`](Self::query), or another answer.
    pub fn query_list(&self, arguments: &[&str]) -> io::Result<Vec<String>> {
        resp::query_list(self.address(), self.options.password.as_deref(), QUERY_TIMEOUT, arguments)
    }

    /// A field of INFO, such as `role`.
    ///
    /// # Errors
    /// As for [`query`](Self::query).
    pub fn info(&self, field: &str) -> io::Result<Option<String>> {
        let info = self.query(&["INFO", "everything"])?.unwrap_or_default();
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.map(str::to_owned))
    }

    /// The disk of the data, if [`RedisOptions::small_disk_bytes`] asked for one.
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    fn config(&self) -> String {
        let mut lines = vec![format!("port {}", self.port()), "bind 127.0.0.1".to_owned(), "daemonize no".to_owned()];
        if !self.options.sentinel {
            lines.push("save \"\"".to_owned());
        }
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
        if let (Some(tls), Some(port)) = (&self.options.tls, self.tls_port) {
            lines.extend(tls.settings(port, self.options.sentinel));
        }
        if self.disk.is_some() {
            lines.push(format!("dir {DISK_FOLDER}"));
        }
        lines.extend(self.options.settings.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// Asks for the process id as well, since another server may have taken the port a moment before.
    fn answers_as_itself(process: &ServerProcess, password: Option<&str>) -> io::Result<()> {
        let query = |arguments: &[&str]| resp::query(process.address(), password, QUERY_TIMEOUT, arguments);
        query(&["PING"])?;
        let info = query(&["INFO", "server"])?.unwrap_or_default();
        let expected = format!("process_id:{}", process.pid()?.as_raw_nonzero());
        if info.lines().any(|line| line == expected) {
            Ok(())
        } else {
            Err(io::Error::other("another server answers on this port"))
        }
    }
}

impl RedisTls {
    fn settings(&self, port: u16, is_sentinel: bool) -> Vec<String> {
        let yes_or_no = |yes| if yes { "yes" } else { "no" };
        let mut lines = vec![
            format!("tls-port {port}"),
            format!("tls-cert-file {}", self.cert_file.display()),
            format!("tls-key-file {}", self.key_file.display()),
            format!("tls-ca-cert-file {}", self.ca_file.display()),
            format!("tls-auth-clients {}", yes_or_no(self.auth_clients)),
            format!("tls-replication {}", yes_or_no(self.between_servers)),
        ];
        if !is_sentinel {
            lines.push(format!("tls-cluster {}", yes_or_no(self.between_servers)));
        }
        lines
    }
}

impl Launch for RedisServer {
    fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let config = self.folder().join(CONFIG_FILE);
        fs::write(&config, self.config())?;
        let surroundings = Surroundings {
            folder: self.process.folder(),
            account: None,
            clock: self.options.clock.as_deref(),
            disk: self.disk.as_ref(),
        };
        let mut command = supervised_command_in(self.process.program(), &surroundings);
        command.arg(&config);
        if self.options.sentinel {
            command.arg("--sentinel");
        }
        let password = self.options.password.as_deref();
        self.process.launch(command, |process| Self::answers_as_itself(process, password))
    }
}
