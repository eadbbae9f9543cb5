//! Nobody gets anything run with our rights by putting functions and operators where PostgreSQL finds them first.

use std::time::Duration;

use acteon_state_core::{
    Condition, DueAt, Get, Increment, LockRequest, Put, RateLimit, Scan, Schedule, StateStore, TransactOp,
    TransactOutcome,
};
use acteon_state_postgres::TxLockOutcome;
use acteon_state_postgres::sqlx::{self, PgConnection};

use super::{ask, config, connect, key, scope, start};

/// What others could have put there: all of it tells on who runs it.
const TRAPS: &str = "
    CREATE SCHEMA traps;
    CREATE TABLE traps.caught (what text);
    CREATE FUNCTION traps.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.now() $$;
    CREATE FUNCTION traps.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO traps.caught VALUES ('clock'); RETURN pg_catalog.clock_timestamp(); END $$;
    CREATE FUNCTION traps.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO traps.caught VALUES ('setting'); RETURN pg_catalog.set_config($1, $2, $3); END $$;
    CREATE FUNCTION traps.current_setting(text) RETURNS text LANGUAGE plpgsql
        AS $$ BEGIN
            IF NOT pg_catalog.pg_is_in_recovery() AND NOT (pg_catalog.current_setting('transaction_read_only')::boolean) THEN
                INSERT INTO traps.caught VALUES ('question');
            END IF;
            RETURN pg_catalog.current_setting($1);
        END $$;
    CREATE FUNCTION traps.same(text, text) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO traps.caught VALUES ('='); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE OPERATOR traps.= (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.same);
    CREATE FUNCTION traps.times(numeric, integer) RETURNS numeric LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO traps.caught VALUES ('*'); RETURN $1 OPERATOR(pg_catalog.*) $2::numeric; END $$;
    CREATE OPERATOR traps.* (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = traps.times);
    CREATE FUNCTION traps.plus(numeric, bigint) RETURNS numeric LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO traps.caught VALUES ('+'); RETURN $1 OPERATOR(pg_catalog.+) $2::numeric; END $$;
    CREATE OPERATOR traps.+ (LEFTARG = numeric, RIGHTARG = bigint, FUNCTION = traps.plus);
    CREATE TABLE traps.accounts (cents bigint);
    GRANT USAGE ON SCHEMA traps TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA traps TO PUBLIC";

#[tokio::test]
async fn what_a_search_path_leads_to_is_never_run() {
    let server = start();
    server.query(TRAPS).unwrap();
    server.query("ALTER ROLE acteon SET search_path = traps, pg_catalog, public").unwrap();
    let store = connect(config(&server)).await;
    let minute = Duration::from_secs(60);
    store.put(&key("v"), &Put::new("v").expires_after(minute)).await.unwrap();
    assert!(store.get(&key("v"), Get::default()).await.unwrap().is_some());
    store.increment(&key("c"), Increment::by(1).at_most(5)).await.unwrap();
    let ops = [TransactOp::Check(key("none"), Condition::Absent), TransactOp::Put(key("v"), Put::new("w"))];
    assert_eq!(store.transact(&ops).await.unwrap(), TransactOutcome::Committed);
    assert_eq!(store.scan(&Scan::new(scope())).await.unwrap().items.len(), 2);
    assert!(store.rate_limit(&key("r"), &RateLimit::gcra(1, minute, 1)).await.unwrap().allowed);
    store.lock_acquire(&LockRequest::new(key("l"), minute)).await.unwrap();
    let schedule = Schedule { id: "i".to_owned(), due_at: DueAt::UnixMs(1), payload: "p".into() };
    store.schedule(&key("q"), &schedule).await.unwrap();
    let work = async |tx: &mut PgConnection| {
        // The caller's own statements find what the caller's search path says.
        sqlx::query("INSERT INTO accounts VALUES ($1)").bind(7_i64).execute(&mut *tx).await.unwrap();
        Ok::<_, acteon_state_core::Error>(())
    };
    let done = store.with_tx_lock(&key("t"), minute, work).await.unwrap();
    assert!(matches!(done, TxLockOutcome::Done(())));
    store.close().await.unwrap();
    assert_eq!(ask(&server, "SELECT count(*) FROM traps.accounts"), "1");
    let caught = server.query("SELECT DISTINCT what FROM traps.caught").unwrap();
    assert!(caught.is_empty(), "{caught:?}");
}
