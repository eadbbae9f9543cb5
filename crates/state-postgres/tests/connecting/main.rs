//! Getting in: credentials, rights, encryption, several hosts, poolers. Every test here starts a server of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod private_server;
