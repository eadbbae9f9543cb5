//! Tests of the crate from outside: the pipeline over the memory engine, the shipped rule files, and the webhook provider against a real server.

mod pipeline;
mod shipped_rules;
mod webhook;
