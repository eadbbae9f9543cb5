//! What an action asks of the store before it begins, asked in one round trip where the store can.
//!
//! # Guarantees
//! The store is asked what the stages ask, in their order: for the claim, each limit, and the lock. The first of them that refuses
//! is the last that is asked, so a duplicate uses up no limit, and a throttled action takes no lock.
//!
//! # Failure
//! An error is that of the first stage that has no answer, which treats it as its options say. Stages after it ask by themselves.
//! One of unknown effect may hide a claim and a lock: both are given back in the background.
//!
//! # How it works
//! A stage takes the answer that is here, or asks when there is none: because the store has no [gates](acteon_state_core::gate),
//! because locks are on another store, or because the lock was busy and is waited for.

use std::collections::VecDeque;
use std::time::Duration;

use acteon_state_core::{
    Admission, Decision, Error, ErrorKind, Gate, GateReply, LockAttempt, LockGuard, PutOutcome, Result,
};
use jiff::Timestamp;

use crate::keys;
use crate::pipeline::deduplicate::Claiming;
use crate::pipeline::{Dispatcher, schedule};
use crate::rules::Verdict;

/// Answers that came before their stages.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Of the claim, if there is one, and of the limits.
    replies: VecDeque<Result<GateReply>>,
    lock: Option<Result<LockAttempt>>,
}

impl Ahead {
    /// The answer to the claim.
    pub(super) fn claim(&mut self) -> Option<Result<PutOutcome>> {
        let reply = self.replies.pop_front()?;
        Some(reply.and_then(|reply| match reply {
            GateReply::Put(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }))
    }

    /// The answer of the next limit.
    pub(super) fn decision(&mut self) -> Option<Result<Decision>> {
        let reply = self.replies.pop_front()?;
        Some(reply.and_then(|reply| match reply {
            GateReply::RateLimit(decision) => Ok(decision),
            other => Err(unexpected(&other)),
        }))
    }

    /// The lock, if it was free. A busy one is asked for again, and waited for.
    pub(super) fn lock(&mut self) -> Option<Result<LockGuard>> {
        match self.lock.take()? {
            Ok(attempt) => attempt.acquired().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Dispatcher {
    /// Asks what the stages of this action will ask.
    pub(super) async fn ask_ahead(&self, verdict: &Verdict, delay: Duration, claiming: Option<&Claiming>) -> Ahead {
        let state = &self.0.state;
        if !state.store().capabilities().gates {
            return Ahead::default();
        }
        let mut gates: Vec<Gate> = claiming.map(Claiming::gate).into_iter().collect();
        for throttle in &verdict.throttles {
            // The stage reports it, in its turn.
            let Ok(key) = keys::throttle(&verdict.action, throttle) else { break };
            gates.push(Gate::RateLimit(key, throttle.algorithm.request(throttle.limit, throttle.window)));
        }
        let all_are_asked = gates.len() == usize::from(claiming.is_some()) + verdict.throttles.len();
        let executes = all_are_asked && schedule::due(&verdict.action, delay, Timestamp::now).is_none();
        let lock = keys::action_lock(&verdict.action).ok().filter(|_| executes);
        let options = self.lock_options();
        match state.admit(gates, lock.as_ref().map(|key| (key, &options))).await {
            Ok(Admission { replies, lock }) => Ahead { replies: replies.into(), lock },
            Err(error) => Ahead { replies: [Err(error)].into(), lock: None },
        }
    }
}

fn unexpected(reply: &GateReply) -> Error {
    Error::new(ErrorKind::Internal, format!("the store answered another gate than it was asked: {reply:?}"))
}
