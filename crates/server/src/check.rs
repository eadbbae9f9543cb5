//! `acteon-server check`: would it start, with what, and what would its locks be worth?
//!
//! Opens everything that a server opens except its port, asks the backend for a sign of life, and closes it again. Nothing is
//! written to it. The report goes to stdout, the reason of a failure to stderr.
//!
//! # What is not looked at
//! The data in the engine's directory: a running server may have it, and to read it takes as long as a start. The report says so, and what does it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use acteon_dispatch::rules::RuleSet;
use acteon_state::{Capabilities, LockSemantics, Migrate, SchemaVersions, StateStore, TransactScope};
use tokio::time::timeout;

use crate::app::App;
use crate::config::Config;
use crate::engine::EngineConfig;
use crate::start_error::StartError;

/// Longer than any layer takes to give up by itself.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Checks everything and writes the report to `out`.
///
/// # Errors
/// [`StartError`] with the first thing that does not work; what was found until then has been written.
pub async fn check(config: &Config, file: Option<&Path>, out: &mut impl Write) -> Result<(), StartError> {
    print(out, &describe_config(config, file)?)?;
    let directory = describe_directory(&config.engine)?;
    let app = App::inspect(config).await?;
    print(out, &describe_rules(config, &app.rules().current()))?;
    print(out, &describe_providers(&app))?;
    let answered_in = ping(&app).await?;
    let state = app.state();
    print(out, &describe_store("Backend", state.store().as_ref()))?;
    if state.has_own_lock_store() {
        print(out, &describe_store("Locks on", state.lock_store().as_ref()))?;
        print(out, &describe_data(&state.store().lock_semantics()))?;
    }
    print(out, &describe_locks(&state.lock_semantics()))?;
    print(out, &describe_schemas(config).await?)?;
    print(out, &describe_engine(&config.engine))?;
    print(out, &directory)?;
    if let Err(error) = state.close().await {
        print(out, &format!("The store did not close cleanly: {error}\n"))?;
    }
    print(out, &conclude(&config.engine, answered_in))
}

fn conclude(engine: &EngineConfig, answered_in: Duration) -> String {
    let answered = format!("the backend answered in {:.2} ms.\n", answered_in.as_secs_f64() * 1e3);
    match &engine.dir {
        None => format!("Everything is in order; {answered}"),
        Some(dir) => {
            format!("Everything is in order, except that what {} holds was not looked at; {answered}", dir.display())
        }
    }
}

async fn ping(app: &App) -> Result<Duration, StartError> {
    let started = Instant::now();
    let failed = |reason: &str| {
        let failed = StartError::because("the backend does not answer", reason);
        if app.optional().data && app.optional().locks {
            return failed.with_hint("the backend is optional: the server would start, and be degraded");
        }
        failed
    };
    match timeout(PING_TIMEOUT, app.state().ping()).await {
        Ok(Ok(())) => Ok(started.elapsed()),
        Ok(Err(error)) => Err(failed(error.message())),
        Err(_) => Err(failed(&format!("no answer within {} s", PING_TIMEOUT.as_secs()))),
    }
}

fn describe_config(config: &Config, file: Option<&Path>) -> Result<String, StartError> {
    let toml =
        toml::to_string_pretty(config).map_err(|error| StartError::new("the configuration cannot be shown", error))?;
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let indented: String = toml.lines().map(indent).collect();
    let file = file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    Ok(format!("The configuration in force ({file}, environment, command line, defaults):\n\n{indented}\n"))
}

fn describe_rules(config: &Config, set: &RuleSet) -> String {
    let mut text = format!("Rules in {} ({}):\n", config.rules.directory.display(), set.rules().len());
    for rule in set.summaries() {
        let off = if rule.enabled { "" } else { " (disabled)" };
        text.push_str(&format!("  {:>6}  {:<12} {}{off}\n", rule.priority, rule.action, rule.name));
    }
    text + "\n"
}

fn describe_providers(app: &App) -> String {
    let listed: Vec<String> = app.providers().describe().map(|(name, kind, _)| format!("{name} ({kind})")).collect();
    format!("Providers: {}\n\n", listed.join(", "))
}

/// The schemas that the backends have, and what a start would do about them.
async fn describe_schemas(config: &Config) -> Result<String, StartError> {
    let checked = acteon_state::migrate(&config.state, Migrate::Check).await;
    let reports = checked.map_err(|error| StartError::because("the schema cannot be read", error.message()))?;
    let lines = reports.iter().filter_map(|report| {
        let versions = report.schema?;
        let SchemaVersions { from, to } = versions;
        let rest = match (from, from == to) {
            (_, true) => ", which is up to date".to_owned(),
            (0, false) => format!(": a start creates it in version {to}"),
            (_, false) => format!(": a start brings it to version {to}"),
        };
        Some(format!("Schema of {} on {}: version {from}{rest}\n\n", report.section, report.backend))
    });
    Ok(lines.collect())
}

/// Who can reach the engine from outside, if anybody can.
fn describe_engine(engine: &EngineConfig) -> String {
    if !engine.is_published() {
        return String::new();
    }
    let who = match (engine.password.is_some(), engine.protected_mode) {
        (true, _) => "with a password",
        (false, true) => "from this machine only, since there is no password",
        (false, false) => "FROM EVERYWHERE, WITHOUT A PASSWORD",
    };
    format!("Engine for Redis clients: {}\n  lets clients in {who}\n\n", engine.places().join(", "))
}

/// Where the engine keeps its data, and whether that can be a directory.
fn describe_directory(engine: &EngineConfig) -> Result<String, StartError> {
    let Some(dir) = &engine.dir else { return Ok(String::new()) };
    let shown = dir.display();
    let unusable =
        |reason: &str| StartError::from(engine.directory_error(&format!("{shown} cannot be used: {reason}")));
    let is_there = match fs::metadata(dir) {
        Ok(found) if found.is_dir() => true,
        Ok(_) => return Err(unusable("not a directory")),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(unusable(&error.to_string())),
    };
    let contents = match is_there {
        true => format!("was not looked at: `acteon-server engine verify {shown}` reads it, while no process uses it"),
        false => "is not there: a start creates it".to_owned(),
    };
    Ok(format!("Directory of the engine: {shown}\n  {contents}\n\n"))
}

fn describe_store(title: &str, store: &dyn StateStore) -> String {
    let Capabilities { value_bytes_max, transact, .. } = store.capabilities();
    let capabilities = store.capabilities();
    let (has, lacks): (Vec<_>, Vec<_>) = capabilities.list().partition(|(_, has)| *has);
    let names = |list: Vec<(&'static str, bool)>| match list.is_empty() {
        true => "nothing".to_owned(),
        false => list.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
    };
    let transactions = transact.map_or_else(String::new, |limits| {
        let scope = match limits.scope {
            TransactScope::AnyKeys => "over any keys",
            TransactScope::OneKey => "on one key",
        };
        format!("  transactions:  {scope}, at most {} operations\n", limits.ops_max)
    });
    format!(
        "{title}: {}\n  has:           {}\n  lacks:         {}\n{transactions}  largest value: {value_bytes_max} bytes\n\n",
        store.backend(),
        names(has),
        names(lacks),
    )
}

/// How the data is kept; where locks are kept in the same place, the notes on them say it.
fn describe_data(setup: &LockSemantics) -> String {
    let notes: String = setup.notes.iter().map(|note| format!("  note: {note}\n")).collect();
    format!("Data: {}\n{notes}\n", setup.topology)
}

fn describe_locks(locks: &LockSemantics) -> String {
    let mut text = format!(
        "Locks: {}\n  clock:                 {}\n  tokens rise across:    {}\n  survives server crash: {}\n  survives \
         failover:     {}\n  waiting:               {}\n  fit for:               {}\n",
        locks.topology,
        locks.clock,
        locks.tokens_rise_across,
        locks.survives_server_crash,
        locks.survives_failover,
        locks.waiting,
        locks.fit_for,
    );
    for note in &locks.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text + "\n"
}

fn print(out: &mut impl Write, text: &str) -> Result<(), StartError> {
    out.write_all(text.as_bytes()).map_err(|error| StartError::new("the report cannot be written", error))
}
