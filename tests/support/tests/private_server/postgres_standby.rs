//! A standby that follows, is waited for, and takes over.

use std::thread;
use std::time::{Duration, Instant};

use acteon_test_support::{PostgresOptions, PostgresServer};

fn pair() -> (PostgresServer, PostgresServer) {
    let primary = PostgresServer::start(PostgresOptions::default()).unwrap();
    let standby = primary.standby(PostgresOptions::default()).unwrap();
    (primary, standby)
}

/// Returns once `sql` answers as expected: a standby receives what was written a moment later.
fn eventually(server: &PostgresServer, sql: &str, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.query(sql).is_ok_and(|rows| rows == [[Some(expected.to_owned())]]) {
        assert!(Instant::now() < deadline, "{sql} is not {expected}: {:?}", server.query(sql));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_standby_follows_and_only_reads() {
    let (primary, standby) = pair();
    assert_eq!(standby.standby_name(), Some("standby1"));
    primary.query("CREATE TABLE t AS SELECT 7 AS n").unwrap();
    eventually(&standby, "SELECT n FROM t", "7");
    let error = standby.query("INSERT INTO t VALUES (8)").unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn a_restarted_standby_follows_again() {
    let (primary, mut standby) = pair();
    standby.kill9().unwrap();
    primary.query("CREATE TABLE t AS SELECT 7 AS n").unwrap();
    standby.restart().unwrap();
    eventually(&standby, "SELECT n FROM t", "7");
}

#[test]
fn a_promoted_synchronous_standby_has_what_was_committed_and_accepts_writes() {
    let (mut primary, mut standby) = pair();
    primary.set_synchronous_standby(Some("standby1")).unwrap();
    primary.query("CREATE TABLE t AS SELECT 7 AS n").unwrap();
    primary.kill9().unwrap();
    standby.promote().unwrap();
    standby.query("INSERT INTO t VALUES (8)").unwrap();
    eventually(&standby, "SELECT sum(n) FROM t", "15");
    standby.restart().unwrap();
    eventually(&standby, "SELECT pg_is_in_recovery()", "f");
}

#[test]
fn commits_wait_for_the_synchronous_standby_until_it_is_none() {
    let (primary, mut standby) = pair();
    primary.query("CREATE TABLE t (n int)").unwrap();
    primary.set_synchronous_standby(Some("standby1")).unwrap();
    standby.kill9().unwrap();
    thread::scope(|scope| {
        let insert = scope.spawn(|| primary.query("INSERT INTO t VALUES (1)").unwrap());
        eventually(&primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "1");
        assert!(!insert.is_finished());
        primary.set_synchronous_standby(None).unwrap();
        insert.join().unwrap();
    });
}

#[test]
fn a_second_standby_has_a_name_of_its_own() {
    let (primary, _first) = pair();
    let second = primary.standby(PostgresOptions::default()).unwrap();
    assert_eq!(second.standby_name(), Some("standby2"));
    primary.set_synchronous_standby(Some("standby2")).unwrap();
}

#[test]
fn a_dead_server_cannot_be_copied() {
    let mut primary = PostgresServer::start(PostgresOptions::default()).unwrap();
    primary.kill9().unwrap();
    let error = primary.standby(PostgresOptions::default()).unwrap_err();
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[test]
fn a_primary_cannot_be_promoted() {
    let primary = PostgresServer::start(PostgresOptions::default()).unwrap();
    assert!(primary.promote().unwrap_err().to_string().contains("not in standby mode"));
}
