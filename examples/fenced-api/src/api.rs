//! The API: a page that is written only under the newest token it has seen.
//!
//! # What it promises
//! | request | does |
//! |---|---|
//! | `GET /page` | reads the page, with its `ETag`; asks for no token and changes nothing |
//! | `POST /page/fence` | raises the fence to the `Fencing-Token` and reads the page, in one step: for what will be computed from it |
//! | `PUT /page` | writes the page under a `Fencing-Token`, and with `If-Match` only over the version that was read |
//!
//! A holder may write as often as it likes: its own token is not too old. A token that is refused changes nothing.
//!
//! # Failure
//! | answer | because |
//! |---|---|
//! | 409 Conflict | the token is older than another one that was here; the newest is in the answer's `Fencing-Token`. To repeat it is in vain |
//! | 412 Precondition Failed | somebody has written since that version was read: read again |
//! | 428 Precondition Required | there is no token, and nobody writes without a lock |
//! | 400 Bad Request | the token is no number that a token can be |
//!
//! # How it works
//! The fence is part of the page: compared, raised and written under one mutex, as it would be in one `UPDATE` of a database. If it were kept elsewhere, a
//! late write could fall between the comparison and the write; if it were less durable than the page, it would be forgotten first.

use std::sync::Arc;

use acteon_state::FencingToken;
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use parking_lot::Mutex;

/// The header that carries the token of the lock.
pub(crate) const TOKEN: &str = "fencing-token";

/// The page, without text and without a fence in the beginning.
pub(crate) fn router() -> Router {
    // Held for the few instructions of one request, never across an await.
    let page = Arc::new(Mutex::new(Page::default()));
    Router::new()
        .route("/page", get(read))
        .route("/page", put(write))
        .route("/page/fence", post(fence))
        .with_state(page)
}

#[derive(Debug, Default)]
struct Page {
    text: String,
    version: u64,
    /// The newest token that was here.
    fence: Option<FencingToken>,
}

impl Page {
    /// Lets the holder of the newest token in, and from then on nobody with an older one.
    fn raise(&mut self, token: FencingToken) -> Result<(), Refused> {
        match self.fence {
            Some(newest) if token < newest => Err(Refused::TooLate { newest }),
            _ => {
                self.fence = Some(token);
                Ok(())
            }
        }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    fn shown(&self) -> Response {
        ([(ETAG, self.etag())], self.text.clone()).into_response()
    }
}

async fn read(State(page): State<Arc<Mutex<Page>>>) -> Response {
    page.lock().shown()
}

async fn fence(State(page): State<Arc<Mutex<Page>>>, Token(token): Token) -> Result<Response, Refused> {
    let mut page = page.lock();
    page.raise(token)?;
    Ok(page.shown())
}

async fn write(
    State(page): State<Arc<Mutex<Page>>>,
    Token(token): Token,
    headers: HeaderMap,
    text: String,
) -> Result<Response, Refused> {
    let mut page = page.lock();
    page.raise(token)?;
    if headers.get(IF_MATCH).is_some_and(|read| read.as_bytes() != page.etag().as_bytes()) {
        return Err(Refused::Changed);
    }
    page.text = text;
    page.version += 1;
    Ok((StatusCode::NO_CONTENT, [(ETAG, page.etag())]).into_response())
}

/// The token of a request, which cannot be left out.
struct Token(FencingToken);

impl<S: Sync> FromRequestParts<S> for Token {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let text = parts.headers.get(TOKEN).ok_or(Refused::NoToken)?.to_str().map_err(|_| Refused::NotAToken)?;
        let number = text.parse().map_err(|_| Refused::NotAToken)?;
        FencingToken::new(number).map(Self).map_err(|_| Refused::NotAToken)
    }
}

/// Why nothing was done.
enum Refused {
    TooLate { newest: FencingToken },
    Changed,
    NoToken,
    NotAToken,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::TooLate { newest } => {
                let why = format!("somebody took the lock after you, with token {newest}\n");
                (StatusCode::CONFLICT, [(TOKEN, newest.to_string())], why).into_response()
            }
            Self::Changed => {
                (StatusCode::PRECONDITION_FAILED, "somebody has written since you read: read again\n").into_response()
            }
            Self::NoToken => {
                (StatusCode::PRECONDITION_REQUIRED, "take the lock, and send its token as Fencing-Token\n")
                    .into_response()
            }
            Self::NotAToken => {
                (StatusCode::BAD_REQUEST, "Fencing-Token is a number from 1 to 2^53 - 1\n").into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use crate::client::{Client, serve};

    /// The API on a free port, and a client without a token.
    async fn start() -> Client {
        Client::new(serve().await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_write_that_comes_after_a_later_holder_s_is_refused_and_changes_nothing() {
        let api = start().await;
        assert_eq!(api.write(Some("7"), None, "by a").await.unwrap().status(), StatusCode::NO_CONTENT);
        assert_eq!(api.write(Some("8"), None, "by b").await.unwrap().status(), StatusCode::NO_CONTENT);
        let late = api.write(Some("7"), None, "by a again").await.unwrap();
        assert_eq!((late.status(), late.headers()["fencing-token"].as_bytes()), (StatusCode::CONFLICT, &b"8"[..]));
        assert_eq!(api.read().await.unwrap().text().await.unwrap(), "by b");
        let more = api.write(Some("8"), None, "by b again").await.unwrap();
        assert_eq!(more.status(), StatusCode::NO_CONTENT, "a holder writes more than once");
    }

    #[tokio::test]
    async fn reading_under_a_token_keeps_late_writes_away_from_then_on() {
        let api = start().await;
        api.write(Some("7"), None, "1").await.unwrap();
        let read = api.fence("8").await.unwrap();
        assert_eq!(read.text().await.unwrap(), "1");
        let late = api.write(Some("7"), None, "2, of a").await.unwrap();
        assert_eq!(late.status(), StatusCode::CONFLICT, "B has read and not yet written");
        assert_eq!(api.write(Some("8"), None, "2, of b").await.unwrap().status(), StatusCode::NO_CONTENT);
        assert_eq!(api.fence("7").await.unwrap().status(), StatusCode::CONFLICT, "nor does A read any more");
    }

    #[tokio::test]
    async fn after_a_plain_read_a_late_write_gets_in_and_only_the_version_tells() {
        let api = start().await;
        api.write(Some("7"), None, "1").await.unwrap();
        let read = api.read().await.unwrap();
        let version = read.headers()["etag"].to_str().unwrap().to_owned();
        // Token 8 was granted, and nobody told the API.
        assert_eq!(api.write(Some("7"), None, "2, of a").await.unwrap().status(), StatusCode::NO_CONTENT);
        let lost = api.write(Some("8"), Some(&version), "2, of b").await.unwrap();
        assert_eq!(lost.status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(api.read().await.unwrap().text().await.unwrap(), "2, of a");
    }

    #[tokio::test]
    async fn nobody_writes_without_a_token_or_with_something_else() {
        let api = start().await;
        assert_eq!(api.write(None, None, "x").await.unwrap().status(), StatusCode::PRECONDITION_REQUIRED);
        for token in ["", "0", "-1", "seven", "9007199254740992"] {
            assert_eq!(api.write(Some(token), None, "x").await.unwrap().status(), StatusCode::BAD_REQUEST, "{token:?}");
        }
        assert_eq!(api.read().await.unwrap().text().await.unwrap(), "");
    }
}
