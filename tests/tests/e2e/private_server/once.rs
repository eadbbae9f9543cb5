//! One action, two servers: executed once.

use acteon_test_support::{RedisOptions, RedisServer};

use crate::receiver::Receiver;
use crate::server::{Server, action};

const ONCE: &str = "{ name: once, action: { deduplicate: { ttl: 10m } } }";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_action_sent_to_two_servers_on_one_redis_is_executed_once_each_of_200_times() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let (receiver, hook) = Receiver::start().await;
    let url = redis.url();
    let (left, right) = tokio::join!(Server::start(&url, ONCE, hook), Server::start(&url, ONCE, hook));
    for round in 0..200 {
        let action = action(&format!("action-{round}"), &format!("key-{round}"));
        let ((left_code, left), (right_code, right)) = tokio::join!(left.dispatch(&action), right.dispatch(&action));
        assert_eq!((left_code, right_code), (200, 200), "{left} {right}");
        let mut statuses = [left["status"].as_str().unwrap(), right["status"].as_str().unwrap()];
        statuses.sort_unstable();
        assert_eq!(statuses, ["deduplicated", "executed"], "round {round}");
    }
    let counts = receiver.counts();
    assert_eq!(counts.len(), 200);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let (_, late) = right.dispatch(&action("action-0", "key-0")).await;
    assert_eq!(late["original"]["status"], "executed", "whoever executed it, the other replays its outcome: {late}");
}
