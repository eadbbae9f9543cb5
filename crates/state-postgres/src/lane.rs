//! A lane: where operations of one family wait for the next connection, and travel together as one statement.
//!
//! # Guarantees
//! - An operation is sent at once when a connection is free. Only when all are busy it waits, and then leaves with
//!   everything else that waits in its lane. Nothing is ever held back to make a batch larger.
//! - Operations of one caller on one key are applied in their order, as far as they are of one lane.
//! - What a caller no longer waits for, or not until its deadline, is not sent any more. Who is told that nothing was sent can
//!   rely on it.
//! - A key that is written without pause does not keep others waiting.
//! - At most `queue_max` operations wait; further ones are refused as `Throttled`.
//!
//! # How it works
//! Writes to a key that is under way on another connection are parked until that one has come back, and leave together
//! then: our own connections never wait for each other's row locks, and the hotter a key, the more of its operations share
//! one statement and one commit. A batch is sorted by key, on all nodes alike, so no two of them can deadlock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use acteon_state_core::{Effect, Error, ErrorKind, Result};
use async_trait::async_trait;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{Sent, classify, closed, ends_connection, is_retriable_conflict, timed_out};
use crate::session::Session;
use crate::workers::{Dispatcher, Load, Source, Trip};

/// A statement stays below this, unless a single operation is larger.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a batch is sent again after the server broke it off because of somebody else's transaction.
const CONFLICT_ATTEMPTS_MAX: u32 = 5;

/// A kind of statement that carries many operations.
#[async_trait]
pub(crate) trait Family: Send + Sync + 'static {
    /// One operation, checked before.
    type Op: Send + Sync + 'static;
    /// What comes of it.
    type Reply: Send + 'static;

    /// Whether an unanswered statement may have changed something.
    const SENT: Sent;

    /// The text of the key that an operation is about. Operations on one key never travel in two statements at once.
    /// `None` for those that may.
    fn key(op: &Self::Op) -> Option<&str>;

    /// Roughly how many bytes the operation takes in a statement.
    fn bytes(op: &Self::Op) -> usize;

    /// Runs the operations, which come sorted by key, as one statement. One reply for each, in their order.
    async fn run(&self, session: &mut Session, ops: &[&Self::Op]) -> sqlx::Result<Vec<Result<Self::Reply>>>;
}

/// See the module.
pub(crate) struct Lane<F: Family> {
    family: F,
    // Locked for moving operations in and out, never across an await.
    queue: Mutex<Queue<F>>,
    dispatcher: Arc<Dispatcher>,
    ops_max: usize,
    hasher: RandomState,
}

struct Queue<F: Family> {
    ready: VecDeque<Waiting<F>>,
    /// Keys that are under way, by their hash. Two keys with one hash merely wait for each other.
    under_way: HashMap<u64, UnderWay<F>, RandomState>,
    batches: u64,
}

struct UnderWay<F: Family> {
    /// The number of the batch that the key travels in.
    batch: u64,
    /// What waits for its return.
    parked: VecDeque<Waiting<F>>,
}

struct Waiting<F: Family> {
    op: F::Op,
    key: Option<u64>,
    deadline: Instant,
    is_settled: Settled,
    reply: oneshot::Sender<Result<F::Reply>>,
}

/// The answer to a submitted operation.
pub(crate) struct Answer<F: Family> {
    reply: oneshot::Receiver<Result<F::Reply>>,
    is_settled: Settled,
    deadline: Instant,
}

/// Whether it is settled what becomes of an operation: by the worker that sends it, or by the caller that gives it up. Whoever
/// is first decides, so that nothing is sent after its caller was told that it was not.
type Settled = Arc<AtomicBool>;

impl<F: Family> Lane<F> {
    pub(crate) fn new(family: F, dispatcher: Arc<Dispatcher>, ops_max: usize) -> Arc<Self> {
        let queue =
            Queue { ready: VecDeque::new(), under_way: HashMap::with_hasher(RandomState::default()), batches: 0 };
        Arc::new(Self { family, queue: Mutex::new(queue), dispatcher, ops_max, hasher: RandomState::default() })
    }

    /// Sends an operation and waits for what comes of it.
    pub(crate) async fn submit(&self, op: F::Op) -> Result<F::Reply> {
        let mut answers = self.submit_all([op])?;
        match answers.pop() {
            Some(answer) => answer.wait().await,
            None => Err(closed()),
        }
    }

    /// Sends operations, which leave together where a statement can hold them all.
    pub(crate) fn submit_all(&self, ops: impl IntoIterator<Item = F::Op>) -> Result<Vec<Answer<F>>> {
        let deadline = Instant::now() + self.dispatcher.operation_timeout();
        let mut answers = Vec::new();
        let arrived: Vec<Waiting<F>> = ops
            .into_iter()
            .map(|op| {
                let key = F::key(&op).map(|key| self.hash(key));
                let (waiting, answer) = Waiting::new(op, key, deadline);
                answers.push(answer);
                waiting
            })
            .collect();
        self.dispatcher.admit(arrived.len())?;
        {
            let mut queue = self.queue.lock();
            arrived.into_iter().for_each(|waiting| queue.push(waiting));
        }
        self.dispatcher.wake();
        if self.dispatcher.has_no_workers() {
            // The last of them has looked here before the store was seen to be closed.
            self.refuse(&closed);
        }
        Ok(answers)
    }

    fn hash(&self, key: &str) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one(key)
    }

    /// Ends a batch.
    fn arrive(&self, keys: &[u64]) {
        let is_waiting = {
            let mut queue = self.queue.lock();
            queue.give_back(keys);
            !queue.ready.is_empty()
        };
        if is_waiting {
            self.dispatcher.wake();
        }
    }
}

impl<F: Family> Waiting<F> {
    fn new(op: F::Op, key: Option<u64>, deadline: Instant) -> (Self, Answer<F>) {
        let (reply, receiver) = oneshot::channel();
        let is_settled = Settled::default();
        let answer = Answer { reply: receiver, is_settled: is_settled.clone(), deadline };
        (Self { op, key, deadline, is_settled, reply }, answer)
    }

    /// Settles that it is sent, unless its caller has given it up.
    fn may_be_sent(&self) -> bool {
        !self.is_settled.swap(true, Ordering::AcqRel)
    }
}

impl<F: Family> Queue<F> {
    fn push(&mut self, waiting: Waiting<F>) {
        match waiting.key.and_then(|key| self.under_way.get_mut(&key)) {
            Some(under_way) => under_way.parked.push_back(waiting),
            None => self.ready.push_back(waiting),
        }
    }

    /// Takes what the next statement carries. Returns how many operations left the queue, those that nobody waits for included.
    fn take(&mut self, ops_max: usize, now: Instant) -> (Vec<Waiting<F>>, usize) {
        self.batches += 1;
        let (mut taken, mut left, mut bytes) = (Vec::new(), 0, 0);
        while let Some(waiting) = self.ready.pop_front() {
            if waiting.reply.is_closed() || waiting.deadline <= now {
                // Its caller has left, or is about to learn from its own clock that nothing was sent.
                left += 1;
                continue;
            }
            if taken.len() >= ops_max || (!taken.is_empty() && bytes + F::bytes(&waiting.op) > BATCH_BYTES_MAX) {
                self.ready.push_front(waiting);
                self.park_rest();
                break;
            }
            let Some(waiting) = self.depart(waiting) else { continue };
            bytes += F::bytes(&waiting.op);
            left += 1;
            taken.push(waiting);
        }
        (taken, left)
    }

    /// Marks the key of an operation as under way in the present batch. An operation whose key travels in another is parked.
    fn depart(&mut self, waiting: Waiting<F>) -> Option<Waiting<F>> {
        let Some(key) = waiting.key else { return Some(waiting) };
        let batch = self.batches;
        let under_way = self.under_way.entry(key).or_insert_with(|| UnderWay { batch, parked: VecDeque::new() });
        if under_way.batch == batch {
            return Some(waiting);
        }
        under_way.parked.push_back(waiting);
        None
    }

    /// Keys have come back; what waited for them is ready.
    fn give_back(&mut self, keys: &[u64]) {
        for key in keys {
            if let Some(returned) = self.under_way.remove(key) {
                // Behind all others: in front of them, one key that is written without pause would keep them from leaving.
                // Nothing on the same key is among them.
                self.ready.extend(returned.parked);
            }
        }
    }

    /// Parks what did not fit beside operations on the same key, before later ones can overtake it.
    fn park_rest(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let rest = std::mem::take(&mut self.ready);
        rest.into_iter().for_each(|waiting| self.push(waiting));
    }
}

impl<F: Family> Answer<F> {
    /// # Errors
    /// `Timeout` at the deadline: of unknown effect if the operation was sent.
    pub(crate) async fn wait(mut self) -> Result<F::Reply> {
        self.wait_here().await
    }

    /// The same, for whoever must know afterwards that it was answered. To be called once.
    pub(crate) async fn wait_here(&mut self) -> Result<F::Reply> {
        match tokio::time::timeout_at(self.deadline, &mut self.reply).await {
            Ok(Ok(reply)) => reply,
            // The worker went away with the statement.
            Ok(Err(_)) => {
                let message = "the connection was closed";
                Err(Error::new(ErrorKind::Unavailable, message).with_effect(self.give_up()))
            }
            Err(_) => Err(timed_out(self.give_up())),
        }
    }

    /// Settles that it is not sent, unless it was.
    fn give_up(&self) -> Effect {
        let was_sent = self.is_settled.swap(true, Ordering::AcqRel);
        if was_sent { F::SENT.unanswered() } else { Effect::NotApplied }
    }
}

impl<F: Family> Source for Lane<F> {
    fn take(self: Arc<Self>) -> Option<Box<dyn Load>> {
        let (mut waiting, left) = self.queue.lock().take(self.ops_max, Instant::now());
        self.dispatcher.left(left);
        if waiting.is_empty() {
            return None;
        }
        let keys = unique_keys(&waiting);
        // Stable: operations on one key keep their order.
        waiting.sort_by(|one, other| F::key(&one.op).cmp(&F::key(&other.op)));
        Some(Box::new(Batch { lane: self, waiting, keys }))
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().ready.is_empty()
    }

    fn refuse(&self, why: &dyn Fn() -> Error) {
        let refused = std::mem::take(&mut self.queue.lock().ready);
        self.dispatcher.left(refused.len());
        for waiting in refused {
            // A caller that has left needs no answer.
            let _ = waiting.reply.send(Err(why()));
        }
    }
}

fn unique_keys<F: Family>(waiting: &[Waiting<F>]) -> Vec<u64> {
    let mut keys: Vec<u64> = waiting.iter().filter_map(|waiting| waiting.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Operations under way. Dropping it frees their keys.
struct Batch<F: Family> {
    lane: Arc<Lane<F>>,
    waiting: Vec<Waiting<F>>,
    keys: Vec<u64>,
}

#[async_trait]
impl<F: Family> Load for Batch<F> {
    fn ops(&self) -> usize {
        self.waiting.len()
    }

    async fn run(mut self: Box<Self>, session: &mut Session) -> Trip {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(Waiting::may_be_sent);
        let mut attempt = 1;
        let outcome = loop {
            if waiting.is_empty() {
                return Trip::Returned;
            }
            let ops: Vec<&F::Op> = waiting.iter().map(|waiting| &waiting.op).collect();
            match self.lane.family.run(session, &ops).await {
                Err(error) if attempt < CONFLICT_ATTEMPTS_MAX && is_retriable_conflict(&error) => attempt += 1,
                outcome => break outcome,
            }
            // Nothing of it was done. Who has left since gets nothing done any more.
            waiting.retain(|waiting| !waiting.reply.is_closed());
        };
        // The keys are free before the callers go on: what they send next finds the connection it needs.
        drop(self);
        match outcome {
            Ok(replies) => {
                for (waiting, reply) in waiting.into_iter().zip(replies) {
                    let _ = waiting.reply.send(reply);
                }
                Trip::Returned
            }
            Err(error) => {
                let is_lost = ends_connection(&error);
                let error = classify(error, F::SENT);
                for waiting in waiting {
                    let copy = Error::new(error.kind(), error.message().to_owned()).with_effect(error.effect());
                    let _ = waiting.reply.send(Err(copy));
                }
                if is_lost { Trip::Lost(error) } else { Trip::Returned }
            }
        }
    }
}

impl<F: Family> Drop for Batch<F> {
    fn drop(&mut self) {
        self.lane.arrive(&self.keys);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::{Effect, ErrorKind, Result};
    use async_trait::async_trait;
    use foldhash::fast::RandomState;
    use hashbrown::HashMap;
    use tokio::time::Instant;

    use super::{Answer, BATCH_BYTES_MAX, Family, Queue, Waiting};
    use crate::error::Sent;
    use crate::session::Session;

    /// Operations that are a key, a number and a size. Nothing here sends them.
    struct Numbers;

    #[async_trait]
    impl Family for Numbers {
        type Op = (&'static str, u32, usize);
        type Reply = ();

        const SENT: Sent = Sent::Write;

        fn key(op: &Self::Op) -> Option<&str> {
            Some(op.0)
        }

        fn bytes(op: &Self::Op) -> usize {
            op.2
        }

        async fn run(&self, _: &mut Session, ops: &[&Self::Op]) -> sqlx::Result<Vec<Result<()>>> {
            Ok(ops.iter().map(|_| Ok(())).collect())
        }
    }

    struct Bench {
        queue: Queue<Numbers>,
        callers: Vec<Answer<Numbers>>,
    }

    impl Bench {
        fn new() -> Self {
            let under_way = HashMap::with_hasher(RandomState::default());
            Self { queue: Queue { ready: Default::default(), under_way, batches: 0 }, callers: Vec::new() }
        }

        fn push(&mut self, key: &'static str, number: u32) {
            self.push_sized(key, number, 1, Instant::now() + Duration::from_secs(60));
        }

        fn push_sized(&mut self, key: &'static str, number: u32, bytes: usize, deadline: Instant) {
            let hash = key.bytes().fold(0, |hash, byte| hash * 31 + u64::from(byte));
            let (waiting, caller) = Waiting::new((key, number, bytes), Some(hash), deadline);
            self.callers.push(caller);
            self.queue.push(waiting);
        }

        fn take(&mut self, ops_max: usize) -> Vec<(u32, u64)> {
            let (taken, _) = self.queue.take(ops_max, Instant::now());
            taken.iter().map(|waiting| (waiting.op.1, waiting.key.unwrap())).collect()
        }

        fn numbers(&mut self, ops_max: usize) -> Vec<u32> {
            self.take(ops_max).into_iter().map(|(number, _)| number).collect()
        }
    }

    #[test]
    fn what_waits_leaves_together_up_to_the_limits() {
        let mut bench = Bench::new();
        for (number, key) in (0..).zip(["a", "b", "c"]) {
            bench.push(key, number);
        }
        assert_eq!(bench.numbers(2), [0, 1]);
        assert_eq!(bench.numbers(2), [2]);
        let deadline = Instant::now() + Duration::from_secs(60);
        for (number, key) in (3..).zip(["d", "e"]) {
            bench.push_sized(key, number, BATCH_BYTES_MAX, deadline);
        }
        assert_eq!(bench.numbers(9), [3], "one that fills a statement leaves alone");
        assert_eq!(bench.numbers(9), [4]);
    }

    #[test]
    fn a_key_that_is_under_way_keeps_what_follows_in_order() {
        let mut bench = Bench::new();
        for (number, key) in (0..).zip(["a", "a", "a", "b"]) {
            bench.push(key, number);
        }
        assert_eq!(bench.numbers(2), [0, 1]);
        // One more, after the one that did not fit.
        bench.push("a", 4);
        assert_eq!(bench.numbers(9), [3], "only the other key may leave on another connection");
        let parked = bench.queue.under_way.values().map(|under_way| under_way.parked.len()).sum::<usize>();
        assert_eq!(parked, 2);
        let key_a = u64::from(b'a');
        bench.queue.give_back(&[key_a]);
        assert_eq!(bench.numbers(9), [2, 4]);
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent() {
        let mut bench = Bench::new();
        bench.push("a", 0);
        bench.push("b", 1);
        bench.push_sized("c", 2, 1, Instant::now() - Duration::from_millis(1));
        bench.callers.remove(0);
        let (taken, left) = bench.queue.take(9, Instant::now());
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].op.1, 1);
        assert_eq!(left, 3, "all of them left the queue");
    }

    #[test]
    fn a_key_that_is_always_busy_does_not_keep_others_waiting() {
        let mut bench = Bench::new();
        for number in 0..4 {
            bench.push("a", number);
        }
        assert_eq!(bench.numbers(2), [0, 1]);
        bench.push("b", 4);
        bench.push("a", 5);
        bench.queue.give_back(&[u64::from(b'a')]);
        assert_eq!(
            bench.numbers(2),
            [4, 2],
            "as many on the one key as fit would leave alone otherwise, time and again"
        );
    }

    #[tokio::test]
    async fn who_is_told_that_nothing_was_sent_can_rely_on_it() {
        let late = Instant::now();
        // A worker has taken it, and the deadline passes before it is sent.
        let (waiting, answer) = Waiting::<Numbers>::new(("a", 0, 1), None, late);
        let error = answer.wait().await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied));
        assert!(!waiting.may_be_sent());

        let (waiting, answer) = Waiting::<Numbers>::new(("a", 0, 1), None, late);
        assert!(waiting.may_be_sent());
        assert_eq!(answer.wait().await.unwrap_err().effect(), Effect::Unknown);
    }
}
