//! What the connected server says about itself, and what follows from it.
//!
//! Asked once per connection, in the same round trip that loads the scripts. A server may deny each question; what is not
//! known is then assumed to be the weaker case, except for the version, without which we try our luck.

use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};

use crate::error::BACKEND;
use crate::wire::{Cmd, Value};

/// The oldest version with all that we use: `SET NX GET`, script flags, `EXPIRE` inside of frozen script time.
const VERSION_MIN: (u32, u32) = (7, 0);
/// Redis' default for the longest string.
const BULK_BYTES_DEFAULT: u64 = 512 << 20;
/// Redis' default for `min-replicas-max-lag`.
const REPLICAS_LAG_DEFAULT: Duration = Duration::from_secs(10);
/// Commands in [`questions`].
pub(crate) const QUESTIONS: usize = 5;

/// How much of what was acknowledged survives a crash of the server.
///
/// The order is that of the variants: the greater, the less survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "AOF `always`",
            Self::EverySecond => "AOF `everysec`",
            Self::None => "no synced AOF",
        }
    }
}

/// How a server was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Standalone,
    Cluster,
    Sentinel,
}

/// What a server must be for us to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary(Mode),
    Replica(Mode),
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Such as `7.0.15`; `None` when it would not say.
    pub(crate) version: Option<String>,
    /// Whether it is Acteon's own engine, which answers as a Redis of that version does.
    pub(crate) is_engine: bool,
    pub(crate) is_replica: bool,
    pub(crate) mode: Mode,
    /// Names the process and the history that it writes: another one after each start and each promotion.
    pub(crate) office: Option<String>,
    /// Replicas that are connected.
    pub(crate) replicas: u64,
    /// How many of them must be well for writes to be taken; 0 when that is not asked for.
    pub(crate) replicas_min: u64,
    /// For how long one of them may say nothing and still count as well.
    pub(crate) replicas_lag_max: Duration,
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
            is_engine: false,
            is_replica: false,
            mode: Mode::Standalone,
            office: None,
            replicas: 0,
            replicas_min: 0,
            replicas_lag_max: REPLICAS_LAG_DEFAULT,
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
        facts.is_engine = field("acteon_version").is_some();
        facts.is_replica = field("role") == Some("slave");
        // Valkey may call it by its own name.
        let mode = field("redis_mode").or_else(|| field("server_mode"));
        facts.mode = match mode {
            Some("cluster") => Mode::Cluster,
            Some("sentinel") => Mode::Sentinel,
            _ => Mode::Standalone,
        };
        let (process, history) = (field("run_id"), field("master_replid"));
        facts.office = process.zip(history).map(|(process, history)| format!("{process}{history}"));
        facts.replicas = field("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0);
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
        if let Some(count) = answers.get(3).and_then(setting).and_then(|count| count.parse().ok()) {
            facts.replicas_min = count;
        }
        // As far as Redis lets it be set, and short enough to be added to a time.
        if let Some(seconds) = answers.get(4).and_then(setting).and_then(|seconds| seconds.parse::<u32>().ok()) {
            facts.replicas_lag_max = Duration::from_secs(seconds.into());
            if seconds == 0 {
                // Switches the demand for replicas off as well.
                facts.replicas_min = 0;
            }
        }
        facts
    }

    /// Refuses a server that cannot do what we need.
    ///
    /// # Errors
    /// `Config` for a version below 7.0 or a server of another topology; `Failover` for a replica where a primary is needed.
    pub(crate) fn check(&self, role: Role) -> Result<()> {
        if let Some(version) = &self.version
            && parse_version(version).is_some_and(|version| version < VERSION_MIN)
        {
            return Err(Error::config(format!("the server is Redis {version}; needed is 7.0 or newer, or Valkey"))
                .on_backend(BACKEND));
        }
        let wrong = match (role, self.mode) {
            (_, Mode::Sentinel) => Some("the server is a Sentinel: use redis+sentinel:// with ?sentinel_master=NAME"),
            (Role::Primary(Mode::Standalone) | Role::Replica(Mode::Standalone), Mode::Cluster) => {
                Some("the server is a node of a Cluster: use redis+cluster://")
            }
            (Role::Primary(Mode::Cluster) | Role::Replica(Mode::Cluster), Mode::Standalone) => {
                Some("the server is no node of a Cluster: use redis://")
            }
            _ => None,
        };
        if let Some(message) = wrong {
            return Err(Error::config(message).on_backend(BACKEND));
        }
        if self.is_replica && matches!(role, Role::Primary(_)) {
            let message = "the server is a replica, which cannot be written to";
            return Err(Error::new(ErrorKind::Failover, message).on_backend(BACKEND));
        }
        Ok(())
    }

    /// Whether the server may remove our keys when memory runs out.
    pub(crate) fn evicts(&self) -> bool {
        self.memory_limited && self.eviction.as_deref().is_some_and(|policy| policy != "noeviction")
    }

    /// The weaker of two servers in everything.
    pub(crate) fn weaker(self, other: Self) -> Self {
        let evicting = if other.evicts() { &other } else { &self };
        Self {
            // A server that would not say counts as the one that knows least.
            version: self.version.clone().zip(other.version.clone()).map(|(one, two)| one.min(two)),
            is_engine: self.is_engine || other.is_engine,
            is_replica: self.is_replica || other.is_replica,
            mode: self.mode,
            office: None,
            replicas: self.replicas.min(other.replicas),
            replicas_min: self.replicas_min.min(other.replicas_min),
            replicas_lag_max: self.replicas_lag_max.max(other.replicas_lag_max),
            eviction: evicting.eviction.clone(),
            memory_limited: evicting.memory_limited,
            durability: self.durability.max(other.durability),
            bulk_bytes_max: self.bulk_bytes_max.min(other.bulk_bytes_max),
        }
    }
}

/// What is asked; the answers go to [`Facts::read`].
pub(crate) fn questions() -> [Cmd; QUESTIONS] {
    let setting = |name| {
        let mut cmd = Cmd::new("CONFIG");
        cmd.arg("GET").arg(name);
        cmd
    };
    [
        Cmd::new("INFO"),
        setting("appendfsync"),
        setting("proto-max-bulk-len"),
        setting("min-replicas-to-write"),
        setting("min-replicas-max-lag"),
    ]
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn string(answer: &Value) -> Option<String> {
    match answer {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::VerbatimString(text) => Some(text.clone()),
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
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::{Durability, Facts, Mode, REPLICAS_LAG_DEFAULT, Role};
    use crate::wire::Value;

    const PRIMARY: Role = Role::Primary(Mode::Standalone);

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
        assert_eq!((facts.durability, facts.bulk_bytes_max), (Durability::Always, 1 << 20));
        assert!(facts.check(PRIMARY).is_ok() && !facts.evicts() && !facts.is_engine);
        let engine = Facts::read(&answers("redis_version:7.0.15\nacteon_version:0.1.0\nrole:master\n", "everysec"));
        assert!(engine.is_engine && engine.durability == Durability::None);
    }

    #[test]
    fn an_old_server_and_a_replica_are_refused() {
        let old = Facts::read(&answers("redis_version:6.2.7\nrole:master\n", "always"));
        assert_eq!(old.check(PRIMARY).unwrap_err().kind(), ErrorKind::Config);
        let replica = Facts::read(&answers("redis_version:7.2.4\nrole:slave\n", "always"));
        assert_eq!(replica.check(PRIMARY).unwrap_err().kind(), ErrorKind::Failover);
    }

    #[test]
    fn a_node_of_a_cluster_and_a_sentinel_are_refused() {
        for info in [
            "redis_version:7.0.15\nredis_mode:cluster\nrole:master\n",
            "redis_version:7.2.4\nserver_mode:cluster\nrole:master\n",
            "redis_version:7.0.15\nredis_mode:sentinel\n",
        ] {
            let error = Facts::read(&answers(info, "always")).check(PRIMARY).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
        let alone = Facts::read(&answers("redis_version:7.0.15\nredis_mode:standalone\nrole:master\n", "always"));
        assert!(alone.check(PRIMARY).is_ok());
    }

    #[test]
    fn a_lag_beyond_what_redis_allows_is_not_taken_over() {
        let lag = |seconds: &str| {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            let mut all = answers("redis_version:7.0.15\nrole:master\n", "always");
            all.extend([Value::Nil, Value::Map(vec![(text("min-replicas-max-lag"), text(seconds))])]);
            Facts::read(&all).replicas_lag_max
        };
        assert_eq!(lag("3"), Duration::from_secs(3));
        // Added to anything else, it would overflow.
        assert_eq!(lag("18446744073709551615"), REPLICAS_LAG_DEFAULT);
    }

    #[test]
    fn an_office_needs_the_name_of_the_process_and_that_of_its_history() {
        let office = |info: &str| Facts::read(&answers(info, "always")).office;
        assert_eq!(office("run_id:a1\nmaster_replid:b2\n").as_deref(), Some("a1b2"));
        assert_eq!((office("run_id:a1\n"), office("master_replid:b2\n")), (None, None));
    }

    #[test]
    fn denied_questions_leave_the_weaker_case() {
        let denied: Vec<Value> = vec![Value::Nil, Value::Nil, Value::Nil];
        let facts = Facts::read(&denied);
        assert_eq!(facts, Facts::unknown());
        assert!(facts.check(PRIMARY).is_ok());
    }
}
