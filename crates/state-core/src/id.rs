//! 128-bit identifiers that are never drawn twice, and their 22-character text.
//!
//! Versions, lock owners, claims and operations are all named by such an identifier. The upper half is random per
//! process, the lower half counts, so drawing one costs an atomic addition and two processes cannot meet by accident:
//! for a million processes the chance that any two share the random half is below 3 in 10^8.
//!
//! The text is base64url without padding (RFC 4648, section 5): fixed width, safe in keys, scripts and URLs.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Characters in the text of an identifier: 128 bits at 6 bits each, rounded up.
pub(crate) const ID_TEXT_BYTES: usize = 22;

static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Draws an identifier that no other call in any process returns.
pub(crate) fn draw() -> u128 {
    // Relaxed suffices: only the addition must be atomic, nothing is published through it.
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    (u128::from(*PROCESS) << 64) | u128::from(count)
}

pub(crate) fn encode(id: u128) -> [u8; ID_TEXT_BYTES] {
    let mut text = [0_u8; ID_TEXT_BYTES];
    let written = URL_SAFE_NO_PAD.encode_slice(id.to_be_bytes(), &mut text);
    assert_eq!(written, Ok(ID_TEXT_BYTES), "16 bytes are 22 characters of base64");
    text
}

/// The identifier that `text` spells, or `None` when it is not exactly one.
pub(crate) fn decode(text: &[u8]) -> Option<u128> {
    // `decode_slice` estimates its need from the length of the text in whole groups of four characters, hence 18.
    let mut bytes = [0_u8; 18];
    if text.len() != ID_TEXT_BYTES || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(16) {
        return None;
    }
    let id: [u8; 16] = bytes[..16].try_into().ok()?;
    Some(u128::from_be_bytes(id))
}

pub(crate) fn fmt_text(id: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = encode(id);
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

/// Declares a public identifier: a newtype with a text form. The types differ so that one cannot stand for another.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Draws one that was never drawn before.
            #[must_use]
            pub fn draw() -> Self {
                Self($crate::id::draw())
            }

            /// The identifier with these bits: for drivers that store it in a form of their own.
            #[must_use]
            pub const fn from_u128(id: u128) -> Self {
                Self(id)
            }

            /// Its 128 bits.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// Its text: 22 characters of base64url.
            #[must_use]
            pub fn to_text(self) -> [u8; $crate::id::ID_TEXT_BYTES] {
                $crate::id::encode(self.0)
            }

            /// Reads the text back; `None` when it is not exactly one identifier.
            #[must_use]
            pub fn from_text(text: &[u8]) -> Option<Self> {
                $crate::id::decode(text).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::id::fmt_text(self.0, f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}
pub(crate) use identifier;

#[cfg(test)]
mod tests {
    use super::{decode, draw, encode};

    #[test]
    fn identifiers_drawn_in_a_row_differ() {
        assert_ne!(draw(), draw());
    }

    #[test]
    fn text_reads_back_and_anything_else_is_refused() {
        for id in [0, 1, u128::MAX, draw()] {
            assert_eq!(decode(&encode(id)), Some(id));
        }
        for bad in ["", "short", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA:A", "AAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
