//! Locks of the published engine, between this process and another node that reaches it through the Redis driver.

use std::pin::pin;
use std::time::Duration;

use acteon_state::config::ConnectionUrl;
use acteon_state::{LockOptions, State, StateConfig, StateKey};
use futures_util::poll;
use tokio::time::timeout;

use crate::engine::{call, connect, hear, start};
use crate::support::PATIENCE;

/// Longer than any test may take, so that nobody gets a lock because a lease ended.
const FOR_LONG: Duration = Duration::from_secs(3600);
const TILL_RECORD: &str = "{acteon:shop:acme:till:1}:lock";

fn till() -> StateKey {
    StateKey::new("shop", "acme", "till", "1").expect("valid")
}

/// Another node, which reaches the engine through the Redis driver.
async fn other_node(address: &str) -> State {
    let config =
        StateConfig { url: Some(ConnectionUrl::new(format!("redis://{address}"))), ..StateConfig::new("redis") };
    config.open().await.expect("reachable")
}

#[tokio::test]
async fn who_waits_here_gets_a_lock_when_another_node_releases_it() {
    let (server, address, _rules) = start(|_| ()).await;
    let (here, there) = (server.app().state(), other_node(&address).await);
    let (key, options) = (till(), LockOptions::new(FOR_LONG).wait(FOR_LONG));
    let held = there.lock(&key, &options).await.expect("answered").acquired().expect("free");
    let token = held.token();
    let mut waiting = pin!(here.lock(&key, &options));
    assert!(poll!(&mut waiting).is_pending(), "two hold it");
    held.release().await.expect("released");
    let granted = timeout(PATIENCE, waiting).await.expect("woken").expect("answered").acquired().expect("free");
    assert!(granted.token() > token);
}

#[tokio::test]
async fn who_waits_on_another_node_hears_of_a_release_here() {
    let (server, address, _rules) = start(|_| ()).await;
    let (here, there) = (server.app().state(), other_node(&address).await);
    let (key, options) = (till(), LockOptions::new(FOR_LONG).wait(FOR_LONG));
    let held = here.lock(&key, &options).await.expect("answered").acquired().expect("free");
    let token = held.token();
    let waiting = tokio::spawn(async move { there.lock(&till(), &options).await.expect("answered").acquired() });
    // The driver's waiters also ask from time to time. What spares them the time is a message, so see whether there is one.
    let mut client = connect(&address).await;
    let channel = format!("${}\r\n{TILL_RECORD}\r\n", TILL_RECORD.len());
    call(&mut client, &format!("SUBSCRIBE {TILL_RECORD}"), &format!("*3\r\n$9\r\nsubscribe\r\n{channel}:1\r\n")).await;
    held.release().await.expect("released");
    hear(&mut client, &format!("*3\r\n$7\r\nmessage\r\n{channel}$0\r\n\r\n")).await;
    let granted = timeout(PATIENCE, waiting).await.expect("woken").expect("no panic").expect("free");
    assert!(granted.token() > token);
}
