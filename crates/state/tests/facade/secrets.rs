//! A password is nowhere to be seen: not in settings that are shown, not in any error about them.

use acteon_state::{DriverConfig, OpenOptions, Registry, StateConfig, open, open_with};

use crate::{document, fault, state};

const SECRET: &str = "hunter2";

fn shown(config: &StateConfig) -> String {
    format!("{config:?} {config:#?} {} {}", toml::to_string(config).unwrap(), serde_json::to_string(config).unwrap())
}

#[test]
fn settings_show_everything_but_secrets() {
    let config = state(
        "backend = 'redis'\nurl = 'redis://ada:hunter2@cache:6379/1'\n\
         [state.redis]\npassword = 'hunter2'\nsentinel_password = 'hunter2'\nother = 'redis://:hunter2@h'\n\
         [state.lock]\nbackend = 'redis'\nurl = 'redis://:hunter2@locks'\n[state.lock.redis]\ntoken = 'hunter2'",
    );
    let shown = shown(&config);
    assert!(!shown.contains(SECRET), "{shown}");
    for visible in ["redis://ada:***@cache:6379/1", "redis://:***@locks", "password = \"***\""] {
        assert!(shown.contains(visible), "{visible}: {shown}");
    }
}

#[test]
fn a_document_shows_keys_and_places_only() {
    let document = document("[state]\nurl = 'redis://:hunter2@h'\nnote = 'hunter2'");
    let shown = format!("{document:?}");
    assert!(!shown.contains(SECRET) && shown.contains("state.url") && shown.contains("app.toml:2"), "{shown}");
}

#[test]
fn errors_about_a_secret_do_not_quote_it() {
    for text in [
        "[[jobs]]\npassword = 4711",
        "[state]\nurl = 4711",
        "[state]\nurl = [4711]",
        "[state]\nurl = { hidden = 4711 }",
        "[state]\npasword = 4711",
        "[state.redis]\npassword = 4711",
    ] {
        let error = fault(&document(text)).expect(text);
        assert!(!format!("{error} {error:?}").contains("4711"), "{error:?}");
    }
}

#[tokio::test]
async fn no_error_of_opening_shows_a_secret() {
    for lines in [
        "url = 'redis://:hunter2@h'",
        "backend = 'redis'\nurl = 'http://:hunter2@h'",
        "backend = 'redis'\nurl = 'hunter2'",
        "backend = 'redis'\nurl = 'redis://:hunter2@h:x'",
        "backend = 'redis'\nurl = 'redis://hunter2@h'",
        "backend = 'redis'\nurl = 'redis://:hunter2@127.0.0.1:1'",
        "backend = 'redis'\nurl = 'redis://h'\n[state.redis]\nusername = 'ada'\npassword = ['hunter2']",
        "backend = 'postgres'\nurl = 'postgres://ada:hunter2@127.0.0.1:1/db'",
        "backend = 'postgres'\nurl = 'postgres://ada:hunter2@127.0.0.1:x/db'",
        "backend = 'postgres'\nurl = 'postgres://ada:hunter2/2@127.0.0.1/db'",
        "backend = 'postgres'\nurl = 'postgres://127.0.0.1:1?password=hunter2'",
        "backend = 'postgres'\nurl = 'postgres://127.0.0.1:1'\n[state.postgres]\nusername = 'ada'\npassword = ['hunter2']",
        "backend = 'postgres'\nurl = 'postgres://127.0.0.1:1'\n[state.postgres]\npasword = 'hunter2'",
    ] {
        let error = open(&state(lines)).await.expect_err(lines);
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
}

#[tokio::test]
async fn what_a_driver_is_given_does_not_show_either() {
    let driver = |driver: DriverConfig| async move {
        let shown = format!("{driver:?}");
        assert!(!shown.contains(SECRET), "{shown}");
        assert_eq!(driver.url.as_ref().map(|url| url.expose()), Some("mydb://:hunter2@h"));
        Err(driver.error("url", "seen").into())
    };
    let config = state("backend = 'mydb'\nurl = 'mydb://:hunter2@h'\n[state.mydb]\npassword = 'hunter2'");
    let options = OpenOptions { registry: Registry::new().with("mydb", driver), ..OpenOptions::default() };
    let error = open_with(&config, options).await.expect_err("the driver refuses");
    assert_eq!(error.message(), "app.toml:3: state.url: seen");
}
