//! `docs/backends/redis.md` and the options of Redis against the driver: the table of options is made from the config type,
//! every sample works, and what is wrong is named where it is written.

use std::collections::BTreeSet;

use acteon_state::ErrorKind;
use acteon_state::redis::RedisConfig;

use crate::options_table::{Page, quoted, sources};
use crate::reference::known_to_driver;
use crate::{document, fault, state};

fn page() -> Page {
    Page {
        file: "redis.md",
        source: include_str!("../../../state-redis/src/config.rs"),
        above: &["url", "prefix"],
        default: format!("{:#?}", RedisConfig::default()),
    }
}

#[test]
fn the_table_of_options_is_that_of_the_config_type() {
    page().check_options();
}

#[tokio::test]
async fn the_section_has_every_option_of_the_driver() {
    let of_the_driver: BTreeSet<String> = page().options().into_iter().map(|(name, _)| name).collect();
    assert_eq!(known_to_driver("redis").await, of_the_driver);
}

#[tokio::test]
async fn documented_defaults_are_accepted_as_they_are_written() {
    let lines = page().defaults();
    let config = state(&format!("backend = 'redis'\noptional = true\n[state.redis]\n{lines}"));
    let state = acteon_state::open(&config).await.unwrap();
    state.close().await.unwrap();
}

#[test]
fn every_sample_is_accepted() {
    let samples = page().blocks("toml");
    assert!(samples.len() >= 5, "only {} samples were found", samples.len());
    for sample in samples {
        assert_eq!(fault(&document(&sample)).map(|error| error.to_string()), None, "{sample}");
    }
}

#[tokio::test]
async fn every_documented_url_is_accepted() {
    let mut schemes = BTreeSet::new();
    for row in page().rows_of("| URL | leads to |") {
        let url = quoted(&row[1]).next().expect("a URL");
        let config = state(&format!("backend = 'redis'\noptional = true\nurl = '{url}'"));
        let opened = acteon_state::open(&config).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        opened.close().await.unwrap();
        schemes.extend(url.split_once("://").map(|(scheme, _)| scheme.to_owned()));
    }
    let expected = [
        "redis",
        "rediss",
        "valkey",
        "valkeys",
        "redis+sentinel",
        "rediss+sentinel",
        "redis+cluster",
        "rediss+cluster",
        "unix",
    ];
    assert_eq!(schemes, expected.map(str::to_owned).into());
}

#[test]
fn the_page_quotes_errors_as_the_driver_words_them() {
    let sources = sources("state-redis");
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

/// What is wrong, and how its error begins. Nothing is connected to: all of it is found before.
#[tokio::test]
async fn wrong_options_are_named_where_they_are_written() {
    let url = |url: &str, rest: &str| format!("url = '{url}'\n[state.redis]\n{rest}");
    for (lines, expected) in [
        (
            "[state.redis]\nsaftey = 'strict'".to_owned(),
            "app.toml:4: state.redis.saftey: unknown key `saftey`; did you mean `safety`?",
        ),
        (
            "[state.redis]\nsafety = 'paranoid'".to_owned(),
            "app.toml:4: state.redis.safety: unknown value `paranoid`; there are warn, strict",
        ),
        (
            "[state.redis]\ntopology = 'clutser'".to_owned(),
            "app.toml:4: state.redis.topology: unknown value `clutser`; did you mean `cluster`?",
        ),
        (
            "[state.redis]\nprotocol = 'resp4'".to_owned(),
            "app.toml:4: state.redis.protocol: unknown value `resp4`; did you mean `resp2`?",
        ),
        (
            "[state.redis]\nconnections = 65".to_owned(),
            "app.toml:4: state.redis.connections: connections 65 is out of range: allowed are 1 to 64",
        ),
        (
            "[state.redis]\nlock_replicas = 0".to_owned(),
            "app.toml:4: state.redis.lock_replicas: lock_replicas 0 is out of range: allowed are 1 to 32",
        ),
        (
            "[state.redis]\nread_timeout = '0s'".to_owned(),
            "app.toml:4: state.redis.read_timeout: read_timeout 0ns is out of range: allowed are 1ms to",
        ),
        (
            "[state.redis]\nport = 0".to_owned(),
            "app.toml:4: state.redis.port: port 0 is out of range: allowed are 1 to 65535",
        ),
        ("[state.redis]\nhost = ''".to_owned(), "app.toml:4: state.redis.host: host is empty"),
        (
            "[state.redis]\ntls = true\ntls_server_name = 'a b'".to_owned(),
            "app.toml:5: state.redis.tls_server_name: tls_server_name \"a b\" is no host name",
        ),
        ("[state.redis]\nread_timeout = 5".to_owned(), "app.toml:4: state.redis.read_timeout: "),
        (
            "[state.redis]\ncert_file = '/c'\ntls = true".to_owned(),
            "app.toml:4: state.redis.cert_file: cert_file is given without key_file",
        ),
        (
            "[state.redis]\nkey_file = '/k'\ntls = true".to_owned(),
            "app.toml:4: state.redis.key_file: key_file is given without cert_file",
        ),
        (
            "[state.redis]\nca_file = '/c'".to_owned(),
            "app.toml:4: state.redis.ca_file: ca_file has no meaning without TLS",
        ),
        (
            "[state.redis]\nca_file = '/nonexistent/ca.pem'\ntls = true".to_owned(),
            "app.toml:4: state.redis.ca_file: ca_file /nonexistent/ca.pem: it cannot be read",
        ),
        ("[state.redis]\nsentinel_master = 'm'".to_owned(), "hosts: the address of at least one Sentinel is needed"),
        (
            "[state.redis]\nhost = 'a'\nsocket = '/s'".to_owned(),
            "app.toml:4: state.redis.host: host and socket are both given",
        ),
        (
            url("redis://h:1/2", "host = 'other'"),
            "app.toml:5: state.redis.host: the url and the field say different things",
        ),
        (url("redis://h:1/2", "port = 3"), "app.toml:5: state.redis.port: the url and the field say different things"),
        (url("redis://h:1/2", "db = 3"), "app.toml:5: state.redis.db: the url and the field say different things"),
        (url("redis://h:1/2", "tls = true"), "app.toml:5: state.redis.tls: the url and the field say different things"),
        (url("redis://u:p@h", "username = 'v'"), "app.toml:5: state.redis.username: the url and the field say"),
        (url("redis://u:p@h", "password = 'q'"), "app.toml:5: state.redis.password: the url and the field say"),
        (
            url("redis+cluster://a,b", "topology = 'sentinel'"),
            "app.toml:5: state.redis.topology: the url and the field say",
        ),
        (url("redis+cluster://a,b", "hosts = ['a', 'c']"), "app.toml:5: state.redis.hosts: the url and the field say"),
        (url("redis+cluster://a,b", "db = 1"), "app.toml:5: state.redis.db: a Cluster has database 0 only"),
        (
            url("redis+sentinel://a?sentinel_master=m", "sentinel_master = 'n'"),
            "app.toml:5: state.redis.sentinel_master: the url and the field say",
        ),
        (
            url("redis+sentinel://a?sentinel_master=m&sentinel_password=p", "sentinel_password = 'q'"),
            "app.toml:5: state.redis.sentinel_password: the url",
        ),
        ("url = 'redis+sentinel://a'".to_owned(), "app.toml:3: state.url: "),
        ("url = 'redis://h?db=1'".to_owned(), "app.toml:3: state.url: of a query only sentinel_master"),
    ] {
        let config = state(&format!("backend = 'redis'\n{lines}"));
        // Even where the server need not be there.
        for config in [acteon_state::StateConfig { optional: true, ..config.clone() }, config] {
            let error = acteon_state::open(&config).await.expect_err(&lines);
            assert_eq!(error.kind(), ErrorKind::Config, "{lines}: {error}");
            assert!(error.message().contains(expected), "{lines}\nexpected: {expected}\ngot:      {}", error.message());
        }
    }
}
