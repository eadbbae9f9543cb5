//! The example driver keeps the contract in what it declares, and refuses what it does not.

use std::process::ExitCode;

#[path = "../examples/small_driver.rs"]
mod small_driver;

fn main() -> ExitCode {
    small_driver::main()
}
