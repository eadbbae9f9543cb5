//! Gives each request an id, a span and a place in the metrics.
//!
//! # What it promises
//! The id is the caller's `x-request-id` when that is 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters, otherwise a random UUID. It is
//! in the span, and thereby in every log line of the request, and in the answer. An answer of 500 and above is logged as a
//! warning; the others at the level debug, since a busy server would otherwise write more log than anything else. So are most answers
//! of 503: while the backend is down, one in five seconds stands for all of them, with their number.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{Instrument, Level, debug, span, warn};
use uuid::Uuid;

use crate::app::App;
use crate::http::metrics::{RequestLabels, RouteLabels};

/// The header with the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a caller; it is repeated in every log line.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// The label of requests that no route matched: their paths are up to the caller, and there would be no end of labels.
static UNMATCHED: LazyLock<Arc<str>> = LazyLock::new(|| "unmatched".into());

/// The middleware.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = method_label(request.method());
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| UNMATCHED.clone(), |path| path.as_str().into());
    let span = span!(Level::INFO, "request", id = id.to_str().unwrap_or_default(), method, %route);

    let in_flight = InFlight::begin(&app.metrics().in_flight);
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let elapsed = started.elapsed();
    drop(in_flight);

    let status = response.status().as_u16();
    span.in_scope(|| match status {
        503 => match app.faults().admit("answered_503") {
            Some(passed_over) => warn!(status, elapsed_ms = elapsed.as_millis(), passed_over, "answered"),
            None => debug!(status, elapsed_ms = elapsed.as_millis(), "answered"),
        },
        500.. => warn!(status, elapsed_ms = elapsed.as_millis(), "answered"),
        _ => debug!(status, elapsed_ms = elapsed.as_millis(), "answered"),
    });
    app.metrics().durations.get_or_create(&RouteLabels { route: route.clone() }).observe(elapsed.as_secs_f64());
    app.metrics().requests.get_or_create(&RequestLabels { route, method, status }).inc();
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Counts a request as under way until it is answered, or its caller hangs up and the future is dropped.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn begin(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let usable = |id: &&HeaderValue| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| {
        let id = Uuid::new_v4().to_string();
        HeaderValue::try_from(id).expect("a UUID is visible ASCII")
    })
}

/// Methods are up to the caller as well; the ones that nobody needs share a label.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{REQUEST_ID, request_id};

    fn taken_over(id: &str) -> bool {
        let value = HeaderValue::from_bytes(id.as_bytes()).expect("header value");
        let headers = HeaderMap::from_iter([(REQUEST_ID, value.clone())]);
        request_id(&headers) == value
    }

    #[test]
    fn ids_of_callers_are_kept_when_they_are_safe_to_log() {
        assert!(taken_over("order-17/retry:2"));
        assert!(taken_over(&"x".repeat(128)));
        for id in ["", "two words", "ünicode", &"x".repeat(129)] {
            assert!(!taken_over(id), "{id:?}");
        }
    }
}
