//! The texts of keys on the stack: each operation needs one, and nearly all are short.

use acteon_state_core::key::Companion;
use acteon_state_core::{Keyspace, StateKey};
use smallvec::SmallVec;

/// Prefix, four parts and a suffix of usual length; longer texts go to the heap.
const INLINE_BYTES: usize = 128;

/// The text that something is stored under.
pub(crate) type KeyText = SmallVec<[u8; INLINE_BYTES]>;

/// The text of a value or counter.
pub(crate) fn value_text(keyspace: &Keyspace, key: &StateKey) -> KeyText {
    concat(&keyspace.text_parts(key))
}

/// The text of a companion.
pub(crate) fn companion_text(keyspace: &Keyspace, key: &StateKey, companion: Companion) -> KeyText {
    concat(&keyspace.companion_parts(key, companion))
}

fn concat(parts: &[&str]) -> KeyText {
    let mut text = KeyText::new();
    for part in parts {
        text.extend_from_slice(part.as_bytes());
    }
    text
}
