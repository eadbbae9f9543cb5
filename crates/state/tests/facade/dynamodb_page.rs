//! `docs/backends/dynamodb.md` against the driver: its table of options is made from the config type, its policies allow what the
//! driver sends and nothing else, and every sample works.

use std::collections::BTreeSet;

use acteon_state::dynamodb::DynamoConfig;

use crate::options_table::{Page, quoted, sources, variant};
use crate::reference::known_to_driver;
use crate::{document, fault, state};

fn page() -> Page {
    Page {
        file: "dynamodb.md",
        source: include_str!("../../../state-dynamodb/src/config.rs"),
        above: &["region", "table_name", "url", "prefix"],
        default: format!("{:#?}", DynamoConfig::default()),
    }
}

#[test]
fn the_table_of_options_is_that_of_the_config_type() {
    page().check_options();
}

#[tokio::test]
async fn the_section_has_every_option_of_the_driver() {
    let of_the_driver: BTreeSet<String> = page().options().into_iter().map(|(name, _)| name).collect();
    assert_eq!(known_to_driver("dynamodb").await, of_the_driver);
}

#[tokio::test]
async fn documented_defaults_are_accepted_as_they_are_written() {
    let lines = page().defaults();
    // Nobody listens there, which is no obstacle for an optional backend.
    let above = "backend = 'dynamodb'\nurl = 'http://127.0.0.1:1'\noptional = true";
    let state = acteon_state::open(&state(&format!("{above}\n[state.dynamodb]\n{lines}"))).await.unwrap();
    state.close().await.unwrap();
}

/// The actions that a policy of the page allows.
fn policies() -> Vec<BTreeSet<String>> {
    let actions = |block: &String| {
        let policy: serde_json::Value = serde_json::from_str(block).unwrap();
        let statements = policy["Statement"].as_array().unwrap().iter();
        let listed = statements.flat_map(|statement| statement["Action"].as_array().unwrap());
        listed.map(|action| action.as_str().unwrap().strip_prefix("dynamodb:").unwrap().to_owned()).collect()
    };
    page().blocks("json").iter().map(actions).collect()
}

/// The actions that the driver needs, from the requests that its sources make: each by its method, or by its part of a
/// transaction.
fn needed() -> BTreeSet<String> {
    let code: String = sources("state-dynamodb").split_whitespace().collect();
    let methods = code.split("client.").skip(1).filter_map(|rest| rest.split_once("()")).map(|(method, _)| method);
    let requests =
        methods.filter(|method| *method != "clone" && method.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
    let pascal = |method: &str| method.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<String>();
    let mut needed: BTreeSet<String> = requests.map(pascal).collect();
    assert!(needed.remove("TransactWriteItems"), "its parts need rights, not the whole: {needed:?}");
    assert!(code.contains("ConditionCheck::builder()"));
    needed.insert("ConditionCheckItem".to_owned());
    needed
}

#[test]
fn the_policies_allow_what_the_driver_sends_and_nothing_else() {
    let [working, migrating] = policies().try_into().expect("two policies");
    assert_eq!(working.union(&migrating).cloned().collect::<BTreeSet<_>>(), needed());
    for action in ["CreateTable", "UpdateTable", "UpdateTimeToLive"] {
        assert!(migrating.contains(action) && !working.contains(action), "{action}");
    }
}

#[test]
fn the_page_quotes_errors_as_the_driver_words_them() {
    let sources = sources("state-dynamodb");
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
fn the_page_names_the_kind_of_each_code() {
    let table: String = include_str!("../../../state-dynamodb/src/error.rs").split_whitespace().collect();
    let mut count = 0;
    for row in page().rows_of("| code | kind | it means | do |") {
        let kind = variant(&row[2]);
        for code in quoted(&row[1]) {
            assert!(table.contains(&format!("(\"{code}\",ErrorKind::{kind},")), "{code} is not {kind}");
            count += 1;
        }
    }
    assert!(count > 15, "only {count} codes were found");
}

#[test]
fn every_sample_is_accepted() {
    let samples = page().blocks("toml");
    assert!(samples.len() >= 3, "only {} samples were found", samples.len());
    for sample in samples {
        assert_eq!(fault(&document(&sample)).map(|error| error.to_string()), None, "{sample}");
    }
}
