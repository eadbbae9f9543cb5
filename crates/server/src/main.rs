//! The `acteon-server` binary. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

use acteon_server::Cli;

// The system's allocator was seen to cost a server of small, short-lived allocations a good part of its throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Its allocator asks for pages of 2 MiB. Whoever touches one first waits until the kernel has cleared all of it, which was seen to take 6 ms,
    // and saves a tenth of the time of later reads and a fifth of that of writes among millions of keys. Where the kernel cannot be told, it stays as it is.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    acteon_server::execute(&Cli::of_process())
}
