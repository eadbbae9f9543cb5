//! Who is let in, and what those who are not are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use acteon_state_core::{ErrorKind, StateStore};
use acteon_state_postgres::PostgresConfig;
use acteon_test_support::{PostgresOptions, PostgresServer};

use super::{ask, config, connect, refused, start};

/// A listener that treats each connection like this.
fn listener(treat: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(treat));
    address
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_denied() {
    let server = start();
    let address = server.address();
    for url in
        [format!("postgres://acteon:guess@{address}/postgres"), format!("postgres://nobody:guess@{address}/postgres")]
    {
        let error = refused(config(&url)).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.message().contains("check username and password"), "{error}");
        assert!(error.message().contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_database_is_named() {
    let server = start();
    let error = refused(config(&server.url_for("missing"))).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("\"missing\"") && error.message().contains("createdb"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_on_the_database_is_told_what_to_grant() {
    let server = start();
    server
        .query("CREATE ROLE guest LOGIN PASSWORD 'hunter2'; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        .unwrap();
    let error = refused(config(&format!("postgres://guest:hunter2@{}/postgres", server.address()))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.message().contains("needs CONNECT") && error.message().contains("GRANT"), "{error}");
}

#[tokio::test]
async fn a_role_that_the_server_turns_away_is_told_about_its_rules() {
    let options =
        PostgresOptions { hba: vec!["host all outsider all reject".to_owned()], ..PostgresOptions::default() };
    let server = PostgresServer::start(options).unwrap();
    server.query("CREATE ROLE outsider LOGIN PASSWORD 'hunter2'").unwrap();
    let error = refused(config(&format!("postgres://outsider:hunter2@{}/postgres", server.address()))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.message().contains("pg_hba.conf"), "{error}");
}

#[tokio::test]
async fn a_role_at_its_limit_of_connections_is_throttled() {
    let server = start();
    server.query("CREATE ROLE crowd LOGIN PASSWORD 'hunter2' CONNECTION LIMIT 0").unwrap();
    let error = refused(config(&format!("postgres://crowd:hunter2@{}/postgres", server.address()))).await;
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    assert!(error.message().contains("max_connections"), "{error}");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused() {
    let server = start();
    server.query("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0").unwrap();
    let error = refused(config(&server.url_for("ascii"))).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("SQL_ASCII") && error.message().contains("UTF8"), "{error}");
}

#[tokio::test]
async fn a_role_that_may_only_read_is_told_why() {
    let server = start();
    server.query("ALTER ROLE acteon SET default_transaction_read_only = on").unwrap();
    let error = refused(config(&server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Failover, "{error}");
    assert!(error.message().contains("default_transaction_read_only"), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_the_server_is_unavailable() {
    let error = refused(config("postgres://acteon:hunter2@127.0.0.1:1/postgres")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("127.0.0.1:1: the server cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    // Kept open, so that only the timeout ends it.
    let address = listener(|stream| drop(thread::spawn(move || (&stream).read_to_end(&mut Vec::new()))));
    let url = format!("postgres://acteon:hunter2@{address}/postgres");
    let config = PostgresConfig { connect_timeout: Duration::from_millis(300), ..config(&url) };
    // Far above connect_timeout, far below the minutes after which the system gives up.
    let error = tokio::time::timeout(Duration::from_secs(20), refused(config)).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("connect_timeout is 300ms"), "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_recognised() {
    let address = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = refused(config(&format!("postgres://acteon:hunter2@{address}/postgres"))).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("not a PostgreSQL server"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_leads_in() {
    let server = start();
    let folder = server.folder().display();
    let (user, password, port) = (server.user(), server.password(), server.port());
    let by_url = config(&format!("postgres://{user}:{password}@/postgres?host={folder}&port={port}"));
    let by_fields = PostgresConfig {
        socket: Some(server.folder().to_owned()),
        port: Some(port),
        username: Some(user.to_owned()),
        password: Some(password.into()),
        database: Some("postgres".to_owned()),
        ..PostgresConfig::default()
    };
    for config in [by_url, by_fields] {
        let store = connect(PostgresConfig { application_name: "by socket".to_owned(), ..config }).await;
        let sql = "SELECT bool_and(client_addr IS NULL) FROM pg_stat_activity WHERE application_name = 'by socket'";
        assert_eq!(ask(&server, sql), "t");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_weaker_commit_of_the_role_is_noted() {
    let server = start();
    server.query("ALTER ROLE acteon SET synchronous_commit = 'off'").unwrap();
    let store = connect(config(&server.url())).await;
    let notes = store.lock_semantics().notes.join("\n");
    assert!(notes.contains("synchronous_commit of the role is off"), "{notes}");
    store.close().await.unwrap();
}
