//! The `acteon-server` binary. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

use acteon_server::Cli;

// The system's allocator was seen to cost a server of small, short-lived allocations a good part of its throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    acteon_server::execute(&Cli::of_process())
}
