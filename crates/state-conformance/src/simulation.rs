//! Many clients of a store in this process, scheduled from a seed, and judged against the reference model after each step.
//!
//! # What it promises
//! The same seed gives the same history, byte for byte: whatever happens is drawn from it, time included. What fails names the
//! seed and the step, and shows the history up to there.
//!
//! # What is judged
//! Every reply, and after every step who holds each lock, with which token and for how long. Waiters are let in in the order in
//! which they came, at the very step that makes room, and none is forgotten: whoever was let in, or whose patience is over, has
//! been woken. A waiter that goes away leaves nothing held, also when it had been let in without having looked.
//!
//! # How it works
//! No task and no thread: the simulation polls the clients' futures itself, and only those that were woken, in an order that the seed decides.
//! It is for stores that hand locks over in order and do everything else at once, without waiting.
//!
//! The store's clock and the clock of patience are moved by the caller, together or one of them alone, which is how a clock
//! jumps. What ends, ends half a unit after a step, so that no two things happen at the same moment.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use acteon_state_core::clock::BootInstant;
use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, ClaimToken, Condition, DueAt, Error, FencingToken, Get, Increment, LockBusy,
    LockGrant, LockMode, LockOutcome, LockRequest, LockState, OwnerId, Put, Result, Schedule, Scope, StateKey,
    StateStore, Ttl, Version,
};

use crate::model::{Answer, Model};
use crate::replay::plain;
use crate::verdict::{Failure, Verdict};

const CLIENTS: usize = 5;
const LOCKS: u64 = 2;
const KEYS: u64 = 3;
/// The model's clock starts here; only differences matter.
const START: Duration = Duration::from_secs(1_000);
const UNIT: Duration = Duration::from_secs(1);
/// Everything a simulated request takes from the seed, it takes as an identifier as well: those that are drawn differ between runs.
const IDENTIFIER_BASE: u128 = 1 << 64;

/// Moves the clocks that a simulated store reads.
pub trait Clocks {
    /// Moves the store's clock and lets the store look at it, then moves the clock by which waiters lose patience and lets
    /// timers fire. Both are forward and may be zero.
    fn advance(&self, store: Duration, patience: Duration) -> impl Future<Output = ()>;
}

/// Runs so many steps of the schedule that `seed` gives, on an empty store. Returns the history.
///
/// # Errors
/// Where the store does not do what the model does.
pub async fn run(store: Arc<dyn StateStore>, clocks: &impl Clocks, seed: u64, steps: u32) -> Verdict<String> {
    let mut simulation = Simulation::new(&*store, seed)?;
    for step in 0..steps {
        let done = simulation.step(&store, clocks, step).await;
        if let Err(failure) = done {
            let history = &simulation.history;
            return Err(Failure::new(format!("seed {seed}, step {step}: {failure}\n  after this:\n{history}")));
        }
    }
    Ok(simulation.history)
}

type Waiting = Pin<Box<dyn Future<Output = Result<LockOutcome>> + Send>>;

struct Simulation {
    random: SplitMix,
    model: Model,
    /// Time on the clock of patience.
    patience: Duration,
    scope: Scope,
    identifiers: u128,
    /// Of each lock, the clients that wait for it.
    lines: [VecDeque<usize>; LOCKS as usize],
    clients: Vec<Client>,
    claims: Vec<(StateKey, String, ClaimToken)>,
    versions: Vec<Version>,
    history: String,
}

#[derive(Default)]
struct Client {
    wait: Option<Wait>,
    /// The last acquisition that was granted, and its lock.
    held: Option<(u64, OwnerId)>,
}

/// A client that waits for a lock.
struct Wait {
    future: Waiting,
    woken: Arc<Woken>,
    lock: u64,
    request: LockRequest,
    gives_up_at: Duration,
    /// By the model it was let in, and the store has this token for it.
    token: Option<FencingToken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sebastiano Vigna's SplitMix64: a schedule must not change with the version of a library.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Some units and a half.
    fn span(&mut self, units_max: u32) -> Duration {
        let units = self.below(u64::from(units_max));
        UNIT * u32::try_from(units).unwrap_or(0) + UNIT / 2
    }
}

impl Simulation {
    fn new(store: &dyn StateStore, seed: u64) -> Verdict<Self> {
        let scope = Scope::new("conformance", "tenant", "simulation").map_err(failed)?;
        if store.lock_semantics().waiting != acteon_state_core::Waiting::FifoHandOff {
            return Err(Failure::new("only a store that hands locks over in order can be simulated"));
        }
        Ok(Self {
            random: SplitMix(seed),
            model: Model::starting_at(START),
            patience: Duration::ZERO,
            scope,
            identifiers: IDENTIFIER_BASE,
            lines: Default::default(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            claims: Vec::new(),
            versions: Vec::new(),
            history: String::new(),
        })
    }

    async fn step(&mut self, store: &Arc<dyn StateStore>, clocks: &impl Clocks, step: u32) -> Verdict {
        let number = usize::try_from(self.random.below(CLIENTS as u64)).unwrap_or(0);
        let _ = write!(self.history, "{step} {:?} client {number} ", self.model.now - START);
        let is_woken = |client: &Client| client.wait.as_ref().is_some_and(|wait| wait.woken.0.load(Ordering::SeqCst));
        match self.random.below(20) {
            0..3 => self.advance(clocks).await,
            // Whoever was woken looks sooner or later, and sometimes too late.
            _ if is_woken(&self.clients[number]) && self.random.below(3) > 0 => self.look(number)?,
            _ if self.clients[number].wait.is_some() => match self.random.below(4) {
                0 => self.cancel(number),
                _ => self.history.push_str("waits"),
            },
            3..9 => self.acquire(store, number).await?,
            9..13 => self.use_lock(&**store, number).await?,
            13..15 => self.due(&**store).await?,
            _ => self.value(&**store).await?,
        }
        for lock in 0..LOCKS {
            self.judge(&**store, lock).await?;
        }
        self.history.push('\n');
        Ok(())
    }

    async fn advance(&mut self, clocks: &impl Clocks) {
        let by = self.random.span(3) + UNIT / 2;
        let (store, patience) = match self.random.below(4) {
            0 => (by, Duration::ZERO),
            1 => (Duration::ZERO, by),
            _ => (by, by),
        };
        clocks.advance(store, patience).await;
        self.model.now += store;
        self.patience += patience;
        let _ = write!(self.history, "moves the clock by {store:?}, patience by {patience:?}");
    }

    fn lock_key(&self, lock: u64) -> Verdict<StateKey> {
        self.scope.key(&format!("lock-{lock}")).map_err(failed)
    }

    fn identifier(&mut self) -> u128 {
        self.identifiers += 1;
        self.identifiers
    }

    /// Asks for a lock, and waits if that takes time.
    async fn acquire(&mut self, store: &Arc<dyn StateStore>, number: usize) -> Verdict {
        let lock = self.random.below(LOCKS);
        let key = self.lock_key(lock)?;
        let mode = match self.random.below(4) {
            0 => LockMode::Shared,
            1 => LockMode::Permit { of: 2 },
            _ => LockMode::Exclusive,
        };
        let wait = if self.random.below(4) == 0 { Duration::ZERO } else { self.random.span(6) };
        let owner = OwnerId::from_u128(self.identifier());
        let request = LockRequest { owner, mode, wait, ..LockRequest::new(key.clone(), self.random.span(8)) };
        let _ =
            write!(self.history, "asks for lock {lock}, {mode:?}, for {:?}, with patience {wait:?}: ", request.lease);
        let (woken, store, sent) = (Arc::new(Woken::default()), store.clone(), request.clone());
        let mut future: Waiting = Box::pin(async move { store.lock_acquire(&sent).await });
        let waker = Waker::from(woken.clone());
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let got = match polled {
            Poll::Ready(outcome) => Some(outcome.map_err(failed)?),
            Poll::Pending => None,
        };
        let is_granted = matches!(got, Some(LockOutcome::Granted(_)));
        if self.lines[lock as usize].is_empty() {
            let outcome = got.unwrap_or_else(|| self.busy(&key));
            let now = self.model.now;
            self.model
                .locks
                .at(&key, now)
                .acquire(&request, now, &outcome)
                .map_err(|expected| wrong(&outcome, &expected))?;
        } else if is_granted {
            return Err(Failure::new("the lock was granted past those who wait for it"));
        }
        match got {
            Some(LockOutcome::Granted(grant)) => {
                let _ = write!(self.history, "token {}", grant.token.get());
                self.clients[number].held = Some((lock, owner));
            }
            Some(LockOutcome::Busy(_)) if !wait.is_zero() => return Err(Failure::new("it did not wait")),
            Some(LockOutcome::Busy(busy)) => {
                let _ = write!(self.history, "busy for {:?}", busy.retry_after);
            }
            None => {
                self.history.push_str("waits");
                self.lines[lock as usize].push_back(number);
                let gives_up_at = self.patience + wait;
                self.clients[number].wait = Some(Wait { future, woken, lock, request, gives_up_at, token: None });
            }
        }
        Ok(())
    }

    /// What somebody who waits was told, as far as the model looks at it.
    fn busy(&mut self, key: &StateKey) -> LockOutcome {
        let holders = &self.model.locks.at(key, self.model.now).holders;
        let token = holders.iter().map(|holder| holder.token).max();
        let token = token.and_then(|token| FencingToken::new(token).ok());
        LockOutcome::Busy(LockBusy { token, retry_after: Duration::ZERO })
    }

    /// A waiter that was woken looks.
    fn look(&mut self, number: usize) -> Verdict {
        let Some(mut wait) = self.clients[number].wait.take() else { return Ok(()) };
        wait.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(wait.woken.clone());
        let polled = wait.future.as_mut().poll(&mut Context::from_waker(&waker));
        self.history.push_str("looks: ");
        match polled {
            Poll::Pending if wait.token.is_some() => Err(Failure::new("it was let in, and goes on waiting")),
            Poll::Pending => {
                self.history.push_str("waits on");
                self.clients[number].wait = Some(wait);
                Ok(())
            }
            Poll::Ready(outcome) => match (outcome.map_err(failed)?, wait.token) {
                (LockOutcome::Granted(grant), Some(token)) if grant.token == token => {
                    let _ = write!(self.history, "token {}", token.get());
                    self.clients[number].held = Some((wait.lock, wait.request.owner));
                    Ok(())
                }
                (LockOutcome::Busy(_), None) if self.patience >= wait.gives_up_at => {
                    self.history.push_str("gives up");
                    self.lines[wait.lock as usize].retain(|waiter| *waiter != number);
                    Ok(())
                }
                (outcome, token) => Err(wrong(&outcome, &format!("token {token:?}, or to go on waiting"))),
            },
        }
    }

    /// A waiter goes away.
    fn cancel(&mut self, number: usize) {
        let Some(wait) = self.clients[number].wait.take() else { return };
        let _ = write!(self.history, "goes away, let in: {}", wait.token.is_some());
        let (now, key) = (self.model.now, &wait.request.key);
        if wait.token.is_some() {
            self.model.locks.at(key, now).withdraw(wait.request.owner);
        }
        self.lines[wait.lock as usize].retain(|waiter| *waiter != number);
        drop(wait.future);
    }

    /// Extends or releases what it held last, or has a lock released by force.
    async fn use_lock(&mut self, store: &dyn StateStore, number: usize) -> Verdict {
        let Some((lock, owner)) = self.clients[number].held else {
            self.history.push_str("has nothing");
            return Ok(());
        };
        let (key, now) = (self.lock_key(lock)?, self.model.now);
        match self.random.below(8) {
            0 => {
                let got = store.lock_force_release(&key, "simulation").await.map_err(failed)?;
                let expected = self.model.locks.at(&key, now).force_release();
                self.compare(&format!("releases lock {lock} by force"), &got, &expected)
            }
            1..4 => {
                let lease = self.random.span(8);
                let got = store.lock_extend(&key, owner, lease).await.map_err(failed)?;
                let expected = self.model.locks.at(&key, now).extend(owner, now + lease);
                self.compare(&format!("extends lock {lock} by {lease:?}"), &got, &expected)
            }
            _ => {
                let got = store.lock_release(&key, owner).await.map_err(failed)?;
                let expected = self.model.locks.at(&key, now).release(owner);
                self.compare(&format!("releases lock {lock}"), &got, &expected)
            }
        }
    }

    async fn value(&mut self, store: &dyn StateStore) -> Verdict {
        let key = self.scope.key(&format!("key-{}", self.random.below(KEYS))).map_err(failed)?;
        let op = self.value_op(key);
        let got = match &op {
            BatchOp::Get(key, get) => store.get(key, *get).await.map(BatchReply::Got),
            BatchOp::Put(key, put) => store.put(key, put).await.map(BatchReply::Put),
            BatchOp::Delete(key, condition) => store.delete(key, *condition).await.map(BatchReply::Deleted),
            BatchOp::Take(key) => store.take(key).await.map(BatchReply::Taken),
            BatchOp::Increment(key, increment) => store.increment(key, *increment).await.map(BatchReply::Incremented),
        };
        let expected = self.expected(&op);
        if let (Ok(BatchReply::Got(got)), Ok(BatchReply::Got(expected))) = (&got, &expected) {
            let ttl = |entry: &Option<acteon_state_core::Entry>| entry.as_ref().and_then(|entry| entry.ttl);
            self.compare("time to live", &ttl(got), &ttl(expected))?;
        }
        let got = got.map(plain).map_err(|error| error.kind());
        self.compare(&format!(" {op:?}"), &got, &expected.map(plain))
    }

    fn value_op(&mut self, key: StateKey) -> BatchOp {
        let ttl = match self.random.below(4) {
            0 => Ttl::Clear,
            1 => Ttl::Keep,
            _ => Ttl::After(self.random.span(5)),
        };
        match self.random.below(8) {
            0..3 => BatchOp::Get(key, Get::with_ttl()),
            3..5 => {
                let condition = self.condition();
                let version = Version::from_u128(self.identifier());
                self.versions.push(version);
                BatchOp::Put(key, Put { version, ..Put::new("value").when(condition).ttl(ttl) })
            }
            5 => BatchOp::Delete(key, Condition::Always),
            6 => BatchOp::Take(key),
            _ => BatchOp::Increment(key, Increment::by(1).at_most(3)),
        }
    }

    fn condition(&mut self) -> Condition {
        match self.random.below(5) {
            0 => Condition::Absent,
            1 => Condition::Present,
            2 => self.versions.last().map_or(Condition::Always, |version| Condition::Version(*version)),
            3 => FencingToken::new(1 + self.random.below(3)).map_or(Condition::Always, Condition::Fence),
            _ => Condition::Always,
        }
    }

    fn expected(&mut self, op: &BatchOp) -> Answer<BatchReply> {
        Ok(match op {
            BatchOp::Get(key, _) => BatchReply::Got(self.model.get(key)),
            BatchOp::Put(key, put) => BatchReply::Put(self.model.put(key, put)?),
            BatchOp::Delete(key, condition) => BatchReply::Deleted(self.model.delete(key, *condition)?),
            BatchOp::Take(key) => BatchReply::Taken(self.model.take(key)),
            BatchOp::Increment(key, increment) => BatchReply::Incremented(self.model.increment(key, increment)?),
        })
    }

    async fn due(&mut self, store: &dyn StateStore) -> Verdict {
        let (queue, now) = (self.scope.key("queue").map_err(failed)?, self.model.now);
        match self.random.below(3) {
            0 => {
                let id = format!("item-{}", self.random.below(KEYS));
                let schedule = Schedule { id, due_at: DueAt::After(self.random.span(4)), payload: "work".into() };
                let got = store.schedule(&queue, &schedule).await.map_err(failed)?;
                let expected = self.model.queues.schedule(&queue, &schedule, now);
                self.compare(&format!("schedules {}", schedule.id), &got, &expected)
            }
            1 => {
                let claim = ClaimDue { limit: 2, visibility: self.random.span(4) };
                let got = store.claim_due(&queue, claim).await.map_err(failed)?;
                let next = self.model.queues.claim(&queue, claim.limit, claim.visibility, now, &got);
                let next = next.map_err(|expected| wrong(&got, &expected))?;
                let items: Vec<_> = got.items.iter().map(|item| (item.id.clone(), item.attempt)).collect();
                let _ = write!(self.history, "claims {items:?}, ");
                self.claims.extend(got.items.into_iter().map(|item| (queue.clone(), item.id, item.token)));
                self.compare("next", &got.next_due_in, &next)
            }
            _ => {
                let Some((queue, id, token)) = self.claims.pop() else {
                    self.history.push_str("has claimed nothing");
                    return Ok(());
                };
                let got = store.ack(&queue, &id, token).await.map_err(failed)?;
                let expected = self.model.queues.ack(&queue, &id, token);
                self.compare(&format!("acknowledges {id}"), &got, &expected)
            }
        }
    }

    /// Lets those in that the model lets in, compares the lock, and sees that nobody sleeps who should not.
    async fn judge(&mut self, store: &dyn StateStore, lock: u64) -> Verdict {
        let key = self.lock_key(lock)?;
        let got = store.lock_inspect(&key).await.map_err(failed)?;
        while let Some(number) = self.lines[lock as usize].front().copied() {
            if !self.let_in(number, got.as_ref())? {
                break;
            }
            self.lines[lock as usize].pop_front();
        }
        let now = self.model.now;
        let model = self.model.locks.at(&key, now);
        let mut expected: Vec<_> = { &model.holders }
            .iter()
            .map(|of| (of.token, of.owner, of.mode, of.expires_at - now, now - of.since))
            .collect();
        expected.sort_by_key(|holder| holder.0);
        let last_token = got.as_ref().map_or(0, |got| got.last_token.get());
        let mut holders: Vec<_> = got
            .into_iter()
            .flat_map(|got| got.holders)
            .map(|of| (of.token.get(), of.owner, of.mode, of.expires_in, of.held_for))
            .collect();
        holders.sort_by_key(|holder| holder.0);
        if (last_token, &holders) != (model.last_token, &expected) {
            return Err(wrong(&(last_token, holders), &format!("{:?}", (model.last_token, expected))));
        }
        self.nobody_oversleeps(lock)
    }

    /// Whether the model lets the first in line in; the store must have done the same.
    fn let_in(&mut self, number: usize, got: Option<&LockState>) -> Verdict<bool> {
        let now = self.model.now;
        let busy = {
            let Some(wait) = &self.clients[number].wait else { return Err(Failure::new("a waiter without a wait")) };
            let key = wait.request.key.clone();
            self.busy(&key)
        };
        let Some(wait) = &mut self.clients[number].wait else { return Ok(false) };
        let held = got.and_then(|got| got.holders.iter().find(|holder| holder.owner == wait.request.owner));
        let outcome = held.map_or(busy, |holder| {
            LockOutcome::Granted(LockGrant { token: holder.token, deadline: BootInstant::now() })
        });
        let lock = self.model.locks.at(&wait.request.key, now);
        lock.acquire(&wait.request, now, &outcome).map_err(|expected| wrong(&outcome, &expected))?;
        wait.token = held.map(|holder| holder.token);
        if held.is_some() {
            let _ = write!(self.history, "; client {number} is let in");
        }
        Ok(held.is_some())
    }

    fn nobody_oversleeps(&self, lock: u64) -> Verdict {
        for (number, client) in self.clients.iter().enumerate() {
            let Some(wait) = client.wait.as_ref().filter(|wait| wait.lock == lock) else { continue };
            let must_look = wait.token.is_some() || self.patience >= wait.gives_up_at;
            if must_look && !wait.woken.0.load(Ordering::SeqCst) {
                return Err(Failure::new(format!("client {number} should look, and was not woken")));
            }
        }
        Ok(())
    }

    fn compare<T: std::fmt::Debug + PartialEq>(&mut self, what: &str, got: &T, expected: &T) -> Verdict {
        let _ = write!(self.history, "{what}: {got:?}");
        if got == expected { Ok(()) } else { Err(wrong(got, &format!("{expected:?}"))) }
    }
}

fn failed(error: Error) -> Failure {
    Failure::new(error.to_string())
}

fn wrong(got: &dyn std::fmt::Debug, expected: &str) -> Failure {
    Failure::new(format!("\n  expected: {expected}\n       got: {got:?}"))
}
