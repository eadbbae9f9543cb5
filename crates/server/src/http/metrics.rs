//! `GET /metrics`: everything that is counted, as OpenMetrics text for Prometheus.
//!
//! | metric | type | labels | from |
//! |---|---|---|---|
//! | `acteon_http_requests_total` | counter | route, method, status | [`observe`](crate::http::observe) |
//! | `acteon_http_request_duration_seconds` | histogram | route | same |
//! | `acteon_http_requests_in_flight` | gauge | | same |
//! | `acteon_rules` | gauge | | the rules in force |
//! | `acteon_rules_generation` | gauge | | same; grows by one with each reload |
//! | `acteon_rules_last_reload_failed` | gauge | | 1 while the last reload is a failed one |
//! | `acteon_provider_available` | gauge | provider | 0 while its breaker is open |
//! | `acteon_draining` | gauge | | 1 once the server is stopping |
//! | `acteon_build_info` | info | version | the binary |
//! | `acteon_engine_*` | | | the engine for Redis clients, where it is published: `engine/metrics.rs` |
//! | `acteon_dispatch_*` | | | `acteon-dispatch` |
//! | `acteon_state_*` | | | `acteon-state-core`; locks are its operations `lock_*` |
//!
//! Labels come from small fixed sets: no keys, tenants or ids. A route is the pattern that matched, not the path that was sent.

use std::sync::Arc;

use acteon_dispatch::providers::breaker::Phase;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing::error;

use crate::app::App;
use crate::http::error::ApiError;

/// What Prometheus expects in front of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from an action that is only logged to one that waits for a slow webhook.
const BUCKETS_S: [f64; 12] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The labels of a request that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: Arc<str>,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

/// The labels of a duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub(crate) route: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

/// What the server counts itself. The other crates register theirs in the same registry.
#[derive(Debug)]
pub struct ServerMetrics {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    pub(crate) in_flight: Gauge,
    rules: Gauge,
    rules_generation: Gauge,
    rules_last_reload_failed: Gauge,
    provider_available: Family<ProviderLabels, Gauge>,
    draining: Gauge,
}

impl ServerMetrics {
    /// Metrics that are registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            in_flight: Gauge::default(),
            rules: Gauge::default(),
            rules_generation: Gauge::default(),
            rules_last_reload_failed: Gauge::default(),
            provider_available: Family::default(),
            draining: Gauge::default(),
        };
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("acteon_build", "The binary", version);
        registry.register("acteon_http_requests", "Requests that were answered", metrics.requests.clone());
        registry.register("acteon_http_request_duration_seconds", "Time to the answer", metrics.durations.clone());
        registry.register("acteon_http_requests_in_flight", "Requests under way", metrics.in_flight.clone());
        registry.register("acteon_rules", "Rules in force", metrics.rules.clone());
        registry.register("acteon_rules_generation", "Successful loads of the rules", metrics.rules_generation.clone());
        let failed = metrics.rules_last_reload_failed.clone();
        registry.register("acteon_rules_last_reload_failed", "1 while the last reload is a failed one", failed);
        let available = metrics.provider_available.clone();
        registry.register("acteon_provider_available", "0 while the breaker of a provider is open", available);
        registry.register("acteon_draining", "1 once the server is stopping", metrics.draining.clone());
        metrics
    }

    /// Brings the gauges up to date that mirror what others keep.
    fn refresh(&self, app: &App) {
        let set = app.rules().current();
        self.rules.set(gauge(set.rules().len()));
        self.rules_generation.set(gauge(set.generation()));
        self.rules_last_reload_failed.set(i64::from(app.rules().last_failure().is_some()));
        self.draining.set(i64::from(app.is_draining()));
        for (name, _, phase) in app.providers().describe() {
            let labels = ProviderLabels { provider: name.to_owned() };
            self.provider_available.get_or_create(&labels).set(i64::from(phase != Phase::Open));
        }
    }
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(State(app): State<App>) -> Response {
    app.metrics().refresh(&app);
    let mut text = String::new();
    match encode(&mut text, app.registry()) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(fault) => {
            error!(%fault, "metrics cannot be written");
            ApiError::internal().into_response()
        }
    }
}

fn gauge(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
