//! Connections are used again: opening one costs round trips and a TLS handshake, which no request should pay for.

use acteon_state_core::{Get, Put, StateKey, StateStore};
use futures_util::future::join_all;

use crate::front::Front;
use crate::{config, connect, start};

fn key(id: usize) -> StateKey {
    StateKey::new("mail", "acme", "session", &id.to_string()).unwrap()
}

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection_whatever_they_are_answered() {
    let server = start();
    let front = Front::refusing(server.address(), &[]).await;
    let store = connect(config(&front.url())).await;
    let before = front.accepted();
    for id in 0..50 {
        assert!(store.get(&key(id), Get::default()).await.unwrap().is_none());
        assert!(store.put(&key(id), &Put::new("value").if_absent()).await.unwrap().is_applied());
        // The service answers this one with an error.
        assert!(!store.put(&key(id), &Put::new("value").if_absent()).await.unwrap().is_applied());
    }
    assert_eq!(front.accepted(), before, "the connection that was opened first serves all of them");
}

#[tokio::test]
async fn requests_at_the_same_time_keep_their_connections_for_those_that_follow() {
    const AT_ONCE: usize = 16;
    let server = start();
    let front = Front::refusing(server.address(), &[]).await;
    let store = connect(config(&front.url())).await;
    let put = async |id| assert!(store.put(&key(id), &Put::new("value")).await.unwrap().is_applied());
    let all_at_once = || join_all((0..AT_ONCE).map(put));
    all_at_once().await;
    let before = front.accepted();
    for _ in 0..20 {
        all_at_once().await;
    }
    // One may be asked for while the one that becomes free is on its way back.
    let opened = front.accepted() - before;
    assert!(opened <= AT_ONCE, "{opened} connections for 320 requests");
}
