//! A standby takes over under load: clients follow by themselves, tokens keep rising, and what is lost is what
//! `lock_semantics` said.

use std::fs::File;

use acteon_state_core::{ErrorKind, Get, Put, StateStore, Survival};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};

use super::findings::{Findings, forgotten, hold};
use super::load::Load;
use super::{config, connect, key, start, until};

const HELD: usize = 20;

/// A primary and its standby.
struct Pair {
    primary: PostgresServer,
    standby: PostgresServer,
}

impl Pair {
    fn start() -> Self {
        let options = || PostgresOptions { durable: true, ..PostgresOptions::default() };
        let primary = PostgresServer::start(options()).unwrap();
        let standby = primary.standby(options()).unwrap();
        // Synchronous once, it is surely connected, and stays so.
        primary.set_synchronous_standby(standby.standby_name()).unwrap();
        Self { primary, standby }
    }

    /// Both hosts, the primary last.
    fn config(&self) -> PostgresConfig {
        let Self { primary, standby } = self;
        let (user, password) = (primary.user(), primary.password());
        config(&format!("postgres://{user}:{password}@{},{}/postgres", standby.address(), primary.address()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_takes_over_with_every_write_and_every_grant() {
    const SEED: u64 = 21;
    let mut pair = Pair::start();
    let store = connect(pair.config()).await;
    let before = store.lock_semantics();
    assert_eq!(before.topology, "postgres, synchronous standby");
    assert_eq!((before.survives_failover, &*before.tokens_rise_across), (Survival::Yes, "failover"));

    let load = Load::start(&store, "synchronous", SEED);
    load.until_acknowledged(300).await;
    let held = hold(&store, "synchronous", HELD).await;
    pair.primary.kill9().unwrap();
    load.until_failing().await;
    pair.standby.promote().unwrap();
    load.until_acknowledged(300).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "synchronous", ledger).await.assert_none(SEED);
    assert_eq!(forgotten(&store, &held).await, 0, "seed {SEED}: grants were lost");
    assert_alone(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asynchronous_standby_takes_over_with_what_it_had_received() {
    const SEED: u64 = 22;
    let mut pair = Pair::start();
    pair.primary.set_synchronous_standby(None).unwrap();
    let store = connect(pair.config()).await;
    let before = store.lock_semantics();
    assert_eq!(before.topology, "postgres, asynchronous standby");
    assert_eq!(before.survives_failover, Survival::MayBeLost { bound: "what the standby had not received" });
    assert_eq!(before.tokens_rise_across, "failover (time floor)");

    let load = Load::start(&store, "asynchronous", SEED);
    load.until_acknowledged(300).await;
    let kept = hold(&store, "asynchronous kept", HELD).await;
    wait_until_received(&pair);
    // From here on the standby receives nothing, so this is what a failover costs.
    pair.standby.kill9().unwrap();
    load.until_acknowledged(200).await;
    let lost = hold(&store, "asynchronous lost", HELD).await;
    pair.primary.kill9().unwrap();
    load.until_failing().await;
    pair.standby.restart().unwrap();
    pair.standby.promote().unwrap();
    load.until_acknowledged(300).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    let findings = Findings::of(&store, "asynchronous", ledger).await;
    assert!(findings.wrong.is_empty(), "seed {SEED}: {findings}");
    // Whoever gets a lock again has a higher token, which `forgotten` checks.
    let grants_lost = [forgotten(&store, &kept).await, forgotten(&store, &lost).await];
    eprintln!("{} findings of lost writes, {} of {} grants lost", findings.lost.len(), grants_lost[1], lost.len());
    assert!(!findings.lost.is_empty(), "seed {SEED}: this test is to show losses");
    assert_eq!(grants_lost, [0, HELD], "seed {SEED}: what the standby had received, and what it had not");
    assert_alone(&store).await;
}

/// Returns once the standby has applied all that was committed by now.
fn wait_until_received(pair: &Pair) {
    let position = pair.primary.query("SELECT pg_current_wal_lsn()").unwrap().concat().pop().flatten().unwrap();
    let is_there = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    while pair.standby.query(&is_there).unwrap() != [[Some("t".to_owned())]] {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The new primary has no standby, and says so.
async fn assert_alone(store: &PostgresStore) {
    let after = store.lock_semantics();
    assert_eq!((&*after.topology, after.survives_failover), ("postgres, no standby", Survival::NotApplicable));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_over_under_load_loses_nothing_and_the_old_primary_is_left_alone() {
    const SEED: u64 = 23;
    let mut pair = Pair::start();
    let store = connect(pair.config()).await;
    let load = Load::start(&store, "switch", SEED);
    load.until_acknowledged(300).await;
    let held = hold(&store, "switch", HELD).await;
    pair.primary.stop_fast().unwrap();
    load.until_failing().await;
    // It comes back before the other one is promoted: both can be reached, and neither takes writes.
    File::create(pair.primary.folder().join("data/standby.signal")).unwrap();
    pair.primary.restart().unwrap();
    let probe = key("switch", "probe");
    until("both are known to be read-only", || async {
        store.put(&probe, &Put::new("v")).await.is_err_and(|error| error.message().contains("standby"))
    })
    .await;
    pair.standby.promote().unwrap();
    load.until_acknowledged(300).await;
    let ledger = load.stop().await;
    eprintln!("{} writes were acknowledged; failures: {:?}", ledger.acknowledged, ledger.failures);
    Findings::of(&store, "switch", ledger).await.assert_none(SEED);
    assert_eq!(forgotten(&store, &held).await, 0, "seed {SEED}: grants were lost");
    let is_alone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'acteon'";
    assert_eq!(pair.primary.query(is_alone).unwrap(), [[Some("t".to_owned())]]);
    assert_alone(&store).await;
}

#[tokio::test]
async fn a_primary_that_is_made_read_only_is_obeyed_by_open_connections() {
    let server = start();
    let store = connect(config(&server.url())).await;
    let key = key("read only", "k");
    store.put(&key, &Put::new("1")).await.unwrap();
    let set = |on: &str| {
        server
            .query(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}; SELECT pg_reload_conf()"))
            .unwrap();
    };
    set("on");
    until("writes are refused", || async {
        store.put(&key, &Put::new("2")).await.is_err_and(|error| error.kind() == ErrorKind::Failover)
    })
    .await;
    until("reads are refused as well", || async { store.get(&key, Get::default()).await.is_err() }).await;
    set("off");
    until("writes are taken again", || async { store.put(&key, &Put::new("3")).await.is_ok() }).await;
    store.close().await.unwrap();
}
