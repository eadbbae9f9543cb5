//! Signals: a drain that finishes what is under way, and rules that are read again.

use std::fs;
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Process, action, client, read, with};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A webhook that answers when the test says so, and a configuration that knows it.
async fn webhook(server: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let toml = format!(
        "[server]\nport = 0\n{server}\n[[providers]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://{address}\"\n\
         timeout = \"20s\"\nretry = {{ attempts_max = 1 }}\n"
    );
    (listener, toml)
}

async fn called(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("called");
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.expect("the request is there");
    assert_eq!(&head, b"POST");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_a_call_under_way_and_says_draining_meanwhile() {
    let (listener, toml) = webhook("drain_delay = \"3s\"").await;
    let mut server = Process::start(&toml, &[]);
    let url = server.url();
    let call = client().post(format!("{url}/v1/dispatch")).json(&with(action(), "provider", "hook")).send();
    let call = tokio::spawn(call);
    let mut stream = called(&listener).await;

    server.signal(Signal::TERM);
    server.wait_for_log("draining");
    let (status, ready) = read(client().get(format!("{url}/ready")).send().await.expect("answered")).await;
    assert_eq!((status, &ready["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("draining")));

    // Answered only once nothing is accepted any more: the call outlives the listener.
    while TcpStream::connect(url.trim_start_matches("http://")).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream.write_all(OK).await.expect("answered");
    let (status, outcome) = read(call.await.expect("no panic").expect("answered")).await;
    assert_eq!((status, &outcome["status"]), (StatusCode::OK, &json!("executed")));
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.log().contains("everything under way was finished"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_finished_in_time_is_cut_off() {
    let (listener, toml) = webhook("drain_delay = \"0s\"\ndrain_timeout = \"200ms\"").await;
    let mut server = Process::start(&toml, &[]);
    let url = server.url();
    let call = client().post(format!("{url}/v1/dispatch")).json(&with(action(), "provider", "hook")).send();
    let call = tokio::spawn(call);
    let _never_answered = called(&listener).await;
    server.signal(Signal::TERM);
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.log().contains("cutting off what is under way"), "{}", server.log());
    // Cut off, or told so in the last moment: never an answer as if it had been finished.
    assert!(call.await.expect("no panic").map_or(true, |answer| answer.status().is_server_error()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once() {
    let (listener, toml) = webhook("drain_delay = \"1h\"").await;
    let mut server = Process::start(&toml, &[]);
    let url = server.url();
    let call = client().post(format!("{url}/v1/dispatch")).json(&with(action(), "provider", "hook")).send();
    let call = tokio::spawn(call);
    let _never_answered = called(&listener).await;
    server.signal(Signal::INT);
    server.wait_for_log("draining");
    server.signal(Signal::INT);
    assert!(server.wait().success(), "{}", server.log());
    // Cut off, or told so in the last moment: never an answer as if it had been finished.
    assert!(call.await.expect("no panic").map_or(true, |answer| answer.status().is_server_error()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_does_not_hold_up_a_drain() {
    let mut server = Process::start("[server]\nport = 0\ndrain_delay = \"0s\"\ndrain_timeout = \"1h\"", &[]);
    let url = server.url();
    let kept_alive = client();
    kept_alive.get(format!("{url}/health")).send().await.expect("answered").bytes().await.expect("a body");
    server.signal(Signal::TERM);
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.log().contains("everything under way was finished"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_rules_again_and_keeps_the_old_ones_when_they_are_bad() {
    let mut server = Process::start("[server]\nport = 0\n[rules]\nwatch = false\n", &[]);
    let url = server.url();
    let file = server.directory.as_ref().expect("of its own").path().join("rules/a.yaml");
    fs::write(&file, "rules: [{ name: closed, action: deny }]").expect("writable");
    server.signal(Signal::HUP);
    server.wait_for_log("rules reloaded");
    assert_eq!(dispatch(&url).await["status"], "denied");

    fs::write(&file, "rules: [{ name: closed, action: allwo }]").expect("writable");
    server.signal(Signal::HUP);
    let line = server.wait_for_log("rules not reloaded");
    assert!(line.contains("SIGHUP"), "{line}");
    assert!(server.log().contains("a.yaml:1:"), "{}", server.log());
    assert_eq!(dispatch(&url).await["status"], "denied");
}

async fn dispatch(url: &str) -> Value {
    read(client().post(format!("{url}/v1/dispatch")).json(&action()).send().await.expect("answered")).await.1
}
