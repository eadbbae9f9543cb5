//! A limit of fifty per second, under steady overload, asked by two servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_test_support::{RedisOptions, RedisServer};

use crate::receiver::Receiver;
use crate::server::{Server, action};

const FIFTY: &str = "{ name: fifty, action: { throttle: { key: [tenant], limit: 50, window: 1s } } }";
/// Senders that each send the next action 10 ms after the answer to the one before: about 300 per second.
const SENDERS: usize = 4;
const OVERLOAD: Duration = Duration::from_secs(4);
/// Well after the fifty of a window were used up, and well before the next ones come.
const LULL: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread")]
async fn fifty_per_second_get_through_under_overload_and_fifty_at_once_after_a_pause() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let (receiver, hook) = Receiver::start().await;
    let url = redis.url();
    let (left, right) = tokio::join!(Server::start(&url, FIFTY, hook), Server::start(&url, FIFTY, hook));
    let servers = Arc::new([left, right]);
    let started = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let servers = servers.clone();
            tokio::spawn(async move {
                let mut refused = 0;
                for turn in 0.. {
                    if started.elapsed() > OVERLOAD {
                        break;
                    }
                    let (code, body) = servers[sender % 2].dispatch(&action(&format!("{sender}-{turn}"), "k")).await;
                    match code {
                        200 => assert_eq!(body["status"], "executed", "{body}"),
                        429 => {
                            assert!(body["retry_after_ms"].as_u64().unwrap() <= 1_000, "{body}");
                            refused += 1;
                        }
                        other => panic!("{other}: {body}"),
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for sender in senders {
        refused += sender.await.unwrap();
    }
    assert!(refused > 50, "there was no overload: {refused} refused");

    let times = receiver.times();
    for second in 0..3 {
        // The receiver sees each request a little after the limit did. So the seconds are cut where nothing is under way: the
        // fifty of a window are used up early in it, and the next ones come a second after them.
        let from = times[0] + LULL + Duration::from_secs(second);
        let count = times.iter().filter(|at| (from..from + Duration::from_secs(1)).contains(*at)).count();
        assert!((49..=51).contains(&count), "second {second}: {count} got through");
    }

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for turn in 0..50 {
        let (code, body) = servers[turn % 2].dispatch(&action(&format!("after-{turn}"), "k")).await;
        assert_eq!(code, 200, "{turn}: {body}");
    }
}
