//! What one request may cost: bytes, time, and a place among those under way.
//!
//! # What it promises
//! A body is read only when it is announced as JSON, at most to `server.body_max`, and for at most `server.request_timeout`. Work
//! that uses the state store or a provider runs in one of `server.concurrency_max` places; without a free place a request is
//! refused at once instead of queueing, so that an overloaded server answers quickly and callers can go elsewhere.
//!
//! # How it works
//! A body reserves the bytes that it announces, or the most it may have, out of [`BODIES_BYTES_MAX`] while it is read. Taking a
//! place already then would let callers with slow bodies keep out everybody else.
//!
//! A place is held by the work, not by the request: a caller that hangs up, or that was told of a timeout, does not free the place
//! of an action that is still being executed. Such work is neither cut off halfway, and a drain waits for it.
//!
//! The content type is insisted on, since a browser sends any other one across origins without asking: otherwise a web page could
//! make its visitors dispatch actions to a server on their own machine.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use acteon_dispatch::pipeline::run_to_end::run_to_end;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::bytes::Bytes;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::http::error::ApiError;

/// Most bytes of bodies that are being read, over all connections. Four times the largest body that can be configured.
pub const BODIES_BYTES_MAX: u64 = 256 << 20;
/// Bodies are reserved in units of so many bytes, since a semaphore counts in `u32`.
const RESERVATION_BYTES: u64 = 1_024;

/// The bounds that requests share.
#[derive(Debug)]
pub struct Limits {
    /// A permit for each [`RESERVATION_BYTES`] that may be read at the moment.
    bodies: Semaphore,
    body_bytes_max: usize,
    timeout: Duration,
    places: Arc<Semaphore>,
    /// All work that holds a place, so that a drain can wait for it.
    tasks: TaskTracker,
}

impl Limits {
    /// Bounds with all places free.
    #[must_use]
    pub fn new(body_bytes_max: usize, timeout: Duration, concurrency_max: usize) -> Self {
        // 2^18 permits, far below what a semaphore of any platform holds.
        let bodies = Semaphore::new((BODIES_BYTES_MAX / RESERVATION_BYTES) as usize);
        let places = Arc::new(Semaphore::new(concurrency_max));
        Self { bodies, body_bytes_max, timeout, places, tasks: TaskTracker::new() }
    }

    /// The work under way, for a drain.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Reads the JSON text of a body.
    ///
    /// # Errors
    /// `unsupported_media_type`, `body_too_large`, `request_timeout`; `invalid_json` when the connection breaks off; `overloaded` when
    /// too much is being read already.
    pub async fn read_json(&self, request: Request<Body>) -> Result<Bytes, ApiError> {
        if !is_json(request.headers()) {
            let message = "the body must be sent as `content-type: application/json`";
            return Err(ApiError::new("unsupported_media_type", message));
        }
        let bytes_max = self.body_bytes_max as u64;
        let bytes = announced_bytes(request.headers()).unwrap_or(bytes_max);
        if bytes > bytes_max {
            return Err(self.too_large());
        }
        let _reserved = self.reserve(bytes)?;
        let reading = Limited::new(request.into_body(), self.body_bytes_max).collect();
        match timeout(self.timeout, reading).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(self.too_large()),
            Ok(Err(_)) => Err(ApiError::new("invalid_json", "the body broke off before its end")),
            Err(_) => {
                let message = format!("the body did not arrive within {} ms", self.timeout.as_millis());
                Err(ApiError::new("request_timeout", message))
            }
        }
    }

    /// Runs `work` to its end in a place of its own, and waits for it for at most `server.request_timeout`.
    ///
    /// # Errors
    /// `overloaded` without a free place; `timeout` when it takes longer, while the work goes on; `internal` when it panics.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, ApiError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(ApiError::new("overloaded", "too many requests are under way; try again shortly"));
        };
        let work = async move {
            let result = work.await;
            drop(place);
            result
        };
        match timeout(self.timeout, run_to_end(&self.tasks, Box::pin(work))).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => {
                error!(%panic, "a dispatch panicked");
                Err(ApiError::internal().with_unknown_effect())
            }
            Err(_) => {
                let message =
                    format!("no outcome within {} ms; the action may still be executed", self.timeout.as_millis());
                Err(ApiError::new("timeout", message).with_unknown_effect())
            }
        }
    }

    fn reserve(&self, bytes: u64) -> Result<SemaphorePermit<'_>, ApiError> {
        let permits = u32::try_from(bytes.div_ceil(RESERVATION_BYTES)).unwrap_or(u32::MAX);
        let overloaded = |_| ApiError::new("overloaded", "too many large bodies are being read; try again shortly");
        self.bodies.try_acquire_many(permits).map_err(overloaded)
    }

    fn too_large(&self) -> ApiError {
        ApiError::new("body_too_large", format!("the body is larger than {} bytes", self.body_bytes_max))
    }
}

/// `application/json`, or a type with the suffix `+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io;
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Request;
    use futures_util::stream::pending as pending_stream;
    use tokio::sync::oneshot;
    use tokio_util::bytes::Bytes;

    use super::{BODIES_BYTES_MAX, Limits};

    fn limits() -> Limits {
        Limits::new(8, Duration::from_secs(1), 1)
    }

    fn json(body: impl Into<Body>) -> Request<Body> {
        Request::post("/").header("content-type", "application/json; charset=utf-8").body(body.into()).expect("request")
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_bound() {
        assert_eq!(limits().read_json(json("12345678")).await.expect("8 bytes"), "12345678");
        assert_eq!(limits().read_json(json("123456789")).await.expect_err("9 bytes").code(), "body_too_large");
    }

    #[tokio::test]
    async fn other_content_types_are_refused() {
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/x+json"] {
            let request = Request::post("/").header("content-type", content_type).body(Body::empty()).expect("request");
            let error = limits().read_json(request).await.expect_err(content_type);
            assert_eq!(error.code(), "unsupported_media_type");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never = Body::from_stream(pending_stream::<io::Result<Bytes>>());
        assert_eq!(limits().read_json(json(never)).await.expect_err("too slow").code(), "request_timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_under_way_are_bounded_together() {
        let large = usize::try_from(BODIES_BYTES_MAX / 2).expect("64 bits");
        let limits = Limits::new(large, Duration::from_secs(1), 1);
        let endless = || json(Body::from_stream(pending_stream::<io::Result<Bytes>>()));
        // Reservations are made in the first poll, one after the other.
        let (one, two, three) =
            tokio::join!(limits.read_json(endless()), limits.read_json(endless()), limits.read_json(endless()));
        let codes = [one, two, three].map(|result| result.expect_err("endless").code());
        assert_eq!(codes, ["request_timeout", "request_timeout", "overloaded"]);
        limits.read_json(json("{}")).await.expect("room again");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_outlives_its_request_keeps_its_place_and_is_not_cut_off() {
        let limits = limits();
        let (finish, finished) = oneshot::channel::<()>();
        let error = limits.run(async move { finished.await.is_ok() }).await.expect_err("too slow");
        assert_eq!(error.code(), "timeout");
        assert_eq!(limits.run(async {}).await.expect_err("no place").code(), "overloaded");

        finish.send(()).expect("still running");
        limits.tasks().close();
        limits.tasks().wait().await;
        limits.run(async {}).await.expect("a free place");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_the_place() {
        let limits = limits();
        let error = limits.run(async { panic!("on purpose") }).await.expect_err("panicked");
        assert_eq!(error.code(), "internal");
        limits.run(async {}).await.expect("a free place");
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_does_not_stop_the_work() {
        let limits = limits();
        let (started, has_started) = oneshot::channel();
        let work = async move {
            started.send(()).expect("awaited");
            pending::<()>().await;
        };
        tokio::select! {
            _ = limits.run(work) => unreachable!("the work never ends"),
            _ = has_started => {}
        }
        assert_eq!(limits.tasks().len(), 1);
    }
}
