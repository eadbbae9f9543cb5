//! Servers that crash, freeze, or wait for a standby that does not come: what was acknowledged stays, and every call says
//! what happened to it.

use std::time::{Duration, Instant};

use acteon_state_core::{DueAt, Effect, ErrorKind, Get, Increment, LockRequest, Put, RateLimit, Schedule, StateStore};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresDisk, PostgresOptions, PostgresServer};
use futures_util::future::join_all;

use super::findings::{Findings, forgotten, hold};
use super::load::{Dice, Load};
use super::{config, connect, key, start, start_durable, until};

/// On top of a timeout, for a machine that is busy with something else.
const GRACE: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_during_writes_loses_nothing_that_was_acknowledged() {
    const SEED: u64 = 3;
    let mut server = start_durable();
    let store = connect(config(&server.url())).await;
    let mut dice = Dice(SEED);
    let mut held = Vec::new();
    let load = Load::start(&store, "crash", SEED);
    for round in 0..3 {
        load.until_acknowledged(50 + usize::try_from(dice.below(300)).unwrap()).await;
        held.extend(hold(&store, &format!("crash {round}"), 5).await);
        server.kill9().unwrap();
        load.until_failing().await;
        assert_outage_is_told(&store).await;
        server.restart().unwrap();
    }
    load.until_acknowledged(100).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "crash", ledger).await.assert_none(SEED);
    assert_eq!(forgotten(&store, &held).await, 0, "grants are durable");
    store.close().await.unwrap();
}

/// Without room for its log the server breaks everything off. Commits that it was just writing may be in the log nevertheless: a client that
/// takes the answer for a refusal counts wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_room_loses_nothing_and_brings_no_write_back_that_was_refused() {
    const SEED: u64 = 5;
    // For segments of 16 MiB, of which two are kept.
    const LOG_BYTES: u64 = 96 << 20;
    let options = PostgresOptions {
        durable: true,
        small_disk: Some((PostgresDisk::Log, LOG_BYTES)),
        settings: vec!["min_wal_size = '32MB'".to_owned(), "max_wal_size = '48MB'".to_owned()],
        ..PostgresOptions::default()
    };
    let mut server = PostgresServer::start(options).unwrap();
    let store = connect(config(&server.url())).await;
    let load = Load::start(&store, "log", SEED);
    for _ in 0..3 {
        load.until_acknowledged(100).await;
        server.disk().unwrap().fill().unwrap();
        // The next segment is one that is not there yet, sooner or later.
        until("the log has no room", || async { server.query("SELECT pg_switch_wal()").is_err() }).await;
        load.until_failing().await;
        server.disk().unwrap().free().unwrap();
        server.restart().unwrap();
    }
    load.until_acknowledged(100).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "log", ledger).await.assert_none(SEED);
    store.close().await.unwrap();
}

/// Without a server, every call fails soon and has changed nothing.
async fn assert_outage_is_told(store: &PostgresStore) {
    let key = key("outage", "k");
    until("the outage is known", || async {
        store.ping().await.is_err_and(|error| error.message().starts_with("no connection"))
    })
    .await;
    let schedule = Schedule { id: "i".to_owned(), due_at: DueAt::UnixMs(1), payload: "p".into() };
    let errors = [
        store.get(&key, Get::default()).await.map(drop),
        store.put(&key, &Put::new("v")).await.map(drop),
        store.increment(&key, Increment::by(1)).await.map(drop),
        store.rate_limit(&key, &RateLimit::gcra(1, GRACE, 1)).await.map(drop),
        store.lock_acquire(&LockRequest { wait: GRACE, ..LockRequest::new(key.clone(), GRACE) }).await.map(drop),
        store.schedule(&key, &schedule).await.map(drop),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    }
}

#[tokio::test]
async fn a_frozen_server_costs_each_call_its_timeout_and_the_queue_stays_bounded() {
    const CALLS: usize = 40;
    const QUEUE: usize = 10;
    let server = start();
    let operation_timeout = Duration::from_millis(600);
    let store = connect(PostgresConfig {
        operation_timeout,
        connect_timeout: operation_timeout,
        queue_max: QUEUE,
        connections: 4,
        // It would be the one that is sent.
        sweep_interval: Duration::ZERO,
        ..config(&server.url())
    })
    .await;
    let keys: Vec<_> = (0..CALLS).map(|number| key("frozen", &number.to_string())).collect();
    store.put(&keys[0], &Put::new("before")).await.unwrap();
    server.pause().unwrap();

    // The only connection: this one was sent, so nobody knows.
    let (put, began) = (Put::new("during"), Instant::now());
    let sent = store.put(&keys[0], &put).await.unwrap_err();
    assert_eq!((sent.kind(), sent.effect()), (ErrorKind::Timeout, Effect::Unknown), "{sent}");
    assert!((operation_timeout..operation_timeout + GRACE).contains(&began.elapsed()), "{:?}", began.elapsed());

    let began = Instant::now();
    let writes = join_all(keys.iter().map(|key| async { store.put(key, &put).await.unwrap_err() })).await;
    let reads = join_all(keys.iter().map(|key| async { store.get(key, Get::default()).await.unwrap_err() })).await;
    assert!(began.elapsed() < 2 * (operation_timeout + GRACE), "{:?}", began.elapsed());
    for (errors, what) in [(&writes, "writes"), (&reads, "reads")] {
        for error in errors {
            let expected = [ErrorKind::Timeout, ErrorKind::Throttled, ErrorKind::Unavailable];
            assert!(expected.contains(&error.kind()), "{what}: {error}");
            assert_eq!(error.effect(), Effect::NotApplied, "{what}: no connection took it: {error}");
        }
    }
    let throttled = writes.iter().filter(|error| error.kind() == ErrorKind::Throttled).count();
    assert_eq!(throttled, CALLS - QUEUE, "{writes:?}");

    server.resume().unwrap();
    until("the store works again", || async { store.put(&keys[1], &Put::new("after")).await.is_ok() }).await;
    let first = store.get(&keys[0], Get::default()).await.unwrap().unwrap().value;
    assert!(first == "before" || first == "during", "{first:?}");
    assert_eq!(store.get(&keys[2], Get::default()).await.unwrap(), None, "what was not applied does not come later");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_freezes_during_writes_applies_none_of_them_twice() {
    const SEED: u64 = 4;
    let server = start();
    let timeout = Duration::from_millis(400);
    let store =
        connect(PostgresConfig { operation_timeout: timeout, connect_timeout: timeout, ..config(&server.url()) }).await;
    let load = Load::start(&store, "freeze", SEED);
    for _ in 0..2 {
        load.until_acknowledged(150).await;
        server.pause().unwrap();
        load.until_failing().await;
        // Connections are given up and opened anew; what they had sent is applied when the server goes on.
        until("the outage is known", || async {
            store.ping().await.is_err_and(|error| error.message().starts_with("no connection"))
        })
        .await;
        server.resume().unwrap();
    }
    load.until_acknowledged(150).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "freeze", ledger).await.assert_none(SEED);
    store.close().await.unwrap();
}

#[tokio::test]
async fn relaxed_kinds_do_not_wait_for_their_commit_and_locks_and_other_kinds_always_do() {
    // A standby that is waited for and never comes shows which commits wait.
    let settings = vec!["synchronous_standby_names = 'nobody'".to_owned()];
    let server = PostgresServer::start(PostgresOptions { settings, ..PostgresOptions::default() }).unwrap();
    server.query("SET synchronous_commit = off; ALTER ROLE acteon SET synchronous_commit = off").unwrap();
    let store = connect(PostgresConfig {
        relaxed: vec!["relaxed".to_owned()],
        operation_timeout: Duration::from_millis(400),
        ..config(&server.url())
    })
    .await;
    let minute = Duration::from_secs(60);
    let relaxed = key("relaxed", "k");
    store.put(&relaxed, &Put::new("1")).await.unwrap();
    store.take(&relaxed).await.unwrap();
    store.increment(&relaxed, Increment::by(1)).await.unwrap();
    store.rate_limit(&relaxed, &RateLimit::gcra(1, minute, 1)).await.unwrap();
    let read = store.get(&relaxed, Get::default()).await.unwrap().unwrap();
    assert_eq!(read.value, "1");

    let durable = key("durable", "k");
    let schedule = Schedule { id: "i".to_owned(), due_at: DueAt::UnixMs(1), payload: "p".into() };
    let waiting = [
        store.put(&durable, &Put::new("1")).await.map(drop),
        store.increment(&key("durable", "counter"), Increment::by(1)).await.map(drop),
        store.rate_limit(&durable, &RateLimit::gcra(1, minute, 1)).await.map(drop),
        store.schedule(&relaxed, &schedule).await.map(drop),
        // A lock is durable whatever its kind.
        store.lock_acquire(&LockRequest::new(relaxed.clone(), minute)).await.map(drop),
    ];
    for (place, waited) in waiting.into_iter().enumerate() {
        let error = waited.expect_err(&format!("write {place} did not wait for its commit"));
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown), "write {place}: {error}");
    }
    server.query("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()").unwrap();
    until("durable writes come through", || async { store.put(&durable, &Put::new("2")).await.is_ok() }).await;
    store.close().await.unwrap();
}
