//! What is special to the Redis driver: connections, faults, bytes, round trips. What all drivers share is in the conformance
//! suite. Every test here starts a server of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod private_server;
