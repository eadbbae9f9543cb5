//! Benchmarks. Each suite runs its contestants alternately in one process and prints medians and ratios as Markdown.
//!
//! Machines are noisy: an absolute figure means little, a ratio taken within one round means something. That is why the suites
//! have a loop of their own ([`rounds`]) beside the criterion benchmark `in_process`, which runs contestant after contestant and
//! is good for following one of them over changes of the code.

pub mod contention;
pub mod dispatch;
pub mod dynamodb;
pub mod engine;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod postgres;
pub mod redis_driver;
pub mod report;
pub mod rounds;

/// What a suite returns: a failure is told, and nothing of it is reported as measured.
pub type Outcome<T = ()> = Result<T, Error>;

/// Why something could not be measured.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
