//! Records who called what when, and what they were told: the input of the linearizability checker.
//!
//! # How it works
//! A call takes a place in one order when it begins and another when it ends. Two calls overlap unless one ended before the
//! other began; of those that do not overlap the order is known, and of the others any order may be the true one. An atomic
//! counter gives these places: it is shared by all tasks of a case, so no clock is compared with another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// One call that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O, R> {
    /// What was asked.
    pub operation: O,
    /// What was answered.
    pub reply: R,
    /// Its place among all beginnings and ends when it began.
    pub began: u64,
    /// The same when it ended.
    pub ended: u64,
}

/// Collects calls from many tasks.
#[derive(Debug)]
pub struct Recorder<O, R> {
    next: Arc<AtomicU64>,
    /// Short pushes by many tasks; never held across an await.
    calls: Arc<Mutex<Vec<Call<O, R>>>>,
}

impl<O, R> Clone for Recorder<O, R> {
    fn clone(&self) -> Self {
        Self { next: self.next.clone(), calls: self.calls.clone() }
    }
}

impl<O, R> Default for Recorder<O, R> {
    fn default() -> Self {
        Self { next: Arc::default(), calls: Arc::default() }
    }
}

impl<O, R> Recorder<O, R> {
    /// Makes a call and records it. A call that fails is not recorded, so a case must stop at the first failure of unknown
    /// effect.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn record<E>(&self, operation: O, call: impl Future<Output = Result<R, E>>) -> Result<(), E> {
        let began = self.next.fetch_add(1, Ordering::SeqCst);
        let reply = call.await?;
        let ended = self.next.fetch_add(1, Ordering::SeqCst);
        self.calls.lock().push(Call { operation, reply, began, ended });
        Ok(())
    }

    /// The same for a call that keeps its thread until it is answered, and always is. Returns the answer.
    pub fn record_call(&self, operation: O, call: impl FnOnce() -> R) -> R
    where
        R: Clone,
    {
        let began = self.next.fetch_add(1, Ordering::SeqCst);
        let reply = call();
        let ended = self.next.fetch_add(1, Ordering::SeqCst);
        self.calls.lock().push(Call { operation, reply: reply.clone(), began, ended });
        reply
    }

    /// What was recorded so far, in the order of the beginnings; the recorder is empty afterwards.
    #[must_use]
    pub fn finish(&self) -> Vec<Call<O, R>> {
        let mut calls = std::mem::take(&mut *self.calls.lock());
        calls.sort_by_key(|call| call.began);
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::Recorder;

    #[tokio::test]
    async fn calls_are_recorded_with_their_order_and_failures_are_not() {
        let recorder = Recorder::<&str, u32>::default();
        recorder.record("first", async { Ok::<_, ()>(1) }).await.unwrap();
        recorder.record("failing", async { Err(()) }).await.unwrap_err();
        recorder.record("second", async { Ok::<_, ()>(2) }).await.unwrap();
        let calls = recorder.finish();
        let told: Vec<_> = calls.iter().map(|call| (call.operation, call.reply)).collect();
        assert_eq!(told, [("first", 1), ("second", 2)]);
        assert!(calls[0].began < calls[0].ended && calls[0].ended < calls[1].began);
        assert!(recorder.finish().is_empty());
    }
}
