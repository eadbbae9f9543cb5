//! Locks: what they cost, whose time ends them, how waiters get them, and what is left of an acquisition that nobody waits for
//! any more. Every test here starts an emulator of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod private_server;
