//! What happens to an action, from its arrival to its outcome.
//!
//! # The stages, in their order
//! 1. *validate*: the action is within its bounds ([`Action::validate`]).
//! 2. *rules*: they modify it, note limits, and decide ([`crate::rules`]).
//! 3. *deduplicate*: the first of its key claims it; others get the first one's outcome ([`deduplicate`]).
//! 4. *throttle*: each limit must admit it ([`throttle`]).
//! 5. *schedule* it for later ([`schedule`]), or *execute* it under a lock ([`execute`]).
//! 6. *record*: the claim is completed with the outcome, or given back when it failed; metrics count it.
//!
//! Where the store can, claim, limits and lock are asked for in one round trip, before these stages come to their answers.
//! [`worker`] takes up what was scheduled.
//!
//! # Guarantees
//! Of actions with the same deduplication key, sent to any number of servers on one store at once, one is executed, unless it
//! takes longer than its claim can be renewed (the store is gone for a whole claim lease). A failed action gives its claim
//! back, so that a retry runs. A dispatch that was begun is finished, also when its caller goes away ([`run_to_end`](mod@run_to_end)).
//!
//! # Failure
//! A provider that fails is an [`Outcome`]. A store that does not answer is a [`DispatchError`], unless the options say that
//! deduplication or throttling fail open, or that duplicates get what is remembered; the lock always fails closed.

mod ahead;
mod claim;
pub mod deduplicate;
pub mod error;
pub mod execute;
mod keep_while;
pub mod metrics;
pub mod options;
pub mod run_to_end;
pub mod schedule;
pub mod throttle;
pub mod worker;

use std::fmt::Display;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_state_core::fault_log::FaultLog;
use acteon_state_core::{LockGuard, State};
use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::action::Action;
use crate::outcome::Outcome;
use crate::pipeline::ahead::Ahead;
use crate::pipeline::deduplicate::Deduplicated;
use crate::pipeline::error::DispatchError;
use crate::pipeline::keep_while::keep_while;
use crate::pipeline::metrics::DispatchMetrics;
use crate::pipeline::options::DispatchOptions;
use crate::pipeline::run_to_end::run_to_end;
use crate::providers::Registry;
use crate::rules::{Decision, Rules, Verdict};

/// Takes actions and sees to it that each becomes an outcome. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dispatcher(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    state: State,
    rules: Arc<Rules>,
    providers: Arc<Registry>,
    options: DispatchOptions,
    metrics: Arc<DispatchMetrics>,
    /// What is under way, so that a shutdown can wait for it.
    tasks: TaskTracker,
    /// Wakes the worker when something was scheduled here.
    scheduled: Notify,
    /// Keeps an outage of the store from filling the log.
    faults: Arc<FaultLog>,
}

impl Dispatcher {
    /// A dispatcher over these parts. Nothing runs until it is called.
    #[must_use]
    pub fn new(
        state: State,
        rules: Arc<Rules>,
        providers: Arc<Registry>,
        options: DispatchOptions,
        metrics: Arc<DispatchMetrics>,
    ) -> Self {
        let (tasks, scheduled, faults) = (TaskTracker::new(), Notify::new(), Arc::default());
        Self(Arc::new(Parts { state, rules, providers, options, metrics, tasks, scheduled, faults }))
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.0.rules
    }

    /// The store.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// Dispatches one action.
    ///
    /// Dropping the future stops waiting, not the work that was begun: see [`run_to_end`](mod@run_to_end). For the same reason, a deadline that
    /// the caller has set for state calls ([`deadline::until`](acteon_state_core::layer::deadline::until)) is none for the dispatch.
    ///
    /// # Errors
    /// [`DispatchError`]: the action is not valid, or the store did not answer. Nothing was executed unless its effect is
    /// unknown.
    pub async fn dispatch(&self, action: Action) -> Result<Outcome, DispatchError> {
        let work = Box::pin(self.clone().run(action));
        run_to_end(&self.0.tasks, work).await.unwrap_or_else(|error| Err(panicked(&error)))
    }

    /// Dispatches several actions, as many at once as the options say. The answers are in the order of the actions.
    pub async fn dispatch_batch(&self, actions: Vec<Action>) -> Vec<Result<Outcome, DispatchError>> {
        let dispatches = actions.into_iter().map(|action| self.dispatch_apart(action));
        stream::iter(dispatches).buffered(self.0.options.batch_concurrency.max(1)).collect().await
    }

    /// Dispatches one action in a task of its own, so that those of a batch share the threads of the runtime.
    async fn dispatch_apart(&self, action: Action) -> Result<Outcome, DispatchError> {
        let work = Box::pin(self.clone().run(action));
        let task = self.0.tasks.spawn(work.in_current_span());
        task.await.unwrap_or_else(|error| Err(panicked(&error)))
    }

    /// Waits until nothing is under way any more, or `patience` is over. Returns whether all was finished. A worker is under
    /// way until it is cancelled.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.0.tasks.close();
        tokio::time::timeout(patience, self.0.tasks.wait()).await.is_ok()
    }

    async fn run(self, action: Action) -> Result<Outcome, DispatchError> {
        let started = Instant::now();
        let result = match self.judge(action) {
            Ok(ControlFlow::Continue((verdict, delay))) => self.run_limited(&verdict, delay).await,
            Ok(ControlFlow::Break(outcome)) => Ok(outcome),
            Err(error) => Err(error),
        };
        self.0.metrics.record_dispatch(&result, started.elapsed());
        result
    }

    /// The stages that need no store: what the rules make of the action, and by how much they delay it; the outcome, if they refuse it.
    ///
    /// No future of its own, which would keep room for all that it moves in the one that each dispatch allocates.
    fn judge(&self, action: Action) -> Result<ControlFlow<Outcome, (Verdict, Duration)>, DispatchError> {
        action.validate()?;
        let verdict = self.0.rules.current().evaluate(action);
        let delay = match &verdict.decision {
            Decision::Deny { rule } => {
                let rule = rule.as_ref().map(ToString::to_string);
                return Ok(ControlFlow::Break(Outcome::Denied { action_id: verdict.action.id, rule }));
            }
            Decision::Suppress { rule } => {
                let rule = rule.to_string();
                return Ok(ControlFlow::Break(Outcome::Suppressed { action_id: verdict.action.id, rule }));
            }
            Decision::Allow { .. } => Duration::ZERO,
            Decision::Schedule { delay, .. } => *delay,
        };
        Ok(ControlFlow::Continue((verdict, delay)))
    }

    /// The stages that touch the store.
    async fn run_limited(&self, verdict: &Verdict, delay: Duration) -> Result<Outcome, DispatchError> {
        let claiming = self.claiming(verdict)?;
        let ahead = &mut self.ask_ahead(verdict, delay, claiming.as_ref()).await;
        let mut claim = match self.deduplicate(verdict, claiming.as_ref(), ahead).await? {
            Deduplicated::First(claim) => claim,
            Deduplicated::Duplicate(outcome) => return Ok(outcome),
        };
        let work = pin!(self.run_claimed(verdict, delay, ahead));
        let result = match &claim {
            None => work.await,
            Some(claim) => keep_while(work, || claim.keep(), || ()).await,
        };
        let (result, guard) = match result {
            Ok((outcome, guard)) => (Ok(outcome), guard),
            Err(error) => (Err(error), None),
        };
        // Neither waits for the other: one round trip where the store takes both at once.
        tokio::join!(self.settle_claim(&mut claim, &result), self.release(guard));
        result
    }

    /// The stages between a claim and its settlement. The outcome, and the lock to release once it was recorded.
    async fn run_claimed(
        &self,
        verdict: &Verdict,
        delay: Duration,
        ahead: &mut Ahead,
    ) -> Result<(Outcome, Option<LockGuard>), DispatchError> {
        if let Some(throttled) = self.throttle(verdict, ahead).await? {
            return Ok((throttled, None));
        }
        match schedule::due(&verdict.action, delay, Timestamp::now) {
            Some(due) => self.schedule(verdict, due).await.map(|scheduled| (scheduled, None)),
            None => self.execute(verdict, ahead.lock()).await.map(|(outcome, guard)| (outcome, Some(guard))),
        }
    }
}

fn panicked(error: &dyn Display) -> DispatchError {
    DispatchError::Panicked { message: error.to_string() }
}
