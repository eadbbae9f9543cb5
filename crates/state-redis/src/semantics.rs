//! What can be done on a topology, and what its locks guarantee: the rows of `docs/locks.md`.

use acteon_state_core::key::Companion;
use acteon_state_core::record::RECORD_OVERHEAD_BYTES_MAX;
use acteon_state_core::{Capabilities, LockClock, LockSemantics, Survival, TransactLimits, TransactScope, Waiting};

use crate::config::{RedisConfig, Safety};
use crate::safety::Danger;
use crate::server::{Durability, Facts};
use crate::topology::Topology;

/// The most operations of one transaction: it is one script, which holds up everyone else for as long as it runs.
const TRANSACT_OPS_MAX: usize = 1_000;

/// What the options decide, whatever the servers say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: SetupKind,
    pub(crate) safety: Safety,
}

/// How the servers belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupKind {
    Standalone,
    Sentinel,
    Cluster,
}

impl Setup {
    pub(crate) fn new(config: &RedisConfig, topology: &Topology) -> Self {
        let kind = match topology {
            Topology::Standalone(_) => SetupKind::Standalone,
            Topology::Sentinel(_) => SetupKind::Sentinel,
            Topology::Cluster { .. } => SetupKind::Cluster,
        };
        Self { kind, safety: config.safety }
    }

    /// What can be done on servers like this one.
    pub(crate) fn capabilities(&self, facts: &Facts, value_bytes_max: u64) -> Capabilities {
        let server_bytes_max = facts.bulk_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES_MAX as u64);
        let scope = match self.kind {
            // A script reaches keys of one slot only, and each key has its own.
            SetupKind::Cluster => TransactScope::OneKey,
            SetupKind::Standalone | SetupKind::Sentinel => TransactScope::AnyKeys,
        };
        Capabilities {
            cas: true,
            fencing: true,
            counters: true,
            rate_limits: true,
            transact: Some(TransactLimits { scope, ops_max: TRANSACT_OPS_MAX }),
            // One script as well. In strict safety a grant goes a way of its own, on which it waits for replicas.
            gates: self.kind != SetupKind::Cluster && self.safety == Safety::Warn,
            scan: true,
            ordered_scan: false,
            due: true,
            locks: true,
            shared_locks: true,
            semaphores: true,
            server_clock: true,
            // A failover may lose what the disk of the primary before had.
            durable: self.kind == SetupKind::Standalone && facts.durability == Durability::Always && !facts.evicts(),
            shared: true,
            value_bytes_max: value_bytes_max.min(server_bytes_max),
        }
    }

    /// What locks guarantee.
    pub(crate) fn lock_semantics(&self, facts: &Facts, dangers: &[Danger]) -> LockSemantics {
        let is_strict = self.safety == Safety::Strict;
        let replicated = self.kind != SetupKind::Standalone;
        LockSemantics {
            topology: self.topology(facts),
            // The engine goes by the wall clock of its start, and from there by a monotonic one.
            clock: if facts.is_engine { LockClock::Monotonic } else { LockClock::ServerWall },
            tokens_rise_across: match (replicated, facts.is_engine) {
                (true, _) => "failover, while clocks differ by less than it took".to_owned(),
                (false, true) => "restart (wall-clock seed)".to_owned(),
                (false, false) => "restart".to_owned(),
            },
            survives_server_crash: match facts.durability {
                Durability::Always => Survival::Yes,
                Durability::EverySecond => Survival::MayBeLost { bound: "the last 2 s" },
                Durability::None => Survival::No,
            },
            survives_failover: match (replicated, is_strict) {
                (false, _) => Survival::NotApplicable,
                (true, false) => Survival::MayBeLost { bound: "the replication lag" },
                (true, true) => Survival::Yes,
            },
            waiting: Waiting::NotifyAndSleep,
            fit_for: self.fit_for(facts).to_owned(),
            notes: self.notes(dangers),
        }
    }

    fn topology(&self, facts: &Facts) -> String {
        if facts.is_engine {
            return "acteon's engine over the Redis protocol".to_owned();
        }
        let kind = match self.kind {
            SetupKind::Standalone => "standalone",
            SetupKind::Sentinel => "sentinel",
            SetupKind::Cluster => "cluster",
        };
        let strict = if self.safety == Safety::Strict { ", strict" } else { "" };
        format!("redis {kind}, {}{strict}", facts.durability.as_str())
    }

    fn fit_for(&self, facts: &Facts) -> &'static str {
        match (self.safety, self.kind, facts.durability) {
            (Safety::Strict, SetupKind::Sentinel | SetupKind::Cluster, _) => "correctness under stated bounds",
            (_, SetupKind::Standalone, Durability::Always) => "efficiency; correctness with fenced writes",
            _ => "efficiency; with fenced writes correctness",
        }
    }

    fn notes(&self, dangers: &[Danger]) -> Vec<String> {
        let suffix = Companion::Lock.suffix();
        let mut notes = vec![
            "A lease does not stop a paused holder: fence the writes that it protects.".to_owned(),
            format!(
                "A record (keys that end in `{suffix}`) that was lost leaves only the server's time to make tokens rise: the clock must not be set back across a restart."
            ),
        ];
        if self.kind != SetupKind::Standalone {
            notes.push(
                "Tokens rise across a failover as long as the clocks of the servers differ by less than the failover takes.".to_owned(),
            );
        }
        if self.safety == Safety::Strict {
            notes.push(
                "Strict: a grant counts once lock_replicas replicas have it; a server that becomes primary grants nothing for lock_lease_max and min-replicas-max-lag.".to_owned(),
            );
        }
        notes.extend(dangers.iter().map(|danger| format!("{}.", danger.text)));
        notes
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{Survival, TransactScope};

    use super::{Setup, SetupKind};
    use crate::config::Safety;
    use crate::safety::{dangers, refuse, refuse_settings};
    use crate::server::{Durability, Facts};

    fn facts() -> Facts {
        Facts {
            version: Some("7.0.15".to_owned()),
            durability: Durability::Always,
            replicas: 2,
            replicas_min: 1,
            ..Facts::unknown()
        }
    }

    fn setup(kind: SetupKind, safety: Safety) -> Setup {
        Setup { kind, safety }
    }

    #[test]
    fn guarantees_follow_the_topology() {
        let alone = setup(SetupKind::Standalone, Safety::Warn);
        assert_eq!(alone.lock_semantics(&facts(), &[]).survives_failover, Survival::NotApplicable);
        assert!(alone.capabilities(&facts(), 1).durable);
        let engine = Facts { is_engine: true, durability: Durability::None, ..facts() };
        assert_eq!(alone.lock_semantics(&engine, &[]).survives_server_crash, Survival::No);
        let notes = alone.lock_semantics(&engine, &dangers(&engine, &alone)).notes.join(" ");
        assert!(
            notes.contains("in memory only") && !notes.contains("appendonly"),
            "what it cannot do is not advised: {notes}"
        );
        let sentinel = setup(SetupKind::Sentinel, Safety::Warn);
        assert!(matches!(sentinel.lock_semantics(&facts(), &[]).survives_failover, Survival::MayBeLost { .. }));
        assert!(!sentinel.capabilities(&facts(), 1).durable);
        let strict = setup(SetupKind::Sentinel, Safety::Strict);
        assert_eq!(strict.lock_semantics(&facts(), &[]).survives_failover, Survival::Yes);
        let cluster = setup(SetupKind::Cluster, Safety::Warn);
        assert_eq!(cluster.capabilities(&facts(), 1).transact.unwrap().scope, TransactScope::OneKey);
    }

    #[test]
    fn a_good_server_has_no_dangers_and_each_bad_setting_is_one() {
        let sentinel = setup(SetupKind::Sentinel, Safety::Warn);
        assert_eq!(dangers(&facts(), &sentinel), []);
        let bad = Facts {
            eviction: Some("allkeys-lru".to_owned()),
            memory_limited: true,
            durability: Durability::EverySecond,
            replicas: 0,
            replicas_min: 0,
            ..facts()
        };
        let settings: Vec<_> = dangers(&bad, &sentinel).iter().map(|danger| danger.setting).collect();
        assert_eq!(settings, ["maxmemory-policy", "appendfsync", "replicas", "min-replicas-to-write"]);
        let alone = setup(SetupKind::Standalone, Safety::Warn);
        assert_eq!(dangers(&bad, &alone).len(), 2);
        let notes = sentinel.lock_semantics(&bad, &dangers(&bad, &sentinel)).notes;
        assert!(notes.iter().any(|note| note.contains("allkeys-lru")), "{notes:?}");
        assert_eq!(dangers(&Facts::unknown(), &alone).len(), 1);
    }

    #[test]
    fn two_parts_of_a_divided_network_never_both_have_enough_replicas() {
        let with = |replicas, replicas_min| Facts { replicas, replicas_min, ..facts() };
        let dangers_of = |kind, facts: &Facts| dangers(facts, &setup(kind, Safety::Strict)).len();
        for (replicas, min) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (2, 5)] {
            assert_eq!(dangers_of(SetupKind::Sentinel, &with(replicas, min)), 0, "{min} of {replicas}");
        }
        for (replicas, min) in [(3, 1), (4, 1), (5, 2)] {
            assert_eq!(dangers_of(SetupKind::Sentinel, &with(replicas, min)), 1, "{min} of {replicas}");
            assert_eq!(dangers_of(SetupKind::Cluster, &with(replicas, min)), 0, "{min} of {replicas}");
        }
        let grown = with(3, 1);
        let strict = setup(SetupKind::Sentinel, Safety::Strict);
        assert!(refuse_settings(&grown, &strict).is_ok(), "a replica more does not take the store away");
        assert!(refuse(&dangers(&grown, &strict)).is_err(), "but it does not start like that");
    }

    #[test]
    fn of_two_servers_the_weaker_counts() {
        let evicting = Facts { memory_limited: true, eviction: Some("volatile-ttl".to_owned()), ..facts() };
        let weaker = facts().weaker(evicting.clone());
        assert!(weaker.evicts() && evicting.weaker(facts()).evicts());
        let lossy = Facts { durability: Durability::None, ..facts() };
        assert_eq!(facts().weaker(lossy).durability, Durability::None);
    }
}
