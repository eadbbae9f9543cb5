//! Processor time of a PostgreSQL server: the first process, those that run, and those that have ended.

use std::fs;
use std::time::Duration;

use acteon_test_support::PostgresServer;

use crate::{Outcome, machine};

/// Knows the server's first process.
pub(crate) struct ServerCpu {
    postmaster: String,
}

impl ServerCpu {
    pub(crate) fn of(server: &PostgresServer) -> Outcome<Self> {
        let lock_file = fs::read_to_string(server.folder().join("data/postmaster.pid"))?;
        let postmaster = lock_file.lines().next().ok_or("postmaster.pid is empty")?.trim().to_owned();
        Ok(Self { postmaster })
    }

    /// What all of them have used so far.
    pub(crate) fn spent(&self) -> Outcome<Duration> {
        let mut spent = machine::cpu_time_with_ended_children(&self.postmaster).ok_or("the server is gone")?;
        let path = format!("/proc/{0}/task/{0}/children", self.postmaster);
        for child in fs::read_to_string(path)?.split_whitespace() {
            // One that has just ended is counted with its parent from now on.
            spent += machine::cpu_time(child).unwrap_or_default();
        }
        Ok(spent)
    }
}
