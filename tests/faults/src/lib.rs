//! Turns the guarantees of the state layer into evidence: histories of many processes, and the judges of them.
//!
//! A workload asks the same few objects from many tasks at once, through any number of handles, while something goes wrong. All that was
//! asked and answered is recorded. A judge then says whether any order of the calls explains all answers, object by object; a call whose answer
//! was lost may have happened. What no order explains has a name, is reduced to the few calls that contradict each other, and is drawn.
//!
//! ```
//! # use std::{path::Path, sync::Arc};
//! # use acteon_faults::{HistoryRecorder, Rules, Workload, judge};
//! # use acteon_state_core::{Scope, State};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let state = State::new(Arc::new(acteon_state_memory::MemoryStore::default()));
//! let seed = acteon_faults::seed();
//! let workload = Workload { calls: 50, ..Workload::new(seed, Scope::new("faults", "run", "object")?) };
//! let recorder = HistoryRecorder::default();
//! workload.run(&[state.clone(), state], &recorder).await?;
//! judge(&recorder.finish(), &Rules::default()).settle(seed, Path::new("target/faults"))?;
//! # Ok(()) }
//! ```
//!
//! # What is judged
//! | object | rules |
//! |---|---|
//! | register | reads, writes, compare-and-swap, put-if-absent, take, delete; an entry ends within the uncertainty of its time to live, never before; a write under a token never wins over a higher one |
//! | counter | each increment counts once, within the bounds; one that was sent again counts once |
//! | lock | tokens rise; holders do not overlap, except where the backend's declared semantics allow a grant to be lost; who lost it can neither extend nor release |
//! | due queue | each item is handed out at least once, to one worker while it is out of sight; only the newest claim is acknowledged or extended |
//!
//! What they are is written down in the specifications of the conformance kit, which checks the same without faults.
//!
//! # What is not judged
//! Calls on several objects at once (batches, transactions, listings), the order in which a queue hands out, rate limits. Of a semaphore whose
//! permits may be over, any may be: a holder that is told that it lasts is believed.
//!
//! # Without backends
//! Tests of a single driver record and judge with this crate, too: `default-features = false` leaves out the feature `backends`, and with it
//! all other drivers and the processes that use them.
//!
//! # Running
//! `ACTEON_SEED` repeats what a failure printed. Drawings go to the folder that the failure names.
//!
//! # Where things are
//! | file | holds |
//! |---|---|
//! | `workload.rs`, `random.rs`, `ask.rs` | who asks what; seeds; how a state is asked |
//! | `history.rs` | what is recorded |
//! | `judge.rs`, `judge/*.rs` | taking a history apart; what is known of each kind of object |
//! | `log.rs`, `job.rs`, `bin/worker.rs` | clients as processes: what they do, and what they leave when they are killed |
//! | `bin/engine.rs` | the native engine as a server that can be killed |
//! | `safety.rs` | updates of a register under a lock, and how many are lost |
//! | `anomaly.rs` | the names of what is wrong |
//! | `shrink.rs`, `drawing.rs` | reducing to what contradicts; timelines |
//! | `tests/matrix` | every backend under faults |
//! | `tests/planted` | that each judge finds what it is for, in stores that are broken on purpose |

mod anomaly;
mod ask;
pub mod drawing;
pub mod history;
pub mod job;
mod judge;
pub mod log;
mod random;
pub mod safety;
mod shrink;
mod workload;

pub use anomaly::Anomaly;
pub use ask::{Terms, ask};
pub use history::{Asked, History, HistoryRecorder, Question, Told};
pub use judge::{Finding, PassesOver, Report, Rules, judge, known_until, whole};
pub use random::{Random, SEED_VARIABLE, seed, seed_or};
pub use workload::{Kind, Records, Workload};
