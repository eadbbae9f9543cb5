//! Who waits for a lock, in order of arrival, and how it is handed to them.
//!
//! # Guarantees
//! - First come, first served: nobody who asks later gets a lock before those who wait for it, whatever their modes. Those
//!   in front who fit together (shared with shared, permits while some are left) are let in together.
//! - Whoever releases a lock, or moves the end of its lease, carries out the next waiter's acquisition on the spot. Nobody
//!   polls: a waiter sleeps until it is called, until the lease that it waits for ends, or until its patience is over.
//! - A waiting future that is dropped leaves nothing held, even if the lock was being handed to it at that moment.
//!
//! # Failure
//! A lock that is released behind our back, by another process through the protocol, is noticed when whoever publishes the engine says so
//! ([`MemoryStore::lock_changed`](crate::MemoryStore::lock_changed)); otherwise when its lease would have ended, or by the next
//! operation on it here, or by [`MemoryStore::tick`](crate::MemoryStore::tick).
//!
//! # How it works
//! A queue per contended lock, in a few shards. While nobody waits in a shard, its count of waiters is zero and neither map nor
//! mutex is touched. The race between a waiter that comes and a holder that goes is decided by the engine's own lock on
//! the record: a waiter counts itself *before* its attempt. If the attempt finds the lock held, then the release comes after
//! it, and sees the count.
//!
//! The mutex of a shard is taken before the engine's locks and never the other way round, and never held across an await.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use acteon_state_core::key::Companion;
use acteon_state_core::{LockBusy, LockOutcome, LockRequest, Result};
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::closed;
use crate::lock::{Attempt, RecordAt, Turn};
use crate::store::{Handle, Shared};
use crate::text::{KeyText, companion_text};

/// A power of two. Contended locks are few; this keeps them from slowing the others.
const SHARDS: usize = 64;
/// The shortest sleep until the end of a lease: what tokio's timer can tell apart.
const RECHECK_MIN: Duration = Duration::from_millis(1);

/// All who wait for locks of one engine.
#[derive(Debug)]
pub(crate) struct Hub {
    shards: Box<[Shard]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    /// How many wait in `queues`; raised before an attempt, see the module.
    waiting: AtomicUsize,
    /// By the text of the lock's record. No queue is empty when the mutex is free.
    queues: Mutex<Queues>,
}

type Queues = HashMap<KeyText, VecDeque<Arc<Waiter>>>;

#[derive(Debug)]
struct Waiter {
    handle: Arc<Handle>,
    request: LockRequest,
    lease_ms: u64,
    text: KeyText,
    /// Calls the waiter to look at its state.
    call: Notify,
    /// Changed only under the shard's mutex, except that the waiter takes its own outcome.
    state: Mutex<WaiterState>,
}

#[derive(Debug, Default)]
struct WaiterState {
    /// When the waiter wakes up by itself, by the store's clock.
    wakes_at_us: u64,
    /// Once there is one, the waiter is in no queue.
    outcome: Option<Result<LockOutcome>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), hasher: RandomState::default() }
    }
}

impl Hub {
    fn shard(&self, text: &[u8]) -> &Shard {
        let hash = self.hasher.hash_one(text);
        &self.shards[hash as usize % SHARDS]
    }

    fn shards_in_use(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.has_waiters())
    }
}

impl Shared {
    /// Lets `attempt` ask for a lock, telling it whether others are to come first.
    pub(crate) fn lock_in_turn<R>(&self, text: &[u8], attempt: impl FnOnce(Turn) -> R) -> R {
        let shard = self.hub.shard(text);
        if !shard.has_waiters() {
            return attempt(Turn::Own);
        }
        let mut queues = shard.queues.lock();
        let turn = if shard.serve(self, &mut queues, text).is_some() { Turn::Others } else { Turn::Own };
        attempt(turn)
    }

    /// Hands a lock that may have become free here to those who wait for it, here and elsewhere.
    pub(crate) fn lock_pass_on(&self, text: &[u8]) {
        self.lock_serve(text);
        self.lock_listener.tell(text);
    }

    /// Hands a lock that may have become free to those who wait for it here.
    pub(crate) fn lock_serve(&self, text: &[u8]) {
        let shard = self.hub.shard(text);
        if shard.has_waiters() {
            shard.serve(self, &mut shard.queues.lock(), text);
        }
    }

    /// The same for all locks that somebody waits for.
    pub(crate) fn lock_pass_on_all(&self) {
        for shard in self.hub.shards_in_use() {
            let mut queues = shard.queues.lock();
            queues.retain(|_, queue| {
                shard.serve_queue(self, queue);
                !queue.is_empty()
            });
        }
    }

    /// Calls all who wait on behalf of a handle that was closed.
    pub(crate) fn lock_call_all_of(&self, handle: &Arc<Handle>) {
        for shard in self.hub.shards_in_use() {
            let queues = shard.queues.lock();
            let waiters = queues.values().flatten();
            waiters.filter(|waiter| Arc::ptr_eq(&waiter.handle, handle)).for_each(|waiter| waiter.call.notify_one());
        }
    }
}

impl Shard {
    fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Hands the lock to those in front, as far as it goes. Who holds it against the next, if somebody still waits.
    fn serve(&self, shared: &Shared, queues: &mut Queues, text: &[u8]) -> Option<LockBusy> {
        let queue = queues.get_mut(text)?;
        let busy = self.serve_queue(shared, queue);
        if queue.is_empty() {
            queues.remove(text);
        }
        busy
    }

    fn serve_queue(&self, shared: &Shared, queue: &mut VecDeque<Arc<Waiter>>) -> Option<LockBusy> {
        while let Some(first) = queue.front() {
            let outcome = match first.attempt(shared) {
                Ok(Attempt::Busy(busy)) => {
                    first.wake_by(shared.now().after_us(busy.retry_after));
                    return Some(busy);
                }
                Ok(Attempt::Granted(grant)) => Ok(LockOutcome::Granted(grant)),
                Ok(Attempt::Refused(busy)) => Ok(LockOutcome::Busy(busy)),
                Err(error) => Err(error),
            };
            first.settle(outcome);
            queue.pop_front();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        None
    }
}

impl Waiter {
    fn record<'a>(&'a self, shared: &'a Shared) -> RecordAt<'a> {
        let retention_ms = self.handle.lock_retention_ms;
        RecordAt { engine: &shared.engine, key: &self.request.key, text: &self.text, retention_ms }
    }

    fn attempt(&self, shared: &Shared) -> Result<Attempt> {
        shared.check_writable()?;
        self.record(shared).acquire(&self.request, self.lease_ms, Turn::Own, shared.now())
    }

    fn settle(&self, outcome: Result<LockOutcome>) {
        self.state.lock().outcome = Some(outcome);
        self.call.notify_one();
    }

    /// Makes sure that the waiter looks at this time. It usually does so anyway: it went to sleep for as long as an earlier
    /// holder's lease, and calling it for each change of holder would cost a switch of tasks each time.
    fn wake_by(&self, at_us: u64) {
        let mut state = self.state.lock();
        if state.wakes_at_us > at_us {
            state.wakes_at_us = at_us;
            self.call.notify_one();
        }
    }
}

/// Waits in the queue of `request`'s lock, for as long as the request says.
///
/// Dropping the future leaves the queue, and gives back what was handed to it meanwhile.
pub(crate) async fn wait(handle: &Arc<Handle>, request: &LockRequest, lease_ms: u64) -> Result<LockOutcome> {
    let give_up_at = Instant::now() + request.wait;
    let mut place = Place::join(handle, request, lease_ms);
    loop {
        let busy = match place.look(give_up_at)? {
            LockOutcome::Busy(busy) if !place.is_settled => busy,
            outcome => return Ok(outcome),
        };
        let now = Instant::now();
        if now >= give_up_at {
            return Ok(LockOutcome::Busy(busy));
        }
        let look_at = give_up_at.min(now + busy.retry_after.max(RECHECK_MIN));
        tokio::select! {
            () = place.waiter.call.notified() => {}
            () = tokio::time::sleep_until(look_at) => {}
        }
    }
}

/// A place in a queue; dropping it leaves the queue.
struct Place {
    waiter: Arc<Waiter>,
    /// The outcome was taken.
    is_settled: bool,
}

impl Place {
    fn join(handle: &Arc<Handle>, request: &LockRequest, lease_ms: u64) -> Self {
        let waiter = Arc::new(Waiter {
            handle: handle.clone(),
            request: request.clone(),
            lease_ms,
            text: companion_text(&handle.keyspace, &request.key, Companion::Lock),
            call: Notify::new(),
            state: Mutex::default(),
        });
        let place = Self { waiter, is_settled: false };
        let (shard, mut queues) = place.shard();
        shard.waiting.fetch_add(1, Ordering::SeqCst);
        queues.entry(place.waiter.text.clone()).or_default().push_back(place.waiter.clone());
        drop(queues);
        place
    }

    fn shard(&self) -> (&Shard, MutexGuard<'_, Queues>) {
        let shard = self.waiter.handle.shared.hub.shard(&self.waiter.text);
        (shard, shard.queues.lock())
    }

    /// The outcome, if there is one by now; otherwise who holds the lock against the first in the queue.
    fn look(&mut self, give_up_at: Instant) -> Result<LockOutcome> {
        if let Some(outcome) = self.take_outcome() {
            return outcome;
        }
        if self.waiter.handle.is_closed() {
            return Err(closed());
        }
        let shared = &self.waiter.handle.shared;
        let (shard, mut queues) = self.shard();
        if let Some(busy) = shard.serve(shared, &mut queues, &self.waiter.text) {
            let mut state = self.waiter.state.lock();
            if state.outcome.is_none() {
                let patience = give_up_at.saturating_duration_since(Instant::now());
                state.wakes_at_us = shared.now().after_us(busy.retry_after.min(patience));
                return Ok(LockOutcome::Busy(busy));
            }
        }
        drop(queues);
        self.take_outcome().expect("who is in no queue has an outcome")
    }

    fn take_outcome(&mut self) -> Option<Result<LockOutcome>> {
        let outcome = self.waiter.state.lock().outcome.take();
        self.is_settled |= outcome.is_some();
        outcome
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let shared = &self.waiter.handle.shared;
        let (shard, mut queues) = self.shard();
        let queue = queues.get_mut(&self.waiter.text);
        let position = queue.as_ref().and_then(|queue| queue.iter().position(|other| Arc::ptr_eq(other, &self.waiter)));
        if let (Some(queue), Some(position)) = (queue, position) {
            queue.remove(position);
            shard.waiting.fetch_sub(1, Ordering::SeqCst);
        } else if let Some(Ok(LockOutcome::Granted(_))) = self.waiter.state.lock().outcome.take()
            && let Err(error) = self.waiter.record(shared).withdraw(self.waiter.request.owner, shared.now())
        {
            let key = &self.waiter.request.key;
            tracing::warn!(%key, %error, "a lock that nobody took could not be given back; its lease ends by itself");
        }
        // Whoever comes next may fit where this one did not.
        shard.serve(shared, &mut queues, &self.waiter.text);
        drop(queues);
        shared.lock_listener.tell(&self.waiter.text);
    }
}
