//! Records who called what when, and what they were told: the input of the linearizability checker.
//!
//! # How it works
//! A call takes a place in one order when it begins and another when it ends. Two calls overlap unless one ended before the
//! other began; of those that do not overlap the order is known, and of the others any order may be the true one. Places are
//! nanoseconds of one clock since the recorder was made, moved on where two would be equal: they order calls strictly, and say
//! how much time lay between them, which objects with a time to live need to know.
//!
//! # Failure
//! A call that failed without effect leaves no trace. One that may have happened (its answer was lost, or its future was dropped)
//! is recorded without a reply and without an end: it may take effect at any later moment, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{Effect, Error};
use parking_lot::Mutex;

/// The end of a call that was not seen to end.
pub const NEVER: u64 = u64::MAX;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O, R> {
    /// What was asked.
    pub operation: O,
    /// What was answered. `None` when nobody learnt it: then the call took effect between its two places, or not at all.
    pub reply: Option<R>,
    /// Its place among all beginnings and ends when it began.
    pub began: u64,
    /// The same when it ended, or [`NEVER`].
    pub ended: u64,
}

impl<O, R> Call<O, R> {
    /// A call that was answered.
    pub const fn answered(began: u64, ended: u64, operation: O, reply: R) -> Self {
        Self { operation, reply: Some(reply), began, ended }
    }

    /// A call that may have happened, any time after it began.
    pub const fn maybe(began: u64, operation: O) -> Self {
        Self { operation, reply: None, began, ended: NEVER }
    }

    /// Whether it may have been without effect.
    pub const fn is_maybe(&self) -> bool {
        self.reply.is_none()
    }
}

/// Collects calls from many tasks.
#[derive(Debug)]
pub struct Recorder<O, R>(Arc<Shared<O, R>>);

#[derive(Debug)]
struct Shared<O, R> {
    clock: Arc<dyn Clock>,
    origin_us: u64,
    /// The last place that was given away.
    last: AtomicU64,
    /// Short pushes by many tasks; never held across an await.
    calls: Mutex<Vec<Call<O, R>>>,
}

impl<O, R> Clone for Recorder<O, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O, R> Default for Recorder<O, R> {
    fn default() -> Self {
        Self::with_clock(Arc::new(SeededClock::new()))
    }
}

impl<O, R> Recorder<O, R> {
    /// A recorder that reads this clock: for a test that moves the clock of its store by hand.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let origin_us = clock.now_us();
        Self(Arc::new(Shared { clock, origin_us, last: AtomicU64::new(0), calls: Mutex::default() }))
    }

    /// Makes a call and records it. A call that fails is not recorded, so a case must stop at the first failure of unknown
    /// effect; [`attempt`](Self::attempt) goes on.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn record<E>(&self, operation: O, call: impl Future<Output = Result<R, E>>) -> Result<(), E> {
        let began = self.place();
        let reply = call.await?;
        self.push(Call { operation, reply: Some(reply), began, ended: self.place() });
        Ok(())
    }

    /// The same for a call that keeps its thread until it is answered, and always is. Returns the answer.
    pub fn record_call(&self, operation: O, call: impl FnOnce() -> R) -> R
    where
        R: Clone,
    {
        let began = self.place();
        let reply = call();
        self.push(Call { operation, reply: Some(reply.clone()), began, ended: self.place() });
        reply
    }

    /// Makes a call of which nothing is certain: one that fails with unknown effect may have happened, as may one whose future is
    /// dropped before it ends. A failure that changed nothing is not recorded.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn attempt(&self, operation: O, call: impl Future<Output = Result<R, Error>>) -> Result<R, Error>
    where
        R: Clone,
    {
        let pending = self.begin(operation);
        match call.await {
            Ok(reply) => {
                pending.end(reply.clone());
                Ok(reply)
            }
            Err(error) => {
                if error.effect() == Effect::NotApplied {
                    pending.withdraw();
                }
                Err(error)
            }
        }
    }

    /// Begins a call that somebody else carries out, such as another process.
    #[must_use]
    pub fn begin(&self, operation: O) -> Pending<'_, O, R> {
        Pending { recorder: self, began: self.place(), operation: Some(operation) }
    }

    /// What was recorded so far, in the order of the beginnings; the recorder is empty afterwards.
    #[must_use]
    pub fn finish(&self) -> Vec<Call<O, R>> {
        let mut calls = std::mem::take(&mut *self.0.calls.lock());
        calls.sort_by_key(|call| call.began);
        calls
    }

    /// The next place: now, or the first one that is free. Says when something happened that is no call, such as a fault.
    #[must_use]
    pub fn place(&self) -> u64 {
        let now_ns = self.0.clock.now_us().saturating_sub(self.0.origin_us).saturating_mul(1_000);
        let next = |last: u64| now_ns.max(last + 1);
        let last = self.0.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        next(last.unwrap_or_default())
    }

    fn push(&self, call: Call<O, R>) {
        self.0.calls.lock().push(call);
    }
}

/// A call that has begun. Dropping it says that nobody learnt what came of it.
#[derive(Debug)]
pub struct Pending<'a, O, R> {
    recorder: &'a Recorder<O, R>,
    began: u64,
    /// Taken when the call has ended.
    operation: Option<O>,
}

impl<O, R> Pending<'_, O, R> {
    /// It was answered.
    pub fn end(mut self, reply: R) {
        if let Some(operation) = self.operation.take() {
            let ended = self.recorder.place();
            self.recorder.push(Call { operation, reply: Some(reply), began: self.began, ended });
        }
    }

    /// It certainly did not happen: it leaves no trace.
    pub fn withdraw(mut self) {
        self.operation = None;
    }
}

impl<O, R> Drop for Pending<'_, O, R> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.recorder.push(Call::maybe(self.began, operation));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state_core::clock::ManualClock;
    use acteon_state_core::{Effect, Error, ErrorKind};

    use super::{NEVER, Recorder};

    #[tokio::test]
    async fn calls_are_recorded_with_their_order_and_failures_are_not() {
        let recorder = Recorder::<&str, u32>::default();
        recorder.record("first", async { Ok::<_, ()>(1) }).await.unwrap();
        recorder.record("failing", async { Err(()) }).await.unwrap_err();
        recorder.record("second", async { Ok::<_, ()>(2) }).await.unwrap();
        let calls = recorder.finish();
        let told: Vec<_> = calls.iter().map(|call| (call.operation, call.reply)).collect();
        assert_eq!(told, [("first", Some(1)), ("second", Some(2))]);
        assert!(calls[0].began < calls[0].ended && calls[0].ended < calls[1].began);
        assert!(recorder.finish().is_empty());
    }

    #[tokio::test]
    async fn what_may_have_happened_is_recorded_without_an_end() {
        let recorder = Recorder::<&str, u32>::default();
        let fail = |effect| async move { Err(Error::new(ErrorKind::Timeout, "late").with_effect(effect)) };
        recorder.attempt("refused", fail(Effect::NotApplied)).await.unwrap_err();
        recorder.attempt("unanswered", fail(Effect::Unknown)).await.unwrap_err();
        let dropped = recorder.attempt("dropped", pending());
        tokio::time::timeout(Duration::from_millis(1), dropped).await.unwrap_err();
        let calls = recorder.finish();
        let names: Vec<_> = calls.iter().map(|call| call.operation).collect();
        assert_eq!(names, ["unanswered", "dropped"]);
        assert!(calls.iter().all(|call| call.is_maybe() && call.ended == NEVER));
    }

    #[test]
    fn places_tell_the_time_and_never_meet() {
        let clock = Arc::new(ManualClock::new(5_000));
        let recorder = Recorder::<&str, u32>::with_clock(clock.clone());
        recorder.record_call("first", || 1);
        clock.advance(Duration::from_millis(2));
        recorder.record_call("second", || 2);
        let calls = recorder.finish();
        assert_eq!((calls[0].began, calls[0].ended), (1, 2));
        assert_eq!((calls[1].began, calls[1].ended), (2_000_000, 2_000_001));
    }
}
