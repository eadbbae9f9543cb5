//! Signs webhook requests, so that a receiver can tell who sent them and that they are fresh.
//!
//! Two headers are sent: `Acteon-Timestamp` with the Unix time in seconds at which the attempt was made, and
//! `Acteon-Signature` with `v1=` and, in lower-case hex, HMAC-SHA256 under the shared secret over the timestamp, a
//! full stop, and the body: `"1763632800.{...}"`. A receiver computes the same over the raw body, compares in
//! constant time, and refuses timestamps that are more than a few minutes off, which bounds replays.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use acteon_state::config::Secret;

/// The header with the Unix time in seconds.
pub const TIMESTAMP_HEADER: &str = "acteon-timestamp";
/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "acteon-signature";

/// The value of [`SIGNATURE_HEADER`].
#[must_use]
pub fn sign(secret: &Secret, timestamp_s: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::from("v1="), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::sign;
    use acteon_state::config::Secret;

    #[test]
    fn signature_equals_that_of_openssl() {
        // printf '1763632800.{"a":1}' | openssl dgst -sha256 -hmac key
        let expected = "26453fa6d72e81e3ef3db592e471ed5437fd8e0e0a59a3d03b04cb5069b2bbfe";
        assert_eq!(sign(&Secret::new("key"), 1_763_632_800, br#"{"a":1}"#), format!("v1={expected}"));
    }

    #[test]
    fn every_part_is_signed() {
        let signature = |key: &str, at: i64, body: &str| sign(&Secret::new(key), at, body.as_bytes());
        let base = signature("key", 1, "body");
        assert_ne!(base, signature("other", 1, "body"));
        assert_ne!(base, signature("key", 2, "body"));
        assert_ne!(base, signature("key", 1, "bodY"));
    }
}
