//! In strict safety: a server that became primary a moment ago grants no locks until every lease that its predecessor may have
//! granted has ended.
//!
//! # Why
//! Replication is asynchronous, so the predecessor may have granted a lock that its successor knows nothing of. No lease is
//! longer than `lock_lease_max`, so after that time such a grant has ended, whether it was replicated or not.
//!
//! # How it works
//! A record under the prefix names the process that is primary, by its run id, and since when. A connection that finds another
//! run id there, or none, writes its server's, with the time from which on it may grant; later connections find that. The
//! record cannot mislead: lost or late, it only begins the time anew. The first start of all waits as well.

use std::time::Duration;

use acteon_state_core::entry::ceil_ms;
use acteon_state_core::{Error, Result};
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::cluster::slot;
use crate::dial::{failed, refused_login};
use crate::error::{BACKEND, from_server, unexpected};
use crate::reply;
use crate::script::{self, By};
use crate::server::{Facts, Mode};
use crate::store::settled;
use crate::topology::Endpoint;

/// How many tags are tried to find one in a node's slots. Enough to hit a node with a single slot nearly always.
const TAGS_MAX: u32 = 200_000;

/// How long servers that became primary grant nothing.
pub(crate) struct Quarantine {
    /// The beginning of the record's name.
    prefix: String,
    duration: Duration,
    /// Whether the record may be written. Without, nobody knows since when a server has been primary, and so it never grants.
    records: bool,
}

impl Quarantine {
    pub(crate) fn new(prefix: &str, duration: Duration, records: bool) -> Self {
        Self { prefix: prefix.to_owned(), duration, records }
    }

    /// From when on the server at the other end may grant locks.
    pub(crate) async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        endpoint: &Endpoint,
        facts: &Facts,
    ) -> Result<Instant> {
        let Some(run_id) = &facts.run_id else {
            let message = "safety = \"strict\" needs the right to ask INFO, to tell one primary from the next";
            return Err(Error::config(message).on_backend(BACKEND));
        };
        if !self.records {
            return Ok(Instant::now() + self.duration);
        }
        let key = match facts.mode {
            Mode::Cluster => match self.key_in_own_slot(connection, endpoint).await? {
                Some(key) => key,
                // Without slots it grants nothing anyway.
                None => return Ok(Instant::now()),
            },
            Mode::Standalone | Mode::Sentinel => format!("{}quarantine", self.prefix),
        };
        let command = |by| {
            let mut cmd = script::QUARANTINE.command(by, 1);
            cmd.arg(&key).arg(run_id).arg(ceil_ms(self.duration));
            cmd
        };
        let mut answer = Value::Nil;
        for by in [By::Sha, By::Source] {
            answer =
                connection.send_packed_command(&command(by)).await.map_err(|error| refused_login(endpoint, error))?;
            if !matches!(&answer, Value::ServerError(error) if crate::error::is_no_script(error)) {
                break;
            }
        }
        if let Value::ServerError(error) = &answer {
            let error = from_server(error);
            return Err(failed(endpoint, error.kind(), error.message()));
        }
        let left = Duration::from_millis(reply::unsigned(answer)?);
        if !left.is_zero() {
            tracing::warn!(%endpoint, ?left, "another server has become primary: it grants no locks for a while");
        }
        Ok(Instant::now() + left)
    }

    /// The record's name on a node of a Cluster, where each primary has one of its own.
    async fn key_in_own_slot(
        &self,
        connection: &mut MultiplexedConnection,
        endpoint: &Endpoint,
    ) -> Result<Option<String>> {
        let mut nodes = redis::cmd("CLUSTER");
        nodes.arg("NODES");
        let answer = connection.send_packed_command(&nodes).await.map_err(|error| refused_login(endpoint, error))?;
        let own = slot::Own::read(&reply::text(settled(answer)?)?).ok_or_else(|| unexpected(&Value::Nil))?;
        let is_own = |tag: &u32| {
            let slot = slot::of_key(tag.to_string().as_bytes());
            own.ranges.iter().any(|range| range.contains(&slot))
        };
        let tag = (0..TAGS_MAX).find(is_own);
        Ok(tag.map(|tag| format!("{}quarantine:{{{tag}}}", self.prefix)))
    }
}
