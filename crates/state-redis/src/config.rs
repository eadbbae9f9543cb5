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
    /// redis://[[username]:password@]host[:port][/db]      also valkey://
    /// rediss://[[username]:password@]host[:port][/db]     TLS; also valkeys://
    /// unix:///path/to/redis.sock[?db=N]                   also redis+unix://
    /// ```
    /// Username and password are percent-encoded; an IPv6 address is written in brackets.
    pub url: Option<Secret>,
    /// Host name or address, instead of a URL.
    pub host: Option<String>,
    /// TCP port; 6379 unless given.
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

    /// How long opening a connection may take: resolving, TCP, TLS, authentication, and the first questions together.
    pub connect_timeout: Duration,
    /// How long one call may take, from the moment it is made. The wait for a lock is apart from it.
    pub operation_timeout: Duration,
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
            host: None,
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
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(2),
            connect_wait: Duration::from_millis(200),
            reconnect_delay_max: Duration::from_secs(2),
            connections: 1,
            in_flight_max: 4_096,
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

    /// Checks all options and says where the server is.
    pub(crate) fn target(&self) -> Result<Target> {
        self.check_bounds()?;
        let url = self.url.as_ref().map(|url| parse_url(url.expose())).transpose()?.unwrap_or_default();
        let host = agreed("host", url.host, self.host.clone())?;
        let port = agreed("port", url.port, self.port)?;
        let socket = agreed("socket", url.socket, self.socket.clone())?;
        let tls = agreed("tls", url.tls, self.tls)?.unwrap_or(false);
        let username = agreed("username", url.username, self.username.clone())?;
        let password = agreed("password", url.password, self.password.clone())?;
        let endpoint = match (socket, host) {
            (Some(_), Some(_)) => return Err(Error::config("host and socket are both given; remove one")),
            (Some(_), None) if port.is_some() => return Err(Error::config("port has no meaning with a unix socket")),
            (Some(_), None) if tls => return Err(Error::config("tls has no meaning with a unix socket")),
            (Some(path), None) => Endpoint::Unix(path),
            (None, host) => {
                Endpoint::Tcp { host: host.unwrap_or_else(|| "localhost".to_owned()), port: port.unwrap_or(6379) }
            }
        };
        if username.is_some() && password.is_none() {
            return Err(Error::config("username is given without password"));
        }
        let tls_options = self.tls_options(tls)?;
        Ok(Target { endpoint, tls: tls_options, username, password, db: agreed("db", url.db, self.db)?.unwrap_or(0) })
    }

    fn tls_options(&self, tls: bool) -> Result<Option<TlsOptions>> {
        if !tls && (self.ca_file.is_some() || self.tls_server_name.is_some() || !self.tls_verify) {
            return Err(Error::config(
                "ca_file, tls_server_name and tls_verify have no meaning without TLS; use rediss:// or tls = true",
            ));
        }
        if !self.tls_verify && self.ca_file.is_some() {
            return Err(Error::config("ca_file has no meaning with tls_verify = false; remove one"));
        }
        Ok(tls.then(|| TlsOptions {
            verify: self.tls_verify,
            ca_file: self.ca_file.clone(),
            server_name: self.tls_server_name.clone(),
        }))
    }

    fn check_bounds(&self) -> Result<()> {
        Keyspace::new(&self.prefix)?;
        let positive = [
            ("connect_timeout", self.connect_timeout),
            ("operation_timeout", self.operation_timeout),
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
        for (name, number, max) in
            [("connections", self.connections, 64), ("in_flight_max", self.in_flight_max, 1 << 16)]
        {
            if number == 0 || number > max {
                return Err(Error::config(format!("{name} {number} is out of range: allowed are 1 to {max}")));
            }
        }
        if self.value_bytes_max == 0 {
            return Err(Error::config("value_bytes_max is 0: no value could be stored"));
        }
        Ok(())
    }
}

/// Where a server is and how to get in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) db: u32,
}

/// An address; shown in errors, so it never holds credentials.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsOptions {
    pub(crate) verify: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One fact that a URL and a field may both state.
fn agreed<T: PartialEq>(name: &str, url: Option<T>, field: Option<T>) -> Result<Option<T>> {
    match (url, field) {
        (Some(url), Some(field)) if url != field => {
            Err(Error::config(format!("{name}: the url and the field say different things; remove one")))
        }
        (url, field) => Ok(url.or(field)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::{Endpoint, RedisConfig};

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
        assert!(with_password.target().unwrap().password.is_some());
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
            (RedisConfig { operation_timeout: Duration::ZERO, ..url() }, "operation_timeout"),
            (RedisConfig { value_bytes_max: 0, ..url() }, "value_bytes_max"),
        ] {
            let error = config.target().expect_err(field);
            assert!(error.kind() == ErrorKind::Config && error.message().contains(field), "{error}");
        }
    }

    #[test]
    fn the_default_is_the_local_server() {
        assert_eq!(RedisConfig::default().target().unwrap().endpoint, tcp("localhost", 6379));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<RedisConfig>(r#"{"url": "redis://h", "db": 1}"#).is_ok());
        let error = serde_json::from_str::<RedisConfig>(r#"{"ur": "redis://h"}"#).unwrap_err();
        assert!(error.to_string().contains("`ur`"), "{error}");
    }
}
