//! Why a dispatch has no outcome.

use acteon_state_core::{Effect, ErrorKind};

use crate::action::ActionError;

/// Why a dispatch has no outcome. Nothing was executed unless [`effect`](Self::effect) is unknown.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The action is not valid.
    #[error(transparent)]
    Invalid(#[from] ActionError),
    /// The store did not answer, or refused.
    #[error("{stage}: {source}")]
    State {
        /// The stage that asked it.
        stage: &'static str,
        /// What the store said.
        source: acteon_state_core::Error,
    },
    /// The same action is being executed elsewhere, and was for the whole wait.
    #[error("action {action_id} is being executed elsewhere; try again later")]
    Busy {
        /// The action.
        action_id: String,
    },
    /// The action could not be written for the queue.
    #[error("the action cannot be stored: {message}")]
    Unstorable {
        /// Why.
        message: String,
    },
    /// A bug: the task that dispatched it panicked.
    #[error("the dispatch ended unexpectedly: {message}")]
    Panicked {
        /// What is known.
        message: String,
    },
}

impl DispatchError {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_action",
            Self::State { source, .. } if source.kind().is_transient() => "state_unavailable",
            Self::State { source, .. } => match source.kind() {
                ErrorKind::OutOfMemory => "state_out_of_memory",
                ErrorKind::TooLarge => "too_large",
                _ => "state_error",
            },
            Self::Busy { .. } => "busy",
            Self::Unstorable { .. } => "unstorable",
            Self::Panicked { .. } => "internal",
        }
    }

    /// Whether the same action may succeed when sent again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::State { source, .. } => source.kind().is_transient() || source.kind() == ErrorKind::OutOfMemory,
            Self::Busy { .. } => true,
            Self::Invalid(_) | Self::Unstorable { .. } | Self::Panicked { .. } => false,
        }
    }

    /// Whether the action may have been executed or scheduled.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            // Only scheduling changes something that outlives the dispatch; a claim or a lock ends by itself.
            Self::State { stage: "schedule", source } => source.effect(),
            Self::Panicked { .. } => Effect::Unknown,
            _ => Effect::NotApplied,
        }
    }

    pub(crate) fn state(stage: &'static str) -> impl Fn(acteon_state_core::Error) -> Self {
        move |source| Self::State { stage, source }
    }
}
