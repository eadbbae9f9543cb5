//! `GET /openapi.json`: the interface as an OpenAPI 3.1 document, written from the handlers' own descriptions.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use crate::http::error::CODES;
use crate::http::{dispatch, health, locks, metrics, rules};

const INTRODUCTION: &str = "Send actions, get outcomes.

An outcome is answered with status 200, whatever it is; only `throttled` is 429, with `Retry-After`. Everything else is an \
error: `{\"error\": {\"code\", \"message\", ..}}` with one of these codes. Every answer carries `x-request-id`.
";

#[derive(OpenApi)]
#[openapi(
    info(title = "Acteon"),
    paths(
        dispatch::dispatch,
        dispatch::dispatch_batch,
        rules::list,
        rules::reload,
        rules::evaluate,
        locks::list,
        locks::inspect,
        locks::release,
        health::health,
        health::ready,
        metrics::metrics,
        document,
    ),
    tags(
        (name = "dispatch", description = "Actions in, outcomes out"),
        (name = "rules", description = "Which rules are in force, and what they would say"),
        (name = "locks", description = "Who holds what, and releases by force; for administrators, who present `server.admin_token`"),
        (name = "operations", description = "For load balancers, monitoring and tools"),
    )
)]
struct Described;

/// Built once: it never changes while the process runs.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    build().to_pretty_json().expect("a document of strings, numbers and lists can be written as JSON")
});

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value))
)]
pub async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

fn build() -> Document {
    let mut document = Described::openapi();
    let mut description = String::from(INTRODUCTION);
    description.push_str("\n| status | code | meaning |\n|---|---|---|\n");
    for (status, code, meaning) in CODES {
        writeln!(description, "| {status} | `{code}` | {meaning} |").expect("writing to a String cannot fail");
    }
    document.info.description = Some(description);
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme("admin_token", bearer);
    document
}

#[cfg(test)]
mod tests {
    use super::{CODES, build};

    #[test]
    fn every_error_code_is_in_the_document() {
        let description = build().info.description.expect("described");
        for (_, code, _) in CODES {
            assert!(description.contains(&format!("`{code}`")), "{code}");
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let text = super::TEXT.as_str();
        let names = build().components.expect("schemas").schemas;
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("quoted");
            assert!(names.contains_key(name), "{name}");
        }
        for name in ["Action", "Outcome", "Errors", "Ready", "Evaluation", "LockPage", "Released"] {
            assert!(names.contains_key(name), "{name}");
        }
    }
}
