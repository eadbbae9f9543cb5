//! A deployment as a whole: many nodes, roles with few rights, poolers, and servers that crash, freeze or hand over to a standby.
//! Every test here starts servers of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod private_server;
