//! Scheduled actions survive the death of the server that took them, and of the one that delivers them.

use std::time::{Duration, Instant, SystemTime};

use acteon_test_support::{RedisOptions, RedisServer};

use crate::receiver::Receiver;
use crate::server::{PATIENCE, Server, action};

/// A time that many milliseconds from now, as an action carries it.
fn in_ms(ms: u64) -> String {
    jiff::Timestamp::try_from(SystemTime::now() + Duration::from_millis(ms)).unwrap().to_string()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_scheduled_by_a_server_that_was_killed_is_delivered_by_another() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let (receiver, hook) = Receiver::start().await;
    let mut first = Server::start(&redis.url(), "", hook).await;
    let mut action = action("later", "k");
    action["deliver_at"] = in_ms(1_500).into();
    let (code, body) = first.dispatch(&action).await;
    assert_eq!((code, body["status"].as_str()), (200, Some("scheduled")), "{body}");
    first.kill9();
    assert!(receiver.counts().is_empty());
    let _second = Server::start(&redis.url(), "", hook).await;
    until("it was delivered", || receiver.counts().get("later") == Some(&1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_server_was_killed_while_delivering_it_is_delivered_again() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let (receiver, hook) = Receiver::start().await;
    receiver.set_silent(true);
    let mut first = Server::start(&redis.url(), "", hook).await;
    let mut action = action("later", "k");
    action["deliver_at"] = in_ms(50).into();
    first.dispatch(&action).await;
    until("its delivery began", || receiver.counts().get("later") == Some(&1)).await;
    first.kill9();
    receiver.set_silent(false);
    let _second = Server::start(&redis.url(), "", hook).await;
    until("it was delivered again", || receiver.counts().get("later") == Some(&2)).await;
}
