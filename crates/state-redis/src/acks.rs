//! Acknowledgements of one queue that come at the same moment share one call of a script: a call takes longer than what it does.
//!
//! # Guarantees
//! - One that finds no other under way leaves at once. One that does steps back once, behind the tasks that are ready to run, and
//!   leaves with those of its queue that did the same. There is no timer, and nobody waits for the answer of another call.
//! - Each has an outcome of its own; a call that fails does so for each of those it carries, with the same kind and effect.
//! - Dropping one harms no other. Until the call is made, the dropped one is taken out of it.
//!
//! # How it works
//! The call is a future that all of them share: whoever is polled drives it, so it depends on nobody's staying, and needs no
//! task of its own. It ends when the last of them has left, as a call of one does. The first of them to be polled again after
//! stepping back makes it, with all that have gathered by then.
//!
//! # Bounds
//! A call carries [`ACKS_MAX`]. What has gathered for a queue is forgotten when the call is made, or nobody waits for it any more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use acteon_state_core::{ClaimToken, Result, StateKey};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::task::yield_now;

use crate::error::{Access, copy, unexpected};
use crate::reply;
use crate::script;
use crate::store::Inner;
use crate::wire::Value;

/// What one call carries at most: with the longest ids 64 KiB, and a fraction of a millisecond of the server's time.
const ACKS_MAX: usize = 128;

/// See the module.
#[derive(Default)]
pub(crate) struct Acks {
    /// How many acknowledgements there are, of all queues: others are likely to come with them.
    under_way: AtomicUsize,
    // Locked to join, to leave and to make the call; never across an await.
    gathering: Mutex<HashMap<StateKey, Gathering>>,
}

/// A call that is not made yet.
struct Gathering {
    call: SharedCall,
    /// Without those who have left.
    acks: Vec<Option<Ack>>,
}

struct Ack {
    id: String,
    token: ClaimToken,
}

/// The replies in the order of the acknowledgements that gathered.
type SharedCall = Shared<BoxFuture<'static, Arc<Result<Vec<Value>>>>>;

/// An acknowledgement that counts as under way until this is dropped.
pub(crate) struct UnderWay<'a>(&'a AtomicUsize);

/// A place in a call that is not made yet. Dropping it takes the acknowledgement out.
struct Place<'a> {
    acks: &'a Acks,
    queue: &'a StateKey,
    index: usize,
    /// Whether nobody else can join.
    is_last: bool,
    call: SharedCall,
    has_stayed: bool,
}

impl Inner {
    /// Acknowledges an item together with others. The reply is that of ack.lua.
    pub(crate) async fn ack_with_others(
        self: &Arc<Self>,
        queue: &StateKey,
        id: &str,
        token: ClaimToken,
    ) -> Result<Value> {
        let Some(place) = self.join(queue, id, token) else {
            // Rare, and large: it would make the future of every acknowledgement so.
            return Box::pin(self.run(Access::Write, |by| self.ack_command(queue, id, token, by))).await;
        };
        if !place.is_last {
            yield_now().await;
        }
        let index = place.index;
        match &*place.stay().await {
            Ok(replies) => replies.get(index).cloned().ok_or_else(|| unexpected(&Value::Nil)),
            Err(error) => Err(copy(error)),
        }
    }

    /// Joins those that gather, unless the call is full and only has to be made.
    fn join<'a>(self: &'a Arc<Self>, queue: &'a StateKey, id: &str, token: ClaimToken) -> Option<Place<'a>> {
        let ack = Ack { id: id.to_owned(), token };
        let mut gathering = self.acks.gathering.lock();
        let Gathering { call, acks } = gathering.entry(queue.clone()).or_insert_with(|| Gathering {
            call: self.clone().ack_gathered(queue.clone()).map(Arc::new).boxed().shared(),
            acks: Vec::new(),
        });
        if acks.len() == ACKS_MAX {
            return None;
        }
        acks.push(Some(ack));
        let (index, is_last) = (acks.len() - 1, acks.len() == ACKS_MAX);
        Some(Place { acks: &self.acks, queue, index, is_last, call: call.clone(), has_stayed: false })
    }

    /// Makes the call. From its first poll on nobody joins or leaves.
    async fn ack_gathered(self: Arc<Self>, queue: StateKey) -> Result<Vec<Value>> {
        let gathered = self.acks.gathering.lock().remove(&queue).map(|gathering| gathering.acks).unwrap_or_default();
        let present: Vec<&Ack> = gathered.iter().flatten().collect();
        let replies = if let [Ack { id, token }] = present[..] {
            vec![self.run(Access::Write, |by| self.ack_command(&queue, id, *token, by)).await?]
        } else {
            self.ack_many(&queue, &present).await?
        };
        let mut replies = replies.into_iter();
        Ok(gathered.iter().map(|ack| ack.as_ref().and_then(|_| replies.next()).unwrap_or(Value::Nil)).collect())
    }

    async fn ack_many(&self, queue: &StateKey, acks: &[&Ack]) -> Result<Vec<Value>> {
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
    /// Counts an acknowledgement, and tells whether it is the only one.
    pub(crate) fn enter(&self) -> (UnderWay<'_>, bool) {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        (UnderWay(&self.under_way), others == 0)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place<'_> {
    /// The call, to be awaited at once: it is made with this acknowledgement.
    fn stay(mut self) -> SharedCall {
        self.has_stayed = true;
        self.call.clone()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.has_stayed {
            return;
        }
        let mut gathering = self.acks.gathering.lock();
        let Entry::Occupied(mut entry) = gathering.entry(self.queue.clone()) else { return };
        // Another call gathers by now when ours was made meanwhile.
        if !entry.get().call.ptr_eq(&self.call) {
            return;
        }
        let acks = &mut entry.get_mut().acks;
        acks[self.index] = None;
        if acks.iter().all(Option::is_none) {
            entry.remove();
        }
    }
}
