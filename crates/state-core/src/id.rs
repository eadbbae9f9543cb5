//! 128-bit identifiers that are never drawn twice, and their 22-character text.
//!
//! Versions, lock owners, claims and operations are all named by such an identifier. The upper half is random per
//! process, the lower half counts, so drawing one costs an atomic addition and two processes cannot meet by accident:
//! for a million processes the chance that any two share the random half is below 3 in 10^8.
//!
//! The text is base64url without padding (RFC 4648, section 5): fixed width, safe in keys, scripts and URLs. It is written and read
//! here rather than by a library for any length: each value that is stored or read has a version, and a fixed width needs neither loops
//! over groups nor a case for their rest.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Characters in the text of an identifier: 128 bits at 6 bits each, rounded up.
pub(crate) const ID_TEXT_BYTES: usize = 22;
/// Characters whose bits all lie in the same half of the identifier: ten in each, before and after the one in the middle.
const HALF_CHARS: usize = 10;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static VALUES: [u8; 256] = values();
/// Bits that no value of a character has.
const NO_VALUE_BITS: u8 = 0b1100_0000;

static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Draws an identifier that no other call in any process returns.
pub(crate) fn draw() -> u128 {
    // Relaxed suffices: only the addition must be atomic, nothing is published through it.
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    (u128::from(*PROCESS) << 64) | u128::from(count)
}

pub(crate) fn encode(id: u128) -> [u8; ID_TEXT_BYTES] {
    let (high, low) = ((id >> 64) as u64, id as u64);
    let mut text = [0_u8; ID_TEXT_BYTES];
    for at in 0..HALF_CHARS {
        text[at] = character(high >> (58 - 6 * at));
        text[HALF_CHARS + 1 + at] = character(low >> (56 - 6 * at));
    }
    // The one in the middle has bits of both halves, the last one two bits and four zeros.
    text[HALF_CHARS] = character((high << 2) | (low >> 62));
    text[ID_TEXT_BYTES - 1] = character(low << 4);
    text
}

/// The identifier that `text` spells, or `None` when it is not exactly one.
pub(crate) fn decode(text: &[u8]) -> Option<u128> {
    let text: &[u8; ID_TEXT_BYTES] = text.try_into().ok()?;
    // What is no character of the alphabet is seen at the end: the loop has no branches.
    let (mut high, mut low, mut seen) = (0, 0, 0);
    for at in 0..HALF_CHARS {
        let (of_high, of_low) = (VALUES[usize::from(text[at])], VALUES[usize::from(text[HALF_CHARS + 1 + at])]);
        seen |= of_high | of_low;
        high = (high << 6) | u64::from(of_high);
        low = (low << 6) | u64::from(of_low);
    }
    let (middle, last) = (VALUES[usize::from(text[HALF_CHARS])], VALUES[usize::from(text[ID_TEXT_BYTES - 1])]);
    if (seen | middle | last) & NO_VALUE_BITS != 0 || last & 0b1111 != 0 {
        return None;
    }
    let high = (high << 4) | u64::from(middle >> 2);
    let low = (u64::from(middle) << 62) | (low << 2) | u64::from(last >> 4);
    Some((u128::from(high) << 64) | u128::from(low))
}

/// The character for the lowest six bits.
const fn character(bits: u64) -> u8 {
    ALPHABET[(bits & 0b11_1111) as usize]
}

/// The values of all characters; of others, one with bits that no value has.
const fn values() -> [u8; 256] {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
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
    fn text_is_base64url_as_others_write_it() {
        // By Python: base64.urlsafe_b64encode((number).to_bytes(16)).rstrip(b"=")
        for (id, text) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAA"),
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            (0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, "ASNFZ4mrze_-3LqYdlQyEA"),
            (0xfbff_bfef_bbef_beff_fbef_beff_bfef_bbef, "-_-_77vvvv_7777_v--77w"),
        ] {
            assert_eq!(std::str::from_utf8(&encode(id)), Ok(text));
            assert_eq!(decode(text.as_bytes()), Some(id));
        }
    }

    #[test]
    fn every_bit_has_its_place_in_the_text() {
        for bit in 0..128 {
            let id = 1_u128 << bit;
            assert_eq!(decode(&encode(id)), Some(id), "bit {bit}");
            assert_eq!(decode(&encode(!id)), Some(!id), "all but bit {bit}");
        }
    }

    #[test]
    fn a_character_outside_of_the_alphabet_is_refused_wherever_it_stands() {
        for at in 0..22 {
            for bad in [b'+', b'/', b'=', b' ', b'\n', b'.', 0, 0x80, 0xff] {
                let mut text = encode(u128::MAX);
                text[at] = bad;
                assert_eq!(decode(&text), None, "{bad} at {at}");
            }
        }
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
