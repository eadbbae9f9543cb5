//! The executable contract of [`StateStore`](acteon_state_core::StateStore): what every driver promises, as named cases.
//!
//! A driver is done when it passes all of them against a real server. This is all that its test needs, in
//! `tests/conformance.rs` with `harness = false` in `Cargo.toml`:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use acteon_state_conformance::Factory;
//! use acteon_state_core::{Result, StateStore};
//! # mod my { use std::sync::Arc; use acteon_state_core::{Result, StateStore};
//! # pub async fn connect(_: &str) -> Result<Arc<dyn StateStore>> { unimplemented!() }
//! # pub async fn remove_all(_: &str) -> Result<()> { unimplemented!() } }
//!
//! #[derive(Debug)]
//! struct Mine;
//!
//! #[async_trait::async_trait]
//! impl Factory for Mine {
//!     async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
//!         my::connect(prefix).await
//!     }
//!
//!     async fn clean(&self, prefix: &str) -> Result<()> {
//!         my::remove_all(prefix).await
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     acteon_state_conformance::main(Mine)
//! }
//! ```
//!
//! `examples/small_driver.rs` is a whole driver with its test, to start from: a map with compare-and-swap, which declares
//! nothing else.
//!
//! # What is run
//! - Each numbered rule of the contract is one or several cases, named after the fact that they prove: `w4_…` proves W4. Names
//!   that begin with `lesson_` are faults of comparable systems. [`all`] is the table.
//! - Cases that need a capability which the store does not declare are reported as ignored, never as passed; for each
//!   missing capability another case proves that the store refuses to do it.
//! - Each case has a prefix of its own and works on two handles, as two processes would.
//! - Many tasks at once, on both handles, where a rule speaks of concurrency. Their histories are recorded ([`history`]) and
//!   checked for an order that explains every reply ([`linearizability`]).
//! - Random sequences of all operations are compared with a reference model, reply by reply, while time passes; what fails is
//!   shrunk to the fewest steps.
//!
//! # Running
//! The binary takes what any Rust test takes: `cargo test --test conformance -- w4_`, `--list`, `--skip`, `--test-threads`.
//!
//! | variable | means |
//! |---|---|
//! | `ACTEON_CONFORMANCE_CASES` | how many random sequences to try; default 400 on a manual clock, 32 on a real one |
//! | `ACTEON_CONFORMANCE_SEED` | the seed of a run that failed, as its report names it |
//!
//! # Time
//! A case never waits longer than its rule takes: times to live are tens of milliseconds, and nothing is asserted that a slow
//! machine would break, such as that an entry still exists a moment before it ends. A store that reads its time from a
//! clock of the test's own says so ([`Factory::time`], [`Factory::advance`]) and waits for hardly anything.
//!
//! # What it cannot show
//! What only a real fault shows (lost replies, a killed server, a failover, eviction) is left to a driver's own tests, as are
//! rules that speak of one backend alone, such as K3 of Redis hash slots and the number of round trips.
//!
//! # Where things are
//! | file | holds |
//! |---|---|
//! | `cases/*.rs` | the cases, a file per family, each ending in its table of rows |
//! | `case.rs`, `runner.rs` | what a row is; how it is run |
//! | `lab.rs`, `verdict.rs` | what a case works with; how it says what it expected and what it got |
//! | `model/`, `steps.rs`, `replay.rs` | the reference model; random steps; both carried out side by side |
//! | `simulation.rs` | many clients and waiters of a store in one process, from a seed, side by side with the model |
//! | `history.rs`, `linearizability.rs` | the recorder; the checker |
//! | `objects/`, `ask.rs` | what registers, counters, locks and due items do; how a store is asked to do it |

pub mod ask;
mod case;
mod cases;
mod factory;
pub mod history;
mod lab;
pub mod linearizability;
mod model;
pub mod objects;
mod replay;
mod runner;
pub mod simulation;
mod steps;
mod verdict;

pub use case::{Case, Need, all};
pub use factory::{Factory, Time};
pub use runner::{main, run_case};
pub use verdict::{Failure, Verdict};
