//! `GET /health` and `GET /ready`: is the process alive, and is it of use?
//!
//! # What it promises
//! `/health` says that the process answers, and touches nothing else: a restart would not mend a backend that is down. `/ready` asks the
//! backend of the data, and that of the locks if it is another one, both at once and for at most [`PROBE_TIMEOUT`]. It is 503 when one
//! of them does not answer, unless `state.optional` is set: then it is 200 and says `degraded`. It is 503 in any case once the
//! server drains. A provider that is left alone by its breaker is shown, but does not count: restarting this server, or sending the
//! traffic elsewhere, does not mend it.
//!
//! # Failure
//! Shown as kind and message of the store's error; addresses and passwords are in the log, not here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_dispatch::providers::breaker::Phase;
use acteon_state::{LockSemantics, StateStore};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::http::schema;

/// Longer than a backend needs that is of use, and shorter than the patience of load balancers.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What `/health` says.
#[derive(Debug, Serialize)]
pub struct Health {
    status: &'static str,
    version: &'static str,
    uptime_s: u64,
}

/// What `/ready` says.
#[derive(Debug, Serialize)]
pub struct Ready {
    status: Readiness,
    state: Dependency,
    locks: Locks,
    rules: Rules,
    providers: Vec<Provider>,
}

/// The verdict of `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Everything works.
    Ready,
    /// The backend does not answer, and the configuration says to go on without it.
    Degraded,
    /// The backend does not answer.
    NotReady,
    /// The server is stopping.
    Draining,
}

#[derive(Debug, Serialize)]
struct Dependency {
    backend: String,
    up: bool,
    latency_ms: f64,
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProbeError>,
    capabilities: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct ProbeError {
    kind: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct Locks {
    /// There when locks are kept on another backend than the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    own_backend: Option<Dependency>,
    topology: String,
    fit_for: String,
    survives_server_crash: String,
    waiting: String,
}

#[derive(Debug, Serialize)]
struct Rules {
    generation: u64,
    count: usize,
    last_reload_failed: bool,
}

#[derive(Debug, Serialize)]
struct Provider {
    name: String,
    kind: &'static str,
    breaker: &'static str,
}

/// Is the process alive?
#[utoipa::path(
    get,
    path = "/health",
    tag = "operations",
    responses((status = 200, description = "The process answers; backends are not asked", body = schema::Health))
)]
pub async fn health(State(app): State<App>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    fresh(StatusCode::OK, Health { status: "ok", version, uptime_s: app.started().elapsed().as_secs() })
}

/// Is the server of use?
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operations",
    responses(
        (status = 200, description = "`ready`, or `degraded` with an optional backend that is down", body = schema::Ready),
        (status = 503, description = "`not_ready`, or `draining`", body = schema::Ready),
    )
)]
pub async fn ready(State(app): State<App>) -> Response {
    let ready = examine(&app).await;
    let status = match ready.status {
        Readiness::Ready | Readiness::Degraded => StatusCode::OK,
        Readiness::NotReady | Readiness::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    fresh(status, ready)
}

/// Asks everything that the server depends on. Takes [`PROBE_TIMEOUT`] at most.
pub async fn examine(app: &App) -> Ready {
    let state = app.state();
    let own_lock_store = state.has_own_lock_store().then(|| state.lock_store());
    let (data, own_backend) = tokio::join!(probe(state.store(), app.optional()), async {
        match own_lock_store {
            Some(store) => Some(probe(store, app.optional()).await),
            None => None,
        }
    });
    let up = data.up && own_backend.as_ref().is_none_or(|locks| locks.up);
    Ready {
        status: judge(app.is_draining(), up, app.optional()),
        state: data,
        locks: locks(own_backend, &state.lock_semantics()),
        rules: rules(app),
        providers: providers(app),
    }
}

fn judge(draining: bool, up: bool, optional: bool) -> Readiness {
    match (draining, up, optional) {
        (true, _, _) => Readiness::Draining,
        (false, true, _) => Readiness::Ready,
        (false, false, true) => Readiness::Degraded,
        (false, false, false) => Readiness::NotReady,
    }
}

async fn probe(store: &Arc<dyn StateStore>, optional: bool) -> Dependency {
    let started = Instant::now();
    let error = match timeout(PROBE_TIMEOUT, store.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(ProbeError { kind: error.kind().as_str(), message: error.message().to_owned() }),
        Err(_) => {
            let message = format!("no answer within {} ms", PROBE_TIMEOUT.as_millis());
            Some(ProbeError { kind: "timeout", message })
        }
    };
    let latency_us = started.elapsed().as_micros();
    let declared = store.capabilities();
    Dependency {
        backend: store.backend().to_owned(),
        up: error.is_none(),
        // Three digits behind the point; a bound of two seconds is exact as f64.
        latency_ms: latency_us as f64 / 1_000.0,
        optional,
        error,
        capabilities: declared.list().filter(|(_, has)| *has).map(|(name, _)| name).collect(),
    }
}

fn locks(own_backend: Option<Dependency>, semantics: &LockSemantics) -> Locks {
    Locks {
        own_backend,
        topology: semantics.topology.clone(),
        fit_for: semantics.fit_for.clone(),
        survives_server_crash: semantics.survives_server_crash.to_string(),
        waiting: semantics.waiting.to_string(),
    }
}

fn rules(app: &App) -> Rules {
    let set = app.rules().current();
    Rules {
        generation: set.generation(),
        count: set.rules().len(),
        last_reload_failed: app.rules().last_failure().is_some(),
    }
}

fn providers(app: &App) -> Vec<Provider> {
    let describe = |(name, kind, phase): (&str, &'static str, Phase)| Provider {
        name: name.to_owned(),
        kind,
        breaker: match phase {
            Phase::Closed => "closed",
            Phase::Open => "open",
            Phase::HalfOpen => "half_open",
        },
    };
    app.providers().describe().map(describe).collect()
}

/// An answer that no proxy may keep.
fn fresh(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::{Readiness, judge};

    #[test]
    fn draining_comes_before_everything_and_optional_only_softens_an_outage() {
        assert_eq!(judge(true, true, true), Readiness::Draining);
        assert_eq!(judge(false, true, false), Readiness::Ready);
        assert_eq!(judge(false, false, true), Readiness::Degraded);
        assert_eq!(judge(false, false, false), Readiness::NotReady);
    }
}
