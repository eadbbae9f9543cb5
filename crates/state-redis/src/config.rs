//! The driver's options.
//!
//! The URL says where the server is, and so can fields. A fact that both state differently is an error. See [`RedisConfig::url`].
//!
//! # Secrets
//! A URL can hold a password, so it is a [`Secret`] as a whole: neither shows in `Debug` or in any error.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use acteon_state_core::Secret;
use acteon_state_core::key::Keyspace;
use acteon_state_core::lock::record::RETENTION_DEFAULT;
use acteon_state_core::{Error, Result, TTL_MAX};
use serde::Deserialize;

use crate::url::parse_url;

/// How to reach a server and how to use it. `Default` reaches `localhost:6379`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Where the server is. Fields below may stand in for its parts.
    ///
    /// ```text
    /// redis://[[username]:password@]host[:port][/db]                         also valkey://
    /// rediss://[[username]:password@]host[:port][/db]                        TLS; also valkeys://
    /// unix:///path/to/redis.sock[?db=N]                                      also redis+unix://
    /// redis+sentinel://[[username]:password@]host[:port][,host[:port]]…[/db]?sentinel_master=NAME
    /// redis+cluster://[[username]:password@]host[:port][,host[:port]]…       or several hosts after redis://
    /// ```
    /// Username and password are percent-encoded and those of data nodes; those of Sentinels are `sentinel_username=` and
    /// `sentinel_password=` in the query. An IPv6 address is written in brackets. `rediss+sentinel` and `rediss+cluster` use TLS.
    pub url: Option<Secret>,
    /// How the servers belong together, where the URL does not say so.
    pub topology: Option<TopologyName>,
    /// Host name or address, instead of a URL.
    pub host: Option<String>,
    /// Several of them, each `host` or `host:port`: Sentinels, or nodes of a Cluster.
    pub hosts: Vec<String>,
    /// TCP port of `host`; 6379 unless given, 26379 for a Sentinel.
    pub port: Option<u16>,
    /// Path of a unix socket, instead of host and port.
    pub socket: Option<PathBuf>,
    /// ACL user; the default user unless given.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Database number; 0 unless given.
    pub db: Option<u32>,
    /// What all keys begin with: 1 to 64 characters out of `A-Z a-z 0-9 _ . -`.
    pub prefix: String,

    /// Whether to use TLS, instead of a URL that begins with `rediss://`.
    pub tls: Option<bool>,
    /// Whether the server's certificate is checked. Without it, anyone on the way can read and change everything.
    pub tls_verify: bool,
    /// The name that the certificate must carry, where it is not the host.
    pub tls_server_name: Option<String>,
    /// PEM file with the certificates to trust, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate, and those between it and its root, for a server that asks for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of `cert_file`.
    pub key_file: Option<PathBuf>,

    /// The name under which the Sentinels watch the primary.
    pub sentinel_master: Option<String>,
    /// ACL user at the Sentinels; the default user unless given. Credentials of data nodes are never shown to Sentinels.
    pub sentinel_username: Option<String>,
    /// Password at the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// Whether to use TLS to Sentinels; as for data nodes unless given.
    pub sentinel_tls: Option<bool>,
    /// As `tls_verify`, for Sentinels. While no field of TLS to Sentinels is given, they are trusted as data nodes are.
    pub sentinel_tls_verify: bool,
    /// As `tls_server_name`, for Sentinels.
    pub sentinel_tls_server_name: Option<String>,
    /// As `ca_file`, for Sentinels.
    pub sentinel_ca_file: Option<PathBuf>,
    /// As `cert_file`, for Sentinels.
    pub sentinel_cert_file: Option<PathBuf>,
    /// As `key_file`, for Sentinels.
    pub sentinel_key_file: Option<PathBuf>,

    /// Which version of the protocol to speak.
    pub protocol: Protocol,
    /// What to do about settings of the server that endanger locks or state.
    pub safety: Safety,
    /// With `safety = "strict"`: how many replicas must have a grant before it counts: 1 to 32.
    pub lock_replicas: usize,
    /// With `safety = "strict"`: how long replicas may take to have a grant. Shorter than `operation_timeout` and
    /// `read_timeout`.
    pub lock_replicas_timeout: Duration,
    /// With `safety = "strict"`: the longest lease, and how long nothing is granted after another server became primary, to
    /// which `min-replicas-max-lag` of the server is added where there are replicas.
    pub lock_lease_max: Duration,
    /// With `safety = "strict"`: how many connections to keep for grants, which hold theirs until replicas have them: 1 to 64.
    pub lock_connections: usize,

    /// How long opening a connection may take: resolving, TCP, TLS, authentication, and the first questions together.
    pub connect_timeout: Duration,
    /// How long one call may take, from the moment it is made. The wait for a lock is apart from it.
    pub operation_timeout: Duration,
    /// How long a server may be silent while an answer is awaited, before its connection is replaced.
    pub read_timeout: Duration,
    /// How long nothing may be taken from us by a server before its connection is replaced.
    pub write_timeout: Duration,
    /// For how long after a connection was lost calls wait for the next one. From then on they fail at once as unavailable.
    ///
    /// Long enough to hide a reconnect after an idle connection was cut or a server was restarted; short, since a caller of
    /// an unreachable server is better off knowing.
    pub connect_wait: Duration,
    /// The longest pause between two attempts to reconnect. The pauses double up to it, with full jitter.
    pub reconnect_delay_max: Duration,
    /// How many multiplexed connections to keep: 1 to 64.
    ///
    /// One is the fastest: many tasks share it, and what they send at the same time travels in one packet. More help where
    /// single values of many megabytes would hold up everything behind them.
    pub connections: usize,
    /// How many calls may be under way on one connection: 1 to 65,536. Further ones wait, within their timeout.
    pub in_flight_max: usize,
    /// How many calls may wait for one connection, be it for a place on it or for the next one after a loss: 1 to 1,048,576.
    /// Further ones fail at once and are not applied: as `Throttled`, or as `Unavailable` while there is no connection.
    pub queue_max: usize,
    /// Idle time after which TCP asks whether the other side is still there.
    pub keepalive: Duration,

    /// How long a lock record is kept after its last lease ended. Tokens rise by counting as long as it exists, and by the
    /// server's time afterwards.
    pub lock_retention: Duration,
    /// The largest value in bytes. The server's own limit is lower if it says so.
    pub value_bytes_max: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            topology: None,
            host: None,
            hosts: Vec::new(),
            port: None,
            socket: None,
            username: None,
            password: None,
            db: None,
            prefix: "acteon".to_owned(),
            tls: None,
            tls_verify: true,
            tls_server_name: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_tls: None,
            sentinel_tls_verify: true,
            sentinel_tls_server_name: None,
            sentinel_ca_file: None,
            sentinel_cert_file: None,
            sentinel_key_file: None,
            protocol: Protocol::Auto,
            safety: Safety::Warn,
            lock_replicas: 1,
            lock_replicas_timeout: Duration::from_millis(500),
            lock_lease_max: Duration::from_secs(60),
            lock_connections: 4,
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            connect_wait: Duration::from_millis(200),
            reconnect_delay_max: Duration::from_secs(2),
            connections: 1,
            in_flight_max: 4_096,
            queue_max: 16_384,
            keepalive: Duration::from_secs(30),
            lock_retention: RETENTION_DEFAULT,
            value_bytes_max: 64 << 20,
        }
    }
}

impl RedisConfig {
    /// The default options with this URL.
    ///
    /// # Errors
    /// `Config` for a URL that does not parse, or says what would not be used.
    pub fn from_url(url: &str) -> Result<Self> {
        parse_url(url)?;
        Ok(Self { url: Some(url.into()), ..Self::default() })
    }

    /// Checks what does not depend on where the servers are.
    pub(crate) fn check_bounds(&self) -> Result<()> {
        Keyspace::new(&self.prefix)?;
        let positive = [
            ("connect_timeout", self.connect_timeout),
            ("operation_timeout", self.operation_timeout),
            ("read_timeout", self.read_timeout),
            ("write_timeout", self.write_timeout),
            ("lock_replicas_timeout", self.lock_replicas_timeout),
            ("lock_lease_max", self.lock_lease_max),
            ("reconnect_delay_max", self.reconnect_delay_max),
            ("keepalive", self.keepalive),
            ("lock_retention", self.lock_retention),
        ];
        for (name, duration) in positive {
            if duration < Duration::from_millis(1) || duration > TTL_MAX {
                return Err(Error::config(format!(
                    "{name} {duration:?} is out of range: allowed are 1ms to 100 years"
                )));
            }
        }
        for (name, number, max) in [
            ("connections", self.connections, 64),
            ("in_flight_max", self.in_flight_max, 1 << 16),
            ("queue_max", self.queue_max, 1 << 20),
            ("lock_connections", self.lock_connections, 64),
            ("lock_replicas", self.lock_replicas, 32),
        ] {
            if number == 0 || number > max {
                return Err(Error::config(format!("{name} {number} is out of range: allowed are 1 to {max}")));
            }
        }
        for (name, timeout) in [("operation_timeout", self.operation_timeout), ("read_timeout", self.read_timeout)] {
            if self.safety == Safety::Strict && self.lock_replicas_timeout >= timeout {
                return Err(Error::config(format!(
                    "lock_replicas_timeout {:?} must be shorter than {name} {timeout:?}: a grant would be given up while replicas may still get it",
                    self.lock_replicas_timeout
                )));
            }
        }
        if self.port == Some(0) {
            return Err(Error::config("port 0 is out of range: allowed are 1 to 65535"));
        }
        if self.host.as_deref() == Some("") {
            return Err(Error::config("host is empty: give a name or an address, or leave it out for localhost"));
        }
        if self.value_bytes_max == 0 {
            return Err(Error::config("value_bytes_max is 0: no value could be stored"));
        }
        Ok(())
    }
}

/// How servers belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopologyName {
    /// One server.
    Standalone,
    /// A primary with replicas, watched by Sentinels.
    Sentinel,
    /// Several primaries that share the keys.
    Cluster,
}

/// Which version of the protocol to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RESP3 where the server has it, else RESP2.
    #[default]
    Auto,
    /// RESP2: for proxies. Waiters for locks do without notifications and look once a second.
    Resp2,
    /// RESP3 or nothing.
    Resp3,
}

/// What to do about settings of the server that endanger locks or state: eviction, no persistence, no replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Safety {
    /// They are logged, and shown by `check`.
    #[default]
    Warn,
    /// They are errors. Besides, a lock counts as granted only once replicas have it, and nothing is granted for a while after
    /// another server has become primary.
    Strict,
}

impl fmt::Display for TopologyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::{RedisConfig, Safety};
    use crate::topology::{Endpoint, Topology};

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn secrets_never_show() {
        let mut config = RedisConfig::from_url("rediss://ada:hunter2@h").unwrap();
        config.password = Some("hunter2".into());
        assert!(!format!("{config:?} {:?}", config.target().unwrap()).contains("hunter2"));
    }

    #[test]
    fn fields_complete_a_url_and_must_not_contradict_it() {
        let url = || RedisConfig::from_url("redis://h:1/2").unwrap();
        let with_password = RedisConfig { password: Some("p".into()), ..url() };
        assert!(with_password.target().unwrap().login.password.is_some());
        let same = RedisConfig { host: Some("h".into()), port: Some(1), db: Some(2), tls: Some(false), ..url() };
        assert!(same.target().is_ok());
        for (config, field) in [
            (RedisConfig { host: Some("other".into()), ..url() }, "host"),
            (RedisConfig { port: Some(3), ..url() }, "port"),
            (RedisConfig { db: Some(3), ..url() }, "db"),
            (RedisConfig { tls: Some(true), ..url() }, "tls"),
            (RedisConfig { socket: Some("/s".into()), ..url() }, "socket"),
            (RedisConfig { username: Some("u".into()), ..url() }, "username"),
            (RedisConfig { tls_verify: false, ..url() }, "tls_verify"),
            (RedisConfig { ca_file: Some("/ca".into()), ..url() }, "ca_file"),
            (RedisConfig { prefix: "a:b".into(), ..url() }, "prefix"),
            (RedisConfig { connections: 0, ..url() }, "connections"),
            (RedisConfig { in_flight_max: 0, ..url() }, "in_flight_max"),
            (RedisConfig { queue_max: 0, ..url() }, "queue_max"),
            (RedisConfig { lock_connections: 65, ..url() }, "lock_connections"),
            (RedisConfig { lock_replicas: 0, ..url() }, "lock_replicas"),
            (
                RedisConfig { safety: Safety::Strict, lock_replicas_timeout: Duration::from_secs(2), ..url() },
                "operation_timeout",
            ),
            (RedisConfig { safety: Safety::Strict, read_timeout: Duration::from_millis(500), ..url() }, "read_timeout"),
            (RedisConfig { lock_replicas: 33, ..url() }, "lock_replicas"),
            (RedisConfig { operation_timeout: Duration::ZERO, ..url() }, "operation_timeout"),
            (RedisConfig { value_bytes_max: 0, ..url() }, "value_bytes_max"),
            (RedisConfig { port: Some(0), ..RedisConfig::default() }, "port 0"),
            (RedisConfig { host: Some(String::new()), ..RedisConfig::default() }, "host is empty"),
        ] {
            let error = config.target().expect_err(field);
            assert!(error.kind() == ErrorKind::Config && error.message().contains(field), "{error}");
        }
    }

    #[test]
    fn the_default_is_the_local_server() {
        let topology = RedisConfig::default().target().unwrap().topology;
        assert_eq!(topology, Topology::Standalone(tcp("localhost", 6379)));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<RedisConfig>(r#"{"url": "redis://h", "db": 1}"#).is_ok());
        let error = serde_json::from_str::<RedisConfig>(r#"{"ur": "redis://h"}"#).unwrap_err();
        assert!(error.to_string().contains("`ur`"), "{error}");
    }
}
