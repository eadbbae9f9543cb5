//! Settings of a server that endanger locks or state, and what to do about each.

use acteon_state_core::{Error, Result};

use crate::error::BACKEND;
use crate::semantics::{Setup, SetupKind};
use crate::server::{Durability, Facts};

/// The dangers that come and go with servers, while the others are in the configuration of one.
const REPLICAS: &str = "replicas";
const REPLICAS_SHARE: &str = "min-replicas-to-write, for so many replicas";

/// A setting that endangers locks or state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Danger {
    /// The setting's name.
    pub(crate) setting: &'static str,
    /// What it leads to, and what to do.
    pub(crate) text: String,
}

/// In strict safety: refuses these dangers, if there are any.
///
/// # Errors
/// `Config` with all of them.
pub(crate) fn refuse(found: &[Danger]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = found.iter().map(|danger| danger.text.as_str()).collect();
    let message = format!("safety = \"strict\" refuses the server's settings: {}", texts.join("; "));
    Err(Error::config(message).on_backend(BACKEND))
}

/// In strict safety: refuses to use a server that is configured dangerously, whenever it is connected to.
///
/// One that has lost its replicas is not refused: what needs them fails by itself, and reads go on. Nor is one that got a replica
/// more, since replicas are exchanged by adding one first.
///
/// # Errors
/// As [`refuse`].
pub(crate) fn refuse_settings(facts: &Facts, setup: &Setup) -> Result<()> {
    let mut found = dangers(facts, setup);
    found.retain(|danger| ![REPLICAS, REPLICAS_SHARE].contains(&danger.setting));
    refuse(&found)
}

/// What is dangerous on a server. What it would not say is taken for dangerous.
pub(crate) fn dangers(facts: &Facts, setup: &Setup) -> Vec<Danger> {
    let mut found = Vec::new();
    let mut add = |setting, text: String| found.push(Danger { setting, text });
    if facts.version.is_none() {
        add(
            "INFO",
            "the server did not say how it is set up (INFO was denied): allow +info and +config|get".to_owned(),
        );
        return found;
    }
    if facts.evicts() {
        let policy = facts.eviction.as_deref().unwrap_or_default();
        add(
            "maxmemory-policy",
            format!(
                "maxmemory-policy is {policy}: under memory pressure the server may remove locks that are held and other state; set noeviction"
            ),
        );
    }
    match facts.durability {
        Durability::Always => {}
        Durability::EverySecond => add(
            "appendfsync",
            "appendfsync is everysec: a crash may lose what was acknowledged in the last 2 s; set appendfsync always".to_owned(),
        ),
        Durability::None if facts.is_engine => add(
            "engine",
            "Acteon's engine keeps locks and state in memory only: its restart loses them; where they must survive one, use Redis with an append-only file, or PostgreSQL".to_owned(),
        ),
        Durability::None => add(
            "appendonly",
            "the server keeps no synced append-only file that we know of: a restart loses locks and state; set appendonly yes and appendfsync always".to_owned(),
        ),
    }
    if setup.kind != SetupKind::Standalone {
        if facts.replicas == 0 {
            add(REPLICAS, "the primary has no replica: nobody can take over; add one".to_owned());
        }
        if facts.replicas_min == 0 {
            add(
                "min-replicas-to-write",
                "min-replicas-to-write is 0: a primary that was cut off goes on granting locks and taking writes that a failover loses; set it to 1 or more, with min-replicas-max-lag".to_owned(),
            );
        }
        // More than half of all servers are then on the side of the one primary that can write. The primaries of a Cluster stop by
        // themselves when they do not see most of the others.
        let (replicas, min, needed) = (facts.replicas, facts.replicas_min, facts.replicas.div_ceil(2));
        if setup.kind == SetupKind::Sentinel && min > 0 && min < needed {
            add(
                REPLICAS_SHARE,
                format!(
                    "min-replicas-to-write is {min} and there are {replicas} replicas: a primary that was cut off together with {min} of them goes on granting locks and taking writes beside its successor; set it to {needed}"
                ),
            );
        }
    }
    found
}
