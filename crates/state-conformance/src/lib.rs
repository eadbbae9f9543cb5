//! The executable contract of `StateStore`: what every driver promises, as named cases.

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
mod steps;
mod verdict;

pub use case::{Case, Need, all};
pub use factory::{Factory, Time};
pub use runner::{main, run_case};
pub use verdict::{Failure, Verdict};
