//! Each limit, beyond it.

use std::time::Duration;

use acteon_engine::{InstanceConfig, OutputLimit, OutputLimits};

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
    let normal = OutputLimit { hard_bytes: 100_000, soft_bytes: 0, soft_s: 0 };
    let output_limits = OutputLimits { normal, ..OutputLimits::default() };
    let server = TestServer::start_with(InstanceConfig { output_limits, ..InstanceConfig::default() }, |_| ()).await;
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
async fn a_short_request_for_endless_replies_ends_the_connection_and_takes_no_memory() {
    // Without a bound on the way, the server would make 80 GB of this.
    const VALUE_BYTES: usize = 4 << 20;
    let normal = OutputLimit { hard_bytes: 1_000_000, soft_bytes: 0, soft_s: 0 };
    let output_limits = OutputLimits { normal, ..OutputLimits::default() };
    let server = TestServer::start_with(InstanceConfig { output_limits, ..InstanceConfig::default() }, |_| ()).await;
    server.connect().await.call(&format!("SETRANGE a {} x\r\n", VALUE_BYTES - 1), &format!(":{VALUE_BYTES}\r\n")).await;
    for requests in
        [format!("MGET{}\r\n", " a".repeat(20_000)), format!("MULTI\r\n{}EXEC\r\n", "GET a\r\n".repeat(20_000))]
    {
        let mut connection = server.connect().await;
        connection.send(requests).await;
        let seen = connection.rest().await;
        assert!(seen.len() < 1_000_000, "{} bytes", seen.len());
    }
    assert_eq!(server.counters.totals().output_limit_disconnections, 2);
}

#[tokio::test]
async fn a_silent_client_is_disconnected_after_the_idle_timeout() {
    let server = TestServer::start(|config| config.limits.idle_timeout = Some(Duration::from_secs(1))).await;
    let mut connection = server.connect().await;
    connection.call("SET a 1\r\n", "+OK\r\n").await;
    assert_eq!(connection.rest().await, b"");
    until(|| server.counters.totals().current == 0).await;
}

#[tokio::test]
async fn who_has_not_given_the_password_may_send_only_little() {
    let password = Some("secret".into());
    let server = TestServer::start_with(InstanceConfig { password, ..InstanceConfig::default() }, |_| ()).await;
    let mut connection = server.connect().await;
    connection.call("GET a\r\n", "-NOAUTH Authentication required.\r\n").await;
    connection.send("*2\r\n$3\r\nGET\r\n$16385\r\n").await;
    let rest = connection.rest().await;
    assert_eq!(String::from_utf8_lossy(&rest), "-ERR Protocol error: unauthenticated bulk length\r\n");
    let mut connection = server.connect().await;
    connection.call("AUTH secret\r\n", "+OK\r\n").await;
    connection.send(format!("*2\r\n$3\r\nGET\r\n$20000\r\n{}\r\n", "x".repeat(20_000))).await;
    connection.expect("$-1\r\n").await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_disconnected() {
    /// Several times what the limit and the system keep.
    const MESSAGES_MAX: usize = 1_000;
    let pubsub = OutputLimit { hard_bytes: 1_000_000, soft_bytes: 0, soft_s: 0 };
    let output_limits = OutputLimits { pubsub, ..OutputLimits::default() };
    let server = TestServer::start_with(InstanceConfig { output_limits, ..InstanceConfig::default() }, |_| ()).await;
    let (mut subscriber, mut publisher) = (server.connect_narrowly().await, server.connect().await);
    subscriber.call("SUBSCRIBE news\r\n", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").await;
    let message = format!("PUBLISH news {}\r\n", "x".repeat(30_000));
    for _ in 0..MESSAGES_MAX {
        publisher.send(&message).await;
        if publisher.receive(4).await != b":1\r\n" {
            break;
        }
    }
    // Its connection is gone, not only its subscription.
    until(|| server.counters.totals().current == 1).await;
    publisher.call("PUBLISH news x\r\n", ":0\r\n").await;
}

#[tokio::test]
async fn a_subscriber_that_reads_gets_everything() {
    const COUNT: usize = 3_000;
    let server = TestServer::start(|_| ()).await;
    let mut subscriber = server.connect().await;
    subscriber.call("SUBSCRIBE news\r\n", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").await;
    let message = "x".repeat(30_000);
    let reading = tokio::spawn(async move {
        for _ in 0..COUNT {
            subscriber
                .expect(format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$30000\r\n{}\r\n", "x".repeat(30_000)))
                .await;
        }
    });
    let mut publisher = server.connect().await;
    for _ in 0..COUNT {
        publisher.call(&format!("PUBLISH news {message}\r\n"), ":1\r\n").await;
    }
    reading.await.expect("all of them");
}
