//! `docs/configuration.md` against the types: every key is documented, and everything documented is accepted.

use std::collections::BTreeSet;

use acteon_state::StateConfig;

use crate::{document, fault};

const PAGE: &str = include_str!("../../../../docs/configuration.md");

/// One row of a table of settings.
struct Row<'a> {
    key: &'a str,
    default: &'a str,
    example: &'a str,
}

/// Rows that begin with a key of `[state]`: `| key | default | example | meaning |`.
fn rows() -> Vec<Row<'static>> {
    let cells = |line: &'static str| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>();
    let rows = PAGE.lines().filter(|line| line.starts_with("| `state.")).map(cells);
    rows.map(|cells| Row { key: cells[1], default: cells[2], example: cells[3] }).collect()
}

/// The documented keys directly below `table`.
fn documented(table: &str) -> BTreeSet<String> {
    let below = |row: &Row<'_>| Some(row.key.strip_prefix(table)?.strip_prefix('.')?.split('.').next()?.to_owned());
    rows().iter().filter_map(below).collect()
}

/// The keys of a table, from what it says about one that it does not have.
fn known(table: &str) -> BTreeSet<String> {
    let error = fault(&document(&format!("[{table}]\nzzzzzzzzzz = 1"))).expect(table);
    error.known_keys().expect(table).iter().map(ToString::to_string).collect()
}

/// As a sorted set of words.
fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let sections = set(["memory", "redis", "postgres", "dynamodb"]);
    assert_eq!(documented("state").difference(&sections).cloned().collect::<BTreeSet<_>>(), known("state"));
    let layers = known("state.layers");
    assert_eq!(documented("state.layers"), layers);
    for table in ["retry", "circuit_breaker", "concurrency", "fallback"] {
        assert!(layers.contains(table));
        let table = format!("state.layers.{table}");
        assert_eq!(documented(&table), known(&table));
    }
}

#[test]
fn every_documented_example_is_accepted() {
    for Row { key, example, .. } in rows() {
        let choice = if key == "state.backend" { "" } else { "state.backend = 'memory'\n" };
        let text = format!("{choice}{key} = {example}");
        assert_eq!(fault(&document(&text)).map(|error| error.to_string()), None, "{text}");
    }
}

#[test]
fn documented_defaults_of_layers_are_those_of_the_code() {
    let config = StateConfig::default();
    let layers = config.layers.layers(true, None);
    let retry = layers.retry.unwrap();
    let breaker = layers.breaker.unwrap();
    let limits = layers.concurrency.unwrap();
    let fallback = config.layers.fallback;
    let time = |time| format!("\"{}\"", acteon_state::config::HumanDuration(time));
    for (key, default) in [
        ("backend", format!("\"{}\"", config.backend)),
        ("optional", config.optional.to_string()),
        ("layers.timeout", time(layers.deadline.unwrap())),
        ("layers.retry.attempts", retry.attempts_max.to_string()),
        ("layers.retry.backoff", time(retry.backoff)),
        ("layers.retry.backoff_max", time(retry.backoff_max)),
        ("layers.retry.budget", retry.budget.to_string()),
        ("layers.circuit_breaker.failures", breaker.failures.to_string()),
        ("layers.circuit_breaker.open_for", time(breaker.open_for)),
        ("layers.concurrency.in_flight", limits.in_flight_max.to_string()),
        ("layers.concurrency.queue", limits.queue_max.to_string()),
        ("layers.tracing", layers.tracing.to_string()),
        ("layers.fallback.stale_age_max", time(fallback.stale_age_max.0)),
        ("layers.fallback.stale_entries_max", fallback.stale_entries_max.to_string()),
        ("layers.fallback.stale_bytes_max", format!("\"{}\"", fallback.stale_bytes_max)),
        ("layers.fallback.local_bytes_max", format!("\"{}\"", fallback.local_bytes_max)),
    ] {
        let rows = rows();
        let row = rows.iter().find(|row| row.key == format!("state.{key}")).expect(key);
        assert_eq!(row.default, default, "{key}");
    }
}

/// Blocks of TOML, with the number of the line that they begin in.
fn samples() -> impl Iterator<Item = (usize, String)> {
    let mut lines = PAGE.lines().enumerate();
    std::iter::from_fn(move || {
        let (at, _) = lines.by_ref().find(|(_, line)| *line == "```toml")?;
        let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        Some((at + 2, block.join("\n")))
    })
}

#[test]
fn every_sample_is_accepted() {
    let mut count = 0;
    for (line, text) in samples() {
        let error = fault(&document(&text)).map(|error| error.to_string());
        assert_eq!(error, None, "docs/configuration.md:{line}");
        count += 1;
    }
    assert!(count >= 5, "only {count} samples were found");
}

/// The keys of a driver's section, from what it says about one that it does not have.
#[cfg(any(feature = "memory", feature = "redis", feature = "postgres", feature = "dynamodb"))]
pub(crate) async fn known_to_driver(backend: &str) -> BTreeSet<String> {
    let config = crate::state(&format!("backend = '{backend}'\n[state.{backend}]\nzzzzzzzzzz = 1"));
    let error = acteon_state::open(&config).await.expect_err(backend);
    let (_, keys) = error.message().split_once("there are ").unwrap_or_else(|| panic!("{error}"));
    set(keys.split(", "))
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn every_key_of_memory_is_documented() {
    assert_eq!(documented("state.memory"), known_to_driver("memory").await);
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn documented_examples_of_memory_open() {
    let mut lines = String::from("backend = 'memory'\n[state.memory]\n");
    for row in rows() {
        if let Some(key) = row.key.strip_prefix("state.memory.") {
            lines += &format!("{key} = {}\n", row.example);
        }
    }
    acteon_state::open(&crate::state(&lines)).await.unwrap();
}

#[cfg(feature = "memory")]
#[test]
fn documented_defaults_of_memory_are_those_of_the_driver() {
    let default = acteon_state::memory::MemoryConfig::default();
    for (key, expected) in [
        ("value_bytes_max", acteon_state::config::ByteSize(default.value_bytes_max).to_string()),
        ("lock_retention", acteon_state::config::HumanDuration(default.lock_retention).to_string()),
    ] {
        let rows = rows();
        let row = rows.iter().find(|row| row.key == format!("state.memory.{key}")).expect(key);
        assert_eq!(row.default, format!("\"{expected}\""), "{key}");
    }
}
