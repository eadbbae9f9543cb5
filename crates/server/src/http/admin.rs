//! Who may administer the server over HTTP: whoever presents `server.admin_token` as `authorization: Bearer ..`.
//!
//! # What it promises
//! Without a configured token nobody may: 403 `admin_disabled`, which names the option. With one, a request without it or with
//! another is 401 `unauthorized`, whatever else it says. Tokens are compared in a time that depends on the length of the attempt only.
//! Attempts that fail are logged with their address, one in five seconds, with the number of those that were not.
//!
//! # Failure
//! Guessing is not slowed down beyond that; it is the length of the token that makes it hopeless, which is why a short one is
//! refused at the start. Without TLS in front, whoever can listen on the way can read the token.

use std::fmt;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use subtle::ConstantTimeEq as _;
use tracing::warn;

use crate::app::App;
use crate::http::error::ApiError;

/// The fewest characters of a token: 16 random ones out of an alphabet of 64 are 96 bits.
pub const TOKEN_BYTES_MIN: usize = 16;
/// The most: it has to fit into the head of a request.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// Somebody who presented the token. As an argument of a handler it lets nobody else in.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    address: Option<SocketAddr>,
}

impl fmt::Display for Admin {
    /// The address that it came from, which is that of a proxy if there is one in between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("an unknown address"),
        }
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Some(token) = app.admin_token() else {
            let message = "the server has no administrators: set admin_token or admin_token_file in [server]";
            return Err(ApiError::new("admin_disabled", message));
        };
        let admin = Self { address: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0) };
        let attempt = bearer(&parts.headers);
        if attempt.is_some_and(|attempt| token.expose().as_bytes().ct_eq(attempt).into()) {
            return Ok(admin);
        }
        if let Some(passed_over) = app.faults().admit("admin_refused") {
            let missing = attempt.is_none();
            warn!(from = %admin, missing, passed_over, "an administrative request without the right token was refused");
        }
        let message = "present server.admin_token as `authorization: Bearer ..`";
        Err(ApiError::new("unauthorized", message))
    }
}

/// What is presented as a bearer token; the scheme is written in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::http::header::AUTHORIZATION;

    use super::bearer;

    #[test]
    fn only_a_bearer_token_is_one() {
        let presented = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))]);
            bearer(&headers).map(<[u8]>::to_vec)
        };
        for value in ["Bearer secret", "bearer secret", "BEARER   secret "] {
            assert_eq!(presented(value).as_deref(), Some(&b"secret"[..]), "{value}");
        }
        for value in ["secret", "Basic secret", "Bearersecret", "Bearer"] {
            assert_eq!(presented(value), None, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
