//! Statements touch what they are about, whatever the planner knows of the tables.

use std::time::Duration;

use acteon_state_core::{BatchOp, Condition, Get, Increment, LockRequest, Put, Scan, StateStore, TransactOp};
use acteon_state_postgres::{PostgresConfig, PostgresStore};

use super::{ask, config, connect, gone, key, scope, start};

/// Rows of the two tables that were fetched so far, by index or by reading all of a table.
const FETCHED: &str = "SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) FROM pg_stat_user_tables
    WHERE relname IN ('acteon_entries', 'acteon_locks')";
/// Much more than any statement is about.
const ROWS: &str = "
    INSERT INTO acteon_entries (namespace, tenant, kind, id, counter)
    SELECT 'core', 'tests', 'k', n::text, 1 FROM generate_series(100, 30000) n ON CONFLICT DO NOTHING;
    INSERT INTO acteon_locks (namespace, tenant, kind, id, last_token, holders, waited_until_us, expires_at_us)
    SELECT 'core', 'tests', 'k', n::text, 1, '{}', 0, 0 FROM generate_series(100, 30000) n ON CONFLICT DO NOTHING";
const ROUNDS: usize = 10;

/// A listing was planned well for its first five calls, and from the sixth on, which the server does not plan for its arguments
/// any more, it read from the beginning of the prefix to the end of the kind.
#[tokio::test]
async fn every_statement_reads_only_what_it_is_about() {
    let server = start();
    // Nothing is ever analysed, and the plans are made while the tables are empty.
    server.query("ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf()").unwrap();
    let store = connect(PostgresConfig { sweep_interval: Duration::ZERO, connections: 1, ..config(&server) }).await;
    for _ in 0..ROUNDS {
        assert_eq!(listed(&store).await, 0);
    }
    server.query(ROWS).unwrap();
    for _ in 0..ROUNDS {
        assert_eq!(listed(&store).await, 11);
    }
    store.close().await.unwrap();
    gone(&server).await;
    let fetched: usize = ask(&server, FETCHED).parse().unwrap();
    assert!(fetched < 2 * ROUNDS * 40, "{fetched} rows were fetched");
}

/// Calls everything once. How many ids a listing returned.
async fn listed(store: &PostgresStore) -> usize {
    let scan = Scan::new(scope()).id_prefix("1234");
    store.lock_list(&scan).await.unwrap();
    store.lock_acquire(&LockRequest::new(key("77"), Duration::from_secs(60))).await.unwrap();
    store.get(&key("77"), Get::default()).await.unwrap();
    store.put(&key("88"), &Put::new("v")).await.unwrap();
    store.increment(&key("counter"), Increment::by(1)).await.unwrap();
    // More than one row to write and to remove: they are joined by their places.
    let ops = ["1", "2", "3", "4"].map(|id| BatchOp::Put(key(id), Put::new("v")));
    store.batch(&ops).await.unwrap();
    store.batch(&["1", "2"].map(|id| BatchOp::Take(key(id)))).await.unwrap();
    let ops = [TransactOp::Check(key("none"), Condition::Absent), TransactOp::Put(key("99"), Put::new("v"))];
    store.transact(&ops).await.unwrap();
    store.scan(&scan).await.unwrap().items.len()
}
