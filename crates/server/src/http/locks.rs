//! `/v1/locks`: who holds what, and taking a lock from its holders by force. For administrators only, see [`Admin`].
//!
//! # What it promises
//! Names are written as [`StateKey::text`] writes them, and percent-encoded in a path. A release by force is logged with the address
//! that it came from, the name, the reason, and the tokens of those who held the lock just before; once begun it is carried out and
//! logged whether or not the caller waits for it.
//!
//! # Failure
//! A lock without a record is 404 `unknown_lock`: it was never held, or so long ago that the record is gone. A free one is none of
//! that: nothing is released, and the answer says so. What the backend cannot do is 501 `unsupported`.

use acteon_dispatch::DispatchError;
use acteon_state::{Cursor, Effect, Error, ErrorKind, StateKey};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use tracing::warn;

use crate::app::App;
use crate::http::admin::Admin;
use crate::http::error::ApiError;
use crate::http::schema;
use crate::locks::view::{LockPage, LockView, Released};
use crate::locks::{LIMIT_DEFAULT, LIMIT_MAX, PREFIX_FORM, parse_key, parse_prefix, parse_reason, release_by_force};

/// What to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    prefix: Option<String>,
    cursor: Option<String>,
    limit: Option<u32>,
    #[serde(default)]
    held: bool,
}

/// Why a lock is released.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    reason: Option<String>,
}

/// List locks and their holders
///
/// Free locks are listed as well, as long as their record is kept. A page may hold fewer locks than asked for, even none, and
/// still have a successor.
#[utoipa::path(
    get,
    path = "/v1/locks",
    tag = "locks",
    security(("admin_token" = [])),
    params(
        ("prefix" = String, Query, description = "`namespace:tenant:kind`, or `namespace:tenant:kind:` and the beginning of an id",
            example = "demo:acme:action"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1,000; 100 unless given. On Redis, which lists in no order, a hint"),
        ("held" = Option<bool>, Query, description = "Without those that nobody holds"),
    ),
    responses(
        (status = 200, description = "One page of locks", body = schema::LockPage),
        (status = "4XX", description = "The request is wrong, or not an administrator's", body = schema::Errors),
        (status = "5XX", description = "The backend does not answer, or cannot list locks", body = schema::Errors),
    )
)]
pub async fn list(
    _admin: Admin,
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<LockPage>, ApiError> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let text = query.prefix.ok_or_else(|| invalid(format!("`prefix` is missing: {PREFIX_FORM}")))?;
    let prefix = parse_prefix(&text).map_err(|why| invalid(format!("`prefix`: {why}")))?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(invalid(format!("`limit` is {limit}; allowed: 1 to {LIMIT_MAX}")));
    }
    let cursor = query.cursor.map(Cursor::new).transpose().map_err(state_error)?;
    let page = app.state().locks_page(&prefix.scan(limit, cursor)).await.map_err(state_error)?;
    Ok(Json(LockPage::new(page, query.held)))
}

/// Show who holds a lock
#[utoipa::path(
    get,
    path = "/v1/locks/{key}",
    tag = "locks",
    security(("admin_token" = [])),
    params(("key" = String, Path, description = "Its name, which may contain slashes", example = "demo:acme:action:order-17")),
    responses(
        (status = 200, description = "The lock and its holders, nobody when it is free", body = schema::Lock),
        (status = 404, description = "There is no record of it", body = schema::Errors),
        (status = "4XX", description = "The request is wrong, or not an administrator's", body = schema::Errors),
        (status = "5XX", description = "The backend does not answer", body = schema::Errors),
    )
)]
pub async fn inspect(
    _admin: Admin,
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<LockView>, ApiError> {
    let key = key_of(path)?;
    let found = app.state().inspect_lock(&key).await.map_err(state_error)?;
    found.map(|lock| Json(LockView::new(&lock))).ok_or_else(|| unknown(&key))
}

/// Release a lock by force
///
/// Ends all leases of the lock. Holders notice at their next extension, and go on until then. The reason is given in the query or
/// in the body, and is logged.
#[utoipa::path(
    delete,
    path = "/v1/locks/{key}",
    tag = "locks",
    security(("admin_token" = [])),
    params(
        ("key" = String, Path, description = "Its name, which may contain slashes", example = "demo:acme:action:order-17"),
        ("reason" = Option<String>, Query, description = "Why, 1 to 256 bytes, unless the body says it"),
    ),
    request_body(content = Option<schema::Reason>, description = "The reason, unless the query says it"),
    responses(
        (status = 200, description = "Who held it just before, and how many leases were ended", body = schema::Released),
        (status = 404, description = "There is no record of it", body = schema::Errors),
        (status = "4XX", description = "The request is wrong, or not an administrator's", body = schema::Errors),
        (status = "5XX", description = "The backend does not answer; `effect` says whether the lock may have been released", body = schema::Errors),
    )
)]
pub async fn release(
    admin: Admin,
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Reason>, QueryRejection>,
    request: Request<Body>,
) -> Result<Json<Released>, ApiError> {
    let key = key_of(path)?;
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let reason = read_reason(&app, query, request).await?;
    let state = app.state().clone();
    let work = async move {
        let done = release_by_force(&state, &key, &reason).await;
        audit(admin, &key, &reason, &done);
        done.map(|done| done.ok_or_else(|| unknown(&key)))
    };
    app.limits().run(work).await?.map_err(state_error)?.map(Json)
}

/// What was done by whom, for whoever asks later.
fn audit(admin: Admin, key: &StateKey, reason: &str, done: &acteon_state::Result<Option<Released>>) {
    let lock = key.text();
    match done {
        Ok(Some(Released { released, holders, .. })) => {
            let tokens: Vec<u64> = holders.iter().map(|holder| holder.token).collect();
            warn!(by = %admin, lock, reason, released, ?tokens, "an administrator released a lock by force");
        }
        Ok(None) => warn!(by = %admin, lock, reason, "an administrator tried to release a lock that is not known"),
        Err(error) => warn!(by = %admin, lock, reason, %error, "an administrator tried to release a lock by force"),
    }
}

fn key_of(path: Result<Path<String>, PathRejection>) -> Result<StateKey, ApiError> {
    let Path(text) = path.map_err(|error| invalid(error.body_text()))?;
    parse_key(&text).map_err(|why| invalid(format!("the name of the lock: {why}")))
}

/// The reason out of the query, otherwise out of the body.
async fn read_reason(app: &App, query: Reason, request: Request<Body>) -> Result<String, ApiError> {
    let reason = match query.reason {
        Some(reason) => Some(reason),
        None if request.headers().contains_key(CONTENT_TYPE) => {
            let body = app.limits().read_json(request).await?;
            let parsed: Result<Reason, _> = serde_json::from_slice(&body);
            parsed.map_err(|error| invalid(format!("the body: {error}; write {{\"reason\": \"..\"}}")))?.reason
        }
        None => None,
    };
    let missing = || invalid("`reason` is missing: add ?reason=.. or the body {\"reason\": \"..\"}");
    parse_reason(&reason.ok_or_else(missing)?).map_err(|why| invalid(format!("`reason`: {why}")))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("invalid_request", message)
}

/// In the words for a wrong body.
fn wrong_query(error: &QueryRejection) -> ApiError {
    let text = error.body_text();
    invalid(format!("the query: {}", text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text)))
}

fn unknown(key: &StateKey) -> ApiError {
    let message = format!("there is no record of {key}: it was never held, or so long ago that the record is gone");
    ApiError::new("unknown_lock", message)
}

fn state_error(error: Error) -> ApiError {
    let effect = error.effect();
    let api = match error.kind() {
        ErrorKind::Invalid | ErrorKind::TooLarge => return invalid(error.message()),
        ErrorKind::Unsupported => return ApiError::new("unsupported", error.message()),
        _ => ApiError::from(DispatchError::State { stage: "locks", source: error }),
    };
    match effect {
        Effect::Unknown => api.with_unknown_effect(),
        Effect::NotApplied => api,
    }
}

#[cfg(test)]
mod tests {
    use acteon_state::{Effect, Error, ErrorKind};

    use super::state_error;

    #[test]
    fn errors_of_the_store_say_what_a_caller_can_do() {
        assert_eq!(state_error(Error::unsupported("locks")).code(), "unsupported");
        assert_eq!(state_error(Error::invalid("the cursor is none")).code(), "invalid_request");
        let lost = Error::new(ErrorKind::Timeout, "no answer from 10.1.2.3").with_effect(Effect::Unknown);
        let body = state_error(lost).into_body();
        assert_eq!((body.code, body.effect), ("state_unavailable", Some("unknown")));
        assert!(!body.message.contains("10.1.2.3"), "{}", body.message);
    }
}
