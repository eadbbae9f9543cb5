//! End to end: real `acteon-server` processes, a real Redis or PostgreSQL or an emulated DynamoDB, and a receiver that counts what
//! really arrives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod private_server;
mod receiver;
mod server;
