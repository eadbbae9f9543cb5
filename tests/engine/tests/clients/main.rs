//! What people use Redis with, used with the engine: its own tools, and clients in Rust, Python and Node with their default settings.
//!
//! # What it promises
//! Each case starts an engine of its own in this process, listening on a free port, and passes only if the program ends with success
//! and complains of nothing. The programs in Python and Node lie in `tests/clients`.
//!
//! # What it needs
//! redis-cli, redis-benchmark, python3 with pip, and node with npm: `cargo xtask test` installs them where it may. The libraries, in
//! versions that are pinned, come from their registries into a temporary folder. A case without what it needs fails and says what is
//! missing.
//!
//! # Against another server
//! `ACTEON_ENGINE_URL=redis://127.0.0.1:6379` runs the cases there, one after the other and each on an emptied database: with a real
//! Redis this shows that the cases themselves are sound.

mod libraries;
mod program;
mod rust_fred;
mod rust_redis;
mod served;
mod tools;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use self::served::Served;

/// What a case does with its server.
type Case = fn(&Served) -> Result<(), Failed>;

const CASES: &[&[(&str, Case)]] = &[tools::CASES, libraries::CASES, rust_redis::CASES, rust_fred::CASES];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if served::is_shared() {
        arguments.test_threads = Some(1);
    }
    let trials =
        CASES.iter().copied().flatten().map(|&(name, case)| Trial::test(name, move || case(&Served::start()?)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
