//! Errors as JSON: one shape for everything that can go wrong with a request.
//!
//! ```json
//! {"error": {"code": "invalid_action", "message": "`tenant` is empty; allowed: 1 to 64 bytes", "field": "tenant"}}
//! ```
//! `code` is stable and meant for programs; the table of all of them is [`CODES`], from which the OpenAPI document and a test of
//! `docs/dispatch.md` are fed. `message` is meant for people and free of secrets. `field`, `effect` and `problems` are there where
//! they say something.

use acteon_dispatch::rules::{LoadError, Problem};
use acteon_dispatch::{ActionError, DispatchError};
use acteon_state::Effect;
use acteon_state::core::fault_log::FaultLog;
use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{debug, warn};

/// Every error code with its status and meaning, in the order of the statuses.
pub const CODES: [(u16, &str, &str); 23] = [
    (400, "invalid_json", "The body is not JSON; the message names line and column."),
    (400, "invalid_action", "The JSON is not an action, or one of its fields is out of bounds."),
    (400, "invalid_batch", "The body of a batch is not an array of 1 to 100 actions."),
    (
        400,
        "invalid_request",
        "The path, the query or the body of an administrative request is wrong. Nothing was done.",
    ),
    (
        401,
        "unauthorized",
        "The route is for administrators: present `server.admin_token` as `authorization: Bearer ..`.",
    ),
    (403, "admin_disabled", "The route is for administrators, and there is no `server.admin_token`."),
    (
        404,
        "unknown_lock",
        "There is no record of this lock: it was never held, or so long ago that the record is gone.",
    ),
    (404, "not_found", "There is no such path."),
    (405, "method_not_allowed", "The path exists, but not with this method; `Allow` lists those that do."),
    (408, "request_timeout", "The body did not arrive in time. Nothing was done."),
    (409, "busy", "The same action is being executed elsewhere, and was for the whole `dispatch.lock_wait`."),
    (413, "body_too_large", "The body is larger than `server.body_max`. Nothing was done."),
    (413, "too_large", "The action is larger than the state store can hold. Nothing was done."),
    (415, "unsupported_media_type", "The body must be sent as `content-type: application/json`."),
    (422, "invalid_rules", "The rule files have problems, listed in `problems`; the old rules stay in force."),
    (500, "internal", "A fault of the server, found in its log under the request id."),
    (500, "state_error", "The state store refused; sending the action again will not help by itself."),
    (500, "unstorable", "The action or its outcome cannot be written as a record."),
    (501, "unsupported", "The backend cannot do this, such as listing locks. Nothing was done."),
    (
        503,
        "state_unavailable",
        "The state store does not answer. `effect` says whether the action may have been scheduled.",
    ),
    (503, "state_out_of_memory", "The state store is full and refuses writes."),
    (503, "overloaded", "`server.concurrency_max` requests are under way. Nothing was done."),
    (
        504,
        "timeout",
        "No outcome within `server.request_timeout`. The action may still be executed: `effect` is `unknown`.",
    ),
];

/// What a caller that may try again is told to wait, in seconds, when nothing better is known.
const RETRY_AFTER_DEFAULT_S: u64 = 1;

/// All that a caller needs to know of a fault of ours.
const INTERNAL: &str = "the server made a mistake; its log has the details under the request id";

/// One for the process, since its log is one as well.
static OUTAGES: FaultLog = FaultLog::new();

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    retry_after_s: Option<u64>,
    body: ErrorBody,
}

/// The object under `"error"`.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorBody {
    /// One of [`CODES`].
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The field of the action at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
    /// Whether the action may have been executed all the same; absent means that it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<&'static str>,
    /// What is wrong with the rule files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a ErrorBody,
}

impl ApiError {
    /// An error with one of the codes in [`CODES`], which also gives its status.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let body = ErrorBody { code, message: message.into(), field: None, effect: None, problems: Vec::new() };
        let status = status_of(code);
        let retryable = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT);
        let retry_after_s = retryable.then_some(RETRY_AFTER_DEFAULT_S);
        Self { status, retry_after_s, body }
    }

    /// Nothing was found wrong with the request, and it failed all the same. The details belong in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new("internal", INTERNAL)
    }

    /// Says that the action may have been executed.
    #[must_use]
    pub fn with_unknown_effect(mut self) -> Self {
        self.body.effect = Some("unknown");
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.body.code
    }

    /// The object under `"error"`, for an item of a batch.
    #[must_use]
    pub fn into_body(self) -> ErrorBody {
        self.body
    }
}

impl From<ActionError> for ApiError {
    fn from(error: ActionError) -> Self {
        let mut api = Self::new("invalid_action", error.to_string());
        api.body.field = error.field();
        api
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        let first = error.problems.first().map(ToString::to_string).unwrap_or_default();
        let more = match error.problems.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let mut api = Self::new("invalid_rules", format!("{first}{more}; the rules in force stay as they were"));
        api.body.problems = error.problems;
        api
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        if let DispatchError::Invalid(error) = error {
            return error.into();
        }
        log(&error);
        let message = match &error {
            DispatchError::State { stage, source } => {
                format!("the state store failed ({}) in stage `{stage}`", source.kind().as_str())
            }
            DispatchError::Panicked { .. } => INTERNAL.to_owned(),
            other => other.to_string(),
        };
        let api = Self::new(error.code(), message);
        match error.effect() {
            Effect::NotApplied => api,
            Effect::Unknown => api.with_unknown_effect(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Envelope { error: &self.body })).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Without it, it would be no answer of this status (RFC 9110, section 15.5.2).
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The store's own text names its address and a key; that is for the log. When the store is down, each request fails for the same
/// reason.
fn log(error: &DispatchError) {
    let is_outage = matches!(error, DispatchError::State { source, .. } if source.kind().is_transient());
    let admitted = if is_outage { OUTAGES.admit(error.code()) } else { Some(0) };
    match admitted {
        Some(0) => warn!(%error, "no outcome"),
        Some(passed_over) => warn!(%error, passed_over, "no outcome"),
        None => debug!(%error, "no outcome"),
    }
}

fn status_of(code: &str) -> StatusCode {
    CODES
        .iter()
        .find(|(_, known, _)| *known == code)
        .and_then(|(status, ..)| StatusCode::from_u16(*status).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::{ApiError, CODES};

    #[test]
    fn every_code_is_listed_once_with_a_status_that_exists() {
        for (at, (status, code, _)) in CODES.iter().enumerate() {
            assert!(StatusCode::from_u16(*status).is_ok_and(|status| status.as_u16() >= 400), "{code}");
            assert!(CODES[at + 1..].iter().all(|(_, other, _)| other != code), "{code} twice");
        }
    }

    #[test]
    fn a_caller_that_may_try_again_is_told_when() {
        let response = ApiError::new("overloaded", "x").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(ApiError::new("busy", "x").into_response().status(), StatusCode::CONFLICT);
        assert!(!ApiError::internal().into_response().headers().contains_key("retry-after"));
    }
}
