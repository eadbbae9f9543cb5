//! The driver's options.
//!
//! The URL says where the server is, and so can fields. A fact that both state differently is an error; a field that is
//! left at its default yields to the URL. See [`PostgresConfig::url`].
//!
//! # Secrets
//! A URL can hold a password, so it is a [`Secret`] as a whole: neither shows in `Debug` or in any error.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use acteon_state_core::Secret;
use acteon_state_core::key::Scope;
use acteon_state_core::lock::record::RETENTION_DEFAULT;
use acteon_state_core::{Error, Result, TTL_MAX};
use serde::Deserialize;
use sqlx::postgres::PgSslMode;

use crate::url::{UrlParts, parse_hosts, parse_url};

/// The port where nothing else is said.
pub(crate) const PORT_DEFAULT: u16 = 5432;
/// Longest `schema` and `prefix`: with the longest name of ours behind it, a name stays below PostgreSQL's 63 bytes.
const NAME_CHARS_MAX: usize = 32;
/// Most connections of one kind. PostgreSQL runs a process for each, and 100 in all unless told otherwise.
const CONNECTIONS_MAX: usize = 64;
/// Most operations in one statement: above it, rows wait longer for each other than a round trip takes.
const BATCH_OPS_MAX: usize = 1_000;
/// Most operations that may wait: at 1 KiB each they would take 1 GiB.
const QUEUE_MAX: usize = 1_000_000;
/// The longest timeout: longer is as good as none, and PostgreSQL's own end at 24 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest value. A row is one message below 1 GiB, and a value is there more than once while it is written.
const VALUE_BYTES_MAX: u64 = 256 << 20;

/// Whether TLS is used and what of the server's certificate is checked, by the names of libpq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only where the server lets nobody in without.
    Allow,
    /// TLS where the server offers it. Nothing is checked: who can change packets on the way can switch it off.
    #[default]
    Prefer,
    /// Always TLS. The certificate is checked only when `ca_file` is given, as in `verify-ca`.
    Require,
    /// TLS, with a certificate that a trusted authority signed, for whatever name.
    ///
    /// The system's authorities are trusted besides those in `ca_file`, and they sign for anyone: prefer `verify-full`.
    VerifyCa,
    /// TLS, with a certificate that a trusted authority signed for this host. The one to use across a network.
    VerifyFull,
}

impl SslMode {
    /// Every mode, weakest first.
    pub(crate) const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// Its name in URLs and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// What to try, in this order.
    pub(crate) const fn attempts(self) -> &'static [PgSslMode] {
        match self {
            Self::Disable => &[PgSslMode::Disable],
            Self::Allow => &[PgSslMode::Disable, PgSslMode::Require],
            Self::Prefer => &[PgSslMode::Prefer, PgSslMode::Disable],
            Self::Require => &[PgSslMode::Require],
            Self::VerifyCa => &[PgSslMode::VerifyCa],
            Self::VerifyFull => &[PgSslMode::VerifyFull],
        }
    }

    /// Whether a connection without TLS is never used.
    pub(crate) const fn is_required(self) -> bool {
        matches!(self, Self::Require | Self::VerifyCa | Self::VerifyFull)
    }
}

/// What to do about the tables at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrateMode {
    /// Bring them up to date; any number of nodes may do so at once.
    #[default]
    Auto,
    /// Refuse to start unless they are up to date: for roles that may not create tables.
    Check,
    /// Leave them alone, and do not ask for them: for a look at the server itself. Calls that need them fail. It cannot be
    /// written into a configuration.
    #[serde(skip)]
    Ignore,
}

/// How to reach a server and how to use it. `Default` reaches `localhost:5432`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// Where the server is. Fields below may stand in for its parts.
    ///
    /// ```text
    /// postgres://[user[:password]@][host[:port][,host[:port]…]][/database][?key=value[&…]]     also postgresql://
    /// ```
    /// User, password and database are percent-encoded; an IPv6 address is written in brackets. Of several hosts the
    /// writable one is used. Keys: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `application_name`, `connect_timeout`
    /// (seconds), `host` (a socket's directory), `port`, and `target_session_attrs`, which may say `read-write`, `primary`
    /// or `any` and changes nothing, since only a writable server is of use.
    ///
    /// What neither the URL nor a field says is taken from `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLROOTCERT`,
    /// `PGSSLCERT`, `PGSSLKEY` and `PGOPTIONS`, as by every PostgreSQL client.
    pub url: Option<Secret>,
    /// Host names or addresses, each as `host`, `host:port` or `[::1]:port`, instead of a URL; `localhost` unless given.
    ///
    /// Several are a primary and its standbys: they are tried in turn, beginning with the one that was writable last.
    pub hosts: Vec<String>,
    /// TCP port of hosts that name none, and the number in a socket's file name; 5432 unless given.
    pub port: Option<u16>,
    /// Directory of the unix socket, such as `/run/postgresql`, instead of hosts.
    pub socket: Option<PathBuf>,
    /// Role to log in as; the system user unless given.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Database; the one with the role's name unless given.
    pub database: Option<String>,
    /// Schema of the tables: 1 to 32 characters out of `a-z 0-9 _`. It must exist or the role be allowed to create it.
    pub schema: String,
    /// What the names of all tables and functions begin with: 1 to 32 characters out of `a-z 0-9 _`. Deployments with
    /// different prefixes share a database without seeing each other.
    pub prefix: String,

    /// Whether to use TLS and what to check: `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`;
    /// `prefer` unless given, as with every PostgreSQL client. Use `verify-full` across a network.
    pub sslmode: Option<SslMode>,
    /// PEM file with certificates to trust, besides those of the system. Read for each connection, so it may be replaced.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate to present to the server.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with that certificate's key.
    pub client_key_file: Option<PathBuf>,
    /// How the connections are called in `pg_stat_activity`.
    pub application_name: String,

    /// How long opening a connection may take: name look-up, TCP, TLS, authentication and the first questions, over all
    /// hosts together.
    pub connect_timeout: Duration,
    /// How long one call may take, from the moment it is made. The wait for a lock is apart from it.
    pub operation_timeout: Duration,
    /// How long the server works on one statement before it gives up, so that nothing goes on there for a caller that has
    /// left. It is a session setting: behind a transaction pooler set `statement_timeout` for the role instead.
    pub statement_timeout: Duration,
    /// For how long after the last connection was lost calls wait for the next one. From then on they fail at once as
    /// unavailable.
    ///
    /// Long enough to hide a reconnect after an idle connection was cut; short, since a caller of an unreachable server is
    /// better off knowing.
    pub connect_wait: Duration,
    /// The longest pause between two attempts to reconnect. The pauses double up to it, with full jitter.
    pub reconnect_delay_max: Duration,
    /// The most connections for statements: 1 to 64. One for notifications and those of `tx_connections` come on top.
    ///
    /// A few are enough, since operations that wait at the same moment share a statement. Behind a synchronous disk or
    /// standby more commits can be under way with more of them.
    pub connections: usize,
    /// The most connections for the caller's own transactions under a lock: 1 to 64. Opened when needed.
    pub tx_connections: usize,
    /// How long a connection beyond the first may stay unused before it is closed.
    pub idle_timeout: Duration,
    /// How many operations may wait for a connection: 1 to 1,000,000. Further ones are refused as throttled, so that an
    /// overload shows at once and memory stays bounded.
    pub queue_max: usize,
    /// The most operations that travel as one statement: 1 to 1,000. They commit together, so more of them are faster in
    /// sum and wait longer one by one.
    pub batch_ops_max: usize,
    /// Whether a transaction pooler such as PgBouncer is in between; found out at start unless given.
    ///
    /// Behind one, nothing is kept in the session: statements are not prepared by name, and waiters for a lock sleep
    /// instead of being notified.
    pub transaction_pooler: Option<bool>,

    /// `auto` creates and updates the tables at start, `check` refuses to start unless they are up to date.
    pub migrate: MigrateMode,
    /// Kinds that are written with asynchronous commit: faster, and a crash of the server may lose the last 0.6 s of them.
    /// For caches, limits and duplicates that may come twice. Locks and fences are always committed to disk.
    pub relaxed: Vec<String>,
    /// Pause between two chunks of removing what has expired; 0 leaves that to other nodes.
    pub sweep_interval: Duration,
    /// How long a lock record is kept after its last lease ended. Tokens rise by counting as long as it exists, and by the
    /// server's time afterwards.
    pub lock_retention: Duration,
    /// The largest value in bytes, up to 256 MiB.
    pub value_bytes_max: u64,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: None,
            hosts: Vec::new(),
            port: None,
            socket: None,
            username: None,
            password: None,
            database: None,
            schema: "public".to_owned(),
            prefix: "acteon_".to_owned(),
            sslmode: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            application_name: "acteon".to_owned(),
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            connect_wait: Duration::from_millis(200),
            reconnect_delay_max: Duration::from_secs(2),
            connections: 8,
            tx_connections: 4,
            idle_timeout: Duration::from_secs(60),
            queue_max: 10_000,
            batch_ops_max: 256,
            transaction_pooler: None,
            migrate: MigrateMode::Auto,
            relaxed: Vec::new(),
            sweep_interval: Duration::from_secs(1),
            lock_retention: RETENTION_DEFAULT,
            value_bytes_max: 64 << 20,
        }
    }
}

impl PostgresConfig {
    /// The default options with this URL.
    ///
    /// # Errors
    /// `Config` for a URL that does not parse, or says what would not be used.
    pub fn from_url(url: &str) -> Result<Self> {
        parse_url(url)?;
        Ok(Self { url: Some(url.into()), ..Self::default() })
    }

    /// Checks all options without connecting or reading files.
    ///
    /// # Errors
    /// `Config`, with a message that begins with the option's name.
    pub fn check(&self) -> Result<()> {
        self.target().map(drop)
    }

    /// Checks all options and says where the server is.
    pub(crate) fn target(&self) -> Result<Target> {
        self.check_names()?;
        self.check_bounds()?;
        let url = self.url.as_ref().map(|url| parse_url(url.expose())).transpose()?.unwrap_or_default();
        let endpoints = self.endpoints(&url)?;
        let sslmode = agreed("sslmode", url.sslmode, self.sslmode)?.unwrap_or_default();
        let tls = TlsFiles {
            ca: agreed("ca_file", url.ca_file, self.ca_file.clone())?,
            client_cert: agreed("client_cert_file", url.client_cert_file, self.client_cert_file.clone())?,
            client_key: agreed("client_key_file", url.client_key_file, self.client_key_file.clone())?,
        };
        let default = Self::default();
        let application_name =
            agreed_or("application_name", url.application_name, &self.application_name, &default.application_name)?;
        let connect_timeout =
            agreed_or("connect_timeout", url.connect_timeout, &self.connect_timeout, &default.connect_timeout)?;
        let target = Target {
            sslmode: checked_sslmode(sslmode, &tls, &endpoints)?,
            endpoints,
            username: agreed("username", url.username, self.username.clone())?,
            password: agreed("password", url.password, self.password.clone())?,
            database: agreed("database", url.database, self.database.clone())?,
            tls,
            application_name,
            connect_timeout,
        };
        target.check_texts()?;
        Ok(target)
    }

    fn endpoints(&self, url: &UrlParts) -> Result<Vec<Endpoint>> {
        let port = agreed("port", url.port, self.port)?;
        let socket = agreed("socket", url.socket.clone(), self.socket.clone())?;
        let fields = self.hosts.iter().map(|host| parse_hosts("hosts", host));
        let fields: Vec<_> = fields.collect::<Result<Vec<_>>>()?.concat();
        let some = |hosts: &[(String, Option<u16>)]| (!hosts.is_empty()).then(|| hosts.to_vec());
        let hosts = agreed("hosts", some(&url.hosts), some(&fields))?;
        match (socket, hosts) {
            (Some(_), Some(_)) => Err(Error::config("socket: hosts are given too; remove one")),
            (Some(directory), None) if !directory.is_absolute() => {
                Err(Error::config("socket: it must be the absolute path of a directory, such as /run/postgresql"))
            }
            (Some(directory), None) => Ok(vec![Endpoint::Unix { directory, port: port.unwrap_or(PORT_DEFAULT) }]),
            (None, hosts) => tcp_endpoints(hosts.unwrap_or_else(|| vec![("localhost".to_owned(), None)]), port),
        }
    }

    fn check_names(&self) -> Result<()> {
        for (option, name) in [("schema", &self.schema), ("prefix", &self.prefix)] {
            let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
            if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(known) {
                return Err(Error::config(format!(
                    "{option}: {name:?} is not 1 to {NAME_CHARS_MAX} characters out of a-z, 0-9 and _"
                )));
            }
        }
        for kind in &self.relaxed {
            Scope::new("any", "any", kind)
                .map_err(|error| Error::config(format!("relaxed: {kind:?} is not a kind: {}", error.message())))?;
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<()> {
        for (name, duration, max) in [
            ("connect_timeout", self.connect_timeout, TIMEOUT_MAX),
            ("operation_timeout", self.operation_timeout, TIMEOUT_MAX),
            ("statement_timeout", self.statement_timeout, TIMEOUT_MAX),
            ("reconnect_delay_max", self.reconnect_delay_max, TIMEOUT_MAX),
            ("idle_timeout", self.idle_timeout, TIMEOUT_MAX),
            ("lock_retention", self.lock_retention, TTL_MAX),
        ] {
            if duration < Duration::from_millis(1) || duration > max {
                return Err(Error::config(format!("{name}: {duration:?} is out of range: allowed are 1ms to {max:?}")));
            }
        }
        for (name, duration) in [("connect_wait", self.connect_wait), ("sweep_interval", self.sweep_interval)] {
            if duration > TIMEOUT_MAX {
                let message = format!("{name}: {duration:?} is out of range: allowed are 0 to {TIMEOUT_MAX:?}");
                return Err(Error::config(message));
            }
        }
        for (name, number, max) in [
            ("connections", self.connections, CONNECTIONS_MAX),
            ("tx_connections", self.tx_connections, CONNECTIONS_MAX),
            ("batch_ops_max", self.batch_ops_max, BATCH_OPS_MAX),
            ("queue_max", self.queue_max, QUEUE_MAX),
        ] {
            if number == 0 || number > max {
                return Err(Error::config(format!("{name}: {number} is out of range: allowed are 1 to {max}")));
            }
        }
        if self.value_bytes_max == 0 || self.value_bytes_max > VALUE_BYTES_MAX {
            let given = self.value_bytes_max;
            let message = format!("value_bytes_max: {given} is out of range: allowed are 1 to {VALUE_BYTES_MAX}");
            return Err(Error::config(message));
        }
        Ok(())
    }
}

/// Where a server is and how to get in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// At least one.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<String>,
    pub(crate) sslmode: SslMode,
    pub(crate) tls: TlsFiles,
    pub(crate) application_name: String,
    pub(crate) connect_timeout: Duration,
}

impl Target {
    /// PostgreSQL's start-up message ends each text with a zero byte, so none may hold one.
    fn check_texts(&self) -> Result<()> {
        let password = self.password.as_ref().map(Secret::expose);
        for (option, text) in [
            ("username", self.username.as_deref()),
            ("password", password),
            ("database", self.database.as_deref()),
            ("application_name", Some(self.application_name.as_str())),
        ] {
            if text.is_some_and(|text| text.contains('\0')) {
                return Err(Error::config(format!("{option}: it holds a zero byte, which PostgreSQL cannot take")));
            }
            if text == Some("") {
                return Err(Error::config(format!("{option}: it is empty; leave it out instead")));
            }
        }
        Ok(())
    }
}

/// Files with certificates and keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) client_cert: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
}

/// An address; shown in errors, so it never holds credentials.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix { directory: PathBuf, port: u16 },
}

impl Endpoint {
    /// Whether nothing that is sent leaves the machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

fn tcp_endpoints(hosts: Vec<(String, Option<u16>)>, port: Option<u16>) -> Result<Vec<Endpoint>> {
    if port.is_some() && hosts.iter().all(|(_, own)| own.is_some() && *own != port) {
        return Err(Error::config("port: each host of the url or in hosts names another one; remove it"));
    }
    let default = port.unwrap_or(PORT_DEFAULT);
    let mut endpoints = Vec::with_capacity(hosts.len());
    for (host, port) in hosts {
        let endpoint = Endpoint::Tcp { host, port: port.unwrap_or(default) };
        if endpoints.contains(&endpoint) {
            return Err(Error::config(format!("hosts: {endpoint} is listed twice")));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// The mode that these files and endpoints amount to, or why they do not fit together.
fn checked_sslmode(sslmode: SslMode, tls: &TlsFiles, endpoints: &[Endpoint]) -> Result<SslMode> {
    let unix = endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Unix { .. }));
    let name = sslmode.as_str();
    if unix && sslmode.is_required() {
        return Err(Error::config(format!("sslmode: {name} has no meaning with a unix socket, which has no TLS")));
    }
    if tls.client_cert.is_some() != tls.client_key.is_some() {
        return Err(Error::config("client_cert_file: it needs client_key_file, and the other way round"));
    }
    if tls.ca.is_some() && !sslmode.is_required() {
        let message = format!("ca_file: with sslmode {name} nothing is checked; use sslmode verify-full");
        return Err(Error::config(message));
    }
    if tls.client_cert.is_some() && !sslmode.is_required() {
        let message =
            format!("client_cert_file: with sslmode {name} it may never be presented; use sslmode verify-full");
        return Err(Error::config(message));
    }
    Ok(match sslmode {
        // libpq's rule, which URLs of hosting providers count on.
        SslMode::Require if tls.ca.is_some() => SslMode::VerifyCa,
        _ if unix => SslMode::Disable,
        other => other,
    })
}

/// One fact that a URL and a field may both state.
fn agreed<T: PartialEq>(name: &str, url: Option<T>, field: Option<T>) -> Result<Option<T>> {
    match (url, field) {
        (Some(url), Some(field)) if url != field => Err(contradiction(name)),
        (url, field) => Ok(url.or(field)),
    }
}

/// The same for a field that always has a value: at its default it says nothing.
fn agreed_or<T: PartialEq + Clone>(name: &str, url: Option<T>, field: &T, default: &T) -> Result<T> {
    match url {
        Some(url) if field != default && url != *field => Err(contradiction(name)),
        Some(url) => Ok(url),
        None => Ok(field.clone()),
    }
}

fn contradiction(name: &str) -> Error {
    Error::config(format!("{name}: the url and the field {name} say different things; remove one"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::{Endpoint, PostgresConfig, SslMode};

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn secrets_never_show() {
        let mut config = PostgresConfig::from_url("postgres://ada:hunter2@h/db").unwrap();
        config.password = Some("hunter2".into());
        assert!(!format!("{config:?} {:?}", config.target().unwrap()).contains("hunter2"));
    }

    #[test]
    fn fields_complete_a_url() {
        let url = || PostgresConfig::from_url("postgres://h:1,g/d?application_name=a&connect_timeout=3").unwrap();
        let target = PostgresConfig { password: Some("p".into()), port: Some(2), ..url() }.target().unwrap();
        assert!(target.password.is_some());
        assert_eq!(target.endpoints, [tcp("h", 1), tcp("g", 2)]);
        assert_eq!((target.application_name.as_str(), target.connect_timeout), ("a", Duration::from_secs(3)));
        let same = PostgresConfig {
            hosts: vec!["h:1".into(), "g".into()],
            database: Some("d".into()),
            application_name: "a".into(),
            ..url()
        };
        assert!(same.check().is_ok());
    }

    #[test]
    fn wrong_options_are_refused_by_name() {
        let url = || PostgresConfig::from_url("postgres://u:p@h:1/d?sslmode=require&application_name=a").unwrap();
        let plain = PostgresConfig::default;
        for (config, option) in [
            (PostgresConfig { hosts: vec!["other".into()], ..url() }, "hosts"),
            (PostgresConfig { hosts: vec!["h".into(), "h:5432".into()], ..plain() }, "hosts"),
            (PostgresConfig { hosts: vec!["a b".into()], ..plain() }, "hosts"),
            (PostgresConfig { port: Some(3), ..url() }, "port"),
            (PostgresConfig { socket: Some("/s".into()), ..url() }, "socket"),
            (PostgresConfig { socket: Some("s".into()), ..plain() }, "socket"),
            (PostgresConfig { username: Some("v".into()), ..url() }, "username"),
            (PostgresConfig { password: Some("q".into()), ..url() }, "password"),
            (PostgresConfig { password: Some("q\0".into()), ..plain() }, "password"),
            (PostgresConfig { database: Some("e".into()), ..url() }, "database"),
            (PostgresConfig { database: Some(String::new()), ..plain() }, "database"),
            (PostgresConfig { sslmode: Some(SslMode::Disable), ..url() }, "sslmode"),
            (PostgresConfig { sslmode: Some(SslMode::VerifyFull), socket: Some("/s".into()), ..plain() }, "sslmode"),
            (PostgresConfig { ca_file: Some("/ca".into()), ..plain() }, "ca_file"),
            (PostgresConfig { client_cert_file: Some("/c".into()), ..url() }, "client_cert_file"),
            (
                PostgresConfig { client_cert_file: Some("/c".into()), client_key_file: Some("/k".into()), ..plain() },
                "client_cert_file",
            ),
            (PostgresConfig { application_name: "b".into(), ..url() }, "application_name"),
            (PostgresConfig { schema: "Public".into(), ..plain() }, "schema"),
            (PostgresConfig { schema: String::new(), ..plain() }, "schema"),
            (PostgresConfig { prefix: "a\"b".into(), ..plain() }, "prefix"),
            (PostgresConfig { prefix: "p".repeat(33), ..plain() }, "prefix"),
            (PostgresConfig { relaxed: vec![String::new()], ..plain() }, "relaxed"),
            (PostgresConfig { connections: 65, ..plain() }, "connections"),
            (PostgresConfig { tx_connections: 0, ..plain() }, "tx_connections"),
            (PostgresConfig { queue_max: 0, ..plain() }, "queue_max"),
            (PostgresConfig { batch_ops_max: 1_001, ..plain() }, "batch_ops_max"),
            (PostgresConfig { operation_timeout: Duration::ZERO, ..plain() }, "operation_timeout"),
            (PostgresConfig { statement_timeout: Duration::from_secs(90_000), ..plain() }, "statement_timeout"),
            (PostgresConfig { sweep_interval: Duration::MAX, ..plain() }, "sweep_interval"),
            (PostgresConfig { value_bytes_max: 0, ..plain() }, "value_bytes_max"),
        ] {
            let error = config.check().expect_err(option);
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.message().starts_with(&format!("{option}:")), "{option}: {error}");
        }
    }

    #[test]
    fn the_default_is_the_local_server() {
        let target = PostgresConfig::default().target().unwrap();
        assert_eq!((target.endpoints, target.sslmode), (vec![tcp("localhost", 5432)], SslMode::Prefer));
    }

    #[test]
    fn require_with_an_authority_checks_it_and_a_socket_has_no_tls() {
        let config = PostgresConfig::from_url("postgres://h?sslmode=require&sslrootcert=/ca").unwrap();
        assert_eq!(config.target().unwrap().sslmode, SslMode::VerifyCa);
        let config = PostgresConfig { socket: Some("/run/postgresql".into()), ..PostgresConfig::default() };
        assert_eq!(config.target().unwrap().sslmode, SslMode::Disable);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let json = r#"{"url": "postgres://h", "sslmode": "verify-full", "migrate": "check"}"#;
        assert!(serde_json::from_str::<PostgresConfig>(json).is_ok());
        let error = serde_json::from_str::<PostgresConfig>(r#"{"ur": "postgres://h"}"#).unwrap_err();
        assert!(error.to_string().contains("`ur`"), "{error}");
    }

    #[test]
    fn local_addresses_are_known() {
        for (host, local) in
            [("localhost", true), ("127.0.0.9", true), ("::1", true), ("10.0.0.1", false), ("db", false)]
        {
            assert_eq!(tcp(host, 1).is_local(), local, "{host}");
        }
    }
}
