//! `POST /v1/dispatch` and `POST /v1/dispatch/batch`: actions in, outcomes out.
//!
//! # What it promises
//! An outcome is answered with status 200, whatever it is: also `failed`, since that says what the provider did, not what this server
//! did. The one exception is `throttled`, which is 429 with `Retry-After`, so that HTTP clients slow down by themselves. The
//! body is the outcome in either case.
//!
//! A batch is answered with 200 and one result per action, in the order of the actions: `{"outcome": ..}` or `{"error": ..}`. One bad
//! action does not stop the others; a batch is no transaction.
//!
//! # Failure
//! See [`error`](mod@crate::http::error). An action goes on when its caller hangs up; see [`limits`](crate::http::limits).

use std::time::Duration;

use acteon_dispatch::{Action, Outcome};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::app::App;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::schema;

/// Most actions in one batch: enough to save round trips, and little enough to be done within one timeout.
pub const BATCH_MAX: usize = 100;

/// Dispatch one action
///
/// The outcome is the body of status 200, and of 429 when the action was throttled.
#[utoipa::path(
    post,
    path = "/v1/dispatch",
    tag = "dispatch",
    request_body = schema::Action,
    responses(
        (status = 200, description = "What became of the action, a failure of its provider included", body = schema::Outcome),
        (status = 429, description = "The action was throttled", body = schema::Outcome,
            headers(("retry-after" = u64, description = "Seconds after which another attempt can succeed"))),
        (status = "4XX", description = "The request is wrong; nothing was done", body = schema::Errors),
        (status = "5XX", description = "No outcome; `effect` says whether the action may have been executed", body = schema::Errors),
    )
)]
pub async fn dispatch(State(app): State<App>, request: Request<Body>) -> Result<Response, ApiError> {
    let body = app.limits().read_json(request).await?;
    let action = parse_action(&body)?;
    let dispatcher = app.dispatcher().clone();
    let outcome = app.limits().run(async move { dispatcher.dispatch(action).await }).await??;
    Ok(answer(outcome))
}

/// Dispatch up to 100 actions
///
/// Actions are independent of each other. Results come in the order of the actions, each with an outcome or an error.
#[utoipa::path(
    post,
    path = "/v1/dispatch/batch",
    tag = "dispatch",
    request_body = Vec<schema::Action>,
    responses(
        (status = 200, description = "One result per action, in their order", body = schema::BatchResults),
        (status = "4XX", description = "The request is wrong as a whole; nothing was done", body = schema::Errors),
        (status = "5XX", description = "No results; each of the actions may have been executed", body = schema::Errors),
    )
)]
pub async fn dispatch_batch(State(app): State<App>, request: Request<Body>) -> Result<Json<BatchResults>, ApiError> {
    let body = app.limits().read_json(request).await?;
    let items = parse_batch(&body)?;
    let dispatcher = app.dispatcher().clone();
    let results = app.limits().run(async move {
        let (actions, refused) = sort_out(items);
        let outcomes = dispatcher.dispatch_batch(actions).await;
        let done = outcomes.into_iter().map(|outcome| outcome.map_err(ApiError::from));
        merge(refused, done)
    });
    Ok(Json(BatchResults { results: results.await? }))
}

/// The answer to a batch.
#[derive(Debug, Serialize)]
pub struct BatchResults {
    /// One per action, in their order.
    pub results: Vec<BatchResult>,
}

/// What became of one action of a batch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchResult {
    /// It has an outcome.
    Outcome(Outcome),
    /// It has none, and this is why.
    Error(ErrorBody),
}

/// Reads one action. What is no JSON at all is told apart from JSON that is no action, since they are different mistakes.
pub(crate) fn parse_action(body: &[u8]) -> Result<Action, ApiError> {
    Action::parse(body).map_err(|error| match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => ApiError::from(error),
        Err(syntax) => invalid_json(&syntax),
    })
}

fn parse_batch(body: &[u8]) -> Result<Vec<Value>, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| invalid_json(&error))?;
    match value {
        Value::Array(items) if (1..=BATCH_MAX).contains(&items.len()) => Ok(items),
        Value::Array(items) => Err(invalid_batch(format!("an array of {}", items.len()))),
        Value::Object(_) => Err(invalid_batch("an object; one action goes to /v1/dispatch")),
        _ => Err(invalid_batch("no array")),
    }
}

fn invalid_json(error: &serde_json::Error) -> ApiError {
    ApiError::new("invalid_json", format!("the body is not JSON: {error}"))
}

fn invalid_batch(found: impl std::fmt::Display) -> ApiError {
    ApiError::new("invalid_batch", format!("the body is {found}; allowed: an array of 1 to {BATCH_MAX} actions"))
}

/// Parts the actions from what is none. The second list has an entry per item: its error, or nothing for an action.
fn sort_out(items: Vec<Value>) -> (Vec<Action>, Vec<Option<ApiError>>) {
    let mut actions = Vec::with_capacity(items.len());
    let refused = items
        .into_iter()
        .map(|item| match Action::from_value(item) {
            Ok(action) => {
                actions.push(action);
                None
            }
            Err(error) => Some(ApiError::from(error)),
        })
        .collect();
    (actions, refused)
}

fn merge(
    refused: Vec<Option<ApiError>>,
    mut done: impl Iterator<Item = Result<Outcome, ApiError>>,
) -> Vec<BatchResult> {
    let results = refused.into_iter().map(|refusal| {
        let result = match refusal {
            Some(error) => Err(error),
            None => done.next().unwrap_or_else(|| Err(ApiError::internal().with_unknown_effect())),
        };
        result.map_or_else(|error| BatchResult::Error(error.into_body()), BatchResult::Outcome)
    });
    results.collect()
}

fn answer(outcome: Outcome) -> Response {
    let Some(wait) = retry_after(&outcome) else {
        return Json(outcome).into_response();
    };
    // Whole seconds are all that the header can say. Rounded up: a caller that comes back too early is refused again.
    let seconds = wait.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
    let mut response = (StatusCode::TOO_MANY_REQUESTS, Json(outcome)).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The wait of an action that was throttled itself. The duplicate of one is answered like any other duplicate.
fn retry_after(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Throttled { retry_after_ms, .. } => Some(Duration::from_millis(*retry_after_ms)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use acteon_dispatch::Outcome;
    use serde_json::json;

    use super::{BatchResult, answer, merge, parse_action, parse_batch, sort_out};

    #[test]
    fn broken_json_is_told_apart_from_json_that_is_no_action() {
        let error = parse_action(b"{\"namespace\":\n oops}").expect_err("no JSON");
        assert_eq!(error.code(), "invalid_json");
        assert!(error.into_body().message.contains("line 2 column 2"));
        assert_eq!(parse_action(b"{\"namespace\": 1}").expect_err("no action").code(), "invalid_action");
    }

    #[test]
    fn a_batch_is_an_array_of_bounded_length() {
        for body in [json!({}), json!([]), json!("x"), json!(vec![1; 101])] {
            assert_eq!(parse_batch(body.to_string().as_bytes()).expect_err("no batch").code(), "invalid_batch");
        }
        assert_eq!(parse_batch(b"[1,").expect_err("no JSON").code(), "invalid_json");
        assert_eq!(parse_batch(json!(vec![1; 100]).to_string().as_bytes()).expect("longest").len(), 100);
    }

    #[test]
    fn results_keep_the_order_of_the_actions_around_bad_ones() {
        let action = |id: &str| json!({"id": id, "namespace": "n", "tenant": "t", "provider": "p", "action_type": "a", "payload": 1});
        let (actions, refused) = sort_out(vec![action("a"), json!({"tenant": 1}), action("b")]);
        let done = actions.into_iter().map(|it| Ok(Outcome::Suppressed { action_id: it.id, rule: "r".into() }));
        let ids = merge(refused, done).into_iter().map(|result| match result {
            BatchResult::Outcome(outcome) => outcome.action_id().to_owned(),
            BatchResult::Error(error) => error.code.to_owned(),
        });
        assert_eq!(ids.collect::<Vec<_>>(), ["a", "invalid_action", "b"]);
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (retry_after_ms, header) in [(1, "1"), (1_000, "1"), (1_001, "2")] {
            let throttled = Outcome::Throttled {
                action_id: "a".into(),
                rule: "r".into(),
                limit: 1,
                window_ms: 1_000,
                remaining: 0,
                retry_after_ms,
            };
            let response = answer(throttled);
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], header);
        }
    }
}
