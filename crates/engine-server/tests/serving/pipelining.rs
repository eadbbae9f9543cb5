//! Many commands on their way at once.

use tokio::io::AsyncWriteExt;

use crate::support::{TestServer, until};

const REQUESTS: &str = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\nGET a\r\n\r\n*2\r\n$3\r\nget\r\n$1\r\na\r\n*0\r\n\
    SET \"a\" 'x y'\r\n*2\r\n$6\r\nSTRLEN\r\n$1\r\na\r\n*1\r\n$4\r\nNONE\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
const REPLIES: &str = "+OK\r\n$5\r\nhello\r\n$5\r\nhello\r\n+OK\r\n:3\r\n\
    -ERR unknown command 'NONE', with args beginning with: \r\n$3\r\nx y\r\n";

#[tokio::test]
async fn any_cut_of_the_stream_gives_the_same_replies() {
    let server = TestServer::start(|_| ()).await;
    for cut in 1..REQUESTS.len() {
        let mut connection = server.connect().await;
        let before = server.counters.totals().input_bytes;
        connection.send(&REQUESTS[..cut]).await;
        // Not before, so that the server sees both pieces.
        until(|| server.counters.totals().input_bytes == before + cut as u64).await;
        connection.send(&REQUESTS[cut..]).await;
        connection.expect(REPLIES).await;
    }
}

#[tokio::test]
async fn byte_by_byte_gives_the_same_replies() {
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    for (count, byte) in REQUESTS.bytes().enumerate() {
        connection.send([byte]).await;
        until(|| server.counters.totals().input_bytes == count as u64 + 1).await;
    }
    connection.expect(REPLIES).await;
}

#[tokio::test]
async fn a_client_may_send_a_long_pipeline_before_it_reads_the_first_reply() {
    const COUNT: usize = 200_000;
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    let value = "v".repeat(200);
    connection.call(&format!("SET a {value}\r\n"), "+OK\r\n").await;
    // More than the sockets hold: would the server stop reading while its replies wait, this would never end.
    connection.send("GET a\r\n".repeat(COUNT)).await;
    let reply = format!("$200\r\n{value}\r\n");
    let replies = connection.receive(reply.len() * COUNT).await;
    assert!(replies.chunks(reply.len()).all(|seen| seen == reply.as_bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_sent_its_last_request_still_gets_all_replies() {
    const COUNT: usize = 50_000;
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    connection.send(format!("SET a {}\r\n", "v".repeat(100))).await;
    connection.expect("+OK\r\n").await;
    connection.send("GET a\r\n".repeat(COUNT)).await;
    connection.0.shutdown().await.expect("open");
    assert_eq!(connection.rest().await.len(), COUNT * "$100\r\n\r\n".len() + COUNT * 100);
}

#[tokio::test]
async fn a_client_that_has_sent_its_last_request_is_answered_after_a_pause() {
    let server = TestServer::start(|_| ()).await;
    let (mut waiting, mut other) = (server.connect().await, server.connect().await);
    other.call("CLIENT PAUSE 1000000 WRITE\r\n", "+OK\r\n").await;
    waiting.send("SET a 1\r\nGET a\r\n").await;
    waiting.0.shutdown().await.expect("open");
    until(|| server.counters.totals().input_bytes == 28 + 16).await;
    other.call("CLIENT UNPAUSE\r\n", "+OK\r\n").await;
    assert_eq!(waiting.rest().await, b"+OK\r\n$1\r\n1\r\n");
}

/// A connection that was closed with requests unread was reset by the system, which dropped the replies on their way.
#[tokio::test]
async fn all_replies_before_the_last_one_arrive_while_the_client_is_still_sending() {
    const COUNT: usize = 20;
    let server = TestServer::start(|_| ()).await;
    server.connect().await.call("SETRANGE a 99999 x\r\n", ":100000\r\n").await;
    for (last, reply) in [("QUIT\r\n", "+OK\r\n"), ("*1\r\n!\r\n", "-ERR Protocol error: expected '$', got '!'\r\n")] {
        let mut connection = server.connect_narrowly().await;
        connection.send(["GET a\r\n".repeat(COUNT).as_str(), last, &"PING\r\n".repeat(20_000)].concat()).await;
        let seen = connection.rest().await;
        assert_eq!(seen.len(), COUNT * ("$100000\r\n\r\n".len() + 100_000) + reply.len());
        assert!(seen.ends_with(reply.as_bytes()));
    }
}

#[tokio::test]
async fn a_large_argument_arrives_whole() {
    const BYTES: usize = 5_000_000;
    let server = TestServer::start(|_| ()).await;
    let mut connection = server.connect().await;
    let value: Vec<u8> = (0..BYTES).map(|number| number as u8).collect();
    connection.send(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${BYTES}\r\n")).await;
    connection.send(&value).await;
    connection.send("\r\nGET a\r\n").await;
    connection.expect(format!("+OK\r\n${BYTES}\r\n")).await;
    assert!(connection.receive(BYTES).await == value);
    connection.expect("\r\n").await;
}
