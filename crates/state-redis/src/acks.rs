//! Acknowledgements of one queue that come at the same moment share one call of a script: a call takes longer than what it does.
//!
//! # Guarantees
//! - One that finds no other under way leaves at once. One that does leaves with those of its queue that come before the tasks that are
//!   ready to run have had their turn. There is no timer, and nobody waits for the answer of another call.
//! - Each has an outcome of its own; a call that fails does so for each of those it carries, with the same kind and effect.
//! - Dropping one harms no other. Until the call is made, the dropped one is not part of it.
//!
//! # How it works
//! The first that gathers for a queue begins a task, which steps back once and makes the call with all that are there by then. It
//! depends on nobody who waits for it: a caller may go away, or not look at its future for long. It ends by the deadline of every call.
//!
//! # Bounds
//! A call carries [`ACKS_MAX`]. What has gathered for a queue is forgotten when the call is made.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use acteon_state_core::{ClaimToken, Result, StateKey};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio_util::task::TaskTracker;

use crate::error::{Access, copy, runtime_ended, unexpected};
use crate::reply;
use crate::script;
use crate::store::Inner;
use crate::wire::Value;

/// What one call carries at most: with the longest ids 64 KiB, and a fraction of a millisecond of the server's time.
const ACKS_MAX: usize = 128;

/// See the module.
pub(crate) struct Acks {
    /// How many acknowledgements there are, of all queues: others are likely to come with them.
    under_way: AtomicUsize,
    // Locked to join and to make the call; never across an await.
    gathering: Mutex<HashMap<StateKey, Vec<Ack>>>,
    /// That of the store: whoever acknowledges may have one of its own, which ends before the others'.
    runtime: Handle,
    /// The calls, and those that are about to be made.
    pub(crate) tasks: TaskTracker,
}

struct Ack {
    id: String,
    token: ClaimToken,
    /// The reply of ack.lua.
    answer: oneshot::Sender<Result<Value>>,
}

/// An acknowledgement that counts as under way until this is dropped.
pub(crate) struct UnderWay<'a>(&'a AtomicUsize);

impl Inner {
    /// Acknowledges an item together with others. The reply is that of ack.lua.
    pub(crate) async fn ack_with_others(
        self: &Arc<Self>,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
    ) -> Result<Value> {
        let (answer, answered) = oneshot::channel();
        self.join(queue, Ack { id: id.to_owned(), token, answer });
        answered.await.unwrap_or_else(|_| Err(runtime_ended()))
    }

    /// Joins those that gather for a queue, and sees to it that their call is made.
    fn join(self: &Arc<Self>, queue: &StateKey, ack: Ack) {
        let mut gathering = self.acks.gathering.lock();
        let acks = gathering.entry(queue.clone()).or_default();
        acks.push(ack);
        let (is_first, is_full) = (acks.len() == 1, acks.len() == ACKS_MAX);
        let full = if is_full { gathering.remove(queue) } else { None };
        drop(gathering);
        let (store, queue) = (self.clone(), queue.clone());
        if let Some(acks) = full {
            self.acks.spawn(async move { store.make_call(&queue, acks).await });
        } else if is_first {
            self.acks.spawn(async move {
                yield_now().await;
                // Unless they were enough for a call before that.
                let gathered = store.acks.gathering.lock().remove(&queue);
                store.make_call(&queue, gathered.unwrap_or_default()).await;
            });
        }
    }

    /// Acknowledges for those who still wait.
    async fn make_call(&self, queue: &StateKey, mut acks: Vec<Ack>) {
        acks.retain(|ack| !ack.answer.is_closed());
        let replies = match &acks[..] {
            [] => return,
            [Ack { id, token, .. }] => {
                self.run(Access::Write, |by| self.ack_command(queue, id, *token, by)).await.map(|reply| vec![reply])
            }
            acks => self.ack_many(queue, acks).await,
        };
        // Who has left meanwhile needs no answer.
        match replies {
            Ok(replies) => {
                let mut replies = replies.into_iter();
                for ack in acks {
                    let _ = ack.answer.send(replies.next().ok_or_else(|| unexpected(&Value::Nil)));
                }
            }
            Err(error) => acks.into_iter().for_each(|ack| _ = ack.answer.send(Err(copy(&error)))),
        }
    }

    async fn ack_many(&self, queue: &StateKey, acks: &[Ack]) -> Result<Vec<Value>> {
        let command = |by| {
            let mut cmd = self.queue_command(&script::ACK_MANY, queue, by);
            for Ack { id, .. } in acks {
                cmd.arg(id);
            }
            for Ack { token, .. } in acks {
                cmd.arg(token.to_text());
            }
            cmd
        };
        Ok(reply::array(self.run(Access::Write, command).await?)?.collect())
    }
}

impl Acks {
    /// For a store that runs on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { under_way: AtomicUsize::new(0), gathering: Mutex::default(), runtime, tasks: TaskTracker::new() }
    }

    /// Counts an acknowledgement, and tells whether it is the only one.
    pub(crate) fn enter(&self) -> (UnderWay<'_>, bool) {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        (UnderWay(&self.under_way), others == 0)
    }

    fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(call, &self.runtime);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
