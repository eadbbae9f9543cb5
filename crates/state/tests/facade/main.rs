//! The facade as an application sees it: files, variables and registries in; open states and precise errors out.

#![allow(clippy::unwrap_used, reason = "helpers outside of a #[test] too: a panic is how a test fails")]

#[cfg(feature = "dynamodb")]
mod dynamodb_page;
mod environment;
mod errors;
mod migrating;
mod open;
#[cfg(any(feature = "dynamodb", feature = "postgres", feature = "redis"))]
mod options_table;
#[cfg(feature = "postgres")]
mod postgres_page;
#[cfg(feature = "redis")]
mod redis_page;
mod reference;
mod secrets;

use acteon_state::config::{ConfigError, Document, StateConfig};

/// What an application's own configuration looks like.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    server: Server,
    state: StateConfig,
    jobs: Vec<Job>,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Server {
    host: String,
    port: u16,
    verbose: bool,
    load_max: f64,
    tags: Vec<String>,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Job {
    name: String,
    password: String,
}

fn document(text: &str) -> Document {
    Document::parse("app.toml", text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn settings(text: &str) -> Settings {
    document(text).read().unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The section `[state]` with these lines in it, beginning at line 2.
fn state(lines: &str) -> StateConfig {
    settings(&format!("[state]\n{lines}")).state
}

/// Reads the document as [`Settings`], checks it, and returns what is wrong.
fn fault(document: &Document) -> Option<ConfigError> {
    match document.read::<Settings>() {
        Ok(settings) => settings.state.check().err(),
        Err(error) => Some(error),
    }
}

fn with_env(text: &str, variables: &[(&str, &str)]) -> Result<Document, ConfigError> {
    let mut document = document(text);
    document.overlay(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))?;
    Ok(document)
}
