//! The HTTP interface: one file per group of routes, and what all of them share.
//!
//! | route | file |
//! |---|---|
//! | `POST /v1/dispatch`, `POST /v1/dispatch/batch` | [`dispatch`] |
//! | `GET /v1/rules`, `POST /v1/rules/reload`, `POST /v1/rules/evaluate` | [`rules`] |
//! | `GET /v1/locks`, `GET` and `DELETE /v1/locks/{key}` | [`locks`], for administrators: [`admin`] |
//! | `GET /health`, `GET /ready` | [`health`] |
//! | `GET /metrics` | [`metrics`] |
//! | `GET /openapi.json` | [`openapi`] |
//!
//! # What it promises
//! Every answer carries `x-request-id`. Every error is JSON with a code ([`error`](mod@error)), unknown routes, wrong methods and panics
//! included. What a request may cost is bounded ([`limits`]), and so is what a connection may ([`serve`]).
//!
//! # How it works
//! Layers from outer to inner: [`observe`] (request id, span, metrics), a net for panics, the routes. Observing is outermost, so that
//! a panic is counted and answered with its request id as well.

use std::any::Any;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::error;

use crate::app::App;
use crate::http::error::ApiError;

pub mod admin;
pub mod dispatch;
pub mod error;
pub mod health;
pub mod limits;
pub mod locks;
pub mod metrics;
pub mod observe;
pub mod openapi;
pub mod rules;
pub mod schema;
pub mod serve;

/// All routes over one [`App`].
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/dispatch", post(dispatch::dispatch))
        .route("/v1/dispatch/batch", post(dispatch::dispatch_batch))
        .route("/v1/rules", get(rules::list))
        .route("/v1/rules/reload", post(rules::reload))
        .route("/v1/rules/evaluate", post(rules::evaluate))
        .route("/v1/locks", get(locks::list))
        .route("/v1/locks/{*key}", get(locks::inspect).delete(locks::release))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new("not_found", format!("there is no {}; /openapi.json lists the paths", uri.path()))
}

async fn method_not_allowed(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new("method_not_allowed", message)
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = message.unwrap_or("of an unknown type"), "a request handler panicked");
    ApiError::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::panicked;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_an_error_that_tells_nothing() {
        async fn broken() -> &'static str {
            panic!("the password is hunter2")
        }
        let router: Router = Router::new().route("/", get(broken)).layer(CatchPanicLayer::custom(panicked));
        let request = Request::get("/").body(Body::empty()).expect("request");
        let response = router.oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(response.into_body(), 4_096).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("\"internal\"") && !text.contains("hunter2"), "{text}");
    }
}
