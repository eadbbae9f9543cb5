//! Gates, which are one script: what a failure in the middle leaves, and what a lock keeps of its ways.

use std::time::Duration;

use acteon_state_core::{
    Effect, ErrorKind, Gate, GateReply, Get, LockOutcome, LockRequest, Put, PutOutcome, RateLimit, StateKey, StateStore,
};
use acteon_state_redis::{RedisConfig, RedisStore, Safety};
use acteon_test_support::{Fault, FaultProxy};

use super::{PATIENCE, connect, key, server, until};

const LEASE: Duration = Duration::from_secs(60);

fn claim(key: &StateKey) -> Gate {
    Gate::Put(key.clone(), Put::new("claimed").if_absent())
}

fn limit(key: &StateKey) -> Gate {
    Gate::RateLimit(key.clone(), RateLimit::sliding_window(10, LEASE))
}

fn lock(key: &StateKey, wait: Duration) -> LockRequest {
    LockRequest { wait, ..LockRequest::new(key.clone(), LEASE) }
}

async fn is_held(store: &RedisStore, key: &StateKey) -> bool {
    store.lock_inspect(key).await.unwrap().is_some_and(|state| !state.holders.is_empty())
}

/// An error that stops a script would hide that the claim before it was made.
#[tokio::test]
async fn a_gate_that_fails_in_the_script_does_not_hide_what_let_pass_before_it() {
    let server = server();
    let store = connect(&server).await;
    let (work, rate, held) = (key("work"), key("rate"), key("held"));
    let log = format!("{{acteon:{}}}:sliding", rate.text());
    store.rate_limit(&rate, &RateLimit::sliding_window(10, LEASE)).await.unwrap();
    assert_eq!(server.query(&["TYPE", &log]).unwrap().as_deref(), Some("zset"), "where the log is");
    server.query(&["DEL", &log]).unwrap();
    server.query(&["SET", &log, "something else"]).unwrap();
    let gates = [claim(&work), limit(&rate), Gate::Lock(lock(&held, Duration::ZERO))];
    let mut replies = store.admit(&gates).await.unwrap();
    assert_eq!(replies.len(), 2, "{replies:?}");
    let error = replies.pop().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::NotApplied), "{error}");
    assert!(matches!(replies[0], Ok(GateReply::Put(PutOutcome::Applied(_)))), "{replies:?}");
    assert!(store.get(&work, Get::default()).await.unwrap().is_some());
    assert!(!is_held(&store, &held).await);

    // Also where it is the first one that is asked.
    let first = store.admit(&gates[1..]).await.unwrap().pop().unwrap().unwrap_err();
    assert_eq!((first.kind(), first.key()), (error.kind(), error.key()));
}

#[tokio::test]
async fn gates_are_not_declared_where_a_script_may_not_reach_all_keys_or_grants_go_another_way() {
    let server = server();
    let has_gates = |url: &str, safety| {
        let config = RedisConfig { safety, ..RedisConfig::from_url(url).unwrap() };
        RedisStore::connect_lazy(config).unwrap().capabilities().gates
    };
    let sentinels = "redis+sentinel://127.0.0.1:1?sentinel_master=m";
    assert!(connect(&server).await.capabilities().gates);
    assert!(has_gates(sentinels, Safety::Warn));
    assert!(!has_gates(sentinels, Safety::Strict));
    assert!(!has_gates("redis+cluster://127.0.0.1:1", Safety::Warn));
}

/// The question would go past those who came first.
#[tokio::test]
async fn a_lock_for_which_others_stand_in_line_is_left_out() {
    let server = server();
    let store = connect(&server).await;
    let held = key("held");
    let holder = lock(&held, Duration::ZERO);
    assert!(matches!(store.lock_acquire(&holder).await.unwrap(), LockOutcome::Granted(_)));
    let waiter = tokio::spawn({
        let (store, request) = (store.clone(), lock(&held, PATIENCE));
        async move { store.lock_acquire(&request).await }
    });
    until("the waiter has subscribed", || async {
        server.query(&["CLIENT", "LIST"]).unwrap().unwrap().contains(" sub=1 ")
    })
    .await;
    let replies = store.admit(&[claim(&key("work")), Gate::Lock(lock(&held, PATIENCE))]).await.unwrap();
    assert!(matches!(&replies[..], [Ok(GateReply::Put(PutOutcome::Applied(_)))]), "{replies:?}");
    let replies = store.admit(&[claim(&key("work")), Gate::Lock(lock(&held, Duration::ZERO))]).await.unwrap();
    assert!(matches!(replies[1], Ok(GateReply::Lock(LockOutcome::Busy(_)))), "who does not wait asks: {replies:?}");
    store.lock_release(&held, holder.owner).await.unwrap();
    assert!(matches!(waiter.await.unwrap().unwrap(), LockOutcome::Granted(_)));
}

#[tokio::test]
async fn dropped_gates_leave_no_lock_held() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let direct = connect(&server).await;
    let (work, held) = (key("work"), key("held"));
    let gates = [claim(&work), Gate::Lock(lock(&held, Duration::ZERO))];
    // Requests pass, and no answer does until the fault is over.
    proxy.set(Fault::LoseReplies { after_bytes: 0 });
    {
        let asking = store.admit(&gates);
        tokio::pin!(asking);
        tokio::select! {
            reply = &mut asking => panic!("{reply:?}"),
            () = until("the lock was granted", || is_held(&direct, &held)) => {}
        }
    }
    proxy.set(Fault::None);
    until("the grant was withdrawn", || async { !is_held(&direct, &held).await }).await;
    assert!(direct.get(&work, Get::default()).await.unwrap().is_some(), "the claim is its caller's");
}
