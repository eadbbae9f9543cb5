//! From SQLSTATEs and the client library's failures to kind, effect and advice.
//!
//! # Effects
//! An error response to a statement means that its transaction was rolled back: [`NotApplied`](Effect::NotApplied). A
//! connection that breaks, or an answer that does not come in time, leaves a write [`Unknown`](Effect::Unknown): it may have
//! been committed. A pooler that reports a lost server connection (class 08) is the same thing at second hand, and so is a server
//! that panics: a commit that it could not write to its end may be found in the log when it starts again. A read changes nothing either way.
//!
//! # Secrets
//! Of the server's error only the code and the cut message are kept. Its detail, its context and, where a value was refused,
//! the message itself repeat what was sent.

use acteon_state_core::{Effect, Error, ErrorKind};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The backend's name in errors and configuration.
pub(crate) const BACKEND: &str = "postgres";

/// What was under way when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing had been sent.
    No,
    /// A statement that changes nothing.
    Read,
    /// A statement that may change something.
    Write,
}

impl Sent {
    /// The effect when the answer is missing.
    pub(crate) const fn unanswered(self) -> Effect {
        match self {
            Self::No | Self::Read => Effect::NotApplied,
            Self::Write => Effect::Unknown,
        }
    }
}

/// What a SQLSTATE means to us.
struct Meaning {
    /// The whole code, or its first two characters for all others of that class.
    code: &'static str,
    kind: ErrorKind,
    /// Whether the connection is of no further use.
    ends_connection: bool,
    /// What is behind it and what to do; empty where the server's words are enough.
    advice: &'static str,
}

const fn keep(code: &'static str, kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { code, kind, ends_connection: false, advice }
}

const fn ends(code: &'static str, kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { code, kind, ends_connection: true, advice }
}

const NO_SCHEMA: &str = "tables or functions are missing: run `acteon-server migrate`, or set migrate = \"auto\"";
const UNSEEN_POOLER: &str = "a transaction pooler seems to be in between: set transaction_pooler = true";
const GOING_DOWN: &str = "the server is shutting down or the session was ended by an administrator";

/// Every code that is treated apart, then the classes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
const SQLSTATES: [Meaning; 46] = [
    keep("22003", ErrorKind::Overflow, "a number is out of range"),
    keep("22021", ErrorKind::Invalid, "a text holds a character that the database cannot store"),
    keep("22P05", ErrorKind::Invalid, "a text holds a character that the database's encoding lacks"),
    ends("25006", ErrorKind::Failover, "the server is read-only: a standby, or switched over"),
    ends(
        "25P03",
        ErrorKind::Unavailable,
        "the transaction was idle for too long (idle_in_transaction_session_timeout)",
    ),
    ends("26000", ErrorKind::Config, UNSEEN_POOLER),
    keep("28P01", ErrorKind::Denied, "check username and password"),
    keep(
        "28000",
        ErrorKind::Denied,
        "check username, sslmode, the client certificate and the rules in the server's pg_hba.conf",
    ),
    keep("3D000", ErrorKind::Config, "create the database (`createdb`) or correct its name in the url"),
    keep("3F000", ErrorKind::Config, NO_SCHEMA),
    keep("40001", ErrorKind::Contended, ""),
    ends("40003", ErrorKind::Unavailable, "it is not known whether the statement was completed"),
    keep("40P01", ErrorKind::Contended, ""),
    keep(
        "42501",
        ErrorKind::Denied,
        "the role needs CONNECT on the database, USAGE on the schema (and CREATE, to migrate), SELECT, INSERT, UPDATE and \
         DELETE on the tables and EXECUTE on the functions: GRANT them, or log in as their owner",
    ),
    keep("42703", ErrorKind::Config, NO_SCHEMA),
    keep("42883", ErrorKind::Config, NO_SCHEMA),
    keep("42P01", ErrorKind::Config, NO_SCHEMA),
    ends("42P05", ErrorKind::Config, UNSEEN_POOLER),
    keep("53100", ErrorKind::OutOfMemory, "the server's disk is full"),
    keep("53200", ErrorKind::OutOfMemory, "the server is out of memory"),
    keep(
        "53300",
        ErrorKind::Throttled,
        "the server has no connection left: lower `connections`, raise max_connections or the role's limit, or use a pooler",
    ),
    keep("55P03", ErrorKind::Timeout, "a row stayed locked by somebody else for longer than lock_timeout"),
    keep("57014", ErrorKind::Timeout, "the server stopped the statement: statement_timeout, or somebody cancelled it"),
    ends("57P01", ErrorKind::Failover, GOING_DOWN),
    ends("57P02", ErrorKind::Failover, "the server is restarting after a crash of one of its processes"),
    ends("57P03", ErrorKind::Failover, "the server is starting up, recovering or shutting down"),
    ends("57P04", ErrorKind::Config, "the database was dropped"),
    ends("57P05", ErrorKind::Unavailable, "the session was idle for too long (idle_session_timeout)"),
    keep("58030", ErrorKind::Unavailable, "the server failed to read or write its files: see its log"),
    keep("XX001", ErrorKind::Corrupt, "the server found damaged data: see its log, and check fsync and the disk"),
    keep("XX002", ErrorKind::Corrupt, "the server found a damaged index: see its log; REINDEX may repair it"),
    ends(
        "08",
        ErrorKind::Unavailable,
        "the connection was refused or lost, by the server or by a pooler in front of it",
    ),
    keep("0A", ErrorKind::Unsupported, "the server lacks something that is used: is it PostgreSQL 14 or newer?"),
    keep("22", ErrorKind::Invalid, "the server refused a value"),
    keep("23", ErrorKind::Internal, "a constraint was violated: were the tables changed by hand?"),
    ends("25", ErrorKind::Internal, "the transaction is in a state that it should not be in"),
    keep("28", ErrorKind::Denied, "check username and password"),
    keep("3B", ErrorKind::Internal, ""),
    keep("40", ErrorKind::Contended, ""),
    keep("42", ErrorKind::Internal, "the statement does not fit the tables: were they changed by hand?"),
    keep("53", ErrorKind::OutOfMemory, "the server is short of resources"),
    keep("54", ErrorKind::TooLarge, "above a limit of PostgreSQL"),
    keep("55", ErrorKind::Unavailable, ""),
    ends("57", ErrorKind::Unavailable, ""),
    keep("58", ErrorKind::Internal, "the server failed outside of itself: see its log"),
    keep("XX", ErrorKind::Internal, "PostgreSQL reports a bug of its own, or a module's: see its log"),
];

/// What a code that is not listed means.
const UNLISTED: Meaning = keep("", ErrorKind::Internal, "");

/// What PgBouncer says when it lets nobody in, always with the code 08P01, and the code that PostgreSQL would have given.
const POOLER_REFUSALS: [(&str, &str); 5] = [
    ("authentication failed", "28P01"),
    ("no such user", "28P01"),
    ("no such database", "3D000"),
    ("does not exist", "3D000"),
    ("no more connections allowed", "53300"),
];

/// The longest text of a server that is repeated in an error.
const TEXT_CHARS_MAX: usize = 200;

/// What the client library says when a connection is closed while it waits for the answer to its question for TLS: it takes the end for a zero.
/// That is a server, or a way to it, that went away, and no wrong address.
const CLOSED_BEFORE_TLS: &str = "unexpected response from SSLRequest: 0x00";

fn meaning(code: &str) -> &'static Meaning {
    let exact = SQLSTATES.iter().find(|row| row.code == code);
    let class = || SQLSTATES.iter().find(|row| row.code.len() == 2 && code.starts_with(row.code));
    exact.or_else(class).unwrap_or(&UNLISTED)
}

/// The error of the client library, as ours.
pub(crate) fn classify(error: sqlx::Error, sent: Sent) -> Error {
    let ours = match error {
        sqlx::Error::Database(response) => {
            let (code, is_panic) = (response.code().unwrap_or_default(), is_panic(&*response));
            return from_response(&code, response.message(), is_panic, sent);
        }
        // A handshake that fails arrives as an I/O error that carries what rustls said.
        sqlx::Error::Io(source) if sent == Sent::No && source.kind() == std::io::ErrorKind::InvalidData => {
            refused_tls(&source.to_string()).with_source(source)
        }
        sqlx::Error::Tls(source) if sent == Sent::No => refused_tls(&source.to_string()).with_source(source),
        sqlx::Error::Io(source) => {
            let what = if sent == Sent::No { "the server cannot be reached" } else { "the connection broke" };
            Error::new(ErrorKind::Unavailable, format!("{what}: {source}")).with_source(source)
        }
        sqlx::Error::Tls(source) => Error::new(ErrorKind::Unavailable, "the TLS connection broke").with_source(source),
        sqlx::Error::Protocol(what) if sent == Sent::No && !what.contains(CLOSED_BEFORE_TLS) => Error::config(format!(
            "this is not a PostgreSQL server, or it asks for something that is not supported: {}",
            cut(&what)
        )),
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Error::new(ErrorKind::Unavailable, "the connection is out of step with the server")
        }
        sqlx::Error::Configuration(source) => {
            let message = format!("the connection cannot be set up: {}", cut(&source.to_string()));
            return Error::config(message).on_backend(BACKEND);
        }
        sqlx::Error::PoolTimedOut => {
            return Error::new(ErrorKind::Throttled, "no connection became free in time").on_backend(BACKEND);
        }
        sqlx::Error::PoolClosed => return closed(),
        sqlx::Error::Encode(_) => {
            return Error::new(ErrorKind::Internal, "a parameter cannot be encoded").on_backend(BACKEND);
        }
        // The rest is about answers that do not look as they should. Their texts may quote what was stored.
        sqlx::Error::ColumnDecode { index, .. } => unexpected(&format!("column {index} cannot be read")),
        sqlx::Error::ColumnNotFound(name) => unexpected(&format!("column {name} is missing")),
        sqlx::Error::RowNotFound => unexpected("a row is missing"),
        _ => unexpected("it cannot be read"),
    };
    ours.with_effect(sent.unanswered()).on_backend(BACKEND)
}

/// Whether the transaction lost against another one and may be tried again as it is.
pub(crate) fn is_retriable_conflict(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| ["40001", "40P01"].contains(&code.as_str()))
}

/// Whether the connection must be dropped and the writable server be looked for.
pub(crate) fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(response) if is_panic(&**response) => true,
        _ => code_of(error).is_some_and(|code| meaning(&code).ends_connection),
    }
}

/// The server breaks everything off and starts again.
fn is_panic(response: &dyn DatabaseError) -> bool {
    let response = response.try_downcast_ref::<PgDatabaseError>();
    response.is_some_and(|response| matches!(response.severity(), PgSeverity::Panic))
}

/// The store was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed").on_backend(BACKEND)
}

/// No answer within the time that the call had.
pub(crate) fn timed_out(effect: Effect) -> Error {
    Error::new(ErrorKind::Timeout, "no answer within operation_timeout").with_effect(effect).on_backend(BACKEND)
}

pub(crate) fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(String::from)
}

fn from_response(code: &str, text: &str, is_panic: bool, sent: Sent) -> Error {
    let refusal = || POOLER_REFUSALS.iter().find(|(phrase, _)| text.contains(phrase)).map(|(_, code)| *code);
    let stand_in = if code == "08P01" && sent == Sent::No { refusal() } else { None };
    let Meaning { kind, advice, .. } = meaning(stand_in.unwrap_or(code));
    // Messages of class 22 quote the value that was refused.
    let text = if code.starts_with("22") { "a value was refused" } else { &cut(text) };
    let message = if advice.is_empty() {
        format!("{text} (SQLSTATE {code})")
    } else {
        format!("{text} (SQLSTATE {code}); {advice}")
    };
    let is_unknown = is_panic || code.starts_with("08") || code == "40003";
    let effect = if is_unknown { sent.unanswered() } else { Effect::NotApplied };
    Error::new(*kind, message).with_effect(effect).on_backend(BACKEND)
}

fn refused_tls(what: &str) -> Error {
    Error::config(format!(
        "TLS could not be agreed on: {}; check sslmode, ca_file, the name in the server's certificate and the client certificate",
        cut(what)
    ))
}

fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the server's answer has another shape than the statement gives: {what}"))
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use std::io;

    use acteon_state_core::{Effect, ErrorKind};

    use super::{SQLSTATES, Sent, TEXT_CHARS_MAX, classify, ends_connection, from_response, meaning};

    #[test]
    fn every_row_is_reached() {
        for row in &SQLSTATES {
            let code = if row.code.len() == 2 { format!("{}zzz", row.code) } else { row.code.to_owned() };
            assert_eq!(meaning(&code).code, row.code);
        }
        for (place, row) in SQLSTATES.iter().enumerate() {
            assert!(SQLSTATES[..place].iter().all(|before| before.code != row.code), "{} is listed twice", row.code);
        }
        assert_eq!(meaning("P0001").kind, ErrorKind::Internal);
    }

    #[test]
    fn an_error_response_changed_nothing_and_is_cut() {
        let error = from_response("42501", &"x".repeat(10_000), false, Sent::Write);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::NotApplied));
        assert!(error.message().len() < TEXT_CHARS_MAX + 400 && error.message().contains("GRANT"));
    }

    /// Found under faults: a connection that was cut while it was opened was reported as a wrong address, which nobody tries again.
    #[test]
    fn a_connection_that_is_cut_before_tls_is_agreed_on_may_be_tried_again() {
        let kind = |what: &str| classify(sqlx::Error::Protocol(what.to_owned()), Sent::No).kind();
        let cut = "unexpected response from SSLRequest: 0x00 (sqlx_postgres::connection::tls:95)";
        assert_eq!(kind(cut), ErrorKind::Unavailable);
        assert_eq!(kind("unexpected response from SSLRequest: 0x48"), ErrorKind::Config);
    }

    #[test]
    fn a_refused_value_is_not_repeated() {
        let error = from_response("22P02", "invalid input syntax for type uuid: \"hunter2\"", false, Sent::Write);
        assert!(!error.to_string().contains("hunter2") && error.message().contains("22P02"));
    }

    #[test]
    fn a_pooler_that_lost_the_server_leaves_a_write_unknown() {
        let error = from_response("08P01", "server conn crashed?", false, Sent::Write);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        assert_eq!(from_response("08P01", "server conn crashed?", false, Sent::Read).effect(), Effect::NotApplied);
    }

    /// A full disk under the log: what was written of it may have the commit in it.
    #[test]
    fn a_server_that_panics_leaves_a_write_unknown() {
        let text = "could not write to file \"pg_wal/xlogtemp.7\": No space left on device";
        let error = from_response("53100", text, true, Sent::Write);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::OutOfMemory, Effect::Unknown));
        assert_eq!(from_response("53100", text, false, Sent::Write).effect(), Effect::NotApplied);
        assert_eq!(from_response("53100", text, true, Sent::Read).effect(), Effect::NotApplied);
    }

    #[test]
    fn a_pooler_that_lets_nobody_in_says_why() {
        for (text, kind) in [
            ("SASL authentication failed", ErrorKind::Denied),
            ("no such database: x", ErrorKind::Config),
            ("no more connections allowed (max_client_conn)", ErrorKind::Throttled),
            ("server login has been failing, try again later (server_login_retry)", ErrorKind::Unavailable),
        ] {
            assert_eq!(from_response("08P01", text, false, Sent::No).kind(), kind, "{text}");
        }
    }

    #[test]
    fn a_broken_connection_leaves_only_writes_unknown() {
        let broken = || sqlx::Error::Io(io::ErrorKind::BrokenPipe.into());
        assert!(ends_connection(&broken()));
        for (sent, effect) in
            [(Sent::No, Effect::NotApplied), (Sent::Read, Effect::NotApplied), (Sent::Write, Effect::Unknown)]
        {
            let error = classify(broken(), sent);
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, effect));
        }
    }

    #[test]
    fn an_unreadable_answer_does_not_end_the_connection_and_leaves_a_write_unknown() {
        assert!(!ends_connection(&sqlx::Error::RowNotFound));
        assert_eq!(classify(sqlx::Error::RowNotFound, Sent::Write).effect(), Effect::Unknown);
    }
}
