//! A PgBouncer in front of a server.

use std::net::TcpStream;
use std::process::{Command, Output};

use acteon_test_support::{PgBouncer, PoolMode, PostgresOptions, PostgresServer};

fn pair(pool_mode: PoolMode) -> (PostgresServer, PgBouncer) {
    let server = PostgresServer::start(PostgresOptions::default()).unwrap();
    let bouncer = PgBouncer::start(&server, pool_mode).unwrap();
    (server, bouncer)
}

fn ask(url: &str, statements: &[&str]) -> Output {
    let mut psql = Command::new("psql");
    psql.args(["-XqAt", url]);
    for statement in statements {
        psql.args(["-c", statement]);
    }
    psql.output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_client_reaches_every_database_of_the_server_through_it() {
    let (server, bouncer) = pair(PoolMode::Transaction);
    server.create_database("other").unwrap();
    let sql = ["SELECT inet_server_port(), current_database()"];
    assert_eq!(text(&ask(&bouncer.url(), &sql)), format!("{}|postgres", server.port()));
    assert_eq!(text(&ask(&bouncer.url_for("other"), &sql)), format!("{}|other", server.port()));
    assert_ne!(bouncer.port(), server.port());
}

#[test]
fn the_pool_mode_is_in_force() {
    for (mode, expected) in [(PoolMode::Session, "session"), (PoolMode::Transaction, "transaction")] {
        let (_server, bouncer) = pair(mode);
        let shown = text(&ask(&bouncer.url_for("pgbouncer"), &["SHOW CONFIG"]));
        assert!(shown.lines().any(|line| line.starts_with(&format!("pool_mode|{expected}|"))), "{shown}");
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let (server, bouncer) = pair(PoolMode::Transaction);
    let refused = ask(&bouncer.url().replace(server.password(), "wrong"), &["SELECT 1"]);
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn a_stopped_one_refuses_connections_and_comes_back_on_its_port() {
    let (_server, mut bouncer) = pair(PoolMode::Transaction);
    let address = bouncer.address();
    bouncer.stop().unwrap();
    assert!(TcpStream::connect(address).is_err());
    bouncer.restart().unwrap();
    assert_eq!(bouncer.address(), address);
    assert_eq!(text(&ask(&bouncer.url(), &["SELECT 1"])), "1");
}

#[test]
fn it_outlives_a_restart_of_its_server() {
    let (mut server, bouncer) = pair(PoolMode::Transaction);
    assert_eq!(text(&ask(&bouncer.url(), &["SELECT 1"])), "1");
    server.restart().unwrap();
    assert_eq!(text(&ask(&bouncer.url(), &["SELECT 1"])), "1");
}
