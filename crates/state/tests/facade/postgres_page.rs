//! `docs/backends/postgres.md` against the driver: its table of options is made from the config type, and every sample works.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use acteon_state::config::{ByteSize, HumanDuration};
use acteon_state::postgres::PostgresConfig;

use crate::reference::known_to_driver;
use crate::{document, fault, state};

const BEGIN: &str = "<!-- generated: options -->\n";
const END: &str = "<!-- end -->";
/// Set to rewrite the table instead of comparing it.
const WRITE: &str = "ACTEON_WRITE_DOCS";
/// The type, whose comments explain the options.
const SOURCE: &str = include_str!("../../../state-postgres/src/config.rs");
/// Options that stand directly below `[state]`.
const ABOVE: [&str; 2] = ["url", "prefix"];

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/backends/postgres.md")
}

/// The options of the section with their defaults as one writes them, in the order of the type.
fn options() -> Vec<(String, Option<String>)> {
    let shown = format!("{:#?}", PostgresConfig::default());
    let fields = shown.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(',')?.split_once(": "));
    fields
        .filter(|(name, _)| !ABOVE.contains(name))
        .map(|(name, value)| (name.to_owned(), default(name, value)))
        .collect()
}

/// From the form of `Debug` to that of a configuration file.
fn default(name: &str, value: &str) -> Option<String> {
    if let Ok(time) = value.parse::<HumanDuration>() {
        return Some(format!("\"{time}\""));
    }
    match value {
        "None" => None,
        bytes if name.contains("_bytes_") => Some(format!("\"{}\"", ByteSize(bytes.parse().unwrap()))),
        variant if variant.starts_with(char::is_uppercase) => Some(format!("\"{}\"", variant.to_lowercase())),
        other => Some(other.to_owned()),
    }
}

/// What the comment above the field says.
fn meaning(name: &str) -> String {
    let (before, _) = SOURCE.split_once(&format!("\n    pub {name}: ")).expect(name);
    let comment: Vec<&str> = before.lines().rev().map_while(|line| line.trim().strip_prefix("///")).collect();
    let words = comment.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn table() -> String {
    let mut table = "| option | default | meaning |\n|---|---|---|\n".to_owned();
    for (name, default) in options() {
        let default = default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
        table.push_str(&format!("| `{name}` | {default} | {} |\n", meaning(&name)));
    }
    table
}

#[test]
fn the_table_of_options_is_that_of_the_config_type() {
    let path = page();
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the page marks where the table begins");
    let (current, after) = rest.split_once(END).expect("the page marks where the table ends");
    let table = table();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(current, table, "docs/backends/postgres.md is out of date: run this test with {WRITE}=1");
}

#[tokio::test]
async fn the_section_has_every_option_of_the_driver() {
    let of_the_driver: BTreeSet<String> = options().into_iter().map(|(name, _)| name).collect();
    assert_eq!(known_to_driver("postgres").await, of_the_driver);
}

#[tokio::test]
async fn documented_defaults_are_accepted_as_they_are_written() {
    let lines: String =
        options().iter().filter_map(|(name, default)| Some(format!("{name} = {}\n", default.as_ref()?))).collect();
    let config = state(&format!("backend = 'postgres'\noptional = true\n[state.postgres]\n{lines}"));
    let state = acteon_state::open(&config).await.unwrap();
    state.close().await.unwrap();
}

/// The rows of the table that begins with this head, cell by cell.
fn rows_of(head: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(page()).unwrap();
    let (_, below) = text.split_once(head).expect(head);
    let rows = below.lines().skip(2).take_while(|line| line.starts_with("| "));
    rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// All sources of the driver, and what the facade says before it.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("../state-postgres/src")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file()).chain([root.join("src/drivers/mod.rs")]);
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn the_page_quotes_errors_as_the_driver_words_them() {
    let sources = sources();
    let mut count = 0;
    for row in rows_of("| the error says | it means | do |") {
        for text in quoted(&row[1]) {
            for part in text.split('…').map(str::trim) {
                assert!(sources.contains(part), "nothing says {part:?}");
            }
            count += 1;
        }
    }
    assert!(count > 10, "only {count} texts were found");
}

#[test]
fn the_page_names_the_kind_of_each_sqlstate() {
    let table: String = include_str!("../../../state-postgres/src/error.rs").split_whitespace().collect();
    let mut count = 0;
    for row in rows_of("| SQLSTATE | kind | it means | do |") {
        let kind: String = quoted(&row[2]).flat_map(|kind| kind.split('_')).map(capitalised).collect();
        for code in quoted(&row[1]) {
            let listed = format!("(\"{}\",ErrorKind::{kind}", code.trim_end_matches('…'));
            assert!(table.contains(&listed), "{code} is not {kind}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} codes were found");
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

#[test]
fn every_sample_is_accepted() {
    let text = fs::read_to_string(page()).unwrap();
    let samples: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest)).collect();
    assert!(samples.len() >= 3, "only {} samples were found", samples.len());
    for sample in samples {
        assert_eq!(fault(&document(sample)).map(|error| error.to_string()), None, "{sample}");
    }
}
