//! Each fault, seen by a client that talks to a real server through the proxy.

use std::io;
use std::time::{Duration, Instant};

use acteon_test_support::{Fault, FaultProxy, RedisOptions, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

// Long enough that an answer on a busy machine would have come, short enough to wait for in a test.
const SILENCE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(5);

async fn start() -> (RedisServer, FaultProxy) {
    let server = RedisServer::start(RedisOptions::default()).unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    (server, proxy)
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn send(client: &mut TcpStream, command: &str) {
    client.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
}

/// Expects exactly these bytes to arrive.
async fn expect(client: &mut TcpStream, reply: &str) {
    let mut bytes = vec![0; reply.len()];
    timeout(PATIENCE, client.read_exact(&mut bytes)).await.expect("a reply in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), reply);
}

async fn expect_silence(client: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(SILENCE, client.read(&mut byte)).await;
    assert!(read.is_err(), "expected silence, got {read:?}");
}

async fn expect_closed(client: &mut TcpStream) {
    let mut byte = [0];
    match timeout(PATIENCE, client.read(&mut byte)).await.expect("the connection ends in time") {
        Ok(0) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        Ok(_) => panic!("expected the end of the connection, got data"),
    }
}

#[tokio::test]
async fn without_a_fault_everything_passes() {
    let (_server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    let large = "x".repeat(300_000);
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    client.write_all(format!("*2\r\n$4\r\nECHO\r\n${}\r\n{large}\r\n", large.len()).as_bytes()).await.unwrap();
    expect(&mut client, &format!("${}\r\n{large}\r\n", large.len())).await;
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn cut_connections_end_and_new_ones_work() {
    let (_server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    proxy.cut();
    expect_closed(&mut client).await;
    let mut next = connect(&proxy).await;
    send(&mut next, "PING").await;
    expect(&mut next, "+PONG\r\n").await;
}

#[tokio::test]
async fn a_delay_counts_in_both_directions() {
    let (_server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    proxy.set(Fault::Delay(Duration::from_millis(40)));
    let begin = Instant::now();
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    assert!(begin.elapsed() >= Duration::from_millis(80), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_black_hole_holds_back_until_it_is_lifted() {
    let (server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    proxy.set(Fault::Blackhole);
    send(&mut client, "SET held yes").await;
    expect_silence(&mut client).await;
    assert_eq!(server.query(&["GET", "held"]).unwrap(), None);
    proxy.set(Fault::None);
    expect(&mut client, "+OK\r\n").await;
    assert_eq!(server.query(&["GET", "held"]).unwrap().as_deref(), Some("yes"));
}

#[tokio::test]
async fn reset_connections_end_by_an_error_and_new_ones_work() {
    let (server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    proxy.reset();
    let mut byte = [0];
    let ended = timeout(PATIENCE, client.read(&mut byte)).await.expect("the connection ends in time");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut client = connect(&proxy).await;
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    drop(server);
}

#[tokio::test]
async fn a_connection_in_a_black_hole_can_be_cut() {
    let (_server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    proxy.set(Fault::Blackhole);
    send(&mut client, "PING").await;
    expect_silence(&mut client).await;
    proxy.cut();
    expect_closed(&mut client).await;
}

#[tokio::test]
async fn lost_replies_belong_to_commands_that_happened() {
    let (server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    proxy.set(Fault::LoseReplies { after_bytes: 4 });
    send(&mut client, "INCR hits").await;
    expect(&mut client, ":1\r\n").await;
    send(&mut client, "INCR hits").await;
    expect_silence(&mut client).await;
    assert_eq!(server.query(&["GET", "hits"]).unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn a_reply_is_cut_in_its_middle() {
    let (_server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    proxy.set(Fault::CutReplies { after_bytes: 3 });
    send(&mut client, "PING").await;
    expect(&mut client, "+PO").await;
    expect_closed(&mut client).await;
}

#[tokio::test]
async fn refused_connections_end_while_open_ones_work() {
    let (_server, proxy) = start().await;
    let mut open = connect(&proxy).await;
    send(&mut open, "PING").await;
    expect(&mut open, "+PONG\r\n").await;
    proxy.set(Fault::Refuse);
    expect_closed(&mut connect(&proxy).await).await;
    send(&mut open, "PING").await;
    expect(&mut open, "+PONG\r\n").await;
}

#[tokio::test]
async fn a_dead_upstream_closes_the_connection() {
    let (mut server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    server.kill9().unwrap();
    expect_closed(&mut client).await;
    expect_closed(&mut connect(&proxy).await).await;
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections() {
    let (_server, proxy) = start().await;
    let mut client = connect(&proxy).await;
    send(&mut client, "PING").await;
    expect(&mut client, "+PONG\r\n").await;
    drop(proxy);
    expect_closed(&mut client).await;
}
