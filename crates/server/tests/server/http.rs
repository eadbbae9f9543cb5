//! Dispatching over HTTP, and everything that can be wrong with a request.

use std::time::Duration;

use acteon_dispatch::providers::config::ProviderConfig;
use acteon_server::http::dispatch::BATCH_MAX;
use acteon_state::config::{ByteSize, HumanDuration};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{TestServer, action, read, with};

const ONCE: &str = "rules: [{ name: once, action: { deduplicate: { key: [dedup_key], ttl: 5m } } }]";
const TWO_A_MINUTE: &str =
    "rules: [{ name: two, action: { throttle: { key: [tenant], limit: 2, window: 1m, algorithm: fixed_window } } }]";

#[tokio::test]
async fn an_action_is_executed_by_its_provider() {
    let server = TestServer::start("rules: []").await;
    let (status, outcome) = server.post_json("/v1/dispatch", &with(action(), "id", "a-1")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(outcome, json!({"status": "executed", "action_id": "a-1", "provider": "log", "attempts": 1}));
}

#[tokio::test]
async fn a_duplicate_gets_the_outcome_of_the_first_one() {
    let server = TestServer::start(ONCE).await;
    let first = with(with(action(), "dedup_key", "k"), "id", "first");
    let (_, executed) = server.post_json("/v1/dispatch", &first).await;
    let (status, duplicate) = server.post_json("/v1/dispatch", &with(first, "id", "second")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(duplicate["status"], "deduplicated");
    assert_eq!((&duplicate["action_id"], &duplicate["rule"]), (&json!("second"), &json!("once")));
    assert_eq!(duplicate["original"], executed);
}

#[tokio::test]
async fn a_throttled_action_is_429_with_the_time_to_wait() {
    let server = TestServer::start(TWO_A_MINUTE).await;
    for _ in 0..2 {
        assert_eq!(server.post("/v1/dispatch", &action()).await.status(), StatusCode::OK);
    }
    let response = server.post("/v1/dispatch", &action()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = response.headers()["retry-after"].to_str().expect("ASCII").parse().expect("a number");
    // 61 when all three came within the millisecond in which the window began: it lives until the end of its last one.
    assert!((1..=61).contains(&seconds), "{seconds}");
    let (_, outcome) = read(response).await;
    assert_eq!((&outcome["status"], &outcome["limit"]), (&json!("throttled"), &json!(2)));
}

#[tokio::test]
async fn a_failing_provider_is_an_outcome() {
    let server = TestServer::start("rules: []").await;
    let (status, outcome) = server.post_json("/v1/dispatch", &with(action(), "provider", "nobody")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&outcome["status"], &outcome["error"]["code"]), (&json!("failed"), &json!("unknown_provider")));
}

#[tokio::test]
async fn a_batch_answers_each_action_in_its_place() {
    let server = TestServer::start(ONCE).await;
    let same = with(action(), "dedup_key", "k");
    let batch = json!([same, {"namespace": "demo"}, with(same.clone(), "id", "c"), with(action(), "tenant", "")]);
    let (status, answer) = server.post_json("/v1/dispatch/batch", &batch).await;
    assert_eq!(status, StatusCode::OK);
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 4);
    let mut statuses = [&results[0]["outcome"]["status"], &results[2]["outcome"]["status"]];
    statuses.sort_by_key(|status| status.to_string());
    assert_eq!(statuses, [&json!("deduplicated"), &json!("executed")], "one of the two is executed: {answer}");
    assert_eq!(results[1]["error"]["code"], "invalid_action");
    assert_eq!(results[3]["error"]["field"], "tenant");
}

/// What a request is, and the status and code that it is refused with.
type Refusal = (&'static str, &'static str, &'static str, String, u16, &'static str);

#[tokio::test]
async fn bad_requests_are_refused_with_a_code_and_a_reason() {
    let server = TestServer::start_with("rules: []", |config| config.server.body_max = ByteSize(4_096)).await;
    let large = with(action(), "payload", "x".repeat(5_000)).to_string();
    let too_many = Value::from(vec![1; BATCH_MAX + 1]).to_string();
    let deep = with(action(), "payload", (0..40).fold(json!(1), |inner, _| json!([inner]))).to_string();
    let json_type = "application/json";
    let refusals: [Refusal; 13] = [
        ("POST", "/v1/dispatch", json_type, "{\"namespace\":\n \"x\",,}".into(), 400, "invalid_json"),
        ("POST", "/v1/dispatch", json_type, String::new(), 400, "invalid_json"),
        ("POST", "/v1/dispatch", json_type, "[]".into(), 400, "invalid_action"),
        ("POST", "/v1/dispatch", json_type, with(action(), "tennant", "x").to_string(), 400, "invalid_action"),
        ("POST", "/v1/dispatch", json_type, deep, 400, "invalid_action"),
        ("POST", "/v1/dispatch", json_type, large, 413, "body_too_large"),
        ("POST", "/v1/dispatch", "text/plain", action().to_string(), 415, "unsupported_media_type"),
        ("POST", "/v1/dispatch/batch", json_type, action().to_string(), 400, "invalid_batch"),
        ("POST", "/v1/dispatch/batch", json_type, too_many, 400, "invalid_batch"),
        ("POST", "/v1/dispatch/batch", json_type, "[1".into(), 400, "invalid_json"),
        ("GET", "/v1/dispatch", json_type, String::new(), 405, "method_not_allowed"),
        ("GET", "/v2/dispatch", json_type, String::new(), 404, "not_found"),
        ("POST", "/v1/rules/evaluate", json_type, "{}".into(), 400, "invalid_action"),
    ];
    for (method, path, content_type, body, status, code) in refusals {
        let shown: String = format!("{method} {path} {body}").chars().take(80).collect();
        let method = method.parse().expect("a method");
        let request = server.client.request(method, format!("{}{path}", server.url));
        let response = request.header("content-type", content_type).body(body).send().await.expect("answered");
        assert_eq!(response.status().as_u16(), status, "{shown}");
        assert!(response.headers().contains_key("x-request-id"), "{shown}");
        let (_, error) = read(response).await;
        assert_eq!(error["error"]["code"], code, "{shown}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| message.len() > 15), "{error}");
    }
}

#[tokio::test]
async fn messages_lead_to_the_mistake() {
    let server = TestServer::start("rules: []").await;
    let message = async |body: &str| {
        let request =
            server.client.post(format!("{}/v1/dispatch", server.url)).header("content-type", "application/json");
        let (_, error) = read(request.body(body.to_owned()).send().await.expect("answered")).await;
        error["error"]["message"].as_str().expect("a message").to_owned()
    };
    assert!(message("{\"namespace\":\n \"x\",,}").await.contains("line 2 column 6"));
    assert!(message(&with(action(), "tennant", "x").to_string()).await.contains("unknown field `tennant`"));
    assert!(message(&with(action(), "tenant", "x".repeat(65)).to_string()).await.contains("1 to 64 bytes"));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let server = TestServer::start("rules: []").await;
    assert_eq!(server.get("/v1/dispatch").await.headers()["allow"], "POST");
}

#[tokio::test]
async fn the_id_of_a_request_comes_back() {
    let server = TestServer::start("rules: []").await;
    let request = server.client.get(format!("{}/health", server.url)).header("x-request-id", "mine-1");
    assert_eq!(request.send().await.expect("answered").headers()["x-request-id"], "mine-1");
    let drawn = server.get("/health").await.headers()["x-request-id"].clone();
    assert_eq!(drawn.len(), 36);
}

/// A webhook that takes what it is sent and never answers.
async fn silent_webhook() -> (TcpListener, ProviderConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    (listener, ProviderConfig::webhook("hook", url))
}

#[tokio::test]
async fn without_a_free_place_a_request_is_refused_at_once() {
    let (listener, hook) = silent_webhook().await;
    let server = TestServer::start_with("rules: []", |config| {
        config.server.concurrency_max = 1;
        config.providers.push(hook);
    })
    .await;
    let (client, url) = (server.client.clone(), format!("{}/v1/dispatch", server.url));
    let waiting = tokio::spawn(client.post(url).json(&with(action(), "provider", "hook")).send());
    // The place is taken once the webhook is being called.
    let (mut stream, _) = listener.accept().await.expect("called");
    let response = server.post("/v1/dispatch", &action()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(read(response).await.1["error"]["code"], "overloaded");
    assert_eq!(server.get("/health").await.status(), StatusCode::OK, "probes need no place");

    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("answered");
    let response = waiting.await.expect("no panic").expect("answered");
    assert_eq!(read(response).await.1["status"], "executed");
}

#[tokio::test]
async fn a_dispatch_that_takes_too_long_is_504_and_goes_on() {
    let (listener, hook) = silent_webhook().await;
    let server = TestServer::start_with("rules: []", |config| {
        config.server.request_timeout = HumanDuration(Duration::from_millis(300));
        config.providers.push(hook);
    })
    .await;
    let (status, error) = server.post_json("/v1/dispatch", &with(action(), "provider", "hook")).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((&error["error"]["code"], &error["error"]["effect"]), (&json!("timeout"), &json!("unknown")));

    // The webhook still gets its answer in, and the connection was not cut.
    let (mut stream, _) = listener.accept().await.expect("called");
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.expect("the request is there");
    assert_eq!(&head, b"POST");
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    let server = TestServer::start_with("rules: []", |config| {
        config.server.request_timeout = HumanDuration(Duration::from_millis(200));
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("connected");
    let head = "POST /v1/dispatch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    while !answer.contains("}}") {
        let mut part = [0; 512];
        let bytes = stream.read(&mut part).await.expect("readable");
        assert_ne!(bytes, 0, "closed after {answer}");
        answer.push_str(&String::from_utf8_lossy(&part[..bytes]));
    }
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}
