//! The server on a PostgreSQL of the test's own: migrating, checking, and what people read who got something wrong.

use acteon_test_support::{PostgresOptions, PostgresServer};
use rustix::process::Signal;

use crate::support::{Finished, Process, action, client, folder, run, run_in};

const VERSION_ABOVE_ALL: i32 = 4_000;

fn postgres() -> PostgresServer {
    PostgresServer::start(PostgresOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn toml(url: &str, more: &str) -> String {
    format!("[server]\nport = 0\n[state]\nbackend = \"postgres\"\nurl = \"{url}\"\n{more}")
}

/// The URL for another user of the same server.
fn url_of(server: &PostgresServer, user: &str) -> String {
    format!("postgres://{user}:hunter2@{}/postgres", server.address())
}

fn sql(server: &PostgresServer, statements: &str) {
    server.query(statements).unwrap_or_else(|error| panic!("{error}"));
}

/// It failed, and stderr says all of this and no password.
fn assert_refused(finished: &Finished, server: &PostgresServer, parts: &[&str]) {
    let Finished { code, stderr, stdout } = finished;
    assert_eq!(*code, Some(1), "{stderr}{stdout}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
    for secret in ["hunter2", server.password()] {
        assert!(!stderr.contains(secret) && !stdout.contains(secret), "{stderr}{stdout}");
    }
}

fn assert_done(finished: &Finished, parts: &[&str]) {
    let Finished { code, stderr, stdout } = finished;
    assert_eq!(*code, Some(0), "{stderr}{stdout}");
    for part in parts {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
}

#[test]
fn migrating_tells_the_versions_once_and_then_that_nothing_is_left() {
    let server = postgres();
    let folder = folder(&toml(&server.url(), "[state.postgres]\nmigrate = \"check\"\n"));
    let run = |arguments: &[&str]| run_in(folder.path(), arguments, &[]);

    // Nobody has made the tables, and this server may not.
    for arguments in [&[][..], &["check"]] {
        let refused = run(arguments);
        assert_refused(&refused, &server, &["acteon.toml:7", "schema version 0", "run `acteon-server migrate`"]);
    }
    let missing = run(&["migrate", "--check"]);
    assert_refused(&missing, &server, &["the schema is not up to date", "missing in: state", "acteon-server migrate"]);
    assert!(missing.stdout.starts_with("state: postgres has schema version 0, and version "), "{}", missing.stdout);

    assert_done(&run(&["migrate"]), &["state: postgres was migrated from schema version 0 to "]);
    for again in [&["migrate"][..], &["migrate", "--check"]] {
        assert_done(&run(again), &["state: postgres has schema version ", "there is nothing to migrate"]);
    }
    assert_done(&run(&["check"]), &["which is up to date", "Everything is in order"]);
}

#[test]
fn locks_elsewhere_are_migrated_too() {
    let server = postgres();
    let lock = format!("[state.lock]\nbackend = \"postgres\"\nurl = \"{}\"\nprefix = \"locks_\"\n", server.url());
    let config = format!("[state]\nbackend = \"memory\"\n{lock}");
    let finished = run(&config, &["migrate"]);
    assert_done(
        &finished,
        &["state: memory has no schema", "state.lock: postgres was migrated from schema version 0 to "],
    );
    let tables = server.query("SELECT to_regclass('public.locks_locks')").expect("a query");
    assert_eq!(tables, [[Some("locks_locks".to_owned())]]);
}

#[test]
fn check_shows_what_locks_on_postgres_guarantee_and_how_to_make_it_more() {
    let server = postgres();
    let finished = run(&toml(&server.url(), ""), &["check"]);
    assert_done(
        &finished,
        &[
            "Backend: postgres",
            "transactions:  over any keys",
            "Locks: postgres, no standby",
            "survives failover:",
            "note: A lease does not stop a paused holder",
            "note: No standby was connected",
            "note: fsync is off",
            "synchronous_standby_names",
        ],
    );
    assert!(!finished.stdout.contains(server.password()), "{}", finished.stdout);
    assert_done(&finished, &["Schema of state on postgres: version 0: a start creates it in version "]);
    // It says of itself that it writes nothing.
    let tables = server.query("SELECT count(*) FROM pg_class WHERE relname LIKE 'acteon%'").expect("a query");
    assert_eq!(tables, [[Some("0".to_owned())]]);
}

#[test]
fn a_server_starts_on_an_empty_database_and_stops_cleanly() {
    let server = postgres();
    let mut process = Process::start(&toml(&server.url(), ""), &[]);
    let line = process.wait_for_log("acteon is ready");
    assert!(line.contains("backend=\"postgres\"") || line.contains("backend=postgres"), "{line}");
    process.signal(Signal::TERM);
    assert!(process.wait().success(), "{}", process.log());
}

#[test]
fn wrong_credentials_say_which_to_check() {
    let server = postgres();
    let finished = run(&toml(&url_of(&server, "acteon"), ""), &[]);
    assert_refused(&finished, &server, &["postgres://acteon:***@", "password authentication failed", "check username"]);
    let finished = run(&toml(&url_of(&server, "nobody"), ""), &["migrate"]);
    assert_refused(
        &finished,
        &server,
        &["the backend cannot be migrated", "\"nobody\"", "check username and password"],
    );
}

#[test]
fn a_wrong_database_is_named_with_the_line_and_what_to_do() {
    let server = postgres();
    let finished = run(&toml(&server.url_for("aceton"), ""), &[]);
    assert_refused(&finished, &server, &["acteon.toml:5: state.url: ", "\"aceton\" does not exist", "createdb"]);
}

#[test]
fn a_role_that_may_not_create_tables_is_told_what_to_grant_or_run() {
    let server = postgres();
    sql(&server, "CREATE ROLE app LOGIN PASSWORD 'hunter2'");
    let config = toml(&url_of(&server, "app"), "");
    for arguments in [&[][..], &["migrate"]] {
        let refused = run(&config, arguments);
        assert_refused(&refused, &server, &["permission denied for schema public", "GRANT", "acteon-server migrate"]);
    }
}

/// The SQL of docs/backends/postgres.md, as it stands there.
fn documented_roles() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/backends/postgres.md");
    let page = std::fs::read_to_string(page).expect("readable");
    let block = page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("the page shows the SQL").replace("change-me-too", "hunter2").replace("change-me", "hunter2")
}

#[test]
fn a_role_with_the_documented_rights_works_on_tables_that_another_one_made() {
    let server = postgres();
    server.create_database("app").expect("a new one");
    server.query_in("app", &documented_roles()).unwrap_or_else(|error| panic!("{error}"));
    let url = |role| format!("postgres://{role}:hunter2@{}/app", server.address());
    let config = toml(&url("acteon_app"), "[state.postgres]\nschema = \"acteon\"\nmigrate = \"check\"\n");
    let folder = folder(&config);
    let deploy = url("acteon_deploy");
    let deploy = [("ACTEON__STATE__URL", deploy.as_str())];

    assert_done(&run_in(folder.path(), &["migrate"], &deploy), &["was migrated from schema version 0 to "]);
    assert_done(&run_in(folder.path(), &["migrate", "--check"], &[]), &["there is nothing to migrate"]);
    assert_done(&run_in(folder.path(), &["check"], &[]), &["Everything is in order"]);
    let mut process = Process::start(&config, &[]);
    let answer = dispatch(&process.url());
    assert!(answer.contains("\"executed\""), "{answer}");
    drop(process);

    server.query_in("app", "REVOKE ALL ON ALL TABLES IN SCHEMA acteon FROM acteon_app").expect("a statement");
    let refused = run_in(folder.path(), &["check"], &[]);
    assert_refused(&refused, &server, &["permission denied for table acteon_schema", "GRANT"]);
}

/// Dispatches an action; returns the answer.
fn dispatch(url: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let answer = client().post(format!("{url}/v1/dispatch")).json(&action()).send().await.expect("answered");
        answer.text().await.expect("a body")
    })
}

#[test]
fn a_newer_schema_is_refused_with_both_versions() {
    let server = postgres();
    let config = toml(&server.url(), "");
    assert_done(&run(&config, &["migrate"]), &[]);
    sql(
        &server,
        &format!("INSERT INTO acteon_schema (version, name) VALUES ({VERSION_ABOVE_ALL}, 'of a later program')"),
    );
    for arguments in [&[][..], &["migrate"], &["migrate", "--check"]] {
        let refused = run(&config, arguments);
        let version = format!("schema version {VERSION_ABOVE_ALL}");
        assert_refused(&refused, &server, &[&version, "knows versions up to", "run a newer program"]);
    }
}
