//! Answers that send a request elsewhere: each of them is provoked, counted where it was given, and leads to a result.

use std::time::{Duration, Instant};

use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, DueAt, Effect, ErrorKind, Get, Increment, Put, Schedule, StateKey, StateStore,
};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::RedisCluster;

use super::super::{key, text, until};
use super::{SLOTS, calls, clients, cluster, cluster_with, connect, connect_patiently, errors, key_of, slot_of};

const CLAIM: ClaimDue = ClaimDue { limit: 10, visibility: Duration::from_secs(9) };

async fn count(store: &RedisStore, key: &StateKey) -> i64 {
    store.increment(key, Increment::by(1)).await.unwrap().counter().value
}

#[tokio::test]
async fn a_slot_that_has_moved_is_found_once_and_remembered() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let key = key_of(0);
    assert_eq!(count(&store, &key).await, 1);
    cluster.move_slot(slot_of(&key), 1).unwrap();
    assert_eq!(count(&store, &key).await, 2);
    assert_eq!(errors(&cluster.nodes[0], "MOVED"), 1);
    for expected in 3..20 {
        assert_eq!(count(&store, &key).await, expected);
    }
    assert_eq!(errors(&cluster.nodes[0], "MOVED"), 1, "the slot's new owner was not remembered");
    assert_eq!(store.connection_stats().redirected_total, 1);
}

#[tokio::test]
async fn while_a_slot_moves_what_is_not_here_any_more_is_asked_for_there() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let (slot, stays) = (slot_of(&key_of(0)), key_of(0));
    let mut moving = stays.clone();
    while slot_of(&moving) != slot {
        moving = key("moving");
    }
    assert_eq!(count(&store, &moving).await, 1);
    cluster.begin_move(slot, 0, 2).unwrap();
    assert_eq!(count(&store, &moving).await, 2, "it has not moved yet");
    assert_eq!(errors(&cluster.nodes[0], "ASK"), 0);
    cluster.move_keys(0, 2, &[&text(&moving)]).unwrap();
    assert_eq!(count(&store, &moving).await, 3);
    let batch = store.batch(&[BatchOp::Increment(moving.clone(), Increment::by(1))]).await.unwrap();
    assert!(matches!(&batch[0], Ok(BatchReply::Incremented(outcome)) if outcome.counter().value == 4), "{batch:?}");
    // Each time anew, since nobody owns the slot for good yet: twice for the batch, whose first attempt went with the others.
    assert_eq!(errors(&cluster.nodes[0], "ASK"), 3);
    cluster.end_move(slot, 0, 2).unwrap();
    assert_eq!(count(&store, &moving).await, 5);
}

#[tokio::test]
async fn a_request_about_two_keys_waits_until_both_are_on_one_node() {
    let cluster = cluster();
    let (patient, hasty) = (connect_patiently(&cluster).await, connect(&cluster).await);
    let queue = key_of(1);
    let slot = slot_of(&queue);
    let schedule = Schedule { id: "a".to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
    patient.schedule(&queue, &schedule).await.unwrap();
    let keys = cluster.nodes[1].query_list(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "9"]).unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    cluster.begin_move(slot, 1, 0).unwrap();
    cluster.move_keys(1, 0, &[&keys[0]]).unwrap();

    let begin = Instant::now();
    let error = hasty.claim_due(&queue, CLAIM).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    assert!(begin.elapsed() >= RedisConfig::default().connect_wait, "given up after {:?}", begin.elapsed());
    let refused = errors(&cluster.nodes[1], "TRYAGAIN");
    assert!((2..50).contains(&refused), "{refused} attempts");

    let waiting = tokio::spawn({
        let (patient, queue) = (patient.clone(), queue.clone());
        async move { patient.claim_due(&queue, CLAIM).await }
    });
    // Far more often than redirections are followed at once.
    until("the request is refused", async || errors(&cluster.nodes[1], "TRYAGAIN") > refused + 15).await;
    cluster.end_move(slot, 1, 0).unwrap();
    let claimed = waiting.await.unwrap().unwrap();
    // The attempts that were refused did not claim it.
    assert_eq!((claimed.items.len(), claimed.items[0].attempt), (1, 1));
}

/// Neither node has a key of it, and the one that takes over the slot cannot know that there is none.
#[tokio::test]
async fn a_queue_without_items_is_refused_while_its_slot_moves() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let queue = key_of(1);
    cluster.begin_move(slot_of(&queue), 1, 0).unwrap();
    let schedule = Schedule { id: "a".to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
    let error = store.schedule(&queue, &schedule).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    cluster.end_move(slot_of(&queue), 1, 0).unwrap();
    store.schedule(&queue, &schedule).await.unwrap();
    assert_eq!(store.claim_due(&queue, CLAIM).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn nodes_that_point_at_each_other_do_not_catch_a_request() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let key = key_of(0);
    let slot = slot_of(&key).to_string();
    let id = |place: usize| cluster.nodes[place].query(&["CLUSTER", "MYID"]).unwrap().unwrap();
    // Each takes the other for the owner, and nobody says that it is.
    cluster.nodes[0].query(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(1)]).unwrap();
    let begin = Instant::now();
    let mut rounds = 0;
    let asked = || (0..6).map(|place| calls(&cluster.nodes[place], "cluster|slots")).sum::<u64>();
    let asked_before = asked();
    while begin.elapsed() < Duration::from_secs(2) {
        let error = store.increment(&key, Increment::by(1)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
        rounds += 1;
    }
    let redirected = store.connection_stats().redirected_total;
    assert!(redirected <= rounds * 20, "{redirected} redirections of {rounds} requests");
    // Up to three nodes, after pauses of 25 ms and more, and of 100 ms and more once nothing changes.
    let asked = asked() - asked_before;
    assert!(asked <= 3 * (2 + 2 * 40), "asked for the map {asked} times");
    assert!(store.increment(&key_of(2), Increment::by(1)).await.is_ok(), "other slots are not affected");
}

#[tokio::test]
async fn a_slot_without_owner_fails_its_own_calls_only_and_is_waited_for() {
    let cluster = cluster_with(&["cluster-require-full-coverage no"]);
    let (patient, hasty) = (connect_patiently(&cluster).await, connect(&cluster).await);
    let key = key_of(0);
    let slot = slot_of(&key).to_string();
    for node in &cluster.nodes {
        node.query(&["CLUSTER", "DELSLOTS", &slot]).unwrap();
    }
    let error = hasty.increment(&key, Increment::by(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    let refused: u64 = (0..3).map(|place| errors(&cluster.nodes[place], "CLUSTERDOWN")).sum();
    assert!(refused > 0);
    until("readiness says so", async || hasty.ping().await.is_err_and(|error| error.kind() == ErrorKind::Failover))
        .await;
    assert!(hasty.increment(&key_of(0), Increment::by(1)).await.is_ok());
    let replies = hasty.batch(&[key.clone(), key_of(1)].map(|key| BatchOp::Increment(key, Increment::by(1)))).await;
    let replies = replies.unwrap();
    assert!(replies[0].is_err() && replies[1].is_ok(), "{replies:?}");

    let waiting = tokio::spawn({
        let (patient, key) = (patient.clone(), key.clone());
        async move { patient.increment(&key, Increment::by(1)).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    cluster.nodes[2].query(&["CLUSTER", "ADDSLOTS", &slot]).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().counter().value, 1);
    until("readiness says so", async || hasty.ping().await.is_ok()).await;
}

/// Sets what all nodes call themselves, and connects.
async fn connect_named(cluster: &RedisCluster, settings: &[[&str; 2]]) -> RedisStore {
    for node in &cluster.nodes {
        for [name, value] in settings {
            node.query(&["CONFIG", "SET", name, value]).unwrap();
        }
    }
    connect(cluster).await
}

#[tokio::test]
async fn nodes_are_found_by_whatever_they_call_themselves() {
    let cluster = cluster();
    let endpoint = "cluster-preferred-endpoint-type";
    let hostname = "cluster-announce-hostname";
    for settings in [
        // An empty host: that of the node which was asked.
        &[[endpoint, "unknown-endpoint"]][..],
        // A host name that is not known: `?`, with the address among the rest.
        &[[endpoint, "hostname"]],
        &[[endpoint, "hostname"], [hostname, "localhost"]],
        &[[endpoint, "ip"]],
    ] {
        let store = connect_named(&cluster, settings).await;
        let key = key_of(0);
        assert_eq!(count(&store, &key).await, 1);
        let owner = cluster.owner_of(slot_of(&key)).unwrap();
        cluster.move_slots([slot_of(&key)], (owner + 1) % 3).unwrap();
        assert_eq!(count(&store, &key).await, 2, "{settings:?}");
        assert_eq!(store.connection_stats().redirected_total, 1, "{settings:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_over_many_slots_has_its_replies_in_their_places() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    let keys: Vec<_> = (0..300).map(|_| key("batched")).collect();
    let puts: Vec<_> = keys.iter().map(|key| BatchOp::Put(key.clone(), Put::new(key.text().to_owned()))).collect();
    assert!(store.batch(&puts).await.unwrap().iter().all(Result::is_ok));
    let scripts_before: u64 = (0..3).map(|place| calls(&cluster.nodes[place], "get")).sum();
    for to in 0..3 {
        cluster.move_slots(keys.iter().skip(to).step_by(10).map(slot_of), to).unwrap();
    }
    let gets: Vec<_> = keys.iter().map(|key| BatchOp::Get(key.clone(), Get::default())).collect();
    let replies = store.batch(&gets).await.unwrap();
    for (key, reply) in keys.iter().zip(&replies) {
        assert!(matches!(reply, Ok(BatchReply::Got(Some(entry))) if entry.value == key.text()), "{key}: {reply:?}");
    }
    assert!(store.connection_stats().redirected_total > 0);
    let scripts: u64 = (0..3).map(|place| calls(&cluster.nodes[place], "get")).sum();
    assert!(scripts - scripts_before >= 300);
}

#[tokio::test]
async fn the_cluster_stays_known_when_all_seeds_are_gone() {
    let mut cluster = cluster();
    let seed = format!("redis+cluster://:data1@127.0.0.1:{}", cluster.nodes[0].port());
    let store = RedisStore::connect(RedisConfig::from_url(&seed).unwrap()).await.unwrap();
    let key = key_of(1);
    assert_eq!(count(&store, &key).await, 1);
    cluster.nodes[0].kill9().unwrap();
    cluster.wait_until_whole(&[0]).unwrap();
    let lost = key_of(0);
    until("the replica serves", async || store.increment(&lost, Increment::by(1)).await.is_ok()).await;
    // Found through nodes that no option names.
    cluster.move_slot(slot_of(&key), 2).unwrap();
    assert_eq!(count(&store, &key).await, 2);
    until("all slots have owners", async || store.ping().await.is_ok()).await;
}

#[tokio::test]
async fn connections_to_nodes_that_are_primaries_no_more_are_closed() {
    let cluster = cluster();
    let store = connect(&cluster).await;
    assert_eq!(store.connection_stats().connections, 3);
    let key = key_of(0);
    assert_eq!(count(&store, &key).await, 1);
    cluster.fail_over_to(3).unwrap();
    cluster.wait_until_whole(&[]).unwrap();
    assert_eq!(count(&store, &key).await, 2);
    until("the old primary is left", async || clients(&cluster.nodes[0]) == 0).await;
    assert_eq!(store.connection_stats().connections, 3);
    assert!(store.lock_semantics().notes.iter().all(|note| !note.contains(&format!(":{} ", cluster.nodes[0].port()))));
}

#[tokio::test]
async fn a_node_that_answers_nothing_holds_up_nobody_who_looks_for_the_map() {
    let mut cluster = cluster_with(&["cluster-require-full-coverage no"]);
    let store = connect(&cluster).await;
    let key = key_of(1);
    assert_eq!(count(&store, &key).await, 1);
    // Asked for the map as well, since its connection is open.
    cluster.nodes[0].pause().unwrap();
    // Cannot say any more who comes after it.
    cluster.nodes[1].kill9().unwrap();
    cluster.nodes[4].query(&["CLUSTER", "FAILOVER", "TAKEOVER"]).unwrap();
    let begin = Instant::now();
    until("the new owner is found", async || store.increment(&key, Increment::by(1)).await.is_ok()).await;
    let patience = RedisConfig::default().connect_timeout;
    assert!(begin.elapsed() < patience / 2, "{:?}", begin.elapsed());
    cluster.nodes[0].resume().unwrap();
}

#[test]
fn slots_of_keys_are_those_that_servers_say() {
    let cluster = cluster();
    for _ in 0..20 {
        let key = key("slot");
        let said = cluster.nodes[0].query(&["CLUSTER", "KEYSLOT", &text(&key)]).unwrap().unwrap();
        assert_eq!(said, slot_of(&key).to_string());
        assert!(slot_of(&key) < SLOTS);
    }
}
