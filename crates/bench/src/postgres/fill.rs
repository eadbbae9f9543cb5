//! What is in the tables before the first turn: entries to read, and a backlog of due items to claim.

use acteon_state_core::StateKey;
use acteon_test_support::PostgresServer;

use crate::Outcome;

/// Entries that are read.
pub(super) const ENTRIES: u64 = 100_000;
/// Items that are due when claims begin.
const BACKLOG: u64 = 1_000_000;
/// Items of one statement: the test server's own client waits for 30 s at most.
const CHUNK: u64 = 250_000;

/// The table of the raw side: what somebody would make who needs a queue in PostgreSQL.
pub(super) const RAW_DUE: &str = "
    CREATE TABLE raw_due (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue text NOT NULL, visible_at timestamptz NOT NULL,
        attempt integer NOT NULL, claim uuid, payload bytea NOT NULL);
    CREATE INDEX ON raw_due (queue, visible_at)";

/// The queue that is claimed from.
pub(super) fn queue() -> Outcome<StateKey> {
    Ok(StateKey::new("bench", "acme", "queue", "backlog")?)
}

/// The queue whose items are due long after the benchmark.
pub(super) fn later() -> Outcome<StateKey> {
    Ok(StateKey::new("bench", "acme", "queue", "later")?)
}

/// Fills both sides' tables; the driver has made its own.
pub(super) fn fill(server: &PostgresServer) -> Outcome {
    server.query(&format!(
        "INSERT INTO acteon_entries (namespace, tenant, kind, id, value, version)
         SELECT 'bench', 'acme', 'postgres', 'entry ' || n, convert_to(repeat('x', 64), 'UTF8'), gen_random_uuid()
           FROM generate_series(0, {ENTRIES} - 1) n"
    ))?;
    server.query(RAW_DUE)?;
    top_up(server)?;
    server.query("VACUUM ANALYZE")?;
    Ok(())
}

/// Brings both backlogs back to their full length.
pub(super) fn top_up(server: &PostgresServer) -> Outcome {
    let mut ours = missing(server, "acteon_due", "queue = 'backlog' AND claim IS NULL", BACKLOG)?;
    while ours > 0 {
        let count = ours.min(CHUNK);
        server.query(&format!(
            "INSERT INTO acteon_due
                    (namespace, tenant, kind, queue, item, due_at_ms, visible_at_ms, place_ms, attempt, payload)
             SELECT 'bench', 'acme', 'queue', 'backlog', gen_random_uuid()::text, n.at, n.at, n.at, 0, convert_to(repeat('x', 64), 'UTF8')
               FROM (SELECT 1700000000000 + generate_series(1, {count}) AS at) n"
        ))?;
        ours -= count;
    }
    // Otherwise the server would do so in the middle of somebody's turn.
    server.query("VACUUM acteon_due")?;
    top_up_raw(server, BACKLOG)
}

/// Brings the backlog of the raw side back to this length.
pub(super) fn top_up_raw(server: &PostgresServer, backlog: u64) -> Outcome {
    let mut theirs = missing(server, "raw_due", "claim IS NULL", backlog)?;
    while theirs > 0 {
        let count = theirs.min(CHUNK);
        server.query(&format!(
            "INSERT INTO raw_due (queue, visible_at, attempt, payload)
             SELECT 'backlog', to_timestamp(1700000000 + n / 1000.0), 0, convert_to(repeat('x', 64), 'UTF8')
               FROM generate_series(1, {count}) n"
        ))?;
        theirs -= count;
    }
    server.query("VACUUM raw_due")?;
    Ok(())
}

/// How many rows of this kind are missing.
fn missing(server: &PostgresServer, table: &str, condition: &str, backlog: u64) -> Outcome<u64> {
    let rows = server.query(&format!("SELECT {backlog} - count(*) FROM {table} WHERE {condition}"))?;
    Ok(rows.into_iter().flatten().flatten().next().ok_or("no count")?.parse()?)
}
