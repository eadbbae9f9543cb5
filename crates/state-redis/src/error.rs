//! From the server's error codes and the client library's failures to kind and effect.
//!
//! # Effects
//! An error reply that we know means that the server refused: [`NotApplied`](Effect::NotApplied), since none of our commands and
//! scripts fails after its first write for these reasons. Any other may have stopped a script halfway, such as a user without the
//! right to one of its commands, and leaves it [`Unknown`](Effect::Unknown). So does a connection that breaks, or an answer that
//! does not come in time. A read changes nothing either way.

use std::time::Duration;

use acteon_state_core::{Effect, Error, ErrorKind};

use crate::wire::{Failure, ServerError, Value};

/// The backend's name in errors and configuration.
pub(crate) const BACKEND: &str = "redis";

/// Whether a request can change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    /// The effect of a request that was sent and whose answer is missing.
    pub(crate) const fn unanswered(self) -> Effect {
        match self {
            Self::Read => Effect::NotApplied,
            Self::Write => Effect::Unknown,
        }
    }
}

/// Error codes, the first word of an error reply.
const CODES: [(&str, ErrorKind); 19] = [
    ("LOADING", ErrorKind::Failover),
    ("READONLY", ErrorKind::Failover),
    ("MASTERDOWN", ErrorKind::Failover),
    ("TRYAGAIN", ErrorKind::Failover),
    ("CLUSTERDOWN", ErrorKind::Failover),
    ("UNBLOCKED", ErrorKind::Failover),
    ("MOVED", ErrorKind::Config),
    ("ASK", ErrorKind::Config),
    ("CROSSSLOT", ErrorKind::Config),
    ("OOM", ErrorKind::OutOfMemory),
    ("NOAUTH", ErrorKind::Denied),
    ("WRONGPASS", ErrorKind::Denied),
    ("NOPERM", ErrorKind::Denied),
    ("DENIED", ErrorKind::Denied),
    ("BUSY", ErrorKind::Unavailable),
    ("MISCONF", ErrorKind::NotDurable),
    ("NOREPLICAS", ErrorKind::NotDurable),
    // Another type of Redis under one of our keys: nothing of ours writes that.
    ("WRONGTYPE", ErrorKind::Corrupt),
    ("NOPROTO", ErrorKind::Config),
];

/// What the general code `ERR` says, by a part of its text.
const PHRASES: [(&str, ErrorKind); 8] = [
    ("max number of clients reached", ErrorKind::Throttled),
    ("increment or decrement would overflow", ErrorKind::Overflow),
    ("value is not an integer", ErrorKind::Corrupt),
    ("string exceeds maximum allowed size", ErrorKind::TooLarge),
    ("DB index is out of range", ErrorKind::Config),
    ("invalid DB index", ErrorKind::Config),
    ("without any password configured", ErrorKind::Config),
    ("unknown command", ErrorKind::Unsupported),
];

/// The longest text of a server that is repeated in an error.
const TEXT_CHARS_MAX: usize = 200;

/// What stands before the arguments of a command that the server does not know. Those of HELLO, by which RESP3 logs in, hold the
/// password; those of others keys and values.
const ARGUMENTS_REPEATED: &str = ", with args beginning with";

/// The kind of an error reply.
pub(crate) fn classify(code: &str, text: &str) -> ErrorKind {
    let by_code = CODES.iter().find(|(known, _)| *known == code);
    let by_phrase = || PHRASES.iter().find(|(phrase, _)| text.contains(phrase));
    by_code.or_else(by_phrase).map_or(ErrorKind::Internal, |(_, kind)| *kind)
}

/// Whether the server does not have the script that a call named by its digest.
pub(crate) fn is_no_script(error: &ServerError) -> bool {
    error.code() == "NOSCRIPT"
}

/// An error reply.
pub(crate) fn from_server(error: &ServerError) -> Error {
    let text = error.details();
    let kind = classify(error.code(), text);
    let shown = text.lines().next().unwrap_or_default();
    let shown = shown.split_once(ARGUMENTS_REPEATED).map_or(shown, |(shown, _)| shown);
    let shown: String = shown.chars().take(TEXT_CHARS_MAX).collect();
    let effect = if kind == ErrorKind::Internal { Effect::Unknown } else { Effect::NotApplied };
    Error::new(kind, format!("the server answered {} {shown}", error.code())).with_effect(effect).on_backend(BACKEND)
}

/// A request that has no answer, `timeout_after` so long if its time is over.
pub(crate) fn from_failure(failure: Failure, access: Access, timeout_after: Duration) -> Error {
    let broken = |message, effect| Error::new(ErrorKind::Unavailable, message).with_effect(effect).on_backend(BACKEND);
    match failure {
        Failure::TimedOut => timeout(timeout_after, access.unanswered()),
        Failure::NotSent(None) => timeout(timeout_after, Effect::NotApplied),
        Failure::NotSent(Some(why)) => {
            broken("the connection broke before the request was sent", Effect::NotApplied).with_source(why)
        }
        Failure::Lost(why) => {
            broken("the connection broke before the answer came", access.unanswered()).with_source(why)
        }
    }
}

/// The same error once more, for each of those whom it concerns.
pub(crate) fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.message().to_owned()).with_effect(error.effect()).on_backend(BACKEND)
}

/// No answer within the operation timeout.
pub(crate) fn timeout(after: Duration, effect: Effect) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {after:?}")).with_effect(effect).on_backend(BACKEND)
}

/// A reply of another shape than the command gives.
pub(crate) fn unexpected(reply: &Value) -> Error {
    let shape = match reply {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::BulkString(_) | Value::SimpleString(_) => "a string",
        Value::Array(_) => "an array",
        _ => "another type",
    };
    Error::new(ErrorKind::Internal, format!("the server answered with {shape}, which this command never does"))
        .with_effect(Effect::Unknown)
        .on_backend(BACKEND)
}

/// What asked for us did not live to see the answer.
pub(crate) fn runtime_ended() -> Error {
    let message = "the runtime on which the store was connected has ended before the answer came";
    Error::new(ErrorKind::Unavailable, message).with_effect(Effect::Unknown).on_backend(BACKEND)
}

/// The store was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed").on_backend(BACKEND)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state_core::{Effect, ErrorKind};

    use super::{Access, CODES, PHRASES, classify, from_failure, from_server};
    use crate::wire::{Failure, ServerError};

    #[test]
    fn every_row_is_reached() {
        for (code, kind) in CODES {
            assert_eq!(classify(code, "whatever"), kind);
        }
        for (phrase, kind) in PHRASES {
            assert_eq!(classify("ERR", phrase), kind);
        }
        assert_eq!(classify("ERR", "something new"), ErrorKind::Internal);
    }

    #[test]
    fn an_error_reply_changed_nothing_and_is_cut() {
        let error = from_server(&ServerError::new(format!("OOM {}", "x".repeat(10_000))));
        assert_eq!((error.kind(), error.effect()), (ErrorKind::OutOfMemory, Effect::NotApplied));
        assert!(error.message().len() < 300);
        let text = "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'hunter2'";
        let error = from_server(&ServerError::new(format!("ERR {text}")));
        assert!(error.message().ends_with("ERR unknown command 'HELLO'"), "{error}");
    }

    #[test]
    fn a_missing_answer_leaves_only_writes_unknown_and_only_those_that_were_sent() {
        let why = || Arc::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let effect = |failure, access| from_failure(failure, access, Duration::from_secs(1)).effect();
        for failure in [Failure::TimedOut, Failure::Lost(why())] {
            assert_eq!(effect(failure.clone(), Access::Write), Effect::Unknown);
            assert_eq!(effect(failure, Access::Read), Effect::NotApplied);
        }
        for failure in [Failure::NotSent(None), Failure::NotSent(Some(why()))] {
            assert_eq!(effect(failure, Access::Write), Effect::NotApplied);
        }
    }
}
