//! Tests of the crate from outside: the shipped rule files, and the webhook provider against a real server.

mod shipped_rules;
mod webhook;
