//! The server on Redis of the test's own: what `check` tells of each topology, what strict safety refuses, and the connections in
//! `/metrics`.

use std::time::Instant;

use acteon_test_support::{Authority, RedisCluster, RedisOptions, RedisSentinels, RedisServer, SentinelOptions};
use rustix::process::Signal;

use crate::support::{Finished, PATIENCE, Process, client, run};

fn redis(options: RedisOptions) -> RedisServer {
    RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn toml(url: &str, more: &str) -> String {
    format!("[server]\nport = 0\n[state]\nbackend = \"redis\"\nurl = \"{url}\"\n{more}")
}

fn assert_done(finished: &Finished, parts: &[&str]) {
    let Finished { code, stderr, stdout } = finished;
    assert_eq!(*code, Some(0), "{stderr}{stdout}");
    for part in parts {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
}

fn assert_refused(finished: &Finished, parts: &[&str]) {
    let Finished { code, stderr, stdout } = finished;
    assert_eq!(*code, Some(1), "{stderr}{stdout}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
}

/// A server without any danger.
fn safe() -> RedisOptions {
    RedisOptions { append_only: true, ..RedisOptions::default() }
}

/// One that loses what it holds in every way.
fn dangerous() -> RedisOptions {
    let settings = ["maxmemory 100mb", "maxmemory-policy allkeys-lru"].map(str::to_owned).to_vec();
    RedisOptions { settings, ..RedisOptions::default() }
}

#[test]
fn check_shows_where_a_server_is_and_what_is_dangerous_about_it() {
    let server = redis(dangerous());
    let address = server.address();
    let finished = run(&toml(&server.url(), ""), &["check"]);
    assert_done(
        &finished,
        &[
            "Backend: redis",
            "Locks: redis standalone, no synced AOF",
            &format!("note: Configured: {address}."),
            &format!("note: Connected to {address} (7."),
            "note: Encryption: none.",
            "note: maxmemory-policy is allkeys-lru",
            "set appendonly yes",
        ],
    );
    let finished = run(&toml(&redis(safe()).url(), ""), &["check"]);
    assert_done(&finished, &["Locks: redis standalone, AOF `always`"]);
    for danger in ["maxmemory-policy", "appendonly", "appendfsync"] {
        assert!(!finished.stdout.contains(danger), "{}", finished.stdout);
    }
}

#[test]
fn check_shows_the_same_of_data_whose_locks_are_elsewhere() {
    let server = redis(dangerous());
    let finished = run(&toml(&server.url(), "[state.lock]\nbackend = \"memory\"\n"), &["check"]);
    assert_done(
        &finished,
        &[
            "Locks on: memory",
            "Data: redis standalone",
            "note: Encryption: none.",
            "note: maxmemory-policy is allkeys-lru",
        ],
    );
}

#[test]
fn strict_safety_makes_dangers_errors_of_the_check_and_of_the_start() {
    let server = redis(dangerous());
    for state in ["", "optional = true\n"] {
        let toml = toml(&server.url(), &format!("{state}[state.redis]\nsafety = \"strict\"\n"));
        let line = 7 + state.lines().count();
        let place = format!("acteon.toml:{line}: state.redis.safety: ");
        assert_refused(&run(&toml, &["check"]), &[&place, "allkeys-lru", "appendonly yes"]);
        if state.is_empty() {
            assert_refused(&run(&toml, &[]), &[&place, "allkeys-lru"]);
        }
    }
    let server = redis(safe());
    let finished = run(&toml(&server.url(), "[state.redis]\nsafety = \"strict\"\n"), &["check"]);
    assert_done(&finished, &["Locks: redis standalone, AOF `always`, strict", "note: Strict: "]);
    // It says of itself that it writes nothing.
    assert_eq!(server.query(&["DBSIZE"]).expect("answered").as_deref(), Some("0"));
}

#[test]
fn check_shows_whether_certificates_are_checked_and_the_log_warns_where_they_are_not() {
    let authority = Authority::new("tests").expect("writable");
    let tls = authority.identity("server", &["localhost"]).expect("writable").of_server(authority.ca_file());
    let server = redis(RedisOptions { tls: Some(tls), ..safe() });
    let url = format!("rediss://localhost:{}", server.tls_port().expect("TLS"));
    let ca_file = format!("[state.redis]\nca_file = {:?}\n", authority.ca_file());
    let finished = run(&toml(&url, &ca_file), &["check"]);
    assert_done(&finished, &["note: Encryption: TLS, and certificates are checked."]);

    let unchecked = toml(&url, "[state.redis]\ntls_verify = false\n");
    let finished = run(&unchecked, &["check"]);
    assert_done(&finished, &["note: Encryption: TLS, BUT CERTIFICATES ARE NOT CHECKED (tls_verify = false)"]);
    Process::start(&unchecked, &[]).wait_for_log("tls_verify is off");
    assert_refused(&run(&toml(&url, ""), &["check"]), &["acteon.toml:5: state.url: ", "certificate"]);
}

#[test]
fn check_shows_sentinels_and_what_a_failover_would_lose() {
    let options = SentinelOptions {
        password: Some("data1".to_owned()),
        sentinel_password: Some("watch2".to_owned()),
        ..SentinelOptions::default()
    };
    let group = RedisSentinels::start(options).unwrap_or_else(|error| panic!("{error}"));
    let finished = run(&toml(&group.url(), ""), &["check"]);
    assert_done(
        &finished,
        &[
            "Locks: redis sentinel, no synced AOF",
            "note: Configured: mymaster of the Sentinels 127.0.0.1:",
            &format!("note: Connected to 127.0.0.1:{} (7.", group.nodes[0].port()),
            "note: Encryption to the Sentinels: none.",
            "note: min-replicas-to-write is 0",
        ],
    );
    for secret in ["data1", "watch2"] {
        assert!(!finished.stdout.contains(secret) && !finished.stderr.contains(secret), "{}", finished.stdout);
    }
    let strict = run(&toml(&group.url(), "[state.redis]\nsafety = \"strict\"\n"), &["check"]);
    assert_refused(&strict, &["acteon.toml:7: state.redis.safety: ", "min-replicas-to-write"]);
}

#[test]
fn check_shows_the_primaries_of_a_cluster() {
    let cluster = RedisCluster::start(None, &[]).unwrap_or_else(|error| panic!("{error}"));
    let finished = run(&toml(&cluster.url(), ""), &["check"]);
    let mut parts = vec![
        "Locks: redis cluster, no synced AOF".to_owned(),
        "transactions:  on one key".to_owned(),
        "note: Configured: the Cluster of 127.0.0.1:".to_owned(),
        "note: min-replicas-to-write is 0".to_owned(),
    ];
    // All of them were asked.
    parts.extend(cluster.nodes[..3].iter().map(|node| format!("{} (7.", node.address())));
    assert_done(&finished, &parts.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The value of a metric of the Redis backend.
fn metric(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{backend=\"redis\"} "));
    line.and_then(|value| value.parse().ok())
}

/// The text of `/metrics`, once the condition holds.
fn metrics_once(url: &str, condition: impl Fn(&str) -> bool) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begin = Instant::now();
    loop {
        let text = runtime.block_on(async {
            let answer = client().get(format!("{url}/metrics")).send().await.expect("answered");
            answer.text().await.expect("a body")
        });
        if condition(&text) {
            return text;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn metrics_tell_of_connections_that_are_open_lost_and_failed() {
    let mut server = redis(safe());
    let mut process = Process::start(&toml(&server.url(), "[state.redis]\nconnections = 2\n"), &[]);
    let url = process.url();
    let text = metrics_once(&url, |text| metric(text, "acteon_state_connections") == Some(2));
    assert_eq!(metric(&text, "acteon_state_connections_opened_total"), Some(2), "{text}");
    for name in [
        "acteon_state_connections_lost_total",
        "acteon_state_connection_attempts_failed_total",
        "acteon_state_connection_redirections_total",
    ] {
        assert_eq!(metric(&text, name), Some(0), "{name}: {text}");
    }
    for name in ["acteon_state_connection_calls_in_flight", "acteon_state_connection_calls_queued"] {
        assert!(metric(&text, name).is_some(), "{name}: {text}");
    }
    server.kill9().expect("killed");
    let text = metrics_once(&url, |text| metric(text, "acteon_state_connections") == Some(0));
    assert_eq!(metric(&text, "acteon_state_connections_lost_total"), Some(2), "{text}");
    metrics_once(&url, |text| metric(text, "acteon_state_connection_attempts_failed_total") > Some(1));
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    let text = metrics_once(&url, |text| metric(text, "acteon_state_connections") == Some(2));
    assert_eq!(metric(&text, "acteon_state_connections_opened_total"), Some(4), "{text}");
    process.signal(Signal::TERM);
    assert!(process.wait().success(), "{}", process.log());
}
