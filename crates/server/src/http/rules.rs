//! `/v1/rules`: which rules are in force, reading them again, and a dry run with its trace.

use std::path::Path;
use std::sync::Arc;

use acteon_dispatch::rules::{DefaultDecision, ReloadFailure, RuleSet, RuleSummary, RuleTrace, Verdict};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::Serialize;

use crate::app::App;
use crate::http::dispatch::parse_action;
use crate::http::error::ApiError;
use crate::http::schema;

/// The rules in force.
#[derive(Debug, Serialize)]
pub struct RulesInForce {
    /// 1 at the start, one more with each successful reload.
    generation: u64,
    /// When they were read, as RFC 3339.
    loaded_at: String,
    /// Where they were read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    /// What happens to an action that no terminal rule decides.
    default: DefaultDecision,
    /// In the order in which they are visited.
    rules: Vec<RuleSummary>,
    /// The last reload, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<ReloadFailure>,
}

/// What the rules say about an action that is not executed.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    generation: u64,
    verdict: Verdict,
    trace: Vec<RuleTrace>,
}

/// List the rules in force
#[utoipa::path(
    get,
    path = "/v1/rules",
    tag = "rules",
    responses((status = 200, description = "The rules in the order in which they are visited", body = schema::RulesInForce))
)]
pub async fn list(State(app): State<App>) -> Json<RulesInForce> {
    let rules = app.rules();
    let failure = rules.last_failure().map(Arc::unwrap_or_clone);
    Json(in_force(&rules.current(), rules.directory(), failure))
}

/// Read the rule files again
///
/// All files are read and checked before any is used. When one is bad, the old rules stay in force.
#[utoipa::path(
    post,
    path = "/v1/rules/reload",
    tag = "rules",
    responses(
        (status = 200, description = "The new rules are in force", body = schema::RulesInForce),
        (status = 422, description = "A rule file is bad; the old rules stay in force", body = schema::Errors),
    )
)]
pub async fn reload(State(app): State<App>) -> Result<Json<RulesInForce>, ApiError> {
    let reloading = app.clone();
    // In a place like any other work, so that callers cannot pile up threads that wait for the disk.
    let set = app.limits().run(async move { reloading.reload_rules("http").await }).await??;
    Ok(Json(in_force(&set, app.rules().directory(), None)))
}

/// Try the rules on an action
///
/// A dry run: nothing is executed, no limit is used up, no state is read.
#[utoipa::path(
    post,
    path = "/v1/rules/evaluate",
    tag = "rules",
    request_body = schema::Action,
    responses(
        (status = 200, description = "The verdict, and what each rule did", body = schema::Evaluation),
        (status = "4XX", description = "The request is wrong", body = schema::Errors),
    )
)]
pub async fn evaluate(State(app): State<App>, request: Request<Body>) -> Result<Json<Evaluation>, ApiError> {
    let body = app.limits().read_json(request).await?;
    let action = parse_action(&body)?;
    let set = app.rules().current();
    let (verdict, trace) = set.evaluate_traced(action);
    Ok(Json(Evaluation { generation: set.generation(), verdict, trace }))
}

fn in_force(set: &RuleSet, directory: Option<&Path>, last_failure: Option<ReloadFailure>) -> RulesInForce {
    RulesInForce {
        generation: set.generation(),
        loaded_at: set.loaded_at().to_string(),
        directory: directory.map(|directory| directory.display().to_string()),
        default: set.default_decision(),
        rules: set.summaries(),
        last_failure,
    }
}
