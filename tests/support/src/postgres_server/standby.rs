//! Standbys: copies that follow a server, and can take its place.
//!
//! A standby gets everything through a replication slot, so the primary keeps what the standby has not received yet, however long it
//! is stopped or frozen.

use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{DATA, PostgresOptions, PostgresServer, Programs, StartError, USER};
use crate::account::hand_over;
use crate::server_process::ServerProcess;

/// Where a standby receives from, and how it calls itself.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    port: u16,
    password: String,
    name: String,
}

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

impl PostgresServer {
    /// Starts a server that is a copy of this one and follows it. The first is called `standby1`, the next one `standby2`.
    ///
    /// It follows asynchronously until [`set_synchronous_standby`](Self::set_synchronous_standby) names it.
    ///
    /// # Errors
    /// As for [`start`](Self::start); also when the copy cannot be made, for example because this server is not running.
    pub fn standby(&self, options: PostgresOptions) -> Result<Self, StartError> {
        let programs = Programs::find()?;
        let process = ServerProcess::new(programs.path("postgres"), "acteon-pg-", programs.account)?;
        let name = format!("standby{}", self.standbys_made.fetch_add(1, Ordering::Relaxed) + 1);
        let upstream = Upstream { port: self.port(), password: self.password.clone(), name };
        let standby = Self {
            options,
            programs,
            password: self.password.clone(),
            upstream: Some(upstream),
            standbys_made: AtomicU32::new(0),
            process,
            disk: None,
        };
        standby.copy_upstream()?;
        Self::launch_new(standby)
    }

    /// The name under which a standby reports to its primary (`application_name`). `None` for a server that never was a standby.
    pub fn standby_name(&self) -> Option<&str> {
        self.upstream.as_ref().map(|upstream| upstream.name.as_str())
    }

    /// Makes a standby the primary of its own and returns once it accepts writes. The former primary is not told.
    ///
    /// # Errors
    /// The server is not a running standby, or is not done after a minute.
    pub fn promote(&self) -> io::Result<()> {
        let seconds = PATIENCE.as_secs().to_string();
        self.programs.run(&self.programs.path("pg_ctl"), |command| {
            command.args(["promote", "--wait", "--timeout", &seconds, "-D"]).arg(self.data());
        })?;
        self.wait_for("SELECT NOT pg_is_in_recovery()", "the end of recovery")
    }

    /// Lets commits wait for the standby of this name, or for none, and returns once that is in force.
    ///
    /// # Errors
    /// As for [`query`](Self::query); also when that standby is not connected within a minute.
    pub fn set_synchronous_standby(&self, name: Option<&str>) -> io::Result<()> {
        let name = name.unwrap_or_default();
        self.query(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'; SELECT pg_reload_conf()"))?;
        let in_force = match name {
            "" => "SELECT count(*) = 0 FROM pg_stat_replication WHERE sync_state <> 'async'".to_owned(),
            name => format!(
                "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '{name}' AND sync_state = 'sync'"
            ),
        };
        self.wait_for(&in_force, "the change of the synchronous standby")
    }

    /// Returns once `condition`, a query, says yes.
    fn wait_for(&self, condition: &str, what: &str) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.query(condition)? != [[Some("t".to_owned())]] {
            if Instant::now() >= deadline {
                let reason = format!("waited {} s in vain for {what}", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Copies the data of the upstream and marks the copy as a standby.
    fn copy_upstream(&self) -> io::Result<()> {
        let Some(upstream) = &self.upstream else {
            return Ok(());
        };
        let data = self.folder().join(DATA);
        self.programs.run(&self.programs.path("pg_basebackup"), |command| {
            command
                .arg("-D")
                .arg(&data)
                .args(["--host=127.0.0.1", "--port", &upstream.port.to_string(), "--username", USER, "--no-password"])
                .args(["--create-slot", "--slot", &upstream.name, "--wal-method=stream", "--checkpoint=fast"])
                .args(["--no-sync", "--no-manifest"])
                .env("PGPASSWORD", &upstream.password);
        })?;
        // What the primary was told by ALTER SYSTEM is not meant for the standby: it would wait for itself once promoted.
        fs::write(data.join("postgresql.auto.conf"), "")?;
        let mark = data.join("standby.signal");
        File::create(&mark)?;
        hand_over(&mark, self.programs.account)
    }
}

impl Upstream {
    /// The lines of `postgresql.conf` that say whom to follow. A server that is no standby any more passes over them.
    pub(super) fn config(&self) -> [String; 2] {
        let Self { port, password, name } = self;
        [
            format!(
                "primary_conninfo = 'host=127.0.0.1 port={port} user={USER} password={password} application_name={name}'"
            ),
            format!("primary_slot_name = '{name}'"),
        ]
    }
}
