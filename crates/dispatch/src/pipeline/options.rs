//! How the dispatcher treats the store, in times and bounds.

use std::time::Duration;

/// The options of a [`Dispatcher`](crate::Dispatcher).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchOptions {
    /// What locks say of their holder, so that people know where to look: a name for this process, such as `web-3, pid 4711`.
    pub node: String,
    /// How long the lock of an action lasts without renewal; it is renewed for as long as the work takes.
    pub lock_lease: Duration,
    /// How long to wait when the same action is being executed elsewhere.
    pub lock_wait: Duration,
    /// How long a deduplication claim lasts without renewal: after a crash, so long must a retry wait.
    pub claim_lease: Duration,
    /// How long a provider may take in all, its repetitions included.
    pub execute_timeout: Duration,
    /// What to do when the store cannot tell whether an action is a duplicate.
    pub on_state_error_dedup: OnStateError,
    /// What to do when the store cannot tell whether a limit is used up. `Stale` is `Closed` here: a limit is counted, not read.
    pub on_state_error_throttle: OnStateError,
    /// How many actions of one batch are under way at once.
    pub batch_concurrency: usize,
    /// How scheduled actions are delivered.
    pub worker: WorkerOptions,
}

/// What a stage does when the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStateError {
    /// The action is refused with an error.
    #[default]
    Closed,
    /// The action goes on as if the stage had let it through. It may be executed twice, or too often.
    Open,
    /// A duplicate is answered with the outcome that is remembered of the first action, if the store still serves it
    /// ([`degrade`](acteon_state_core::layer::degrade)); any other action is refused with an error.
    Stale,
}

/// How scheduled actions are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// How many are executed at once.
    pub concurrency: usize,
    /// How long a claimed action is ours; it is extended for as long as the work takes.
    pub visibility: Duration,
    /// How often to look for due actions when nothing tells when the next one is due.
    pub poll: Duration,
    /// How often an action is tried before it is put aside.
    pub attempts_max: u32,
    /// The pause after the first failure; doubles with each further one.
    pub backoff: Duration,
    /// The longest pause after a failure.
    pub backoff_max: Duration,
    /// How long an action that was given up is kept for inspection.
    pub dead_ttl: Duration,
}

impl Default for DispatchOptions {
    fn default() -> Self {
        Self {
            node: String::new(),
            lock_lease: Duration::from_secs(15),
            lock_wait: Duration::from_secs(10),
            claim_lease: Duration::from_secs(15),
            execute_timeout: Duration::from_secs(60),
            on_state_error_dedup: OnStateError::Closed,
            on_state_error_throttle: OnStateError::Closed,
            batch_concurrency: 16,
            worker: WorkerOptions::default(),
        }
    }
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 16,
            visibility: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            attempts_max: 10,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            dead_ttl: Duration::from_secs(30 * 24 * 3600),
        }
    }
}
