//! The Redis protocol: bytes to requests and replies, and back. No I/O.
//!
//! - A server reads requests with [`RequestDecoder`], or several at once with [`Pipeline`], and answers with [`ReplyWriter`], in the [`Protocol`] its client chose.
//! - A client writes requests with [`write_request`], and reads replies with [`token`](token()), or with [`frame`](frame()) as a tree.
//! - [`parse_i64`], [`parse_f64`], [`format_g17`] and [`format_fixed17`] are Redis's rules for numbers in arguments and replies.
//!
//! # Guarantees
//! RESP2, RESP3 and inline requests as Redis 7.0 reads and writes them, error texts included. Every decoder is bounded by
//! limits that its caller passes, never panics on any bytes, and can be continued at every split point of its input.
//! Requests are ranges of the caller's read buffer and replies are appended to its write buffer, so that ordinary
//! requests allocate nothing.
//!
//! # Where is what
//! `request` and `inline` read requests into `arguments`, `pipeline` reads several at once, `reply` writes replies, `token` and `frame` read replies, `number` is about digits.

mod arguments;
mod frame;
mod inline;
mod number;
mod pipeline;
mod reply;
mod request;
mod token;

pub use arguments::Arguments;
pub use frame::{Frame, frame};
pub use number::{format_fixed17, format_g17, parse_f64, parse_i64};
pub use pipeline::{Pipeline, PlainRequest};
pub use reply::{Deferred, Protocol, ReplyWriter};
pub use request::{RequestDecoder, RequestError, RequestLimits, write_request};
pub use token::{Token, TokenError, TokenLimits, token};
