//! Benchmarks. Each suite runs its contestants alternately in one process and prints medians and ratios as Markdown.
//!
//! A suite is called with [`Options`] and says what it measured to a [`report::Report`], which prints it and can write it as a page with charts.
//!
//! Machines are noisy: an absolute figure means little, a ratio taken within one round means something. That is why the suites
//! have a loop of their own ([`rounds`]) beside the criterion benchmark `in_process`, which runs contestant after contestant and
//! is good for following one of them over changes of the code.

mod backend;
pub mod contention;
pub mod dispatch;
pub mod due;
pub mod dynamodb;
pub mod engine;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod postgres;
pub mod redis_driver;
pub mod report;
pub mod rounds;
pub mod runtime;
pub mod scan;
pub mod start;

use std::path::Path;

/// What a suite returns: a failure is told, and nothing of it is reported as measured.
pub type Outcome<T = ()> = Result<T, Error>;

/// Why something could not be measured.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The `acteon-server` binary.
    pub program: &'a Path,
    /// Rounds; each contestant has its turn in each.
    pub rounds: usize,
    /// Keys in the store, unless a table is about their number.
    pub keys: usize,
    /// Keys that a large store has.
    pub keys_max: usize,
    /// Only cases that have this in their name.
    pub only: &'a str,
    /// A tenth of everything, in one round: to see that it runs.
    pub is_quick: bool,
    /// Connections of the driver, where that is a matter of choice.
    pub connections: usize,
}

impl Options<'_> {
    /// Whether a case is asked for; its name begins with that of the table that it is in, `table case`.
    #[must_use]
    pub fn includes(&self, table: &str, case: &str) -> bool {
        format!("{table} {case}").contains(self.only)
    }

    /// A number of operations or keys, or a tenth of it.
    #[must_use]
    pub const fn scaled(&self, count: usize) -> usize {
        if self.is_quick { count / 10 } else { count }
    }
}
