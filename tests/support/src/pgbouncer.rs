//! A real PgBouncer that belongs to one test and stands in front of its [`PostgresServer`].
//!
//! # Guarantees
//! As for the other servers: its own port on 127.0.0.1, a folder that is removed with it, killed when dropped. It lets in the
//! superuser of its server, with the same password, knows every database of that server by its name, and shows its
//! own state in the database `pgbouncer`.
//!
//! # Failure
//! [`StartError`] with the end of PgBouncer's log. While the server behind it is down, clients are let in and then wait.

use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::account::{Account, write_private};
use crate::environment::{PGBOUNCER_ENV, pgbouncer_program};
use crate::postgres_server::PostgresServer;
use crate::process::supervised_command_as;
use crate::server_process::{Launch, ServerProcess, StartError, launch_again, launch_on_free_port};

/// For how long a client keeps the connection to the server that PgBouncer gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// Until it disconnects.
    Session,
    /// Until its transaction ends, which is how PgBouncer is mostly used. What belongs to a session does not work.
    #[default]
    Transaction,
}

/// A running PgBouncer, killed and removed when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    account: Option<Account>,
    /// Of the server behind it, which listens on 127.0.0.1.
    server_port: u16,
    user: String,
    password: String,
    pool_mode: PoolMode,
    process: ServerProcess,
}

const NO_PROGRAM: StartError =
    StartError::NoProgram { program: "pgbouncer", package: "pgbouncer", variable: PGBOUNCER_ENV };

const CONFIG_FILE: &str = "pgbouncer.ini";
const USERS_FILE: &str = "users.txt";
const CLIENTS_MAX: u32 = 500; // above what the server takes, as in real use
const SERVER_CONNECTIONS_MAX: u32 = 20; // per database; few enough that clients do share them
/// How long it refuses everybody after the server was not there, in seconds. By default that is 15, far longer than a server that is restarted needs.
const LOGIN_RETRY_S: u32 = 1;

impl PgBouncer {
    /// Starts a PgBouncer in front of `server` and waits until it accepts connections.
    ///
    /// # Errors
    /// [`StartError`]: there is no program, it cannot be run, or it does not come up within 30 seconds.
    pub fn start(server: &PostgresServer, pool_mode: PoolMode) -> Result<Self, StartError> {
        let program = pgbouncer_program().ok_or(NO_PROGRAM)?;
        let account = Account::unprivileged()?;
        let mut bouncer = Self {
            account,
            server_port: server.port(),
            user: server.user().to_owned(),
            password: server.password().to_owned(),
            pool_mode,
            process: ServerProcess::new(program, "acteon-pgbouncer-", account)?,
        };
        launch_on_free_port(&mut bouncer)?;
        Ok(bouncer)
    }

    /// The URL of the database `postgres` through this PgBouncer.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The same for another database of the server.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgres://{}:{}@{}/{database}", self.user, self.password, self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The port on 127.0.0.1; the same after [`restart`](Self::restart).
    pub fn port(&self) -> u16 {
        self.process.port()
    }

    /// Kills it and with it all connections through it. Without effect on a stopped one.
    ///
    /// # Errors
    /// The process could not be signalled.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port, killing it first if it still runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start). The port is fixed, so a client that took it in the meantime makes this fail after some attempts.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.stop()?;
        launch_again(self)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    fn config(&self) -> String {
        let Self { server_port, user, pool_mode, .. } = self;
        let port = self.port();
        let pool_mode = match pool_mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
        };
        format!(
            "[databases]\n\
             * = host=127.0.0.1 port={server_port}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = scram-sha-256\n\
             auth_file = {USERS_FILE}\n\
             admin_users = {user}\n\
             pool_mode = {pool_mode}\n\
             max_client_conn = {CLIENTS_MAX}\n\
             default_pool_size = {SERVER_CONNECTIONS_MAX}\n\
             server_login_retry = {LOGIN_RETRY_S}\n"
        )
    }
}

impl Launch for PgBouncer {
    fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let folder = self.process.folder();
        write_private(&folder.join(CONFIG_FILE), &self.config(), self.account)?;
        // Plain, since PgBouncer needs the password itself: it also presents it to the server.
        let users = format!("\"{}\" \"{}\"\n", self.user, self.password);
        write_private(&folder.join(USERS_FILE), &users, self.account)?;
        let mut command = supervised_command_as(self.process.program(), self.account);
        command.arg(CONFIG_FILE);
        self.process.launch(command, |process| {
            // Its own word that it has the port, and proof that the port is open.
            if !process.log().contains("process up") {
                return Err(io::Error::other("it has not said that it is up"));
            }
            TcpStream::connect(process.address()).map(drop)
        })
    }
}
