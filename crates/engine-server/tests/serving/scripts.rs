//! Scripts that take their time, beside other clients.

use crate::support::TestServer;

const NOT_BUSY: &str = "-NOTBUSY No scripts in execution right now.\r\n";
const KILLED: &str = "-ERR Script killed by user with SCRIPT KILL";

/// A script that was known to be short ran on a worker of the runtime, and with other arguments for as long as it liked: with it the worker kept
/// the sockets of all others, so that nothing was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_script_that_is_long_for_once_keeps_nobody_waiting() {
    let server = TestServer::start(|_| ()).await;
    let (mut long, mut other) = (server.connect().await, server.connect().await);
    other.call("CONFIG SET busy-reply-threshold 1\r\n", "+OK\r\n").await;
    let script = "EVAL \"for i = 1, tonumber(ARGV[1]) do end return 'done'\" 0";
    for _ in 0..3 {
        long.call(&format!("{script} 1\r\n"), "$4\r\ndone\r\n").await;
    }
    // It has an end, so that the test has one as well when nobody is heard.
    long.send(format!("{script} 1000000000\r\n")).await;
    loop {
        other.send("SCRIPT KILL\r\n").await;
        let mut answer = other.receive("+OK\r\n".len()).await;
        if answer == b"+OK\r\n" {
            break;
        }
        answer.extend(other.receive(NOT_BUSY.len() - answer.len()).await);
        assert_eq!(String::from_utf8_lossy(&answer), NOT_BUSY);
    }
    long.expect(KILLED).await;
}
