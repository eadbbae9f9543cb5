//! The server from outside: over HTTP in this process, and as a process of its own for its start, its signals and its exit codes.

mod drain;
mod files;
mod http;
mod operations;
mod start_up;
mod support;
