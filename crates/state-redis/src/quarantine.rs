//! In strict safety: a server that became primary a moment ago grants no locks until every lease that its predecessor may have
//! granted has ended.
//!
//! # Why
//! Replication is asynchronous, so the predecessor may have granted a lock that its successor knows nothing of. No lease is
//! longer than `lock_lease_max`, so after that time such a grant has ended, whether it was replicated or not. A predecessor that
//! was only cut off may extend leases until it notices that it has lost its replicas, which is after `min-replicas-max-lag`: so
//! much is added where there are replicas.
//!
//! # How it works
//! A record under the prefix names who is primary and since when: the process by its run id, and its time in office by its
//! replication id, which is another one after each promotion. A connection that finds another name there, or none, writes its
//! server's, with the time from which on it may grant; later connections find that. The record cannot mislead: lost or late, it
//! only begins the time anew. The first start of all waits as well.
//!
//! # Failure
//! A primary that has too few replicas refuses the record like any other write. The time has not begun then: the replicas may be
//! with a predecessor that was cut off together with them, and goes on extending leases until they leave it. So nothing is granted
//! over such a connection; calls of other kinds may use it, since reads go on.

use std::time::Duration;

use acteon_state_core::entry::ceil_ms;
use acteon_state_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::cluster::slot;
use crate::dial::{failed, refused_login};
use crate::error::{BACKEND, from_server, unexpected};
use crate::reply;
use crate::script::{self, By};
use crate::server::{Facts, Mode};
use crate::store::settled;
use crate::topology::Endpoint;
use crate::wire::{Cmd, Request, Value, Wire};

/// How many tags are tried to find one in a node's slots. Enough to hit a node with a single slot nearly always.
const TAGS_MAX: u32 = 200_000;

/// How long servers that became primary grant nothing.
pub(crate) struct Quarantine {
    /// The beginning of the record's name.
    prefix: String,
    lease_max: Duration,
    is_replicated: bool,
    /// Whether the record may be written. Without, nobody knows since when a server has been primary, and so it never grants.
    records: bool,
}

impl Quarantine {
    pub(crate) fn new(prefix: &str, lease_max: Duration, is_replicated: bool, records: bool) -> Self {
        Self { prefix: prefix.to_owned(), lease_max, is_replicated, records }
    }

    /// From when on the server at the other end may grant locks; `None` while it has too few replicas to say so.
    pub(crate) async fn ask(&self, wire: &Wire, endpoint: &Endpoint, facts: &Facts) -> Result<Option<Instant>> {
        let Some(office) = &facts.office else {
            let message = "safety = \"strict\" needs the right to ask INFO, to tell one primary from the next";
            return Err(Error::config(message).on_backend(BACKEND));
        };
        let lag_max = if self.is_replicated { facts.replicas_lag_max } else { Duration::ZERO };
        let duration = self.lease_max + lag_max;
        if !self.records {
            return Ok(Some(Instant::now() + duration));
        }
        let key = match facts.mode {
            Mode::Cluster => match self.key_in_own_slot(wire, endpoint).await? {
                Some(key) => key,
                // Without slots it grants nothing anyway.
                None => return Ok(Some(Instant::now())),
            },
            Mode::Standalone | Mode::Sentinel => format!("{}quarantine", self.prefix),
        };
        let command = |by| {
            let mut cmd = script::QUARANTINE.command(by, 1);
            cmd.arg(&key).arg(office).number(ceil_ms(duration));
            cmd
        };
        let mut answer = Value::Nil;
        for by in [By::Sha, By::Source] {
            let answered = wire.call(Request::One(&command(by)), None).await;
            answer = answered.map_err(|failure| refused_login(endpoint, failure))?;
            if !matches!(&answer, Value::ServerError(error) if crate::error::is_no_script(error)) {
                break;
            }
        }
        if let Value::ServerError(error) = &answer {
            let error = from_server(error);
            if error.kind() == ErrorKind::NotDurable {
                return Ok(None);
            }
            return Err(failed(endpoint, error.kind(), error.message()));
        }
        let left = Duration::from_millis(reply::unsigned(answer)?);
        if !left.is_zero() {
            tracing::warn!(%endpoint, ?left, "another server has become primary: it grants no locks for a while");
        }
        Ok(Some(Instant::now() + left))
    }

    /// The record's name on a node of a Cluster, where each primary has one of its own.
    async fn key_in_own_slot(&self, wire: &Wire, endpoint: &Endpoint) -> Result<Option<String>> {
        let mut nodes = Cmd::new("CLUSTER");
        nodes.arg("NODES");
        let answered = wire.call(Request::One(&nodes), None).await;
        let answer = answered.map_err(|failure| refused_login(endpoint, failure))?;
        let own = slot::Own::read(&reply::text(settled(answer)?)?).ok_or_else(|| unexpected(&Value::Nil))?;
        let is_own = |tag: &u32| {
            let slot = slot::of_key(tag.to_string().as_bytes());
            own.ranges.iter().any(|range| range.contains(&slot))
        };
        let tag = (0..TAGS_MAX).find(is_own);
        Ok(tag.map(|tag| format!("{}quarantine:{{{tag}}}", self.prefix)))
    }
}
