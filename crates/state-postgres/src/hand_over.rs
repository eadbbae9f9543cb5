//! Handing a lock over inside of one process: whoever releases it sends the next waiter's request along.
//!
//! # Guarantees
//! - Release and grant are one statement and one commit, and nobody can get in between. Token, owner and lease are those of any other
//!   grant, since the request is the waiter's own.
//! - A request travels at most once at a time: whoever wants to ask by itself takes its offer back first, and if it was sent
//!   meanwhile, waits for that answer instead.
//! - A waiter that leaves while its request is under way gives back what it may have been granted.
//! - One that is there and is not polled keeps nobody waiting: what it does not take within [`UNTAKEN_MAX`] of the release is withdrawn, and the
//!   next one has it. It asks by itself when it is polled again.
//!
//! # Failure
//! When the release cannot even be submitted, the waiter learns that its offer was not used, and asks by itself.
//!
//! # How it works
//! All waiters of this process lay out what they want, in the order in which they came. It is for [`waiting`](crate::waiting) to decide
//! whether a lock stays at home: a waiter on another node sees nothing of a lock that is handed over like this.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::lock::line::Attempt;
use acteon_state_core::{LockRequest, Result, StateKey};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lane::Answer;
use crate::lock::{Locks, conclude};
use crate::store::Inner;
use crate::waiting::lock_hash;

/// For how long a request that was sent along may lie about after the release was answered. A waiter that is polled takes it before that answer.
const UNTAKEN_MAX: Duration = Duration::from_millis(100);

/// Where a request that was sent along lies until its waiter takes it. Locked to put it there and to take it, never across an await.
type Slot = Arc<Mutex<Option<SentAlong>>>;

/// What the waiters of this process want, by lock.
#[derive(Default)]
pub(crate) struct Offers {
    // Locked to add, find or remove one; never across an await. No line in it is empty.
    lines: Mutex<HashMap<u64, VecDeque<Offer>>>,
    next_number: AtomicU64,
}

/// A request that may be sent along with a release.
pub(crate) struct Offer {
    number: u64,
    pub(crate) request: Arc<LockRequest>,
    pub(crate) lease_ms: u64,
    /// When its wait is over.
    pub(crate) until: Instant,
    slot: Slot,
    /// Tells that the slot was filled.
    sent: oneshot::Sender<()>,
}

/// A request that was sent along, for whoever did that, until it has its own answer. Dropped then, it sees to it that the waiter takes it.
pub(crate) struct Passed {
    inner: Arc<Inner>,
    slot: Slot,
}

/// A waiter's side of its offer. Dropping it takes the offer back.
pub(crate) struct Offered<'a> {
    inner: &'a Inner,
    request: Arc<LockRequest>,
    lease_ms: u64,
    until: Instant,
    hash: u64,
    number: u64,
    slot: Slot,
    /// `None` once it has told what became of the offer.
    sent: Option<oneshot::Receiver<()>>,
}

/// A request that was sent along, and whose answer has not come. Dropped like that, it withdraws what it may have been granted.
pub(crate) struct SentAlong {
    inner: Arc<Inner>,
    request: Arc<LockRequest>,
    answer: Option<Answer<Locks>>,
    /// Counted from before it was sent.
    deadline: BootInstant,
}

impl Offers {
    /// Takes the offer of whoever has waited longest for the lock.
    pub(crate) fn take(&self, key: &StateKey, now: Instant) -> Option<Offer> {
        let hash = lock_hash(key);
        let mut lines = self.lines.lock();
        let line = lines.get_mut(&hash)?;
        // Another lock may have the same hash; and who is about to leave is not to be handed a lock.
        let at = line.iter().position(|offer| offer.request.key == *key && offer.until > now)?;
        let offer = line.remove(at);
        if line.is_empty() {
            lines.remove(&hash);
        }
        offer
    }

    fn draw_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts an offer where it belongs: numbers are drawn by waiters as they come, and kept.
    fn put(&self, hash: u64, offer: Offer) {
        let mut lines = self.lines.lock();
        let line = lines.entry(hash).or_default();
        let at = line.partition_point(|other| other.number < offer.number);
        line.insert(at, offer);
    }

    /// Whether the offer was still there.
    fn remove(&self, hash: u64, number: u64) -> bool {
        let mut lines = self.lines.lock();
        let Some(line) = lines.get_mut(&hash) else { return false };
        let Ok(at) = line.binary_search_by_key(&number, |offer| offer.number) else { return false };
        line.remove(at);
        if line.is_empty() {
            lines.remove(&hash);
        }
        true
    }
}

impl Offer {
    /// Tells the waiter that its request was sent. If it has left, the grant is given back.
    pub(crate) fn was_sent(self, inner: &Arc<Inner>, answer: Answer<Locks>, deadline: BootInstant) -> Passed {
        let sent = SentAlong { inner: inner.clone(), request: self.request, answer: Some(answer), deadline };
        *self.slot.lock() = Some(sent);
        if self.sent.send(()).is_err() {
            let left_behind = self.slot.lock().take();
            drop(left_behind);
        }
        Passed { inner: inner.clone(), slot: self.slot }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.slot.lock().is_none() {
            return;
        }
        // Without a runtime the process is going away; the lease then ends by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (slot, closed) = (self.slot.clone(), self.inner.waiters.closed.clone());
        let watch = async move {
            closed.run_until_cancelled(tokio::time::sleep(UNTAKEN_MAX)).await;
            let untaken = slot.lock().take();
            if let Some(untaken) = untaken {
                untaken.pass_on();
            }
        };
        self.inner.waiters.acquisitions.spawn_on(watch, &runtime);
    }
}

impl<'a> Offered<'a> {
    pub(crate) fn new(inner: &'a Inner, request: &LockRequest, lease_ms: u64, until: Instant) -> Self {
        let request = Arc::new(request.clone());
        let (hash, number) = (lock_hash(&request.key), inner.waiters.offers.draw_number());
        let mut offered = Self { inner, request, lease_ms, until, hash, number, slot: Slot::default(), sent: None };
        offered.lay_out();
        offered
    }

    /// Offers the request, also once more after it was answered in vain.
    pub(crate) fn lay_out(&mut self) {
        let (sent, receiver) = oneshot::channel();
        self.sent = Some(receiver);
        // Another one each time: somebody may still watch the last one.
        self.slot = Slot::default();
        let Self { number, lease_ms, until, .. } = *self;
        let offer = Offer { number, request: self.request.clone(), lease_ms, until, slot: self.slot.clone(), sent };
        self.inner.waiters.offers.put(self.hash, offer);
    }

    /// Waits until the request was sent along. `None` when it was to be, and was not, or we took too long. Dropping the future loses nothing.
    pub(crate) async fn sent(&mut self) -> Option<SentAlong> {
        // Whether or not it was sent, the slot knows.
        let _ = self.sent.as_mut()?.await;
        self.sent = None;
        self.slot.lock().take()
    }

    /// Takes the offer back, so that the waiter can ask by itself; unless it was sent already.
    pub(crate) async fn take_back(&mut self) -> Option<SentAlong> {
        if self.inner.waiters.offers.remove(self.hash, self.number) {
            return None;
        }
        // Somebody has it in hand, and tells at once.
        self.sent().await
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.inner.waiters.offers.remove(self.hash, self.number);
        let untaken = self.slot.lock().take();
        drop(untaken);
    }
}

impl SentAlong {
    /// Gives back what was granted, and to the next waiter if there is one.
    fn pass_on(mut self) {
        self.answer = None;
        self.inner.withdraw_for_next(&self.request);
    }

    /// Waits for the answer.
    pub(crate) async fn wait(mut self) -> Result<Attempt> {
        let Some(answer) = &mut self.answer else { return Err(crate::error::closed()) };
        let answered = answer.wait_here().await;
        self.answer = None;
        conclude(answered?, self.deadline)
    }
}

impl Drop for SentAlong {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.inner.withdraw(&self.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state_core::{LockRequest, StateKey};
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::{Offer, Offers, Slot};
    use crate::waiting::lock_hash;

    const LEASE: Duration = Duration::from_secs(60);

    fn key(id: &str) -> StateKey {
        StateKey::new("offers", "tests", "k", id).unwrap()
    }

    /// Lays out an offer for a lock, in the line of another one if need be.
    fn put(offers: &Offers, line: &StateKey, number: u64, lock: &StateKey, until: Instant) {
        let (sent, _) = oneshot::channel();
        let request = Arc::new(LockRequest::new(lock.clone(), LEASE));
        offers.put(lock_hash(line), Offer { number, request, lease_ms: 60_000, until, slot: Slot::default(), sent });
    }

    fn numbers(offers: &Offers, lock: &StateKey, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| offers.take(lock, now)).map(|offer| offer.number).collect()
    }

    #[test]
    fn who_came_first_is_served_first_also_after_it_was_answered_in_vain() {
        let (offers, lock, now) = (Offers::default(), key("a"), Instant::now());
        let numbered: Vec<u64> = (0..3).map(|_| offers.draw_number()).collect();
        for number in [numbered[1], numbered[2], numbered[0]] {
            put(&offers, &lock, number, &lock, now + LEASE);
        }
        assert_eq!(numbers(&offers, &lock, now), numbered);
        assert!(offers.lines.lock().is_empty());
    }

    #[test]
    fn what_was_taken_cannot_be_taken_back() {
        let (offers, lock, now) = (Offers::default(), key("a"), Instant::now());
        put(&offers, &lock, 0, &lock, now + LEASE);
        put(&offers, &lock, 1, &lock, now + LEASE);
        assert!(offers.take(&lock, now).is_some());
        assert!(!offers.remove(lock_hash(&lock), 0), "somebody sends it");
        assert!(offers.remove(lock_hash(&lock), 1) && offers.lines.lock().is_empty());
    }

    #[test]
    fn neither_who_is_about_to_leave_nor_who_waits_for_another_lock_is_handed_it() {
        let (offers, lock, now) = (Offers::default(), key("a"), Instant::now());
        put(&offers, &lock, 0, &lock, now);
        // As if both had the same hash.
        put(&offers, &lock, 1, &key("b"), now + LEASE);
        put(&offers, &lock, 2, &lock, now + LEASE);
        assert_eq!(numbers(&offers, &lock, now), [2]);
    }
}
