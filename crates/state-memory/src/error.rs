//! Errors of the engine as errors of the contract.

use acteon_engine::EngineError;
use acteon_state_core::{Error, ErrorKind, StateKey};

/// What a refused write of the engine means to the caller. Nothing was changed.
pub(crate) fn classify(key: &StateKey, error: EngineError) -> Error {
    let kind = match error {
        // A journal without room is a store without room.
        EngineError::OutOfMemory | EngineError::NotWritable => ErrorKind::OutOfMemory,
        EngineError::WrongType => return foreign(key),
        EngineError::KeyTooLong => ErrorKind::TooLarge,
        EngineError::ScoreNotANumber => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string()).with_key(key)
}

/// Something lies under the key that no driver writes there.
pub(crate) fn foreign(key: &StateKey) -> Error {
    Error::corrupt(key, "what is stored here was not written by this library; move it to another key or delete it")
}

/// The handle was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed")
}
