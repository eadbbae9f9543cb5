//! `docs/backends/postgres.md` against the driver: its table of options is made from the config type, and every sample works.

use std::collections::BTreeSet;

use acteon_state::postgres::PostgresConfig;

use crate::options_table::{Page, quoted, sources, variant};
use crate::reference::known_to_driver;
use crate::{document, fault, state};

fn page() -> Page {
    Page {
        file: "postgres.md",
        source: include_str!("../../../state-postgres/src/config.rs"),
        above: &["url", "prefix"],
        default: format!("{:#?}", PostgresConfig::default()),
    }
}

#[test]
fn the_table_of_options_is_that_of_the_config_type() {
    page().check_options();
}

#[tokio::test]
async fn the_section_has_every_option_of_the_driver() {
    let of_the_driver: BTreeSet<String> = page().options().into_iter().map(|(name, _)| name).collect();
    assert_eq!(known_to_driver("postgres").await, of_the_driver);
}

#[tokio::test]
async fn documented_defaults_are_accepted_as_they_are_written() {
    let lines = page().defaults();
    let config = state(&format!("backend = 'postgres'\noptional = true\n[state.postgres]\n{lines}"));
    let state = acteon_state::open(&config).await.unwrap();
    state.close().await.unwrap();
}

#[test]
fn the_page_quotes_errors_as_the_driver_words_them() {
    let sources = sources("state-postgres");
    let mut count = 0;
    for row in page().rows_of("| the error says | it means | do |") {
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
    for row in page().rows_of("| SQLSTATE | kind | it means | do |") {
        let kind = variant(&row[2]);
        for code in quoted(&row[1]) {
            let listed = format!("(\"{}\",ErrorKind::{kind}", code.trim_end_matches('…'));
            assert!(table.contains(&listed), "{code} is not {kind}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} codes were found");
}

#[test]
fn every_sample_is_accepted() {
    let samples = page().blocks("toml");
    assert!(samples.len() >= 3, "only {} samples were found", samples.len());
    for sample in samples {
        assert_eq!(fault(&document(&sample)).map(|error| error.to_string()), None, "{sample}");
    }
}
