//! A real PostgreSQL that belongs to one test.
//!
//! # Guarantees
//! [`PostgresServer::start`] returns once *this* server accepts connections. It listens on 127.0.0.1 and on a unix socket, asks
//! everybody for a password, and keeps its files in a temporary folder, which is removed with it.
//! [`pause`](PostgresServer::pause) returns once no process of the server runs, [`kill9`](PostgresServer::kill9) once none is left:
//! a server is many processes, and a test that stops only the first one would go on talking to the others.
//!
//! # Failure
//! As for every server here: another port when one is taken, and the end of the log when the server does not come up. A test that
//! is killed leaves the folder behind, and while its server is paused the standing processes as well.
//!
//! # How it works
//! `postgres` runs in the foreground, as an account without privileges where the test is root. Its files of settings are written
//! anew at each start, since they name the port. Whether it is ready is read from `postmaster.pid`, as pg_ctl does: the file
//! names the process as well, and reading it costs no connection.
//!
//! # Blocking
//! All methods block the thread: starting for about half a second, a query for 20 ms. Children are found in `/proc`; where there is none,
//! [`kill9`](PostgresServer::kill9) and [`pause`](PostgresServer::pause) act on the first process only.

mod children;
mod lock_file;
mod psql;
mod standby;
mod template;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::process::Signal;

use self::lock_file::LockFile;
use self::psql::Psql;
use self::standby::Upstream;
pub use self::template::PostgresTemplate;
use crate::account::{Account, write_private};
use crate::environment::{POSTGRES_BIN_ENV, find_program, postgres_bin_folder};
use crate::fake_clock::FakeClock;
use crate::process::{Surroundings, output_within, supervised_command_as, supervised_command_in};
use crate::server_process::{Launch, ServerProcess, StartError, launch_again, launch_on_free_port};
use crate::small_disk::SmallDisk;

/// How a [`PostgresServer`] is set up. By default it does not wait for the disk and has no TLS.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Whether a commit is on the disk before it is answered. It survives [`PostgresServer::kill9`] in either case; without this, a
    /// crash of the whole machine would lose it, and commits cost no waiting for the disk.
    pub durable: bool,
    /// What the server shows to clients that ask for TLS.
    pub tls: Option<PostgresTls>,
    /// Lines of `pg_hba.conf`, such as `hostssl all reader all cert`. They come first and therefore win over the last ones, which
    /// let everybody in who knows a password.
    pub hba: Vec<String>,
    /// What lies on a disk that can be filled, and how many bytes that has; see [`PostgresServer::disk`].
    pub small_disk: Option<(PostgresDisk, u64)>,
    /// The wall clock that the server sees, instead of the machine's.
    pub clock: Option<Arc<FakeClock>>,
    /// Further lines of `postgresql.conf`, such as `work_mem = '1MB'`. They come last and therefore win.
    pub settings: Vec<String>,
}

/// What can lie on a disk of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresDisk {
    /// The write-ahead log.
    Log,
    /// Tables and indexes.
    Tables,
}

/// PEM files for TLS. They are copied, since the server may run as somebody who cannot read them.
#[derive(Clone, Debug)]
pub struct PostgresTls {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the certificates of clients, if they may have one.
    pub ca: Option<PathBuf>,
}

/// A running PostgreSQL, killed and removed when dropped.
#[derive(Debug)]
pub struct PostgresServer {
    options: PostgresOptions,
    programs: Programs,
    password: String,
    /// Where a standby receives from.
    upstream: Option<Upstream>,
    standbys_made: AtomicU32,
    process: ServerProcess,
    // Below the process, which ends before it.
    disk: Option<SmallDisk>,
}

/// The programs of one version, and who runs them.
#[derive(Clone, Debug)]
struct Programs {
    folder: PathBuf,
    account: Option<Account>,
}

const NO_PROGRAM: StartError =
    StartError::NoProgram { program: "postgres", package: "postgresql", variable: POSTGRES_BIN_ENV };

const USER: &str = "acteon"; // a superuser
const DATABASE: &str = "postgres"; // the one that is always there
const CONNECTIONS_MAX: u32 = 200; // ten nodes with pools of the usual size, and room for the test's own

const STOP_TIMEOUT: Duration = Duration::from_secs(60); // the last checkpoint of a server that was busy writing
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(120); // initdb takes 0.5 s, and much longer on a machine that compiles meanwhile

/// Everybody needs a password, also on the unix socket and for replication.
const HBA: &str = "\
local all all scram-sha-256
host all all all scram-sha-256
host replication all all scram-sha-256
";

impl PostgresServer {
    /// Starts an empty server on a free port and waits until it accepts connections.
    ///
    /// # Errors
    /// [`StartError`]: there is no program, it cannot be run, or the server does not come up within 30 seconds.
    pub fn start(options: PostgresOptions) -> Result<Self, StartError> {
        let programs = Programs::find()?;
        let process = ServerProcess::new(programs.path("postgres"), "acteon-pg-", programs.account)?;
        let data = process.folder().join(DATA);
        let password = template::fill(&programs, &data)?;
        let disk = options.small_disk.map(|(what, bytes)| SmallDisk::over(&data.join(what.folder()), bytes));
        Self::launch_new(Self {
            options,
            programs,
            password,
            upstream: None,
            standbys_made: AtomicU32::new(0),
            process,
            disk: disk.transpose()?,
        })
    }

    /// The URL of the database `postgres`, with the name and the password of a superuser.
    pub fn url(&self) -> String {
        self.url_for(DATABASE)
    }

    /// The same for another database of this server.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@{}/{database}", self.password, self.address())
    }

    /// The name of the superuser.
    pub fn user(&self) -> &str {
        USER
    }

    /// The superuser's password: letters and digits.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Where the server listens, for a proxy or a raw client.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The port on 127.0.0.1; the same after [`restart`](Self::restart).
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    /// The folder with the server's files: log, data, and the unix socket, which clients find by folder and port.
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// Makes an empty database for a test of its own.
    ///
    /// # Errors
    /// As for [`query`](Self::query); also when it exists.
    pub fn create_database(&self, name: &str) -> io::Result<()> {
        let sql = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        self.query(&sql).map(drop)
    }

    /// Runs SQL in the database `postgres` as a superuser and returns the rows as text; NULL is `None`.
    ///
    /// Several statements are separate transactions; at most one of them may return rows.
    ///
    /// # Errors
    /// The server cannot be reached or takes longer than 30 seconds, or a statement fails; the message is psql's.
    pub fn query(&self, sql: &str) -> io::Result<Vec<Vec<Option<String>>>> {
        self.query_in(DATABASE, sql)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// As for [`query`](Self::query).
    pub fn query_in(&self, database: &str, sql: &str) -> io::Result<Vec<Vec<Option<String>>>> {
        let program = self.programs.client();
        Psql { program: &program, port: self.port(), user: USER, password: &self.password, database }.query(sql)
    }

    /// Kills all processes of the server as a crash would (SIGKILL) and returns once they are gone. Without effect on a dead server.
    ///
    /// # Errors
    /// A process could not be signalled, or does not go away.
    pub fn kill9(&mut self) -> io::Result<()> {
        if !self.process.is_running() {
            return Ok(());
        }
        // Standing still, the first process makes no more children and does not see the others die, and those say no goodbye to
        // their clients when they see it die.
        self.pause()?;
        let children = children::of(self.process.pid()?)?;
        self.process.kill()?;
        children::kill(&children)?;
        self.remove_shared_memory();
        Ok(())
    }

    /// Stops the server as an operator would ("fast", SIGINT): connections are closed, everything is written. Returns once it is gone.
    ///
    /// # Errors
    /// The server is not running, or still does after a minute.
    pub fn stop_fast(&mut self) -> io::Result<()> {
        self.process.end(Signal::INT, STOP_TIMEOUT)
    }

    /// Freezes all processes of the server (SIGSTOP): its connections stay open, nothing is answered. Returns once all stand still.
    ///
    /// # Errors
    /// The server is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()?; // first, so that it makes no more children
        children::pause(&children::of(self.process.pid()?)?)
    }

    /// Lets a frozen server go on (SIGCONT). It answers what arrived meanwhile.
    ///
    /// # Errors
    /// The server is not running.
    pub fn resume(&self) -> io::Result<()> {
        children::resume(&children::of(self.process.pid()?)?)?;
        self.process.resume()
    }

    /// Starts the server again on the same port and with its data, killing it first if it still runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start). The port is fixed, so a client that took it in the meantime makes this fail after some attempts.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.kill9()?;
        launch_again(self)
    }

    /// The small disk, if [`PostgresOptions::small_disk`] asked for one.
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    fn launch_new(mut server: Self) -> Result<Self, StartError> {
        launch_on_free_port(&mut server)?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder().join(DATA)
    }

    fn write_files(&self) -> io::Result<()> {
        let data = self.data();
        let account = self.programs.account;
        write_private(&data.join("postgresql.conf"), &self.config(), account)?;
        let hba: String = self.options.hba.iter().map(|line| format!("{line}\n")).collect();
        write_private(&data.join("pg_hba.conf"), &(hba + HBA), account)?;
        if let Some(tls) = &self.options.tls {
            let files =
                [(TLS_CERTIFICATE, Some(&tls.certificate)), (TLS_KEY, Some(&tls.key)), (TLS_CA, tls.ca.as_ref())];
            for (name, source) in files {
                if let Some(source) = source {
                    write_private(&data.join(name), &fs::read_to_string(source)?, account)?;
                }
            }
        }
        Ok(())
    }

    fn config(&self) -> String {
        let on_off = |is_on| if is_on { "on" } else { "off" };
        let mut lines = vec![
            format!("port = {}", self.port()),
            "listen_addresses = '127.0.0.1'".to_owned(),
            // Relative to the data, since a socket path has at most 107 bytes and temporary folders can be deep.
            "unix_socket_directories = '..'".to_owned(),
            format!("max_connections = {CONNECTIONS_MAX}"),
            // In files of the data folder instead of /dev/shm, where a killed server would leave it behind.
            "dynamic_shared_memory_type = mmap".to_owned(),
            "lc_messages = 'C'".to_owned(),
            format!("fsync = {}", on_off(self.options.durable)),
            format!("full_page_writes = {}", on_off(self.options.durable)),
        ];
        if let Some(tls) = &self.options.tls {
            lines.extend([
                "ssl = on".to_owned(),
                format!("ssl_cert_file = '{TLS_CERTIFICATE}'"),
                format!("ssl_key_file = '{TLS_KEY}'"),
            ]);
            lines.extend(tls.ca.is_some().then(|| format!("ssl_ca_file = '{TLS_CA}'")));
        }
        lines.extend(self.upstream.iter().flat_map(Upstream::config));
        lines.extend(self.options.settings.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// Removes the segment of System V shared memory by which PostgreSQL notices a second server on the same data. A killed server
    /// leaves it behind, and there is a limit for the whole machine. Where ipcrm is missing, 56 bytes stay.
    fn remove_shared_memory(&self) {
        let lock = LockFile::read(&self.data());
        if let (Some(ipcrm), Ok(Some(segment))) = (find_program("ipcrm"), lock.map(|lock| lock.shared_memory)) {
            let mut command = Command::new(ipcrm);
            command.args(["-m", &segment]);
            let _ = output_within(command, b"", PROGRAM_TIMEOUT);
        }
    }
}

const DATA: &str = "data";
const TLS_CERTIFICATE: &str = "server.crt";
const TLS_KEY: &str = "server.key";
const TLS_CA: &str = "root.crt";

impl PostgresDisk {
    /// In the folder with the data.
    const fn folder(self) -> &'static str {
        match self {
            Self::Log => "pg_wal",
            Self::Tables => "base",
        }
    }
}

impl Launch for PostgresServer {
    fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }

    fn launch(&mut self) -> Result<(), StartError> {
        self.write_files()?;
        let data = self.data();
        let surroundings = Surroundings {
            folder: self.process.folder(),
            account: self.programs.account,
            clock: self.options.clock.as_deref(),
            disk: self.disk.as_ref(),
        };
        let mut command = supervised_command_in(self.process.program(), &surroundings);
        command.arg("-D").arg(&data);
        self.process.launch(command, |process| {
            let lock = LockFile::read(&data)?;
            let is_itself = lock.pid == process.pid()?.as_raw_nonzero().to_string();
            if is_itself && lock.says_ready() {
                Ok(())
            } else {
                Err(io::Error::other(format!("it is {}", lock.status)))
            }
        })
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let _ = self.kill9(); // there is nobody to report an error to
    }
}

impl Programs {
    fn find() -> Result<Self, StartError> {
        let folder = postgres_bin_folder().ok_or(NO_PROGRAM)?;
        Ok(Self { folder, account: Account::unprivileged()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The psql of this version; some distributions keep the clients elsewhere.
    fn client(&self) -> PathBuf {
        let beside = self.path("psql");
        if beside.exists() { beside } else { find_program("psql").unwrap_or(beside) }
    }

    /// Runs a program that ends by itself, as the account that owns the server's files.
    fn run(&self, program: &Path, prepare: impl FnOnce(&mut Command)) -> io::Result<String> {
        let mut command = supervised_command_as(program, self.account);
        prepare(&mut command);
        let output = output_within(command, b"", PROGRAM_TIMEOUT)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{} ended with {}: {}", program.display(), output.status, reason.trim())))
    }
}
