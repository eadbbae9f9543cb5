//! The facade against a Redis server of the test's own, which is down, comes up, and goes down again.

use std::time::Duration;

use acteon_state::config::Document;
use acteon_state::{Error, ErrorKind, State, StateConfig, StateKey, Ttl, open};
use acteon_test_support::{RedisOptions, RedisServer};

/// What a recovery may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The section `[state]` with these lines in it.
fn state(lines: &str) -> StateConfig {
    let document = Document::parse("app.toml", &format!("[state]\n{lines}")).unwrap();
    document.read_section("state").unwrap().unwrap()
}

fn key() -> StateKey {
    StateKey::new("facade", "tests", "k", "i").unwrap()
}

async fn until_written(state: &State) {
    let writing = async {
        while state.put_json(&key(), &"there", Ttl::Clear).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, writing).await.expect("the server is back, and the state does not find it");
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_server_that_was_down_at_start_is_used_once_it_is_up_and_after_each_outage() {
    let mut server = RedisServer::start(RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    server.kill9().unwrap();
    let config = state(&format!(
        "backend = 'redis'\nurl = '{}'\noptional = true\nrequire = ['cas', 'fencing', 'locks']\n\
         [state.redis]\nconnect_wait = '10ms'\nreconnect_delay_max = '50ms'",
        server.url()
    ));
    let state = open(&config).await.unwrap();
    for _outage in 0..2 {
        assert_eq!(kind(state.get(&key()).await), Some(ErrorKind::Unavailable));
        // Longer than it takes to open the circuit breaker, which must not outlive the outage.
        for _ in 0..20 {
            assert!(state.try_lock(&key(), Duration::from_secs(1)).await.is_err(), "locks fail closed");
        }
        server.restart().unwrap();
        until_written(&state).await;
        assert_eq!(state.get_json::<String>(&key()).await.unwrap().as_deref(), Some("there"));
        server.kill9().unwrap();
    }
    state.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_on_an_optional_server_that_is_down_do_not_keep_the_data_away() {
    let mut server = RedisServer::start(RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    server.kill9().unwrap();
    let config = state(&format!(
        "backend = 'memory'\n[state.lock]\nbackend = 'redis'\nurl = '{}'\noptional = true\n\
         [state.lock.redis]\nconnect_wait = '10ms'\nreconnect_delay_max = '50ms'",
        server.url()
    ));
    let state = open(&config).await.unwrap();
    until_written(&state).await;
    assert!(state.try_lock(&key(), Duration::from_secs(1)).await.is_err(), "locks fail closed");
    server.restart().unwrap();
    let locking = async {
        while state.try_lock(&key(), Duration::from_secs(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, locking).await.expect("the server is up, and locks do not find it");
    state.close().await.unwrap();
}
