//! The engine for Redis clients: published beside the server, and alone.

use std::time::Duration;

use acteon_server::engine::EngineFsync;
use acteon_server::{Config, Server, Shutdown};
use acteon_state::{Increment, IncrementOutcome, StateKey, Ttl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, rules_directory};

/// A server that publishes its engine, and the address of that.
pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> (Server, String, tempfile::TempDir) {
    let rules = rules_directory("rules: []");
    let mut config = Config::default();
    config.server.port = 0;
    config.rules.directory = rules.path().to_owned();
    config.engine.listen = vec!["127.0.0.1:0".to_owned()];
    change(&mut config);
    let server = Server::start(config).await.expect("starts");
    let address = server.engine().expect("published").places()[0].clone();
    (server, address, rules)
}

pub(crate) async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).await.expect("listening")
}

/// Sends a line and reads as many bytes as the expected reply has.
pub(crate) async fn call(stream: &mut TcpStream, request: &str, reply: &str) {
    stream.write_all(format!("{request}\r\n").as_bytes()).await.expect("writable");
    hear(stream, reply).await;
}

/// Reads as many bytes as the expected ones.
pub(crate) async fn hear(stream: &mut TcpStream, reply: &str) {
    let mut seen = vec![0; reply.len()];
    timeout(PATIENCE, stream.read_exact(&mut seen)).await.expect("no answer").expect("readable");
    assert_eq!(String::from_utf8_lossy(&seen), reply);
}

#[tokio::test]
async fn clients_and_the_store_share_their_keys_and_their_clock() {
    let (server, address, _rules) = start(|_| ()).await;
    let mut client = connect(&address).await;
    let state = server.app().state();
    let key = StateKey::new("shop", "acme", "visits", "1").expect("valid");
    state.increment(&key, Increment::by(41)).await.expect("stored");
    // A counter is a plain number under its key.
    call(&mut client, "INCR acteon:shop:acme:visits:1", ":42\r\n").await;
    let IncrementOutcome::Applied(counter) = state.increment(&key, Increment::by(1)).await.expect("stored") else {
        panic!("there is no bound");
    };
    assert_eq!(counter.value, 43);
    let gone = StateKey::new("shop", "acme", "cart", "1").expect("valid");
    state.put_json(&gone, &"apples", Ttl::After(Duration::from_secs(100))).await.expect("stored");
    call(&mut client, "TTL acteon:shop:acme:cart:1", ":100\r\n").await;
}

#[tokio::test]
async fn the_engine_is_counted_in_the_metrics_and_ends_with_the_server() {
    let (server, address, _rules) = start(|config| config.server.drain_delay.0 = Duration::ZERO).await;
    let mut client = connect(&address).await;
    call(&mut client, "SET a 1", "+OK\r\n").await;
    let url = format!("http://{}/metrics", server.address());
    let shutdown = Shutdown::default();
    let running = tokio::spawn(server.run(shutdown.clone()));
    let text = crate::support::client().get(url).send().await.expect("answered").text().await.expect("text");
    for line in ["acteon_engine_connections 1", "acteon_engine_connections_received_total 1", "acteon_engine_keys 1"] {
        assert!(text.lines().any(|seen| seen == line), "{line} is not in:\n{text}");
    }
    shutdown.begin();
    timeout(PATIENCE, running).await.expect("ends").expect("no panic").expect("in order");
    assert_eq!(client.read(&mut [0]).await.expect("closed in order"), 0);
}

#[tokio::test]
async fn the_directory_is_seen_in_the_metrics() {
    let folder = tempfile::tempdir().expect("a directory");
    let (server, address, _rules) = start(|config| {
        config.engine.dir = Some(folder.path().join("data"));
        config.engine.fsync = EngineFsync::Always;
    })
    .await;
    let mut client = connect(&address).await;
    call(&mut client, "SET a 1", "+OK\r\n").await;
    call(&mut client, "SAVE", "+OK\r\n").await;
    let url = format!("http://{}/metrics", server.address());
    let running = tokio::spawn(server.run(Shutdown::default()));
    let text = crate::support::client().get(url).send().await.expect("answered").text().await.expect("text");
    running.abort();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("acteon_engine_disk_{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).parse().expect("a number")
    };
    let fixed = [
        ("writable", 1.0),
        ("position", 1.0),
        ("written_position", 1.0),
        ("synced_position", 1.0),
        ("pending_bytes", 0.0),
        ("base_bytes", 0.0),
        ("dropped_at_start_bytes", 0.0),
        ("write_failures_total", 0.0),
        ("sync_failures_total", 0.0),
        ("rewrites_total", 0.0),
        ("rewrite_ok", 1.0),
        ("saves_total", 1.0),
        ("save_ok", 1.0),
        ("changes_since_save", 0.0),
    ];
    for (name, expected) in fixed {
        assert_eq!(value(name), expected, "{name}");
    }
    let rising =
        ["journal_bytes", "writes_total", "syncs_total", "sync_seconds_total", "last_sync_seconds", "sync_max_seconds"];
    for name in rising.into_iter().chain(["last_save_timestamp_seconds"]) {
        assert!(value(name) > 0.0, "{name}");
    }
    // Each of them is told in the documentation.
    let page = include_str!("../../../../docs/engine.md");
    for line in text.lines().filter_map(|line| line.strip_prefix("acteon_engine_disk_")) {
        let name = line.split(' ').next().expect("a name");
        assert!(page.contains(&format!("`acteon_engine_disk_{name}`")), "{name} is not in docs/engine.md");
    }
}

#[tokio::test]
async fn passwords_and_users_of_the_configuration_are_asked_for() {
    let (_server, address, _rules) = start(|config| {
        let toml = "password = \"one\"\nusers = [{ name = \"ada\", password = \"two\" }]\nlisten = \"127.0.0.1:0\"";
        config.engine = toml::from_str(toml).expect("valid");
    })
    .await;
    let mut client = connect(&address).await;
    call(&mut client, "GET a", "-NOAUTH Authentication required.\r\n").await;
    call(&mut client, "AUTH ada one", "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    call(&mut client, "AUTH ada two", "+OK\r\n").await;
    call(&mut connect(&address).await, "AUTH one", "+OK\r\n").await;
}
