//! The contract, on the memory driver with a directory, fsync `no`.

mod kept;

use std::process::ExitCode;

use acteon_state_memory::KeepFsync;

fn main() -> ExitCode {
    kept::run(KeepFsync::No)
}
