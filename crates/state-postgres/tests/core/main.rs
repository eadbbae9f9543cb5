//! Values, counters and listings where the server is not as usual: plans, search paths, values of great size. Every test here
//! starts a server of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod private_server;
