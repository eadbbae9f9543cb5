//! Providers: what executes an action in the outside world.
//!
//! # What it promises
//! A provider is asked through [`Registry::execute`], which looks it up by name, admits at most as many
//! executions at a time as its configuration allows, and stops asking it for a while after it failed too often
//! ([`breaker`]). Every wait ends at the deadline of the [`ExecuteContext`], or when that is cancelled.
//!
//! # Failure
//! [`ProviderError`] has a stable code, says whether another attempt may succeed, and whether the provider may have
//! done the work all the same. Its message holds no secret: of an address, only scheme, host and port are shown,
//! since its path may be one. Dropping the future of an execution stops waiting for it; the provider may still do the
//! work.
//!
//! # How it works
//! `config` is the `[[providers]]` section, `registry` the lookup with limit and breaker, `log` and `webhook` the
//! providers of this crate, `retry` and `signature` the two algorithms of a webhook. An application adds a
//! provider of its own with [`Registry::insert`].

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::outcome::{Effect, Failure};

pub mod breaker;
pub mod config;
mod log;
mod registry;
pub mod retry;
pub mod signature;
pub mod webhook;

pub use log::LogProvider;
pub use registry::Registry;
pub use webhook::Webhook;

/// Executes actions of any type that are addressed to it by name.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync {
    /// The name that actions ask for.
    fn name(&self) -> &str;

    /// The kind in the configuration, such as `webhook`.
    fn kind(&self) -> &'static str;

    /// Does what the action says, or fails before the deadline of `ctx`.
    ///
    /// An action may come twice with the same id, after a crash or an unsettled failure; a provider passes the id on,
    /// so that the receiver can tell.
    ///
    /// # Errors
    /// [`ProviderError`] says whether a repetition may help and whether the work may have been done.
    async fn execute(&self, action: &Action, ctx: &ExecuteContext) -> Result<Receipt, ProviderError>;
}

/// How long a provider may take, and who can stop it.
#[derive(Debug, Clone)]
pub struct ExecuteContext {
    /// Every wait ends here, the last attempt included.
    pub deadline: Instant,
    /// Ends every wait at once.
    pub cancel: CancellationToken,
}

/// The provider did it.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// How many times it tried, at least 1.
    pub attempts: u32,
    /// What came back, small enough to be stored with the outcome; null when there is nothing to say.
    pub detail: Value,
}

/// The provider did not do it, or cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// A stable word for programs.
    pub code: ErrorCode,
    /// A sentence for people, free of secrets.
    pub message: String,
    /// Whether the same action may succeed when sent again.
    pub retryable: bool,
    /// Whether the provider may have done it.
    pub effect: Effect,
    /// How many times it tried; 0 when it was not reached at all.
    pub attempts: u32,
}

/// Why a provider failed, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No provider has the name.
    UnknownProvider,
    /// As many executions are under way as the provider admits, until the deadline.
    Busy,
    /// The provider failed too often and is left alone for a while.
    CircuitOpen,
    /// No connection came about.
    Connect,
    /// No answer came in time.
    Timeout,
    /// The connection broke, or what came back is no HTTP.
    Protocol,
    /// The answer says that it failed.
    HttpStatus,
    /// The caller gave up.
    Cancelled,
    /// The action cannot be sent to this provider at all.
    Unsendable,
}

impl ErrorCode {
    /// The word, as it stands in outcomes and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::UnknownProvider => "unknown_provider",
            ErrorCode::Busy => "busy",
            ErrorCode::CircuitOpen => "circuit_open",
            ErrorCode::Connect => "connect",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Protocol => "protocol",
            ErrorCode::HttpStatus => "http_status",
            ErrorCode::Cancelled => "cancelled",
            ErrorCode::Unsendable => "unsendable",
        }
    }
}

impl ProviderError {
    /// A failure before the provider was asked: it has not happened.
    #[must_use]
    pub fn not_asked(code: ErrorCode, retryable: bool, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable, effect: Effect::NotApplied, attempts: 0 }
    }

    /// The part of a [`failed`](crate::Outcome::Failed) outcome that tells why.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure {
            code: self.code.as_str().to_owned(),
            message: self.message.clone(),
            retryable: self.retryable,
            effect: self.effect,
        }
    }
}
