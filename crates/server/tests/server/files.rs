//! The configuration files in the repository, the shipped rules and the documentation agree with the code.

use std::fs;
use std::path::{Path, PathBuf};

use acteon_dispatch::rules::{LoadOptions, load_directory};
use acteon_server::Config;
use acteon_server::app::App;
use acteon_server::config::{ServerConfig, Sources};
use acteon_server::http::error::CODES;
#[cfg(feature = "redis")]
use acteon_test_support::{Authority, Identity};
use serde_json::Value;

use crate::support::TestServer;

const DYNAMODB_TOML: &str = r#"[server]
host = "127.0.0.1"
port = 8080
[state]
backend = "dynamodb"
region = "us-east-1"
table_name = "acteon"
url = "http://localhost:8000"
[rules]
directory = "./rules"
"#;

const POSTGRES_TOML: &str = r#"[server]
host = "127.0.0.1"
port = 8080
[state]
backend = "postgres"
url = "postgres://acteon:acteon@localhost:5432/acteon"
prefix = "acteon_"
[rules]
directory = "./rules"
"#;

const REDIS_TOML: &str = r#"[server]
host = "127.0.0.1"
port = 8080
[state]
backend = "redis"
url = "redis://localhost:6379"
prefix = "acteon"
[rules]
directory = "./rules"
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(file: &Path) -> Config {
    let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
    Config::load(&sources).unwrap_or_else(|error| panic!("{error}"))
}

fn parse(toml: &str) -> Config {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("acteon.toml");
    fs::write(&file, toml).expect("writable");
    load(&file)
}

/// `acteon.toml` with every option in it, section by section.
fn every_option() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("acteon.toml")).expect("readable");
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        // An option has no space behind its `#`; prose has one.
        let line =
            line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']) && !rest.is_empty()).unwrap_or(line);
        if line.starts_with('[') {
            let name = line.split([' ', '#']).next().unwrap_or(line);
            sections.push((name.to_owned(), String::new()));
        }
        if let Some((_, section)) = sections.last_mut() {
            section.push_str(line);
            section.push('\n');
        }
    }
    sections
}

fn join<'a>(sections: impl IntoIterator<Item = &'a (String, String)>) -> String {
    sections.into_iter().map(|(_, text)| text.as_str()).collect()
}

/// The sections with this backend chosen, and without those of the others.
fn every_option_with(backend: &str) -> String {
    let others = ["memory", "redis", "postgres", "dynamodb"].into_iter().filter(|name| *name != backend);
    let mut left_out: Vec<String> = others.map(|name| format!("[state.{name}]")).collect();
    if backend != "memory" {
        // There is nothing to publish.
        left_out.push("[engine]".to_owned());
    }
    let sections = every_option();
    assert!(left_out.iter().all(|section| sections.iter().any(|(name, _)| name == section)), "{left_out:?}");
    join(sections.iter().filter(|(name, _)| !left_out.contains(name)))
        .replace("backend = \"memory\"", &format!("backend = \"{backend}\""))
}

/// Opens the store with every option of this backend, without waiting for a server.
async fn open_every_option_of(backend: &str) {
    // These stand in the place of others that are shown, or name files that would have to be there.
    let mut excluded =
        vec!["socket = ", "ca_file = ", "client_cert_file = ", "client_key_file = ", "profile = ", "role_arn = "];
    if backend == "redis" {
        // One server by its host: lists and Sentinels are for other topologies.
        excluded.extend(["hosts = ", "sentinel_", "cert_file = ", "key_file = "]);
    }
    let mut text = every_option_with(backend).replace("optional = false", "optional = true");
    if backend == "dynamodb" {
        // Without one it would be AWS itself.
        text = text.replace("\nbackend = \"dynamodb\"", "\nurl = \"http://127.0.0.1:1\"\nbackend = \"dynamodb\"");
    }
    let lines = text.lines().filter(|line| !excluded.iter().any(|option| line.starts_with(option)));
    let mut config = parse(&lines.collect::<Vec<_>>().join("\n"));
    config.rules.directory = root().join("rules");
    let folder = tempfile::tempdir().expect("temporary directory");
    config.engine.dir = config.engine.dir.map(|dir| folder.path().join(dir));
    App::open(&config).await.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn acteon_toml_is_the_default() {
    let (file, default) = (load(&root().join("acteon.toml")), Config::default());
    assert_eq!(toml::to_string(&file).expect("TOML"), toml::to_string(&default).expect("TOML"));
}

#[test]
fn every_option_in_acteon_toml_is_accepted_and_shows_its_default() {
    let config = parse(&every_option_with("memory"));
    let default = Config::default();
    // As many threads as processors have no number to show, and a token that everybody knows would be none.
    let server = ServerConfig { threads: None, admin_token: None, ..config.server.clone() };
    assert_eq!(toml::to_string(&server).expect("TOML"), toml::to_string(&default.server).expect("TOML"));
    assert_eq!(toml::to_string(&config.rules).expect("TOML"), toml::to_string(&default.rules).expect("TOML"));
    assert_eq!(toml::to_string(&config.dispatch).expect("TOML"), toml::to_string(&default.dispatch).expect("TOML"));
    assert_eq!(config.dispatch_options(), default.dispatch_options());
    assert_eq!(config.providers.len(), 2);
    let engine = |config: &Config| -> toml::Table {
        let text = toml::to_string(&config.engine).expect("TOML");
        toml::from_str(&text).expect("TOML")
    };
    // All that has a default. The addresses have none, so that nobody is let in unasked, and a snapshot is written unasked neither.
    let unset = ["listen", "tls_listen", "users", "save"];
    for (key, value) in engine(&default).iter().filter(|(key, _)| !unset.contains(&key.as_str())) {
        assert_eq!(engine(&config).get(key), Some(value), "engine.{key}");
    }
}

#[test]
fn acteon_toml_shows_every_option() {
    let sections = every_option();
    let default: toml::Table = toml::from_str(&toml::to_string(&Config::default()).expect("TOML")).expect("TOML");
    for (name, of) in [("[server]", "server"), ("[rules]", "rules"), ("[dispatch]", "dispatch")] {
        let shown = join(sections.iter().filter(|(section, _)| section == name));
        for (key, value) in default[of].as_table().expect("a table") {
            let written = if value.is_table() { format!("[{of}.{key}]") } else { format!("\n{key} = ") };
            assert!(shown.contains(&written) || sections.iter().any(|(section, _)| *section == written), "{of}.{key}");
        }
    }
    let engine = join(sections.iter().filter(|(section, _)| section == "[engine]"));
    let page = fs::read_to_string(root().join("docs/configuration.md")).expect("readable");
    // Without a default an option is not in the table above, but in what it says about one that does not exist.
    let text = "[engine]\nzzzzzzzzzz = 1";
    let document = acteon_state::config::Document::parse("a.toml", text).expect("TOML");
    let error = document.read::<Config>().expect_err("unknown").known_keys().expect("keys").to_vec();
    assert!(error.len() > 20);
    for key in error {
        assert!(engine.contains(&format!("\n{key} = ")), "engine.{key}");
        assert!(page.contains(&format!("\n| `engine.{key}` |")), "engine.{key}");
    }
    let worker = join(sections.iter().filter(|(section, _)| section == "[dispatch.worker]"));
    for key in default["dispatch"]["worker"].as_table().expect("a table").keys() {
        assert!(worker.contains(&format!("\n{key} = ")), "dispatch.worker.{key}");
    }
}

/// The section of a driver is read by the driver, so this opens it.
#[tokio::test]
async fn the_options_of_the_memory_backend_are_accepted() {
    open_every_option_of("memory").await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn the_options_of_the_redis_backend_are_accepted() {
    open_every_option_of("redis").await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn the_options_of_the_postgres_backend_are_accepted() {
    open_every_option_of("postgres").await;
}

#[cfg(feature = "dynamodb")]
#[tokio::test]
async fn the_options_of_the_dynamodb_backend_are_accepted() {
    open_every_option_of("dynamodb").await;
}

#[test]
fn acteon_toml_shows_every_option_of_redis() {
    assert_shows_every_option_of("redis", 40);
}

#[test]
fn acteon_toml_shows_every_option_of_postgres() {
    assert_shows_every_option_of("postgres", 20);
}

#[test]
fn acteon_toml_shows_every_option_of_dynamodb() {
    assert_shows_every_option_of("dynamodb", 15);
}

/// All that the backend's page lists, of which there are more than `count_min`.
fn assert_shows_every_option_of(backend: &str, count_min: usize) {
    let page = fs::read_to_string(root().join(format!("docs/backends/{backend}.md"))).expect("readable");
    let sections = every_option();
    let shown = join(sections.iter().filter(|(name, _)| *name == format!("[state.{backend}]")));
    let table = page.split("<!-- generated: options -->").nth(1).and_then(|rest| rest.split("<!-- end -->").next());
    let rows = table.expect("the table of options").lines();
    let mut count = 0;
    for (option, rest) in rows.filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")) {
        assert!(shown.contains(&format!("\n{option} = ")), "[state.{backend}] lacks {option}");
        // What has a default is shown with it.
        if let Some((default, _)) = rest.strip_prefix('`').and_then(|rest| rest.split_once("` | ")) {
            assert!(shown.contains(&format!("\n{option} = {default} ")), "{option}: the default is {default}");
        }
        count += 1;
    }
    assert!(count > count_min, "only {count} options were found");
}

#[test]
fn the_examples_of_the_databases_are_as_short_as_promised() {
    for (file, text) in [("redis.toml", REDIS_TOML), ("postgres.toml", POSTGRES_TOML), ("dynamodb.toml", DYNAMODB_TOML)]
    {
        assert_eq!(fs::read_to_string(root().join("examples").join(file)).expect("readable"), text);
    }
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn every_example_is_a_configuration_that_opens() {
    let certificates = Certificates::new();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("examples")).expect("listable") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let mut config = load(&path);
        let left_out = [("postgres", cfg!(feature = "postgres")), ("dynamodb", cfg!(feature = "dynamodb"))];
        if left_out.contains(&(config.state.backend.as_str(), false)) {
            continue;
        }
        // Without a server to connect to, everything but the connection is checked.
        if config.state.backend != "memory" {
            config.state.optional = true;
        }
        if let Some(lock) = &mut config.state.lock {
            lock.optional = true;
        }
        // What a server can do is known once it is connected.
        config.state.require.clear();
        for section in config.state.sections.values_mut() {
            certificates.stand_in(section);
        }
        config.rules.directory = root().join("rules");
        App::open(&config).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        seen += 1;
    }
    assert!(seen >= 9, "only {seen} examples were found");
}

/// Files that are there, for those that examples name.
#[cfg(feature = "redis")]
struct Certificates {
    authority: Authority,
    client: Identity,
}

#[cfg(feature = "redis")]
impl Certificates {
    fn new() -> Self {
        let authority = Authority::new("examples").expect("writable");
        let client = authority.identity("client", &[]).expect("writable");
        Self { authority, client }
    }

    fn stand_in(&self, section: &mut toml::Table) {
        for (key, file) in [
            ("ca_file", self.authority.ca_file()),
            ("cert_file", self.client.cert_file.clone()),
            ("key_file", self.client.key_file.clone()),
        ] {
            if let Some(value) = section.get_mut(key) {
                *value = file.display().to_string().into();
            }
        }
    }
}

#[test]
fn the_shipped_rules_are_valid() {
    let set = load_directory(&root().join("rules"), LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(set.rules().len() >= 5);
}

/// The requests of the README with the answers that it shows: `$ curl ..`, and the line below.
fn readme_calls() -> Vec<(Option<Value>, String, Value)> {
    let text = fs::read_to_string(root().join("README.md")).expect("readable");
    let block = text.split("```console").nth(1).and_then(|rest| rest.split("```").next()).expect("a console block");
    let lines: Vec<&str> = block.lines().filter(|line| !line.is_empty()).collect();
    let call = |pair: &[&str]| {
        let command = pair[0].strip_prefix("$ curl ").expect("a command");
        let body = command.split('\'').nth(1).map(|body| serde_json::from_str(body).expect("JSON"));
        let (_, path) = command.rsplit_once("127.0.0.1:8080").expect("the address");
        (body, path.to_owned(), serde_json::from_str(pair[1]).expect("JSON"))
    };
    lines.chunks(2).map(call).collect()
}

#[tokio::test]
async fn the_readme_shows_what_the_server_really_answers() {
    let server = TestServer::start_with("", |config| {
        *config = load(&root().join("acteon.toml"));
        config.server.port = 0;
        config.rules.directory = root().join("rules");
    })
    .await;
    let calls = readme_calls();
    assert_eq!(calls.len(), 3);
    for (body, path, mut shown) in calls {
        let mut answer = match body {
            Some(body) => server.post_json(&path, &body).await.1,
            None => server.get_json(&path).await.1,
        };
        for json in [&mut shown, &mut answer] {
            if let Some(latency) = json.pointer_mut("/state/latency_ms") {
                *latency = Value::Null;
            }
        }
        assert_eq!(answer, shown, "{path}");
    }
}

#[test]
fn the_documentation_lists_every_error_code() {
    let text = fs::read_to_string(root().join("docs/dispatch.md")).expect("readable");
    for (status, code, _) in CODES {
        assert!(text.contains(&format!("| {status} | `{code}` |")), "docs/dispatch.md lacks {status} {code}");
    }
}
