//! Every backend, as the processes that it consists of, under every fault that can be brought about here.
//!
//! # What is proved
//! Clients are processes, too ([`clients`]). While something goes wrong they ask objects of all kinds, and update registers under locks. What they were
//! told is judged by what the backend declares: `lock_semantics()` and `capabilities()` say what a fault may take away, and whatever else is
//! missing afterwards is a failure, with a drawing of the calls that contradict each other.
//!
//! # How long it takes
//! Each fault happens once, in an order that the seed gives. `ACTEON_FAULTS_MINUTES` goes on for that long instead, row by row, with
//! faults drawn from the seed; `cargo xtask faults` sets it and prints the table. `ACTEON_SEED` repeats the schedule of faults and of questions; what
//! meets what is up to the machine.

mod account;
mod bench;
mod clients;
mod episode;
mod in_process;
mod network;
mod private_server;
mod row;
