//! Locks: what waits is woken, what was granted stays known, and work under a transaction's lock is exclusive by commit. Every
//! test here starts a server of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod private_server;
