//! A clock that is stepped under a running server.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acteon_test_support::{FakeClock, PostgresOptions, PostgresServer, RedisOptions, RedisServer};

/// Far more than what a question to a server takes on a busy machine.
const STEP_MS: i64 = 3_600_000;
const SLACK: Duration = Duration::from_secs(120);

fn expect_offset(server_s: f64, offset_ms: i64) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let expected_s = now_s + offset_ms as f64 / 1_000.0;
    assert!((server_s - expected_s).abs() < SLACK.as_secs_f64(), "{server_s} instead of {expected_s}");
}

#[test]
fn a_redis_sees_the_steps_of_its_clock_also_after_a_restart() {
    let clock = Arc::new(FakeClock::new().unwrap());
    let options = RedisOptions { clock: Some(clock.clone()), ..RedisOptions::default() };
    let mut server = RedisServer::start(options).unwrap();
    let time = |server: &RedisServer| server.query_list(&["TIME"]).unwrap()[0].parse::<f64>().unwrap();
    for offset_ms in [0, STEP_MS, -STEP_MS] {
        clock.set(offset_ms).unwrap();
        expect_offset(time(&server), offset_ms);
    }
    server.restart().unwrap();
    expect_offset(time(&server), -STEP_MS);
}

#[test]
fn a_postgres_sees_the_steps_of_its_clock() {
    let clock = Arc::new(FakeClock::new().unwrap());
    let options = PostgresOptions { clock: Some(clock.clone()), ..PostgresOptions::default() };
    let server = PostgresServer::start(options).unwrap();
    for offset_ms in [0, STEP_MS, -STEP_MS] {
        clock.set(offset_ms).unwrap();
        let rows = server.query("SELECT extract(epoch FROM clock_timestamp())").unwrap();
        expect_offset(rows[0][0].as_deref().unwrap().parse().unwrap(), offset_ms);
    }
}
