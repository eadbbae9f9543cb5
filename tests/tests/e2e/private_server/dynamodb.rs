//! Two servers on one DynamoDB table: each action is executed once, also when the service is gone for a while in the middle.

use std::net::SocketAddr;

use acteon_test_support::DynamoServer;
use futures_util::future::join_all;

use super::postgres::{ACTIONS, ONCE, assert_once_each, dispatch_all, until_done};
use crate::receiver::Receiver;
use crate::server::{Server, action};

/// Two servers on it, started at once without a table.
async fn two_servers(dynamo: &DynamoServer, hook: SocketAddr) -> (Server, Server) {
    let state = format!(
        "backend = \"dynamodb\"\nurl = \"{}\"\nregion = \"us-east-1\"\ntable_name = \"e2e\"\nprefix = \"e2e\"\n",
        dynamo.url()
    );
    tokio::join!(Server::start_with(&state, ONCE, hook), Server::start_with(&state, ONCE, hook))
}

fn ids() -> Vec<String> {
    (0..ACTIONS).map(|number| format!("action-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_200_actions_sent_to_two_servers_on_one_table_at_once_are_executed_once_each() {
    let dynamo = DynamoServer::start().unwrap();
    let (receiver, hook) = Receiver::start().await;
    let (left, right) = two_servers(&dynamo, hook).await;
    let ids = ids();
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
async fn a_dynamodb_that_breaks_off_below_200_actions_lets_none_of_them_be_executed_twice() {
    let mut dynamo = DynamoServer::start().unwrap();
    let (receiver, hook) = Receiver::start().await;
    let (left, right) = two_servers(&dynamo, hook).await;
    let ids = ids();
    let outage = async {
        receiver.until_arrived(ACTIONS / 10).await;
        dynamo.stop();
        // Both find out, so that no call of the first round goes on into the second one.
        tokio::join!(left.until_ready(false), right.until_ready(false));
    };
    tokio::join!(dispatch_all(&left, &right, &ids), outage);
    let (code, body) = left.dispatch(&action("during", "during")).await;
    assert_eq!((code, body["error"]["code"].as_str()), (503, Some("state_unavailable")), "{body}");
    assert!(!receiver.counts().contains_key("during"), "nothing is executed without its claim");

    dynamo.restart().unwrap();
    tokio::join!(left.until_ready(true), right.until_ready(true));
    join_all(ids.iter().map(|id| until_done(&left, id))).await;
    for (code, body) in dispatch_all(&left, &right, &ids).await.into_iter().flatten() {
        assert_eq!((code, body["status"].as_str()), (200, Some("deduplicated")), "{body}");
    }
    assert_once_each(&receiver.counts(), &ids);
}
