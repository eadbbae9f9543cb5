//! A Redis that dies and comes back, below a running server.

use acteon_test_support::{RedisOptions, RedisServer};

use crate::receiver::Receiver;
use crate::server::{Server, action};

const ONCE: &str = "{ name: once, action: { deduplicate: { ttl: 10m } } }";

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_dead_actions_are_refused_and_afterwards_all_is_as_before() {
    let mut redis = RedisServer::start(RedisOptions { append_only: true, ..RedisOptions::default() }).unwrap();
    let (receiver, hook) = Receiver::start().await;
    let server = Server::start(&redis.url(), ONCE, hook).await;
    let (code, body) = server.dispatch(&action("before", "before")).await;
    assert_eq!((code, body["status"].as_str()), (200, Some("executed")), "{body}");

    redis.kill9().unwrap();
    let (code, body) = server.dispatch(&action("during", "during")).await;
    assert_eq!((code, body["error"]["code"].as_str()), (503, Some("state_unavailable")), "{body}");
    server.until_ready(false).await;
    assert!(!receiver.counts().contains_key("during"), "nothing is executed without its claim");

    redis.restart().unwrap();
    server.until_ready(true).await;
    let (_, body) = server.dispatch(&action("again", "before")).await;
    assert_eq!(body["original"]["action_id"], "before", "what was recorded is still known: {body}");
    let (code, body) = server.dispatch(&action("during", "during")).await;
    assert_eq!((code, body["status"].as_str()), (200, Some("executed")), "{body}");
}
