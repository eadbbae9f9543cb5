//! Many nodes, prefixes, schemas and odd settings on one server.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use acteon_state_core::{ErrorKind, FencingToken, Get, Increment, LockOutcome, LockRequest, Put, StateStore};
use acteon_state_postgres::config::MigrateMode;
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::everything::everything_works;
use super::{PATIENCE, ask, config, connect, key, refused, start};

const NODES: usize = 10;
const RACES: usize = 20;
const INCREMENTS: usize = 30;
/// How often each node changes the register under the lock.
const TURNS: usize = 5;

/// What one node was told.
struct Told {
    /// Races that it won.
    won: Vec<usize>,
    counts: Vec<i64>,
    /// Tokens and what the register held when they were granted.
    grants: Vec<(FencingToken, usize)>,
}

#[test]
fn ten_nodes_migrate_one_fresh_prefix_at_the_same_moment_and_work_at_once() {
    let server = start();
    let config = PostgresConfig { prefix: "ten_".to_owned(), connections: 2, ..config(&server.url()) };
    let barrier = Arc::new(Barrier::new(NODES));
    // Each on a runtime of its own, as separate processes would be.
    let nodes: Vec<_> = (0..NODES)
        .map(|node| {
            let (config, barrier) = (config.clone(), barrier.clone());
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                barrier.wait();
                runtime.block_on(work(node, config))
            })
        })
        .collect();
    let told: Vec<Told> = nodes.into_iter().map(|node| node.join().unwrap()).collect();
    let versions = ask(&server, "SELECT count(*) = max(version) AND min(version) = 1 FROM ten_schema");
    assert_eq!(versions, "t", "each migration was applied once");

    let sorted = |mut numbers: Vec<i64>| {
        numbers.sort_unstable();
        numbers
    };
    let won = told.iter().flat_map(|told| &told.won).map(|race| i64::try_from(*race).unwrap()).collect();
    assert_eq!(sorted(won), (0..20).collect::<Vec<_>>(), "each race has one winner");
    let counts = told.iter().flat_map(|told| &told.counts).copied().collect();
    assert_eq!(sorted(counts), (1..=300).collect::<Vec<_>>(), "each number was reached once");
    let mut grants: Vec<_> = told.into_iter().flat_map(|told| told.grants).collect();
    grants.sort_unstable();
    let seen: Vec<usize> = grants.iter().map(|(_, register)| *register).collect();
    assert_eq!(
        seen,
        (0..NODES * TURNS).collect::<Vec<_>>(),
        "each holder, in the order of the tokens, saw the one before"
    );
    assert!(grants.windows(2).all(|pair| pair[0].0 < pair[1].0), "{grants:?}");
}

async fn work(node: usize, config: PostgresConfig) -> Told {
    let store = connect(config).await;
    let mut told = Told { won: Vec::new(), counts: Vec::new(), grants: Vec::new() };
    for race in 0..RACES {
        let put = Put::new(node.to_string()).if_absent();
        if store.put(&key("race", &race.to_string()), &put).await.unwrap().is_applied() {
            told.won.push(race);
        }
    }
    for _ in 0..INCREMENTS {
        told.counts.push(store.increment(&key("count", "k"), Increment::by(1)).await.unwrap().counter().value);
    }
    for _ in 0..TURNS {
        told.grants.push(take_turn(&store).await);
    }
    store.close().await.unwrap();
    told
}

/// Adds one to a register in two steps, which only the lock keeps together.
async fn take_turn(store: &PostgresStore) -> (FencingToken, usize) {
    let register = key("register", "k");
    let request = LockRequest { wait: PATIENCE, ..LockRequest::new(register.clone(), PATIENCE) };
    let LockOutcome::Granted(grant) = store.lock_acquire(&request).await.unwrap() else {
        panic!("the lock was never free")
    };
    let entry = store.get(&register, Get::default()).await.unwrap();
    let value = entry.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap());
    let put = Put::new((value + 1).to_string()).fenced_by(grant.token);
    assert!(store.put(&register, &put).await.unwrap().is_applied());
    store.lock_release(&register, request.owner).await.unwrap();
    (grant.token, value)
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program_is_refused_with_both_versions() {
    let server = start();
    let config = PostgresConfig { prefix: "newer_".to_owned(), ..config(&server.url()) };
    let running = connect(config.clone()).await;
    let known: i32 = ask(&server, "SELECT max(version) FROM newer_schema").parse().unwrap();
    server.query("INSERT INTO newer_schema (version, name) VALUES (4711, 'of the future')").unwrap();
    let check = PostgresConfig { migrate: MigrateMode::Check, ..config.clone() };
    let migrated = PostgresStore::migrate(config.clone()).await.unwrap_err();
    for error in [refused(config).await, refused(check).await, migrated] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let names_both = error.message().contains("4711") && error.message().contains(&known.to_string());
        assert!(names_both && error.message().contains("newer program"), "{error}");
    }
    everything_works(&running, "a node that runs already goes on").await;
    running.close().await.unwrap();
}

#[tokio::test]
async fn check_refuses_an_empty_database_and_says_what_to_run() {
    let server = start();
    let auto = PostgresConfig { schema: "fresh".to_owned(), ..config(&server.url()) };
    let check = PostgresConfig { migrate: MigrateMode::Check, ..auto.clone() };
    let error = refused(check.clone()).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("acteon-server migrate"), "{error}");
    assert_eq!(ask(&server, "SELECT to_regnamespace('fresh') IS NULL"), "t", "to check is not to create");

    let first = PostgresStore::migrate(auto.clone()).await.unwrap();
    let second = PostgresStore::migrate(auto).await.unwrap();
    assert!(
        first.from == 0 && first.to > 0 && second.from == first.to && second.to == first.to,
        "{first:?} {second:?}"
    );
    let store = connect(check).await;
    everything_works(&store, "checked").await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn prefixes_and_schemas_of_any_name_share_a_database_and_do_not_meet() {
    let server = start();
    let longest = "x".repeat(32);
    let places = [
        ("public", "acteon_"),
        ("public", "acteon_2_"),
        ("acteon_", "public"),
        ("select", "table"),
        ("0", "_"),
        (&*longest, &*longest),
    ];
    let mut stores = Vec::new();
    for (schema, prefix) in places {
        let place = PostgresConfig { schema: schema.to_owned(), prefix: prefix.to_owned(), ..config(&server.url()) };
        stores.push(connect(place).await);
    }
    let (value, counter) = (key("shared", "value"), key("shared", "counter"));
    let request = LockRequest::new(key("shared", "lock"), Duration::from_secs(60));
    for (store, place) in stores.iter().zip(places) {
        assert!(
            store.put(&value, &Put::new(format!("{place:?}")).if_absent()).await.unwrap().is_applied(),
            "{place:?}"
        );
        assert_eq!(store.increment(&counter, Increment::by(1)).await.unwrap().counter().value, 1, "{place:?}");
        let request = LockRequest::new(request.key.clone(), request.lease);
        assert!(matches!(store.lock_acquire(&request).await.unwrap(), LockOutcome::Granted(_)), "{place:?}");
        everything_works(store, "side by side").await;
    }
    for (store, place) in stores.iter().zip(places) {
        let entry = store.get(&value, Get::default()).await.unwrap().unwrap();
        assert_eq!(entry.value, format!("{place:?}"));
        store.close().await.unwrap();
    }
}

/// Defaults that somebody else's application may have needed.
const ODD_DEFAULTS: [&str; 16] = [
    "synchronous_commit = off",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "search_path = ''",
    "statement_timeout = '1s'",
    "lock_timeout = '300ms'",
    "standard_conforming_strings = off",
    "bytea_output = escape",
    "array_nulls = off",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "client_encoding = 'LATIN1'",
    "extra_float_digits = -15",
];
/// Longer than the timeouts among them.
const BLOCKED: Duration = Duration::from_millis(1_300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_defaults_of_the_role_change_nothing() {
    let server = start();
    server.query("CREATE ROLE odd LOGIN PASSWORD 'odd'; GRANT CREATE ON SCHEMA public TO odd").unwrap();
    for default in ODD_DEFAULTS {
        server.query(&format!("ALTER ROLE odd SET {default}")).unwrap();
    }
    let config = config(&format!("postgres://odd:odd@{}/postgres", server.address()));
    let (one, other) = tokio::join!(connect(config.clone()), connect(config));
    // At one counter, where serializable transactions would fail.
    let counter = key("odd", "counter");
    let count = async |store: &PostgresStore| {
        for _ in 0..100 {
            store.increment(&counter, Increment::by(1)).await.unwrap();
        }
    };
    tokio::join!(everything_works(&one, "odd 1"), everything_works(&other, "odd 2"), count(&one), count(&other));
    assert_eq!(one.get(&counter, Get::default()).await.unwrap().unwrap().value, "200");

    // Somebody's own transaction keeps the row for a while.
    let mut blocker = PgConnection::connect(&server.url()).await.unwrap();
    blocker.execute("BEGIN; SELECT FROM acteon_entries WHERE id = 'counter' FOR UPDATE").await.unwrap();
    let release = async {
        tokio::time::sleep(BLOCKED).await;
        blocker.execute("COMMIT").await.unwrap();
    };
    let (counted, ()) = tokio::join!(one.increment(&counter, Increment::by(1)), release);
    assert_eq!(counted.unwrap().counter().value, 201, "the driver's own timeouts count");
    for store in [one, other] {
        store.close().await.unwrap();
    }
}
