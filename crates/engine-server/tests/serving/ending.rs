//! How servers and connections end.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{TestServer, until, within};

const VALUE_BYTES: usize = 4 << 20;

#[tokio::test]
async fn what_was_carried_out_before_the_stop_is_answered_whole() {
    let server = TestServer::start(|_| ()).await;
    let (mut reader, mut idle) = (server.connect_narrowly().await, server.connect().await);
    idle.call("GET a\r\n", "$-1\r\n").await;
    reader.call(&format!("SETRANGE a {} x\r\n", VALUE_BYTES - 1), &format!(":{VALUE_BYTES}\r\n")).await;
    let before = server.counters.totals().output_bytes;
    // More than the sockets hold, so that part of it still waits when the stop comes.
    reader.send("GET a\r\nGET a\r\nGET a\r\n").await;
    until(|| server.counters.totals().output_bytes > before).await;
    server.stopper.stop();
    let reply_bytes = format!("${VALUE_BYTES}\r\n").len() + VALUE_BYTES + 2;
    let seen = reader.rest().await.len();
    assert!(seen > 0 && seen % reply_bytes == 0, "{seen} bytes are no whole replies");
    assert_eq!(idle.rest().await, b"");
    let address = server.address;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_hold_up_the_stop() {
    let server = TestServer::start(|config| config.limits.drain_timeout = Duration::from_millis(50)).await;
    let mut connection = server.connect_narrowly().await;
    connection.call(&format!("SETRANGE a {} x\r\n", 8 * VALUE_BYTES), &format!(":{}\r\n", 8 * VALUE_BYTES + 1)).await;
    let before = server.counters.totals().output_bytes;
    connection.send("GET a\r\n").await;
    until(|| server.counters.totals().output_bytes > before).await;
    let counters = server.counters.clone();
    server.stop().await;
    assert_eq!(counters.totals().current, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_without_end_cannot_hold_up_the_stop() {
    const SCRIPT: &str = "EVAL \"redis.call('SET', KEYS[1], 1) while true do end\" 1 a\r\n";
    let server = TestServer::start(|config| config.limits.drain_timeout = Duration::from_millis(50)).await;
    let mut connection = server.connect().await;
    connection.send(SCRIPT).await;
    until(|| server.counters.totals().input_bytes == SCRIPT.len() as u64).await;
    let counters = server.counters.clone();
    server.stop().await;
    assert_eq!(counters.totals().current, 0);
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_connections() {
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    connection.call("GET a\r\n", "$-1\r\n").await;
    server.serving.abort();
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn bytes_that_are_no_request_are_answered_and_end_the_connection() {
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    connection.send("*1\r\n:1\r\n").await;
    let rest = connection.rest().await;
    assert_eq!(String::from_utf8_lossy(&rest), "-ERR Protocol error: expected '$', got ':'\r\n");
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    connection.call("GET a\r\n", "$-1\r\n").await;
    assert_eq!(server.counters.totals().current, 1);
    drop(connection);
    within(until(|| server.counters.totals().current == 0)).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_takes_nothing() {
    let server = TestServer::start(|_| ()).await;
    let (mut waiting, mut other) = (server.connect().await, server.connect().await);
    waiting.send("BLPOP a 0\r\n").await;
    until(|| server.counters.totals().input_bytes == 11).await;
    drop(waiting);
    until(|| server.counters.totals().current == 1).await;
    other.call("RPUSH a 1\r\nLLEN a\r\n", ":1\r\n:1\r\n").await;
}

#[tokio::test]
async fn what_follows_a_command_that_waits_comes_after_it() {
    let server = TestServer::start(|_| ()).await;
    let (mut waiting, mut other) = (server.connect().await, server.connect().await);
    waiting.send("BLPOP a 0\r\nSET b 2\r\n").await;
    until(|| server.counters.totals().input_bytes == 20).await;
    other.call("GET b\r\n", "$-1\r\n").await;
    other.call("RPUSH a 1\r\n", ":1\r\n").await;
    waiting.expect("*2\r\n$1\r\na\r\n$1\r\n1\r\n+OK\r\n").await;
}

#[tokio::test]
async fn a_client_may_end_itself_or_another_one() {
    let server = TestServer::start(|_| ()).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    second.call("CLIENT ID\r\n", ":2\r\n").await;
    first.call("CLIENT KILL ID 2\r\n", ":1\r\n").await;
    assert_eq!(second.rest().await, b"");
    first.send("QUIT\r\nGET a\r\n").await;
    assert_eq!(first.rest().await, b"+OK\r\n");
}
