//! `acteon-server locks`: who holds what, and taking a lock from its holders by force.
//!
//! # What it promises
//! It asks the backend that keeps the locks, and opens nothing else: neither rules nor providers, nor the backend of the data if
//! that is another one. What it finds goes to stdout, as a table or with `--json` as JSON; the reason of a failure to stderr.
//!
//! # Failure
//! The exit code is 1 when the backend does not answer, has no locks or cannot list them, and for a lock that it has no record of;
//! 2 for a name that no lock has. The locks of `backend = "memory"` are in the process of the server, where only the server can see
//! them: it shows and releases them over HTTP, see [`crate::http::locks`].

use std::io::Write;

use acteon_state::config::Connect;
use acteon_state::{Cursor, Error, ErrorKind, OpenOptions, Scan, Scope, State, StateConfig, StateKey};
use clap::Subcommand;
use serde::Serialize;

use crate::config::Config;
use crate::start_error::StartError;
use view::{LockPage, LockView, Released};

pub mod view;

/// The most bytes of a reason: it is one line of the log.
pub const REASON_BYTES_MAX: usize = 256;
/// Most locks of one page.
pub const LIMIT_MAX: u32 = acteon_state::core::scan::PAGE_SIZE_MAX;
/// How many there are unless a number is given.
pub const LIMIT_DEFAULT: u32 = 100;

/// How the beginning of a name is written, where one is not.
pub const PREFIX_FORM: &str = "write namespace:tenant:kind, and the beginning of an id after another colon if you like, such as \
    demo:acme:action or demo:acme:action:order-; a colon within a part is written ;0, as in the names that are shown";
/// How a name is written, where one is not.
pub const KEY_FORM: &str = "write namespace:tenant:kind:id, as names are shown, such as demo:acme:action:order-17; a colon within a part is written ;0";

/// What to do with locks.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum LocksCommand {
    /// List locks and their holders
    ///
    /// Free locks are listed as well, as long as their record is kept.
    List {
        /// What their names begin with: namespace:tenant:kind, or namespace:tenant:kind:ID-PREFIX
        #[arg(value_name = "PREFIX", value_parser = parse_prefix)]
        prefix: Prefix,
        /// Stop when so many were found; the last page is shown as a whole
        #[arg(long, value_name = "NUMBER", default_value_t = LIMIT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
        limit: u32,
        /// Go on where a listing ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        /// Without those that nobody holds
        #[arg(long)]
        held: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who holds a lock, since when and for how long
    Inspect {
        /// Its name: namespace:tenant:kind:id
        #[arg(value_name = "KEY", value_parser = parse_key)]
        key: StateKey,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End all leases of a lock, whoever holds it
    ///
    /// Holders notice at their next extension, and go on until then: do it when they are dead or stuck.
    Release {
        /// Its name: namespace:tenant:kind:id
        #[arg(value_name = "KEY", value_parser = parse_key)]
        key: StateKey,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
        reason: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What the names of the locks of a listing begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    scope: Scope,
    id_prefix: String,
}

impl Prefix {
    /// A page of this listing.
    #[must_use]
    pub fn scan(&self, limit: u32, cursor: Option<Cursor>) -> Scan {
        Scan::new(self.scope.clone()).id_prefix(self.id_prefix.as_str()).page_size(limit).from_cursor(cursor)
    }
}

/// Reads the beginning of a name.
///
/// # Errors
/// A sentence for people.
pub fn parse_prefix(text: &str) -> Result<Prefix, String> {
    let (scope, id_prefix) = Scope::from_text_with_id_prefix(text).ok_or(PREFIX_FORM)?;
    Ok(Prefix { scope, id_prefix })
}

/// Reads a name.
///
/// # Errors
/// A sentence for people.
pub fn parse_key(text: &str) -> Result<StateKey, String> {
    StateKey::from_text(text).ok_or_else(|| KEY_FORM.to_owned())
}

/// Checks a reason, and takes away the white space around it.
///
/// # Errors
/// A sentence for people.
pub fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(format!("allowed are 1 to {REASON_BYTES_MAX} bytes without control characters"));
    }
    Ok(reason.to_owned())
}

/// Does what the command line says, and writes what it found to `out`.
///
/// # Errors
/// [`StartError`] for the first thing that does not work.
pub async fn locks(config: &Config, command: &LocksCommand, out: &mut impl Write) -> Result<(), StartError> {
    let state = open(config, command).await?;
    let done = match command {
        LocksCommand::List { prefix, limit, cursor, held, json } => {
            list(&state, prefix, *limit, cursor.as_deref(), *held, *json).await
        }
        LocksCommand::Inspect { key, json } => inspect(&state, key, *json).await,
        LocksCommand::Release { key, reason, json } => release(&state, key, reason, *json).await,
    };
    // Whatever was found is worth more than a clean goodbye.
    let _ = state.close().await;
    out.write_all(done?.as_bytes()).map_err(|error| StartError::new("the answer cannot be written", error))
}

/// Ends all leases of a lock; `None` when the backend has no record of it.
///
/// # Errors
/// As [`State::inspect_lock`] and [`State::force_release`].
pub async fn release_by_force(state: &State, key: &StateKey, reason: &str) -> acteon_state::Result<Option<Released>> {
    let Some(before) = state.inspect_lock(key).await? else {
        return Ok(None);
    };
    let released = state.force_release(key, reason).await?;
    Ok(Some(Released::new(LockView::new(&before), reason, released)))
}

/// Page after page, until enough was found: a backend that keeps no order may answer many empty ones before the first lock.
async fn list(
    state: &State,
    prefix: &Prefix,
    limit: u32,
    cursor: Option<&str>,
    held: bool,
    json: bool,
) -> Result<String, StartError> {
    let refused = |error: Error| failed("the locks cannot be listed", &error);
    let cursor = cursor.map(Cursor::new).transpose().map_err(refused)?;
    let mut scan = prefix.scan(limit, cursor);
    let mut found = LockPage { locks: Vec::new(), next_cursor: None };
    loop {
        let page = state.locks_page(&scan).await.map_err(refused)?;
        scan = scan.from_cursor(page.next.clone());
        let page = LockPage::new(page, held);
        found.locks.extend(page.locks);
        found.next_cursor = page.next_cursor;
        if found.next_cursor.is_none() || found.locks.len() >= limit as usize {
            break;
        }
    }
    if json {
        return to_json(&found);
    }
    let more = found.next_cursor.as_ref().map(|cursor| format!("There may be more: --cursor '{cursor}'\n"));
    let table = if found.locks.is_empty() { "No locks here.\n".to_owned() } else { found.table() };
    Ok(table + &more.unwrap_or_default())
}

async fn inspect(state: &State, key: &StateKey, json: bool) -> Result<String, StartError> {
    let found = state.inspect_lock(key).await.map_err(|error| failed("the lock cannot be inspected", &error))?;
    let lock = LockView::new(&found.ok_or_else(|| unknown(key))?);
    if json { to_json(&lock) } else { Ok(lock.describe()) }
}

async fn release(state: &State, key: &StateKey, reason: &str, json: bool) -> Result<String, StartError> {
    let done = release_by_force(state, key, reason).await;
    let done = done.map_err(|error| failed("the lock cannot be released", &error))?;
    let released = done.ok_or_else(|| unknown(key))?;
    if json { to_json(&released) } else { Ok(released.describe()) }
}

/// Opens the store of the locks, and waits for it: a tool has nothing to do without.
async fn open(config: &Config, command: &LocksCommand) -> Result<State, StartError> {
    let section: &StateConfig = config.state.lock.as_deref().unwrap_or(&config.state);
    if section.backend == "memory" {
        return Err(StartError::because("the locks are in the server's process", in_memory(command))
            .with_hint("set server.admin_token, and send it as `authorization: Bearer ..`"));
    }
    let section = StateConfig {
        optional: false,
        connect: Some(Connect::Eager),
        // That is about what the server needs.
        require: Vec::new(),
        ..section.clone()
    };
    let options = OpenOptions { inspect: true, ..OpenOptions::default() };
    let opened = acteon_state::open_with(&section, options).await;
    opened.map_err(|error| StartError::because("the store of the locks cannot be opened", error.message()))
}

/// What to ask a server for whose locks nobody else can see.
fn in_memory(command: &LocksCommand) -> String {
    let request = match command {
        LocksCommand::List { .. } => "GET /v1/locks?prefix=..",
        LocksCommand::Inspect { .. } => "GET /v1/locks/KEY",
        LocksCommand::Release { .. } => "DELETE /v1/locks/KEY?reason=..",
    };
    format!("with backend = \"memory\" only the server itself can see them: ask it over HTTP, {request}")
}

fn unknown(key: &StateKey) -> StartError {
    StartError::because(format!("there is no lock {key}"), "it was never held, or so long ago that its record is gone")
        .with_hint("`acteon-server locks list namespace:tenant:kind` shows those that there are")
}

fn failed(what: &str, error: &Error) -> StartError {
    let failed = StartError::because(what, error.message());
    match error.kind() {
        ErrorKind::Unsupported => failed.with_hint("`acteon-server check` shows what the backend has and lacks"),
        _ if error.effect() == acteon_state::Effect::Unknown => {
            failed.with_hint("it may have been done all the same: inspect the lock")
        }
        _ => failed,
    }
}

fn to_json(shown: &impl Serialize) -> Result<String, StartError> {
    let text = serde_json::to_string_pretty(shown);
    text.map(|text| text + "\n").map_err(|error| StartError::new("the answer cannot be written as JSON", error))
}

#[cfg(test)]
mod tests {
    use super::{parse_key, parse_prefix, parse_reason};

    #[test]
    fn names_are_read_as_they_are_shown() {
        assert_eq!(parse_key("shop:acme:till:b;0c").expect("valid").id(), "b:c");
        for text in ["", "shop:acme:till", "shop:acme:till:b:c", "shop:acme:till:*"] {
            assert!(parse_key(text).expect_err(text).contains("namespace:tenant:kind:id"));
        }
        assert_eq!(parse_prefix("shop:acme:till").expect("valid"), parse_prefix("shop:acme:till:").expect("valid"));
        for text in ["", "shop", "shop:acme:", "shop:acme:till:b:c"] {
            assert!(parse_prefix(text).expect_err(text).contains("such as demo:acme:action"));
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(parse_reason(" node 3 is gone ").expect("valid"), "node 3 is gone");
        assert!(parse_reason(&"x".repeat(256)).is_ok());
        for text in ["", "  ", "two\nlines", &"x".repeat(257)] {
            assert!(parse_reason(text).is_err(), "{text:?}");
        }
    }
}
