//! The webhook provider against a real HTTP server on a free port.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acteon_dispatch::providers::config::{BreakerConfig, ProviderConfig, RetryConfig};
use acteon_dispatch::providers::signature::sign;
use acteon_dispatch::providers::{ErrorCode, ExecuteContext, ProviderError, Receipt, Registry};
use acteon_dispatch::{Action, Effect};
use acteon_state::config::{HumanDuration, Secret};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A receiver that answers from a script, then with 200, and remembers what it got.
#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<Answer>>>,
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

enum Answer {
    Status(u16),
    RetryAfter(u16, &'static str),
    Redirect(&'static str),
    Never,
    Body(String),
}

impl Receiver {
    async fn start(script: impl IntoIterator<Item = Answer>) -> (Self, SocketAddr) {
        let receiver = Self::default();
        receiver.script.lock().expect("lock").extend(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, address)
    }

    fn received(&self) -> Vec<(HeaderMap, Bytes)> {
        self.received.lock().expect("lock").clone()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    receiver.received.lock().expect("lock").push((headers, body));
    let answer = receiver.script.lock().expect("lock").pop_front();
    let status = |code| StatusCode::from_u16(code).expect("status");
    match answer {
        None => "ok".into_response(),
        Some(Answer::Status(code)) => status(code).into_response(),
        Some(Answer::RetryAfter(code, value)) => (status(code), [("retry-after", value)]).into_response(),
        Some(Answer::Redirect(to)) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Some(Answer::Body(body)) => body.into_response(),
        Some(Answer::Never) => std::future::pending().await,
    }
}

fn config(address: SocketAddr) -> ProviderConfig {
    let mut config = ProviderConfig::webhook("hook", format!("http://user:hunter2@{address}/in/t0ken?key=s3cret"));
    config.retry = Some(RetryConfig {
        attempts_max: 3,
        delay_min: HumanDuration(Duration::from_millis(1)),
        delay_max: HumanDuration(Duration::from_millis(5)),
    });
    config
}

fn action() -> Action {
    Action::new("demo", "acme", "hook", "greet", json!({"to": "Ada"}))
}

fn patient() -> ExecuteContext {
    ExecuteContext { deadline: Instant::now() + Duration::from_secs(30), cancel: CancellationToken::new() }
}

async fn send(config: ProviderConfig) -> Result<Receipt, ProviderError> {
    Registry::from_config(&[config]).expect("valid").execute(&action(), &patient()).await
}

#[tokio::test]
async fn action_arrives_with_its_id_as_idempotency_key() {
    let (receiver, address) = Receiver::start([Answer::Body("done".into())]).await;
    let mut config = config(address);
    config.headers.insert("X-Tenant".into(), Secret::new("t1"));
    let registry = Registry::from_config(&[config]).expect("valid");
    let action = action();
    let receipt = registry.execute(&action, &patient()).await.expect("executed");
    assert_eq!(receipt.attempts, 1);
    assert_eq!(receipt.detail, json!({"http_status": 200, "body": "done"}));

    let received = receiver.received();
    let (headers, body) = &received[0];
    assert_eq!(headers["idempotency-key"], action.id.as_str());
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-tenant"], "t1");
    assert!(headers["authorization"].to_str().expect("text").starts_with("Basic "), "from the user in the URL");
    assert!(!headers.contains_key("acteon-signature"));
    assert_eq!(Action::parse(body).expect("an action"), action);
}

#[tokio::test]
async fn server_errors_are_tried_again_with_the_same_idempotency_key() {
    let (receiver, address) = Receiver::start([Answer::Status(500), Answer::Status(503)]).await;
    let receipt = send(config(address)).await.expect("third time lucky");
    assert_eq!(receipt.attempts, 3);
    let keys: Vec<_> = receiver.received().iter().map(|(headers, _)| headers["idempotency-key"].clone()).collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn attempts_end_and_a_server_error_leaves_the_effect_unknown() {
    let (receiver, address) = Receiver::start((0..5).map(|_| Answer::Status(500))).await;
    let error = send(config(address)).await.expect_err("fails");
    assert_eq!((error.code, error.retryable, error.effect), (ErrorCode::HttpStatus, true, Effect::Unknown));
    assert_eq!((error.attempts, receiver.received().len()), (3, 3));
    assert!(error.message.contains("500"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_final_and_shows_no_secret() {
    let (receiver, address) = Receiver::start([Answer::Status(422)]).await;
    let error = send(config(address)).await.expect_err("refused");
    assert_eq!((error.code, error.retryable, error.effect), (ErrorCode::HttpStatus, false, Effect::NotApplied));
    assert_eq!(receiver.received().len(), 1);
    for secret in ["hunter2", "t0ken", "s3cret"] {
        assert!(!error.message.contains(secret), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (receiver, address) = Receiver::start([Answer::Redirect("/elsewhere")]).await;
    let error = send(config(address)).await.expect_err("not followed");
    assert!(error.message.contains("redirects are not followed") && !error.retryable, "{error}");
    assert_eq!(error.effect, Effect::Unknown, "a 303 says that the work was done");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn retry_after_is_waited_for_unless_it_is_too_long() {
    let (_, address) = Receiver::start([Answer::RetryAfter(429, "1")]).await;
    let start = Instant::now();
    assert_eq!(send(config(address)).await.expect("after a second").attempts, 2);
    assert!(start.elapsed() >= Duration::from_secs(1));

    let (receiver, address) = Receiver::start([Answer::RetryAfter(429, "3600")]).await;
    let error = send(config(address)).await.expect_err("not waited for");
    assert_eq!((error.retryable, error.effect, error.attempts), (true, Effect::NotApplied, 1));
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn silence_ends_at_the_timeout_with_the_effect_unknown() {
    let (_, address) = Receiver::start([Answer::Never, Answer::Never, Answer::Never]).await;
    let mut config = config(address);
    config.timeout = Some(HumanDuration(Duration::from_millis(50)));
    let error = send(config).await.expect_err("silent");
    assert_eq!((error.code, error.effect, error.attempts), (ErrorCode::Timeout, Effect::Unknown, 3));
    assert!(!error.message.contains("hunter2") && !error.message.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn deadline_of_the_caller_cuts_attempts_and_waits_short() {
    let (receiver, address) = Receiver::start([Answer::Never]).await;
    let registry = Registry::from_config(&[config(address)]).expect("valid");
    let ctx = ExecuteContext { deadline: Instant::now() + Duration::from_millis(100), ..patient() };
    let start = Instant::now();
    let error = registry.execute(&action(), &ctx).await.expect_err("too late");
    assert_eq!(error.code, ErrorCode::Timeout);
    assert!(start.elapsed() < Duration::from_secs(4), "the timeout of one attempt alone is 5 s");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn nothing_is_sent_once_the_deadline_has_passed() {
    let (receiver, address) = Receiver::start([]).await;
    let registry = Registry::from_config(&[config(address)]).expect("valid");
    let ctx = ExecuteContext { deadline: Instant::now(), ..patient() };
    let error = registry.execute(&action(), &ctx).await.expect_err("too late");
    assert_eq!((error.code, error.effect, error.attempts), (ErrorCode::Timeout, Effect::NotApplied, 0));
    assert!(receiver.received().is_empty());
}

#[test]
fn a_registry_printed_for_debugging_shows_no_secret() {
    let mut config = config(SocketAddr::from(([127, 0, 0, 1], 9)));
    config.headers.insert("x-key".into(), Secret::new("hunter2"));
    config.signing_secret = Some(Secret::new("hunter2"));
    let shown = format!("{:?}", Registry::from_config(&[config]).expect("valid"));
    assert!(shown.contains("127.0.0.1"), "{shown}");
    for secret in ["hunter2", "t0ken", "s3cret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn cancellation_ends_the_wait_for_the_next_attempt() {
    let (receiver, address) = Receiver::start([Answer::RetryAfter(503, "20")]).await;
    let registry = Registry::from_config(&[config(address)]).expect("valid");
    let ctx = patient();
    let (action, cancel) = (action(), ctx.cancel.clone());
    let canceller = async {
        while receiver.received().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let start = Instant::now();
    let (result, ()) = tokio::join!(registry.execute(&action, &ctx), canceller);
    assert_eq!(result.expect_err("cancelled").code, ErrorCode::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn refused_connections_are_tried_again_and_have_no_effect() {
    // Bound and dropped, so that nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.expect("free port").local_addr().expect("bound");
    let error = send(config(address)).await.expect_err("nobody there");
    assert_eq!((error.code, error.retryable, error.effect), (ErrorCode::Connect, true, Effect::NotApplied));
    assert_eq!(error.attempts, 3);
    assert!(!error.message.contains("hunter2") && !error.message.contains("t0ken"), "{error}");
}

#[tokio::test]
async fn signature_fits_timestamp_and_body_as_received() {
    let (receiver, address) = Receiver::start([]).await;
    let mut config = config(address);
    config.signing_secret = Some(Secret::new("shared"));
    send(config).await.expect("executed");
    let received = receiver.received();
    let (headers, body) = &received[0];
    let timestamp_s: i64 = headers["acteon-timestamp"].to_str().expect("text").parse().expect("seconds");
    let age_s = jiff::Timestamp::now().as_second() - timestamp_s;
    assert!((0..60).contains(&age_s), "{age_s} s old");
    assert_eq!(headers["acteon-signature"], sign(&Secret::new("shared"), timestamp_s, body));
}

#[tokio::test]
async fn long_answers_are_cut() {
    let (_, address) = Receiver::start([Answer::Body("x".repeat(1_000_000))]).await;
    let receipt = send(config(address)).await.expect("executed");
    assert_eq!(receipt.detail["body"].as_str().expect("text").len(), 4 * 1024);
}

#[tokio::test]
async fn breaker_stops_asking_and_asks_again_later() {
    let (receiver, address) = Receiver::start((0..2).map(|_| Answer::Status(500))).await;
    let mut config = config(address);
    config.retry = Some(RetryConfig { attempts_max: 1, ..RetryConfig::default() });
    config.breaker = BreakerConfig { failures_max: 2, open_for: HumanDuration(Duration::from_millis(300)) };
    let registry = Registry::from_config(&[config]).expect("valid");
    for _ in 0..2 {
        registry.execute(&action(), &patient()).await.expect_err("500");
    }
    let error = registry.execute(&action(), &patient()).await.expect_err("open");
    assert_eq!((error.code, error.attempts), (ErrorCode::CircuitOpen, 0));
    assert_eq!(receiver.received().len(), 2);

    let ctx = patient();
    while registry.execute(&action(), &ctx).await.is_err() {
        assert!(Instant::now() < ctx.deadline, "never half open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(receiver.received().len(), 3, "the probe, and nothing while it was open");
}

#[tokio::test]
async fn requests_at_a_time_stay_within_the_limit() {
    let (receiver, address) = Receiver::start((0..10).map(|_| Answer::Never)).await;
    let mut config = config(address);
    config.concurrency_max = Some(3);
    let registry = Arc::new(Registry::from_config(&[config]).expect("valid"));
    let ctx = patient();
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (registry, ctx) = (Arc::clone(&registry), ctx.clone());
            tokio::spawn(async move { registry.execute(&action(), &ctx).await })
        })
        .collect();
    while receiver.received().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The others have had every chance to be sent as well.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.received().len(), 3);
    ctx.cancel.cancel();
    for task in tasks {
        assert_eq!(task.await.expect("no panic").expect_err("cancelled").code, ErrorCode::Cancelled);
    }
}
