//! Opens connections to the writable server.
//!
//! # Guarantees
//! A connection that is handed out leads to a server that was writable and good enough a moment ago, and takes no longer than
//! `connect_timeout`. Which of several hosts that is, is asked anew each time, beginning with the last good one: after a
//! promotion the next connections lead to the new primary.
//!
//! # Failure
//! `Failover` when hosts answer but none of them is writable; otherwise what the first unusable one said, with all the others
//! behind it. Each part begins with the address that it is about. Credentials never show.
//!
//! # How it works
//! Nothing is sent at start-up that PgBouncer refuses, and the first questions use the simple protocol, which works through
//! any pooler. The first connection finds out whether a transaction pooler is in between: two sessions begin and end
//! transactions in changing order, and behind such a pooler they come by each other's process of the server. That decides
//! whether a session may hold state. Nothing is left behind; a `LISTEN` would be, and its notifications would reach whoever
//! is given that process next.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row as _, raw_sql};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{Endpoint, PostgresConfig, SslMode, Target};
use crate::error::{BACKEND, Sent, classify, code_of};
use crate::server::{Facts, QUESTION, Wire};
use crate::session::SESSION_SETTINGS;

/// Statements that one connection keeps prepared; the driver has fewer, so none is ever thrown out.
const STATEMENTS_MAX: usize = 128;
/// How often two sessions are watched for a change of their server process. A pooler that hands out the process that was idle
/// for the shortest time is noticed after the first round, one that hands out the other end of its queue after the second;
/// the rest is for what other clients do meanwhile.
const PROBE_ROUNDS: usize = 5;

/// Knows where the server is and how to get in.
pub(crate) struct Connector {
    target: Target,
    statement_timeout: Duration,
    /// What worked last.
    good: Mutex<Way>,
    pooled: OnceCell<bool>,
}

/// One way to a server: a host out of the list, with or without TLS.
#[derive(Clone, Copy, Debug)]
struct Way {
    host: usize,
    sslmode: PgSslMode,
}

/// A new connection and what its server said.
pub(crate) struct Opened {
    pub(crate) connection: PgConnection,
    pub(crate) facts: Facts,
}

impl Connector {
    /// Checks the options and the files that they name; connects to nothing.
    ///
    /// # Errors
    /// `Config`.
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self> {
        let target = config.target()?;
        for (option, path) in [
            ("ca_file", &target.tls.ca),
            ("client_cert_file", &target.tls.client_cert),
            ("client_key_file", &target.tls.client_key),
        ] {
            path.as_deref().map(|path| check_pem(option, path)).transpose()?;
        }
        if target.sslmode == SslMode::VerifyCa {
            tracing::warn!(
                "sslmode verify-ca accepts certificates for any name, from any authority that this system trusts; use verify-full"
            );
        }
        Ok(Self {
            good: Mutex::new(Way { host: 0, sslmode: target.sslmode.attempts()[0] }),
            pooled: OnceCell::new_with(config.transaction_pooler),
            statement_timeout: config.statement_timeout,
            target,
        })
    }

    /// Opens a connection to the writable server.
    ///
    /// # Errors
    /// See above.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let known = self.pooled.get().copied();
        let mut opened = self.open_writable(known.unwrap_or(false)).await?;
        let pooled = match known {
            Some(pooled) => pooled,
            None => self.probe_pooler().await,
        };
        if pooled && known.is_none() {
            // The connection would prepare statements by name.
            opened = self.open_writable(true).await?;
        }
        opened.facts.pooled = pooled;
        if !pooled {
            self.set_up_session(&mut opened.connection).await?;
        }
        Ok(opened)
    }

    /// How to connect to the host that was writable last.
    pub(crate) fn options(&self) -> PgConnectOptions {
        let way = *self.good.lock();
        self.options_for(way, self.pooled.get().copied().unwrap_or(false))
    }

    /// Whether a transaction pooler is in between. The answer is kept; when it cannot be found out the safe one is given,
    /// which works everywhere, and the next call tries again.
    pub(crate) async fn probe_pooler(&self) -> bool {
        let probe = || async {
            match timeout(self.target.connect_timeout, self.changes_processes()).await {
                Ok(changes) => changes.map_err(|error| classify(error, Sent::No)),
                Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer within connect_timeout").on_backend(BACKEND)),
            }
        };
        match self.pooled.get_or_try_init(probe).await {
            Ok(pooled) => *pooled,
            Err(error) => {
                tracing::warn!(%error, "cannot find out whether a transaction pooler is in between; assuming that there is one");
                true
            }
        }
    }

    async fn open_writable(&self, pooled: bool) -> Result<Opened> {
        let hosts = self.target.endpoints.len();
        let first = self.good.lock().host;
        let deadline = Instant::now() + self.target.connect_timeout;
        let mut failures = Vec::new();
        for tried in 0..hosts {
            let host = (first + tried) % hosts;
            // A host that does not answer at all must leave time for those after it.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(hosts - tried).unwrap_or(u32::MAX);
            match timeout_at(Instant::now() + share, self.reach(host, pooled)).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(error)) => failures.push((host, error)),
                Err(_) => {
                    let all = self.target.connect_timeout;
                    let message = format!("no connection in time (connect_timeout is {all:?} for all hosts together)");
                    failures.push((host, Error::new(ErrorKind::Unavailable, message).on_backend(BACKEND)));
                }
            }
        }
        Err(self.summary(failures))
    }

    /// Connects to one host, asks for the facts, and refuses it if it will not do.
    async fn reach(&self, host: usize, pooled: bool) -> Result<Opened> {
        let (mut connection, way) = self.log_in(host, pooled).await.map_err(|error| classify(error, Sent::No))?;
        let rows = raw_sql(QUESTION).fetch_all(&mut connection).await.map_err(|error| classify(error, Sent::Read))?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound);
        let mut facts = row.and_then(Facts::read).map_err(|error| classify(error, Sent::Read))?;
        facts.wire = self.wire(way, facts.tls, pooled);
        facts.check()?;
        *self.good.lock() = way;
        Ok(Opened { connection, facts })
    }

    async fn log_in(&self, host: usize, pooled: bool) -> Result<(PgConnection, Way), sqlx::Error> {
        let [attempts @ .., last] = self.target.sslmode.attempts() else {
            unreachable!("each mode has at least one attempt");
        };
        for sslmode in attempts {
            let way = Way { host, sslmode: *sslmode };
            match PgConnection::connect_with(&self.options_for(way, pooled)).await {
                Ok(connection) => return Ok((connection, way)),
                Err(error) if other_way_may_help(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let way = Way { host, sslmode: *last };
        let connection = PgConnection::connect_with(&self.options_for(way, pooled)).await?;
        Ok((connection, way))
    }

    fn options_for(&self, way: Way, pooled: bool) -> PgConnectOptions {
        let target = &self.target;
        // The password file is not read: sqlx looks up the host of the environment in it, which may be another one.
        let mut options = PgConnectOptions::new_without_pgpass()
            .ssl_mode(way.sslmode)
            .application_name(&target.application_name)
            .extra_float_digits(None)
            .statement_cache_capacity(if pooled { 0 } else { STATEMENTS_MAX })
            .disable_statement_logging();
        options = match &target.endpoints[way.host] {
            Endpoint::Tcp { host, port } => options.host(host).port(*port),
            Endpoint::Unix { directory, port } => options.socket(directory).port(*port),
        };
        if let Some(username) = &target.username {
            options = options.username(username);
        }
        if let Some(password) = &target.password {
            options = options.password(password.expose());
        }
        if let Some(database) = &target.database {
            options = options.database(database);
        }
        if let Some(path) = &target.tls.ca {
            options = options.ssl_root_cert(path);
        }
        if let (Some(cert), Some(key)) = (&target.tls.client_cert, &target.tls.client_key) {
            options = options.ssl_client_cert(cert).ssl_client_key(key);
        }
        options
    }

    /// What protects this way. `prefer` may have ended without TLS, which only the server can tell; what it tells behind a
    /// pooler is about the pooler's connection, so the weaker case is assumed there.
    fn wire(&self, way: Way, tls: bool, pooled: bool) -> Wire {
        if self.target.endpoints[way.host].is_local() {
            return Wire::Local;
        }
        match way.sslmode {
            PgSslMode::VerifyFull => Wire::Verified,
            PgSslMode::Require | PgSslMode::VerifyCa => Wire::Unverified,
            PgSslMode::Prefer if tls && !pooled => Wire::Unverified,
            _ => Wire::Plain,
        }
    }

    /// What a session starts with may be other defaults, of the role or the database.
    async fn set_up_session(&self, connection: &mut PgConnection) -> Result<()> {
        let settings = format!("{SESSION_SETTINGS}; SET statement_timeout = {}", self.statement_timeout.as_millis());
        let set = timeout(self.target.connect_timeout, connection.execute(raw_sql(AssertSqlSafe(settings)))).await;
        match set {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(classify(error, Sent::Read)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "no answer within connect_timeout").on_backend(BACKEND)),
        }
    }

    /// Whether a session comes by another process of the server from one transaction to the next.
    async fn changes_processes(&self) -> Result<bool, sqlx::Error> {
        let mut one = PgConnection::connect_with(&self.options()).await?;
        let mut other = PgConnection::connect_with(&self.options()).await?;
        // One after the other, as a pooler with a single session allows. An idle one gives both of them the same.
        let first = begin_and_ask(&mut one).await?;
        one.execute("COMMIT").await?;
        let second = begin_and_ask(&mut other).await?;
        other.execute("COMMIT").await?;
        let mut changes = first == second;
        let mut seen = None;
        for round in 0..PROBE_ROUNDS {
            if changes {
                break;
            }
            let processes = (begin_and_ask(&mut one).await?, begin_and_ask(&mut other).await?);
            changes |= *seen.get_or_insert(processes) != processes;
            let (first, second) = if round % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
            first.execute("COMMIT").await?;
            second.execute("COMMIT").await?;
        }
        for connection in [one, other] {
            let _ = connection.close().await; // its part is done
        }
        Ok(changes)
    }

    /// One error out of those of all hosts.
    fn summary(&self, failures: Vec<(usize, Error)>) -> Error {
        let parts: Vec<_> = failures
            .iter()
            .map(|(host, error)| format!("{}: {}", self.target.endpoints[*host], error.message()))
            .collect();
        let kinds = || failures.iter().map(|(_, error)| error.kind());
        // A standby that answers shows that the others are about to; wrong credentials need a person.
        let kind = kinds()
            .find(|kind| *kind == ErrorKind::Failover)
            .or_else(|| kinds().find(|kind| !kind.is_transient()))
            .or_else(|| kinds().next())
            .unwrap_or(ErrorKind::Unavailable);
        let error = Error::new(kind, parts.join("; ")).on_backend(BACKEND);
        match failures.into_iter().find(|(_, error)| error.kind() == kind) {
            Some((_, source)) => error.with_source(source),
            None => error,
        }
    }
}

impl fmt::Display for Connector {
    /// All addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, endpoint) in self.target.endpoints.iter().enumerate() {
            let separator = if place == 0 { "" } else { "," };
            write!(f, "{separator}{endpoint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({self})")
    }
}

/// Begins a transaction, and says which process of the server it runs in.
async fn begin_and_ask(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.execute("BEGIN").await?;
    let rows = raw_sql("SELECT pg_backend_pid()::text").fetch_all(connection).await?;
    let process: &str = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
    process.parse().map_err(|_| sqlx::Error::Protocol("the process has no number".into()))
}

/// Whether the same host may let us in with TLS, or without: the server's rules refused this way, or TLS failed.
fn other_way_may_help(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        _ => code_of(error).is_some_and(|code| code == "28000"),
    }
}

fn check_pem(option: &str, path: &Path) -> Result<()> {
    let wrong = |what: &str| Error::config(format!("{option}: {} {what}", path.display())).on_backend(BACKEND);
    let pem = std::fs::read(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    if !pem.windows(10).any(|window| window == b"-----BEGIN") {
        return Err(wrong("is not in PEM format"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{Error, ErrorKind};

    use super::Connector;
    use crate::config::PostgresConfig;

    fn connector(url: &str) -> Connector {
        Connector::new(&PostgresConfig::from_url(url).unwrap()).unwrap()
    }

    #[test]
    fn neither_display_nor_debug_shows_credentials() {
        let connector = connector("postgres://ada:hunter2@a:1,[::1]/db");
        assert_eq!(connector.to_string(), "a:1,[::1]:5432");
        assert!(!format!("{connector:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_or_wrong_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let url = format!("postgres://h?sslmode=verify-full&sslrootcert={}", path.display());
        let config = PostgresConfig::from_url(&url).unwrap();
        let missing = Connector::new(&config).unwrap_err();
        assert!(missing.message().starts_with("ca_file: ") && missing.message().contains("cannot be read"));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(Connector::new(&config).unwrap_err().message().contains("PEM"));
    }

    #[test]
    fn of_several_failures_a_standby_counts_most_and_then_what_needs_a_person() {
        let connector = connector("postgres://a:1,b:2");
        let failures = |kinds: [ErrorKind; 2]| {
            kinds.into_iter().enumerate().map(|(host, kind)| (host, Error::new(kind, "reason"))).collect()
        };
        for (kinds, kind) in [
            ([ErrorKind::Unavailable, ErrorKind::Failover], ErrorKind::Failover),
            ([ErrorKind::Denied, ErrorKind::Failover], ErrorKind::Failover),
            ([ErrorKind::Unavailable, ErrorKind::Denied], ErrorKind::Denied),
            ([ErrorKind::Unavailable, ErrorKind::Throttled], ErrorKind::Unavailable),
        ] {
            let error = connector.summary(failures(kinds));
            assert_eq!((error.kind(), error.message()), (kind, "a:1: reason; b:2: reason"));
        }
    }
}
