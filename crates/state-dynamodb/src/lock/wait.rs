//! Asking for a lock: each question runs in a task of its own, and waiters ask one at a time.
//!
//! # Waiting
//! A waiter asks once; when the lock is busy it stands in line with the other waiters of this process. The first of them
//! asks at once when the lock is released in this process. Of releases elsewhere nobody is told: it looks again and again,
//! with decorrelated jitter of up to a second ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015), and no later
//! than the first lease ends. A look is a read, half a read unit; only a lock that can be had is written to.
//!
//! Waiters of the process that releases therefore get the lock before those of others. Those others get it when a look of theirs
//! meets it free.
//!
//! # Cancellation
//! Dropping the future of an acquisition leaves nothing held: its request is not cut off, but answered, and a grant that nobody
//! is there to take is withdrawn. So is what a request of unknown outcome may have been granted. The questions and
//! withdrawals of one owner follow one another, so that a new grant is not taken for an old one. Should such a request
//! reach the table even after its withdrawal, the grant ends with its lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::lock::line::{Attempt, Lines, Place, Woken};
use acteon_state_core::{
    Effect, Error, ErrorKind, LockBusy, LockMode, LockOutcome, LockRequest, OwnerId, Result, StateKey,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::error::closed;
use crate::store::Inner;

/// The shortest and the longest pause between two looks at a lock that others hold.
const NAP_MIN: Duration = Duration::from_millis(10);
const NAP_MAX: Duration = Duration::from_secs(1);
/// How far waiters of many processes spread over the moment at which a lease ends.
const SPREAD: Duration = Duration::from_millis(20);

/// Before each attempt to withdraw what may have been granted. What made the outcome unknown mostly takes a moment to pass.
const WITHDRAWAL_PAUSES_MS: [u64; 4] = [0, 100, 400, 1_600];

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// It is probably free: one write.
    Write,
    /// It is probably not: a read, and a write if it is.
    Read,
}

impl Inner {
    pub(crate) async fn lock_acquire(self: &Arc<Self>, request: &LockRequest) -> Result<LockOutcome> {
        let lease_ms = request.check(self.capabilities())?;
        let until = Instant::now() + request.wait;
        let lines = &self.locks.lines;
        let lock = self.lock_address(&request.key).pk;
        let (mut asked, mut busy) = (None, None);
        if request.wait.is_zero() || !lines.has_waiters(&lock) {
            asked = Some(lines.wakes());
            match self.ask(request, lease_ms, Ask::Write).await? {
                Attempt::Busy(reason) if !request.wait.is_zero() => busy = Some(reason),
                attempt => return Ok(attempt.outcome()),
            }
        }
        let place = lines.join(&lock, asked);
        tokio::select! {
            outcome = self.wait_in_line(request, lease_ms, place, busy, until) => outcome,
            () = self.closed.cancelled() => Err(closed()),
        }
    }

    /// Stands in line until the lock is granted or the wait is over.
    async fn wait_in_line(
        self: &Arc<Self>,
        request: &LockRequest,
        lease_ms: u64,
        place: Place,
        mut busy: Option<LockBusy>,
        until: Instant,
    ) -> Result<LockOutcome> {
        let mut pace = NAP_MIN;
        loop {
            let (ask, is_over) = match sleep_in_line(&place, busy, &mut pace, until).await {
                Rested::Woken => (Ask::Write, false),
                Rested::Slept => (Ask::Read, Instant::now() >= until),
            };
            match self.ask(request, lease_ms, ask).await? {
                Attempt::Busy(reason) if !is_over => busy = Some(reason),
                attempt => {
                    if matches!(attempt, Attempt::Granted(_)) && request.mode == LockMode::Exclusive {
                        place.leave_with_exclusive(lease_ms);
                    }
                    return Ok(attempt.outcome());
                }
            }
        }
    }

    /// Asks once, in a task that goes on when this future is dropped.
    async fn ask(self: &Arc<Self>, request: &LockRequest, lease_ms: u64, ask: Ask) -> Result<Attempt> {
        let (sender, receiver) = oneshot::channel();
        let question = self.clone().answer(request.clone(), lease_ms, ask, sender);
        self.locks.tasks.spawn(question.in_current_span());
        let mut pending = Pending { inner: self, key: &request.key, receiver };
        match (&mut pending.receiver).await {
            Ok(Answer { result, .. }) => result,
            Err(_) => Err(Error::new(ErrorKind::Internal, "the task that asks for a lock ended without an answer")
                .with_effect(Effect::Unknown)),
        }
    }

    async fn answer(self: Arc<Self>, request: LockRequest, lease_ms: u64, ask: Ask, sender: oneshot::Sender<Answer>) {
        let turn = self.locks.turns.take(request.owner).await;
        if sender.is_closed() {
            return;
        }
        let timeout = self.operation_timeout;
        let result = tokio::time::timeout(timeout, self.attempt(&request, lease_ms, ask)).await;
        let result = result.unwrap_or_else(|_| {
            let message = format!("no answer within operation_timeout ({timeout:?})");
            Err(Error::new(ErrorKind::Timeout, message).with_effect(Effect::Unknown))
        });
        match &result {
            Ok(Attempt::Granted(_)) => {
                let answer = Answer { result, turn: Some(turn) };
                if let Err(Answer { turn: Some(turn), .. }) = sender.send(answer) {
                    self.withdraw(&request.key, turn).await;
                }
            }
            Err(error) if error.effect() == Effect::Unknown => {
                // Whoever asked need not wait for what follows; its next question does.
                let _ = sender.send(Answer { result, turn: None });
                self.withdraw(&request.key, turn).await;
            }
            _ => {
                let _ = sender.send(Answer { result, turn: Some(turn) });
            }
        }
    }

    /// Undoes a grant that nobody learnt of, unless its owner asks again: it then finds the grant.
    async fn withdraw(&self, key: &StateKey, turn: Turn) {
        for pause in WITHDRAWAL_PAUSES_MS.map(Duration::from_millis) {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = turn.asking.wanted.cancelled() => return,
                () = self.closed.cancelled(), if !pause.is_zero() => break,
            }
            match self.lock_withdraw(key, turn.owner).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%key, %error, "an acquisition could not be withdrawn"),
            }
        }
        tracing::debug!(%key, "an acquisition was not withdrawn; its lease ends by itself");
    }
}

/// What a question came to.
#[derive(Debug)]
struct Answer {
    result: Result<Attempt>,
    /// The owner's turn, unless something is still to be done in it.
    turn: Option<Turn>,
}

/// A question whose answer has not been taken.
struct Pending<'a> {
    inner: &'a Arc<Inner>,
    key: &'a StateKey,
    receiver: oneshot::Receiver<Answer>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // From here on the task finds nobody there. What it has sent just before is withdrawn on its behalf.
        self.receiver.close();
        let Ok(Answer { result: Ok(Attempt::Granted(_)), turn: Some(turn) }) = self.receiver.try_recv() else { return };
        // Without a runtime the process is going away; the lease then ends by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (inner, key) = (self.inner.clone(), self.key.clone());
        self.inner.locks.tasks.spawn_on(async move { inner.withdraw(&key, turn).await }, &runtime);
    }
}

/// Whose questions are under way.
#[derive(Debug, Default)]
pub(super) struct Turns {
    // Locked for a look-up only.
    under_way: Mutex<HashMap<OwnerId, Asking>>,
}

/// The right to ask for an owner. Dropping it lets the next question of this owner follow.
#[derive(Debug)]
struct Turn {
    turns: Arc<Turns>,
    owner: OwnerId,
    asking: Asking,
}

#[derive(Clone, Debug, Default)]
struct Asking {
    done: CancellationToken,
    /// Another question waits for this one.
    wanted: CancellationToken,
}

impl Turns {
    async fn take(self: &Arc<Self>, owner: OwnerId) -> Turn {
        let asking = Asking::default();
        while let Some(earlier) = self.enter(owner, &asking) {
            earlier.wanted.cancel();
            earlier.done.cancelled().await;
        }
        Turn { turns: self.clone(), owner, asking }
    }

    /// Who is there already, if anyone.
    fn enter(&self, owner: OwnerId, asking: &Asking) -> Option<Asking> {
        let mut under_way = self.under_way.lock();
        let earlier = under_way.get(&owner).cloned();
        if earlier.is_none() {
            under_way.insert(owner, asking.clone());
        }
        earlier
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.under_way.lock().remove(&self.owner);
        self.asking.done.cancel();
    }
}

/// Lets the first local waiter ask when it is dropped, however the operation that may have freed a lock ended.
pub(super) struct Wake<'a> {
    pub(super) lines: &'a Lines,
    pub(super) lock: &'a str,
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.lines.wake(self.lock);
    }
}

/// Why a sleep ended.
enum Rested {
    /// The lock may be free.
    Woken,
    /// It was time to look again.
    Slept,
}

/// Sleeps until it is time to ask.
async fn sleep_in_line(place: &Place, busy: Option<LockBusy>, pace: &mut Duration, until: Instant) -> Rested {
    let mut nap_max = busy.map_or(NAP_MAX, |busy| busy.retry_after);
    loop {
        let wake_at = if place.is_first() { until.min(Instant::now() + nap(pace, nap_max)) } else { until };
        tokio::select! {
            woken = place.woken() => match woken {
                Woken::Ask => {
                    *pace = NAP_MIN;
                    return Rested::Woken;
                }
                Woken::SteppedUp(lease) => nap_max = lease,
            },
            () = tokio::time::sleep_until(wake_at) => return Rested::Slept,
        }
    }
}

/// The next pause: up to three times the last one, but not beyond the end of a lease.
fn nap(pace: &mut Duration, nap_max: Duration) -> Duration {
    let longest = (*pace * 3).clamp(NAP_MIN, NAP_MAX);
    *pace = NAP_MIN + (longest - NAP_MIN).mul_f64(rand::random());
    if *pace < nap_max { *pace } else { nap_max + SPREAD.mul_f64(rand::random()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state_core::OwnerId;

    use super::{NAP_MAX, NAP_MIN, SPREAD, Turns, nap};

    #[test]
    fn naps_grow_to_their_bound_and_end_with_the_lease() {
        let mut pace = NAP_MIN;
        let naps: Vec<Duration> = (0..10_000).map(|_| nap(&mut pace, Duration::from_secs(60))).collect();
        assert!(naps.iter().all(|nap| (NAP_MIN..=NAP_MAX).contains(nap)));
        assert!(naps.windows(2).all(|pair| pair[1] <= pair[0] * 3 + NAP_MIN));
        let mean = naps.iter().sum::<Duration>() / 10_000;
        assert!((NAP_MAX / 5..NAP_MAX).contains(&mean), "{mean:?}");
        let lease = Duration::from_millis(5);
        assert!((0..100).all(|_| nap(&mut pace, lease) <= lease + SPREAD));
    }

    #[tokio::test]
    async fn turns_of_one_owner_follow_one_another() {
        let turns = Arc::new(Turns::default());
        let owner = OwnerId::draw();
        let first = turns.take(owner).await;
        let other = turns.take(OwnerId::draw()).await;
        let second = turns.take(owner);
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        drop((second.await, other));
        assert!(turns.under_way.lock().is_empty());
    }
}
