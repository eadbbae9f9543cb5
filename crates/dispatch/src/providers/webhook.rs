//! The provider that sends actions by HTTP.
//!
//! # The request
//! `POST` to the configured URL with the action as JSON, fields as in [`Action`], and these headers besides the
//! configured ones: `Content-Type: application/json`, `Idempotency-Key` with the action's id (the same for every
//! attempt), and, with a signing secret, the two of [`signature`](crate::providers::signature), made afresh for each
//! attempt.
//!
//! # What it promises
//! Any 2xx is success. 408, 429, 5xx and broken connections are tried again, within `attempts_max` and the deadline
//! of the context; the waits are those of [`retry`](crate::providers::retry). Anything else, redirects included,
//! fails at once: following a redirect could carry the action and its headers to a host that nobody configured.
//! Certificates are verified against the roots of the system; there is no switch to turn that off. Of the answer at
//! most [`RESPONSE_BYTES_MAX`] bytes are read.
//!
//! # Failure
//! The [`Effect`] is `NotApplied` only when every attempt was refused: no connection, 429, or another 4xx. After a
//! timeout, a broken connection, a redirect or a 5xx it is `Unknown`, and a receiver tells repetitions by the `Idempotency-Key`.

use std::fmt;
use std::time::Duration;

use acteon_state::config::Secret;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;

use crate::action::Action;
use crate::outcome::Effect;
use crate::providers::config::{ConfigError, HEADERS_MAX, ProviderConfig, TIMEOUT_DEFAULT};
use crate::providers::retry::{RETRY_AFTER_MAX, RetryPolicy, parse_retry_after};
use crate::providers::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};
use crate::providers::{ErrorCode, ExecuteContext, Provider, ProviderError, Receipt};

/// Most bytes of an answer that are read. They are stored with the outcome.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Headers that the provider sets itself, or that would contradict the body.
const RESERVED_HEADERS: &[&str] = &[
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    IDEMPOTENCY_KEY,
    TIMESTAMP_HEADER,
    SIGNATURE_HEADER,
];

/// Sends actions by HTTP.
pub struct Webhook {
    name: String,
    client: Client,
    url: Url,
    /// Scheme, host and port: what may be shown of the URL.
    origin: String,
    headers: HeaderMap,
    timeout: Duration,
    retry: RetryPolicy,
    signing_key: Option<Secret>,
}

/// One attempt that failed.
struct Failed {
    code: ErrorCode,
    message: String,
    retryable: bool,
    effect: Effect,
    retry_after: Option<Duration>,
}

impl Webhook {
    /// Makes the provider. Reads the secret file, and blocks on it.
    ///
    /// TLS needs a process-wide crypto provider of rustls; when the program has installed none, ring is.
    ///
    /// # Errors
    /// [`ConfigError`] says which key is wrong.
    pub fn from_config(config: &ProviderConfig) -> Result<Self, ConfigError> {
        let url = parse_url(config)?;
        Ok(Self {
            name: config.name.clone(),
            client: client(config)?,
            origin: url.origin().ascii_serialization(),
            url,
            headers: headers(config)?,
            timeout: timeout(config)?,
            retry: config.retry_policy()?,
            signing_key: config.signing_key()?,
        })
    }

    async fn attempt(&self, action: &Action, body: &Bytes, time: Duration) -> Result<Value, Failed> {
        let id = HeaderValue::from_str(&action.id)
            .map_err(|_| self.unsendable("the id of the action cannot stand in a header"))?;
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(IDEMPOTENCY_KEY, id)
            .timeout(time);
        if let Some(key) = &self.signing_key {
            let now_s = Timestamp::now().as_second();
            request = request.header(TIMESTAMP_HEADER, now_s).header(SIGNATURE_HEADER, sign(key, now_s, body));
        }
        let response = request.body(body.clone()).send().await.map_err(|error| self.not_answered(error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(status, &response));
        }
        Ok(detail(status, response).await)
    }

    fn not_answered(&self, error: reqwest::Error) -> Failed {
        let (code, effect) = if error.is_connect() {
            (ErrorCode::Connect, Effect::NotApplied)
        } else if error.is_timeout() {
            (ErrorCode::Timeout, Effect::Unknown)
        } else if error.is_builder() {
            (ErrorCode::Unsendable, Effect::NotApplied)
        } else {
            (ErrorCode::Protocol, Effect::Unknown)
        };
        let retryable = code != ErrorCode::Unsendable;
        let message = format!("{}: {}", self.origin, chain(&error.without_url()));
        Failed { code, message, retryable, effect, retry_after: None }
    }

    fn refused(&self, status: StatusCode, response: &Response) -> Failed {
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let retryable = busy || status.is_server_error();
        // A server that failed inside may have done the work before it failed, and one that redirects (303 above all) may
        // have done it and point to the result.
        let effect = if status.is_client_error() { Effect::NotApplied } else { Effect::Unknown };
        let hint = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Failed {
            code: ErrorCode::HttpStatus,
            message: format!("{} answered {status}{hint}", self.origin),
            retryable,
            effect,
            retry_after: header.and_then(|value| parse_retry_after(value, Timestamp::now())),
        }
    }

    fn unsendable(&self, message: &str) -> Failed {
        Failed {
            code: ErrorCode::Unsendable,
            message: format!("{}: {message}", self.origin),
            retryable: false,
            effect: Effect::NotApplied,
            retry_after: None,
        }
    }

    /// How long to wait before the next attempt; `None` when there is to be none.
    fn wait_after(&self, failed: &Failed, attempt: u32, deadline: Instant) -> Option<Duration> {
        if !failed.retryable || attempt >= self.retry.attempts_max {
            return None;
        }
        let wait = failed.retry_after.unwrap_or_else(|| self.retry.delay_after(attempt, rand::random()));
        // Sleeping into the deadline would only make the failure come later.
        let in_time = Instant::now().checked_add(wait).is_some_and(|end| end < deadline);
        (wait <= RETRY_AFTER_MAX && in_time).then_some(wait)
    }
}

/// Without the URL, which may hold a password or a token.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

#[async_trait]
impl Provider for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "webhook"
    }

    async fn execute(&self, action: &Action, ctx: &ExecuteContext) -> Result<Receipt, ProviderError> {
        let body = serde_json::to_vec(action)
            .map(Bytes::from)
            .map_err(|error| ProviderError::not_asked(ErrorCode::Unsendable, false, error.to_string()))?;
        if ctx.deadline <= Instant::now() {
            let message = format!("{}: the deadline had passed before anything was sent", self.origin);
            return Err(ProviderError::not_asked(ErrorCode::Timeout, true, message));
        }
        let mut effect = Effect::NotApplied;
        let mut attempt = 1;
        loop {
            let time = self.timeout.min(ctx.deadline.saturating_duration_since(Instant::now()));
            let sending = ctx.cancel.run_until_cancelled(self.attempt(action, &body, time));
            let failed = match sending.await {
                Some(Ok(detail)) => return Ok(Receipt { attempts: attempt, detail }),
                Some(Err(failed)) => failed,
                None => return Err(cancelled(attempt, Effect::Unknown)),
            };
            // One attempt that may have done the work is enough for the whole.
            if failed.effect == Effect::Unknown {
                effect = Effect::Unknown;
            }
            let Some(wait) = self.wait_after(&failed, attempt, ctx.deadline) else {
                let Failed { code, message, retryable, .. } = failed;
                return Err(ProviderError { code, message, retryable, effect, attempts: attempt });
            };
            debug!(
                provider = self.name,
                action_id = action.id,
                attempt,
                reason = failed.message,
                ?wait,
                "trying again"
            );
            if ctx.cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Err(cancelled(attempt, effect));
            }
            attempt += 1;
        }
    }
}

fn cancelled(attempts: u32, effect: Effect) -> ProviderError {
    let message = format!("cancelled after {attempts} attempts");
    ProviderError { code: ErrorCode::Cancelled, message, retryable: true, effect, attempts }
}

/// Status and the beginning of the body. A body that breaks off does not undo a success.
async fn detail(status: StatusCode, mut response: Response) -> Value {
    let mut body = Vec::new();
    while body.len() < RESPONSE_BYTES_MAX {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        body.extend_from_slice(&chunk);
    }
    body.truncate(RESPONSE_BYTES_MAX);
    json!({"http_status": status.as_u16(), "body": String::from_utf8_lossy(&body)})
}

/// The error and what caused it: reqwest says only "error sending request" by itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn parse_url(config: &ProviderConfig) -> Result<Url, ConfigError> {
    let Some(text) = &config.url else {
        return Err(config.error("kind = \"webhook\" needs a url"));
    };
    let url = Url::parse(text.expose()).map_err(|error| config.error(format!("url is not valid: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(config.error(format!("url has the scheme `{}`; allowed: https, http", url.scheme())));
    }
    Ok(url)
}

fn headers(config: &ProviderConfig) -> Result<HeaderMap, ConfigError> {
    if config.headers.len() > HEADERS_MAX {
        return Err(config.error(format!("{} headers; at most {HEADERS_MAX}", config.headers.len())));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let lower = name.to_ascii_lowercase();
        if RESERVED_HEADERS.contains(&lower.as_str()) {
            return Err(config.error(format!("the header `{name}` is set by the provider itself")));
        }
        let header = HeaderName::from_bytes(lower.as_bytes())
            .map_err(|_| config.error(format!("`{name}` is no name of a header")))?;
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| config.error(format!("the value of the header `{name}` must be visible ASCII")))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

fn timeout(config: &ProviderConfig) -> Result<Duration, ConfigError> {
    let timeout = config.timeout.map_or(TIMEOUT_DEFAULT, |timeout| timeout.0);
    if timeout.is_zero() {
        return Err(config.error("timeout is 0; allowed: at least 1ms"));
    }
    Ok(timeout)
}

fn client(config: &ProviderConfig) -> Result<Client, ConfigError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only when another thread has installed one in between, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::builder()
        .redirect(Policy::none())
        .user_agent(concat!("acteon/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| config.error(format!("the HTTP client cannot be made: {}", chain(&error))))
}

#[cfg(test)]
mod tests {
    use super::{Secret, Webhook};
    use crate::providers::config::ProviderConfig;
    use acteon_state::config::HumanDuration;

    fn refused(config: &ProviderConfig) -> String {
        Webhook::from_config(config).expect_err("refused").to_string()
    }

    #[test]
    fn configuration_that_cannot_work_is_refused_without_showing_secrets() {
        let base = ProviderConfig::webhook("hook", "https://user:hunter2@example.com/in");
        let mut config = base.clone();
        config.url = None;
        assert!(refused(&config).contains("needs a url"));
        for url in ["ftp://user:hunter2@example.com", "user:hunter2", "http://user:hunter2@"] {
            let shown = refused(&ProviderConfig::webhook("hook", url));
            assert!(shown.contains("url") && !shown.contains("hunter2"), "{shown}");
        }
        for (name, value) in [("Content-Type", "text/plain"), ("no name", "x"), ("x-key", "hunter2\n")] {
            let mut config = base.clone();
            config.headers.insert(name.into(), Secret::new(value));
            let shown = refused(&config);
            assert!(shown.contains(name) && !shown.contains("hunter2"), "{shown}");
        }
        let mut config = base;
        config.timeout = Some(HumanDuration(std::time::Duration::ZERO));
        assert!(refused(&config).contains("timeout is 0"));
    }
}
