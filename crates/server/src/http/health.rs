//! `GET /health` and `GET /ready`: is the process alive, and is it of use?
//!
//! # What it promises
//! `/health` says that the process answers, and touches nothing else: a restart would not mend a backend that is down. `/ready` asks the
//! backend of the data, and that of the locks if it is another one, both at once and for at most [`PROBE_TIMEOUT`]. It is 503 when one
//! of them does not answer, unless that one is `optional`: then it is 200 and says `degraded`. It is 503 in any case once the
//! server drains. A provider that is left alone by its breaker is shown, but does not count: restarting this server, or sending the
//! traffic elsewhere, does not mend it.
//!
//! # Failure
//! Shown as the kind of the store's error and a sentence about it. The store's own text names addresses; it is in the log, not here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_dispatch::providers::breaker::Phase;
use acteon_state::core::fault_log::FaultLog;
use acteon_state::{ErrorKind, LockSemantics, StateStore};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::timeout;
use tracing::warn;

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
    /// What is done, by kind, while the backend of the data does not answer.
    degradation: BTreeMap<&'static str, &'static str>,
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
    message: &'static str,
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
    let optional = app.optional();
    let (data, own_backend) = tokio::join!(probe(state.store(), optional.data, app.faults()), async {
        match own_lock_store {
            Some(store) => Some(probe(store, optional.locks, app.faults()).await),
            None => None,
        }
    });
    let backends = [Some(&data), own_backend.as_ref()];
    Ready {
        status: judge(app.is_draining(), backends.into_iter().flatten().map(|backend| (backend.up, backend.optional))),
        state: data,
        degradation: app.degradation().clone(),
        locks: locks(own_backend, &state.lock_semantics()),
        rules: rules(app),
        providers: providers(app),
    }
}

/// Each backend is up or not, and optional or not.
fn judge(draining: bool, backends: impl Iterator<Item = (bool, bool)>) -> Readiness {
    if draining {
        return Readiness::Draining;
    }
    let down: Vec<bool> = backends.filter(|(up, _)| !up).map(|(_, optional)| optional).collect();
    match down.as_slice() {
        [] => Readiness::Ready,
        optional if optional.iter().all(|optional| *optional) => Readiness::Degraded,
        _ => Readiness::NotReady,
    }
}

async fn probe(store: &Arc<dyn StateStore>, optional: bool, faults: &FaultLog) -> Dependency {
    let started = Instant::now();
    let error = match timeout(PROBE_TIMEOUT, store.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            if let Some(passed_over) = faults.admit("probe") {
                warn!(%error, backend = store.backend(), passed_over, "a probe failed");
            }
            Some(probe_error(error.kind()))
        }
        Err(_) => Some(probe_error(ErrorKind::Timeout)),
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

fn probe_error(kind: ErrorKind) -> ProbeError {
    let message = match kind {
        ErrorKind::Unavailable => "it cannot be reached, or the connection broke",
        ErrorKind::Timeout => "it did not answer in time",
        ErrorKind::Throttled => "it is asked for more than it, or a limit in front of it, admits",
        ErrorKind::Denied => "it does not accept the credentials",
        ErrorKind::Failover => "it is starting or changing its role",
        ErrorKind::OutOfMemory => "it is full",
        ErrorKind::Closed => "the connection was closed on purpose",
        _ => "see the log",
    };
    ProbeError { kind: kind.as_str(), message }
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
        let (up, down, down_optional) = ((true, false), (false, false), (false, true));
        for (draining, backends, readiness) in [
            (true, [up, up], Readiness::Draining),
            (true, [down, up], Readiness::Draining),
            (false, [up, up], Readiness::Ready),
            (false, [down_optional, up], Readiness::Degraded),
            (false, [down_optional, down_optional], Readiness::Degraded),
            (false, [down_optional, down], Readiness::NotReady),
            (false, [up, down], Readiness::NotReady),
        ] {
            assert_eq!(judge(draining, backends.into_iter()), readiness, "{draining} {backends:?}");
        }
    }
}
