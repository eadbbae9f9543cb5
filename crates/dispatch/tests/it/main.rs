//! Tests of the crate from outside: the pipeline over the memory engine and over Redis, the shipped rule files, and the webhook provider against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod faults;
mod pipeline;
mod private_server;
mod shipped_rules;
mod webhook;
