//! Connections that fail, and what is known of the request then.

use std::time::{Duration, Instant};

use acteon_state_core::{Effect, Entry, Error, ErrorKind, Get, Put, StateKey, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::{DynamoServer, Fault, FaultProxy};

use crate::{config, connect, refused, start};

const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);

fn key() -> StateKey {
    StateKey::new("mail", "acme", "session", "a").unwrap()
}

/// A store whose requests go through a proxy.
async fn behind_proxy() -> (DynamoServer, FaultProxy, DynamoStore) {
    let server = start();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let config = DynamoConfig {
        connect_timeout: ATTEMPT_TIMEOUT,
        attempt_timeout: ATTEMPT_TIMEOUT,
        ..config(&format!("http://{}", proxy.address()))
    };
    let store = connect(config).await;
    (server, proxy, store)
}

async fn put_fails(store: &DynamoStore, value: &'static str) -> Error {
    store.put(&key(), &Put::new(value)).await.map(drop).unwrap_err()
}

async fn get(store: &DynamoStore) -> Result<Option<Entry>, Error> {
    store.get(&key(), Get::default()).await
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable_and_nothing_was_sent() {
    let mut server = start();
    server.stop();
    let started = Instant::now();
    let error = refused(config(&server.url())).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    assert!(error.message().contains("cannot be reached"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "it was tried again and again");
}

#[tokio::test]
async fn a_refused_connection_leaves_nothing_unknown() {
    let (_server, proxy, store) = behind_proxy().await;
    // The port stays closed: a proxy that refuses has accepted first.
    drop(proxy);
    // The open connection may take a request along when it breaks.
    let _ = store.ping().await;
    let error = put_fails(&store, "new").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
}

#[tokio::test]
async fn a_lost_reply_leaves_a_write_unknown_and_a_read_not() {
    let (_server, proxy, store) = behind_proxy().await;
    proxy.set(Fault::LoseReplies { after_bytes: 0 });
    let error = put_fails(&store, "applied").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown), "{error}");
    assert!(error.message().contains("attempt_timeout"), "{error}");
    let error = get(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied), "{error}");
    proxy.set(Fault::None);
    assert_eq!(get(&store).await.unwrap().unwrap().value, "applied");
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_a_write_unknown_and_sends_it_once() {
    let (_server, proxy, store) = behind_proxy().await;
    proxy.set(Fault::CutReplies { after_bytes: 0 });
    let sent = store.capacity().sent();
    let error = put_fails(&store, "applied").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    assert_eq!(store.capacity().sent(), sent + 1);
    proxy.set(Fault::None);
    assert_eq!(get(&store).await.unwrap().unwrap().value, "applied");
}

#[tokio::test]
async fn a_reply_that_breaks_off_leaves_a_write_unknown() {
    let (_server, proxy, store) = behind_proxy().await;
    // Past the head of the answer, and short of its end.
    proxy.set(Fault::CutReplies { after_bytes: 60 });
    let error = put_fails(&store, "applied").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
}

#[tokio::test]
async fn a_service_that_comes_back_is_used_again() {
    let mut server = start();
    let store = connect(config(&server.url())).await;
    store.put(&key(), &Put::new("kept")).await.unwrap();
    server.restart().unwrap();
    // The connection from before may be noticed to be gone only by using it.
    let _ = store.ping().await;
    assert_eq!(get(&store).await.unwrap().unwrap().value, "kept");
}
