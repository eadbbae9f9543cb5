//! The driver's options, and the URL grammar.
//!
//! # URLs
//! ```text
//! redis://[[username]:password@]host[:port][/db]      also valkey://
//! rediss://[[username]:password@]host[:port][/db]     TLS; also valkeys://
//! unix:///path/to/redis.sock[?db=N]                   also redis+unix://
//! ```
//! Username and password are percent-encoded; an IPv6 address is written in brackets. The same facts can be given as fields.
//! A fact that the URL and a field state differently is an error, as is everything in a URL that would not be used.
//!
//! # Secrets
//! A URL can hold a password, so it is a [`Secret`] as a whole: neither shows in `Debug` or in any error.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use acteon_state_core::key::Keyspace;
use acteon_state_core::{Error, Result, TTL_MAX};
use serde::Deserialize;

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach a server and how to use it. `Default` reaches `localhost:6379`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Where the server is; see the [module](self) for the grammar. Fields below may stand in for its parts.
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
            lock_retention: Duration::from_secs(24 * 3600),
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

/// What a URL says.
#[derive(Debug, Default, PartialEq)]
struct UrlParts {
    host: Option<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    tls: Option<bool>,
    username: Option<String>,
    password: Option<Secret>,
    db: Option<u32>,
}

fn parse_url(url: &str) -> Result<UrlParts> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::config("url: it has no scheme; write redis://host:6379"));
    };
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        "unix" | "redis+unix" | "valkey+unix" => return parse_unix(rest),
        _ => {
            return Err(Error::config(format!(
                "url: scheme {scheme:?} is not supported; there are redis, rediss, valkey, valkeys, unix and redis+unix"
            )));
        }
    };
    if rest.contains(['?', '#']) {
        return Err(Error::config("url: it has a query or fragment, which would not be used; use fields instead"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let (username, password) = credentials.map(parse_credentials).transpose()?.unwrap_or_default();
    let (host, port) = parse_address(address)?;
    let db = if path.is_empty() { None } else { Some(parse_db(path)?) };
    Ok(UrlParts { host: Some(host), port, socket: None, tls: Some(tls), username, password, db })
}

fn parse_unix(rest: &str) -> Result<UrlParts> {
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    if !path.starts_with('/') || path == "/" {
        return Err(Error::config("url: a unix socket needs an absolute path: unix:///path/to/redis.sock"));
    }
    let db = match query {
        None => None,
        Some(query) => match query.strip_prefix("db=") {
            Some(db) => Some(parse_db(db)?),
            None => return Err(Error::config("url: of a query only ?db=N is used; use fields instead")),
        },
    };
    let socket = PathBuf::from(percent_decode("path", path)?);
    Ok(UrlParts { socket: Some(socket), db, ..UrlParts::default() })
}

fn parse_credentials(text: &str) -> Result<(Option<String>, Option<Secret>)> {
    let Some((username, password)) = text.split_once(':') else {
        return Err(Error::config("url: a username without password; write username:password@ or :password@"));
    };
    let username = (!username.is_empty()).then(|| percent_decode("username", username)).transpose()?;
    let password = (!password.is_empty()).then(|| percent_decode("password", password)).transpose()?;
    Ok((username, password.map(Secret)))
}

fn parse_address(address: &str) -> Result<(String, Option<u16>)> {
    if address.contains(',') {
        return Err(Error::config("url: several hosts are not supported; give one"));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, rest)) = bracketed.split_once(']') else {
                return Err(Error::config("url: the bracket of an IPv6 address is not closed"));
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(Error::config("url: brackets must hold an IPv6 address, and a port may follow"));
            }
            (host, rest.strip_prefix(':'))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(Error::config("url: the host is missing"));
    }
    let port = match port {
        None => None,
        // The text may be a piece of a password that should have been percent-encoded, so it is not repeated.
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Error::config(
                "url: the port is not a number from 1 to 65535 (`:`, `@` and `/` in a password are %3A, %40 and %2F)",
            )
        })?),
    };
    Ok((host.to_owned(), port))
}

fn parse_db(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::config("url: what follows the address must be a database number, such as /0"))
}

fn percent_decode(name: &str, text: &str) -> Result<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push(u8::try_from(high * 16 + low).unwrap_or(u8::MAX)),
            _ => return Err(Error::config(format!("url: the {name} has a % without two hexadecimal digits"))),
        }
    }
    String::from_utf8(decoded).map_err(|_| Error::config(format!("url: the {name} is not UTF-8")))
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

    use super::{Endpoint, RedisConfig, Target};

    fn target(url: &str) -> Target {
        RedisConfig::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}")).target().unwrap()
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn urls_say_where_the_server_is() {
        for (url, endpoint, tls, db) in [
            ("redis://localhost", tcp("localhost", 6379), false, 0),
            ("redis://localhost/", tcp("localhost", 6379), false, 0),
            ("redis://localhost:7000/3", tcp("localhost", 7000), false, 3),
            ("valkey://10.0.0.1:1", tcp("10.0.0.1", 1), false, 0),
            ("rediss://cache.example.com", tcp("cache.example.com", 6379), true, 0),
            ("valkeys://cache.example.com:6380/15", tcp("cache.example.com", 6380), true, 15),
            ("redis://[::1]", tcp("::1", 6379), false, 0),
            ("redis://[2001:db8::1]:7000/1", tcp("2001:db8::1", 7000), false, 1),
            ("unix:///run/redis.sock", Endpoint::Unix("/run/redis.sock".into()), false, 0),
            ("redis+unix:///run/a%20b.sock?db=4", Endpoint::Unix("/run/a b.sock".into()), false, 4),
        ] {
            let target = target(url);
            assert_eq!((target.endpoint, target.tls.is_some(), target.db), (endpoint, tls, db), "{url}");
        }
    }

    #[test]
    fn credentials_are_percent_decoded() {
        for (url, username, password) in [
            ("redis://:secret@h", None, Some("secret")),
            ("redis://ada:p%40ss%3Aw%2Frd%25@h:1/2", Some("ada"), Some("p@ss:w/rd%")),
            ("redis://ada:p@ss@h", Some("ada"), Some("p@ss")),
            ("redis://h", None, None),
        ] {
            let target = target(url);
            assert_eq!(target.username.as_deref(), username, "{url}");
            assert_eq!(target.password.as_ref().map(super::Secret::expose), password, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "localhost:6379",
            "http://hunter2@h",
            "redis+sentinel://:hunter2@h",
            "redis-cluster://:hunter2@h",
            "redis://",
            "redis://:hunter2@",
            "redis://hunter2@h",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h:0",
            "redis://:hunter2@h:65536",
            "redis://:hunter2/x@h:1",
            "redis://:hunter2@h1,h2",
            "redis://:hunter2@h/zero",
            "redis://:hunter2@h/0/1",
            "redis://:hunter2@h?protocol=resp3",
            "redis://:hunter2@h#insecure",
            "redis://:hunter2%4@h",
            "redis://:hunter2%ff@h",
            "redis://[::1",
            "redis://[::1]x",
            "redis://[localhost]",
            "unix://",
            "unix://relative.sock",
            "unix:///s?user=hunter2",
        ] {
            let error = RedisConfig::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
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
