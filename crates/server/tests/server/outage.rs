//! A Redis that is killed, paused and started again under a running server: what actions get meanwhile by each policy, what
//! `/ready` says, and that everything mends itself.

use std::net::TcpListener as StdListener;
use std::time::{Duration, Instant};

use acteon_server::{Config, Server, Shutdown};
use acteon_state::StateConfig;
use acteon_test_support::{RedisOptions, RedisServer};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::support::{PATIENCE, Process, TestServer, action, client, read, rules_directory, with};

const RULES: &str = "
rules:
  - name: once
    action: { deduplicate: { key: [dedup_key], ttl: 10m } }
  - name: two
    condition: { field: tenant, eq: limited }
    action: { throttle: { key: [tenant], limit: 2, window: 10m, algorithm: fixed_window } }
";

/// A Redis that still has its data after a restart.
fn redis() -> RedisServer {
    let options = RedisOptions { append_only: true, ..RedisOptions::default() };
    RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Locks stay in the server, so that outages of Redis concern the rest.
fn settings(redis: &RedisServer, lines: &str) -> StateConfig {
    let url = redis.url();
    let text = format!("backend = 'redis'\nurl = '{url}'\nlock.backend = 'memory'\n{lines}");
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

async fn server(redis: &RedisServer, lines: &str) -> TestServer {
    TestServer::start_with(RULES, |config| config.state = settings(redis, lines)).await
}

/// Waits until `/ready` has this status and word, and returns what it says.
async fn until_ready(server: &TestServer, status: StatusCode, word: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (found, ready) = server.get_json("/ready").await;
        if (found, ready["status"].as_str()) == (status, Some(word)) {
            return ready;
        }
        assert!(Instant::now() < deadline, "not {word}: {ready}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn keyed(key: &str) -> Value {
    with(action(), "dedup_key", key)
}

/// The status of an outcome, or the code of an error.
async fn dispatch(server: &TestServer, action: &Value) -> String {
    let (_, answer) = server.post_json("/v1/dispatch", action).await;
    let word = answer["status"].as_str().or_else(|| answer["error"]["code"].as_str());
    word.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Dispatches until it gets this answer.
async fn until_dispatched(server: &TestServer, action: &Value, word: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = dispatch(server, action).await;
        if found == word {
            return;
        }
        assert!(Instant::now() < deadline, "{found} instead of {word}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn assert_metric(server: &TestServer, line: &str) {
    let text = server.get("/metrics").await.text().await.expect("a body");
    assert!(text.lines().any(|found| found.starts_with(line)), "no {line} in:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_refuses_until_redis_is_back_and_readiness_says_so() {
    let mut redis = redis();
    let server = server(&redis, "optional = true").await;
    until_ready(&server, StatusCode::OK, "ready").await;
    assert_eq!(dispatch(&server, &keyed("before")).await, "executed");

    redis.kill9().expect("killed");
    let ready = until_ready(&server, StatusCode::OK, "degraded").await;
    assert_eq!((&ready["state"]["up"], &ready["state"]["error"]["kind"]), (&json!(false), &json!("unavailable")));
    assert_eq!(ready["degradation"], json!({"dedup": "closed", "throttle": "closed"}));
    let (status, error) = server.post_json("/v1/dispatch", &keyed("during")).await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("state_unavailable")));
    assert_metric(&server, "acteon_state_degraded_total{backend=\"redis\",kind=\"default\",policy=\"closed\"}").await;

    redis.restart().expect("restarted");
    until_ready(&server, StatusCode::OK, "ready").await;
    until_dispatched(&server, &keyed("during"), "executed").await;
    assert_eq!(dispatch(&server, &keyed("before")).await, "deduplicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_executes_what_may_be_a_duplicate_or_too_many() {
    let mut redis = redis();
    let server = server(&redis, "optional = true\n[layers.degradation]\ndefault = 'open'").await;
    until_dispatched(&server, &keyed("before"), "deduplicated").await;
    redis.kill9().expect("killed");
    assert_eq!(until_ready(&server, StatusCode::OK, "degraded").await["degradation"]["dedup"], "open");
    for _ in 0..3 {
        assert_eq!(dispatch(&server, &with(keyed("before"), "tenant", "limited")).await, "executed");
    }
    assert_metric(&server, "acteon_dispatch_failed_open_total{stage=\"throttle\"} 3").await;
    redis.restart().expect("restarted");
    until_ready(&server, StatusCode::OK, "ready").await;
    until_dispatched(&server, &keyed("before"), "deduplicated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_answers_duplicates_with_the_outcome_that_this_server_knows() {
    let mut redis = redis();
    let degradation = "optional = true\n[layers.degradation]\ndedup = 'stale'\nthrottle = 'closed'";
    let (server, other) = (server(&redis, degradation).await, server(&redis, degradation).await);
    let first = with(keyed("known"), "id", "first");
    until_dispatched(&server, &first, "executed").await;
    until_dispatched(&other, &keyed("of the other"), "executed").await;

    redis.kill9().expect("killed");
    until_ready(&server, StatusCode::OK, "degraded").await;
    let (status, duplicate) = server.post_json("/v1/dispatch", &keyed("known")).await;
    assert_eq!((status, &duplicate["status"]), (StatusCode::OK, &json!("deduplicated")));
    assert_eq!(duplicate["original"]["action_id"], "first");
    for unknown in ["of the other", "new"] {
        assert_eq!(dispatch(&server, &keyed(unknown)).await, "state_unavailable");
    }
    assert_metric(&server, "acteon_state_degraded_total{backend=\"redis\",kind=\"dedup\",policy=\"stale\"} 1").await;

    redis.restart().expect("restarted");
    until_ready(&server, StatusCode::OK, "ready").await;
    until_dispatched(&server, &keyed("new"), "executed").await;
    assert_eq!(dispatch(&server, &keyed("of the other")).await, "deduplicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_counts_and_recognises_by_itself_and_forgets_it_when_redis_is_back() {
    let mut redis = redis();
    let server = server(&redis, "optional = true\n[layers.degradation]\ndefault = 'local'").await;
    until_ready(&server, StatusCode::OK, "ready").await;
    redis.kill9().expect("killed");
    until_ready(&server, StatusCode::OK, "degraded").await;
    assert_eq!(dispatch(&server, &keyed("during")).await, "executed");
    assert_eq!(dispatch(&server, &keyed("during")).await, "deduplicated");
    let mut answers = Vec::new();
    for key in ["1", "2", "3"] {
        answers.push(dispatch(&server, &with(keyed(key), "tenant", "limited")).await);
    }
    assert_eq!(answers, ["executed", "executed", "throttled"]);
    assert_metric(&server, "acteon_state_degraded_total{backend=\"redis\",kind=\"default\",policy=\"local\"}").await;

    redis.restart().expect("restarted");
    until_ready(&server, StatusCode::OK, "ready").await;
    // What was noted meanwhile is gone: the first one that Redis hears of is executed.
    until_dispatched(&server, &keyed("during"), "executed").await;
    assert_eq!(dispatch(&server, &keyed("during")).await, "deduplicated");
}

/// Its connections stay open, and only timeouts tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_an_outage_too() {
    let redis = redis();
    let lines = "optional = true\n[redis]\noperation_timeout = '300ms'\n[layers.degradation]\ndefault = 'local'";
    let server = server(&redis, lines).await;
    until_dispatched(&server, &keyed("before"), "executed").await;
    redis.pause().expect("paused");
    assert_eq!(dispatch(&server, &keyed("during")).await, "executed");
    assert_eq!(dispatch(&server, &keyed("during")).await, "deduplicated");
    until_ready(&server, StatusCode::OK, "degraded").await;
    redis.resume().expect("resumed");
    until_ready(&server, StatusCode::OK, "ready").await;
    until_dispatched(&server, &keyed("before"), "deduplicated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_redis_makes_the_server_not_ready_and_ready_again() {
    let mut redis = redis();
    let server = server(&redis, "").await;
    until_ready(&server, StatusCode::OK, "ready").await;
    redis.kill9().expect("killed");
    let ready = until_ready(&server, StatusCode::SERVICE_UNAVAILABLE, "not_ready").await;
    assert_eq!(ready["state"]["up"], false);
    assert_eq!(server.get("/health").await.status(), StatusCode::OK, "a restart would not mend it");
    redis.restart().expect("restarted");
    until_ready(&server, StatusCode::OK, "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_without_redis_becomes_ready_by_itself() {
    for (lines, status, word) in [
        ("connect = 'lazy'", StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        ("optional = true", StatusCode::OK, "degraded"),
        ("optional = true\nconnect = 'eager'", StatusCode::OK, "degraded"),
    ] {
        let mut redis = redis();
        redis.kill9().expect("killed");
        let server = server(&redis, lines).await;
        let ready = until_ready(&server, status, word).await;
        assert!(ready["state"]["error"]["message"].is_string(), "{lines}: {ready}");
        assert_eq!(dispatch(&server, &keyed("early")).await, "state_unavailable", "{lines}");
        redis.restart().expect("restarted");
        until_ready(&server, StatusCode::OK, "ready").await;
        until_dispatched(&server, &keyed("early"), "executed").await;
    }
}

/// How many lines of the log contain this.
fn count(log: &str, part: &str) -> usize {
    log.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn an_outage_under_load_does_not_fill_the_log() {
    let mut redis = redis();
    let toml = format!(
        "[server]\nport = 0\n[state]\nbackend = \"redis\"\nurl = \"{}\"\noptional = true\n[state.lock]\nbackend = \"memory\"\n\
         [state.layers.degradation]\nthrottle = \"open\"\n",
        redis.url()
    );
    let mut process = Process::start(&toml, &[]);
    let url = process.url();
    let rules = process.directory.as_ref().expect("of its own").path().join("rules/rules.yaml");
    std::fs::write(rules, RULES).expect("writable");
    process.signal(Signal::HUP);
    process.wait_for_log("rules reloaded");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client();
        let post = async |action: &Value| {
            let sent = client.post(format!("{url}/v1/dispatch")).json(action).send().await;
            read(sent.expect("answered")).await.0
        };
        while post(&keyed("before")).await != StatusCode::OK {
            sleep(Duration::from_millis(20)).await;
        }
        redis.kill9().expect("killed");
        let began = Instant::now();
        for n in 0..300 {
            assert_eq!(post(&keyed("during")).await, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(post(&with(action(), "tenant", "limited")).await, StatusCode::OK, "throttling is open");
            if n % 10 == 0 {
                client.get(format!("{url}/ready")).send().await.expect("answered");
            }
        }
        let (log, seconds) = (process.log(), began.elapsed().as_secs());
        let lines_max = 1 + usize::try_from(seconds / 5).expect("small") + 1;
        for part in [
            "calls are degraded",
            "circuit opened",
            "state call",
            "no outcome",
            "answered",
            "a probe failed",
            "fails open",
        ] {
            let found = count(&log, part);
            assert!((1..=lines_max).contains(&found), "{found} times {part:?} in {seconds} s:\n{log}");
        }
        assert!(count(&log, " WARN ") < 20 + 10 * lines_max, "{log}");

        redis.restart().expect("restarted");
        while post(&keyed("after")).await != StatusCode::OK {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let line = process.wait_for_log("the state backend answers again");
    assert!(line.contains("lasted_ms=") && line.contains("closed="), "{line}");
}

/// A listener that nobody should connect to any more, once the server is closed.
#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_without_end_ends_with_the_server() {
    let port = StdListener::bind("127.0.0.1:0").expect("free");
    let address = port.local_addr().expect("bound");
    port.set_nonblocking(true).expect("settable");
    let listener = TcpListener::from_std(port).expect("usable");
    let delay = Duration::from_millis(30);
    let lines = "[redis]\nreconnect_delay_max = '30ms'\nconnect_timeout = '200ms'";
    let text =
        format!("backend = 'redis'\nurl = 'redis://{address}'\noptional = true\nlock.backend = 'memory'\n{lines}");
    let rules = rules_directory("rules: []");
    let mut config = Config { state: toml::from_str(&text).expect("valid"), ..Config::default() };
    config.server.port = 0;
    config.server.drain_delay.0 = Duration::ZERO;
    config.rules.directory = rules.path().to_owned();
    let server = Server::start(config).await.expect("starts");
    let shutdown = Shutdown::default();
    let running = tokio::spawn(server.run(shutdown.clone()));
    for _ in 0..5 {
        // Refused each time, and tried again each time.
        timeout(PATIENCE, listener.accept()).await.expect("it connects again").expect("accepted");
    }
    shutdown.begin();
    timeout(PATIENCE, running).await.expect("stops").expect("no panic").expect("in order");
    // Those that were on their way.
    while timeout(Duration::from_millis(1), listener.accept()).await.is_ok() {}
    assert!(timeout(delay * 20, listener.accept()).await.is_err(), "it goes on after the end");
}
