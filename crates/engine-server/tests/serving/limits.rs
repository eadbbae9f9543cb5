//! Each limit, beyond it.

use std::time::Duration;

use acteon_engine_server::OutputLimit;

use crate::support::{TestServer, until};

#[tokio::test]
async fn one_client_too_many_is_told_so_until_another_one_leaves() {
    let server = TestServer::start(|config| config.limits.clients_max = 2).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.call("GET a\r\n", "$-1\r\n").await;
    second.call("GET a\r\n", "$-1\r\n").await;
    let refused = server.connect().await.rest().await;
    assert_eq!(String::from_utf8_lossy(&refused), "-ERR max number of clients reached\r\n");
    assert_eq!(server.counters.totals().rejected, 1);
    drop(first);
    until(|| server.counters.totals().current == 1).await;
    server.connect().await.call("GET a\r\n", "$-1\r\n").await;
    assert_eq!(server.counters.totals().received, 3);
}

#[tokio::test]
async fn an_argument_that_is_too_long_is_refused_at_its_header() {
    let server = TestServer::start(|config| config.limits.bulk_bytes_max = 1_000).await;
    let mut connection = server.connect().await;
    connection.send(format!("*2\r\n$6\r\nSTRLEN\r\n$1000\r\n{}\r\n", "x".repeat(1_000))).await;
    connection.expect(":0\r\n").await;
    connection.send("*2\r\n$6\r\nSTRLEN\r\n$1001\r\n").await;
    let rest = connection.rest().await;
    assert_eq!(String::from_utf8_lossy(&rest), "-ERR Protocol error: invalid bulk length\r\n");
}

#[tokio::test]
async fn an_inline_line_without_end_is_refused() {
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    connection.send("SET a 1\r\n").await;
    connection.send("x".repeat(100_000)).await;
    let rest = connection.rest().await;
    assert_eq!(String::from_utf8_lossy(&rest), "+OK\r\n-ERR Protocol error: too big inline request\r\n");
}

#[tokio::test]
async fn a_request_that_is_longer_than_the_query_buffer_ends_the_connection() {
    let server = TestServer::start(|config| config.limits.query_buffer_bytes_max = 100_000).await;
    let mut connection = server.connect().await;
    connection.send(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\n{}", "x".repeat(200_000))).await;
    assert_eq!(connection.rest().await, b"");
    assert_eq!(server.counters.totals().query_limit_disconnections, 1);
    server.connect().await.call("GET a\r\n", "$-1\r\n").await;
}

#[tokio::test]
async fn a_pipeline_may_be_longer_than_the_query_buffer() {
    const COUNT: usize = 50_000;
    let server = TestServer::start(|config| config.limits.query_buffer_bytes_max = 10_000).await;
    let mut connection = server.connect().await;
    connection.send("GET a\r\n".repeat(COUNT)).await;
    connection.expect("$-1\r\n".repeat(COUNT)).await;
}

#[tokio::test]
async fn a_reply_beyond_the_limit_ends_the_connection() {
    let limit = OutputLimit { hard_bytes: Some(100_000), soft: None };
    let server = TestServer::start(|config| config.limits.output_normal = limit).await;
    let mut connection = server.connect().await;
    connection.call("SETRANGE a 90000 x\r\n", ":90001\r\n").await;
    connection.send("GET a\r\n").await;
    assert_eq!(connection.receive(90_011).await.len(), 90_011);
    connection.call("SETRANGE a 100000 x\r\n", ":100001\r\n").await;
    connection.send("GET a\r\n").await;
    assert_eq!(connection.rest().await, b"");
    assert_eq!(server.counters.totals().output_limit_disconnections, 1);
}

#[tokio::test]
async fn a_silent_client_is_disconnected_after_the_idle_timeout() {
    let server = TestServer::start(|config| config.limits.idle_timeout = Some(Duration::from_millis(50))).await;
    let mut connection = server.connect().await;
    connection.call("SET a 1\r\n", "+OK\r\n").await;
    assert_eq!(connection.rest().await, b"");
    until(|| server.counters.totals().current == 0).await;
}
