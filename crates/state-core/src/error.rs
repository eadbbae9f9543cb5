//! The one error type: what the caller can do about it (kind), and whether it may have happened (effect).

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::key::StateKey;

/// Result with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend cannot be reached, or the connection broke. Try again later.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The backend, or a limit of ours in front of it, asks for fewer requests. Try again later.
    Throttled,
    /// The request is wrong, and will be wrong again: the message says what is allowed.
    Invalid,
    /// A key, value, page or batch above the backend's limit.
    TooLarge,
    /// A counter would leave the range of a signed 64-bit integer.
    Overflow,
    /// This backend does not have the capability; see [`Capabilities`](crate::Capabilities).
    Unsupported,
    /// A counter where a value is needed, or the other way round.
    WrongType,
    /// Credentials or rights are missing, or a guard refused the key.
    Denied,
    /// The configuration is wrong: the message says where.
    Config,
    /// Stored data does not parse. Nothing was assumed in its place.
    Corrupt,
    /// The server is changing its role (loading, read-only replica, master down). Try again soon.
    Failover,
    /// The backend is out of memory or space and refuses writes.
    OutOfMemory,
    /// The write was made but could not be made durable as required.
    NotDurable,
    /// Too many others changed the same entry at the same time: a bounded loop gave up.
    Contended,
    /// The store was closed.
    Closed,
    /// Something that should not happen; a bug here or in the backend.
    Internal,
}

impl ErrorKind {
    /// The kind's name in lower case with underscores, as metrics and JSON errors carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Overflow => "overflow",
            Self::Unsupported => "unsupported",
            Self::WrongType => "wrong_type",
            Self::Denied => "denied",
            Self::Config => "config",
            Self::Corrupt => "corrupt",
            Self::Failover => "failover",
            Self::OutOfMemory => "out_of_memory",
            Self::NotDurable => "not_durable",
            Self::Contended => "contended",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed a moment later, with nothing changed by the caller.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Throttled | Self::Failover)
    }
}

/// Whether a failed operation may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It certainly did not happen.
    NotApplied,
    /// It may have happened: the request was sent, and its answer was lost.
    Unknown,
}

impl Effect {
    /// `not_applied` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
        }
    }
}

/// A failed operation: kind, effect, operation, backend, key, reason, source.
///
/// Results that callers expect (condition not met, absent, lock busy) are values in `Ok`, never an `Error`.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    effect: Effect,
    operation: Option<&'static str>,
    backend: Option<Cow<'static, str>>,
    key: Option<StateKey>,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind that changed nothing. Say otherwise by [`with_effect`](Self::with_effect).
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            effect: Effect::NotApplied,
            operation: None,
            backend: None,
            key: None,
            message: message.into(),
            source: None,
        }))
    }

    /// `Invalid`: the request itself is wrong.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// `Config`: the configuration is wrong.
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// `Unsupported`: the backend does not declare this capability.
    #[must_use]
    pub fn unsupported(capability: &'static str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("this backend does not have the capability `{capability}`"))
    }

    /// `WrongType`: a counter where a value is needed, or the other way round.
    #[must_use]
    pub fn wrong_type(key: &StateKey, message: &'static str) -> Self {
        Self::new(ErrorKind::WrongType, message).with_key(key)
    }

    /// `Corrupt`: what is stored under `key` does not parse.
    pub fn corrupt(key: &StateKey, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message).with_key(key)
    }

    /// Sets whether the operation may have happened.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Sets the key that the operation was about.
    #[must_use]
    pub fn with_key(mut self, key: &StateKey) -> Self {
        self.0.key = Some(key.clone());
        self
    }

    /// Sets the name of the operation unless an inner place has set it.
    #[must_use]
    pub fn in_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Sets the name of the backend unless an inner place has set it.
    #[must_use]
    pub fn on_backend(mut self, backend: impl Into<Cow<'static, str>>) -> Self {
        self.0.backend.get_or_insert(backend.into());
        self
    }

    /// Sets what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it may have happened.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// The operation, as [`Operation::as_str`](crate::Operation::as_str) names it.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The backend's name.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    /// The key that the operation was about.
    #[must_use]
    pub fn key(&self) -> Option<&StateKey> {
        self.0.key.as_ref()
    }

    /// The reason, without operation, backend and source.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, effect, operation, backend, key, message, .. } = &*self.0;
        if let Some(backend) = backend {
            write!(f, "{backend} ")?;
        }
        if let Some(operation) = operation {
            write!(f, "{operation}: ")?;
        } else if backend.is_some() {
            f.write_str("state: ")?;
        }
        f.write_str(message)?;
        if let Some(key) = key {
            write!(f, " (key {key})")?;
        }
        match effect {
            Effect::NotApplied => write!(f, " [{}]", kind.as_str()),
            Effect::Unknown => write!(f, " [{}; it may have been applied]", kind.as_str()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, effect, operation, backend, key, message, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("effect", effect)
            .field("operation", operation)
            .field("backend", backend)
            .field("key", key)
            .field("message", message)
            .field("source", source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Error, ErrorKind};

    #[test]
    fn an_error_says_what_where_and_whether_it_happened() {
        let error = Error::new(ErrorKind::Timeout, "no answer within 1s")
            .with_effect(Effect::Unknown)
            .in_operation("increment")
            .on_backend("redis")
            .in_operation("outer");
        assert_eq!(error.to_string(), "redis increment: no answer within 1s [timeout; it may have been applied]");
    }
}
