//! Ways in, and what is said of those that are closed.

use std::time::Duration;

use acteon_state_core::{Counting, Effect, ErrorKind, Get, Increment, Put, StateStore, Survival};
use acteon_state_redis::{Protocol, RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};

use super::{config, connect, key, refused, server, start, text, until};

#[tokio::test]
async fn a_unix_socket_works_like_a_port() {
    let server = start(RedisOptions { unix_socket: true, ..RedisOptions::default() });
    let url = format!("unix://{}", server.socket_path().unwrap().display());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let key = key("unix");
    store.put(&key, &Put::new("v")).await.unwrap();
    assert!(server.query(&["GET", &text(&key)]).unwrap().unwrap().ends_with(" v"));
    let missing = refused(RedisConfig::from_url("unix:///nonexistent/redis.sock").unwrap()).await;
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert!(missing.message().contains("/nonexistent/redis.sock"), "{missing}");
}

#[tokio::test]
async fn a_password_is_needed_and_never_shown() {
    let server = start(RedisOptions { password: Some("hunter2".to_owned()), ..RedisOptions::default() });
    let store = connect(&server).await;
    store.ping().await.unwrap();
    assert!(!format!("{store:?}").contains("hunter2"));
    let none = RedisConfig { url: None, port: Some(server.port()), host: Some("127.0.0.1".into()), ..config(&server) };
    let wrong = RedisConfig { password: Some("hunter3".into()), ..none.clone() };
    for config in [none, wrong] {
        let error = refused(config).await;
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::NotApplied), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
    }
}

/// A server that does not know a command repeats what came with it: with HELLO, which is how RESP3 logs in, that is the password.
#[tokio::test]
async fn a_password_that_a_server_repeats_is_not_shown() {
    let settings = vec!["rename-command HELLO \"\"".to_owned()];
    let server = start(RedisOptions { password: Some("hunter2".to_owned()), settings, ..RedisOptions::default() });
    connect(&server).await.ping().await.unwrap();
    let error = refused(RedisConfig { protocol: Protocol::Resp3, ..config(&server) }).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("unknown command 'HELLO'"), "{error}");
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        shown.push_str(&format!("{error} {error:?}"));
        source = error.source();
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn an_acl_user_needs_only_the_documented_rights() {
    let server = server();
    let rights = "on >hunter2 +@read +@write +@scripting +@connection +time ~acteon:* ~{acteon:* \
        +publish +subscribe +unsubscribe &{acteon:* +info +config|get";
    let command: Vec<&str> = ["ACL", "SETUSER", "ada"].into_iter().chain(rights.split_whitespace()).collect();
    server.query(&command).unwrap();
    let url = format!("redis://ada:hunter2@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    exercise(&store).await;
    assert!(!store.lock_semantics().notes.iter().any(|note| note.contains("INFO")));
    wait_for_a_release(&server, &store).await;
    let foreign = RedisConfig { prefix: "other".into(), ..RedisConfig::from_url(&url).unwrap() };
    let foreign = RedisStore::connect(foreign).await.unwrap();
    assert_eq!(foreign.get(&key("foreign"), Get::default()).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_user_that_may_not_ask_or_load_scripts_still_works() {
    let server = server();
    let rights = "on >pw +@all -info -config -script|load ~* resetchannels";
    let command: Vec<&str> = ["ACL", "SETUSER", "ada"].into_iter().chain(rights.split(' ')).collect();
    server.query(&command).unwrap();
    let url = format!("redis://ada:pw@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    exercise(&store).await;
    assert!(store.lock_semantics().notes.iter().any(|note| note.contains("INFO")));
}

/// The script adds first and sets the time to live then.
#[tokio::test]
async fn a_script_that_stops_halfway_for_a_missing_right_is_not_said_to_have_changed_nothing() {
    let server = server();
    server.query(&["ACL", "SETUSER", "ada", "on", ">pw", "+@all", "-pexpire", "~*", "&*"]).unwrap();
    let url = format!("redis://ada:pw@127.0.0.1:{}", server.port());
    let store = RedisStore::connect(RedisConfig::from_url(&url).unwrap()).await.unwrap();
    let key = key("halfway");
    let add = Increment::by(1).window(Counting::OnCreate(Duration::from_secs(60)));
    let error = store.increment(&key, add).await.unwrap_err();
    assert_eq!(server.query(&["GET", &text(&key)]).unwrap().as_deref(), Some("1"));
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
}

/// A waiter subscribes, and is woken by the release.
async fn wait_for_a_release(server: &RedisServer, store: &RedisStore) {
    use acteon_state_core::{LockOutcome, LockRequest};
    let lease = Duration::from_secs(60);
    let holder = LockRequest::new(key("woken"), lease);
    store.lock_acquire(&holder).await.unwrap();
    let waiter = {
        let request = LockRequest { wait: lease, ..LockRequest::new(holder.key.clone(), lease) };
        let store = store.clone();
        tokio::spawn(async move { store.lock_acquire(&request).await })
    };
    until("the waiter has subscribed", || async {
        server.query(&["CLIENT", "LIST"]).unwrap().unwrap().contains(" sub=1 ")
    })
    .await;
    store.lock_release(&holder.key, holder.owner).await.unwrap();
    assert!(matches!(waiter.await.unwrap().unwrap(), LockOutcome::Granted(_)));
    // The right to publish is used from inside of a script, where nobody would hear of its absence.
    let stats = server.query(&["INFO", "commandstats"]).unwrap().unwrap();
    let publish = stats.lines().find(|line| line.starts_with("cmdstat_publish:")).expect("something was published");
    assert!(publish.contains("rejected_calls=0"), "{publish}");
}

/// A few operations of each family.
async fn exercise(store: &RedisStore) {
    use acteon_state_core::{Increment, LockOutcome, LockRequest, ReleaseOutcome, Scan, Scope};
    let key = key("exercise");
    assert!(store.put(&key, &Put::new("v")).await.unwrap().is_applied());
    assert!(store.get(&key, Get::with_ttl()).await.unwrap().is_some());
    assert!(store.take(&key).await.unwrap().is_some());
    store.increment(&key, Increment::by(1)).await.unwrap();
    let request = LockRequest::new(key.clone(), Duration::from_secs(5));
    assert!(matches!(store.lock_acquire(&request).await.unwrap(), LockOutcome::Granted(_)));
    let scope = Scope::new(&key.namespace(), &key.tenant(), &key.kind()).unwrap();
    assert!(store.lock_list(&Scan::new(scope.clone())).await.unwrap().items.iter().any(|lock| lock.key == key));
    assert!(store.scan(&Scan::new(scope)).await.unwrap().items.iter().any(|item| item.key == key));
    assert_eq!(store.lock_release(&key, request.owner).await.unwrap(), ReleaseOutcome::Released);
    assert!(store.lock_inspect(&key).await.unwrap().unwrap().holders.is_empty());
}

#[tokio::test]
async fn database_numbers_are_apart() {
    let server = server();
    let in_db = |db| RedisConfig { db: Some(db), ..config(&server) };
    let (zero, five) = (RedisStore::connect(in_db(0)).await.unwrap(), RedisStore::connect(in_db(5)).await.unwrap());
    let key = key("db");
    five.put(&key, &Put::new("v")).await.unwrap();
    assert_eq!(zero.get(&key, Get::default()).await.unwrap(), None);
    assert!(five.get(&key, Get::default()).await.unwrap().is_some());
    let error = refused(in_db(99)).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_named_and_nothing_was_applied() {
    let mut server = server();
    let config = config(&server);
    server.kill9().unwrap();
    let error = refused(config.clone()).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(error.message().contains(&format!("127.0.0.1:{}", server.port())), "{error}");
    let unknown = RedisConfig::from_url("redis://no-such-host.invalid").unwrap();
    assert!(refused(unknown).await.message().contains("cannot be resolved"));
}

/// Such a server says why, and hangs up before it has read anything: what it said must not be lost with the connection.
#[tokio::test]
async fn a_server_that_takes_no_more_connections_says_so() {
    let server = server();
    let store = connect(&server).await;
    let in_use = store.connection_stats().connections;
    server.query(&["CONFIG", "SET", "maxclients", &in_use.to_string()]).unwrap();
    for protocol in [Protocol::Auto, Protocol::Resp3, Protocol::Resp2] {
        let error = refused(RedisConfig { protocol, ..config(&server) }).await;
        assert_eq!(error.kind(), ErrorKind::Throttled, "{protocol:?}: {error}");
        assert!(error.message().contains("max number of clients reached"), "{error}");
    }
    store.ping().await.unwrap();
}

#[tokio::test]
async fn something_silent_on_the_port_is_given_up_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = RedisConfig {
        host: Some("127.0.0.1".into()),
        port: Some(port),
        connect_timeout: Duration::from_millis(100),
        ..RedisConfig::default()
    };
    let error = refused(config).await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("100ms"), "{error}");
}

#[tokio::test]
async fn a_lazy_store_fails_fast_and_works_once_the_server_is_there() {
    let mut server = server();
    let config = config(&server);
    server.kill9().unwrap();
    let store = RedisStore::connect_lazy(RedisConfig { connect_wait: Duration::from_millis(50), ..config }).unwrap();
    let error = store.put(&key("lazy"), &Put::new("v")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    assert!(store.capabilities().cas && !store.capabilities().durable);
    server.restart().unwrap();
    until("the store is connected", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_replica_is_refused() {
    let primary = server();
    let replica = server();
    replica.query(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    let error = refused(config(&replica)).await;
    assert_eq!(error.kind(), ErrorKind::Failover, "{error}");
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_reports_failover() {
    let (primary, server) = (server(), server());
    let store = connect(&server).await;
    server.query(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
    for error in [
        store.put(&key("replica"), &Put::new("v")).await.unwrap_err(),
        store.put(&key("replica"), &Put::new("v").if_absent()).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Failover, Effect::NotApplied), "{error}");
    }
}

#[tokio::test]
async fn persistence_and_eviction_show_in_what_is_declared() {
    let durable = start(RedisOptions { append_only: true, ..RedisOptions::default() });
    let store = connect(&durable).await;
    assert!(store.capabilities().durable);
    assert_eq!(store.lock_semantics().survives_server_crash, Survival::Yes);
    let settings = ["maxmemory 50mb", "maxmemory-policy allkeys-lru", "proto-max-bulk-len 1mb"].map(str::to_owned);
    let evicting = start(RedisOptions { settings: settings.to_vec(), ..RedisOptions::default() });
    let store = connect(&evicting).await;
    assert!(!store.capabilities().durable && store.capabilities().value_bytes_max < 1 << 20);
    assert_eq!(store.lock_semantics().survives_server_crash, Survival::No);
    assert!(store.lock_semantics().notes.iter().any(|note| note.contains("allkeys-lru")));
    let error = store.put(&key("large"), &Put::new(vec![0; 1 << 20])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn without_memory_writes_are_refused_and_what_frees_still_works() {
    use acteon_state_core::{Condition, Increment, LockRequest, ReleaseOutcome, TransactOp};
    let server = server();
    let store = connect(&server).await;
    let (kept, lock) = (key("kept"), key("lock"));
    store.put(&kept, &Put::new("v")).await.unwrap();
    let request = LockRequest::new(lock.clone(), Duration::from_secs(60));
    store.lock_acquire(&request).await.unwrap();
    server.query(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let transaction = [TransactOp::Delete(kept.clone(), Condition::Always), TransactOp::Put(key("new"), Put::new("v"))];
    for error in [
        store.put(&key("new"), &Put::new("v").if_absent()).await.unwrap_err(),
        store.put(&key("new"), &Put::new("v")).await.unwrap_err(),
        store.increment(&key("new"), Increment::by(1)).await.unwrap_err(),
        store.transact(&transaction).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::OutOfMemory, Effect::NotApplied), "{error}");
    }
    let version = store.get(&kept, Get::default()).await.unwrap().unwrap().version.unwrap();
    assert!(store.delete(&kept, Condition::Version(version)).await.unwrap().is_deleted());
    assert_eq!(store.lock_release(&lock, request.owner).await.unwrap(), ReleaseOutcome::Released);
}

#[tokio::test]
async fn a_closed_store_lets_calls_finish_and_refuses_new_ones() {
    let server = server();
    let store = connect(&server).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.put(&key("close"), &Put::new("v")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await.unwrap();
    for call in calls {
        match call.await.unwrap() {
            Ok(outcome) => assert!(outcome.is_applied()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
        }
    }
    let error = store.get(&key("closed"), Get::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Closed, Some("get")));
    store.close().await.unwrap();
    until("the server sees the connection end", || async {
        server.query(&["CLIENT", "LIST", "TYPE", "NORMAL"]).unwrap().unwrap().lines().count() == 1
    })
    .await;
}
