//! What the connected server says about itself, and what follows from it.
//!
//! Asked once per connection, in the same round trip that loads the scripts. A server may deny each question; what is not
//! known is then assumed to be the weaker case, except for the version, without which we try our luck.

use acteon_state_core::key::Companion;
use acteon_state_core::record::RECORD_OVERHEAD_BYTES_MAX;
use acteon_state_core::{
    Capabilities, Error, ErrorKind, LockClock, LockSemantics, Result, Survival, TransactLimits, TransactScope, Waiting,
};
use redis::{Cmd, Value};

use crate::error::BACKEND;

/// The oldest version with all that we use: `SET NX GET`, script flags, `EXPIRE` inside of frozen script time.
const VERSION_MIN: (u32, u32) = (7, 0);
/// Redis' default for the longest string.
const BULK_BYTES_DEFAULT: u64 = 512 << 20;
/// Commands in [`questions`].
pub(crate) const QUESTIONS: usize = 3;
/// The most operations of one transaction: it is one script, which holds up everyone else for as long as it runs.
const TRANSACT_OPS_MAX: usize = 1_000;

/// How much of what was acknowledged survives a crash of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The append-only file is synced before each answer.
    Always,
    /// It is synced each second.
    EverySecond,
    /// There is none, or it is synced when the system likes, or nobody would say.
    None,
}

impl Durability {
    /// How the documentation calls it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "AOF `always`",
            Self::EverySecond => "AOF `everysec`",
            Self::None => "no synced AOF",
        }
    }
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Such as `7.0.15`; `None` when it would not say.
    pub(crate) version: Option<String>,
    pub(crate) is_replica: bool,
    /// What it is instead of standalone: `cluster` or `sentinel`.
    pub(crate) other_mode: Option<String>,
    /// `maxmemory-policy`, when it is known.
    pub(crate) eviction: Option<String>,
    /// Whether memory is limited at all; without a limit nothing is evicted.
    pub(crate) memory_limited: bool,
    pub(crate) durability: Durability,
    pub(crate) bulk_bytes_max: u64,
}

impl Facts {
    /// What is assumed before a server was asked.
    pub(crate) const fn unknown() -> Self {
        Self {
            version: None,
            is_replica: false,
            other_mode: None,
            eviction: None,
            memory_limited: false,
            durability: Durability::None,
            bulk_bytes_max: BULK_BYTES_DEFAULT,
        }
    }

    /// Reads the answers to [`questions`].
    pub(crate) fn read(answers: &[Value]) -> Self {
        let mut facts = Self::unknown();
        let info = answers.first().and_then(string).unwrap_or_default();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        facts.version = field("redis_version").map(str::to_owned);
        facts.is_replica = field("role") == Some("slave");
        // Valkey may call it by its own name.
        let mode = field("redis_mode").or_else(|| field("server_mode"));
        facts.other_mode = mode.filter(|mode| *mode != "standalone").map(str::to_owned);
        facts.eviction = field("maxmemory_policy").map(str::to_owned);
        facts.memory_limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
        let fsync = answers.get(1).and_then(setting);
        facts.durability = match (field("aof_enabled"), fsync.as_deref()) {
            (Some("1"), Some("always")) => Durability::Always,
            (Some("1"), Some("everysec")) => Durability::EverySecond,
            _ => Durability::None,
        };
        if let Some(bytes) = answers.get(2).and_then(setting).and_then(|bytes| bytes.parse().ok()) {
            facts.bulk_bytes_max = bytes;
        }
        facts
    }

    /// Refuses a server that cannot do what we need.
    ///
    /// # Errors
    /// `Config` for a version below 7.0, a node of a cluster or a sentinel; `Failover` for a replica.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(version) = &self.version
            && parse_version(version).is_some_and(|version| version < VERSION_MIN)
        {
            return Err(Error::config(format!("the server is Redis {version}; needed is 7.0 or newer, or Valkey"))
                .on_backend(BACKEND));
        }
        if let Some(mode) = &self.other_mode {
            let message = format!("the server runs in {mode} mode; connect to a standalone server");
            return Err(Error::config(message).on_backend(BACKEND));
        }
        if self.is_replica {
            let message = "the server is a replica, which cannot be written to; connect to the primary";
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        Ok(())
    }

    /// Whether the server may remove our keys when memory runs out.
    pub(crate) fn evicts(&self) -> bool {
        self.memory_limited && self.eviction.as_deref().is_some_and(|policy| policy != "noeviction")
    }

    /// What can be done on this server.
    pub(crate) fn capabilities(&self, value_bytes_max: u64) -> Capabilities {
        let server_bytes_max = self.bulk_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES_MAX as u64);
        Capabilities {
            cas: true,
            fencing: true,
            counters: true,
            rate_limits: true,
            transact: Some(TransactLimits { scope: TransactScope::AnyKeys, ops_max: TRANSACT_OPS_MAX }),
            scan: true,
            ordered_scan: false,
            due: true,
            locks: true,
            shared_locks: true,
            semaphores: true,
            server_clock: true,
            durable: self.durability == Durability::Always && !self.evicts(),
            shared: true,
            value_bytes_max: value_bytes_max.min(server_bytes_max),
        }
    }

    /// What locks guarantee on this server.
    pub(crate) fn lock_semantics(&self) -> LockSemantics {
        let (survives_server_crash, fit_for) = match self.durability {
            Durability::Always => (Survival::Yes, "efficiency; correctness with fenced writes"),
            Durability::EverySecond => {
                (Survival::MayBeLost { bound: "the last 2 s" }, "efficiency; with fenced writes correctness")
            }
            Durability::None => (Survival::No, "efficiency; with fenced writes correctness"),
        };
        LockSemantics {
            topology: format!("redis standalone, {}", self.durability.as_str()),
            clock: LockClock::ServerWall,
            tokens_rise_across: "restart".to_owned(),
            survives_server_crash,
            survives_failover: Survival::NotApplicable,
            waiting: Waiting::NotifyAndSleep,
            fit_for: fit_for.to_owned(),
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let suffix = Companion::Lock.suffix();
        let mut notes = vec![
            "A lease does not stop a paused holder: fence the writes that it protects.".to_owned(),
            format!(
                "A record (keys that end in `{suffix}`) that was lost leaves only the server's time to make tokens rise: the clock must not be set back across a restart."
            ),
        ];
        if self.evicts() {
            let policy = self.eviction.as_deref().unwrap_or_default();
            notes.push(format!(
                "maxmemory-policy is {policy}: under memory pressure the server may remove locks that are held; set noeviction."
            ));
        }
        match self.durability {
            Durability::Always => {}
            Durability::EverySecond => {
                notes.push("appendfsync is everysec: a crash may lose grants; set appendfsync always.".to_owned());
            }
            Durability::None => {
                notes.push(
                    "The server keeps no synced append-only file that we know of: a restart loses grants.".to_owned(),
                );
            }
        }
        if self.version.is_none() {
            notes.push("The server did not say what it is (INFO was denied, or it was not reached yet).".to_owned());
        }
        notes
    }
}

/// What is asked; the answers go to [`Facts::read`].
pub(crate) fn questions() -> [Cmd; QUESTIONS] {
    let mut settings = ["appendfsync", "proto-max-bulk-len"].map(|name| {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("GET").arg(name);
        cmd
    });
    let [fsync, bulk] = &mut settings;
    [redis::cmd("INFO"), fsync.take(), bulk.take()]
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn string(answer: &Value) -> Option<String> {
    match answer {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// The answer of CONFIG GET for one name: a map in RESP3, a list in RESP2.
fn setting(answer: &Value) -> Option<String> {
    match answer {
        Value::Map(pairs) => string(&pairs.first()?.1),
        Value::Array(items) => string(items.get(1)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{ErrorKind, Survival};
    use redis::Value;

    use super::{Durability, Facts};

    fn answers(info: &str, fsync: &str) -> Vec<Value> {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        vec![
            text(&info.replace('\n', "\r\n")),
            Value::Map(vec![(text("appendfsync"), text(fsync))]),
            Value::Map(vec![(text("proto-max-bulk-len"), text("1048576"))]),
        ]
    }

    #[test]
    fn answers_become_facts() {
        let info =
            "# Server\nredis_version:7.0.15\nrole:master\nmaxmemory:0\nmaxmemory_policy:noeviction\naof_enabled:1\n";
        let facts = Facts::read(&answers(info, "always"));
        assert_eq!(facts.version.as_deref(), Some("7.0.15"));
        assert_eq!(facts.durability, Durability::Always);
        assert!(facts.check().is_ok() && !facts.evicts());
        let capabilities = facts.capabilities(64 << 20);
        assert!(capabilities.durable && capabilities.value_bytes_max < 1 << 20);
        assert_eq!(facts.lock_semantics().survives_server_crash, Survival::Yes);
    }

    #[test]
    fn an_old_server_and_a_replica_are_refused() {
        let old = Facts::read(&answers("redis_version:6.2.7\nrole:master\n", "always"));
        assert_eq!(old.check().unwrap_err().kind(), ErrorKind::Config);
        let replica = Facts::read(&answers("redis_version:7.2.4\nrole:slave\n", "always"));
        assert_eq!(replica.check().unwrap_err().kind(), ErrorKind::Failover);
    }

    #[test]
    fn a_node_of_a_cluster_and_a_sentinel_are_refused() {
        for info in [
            "redis_version:7.0.15\nredis_mode:cluster\nrole:master\n",
            "redis_version:7.2.4\nserver_mode:cluster\nrole:master\n",
            "redis_version:7.0.15\nredis_mode:sentinel\n",
        ] {
            let error = Facts::read(&answers(info, "always")).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
        let alone = Facts::read(&answers("redis_version:7.0.15\nredis_mode:standalone\nrole:master\n", "always"));
        assert!(alone.check().is_ok());
    }

    #[test]
    fn eviction_shows_in_the_notes_and_takes_durability_away() {
        let info = "redis_version:8.1.0\nrole:master\nmaxmemory:1000\nmaxmemory_policy:allkeys-lru\naof_enabled:1\n";
        let facts = Facts::read(&answers(info, "always"));
        assert!(facts.evicts() && !facts.capabilities(1).durable);
        assert!(facts.lock_semantics().notes.iter().any(|note| note.contains("allkeys-lru")));
    }

    #[test]
    fn denied_questions_leave_the_weaker_case() {
        let denied: Vec<Value> = vec![Value::Nil, Value::Nil, Value::Nil];
        let facts = Facts::read(&denied);
        assert_eq!(facts, Facts::unknown());
        assert!(facts.check().is_ok());
        assert_eq!(facts.lock_semantics().survives_server_crash, Survival::No);
    }
}
