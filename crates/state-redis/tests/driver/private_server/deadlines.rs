//! The times that are apart: for connecting, for a call, for an answer to anything, for being rid of bytes, for TCP's own question.
//!
//! In each test the others are too long to matter, and so is the default of the one it is about.

use std::time::{Duration, Instant};

use acteon_state_core::{Effect, Error, ErrorKind, Put, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{Fault, FaultProxy};

use super::{config, key, server, until};

/// What a test is about ends after this.
const SHORT: Duration = Duration::from_millis(300);
/// Far below every default, and far above what a busy machine adds.
const SOON: Duration = Duration::from_millis(1_800);
/// Everything else.
const LONG: Duration = Duration::from_secs(60);

/// A write that must fail, and how long that took.
async fn failing_write(store: &RedisStore, value: impl Into<bytes::Bytes>) -> (Error, Duration) {
    let started = Instant::now();
    let error = store.put(&key("deadline"), &Put::new(value)).await.unwrap_err();
    (error, started.elapsed())
}

fn assert_took_as_long_as(limit: Duration, took: Duration) {
    assert!(took >= limit && took < SOON, "{took:?} instead of {limit:?}");
}

#[tokio::test]
async fn a_call_ends_after_its_timeout_and_leaves_the_connection() {
    let server = server();
    let config = RedisConfig { operation_timeout: SHORT, read_timeout: LONG, write_timeout: LONG, ..config(&server) };
    let store = RedisStore::connect(config).await.unwrap();
    server.pause().unwrap();
    let (error, took) = failing_write(&store, "v").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown), "{error}");
    assert_took_as_long_as(SHORT, took);
    server.resume().unwrap();
    until("the server answers", || async { store.ping().await.is_ok() }).await;
    assert_eq!(store.connection_stats().connected_total, 1);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_answered_ends_after_the_read_timeout() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let config = RedisConfig { read_timeout: SHORT, operation_timeout: LONG, ..RedisConfig::from_url(&url).unwrap() };
    let store = RedisStore::connect(config).await.unwrap();
    // While nothing is asked, silence is no fault.
    tokio::time::sleep(2 * SHORT).await;
    store.ping().await.unwrap();
    assert_eq!(store.connection_stats().disconnected_total, 0);
    proxy.set(Fault::LoseReplies { after_bytes: 0 });
    let (error, took) = failing_write(&store, "v").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    assert_took_as_long_as(SHORT, took);
    assert_eq!(store.connection_stats().disconnected_total, 1);
}

#[tokio::test]
async fn a_connection_that_takes_nothing_ends_after_the_write_timeout() {
    let server = server();
    let config = RedisConfig { write_timeout: SHORT, read_timeout: LONG, operation_timeout: LONG, ..config(&server) };
    let store = RedisStore::connect(config).await.unwrap();
    server.pause().unwrap();
    // More than the buffers of both sides hold.
    let (error, took) = failing_write(&store, vec![b'x'; 48 << 20]).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    assert_took_as_long_as(SHORT, took);
    server.resume().unwrap();
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up_after_the_connect_timeout() {
    let server = server();
    let config = RedisConfig { connect_timeout: SHORT, operation_timeout: LONG, read_timeout: LONG, ..config(&server) };
    // The kernel accepts; the server says nothing.
    server.pause().unwrap();
    let started = Instant::now();
    let error = RedisStore::connect(config).await.expect_err("the server says nothing");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    assert_took_as_long_as(SHORT, started.elapsed());
    server.resume().unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn tcp_asks_after_the_idle_time_of_the_options() {
    const KEEPALIVE: Duration = Duration::from_secs(900);
    let server = server();
    let store = RedisStore::connect(RedisConfig { keepalive: KEEPALIVE, ..config(&server) }).await.unwrap();
    store.ping().await.unwrap();
    until("the timer of keepalive runs", || async { keepalive_left(server.port()).is_some() }).await;
    let left = keepalive_left(server.port()).unwrap();
    assert!(left <= KEEPALIVE && left > KEEPALIVE - Duration::from_secs(60), "{left:?}");
}

/// How long until TCP asks the server at this port whether it is still there, as Linux tells of our side of the connection.
#[cfg(target_os = "linux")]
fn keepalive_left(port: u16) -> Option<Duration> {
    const ESTABLISHED: &str = "01";
    const KEEPALIVE_TIMER: &str = "02";
    const TICKS_PER_SECOND: u64 = 100;
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let server = format!("0100007F:{port:04X}");
    let timer = table.lines().find_map(|row| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        (fields.get(2) == Some(&server.as_str()) && fields.get(3) == Some(&ESTABLISHED)).then(|| fields[5].to_owned())
    })?;
    let (kind, ticks) = timer.split_once(':')?;
    let ticks = u64::from_str_radix(ticks, 16).ok()?;
    (kind == KEEPALIVE_TIMER).then(|| Duration::from_secs(ticks.div_ceil(TICKS_PER_SECOND)))
}
