//! Rules, probes, metrics and the OpenAPI document over HTTP.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{PATIENCE, TestServer, action, with};

const DENY_GREETINGS: &str = "
rules:
  - name: no-greetings
    condition: { field: action_type, eq: greet }
    action: deny
  - name: spare
    enabled: false
    action: suppress
";

#[tokio::test]
async fn rules_are_listed_with_their_place() {
    let server = TestServer::start(DENY_GREETINGS).await;
    let (status, rules) = server.get_json("/v1/rules").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&rules["generation"], &rules["default"]), (&json!(1), &json!("allow")));
    assert_eq!((&rules["rules"][0]["name"], &rules["rules"][0]["action"]), (&json!("no-greetings"), &json!("deny")));
    assert!(rules["rules"][0]["file"].as_str().is_some_and(|file| file.ends_with("rules.yaml")));
    assert_eq!(rules["rules"][0]["line"], 3);
}

#[tokio::test]
async fn a_bad_rule_file_is_reported_with_its_line_and_the_old_rules_stay() {
    let server = TestServer::start_with(DENY_GREETINGS, |config| config.rules.watch = false).await;
    server.write_rules("rules:\n  - name: broken\n    action: dney\n");
    let (status, error) = server.post_json("/v1/rules/reload", &Value::Null).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem = &error["error"]["problems"][0];
    assert_eq!((&error["error"]["code"], &problem["line"]), (&json!("invalid_rules"), &json!(3)));
    assert!(problem["reason"].as_str().is_some_and(|reason| reason.contains("allowed: allow, deny")), "{error}");
    assert_eq!(server.post_json("/v1/dispatch", &action()).await.1["status"], "denied");
    assert_eq!(server.get_json("/v1/rules").await.1["last_failure"]["error"]["problems"][0]["line"], 3);
    assert_eq!(server.get_json("/ready").await.1["rules"]["last_reload_failed"], true);

    server.write_rules("rules: []");
    let (status, rules) = server.post_json("/v1/rules/reload", &Value::Null).await;
    assert_eq!((status, &rules["generation"]), (StatusCode::OK, &json!(2)));
    assert_eq!(server.post_json("/v1/dispatch", &action()).await.1["status"], "executed");
    assert_eq!(server.get_json("/v1/rules").await.1.get("last_failure"), None);
}

#[tokio::test]
async fn changed_rules_are_noticed() {
    let server = TestServer::start("rules: []").await;
    assert_eq!(server.post_json("/v1/dispatch", &action()).await.1["status"], "executed");
    server.write_rules(DENY_GREETINGS);
    let deadline = Instant::now() + PATIENCE;
    while server.post_json("/v1/dispatch", &action()).await.1["status"] != "denied" {
        assert!(Instant::now() < deadline, "the change went unnoticed");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_each_rule_did_and_does_nothing() {
    let server = TestServer::start(DENY_GREETINGS).await;
    let (status, evaluation) = server.post_json("/v1/rules/evaluate", &action()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(evaluation["verdict"]["decision"], json!({"decision": "deny", "rule": "no-greetings"}));
    let results: Vec<_> = (0..2).map(|at| evaluation["trace"][at]["result"].as_str().expect("a result")).collect();
    assert_eq!(results, ["matched", "not_reached"]);

    let (_, evaluation) = server.post_json("/v1/rules/evaluate", &with(action(), "action_type", "other")).await;
    assert_eq!(evaluation["trace"][0]["result"], "not_matched");
    assert!(evaluation["trace"][0]["reason"].as_str().is_some_and(|reason| reason.contains("\"other\"")));
    assert_eq!(evaluation["trace"][1]["result"], "disabled");
    let metrics = server.get("/metrics").await.text().await.expect("text");
    assert!(!metrics.contains("acteon_dispatch_total{"), "nothing was dispatched");
}

#[tokio::test]
async fn ready_names_the_backend_its_latency_and_its_guarantees() {
    let server = TestServer::start(DENY_GREETINGS).await;
    let (status, ready) = server.get_json("/ready").await;
    assert_eq!((status, &ready["status"]), (StatusCode::OK, &json!("ready")));
    assert_eq!((&ready["state"]["backend"], &ready["state"]["up"]), (&json!("memory"), &json!(true)));
    assert!(ready["state"]["latency_ms"].as_f64().is_some_and(|latency| (0.0..2_000.0).contains(&latency)));
    assert!(ready["state"]["capabilities"].as_array().is_some_and(|list| list.contains(&json!("fencing"))));
    assert!(ready["locks"]["fit_for"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(ready["rules"], json!({"generation": 1, "count": 2, "last_reload_failed": false}));
    assert_eq!(ready["providers"], json!([{"name": "log", "kind": "log", "breaker": "closed"}]));
    let (status, health) = server.get_json("/health").await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("ok")));
}

/// A backend that nobody listens for. Port 1 is reserved, and nothing uses it.
#[cfg(feature = "redis")]
fn unreachable_redis(optional: bool) -> acteon_state::StateConfig {
    let text = format!("[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\noptional = {optional}");
    let document = acteon_state::config::Document::parse("test.toml", &text);
    document.expect("TOML").read_section("state").expect("valid").expect("there")
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn an_optional_backend_that_is_down_leaves_the_server_ready_but_degraded() {
    let server = TestServer::start_with("rules: []", |config| config.state = unreachable_redis(true)).await;
    let (status, ready) = server.get_json("/ready").await;
    assert_eq!((status, &ready["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!((&ready["state"]["up"], &ready["state"]["optional"]), (&json!(false), &json!(true)));
    assert_eq!(ready["state"]["error"]["kind"], "unavailable");

    let response = server.post("/v1/dispatch", &action()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let (_, error) = crate::support::read(response).await;
    assert_eq!(error["error"]["code"], "state_unavailable");
    for text in [ready.to_string(), error.to_string()] {
        assert!(!text.contains("127.0.0.1"), "addresses are for the log: {text}");
    }
    // Both are stopped by rules alone, so they need no store.
    server.write_rules(DENY_GREETINGS);
    server.post("/v1/rules/reload", &Value::Null).await;
    assert_eq!(server.post_json("/v1/dispatch", &action()).await.1["status"], "denied");
}

#[tokio::test]
async fn metrics_count_requests_dispatches_the_store_and_its_locks() {
    let server = TestServer::start("rules: []").await;
    server.post("/v1/dispatch", &action()).await;
    server.get("/no/such/path").await;
    let response = server.get("/metrics").await;
    assert!(response.headers()["content-type"].to_str().is_ok_and(|it| it.starts_with("application/openmetrics-text")));
    let text = response.text().await.expect("text");
    for line in [
        "acteon_dispatch_total{outcome=\"executed\"} 1",
        "acteon_dispatch_duration_seconds_count 1",
        "acteon_state_operations_total{backend=\"memory\",operation=\"lock_acquire\",outcome=\"granted\"} 1",
        "acteon_state_operations_total{backend=\"memory\",operation=\"lock_release\",outcome=\"released\"} 1",
        "acteon_http_requests_total{route=\"/v1/dispatch\",method=\"POST\",status=\"200\"} 1",
        "acteon_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\"} 1",
        "acteon_rules_generation 1",
        "acteon_provider_available{provider=\"log\"} 1",
        "acteon_draining 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    assert!(!text.contains("acme"), "tenants are no labels");
}

#[tokio::test]
async fn the_openapi_document_names_every_route() {
    let server = TestServer::start("rules: []").await;
    let (status, document) = server.get_json("/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            // An empty body is refused, but not as unknown: the route is there.
            let method = method.to_uppercase().parse().expect("a method");
            let response =
                server.client.request(method, format!("{}{path}", server.url)).send().await.expect("answered");
            assert!(![404, 405].contains(&response.status().as_u16()), "{path}");
            let is_administrative = document["paths"][path]["get"]["security"].is_array();
            assert_eq!(response.status() == StatusCode::FORBIDDEN, is_administrative, "{path}");
        }
    }
    let routes = [
        ("/v1/dispatch", "post"),
        ("/v1/dispatch/batch", "post"),
        ("/v1/rules", "get"),
        ("/v1/rules/reload", "post"),
        ("/v1/rules/evaluate", "post"),
        ("/v1/locks", "get"),
        ("/v1/locks/{key}", "get"),
        ("/v1/locks/{key}", "delete"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
    ];
    assert_eq!(paths.values().filter_map(|methods| Some(methods.as_object()?.len())).sum::<usize>(), routes.len());
    for (path, method) in routes {
        assert!(paths[path][method]["responses"].is_object(), "{method} {path}");
    }
}
