//! Two servers on one PostgreSQL: each action is executed once, also when the database crashes in the middle.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acteon_test_support::{PostgresOptions, PostgresServer};
use futures_util::future::join_all;
use serde_json::Value;

use crate::receiver::Receiver;
use crate::server::{PATIENCE, Server, action};

pub(super) const ONCE: &str = "{ name: once, action: { deduplicate: { ttl: 10m } } }";
pub(super) const ACTIONS: usize = 200;

fn start() -> PostgresServer {
    PostgresServer::start(PostgresOptions { durable: true, ..PostgresOptions::default() }).unwrap()
}

/// Two servers on it, started at once on an empty database.
async fn two_servers(postgres: &PostgresServer, hook: SocketAddr) -> (Server, Server) {
    let state = format!("backend = \"postgres\"\nurl = \"{}\"\nprefix = \"e2e_\"\n", postgres.url());
    tokio::join!(Server::start_with(&state, ONCE, hook), Server::start_with(&state, ONCE, hook))
}

/// Sends every action to both at the same time. Returns both answers to each.
pub(super) async fn dispatch_all(left: &Server, right: &Server, ids: &[String]) -> Vec<[(u16, Value); 2]> {
    let both = ids.iter().map(|id| async move {
        let action = action(id, id);
        let (left, right) = tokio::join!(left.dispatch(&action), right.dispatch(&action));
        [left, right]
    });
    join_all(both).await
}

pub(super) fn assert_once_each(counts: &HashMap<String, usize>, ids: &[String]) {
    assert!(ids.iter().all(|id| counts.get(id) == Some(&1)), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_200_actions_sent_to_two_servers_on_one_postgres_at_once_are_executed_once_each() {
    let postgres = start();
    let (receiver, hook) = Receiver::start().await;
    let (left, right) = two_servers(&postgres, hook).await;
    let ids: Vec<_> = (0..ACTIONS).map(|number| format!("action-{number}")).collect();
    for (id, answers) in ids.iter().zip(dispatch_all(&left, &right, &ids).await) {
        let mut statuses = answers.each_ref().map(|(code, body)| {
            assert_eq!(*code, 200, "{id}: {body}");
            body["status"].as_str().unwrap()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, ["deduplicated", "executed"], "{id}");
    }
    assert_eq!(receiver.counts().len(), ACTIONS);
    assert_once_each(&receiver.counts(), &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_crashes_below_200_actions_lets_none_of_them_be_executed_twice() {
    let mut postgres = start();
    let (receiver, hook) = Receiver::start().await;
    let (left, right) = two_servers(&postgres, hook).await;
    let ids: Vec<_> = (0..ACTIONS).map(|number| format!("action-{number}")).collect();
    let crash = async {
        receiver.until_arrived(ACTIONS / 10).await;
        postgres.kill9().unwrap();
        // Both find out, so that no call of the first round goes on into the second one.
        tokio::join!(left.until_ready(false), right.until_ready(false));
    };
    tokio::join!(dispatch_all(&left, &right, &ids), crash);
    let (code, body) = left.dispatch(&action("during", "during")).await;
    assert_eq!((code, body["error"]["code"].as_str()), (503, Some("state_unavailable")), "{body}");
    assert!(!receiver.counts().contains_key("during"), "nothing is executed without its claim");

    postgres.restart().unwrap();
    tokio::join!(left.until_ready(true), right.until_ready(true));
    join_all(ids.iter().map(|id| until_done(&left, id))).await;
    for (code, body) in dispatch_all(&left, &right, &ids).await.into_iter().flatten() {
        assert_eq!((code, body["status"].as_str()), (200, Some("deduplicated")), "{body}");
    }
    assert_once_each(&receiver.counts(), &ids);
}

/// Repeats an action, as its sender would, until it was executed, now or before.
pub(super) async fn until_done(server: &Server, id: &str) {
    let started = Instant::now();
    loop {
        let (code, body) = server.dispatch(&action(id, id)).await;
        // Without the first one's outcome, that one is still under way, or its claim is about to be given back.
        if code == 200 && (body["status"] == "executed" || body["original"].is_object()) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{id} is never done: {code} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
