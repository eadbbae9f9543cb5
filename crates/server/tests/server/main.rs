//! The server from outside: over HTTP in this process, and as a process of its own for its start, its signals and its exit codes.
//!
//! All of it needs a backend that is always there.
#![cfg(feature = "memory")]

mod drain;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod engine;
mod engine_data;
#[cfg(feature = "redis")]
mod engine_locks;
mod engine_tools;
mod files;
mod http;
mod locks;
mod operations;
#[cfg(feature = "redis")]
mod outage;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod private_server;
mod start_up;
mod support;
