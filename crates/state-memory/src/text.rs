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

fn concat<const N: usize>(parts: &[&str; N]) -> KeyText {
    let bytes = parts.iter().map(|part| part.len()).sum();
    if bytes > INLINE_BYTES {
        return KeyText::from_vec(parts.concat().into_bytes());
    }
    // Into a buffer of a known length: `extend_from_slice` would ask for each part whether the text has to move to the heap.
    let mut buffer = [0; INLINE_BYTES];
    let mut rest = &mut buffer[..];
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part.as_bytes());
        rest = after;
    }
    KeyText::from_buf_and_len(buffer, bytes)
}

#[cfg(test)]
mod tests {
    use acteon_state_core::key::Companion;
    use acteon_state_core::{Keyspace, StateKey};

    use super::{INLINE_BYTES, companion_text, value_text};

    #[test]
    fn texts_are_those_of_the_keyspace_around_the_length_that_fits() {
        let keyspace = Keyspace::new("acteon").unwrap();
        for id_bytes in
            [1, INLINE_BYTES - 20, INLINE_BYTES - 14, INLINE_BYTES - 13, INLINE_BYTES - 12, INLINE_BYTES, 512]
        {
            let key = StateKey::new("n", "t", "k", &"i".repeat(id_bytes)).unwrap();
            let text = value_text(&keyspace, &key);
            assert_eq!(&*text, keyspace.text(&key).as_bytes());
            assert_eq!(text.spilled(), text.len() > INLINE_BYTES);
            let lock = companion_text(&keyspace, &key, Companion::Lock);
            assert_eq!(&*lock, keyspace.companion(&key, Companion::Lock).as_bytes());
        }
    }
}
