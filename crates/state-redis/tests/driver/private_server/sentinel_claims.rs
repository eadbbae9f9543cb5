//! What Sentinels say is not always true: some are dead, some are late, and some are wrong.

use std::time::{Duration, Instant};

use acteon_state_core::{ErrorKind, Get, Put, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};

use super::fake_sentinel::{FakeSentinel, Says};
use super::{key, server, start, text, until};

/// Before this time the driver would not ask again without a reason.
const AT_ONCE: Duration = Duration::from_secs(4);

fn primary(server: &RedisServer, epoch: u64) -> Says {
    Says::Primary { port: server.port(), epoch, in_master: None }
}

fn replica_of(server: &RedisServer) -> RedisServer {
    let settings = vec![format!("replicaof 127.0.0.1 {}", server.port())];
    start(RedisOptions { settings, ..RedisOptions::default() })
}

fn config(ports: &[u16]) -> RedisConfig {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    RedisConfig::from_url(&format!("redis+sentinel://{}?sentinel_master=mymaster", hosts.join(","))).unwrap()
}

/// Opens a store on Sentinels that say these things.
async fn hear(sentinels: &[Says]) -> (acteon_state_core::Result<RedisStore>, Vec<FakeSentinel>) {
    let mut fakes = Vec::new();
    for says in sentinels {
        fakes.push(FakeSentinel::start(*says).await);
    }
    let ports: Vec<u16> = fakes.iter().map(FakeSentinel::port).collect();
    (RedisStore::connect(config(&ports)).await, fakes)
}

/// The store writes to this server.
async fn assert_writes_to(store: &RedisStore, server: &RedisServer) {
    let key = key("claim");
    store.put(&key, &Put::new("v")).await.unwrap();
    assert!(server.query(&["GET", &text(&key)]).unwrap().is_some(), "another server got it");
}

#[tokio::test]
async fn the_newest_claim_outvotes_any_number_of_stale_ones() {
    let (old, new) = (server(), server());
    let (store, _fakes) = hear(&[primary(&old, 3), primary(&old, 3), primary(&new, 4)]).await;
    assert_writes_to(&store.unwrap(), &new).await;
}

/// Of a divided network, this process sees the side of the old primary: following it there would lose what is written.
#[tokio::test]
async fn a_stale_sentinel_that_alone_is_left_does_not_lead_back_to_the_old_primary() {
    let (old, new) = (server(), server());
    let (store, fakes) = hear(&[primary(&new, 4), primary(&old, 3), primary(&new, 4)]).await;
    let store = store.unwrap();
    until("there is a subscription", async || fakes[1].subscriptions() > 0).await;
    fakes[0].say(Says::Error);
    fakes[2].say(Says::Error);
    for _ in 0..2 {
        // The second round begins after the first one has had its consequences.
        let before = fakes[1].questions();
        fakes[1].say(primary(&old, 3));
        until("it is asked again", async || fakes[1].questions() > before).await;
    }
    assert_eq!(store.connection_stats().disconnected_total, 0);
    assert_writes_to(&store, &new).await;
    // Most of them may have been set up anew, and count from the beginning.
    fakes[0].say(primary(&old, 3));
    until("what most of them say counts", async || {
        let key = key("anew");
        store.put(&key, &Put::new("v")).await.is_ok() && old.query(&["GET", &text(&key)]).unwrap().is_some()
    })
    .await;
}

#[tokio::test]
async fn sentinels_that_are_dead_silent_or_failing_are_passed_over() {
    let server = server();
    let silent = FakeSentinel::start(Says::Nothing).await;
    let failing = FakeSentinel::start(Says::Error).await;
    let honest = FakeSentinel::start(primary(&server, 1)).await;
    // Port 1 refuses connections.
    let config = config(&[1, silent.port(), failing.port(), honest.port()]);
    let started = Instant::now();
    let store = RedisStore::connect(config).await.unwrap();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert_writes_to(&store, &server).await;
}

#[tokio::test]
async fn a_sentinel_that_names_a_replica_is_passed_over_whatever_epoch_it_claims() {
    let server = server();
    let replica = replica_of(&server);
    let (store, fakes) = hear(&[primary(&replica, 9), primary(&server, 2), primary(&server, 2)]).await;
    let store = store.unwrap();
    assert_writes_to(&store, &server).await;
    // Nor does it disturb what is connected by saying it again.
    until("there is a subscription", async || fakes[1].subscriptions() > 0).await;
    for _ in 0..2 {
        // The second round begins after the first one has had its consequences.
        let before = fakes[0].questions();
        fakes[1].say(primary(&server, 2));
        until("all are asked again", async || fakes[0].questions() > before).await;
    }
    assert_eq!(store.connection_stats().disconnected_total, 0);
    assert_writes_to(&store, &server).await;
}

#[tokio::test]
async fn a_sentinel_that_is_known_by_two_names_has_one_vote() {
    let server = server();
    let replica = replica_of(&server);
    let liar = FakeSentinel::start(primary(&replica, 9)).await;
    let (left, right) =
        (FakeSentinel::start(primary(&server, 2)).await, FakeSentinel::start(primary(&server, 2)).await);
    let hosts = [liar.port(), left.port(), right.port()].map(|port| format!("127.0.0.1:{port}"));
    let url = format!("redis+sentinel://localhost:{},{}?sentinel_master=mymaster", liar.port(), hosts.join(","));
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    assert_writes_to(&store, &server).await;
}

#[tokio::test]
async fn a_replica_that_all_sentinels_name_is_refused_until_it_is_primary() {
    let server = server();
    let replica = replica_of(&server);
    let (refused, fakes) = hear(&[primary(&replica, 2)]).await;
    let error = refused.expect_err("a replica cannot be written to");
    assert_eq!(error.kind(), ErrorKind::Failover, "{error}");
    assert!(error.message().contains("replica"), "{error}");

    let store = RedisStore::connect_lazy(config(&[fakes[0].port()])).unwrap();
    let key = key("late");
    until("calls say why they fail", async || {
        store.get(&key, Get::default()).await.is_err_and(|error| error.kind() == ErrorKind::Failover)
    })
    .await;
    replica.query(&["REPLICAOF", "NO", "ONE"]).unwrap();
    until("it is used once it is primary", async || store.get(&key, Get::default()).await.is_ok()).await;
    assert_writes_to(&store, &replica).await;
}

#[tokio::test]
async fn another_primary_is_followed_at_once() {
    let (old, new) = (server(), server());
    let (store, fakes) = hear(&[primary(&old, 1), primary(&old, 1), primary(&old, 1)]).await;
    let store = store.unwrap();
    assert_writes_to(&store, &old).await;
    until("there is a subscription", async || fakes[2].subscriptions() > 0).await;
    let changed = Instant::now();
    fakes[2].say(primary(&new, 2));
    until("writes go to the new primary", async || {
        let key = key("moved");
        store.put(&key, &Put::new("v")).await.is_ok() && new.query(&["GET", &text(&key)]).unwrap().is_some()
    })
    .await;
    assert!(changed.elapsed() < AT_ONCE, "{:?}", changed.elapsed());
}

/// `SENTINEL MASTER` tells the old address with the new epoch until the last replica follows the new primary. Whoever believed it
/// went back to the old one, which may still take writes: they were lost.
#[tokio::test]
async fn the_sentinel_that_leads_a_failover_does_not_lead_back_to_the_old_primary() {
    let (old, new) = (server(), server());
    let leader = Says::Primary { port: new.port(), epoch: 4, in_master: Some(old.port()) };
    let (store, _fakes) = hear(&[leader, primary(&old, 3), primary(&old, 3)]).await;
    assert_writes_to(&store.unwrap(), &new).await;
}
