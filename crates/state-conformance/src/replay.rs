//! Carries out a random sequence on a driver and on the model, and compares every reply.
//!
//! # Time
//! Steps happen at whole units of time, and whatever ends, ends half a unit later: so it does not matter to either side that
//! a step takes a moment. On a real clock the steps of one unit must be done within a quarter of it; when the machine was too
//! busy for that, the sequence is [`End::Disturbed`] and says nothing. Durations in replies are compared with half a unit of tolerance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use acteon_state_core::{
    BatchOp, BatchReply, ClaimDue, ClaimToken, Condition, Counter, Counting, Decision, DeleteOutcome, DueAt, Entry,
    Error, FencingToken, Gate, GateReply, Get, Increment, IncrementOutcome, LockMode, LockOutcome, LockRequest,
    LockState, OwnerId, Put, PutOutcome, RateAlgorithm, RateLimit, Scan, Schedule, Scope, StateKey, TransactOp,
    TransactOutcome, TransactScope, Ttl, Version,
};

use crate::factory::Time;
use crate::lab::Lab;
use crate::model::{Answer, Model};
use crate::steps::{Due, Hurdle, Life, NAMES, Single, Step, When, Window};

/// Longer than any sequence: what does not refill within it counts exactly.
const UNITS_FAR: u32 = 100_000;
/// Long after the times in the past that items are scheduled for.
const MODEL_START: Duration = Duration::from_secs(1_000_000);
/// What whole milliseconds may add or take on a manual clock.
const MANUAL_TOLERANCE: Duration = Duration::from_millis(2);
const FIXED_LIMIT: u64 = 3;
const GCRA_LIMIT: u32 = 10;

/// Why a sequence ended before its last step.
#[derive(Debug)]
pub(crate) enum End {
    /// Driver and model disagree.
    Mismatch(String),
    /// The machine was too busy to keep the time.
    Disturbed,
}

type Compared = Result<(), End>;

/// One sequence under way.
pub(crate) struct Replay<'a> {
    lab: &'a Lab,
    scope: Scope,
    unit: Duration,
    tolerance: Duration,
    started: Instant,
    model: Model,
    /// Of each key, the versions that were drawn for it, the newest last.
    versions: BTreeMap<u8, Vec<Version>>,
    claims: Vec<(StateKey, String, ClaimToken)>,
    owners: BTreeMap<(u8, u8), OwnerId>,
    turn: usize,
}

impl<'a> Replay<'a> {
    /// A sequence in a scope that was never used, with units of this length.
    pub(crate) fn new(lab: &'a Lab, scope: Scope, unit: Duration) -> Self {
        let tolerance = if lab.time() == Time::Manual { MANUAL_TOLERANCE } else { unit / 2 };
        Self {
            lab,
            scope,
            unit,
            tolerance,
            started: Instant::now(),
            model: Model::starting_at(MODEL_START),
            versions: BTreeMap::new(),
            claims: Vec::new(),
            owners: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Carries out all steps.
    pub(crate) async fn run(mut self, steps: &[Step]) -> Compared {
        for (at, step) in steps.iter().enumerate() {
            self.turn = at;
            let compared = self.step(step).await;
            // First: a late reply proves nothing, whatever it says.
            self.in_time()?;
            compared.map_err(|end| match end {
                End::Mismatch(text) => End::Mismatch(format!("step {at}, {step:?}: {text}")),
                End::Disturbed => End::Disturbed,
            })?;
        }
        Ok(())
    }

    fn in_time(&self) -> Compared {
        let elapsed = self.model.now - MODEL_START;
        let late = self.lab.time() == Time::Real && self.started.elapsed() > elapsed + self.unit / 4;
        if late { Err(End::Disturbed) } else { Ok(()) }
    }

    async fn advance(&mut self, units: u8) {
        let by = self.unit * u32::from(units);
        self.model.now += by;
        let by = match self.lab.time() {
            Time::Manual => by,
            Time::Real => (self.model.now - MODEL_START).saturating_sub(self.started.elapsed()),
        };
        self.lab.advance(by).await;
    }

    fn span(&self, units: u8) -> Duration {
        self.unit * u32::from(units) + self.unit / 2
    }

    fn key(&self, name: u8) -> StateKey {
        // Two groups, so that listings by prefix leave some out.
        self.scope.key(&format!("{}-{name}", ["a", "b"][usize::from(name % 2)])).expect("the kit's ids are valid")
    }

    async fn step(&mut self, step: &Step) -> Compared {
        let capabilities = self.lab.capabilities().clone();
        match step {
            Step::Advance { units } => self.advance(*units).await,
            Step::Single(single) if self.supported(single) => self.single(single).await?,
            Step::Touch { key, ttl } => self.touch(*key, *ttl).await?,
            Step::Batch(singles) => self.batch(singles).await?,
            Step::Transact(singles) if capabilities.transact.is_some() => self.transact(singles).await?,
            Step::Scan { page_size, entries, prefix } if capabilities.scan => {
                self.scan(*page_size, *entries, *prefix).await?;
            }
            Step::RateLimit { key, algorithm, cost } if capabilities.rate_limits => {
                self.rate_limit(*key, *algorithm, *cost).await?;
            }
            Step::Admit(hurdles) if capabilities.gates => self.admit(hurdles).await?,
            step if capabilities.due => self.due_step(step).await?,
            _ => {}
        }
        if capabilities.locks { self.lock_step(step).await } else { Ok(()) }
    }

    fn supported(&self, single: &Single) -> bool {
        let capabilities = self.lab.capabilities();
        match single {
            Single::Increment { .. } => capabilities.counters,
            Single::Put { condition, .. } | Single::Delete { condition, .. } => match condition {
                When::Version { .. } => capabilities.cas,
                When::Fence { .. } => capabilities.fencing,
                _ => true,
            },
            Single::Get { .. } | Single::Take { .. } => true,
        }
    }

    fn condition(&self, key: u8, when: When) -> Condition {
        match when {
            When::Always => Condition::Always,
            When::Absent => Condition::Absent,
            When::Present => Condition::Present,
            When::Version { back } => {
                let drawn = self.versions.get(&key).and_then(|drawn| drawn.iter().rev().nth(usize::from(back)));
                Condition::Version(drawn.copied().unwrap_or_else(Version::draw))
            }
            When::Fence { token } => {
                Condition::Fence(FencingToken::new(u64::from(token)).expect("tokens are drawn from 1 on"))
            }
        }
    }

    fn ttl(&self, life: Life) -> Ttl {
        match life {
            Life::Keep => Ttl::Keep,
            Life::Clear => Ttl::Clear,
            Life::Units(units) => Ttl::After(self.span(units)),
        }
    }

    fn increment(&self, delta: i64, bound: Option<i64>, clamped: bool, window: Window) -> Increment {
        let mut increment = Increment::by(delta);
        if let Some(bound) = bound {
            increment = increment.at_most(bound).at_least(-bound);
        }
        let window = match window {
            Window::Unlimited => Counting::Unlimited,
            Window::OnCreate(units) => Counting::OnCreate(self.span(units)),
            Window::Refresh(units) => Counting::Refresh(self.span(units)),
        };
        if clamped { increment.clamped().window(window) } else { increment.window(window) }
    }

    fn request(&mut self, single: &Single) -> BatchOp {
        match *single {
            Single::Get { key, with_ttl } => BatchOp::Get(self.key(key), Get { with_ttl, ..Get::default() }),
            Single::Put { key, condition, ttl } => {
                let put = Put::new(format!("value {}", self.turn));
                let put = put.when(self.condition(key, condition)).ttl(self.ttl(ttl));
                self.versions.entry(key).or_default().push(put.version);
                BatchOp::Put(self.key(key), put)
            }
            Single::Delete { key, condition } => BatchOp::Delete(self.key(key), self.condition(key, condition)),
            Single::Take { key } => BatchOp::Take(self.key(key)),
            Single::Increment { key, delta, bound, clamped, window } => {
                BatchOp::Increment(self.key(key), self.increment(delta, bound, clamped, window))
            }
        }
    }

    async fn single(&mut self, single: &Single) -> Compared {
        let op = self.request(single);
        let store = self.lab.handle(self.turn).clone();
        let got = match &op {
            BatchOp::Get(key, get) => store.get(key, *get).await.map(BatchReply::Got),
            BatchOp::Put(key, put) => store.put(key, put).await.map(BatchReply::Put),
            BatchOp::Delete(key, condition) => store.delete(key, *condition).await.map(BatchReply::Deleted),
            BatchOp::Take(key) => store.take(key).await.map(BatchReply::Taken),
            BatchOp::Increment(key, increment) => store.increment(key, *increment).await.map(BatchReply::Incremented),
        };
        let expected = self.expect(&op);
        self.same_reply(got, expected)
    }

    fn expect(&mut self, op: &BatchOp) -> Answer<BatchReply> {
        Ok(match op {
            BatchOp::Get(key, get) => {
                let entry = self.model.get(key);
                BatchReply::Got(if get.with_ttl { entry } else { entry.map(without_ttl) })
            }
            BatchOp::Put(key, put) => BatchReply::Put(self.model.put(key, put)?),
            BatchOp::Delete(key, condition) => BatchReply::Deleted(self.model.delete(key, *condition)?),
            BatchOp::Take(key) => BatchReply::Taken(self.model.take(key)),
            BatchOp::Increment(key, increment) => BatchReply::Incremented(self.model.increment(key, increment)?),
        })
    }

    /// Durations are compared with tolerance; those of entries that only come along are not compared.
    fn same_reply(&self, got: Result<BatchReply, Error>, expected: Answer<BatchReply>) -> Compared {
        if let (Ok(BatchReply::Got(got)), Ok(BatchReply::Got(expected))) = (&got, &expected) {
            let ttl = |entry: &Option<Entry>| entry.as_ref().and_then(|entry| entry.ttl);
            self.close("ttl", ttl(got), ttl(expected))?;
        }
        if let (Ok(BatchReply::Incremented(got)), Ok(BatchReply::Incremented(expected))) = (&got, &expected) {
            self.close("time to reset", got.counter().resets_after, expected.counter().resets_after)?;
        }
        same("reply", &got.map(plain).map_err(|error| error.kind()), &expected.map(plain))
    }

    fn close(&self, what: &str, got: Option<Duration>, expected: Option<Duration>) -> Compared {
        let agree = match (got, expected) {
            (Some(got), Some(expected)) => got.abs_diff(expected) <= self.tolerance,
            (got, expected) => got == expected,
        };
        if agree { Ok(()) } else { Err(mismatch(what, &got, &expected)) }
    }

    async fn touch(&mut self, key: u8, ttl: Life) -> Compared {
        let (key, ttl) = (self.key(key), self.ttl(ttl));
        let got = self.lab.handle(self.turn).touch(&key, ttl).await;
        let expected = self.model.touch(&key, ttl);
        same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
    }

    async fn batch(&mut self, singles: &[Single]) -> Compared {
        let chosen = self.on_different_keys(singles.iter());
        let ops: Vec<BatchOp> = chosen.into_iter().map(|single| self.request(single)).collect();
        let got =
            self.lab.handle(self.turn).batch(&ops).await.map_err(|error| mismatch("batch", &error, &"replies"))?;
        same("number of replies", &got.len(), &ops.len())?;
        for (op, got) in ops.iter().zip(got) {
            let expected = self.expect(op);
            self.same_reply(got, expected)?;
        }
        Ok(())
    }

    /// The operations are independent of each other only on different keys.
    fn on_different_keys<'s>(&self, singles: impl Iterator<Item = &'s Single>) -> Vec<&'s Single> {
        let mut keys = BTreeSet::new();
        singles.filter(|single| self.supported(single) && keys.insert(single.key())).collect()
    }

    async fn transact(&mut self, singles: &[(bool, Single)]) -> Compared {
        let mut chosen = self.on_different_keys(singles.iter().map(|(_, single)| single));
        let limits = self.lab.capabilities().transact;
        if limits.is_none_or(|limits| limits.scope == TransactScope::OneKey) {
            chosen.truncate(1);
        }
        let checks: Vec<bool> = singles.iter().map(|(check, _)| *check).collect();
        let ops: Vec<TransactOp> =
            chosen.into_iter().zip(checks).filter_map(|(single, check)| self.transact_op(single, check)).collect();
        if ops.is_empty() {
            return Ok(());
        }
        let got = self.lab.handle(self.turn).transact(&ops).await;
        let expected = self.model.transact(&ops);
        same("outcome", &got.map(plain_outcome).map_err(|error| error.kind()), &expected.map(plain_outcome))
    }

    fn transact_op(&mut self, single: &Single, check: bool) -> Option<TransactOp> {
        match self.request(single) {
            BatchOp::Put(key, put) if check => Some(TransactOp::Check(key, put.condition)),
            BatchOp::Put(key, put) => Some(TransactOp::Put(key, put)),
            BatchOp::Delete(_, Condition::Absent) | BatchOp::Get(..) | BatchOp::Take(_) => None,
            BatchOp::Delete(key, condition) => Some(TransactOp::Delete(key, condition)),
            BatchOp::Increment(key, increment) => {
                Some(TransactOp::Increment(key, Increment { at_bound: Default::default(), ..increment }))
            }
        }
    }

    async fn scan(&mut self, page_size: u8, entries: bool, prefix: bool) -> Compared {
        let id_prefix = if prefix { "a-" } else { "" };
        let mut scan = Scan::new(self.scope.clone()).id_prefix(id_prefix).page_size(u32::from(page_size));
        if entries {
            scan = scan.with_entries();
        }
        let store = self.lab.handle(self.turn).clone();
        let pages = crate::cases::scan::pages(&*store, scan).await;
        let pages = pages.map_err(|failure| End::Mismatch(failure.to_string()))?;
        let got: BTreeMap<StateKey, Option<Entry>> =
            pages.into_iter().flatten().map(|item| (item.key, item.entry.map(without_ttl))).collect();
        let found = self.model.scan(&format!("{}{id_prefix}", self.scope.text()));
        let expected = found.into_iter().map(|(key, entry)| (key, entries.then(|| without_ttl(entry)))).collect();
        same("keys and entries", &got, &expected)
    }

    async fn rate_limit(&mut self, key: u8, algorithm: u8, cost: u8) -> Compared {
        let (key, request) = (self.key(key), self.limit(algorithm, cost));
        let got = self.lab.handle(self.turn).rate_limit(&key, &request).await;
        let got = got.map_err(|error| mismatch("decision", &error, &"a decision"))?;
        self.same_decision(&key, &request, got)
    }

    fn limit(&self, algorithm: u8, cost: u8) -> RateLimit {
        match algorithm {
            0 => RateLimit::fixed_window(FIXED_LIMIT, self.span(2)),
            1 => RateLimit::sliding_window(FIXED_LIMIT, self.span(2)),
            _ => RateLimit::new(RateAlgorithm::Gcra { burst: FIXED_LIMIT }, u64::from(GCRA_LIMIT), self.gcra_window()),
        }
        .cost(u64::from(cost).min(FIXED_LIMIT))
    }

    fn same_decision(&mut self, key: &StateKey, request: &RateLimit, got: Decision) -> Compared {
        let expected = self.model.rates.ask(key, request, self.model.now);
        let plain = |decision: Decision| (decision.allowed, decision.limit, decision.remaining);
        same("allowed, limit and remaining", &plain(got), &plain(expected))?;
        self.close("reset_after", Some(got.reset_after), Some(expected.reset_after))?;
        self.close("retry_after", got.retry_after, expected.retry_after)
    }

    /// What the model does one by one, until a gate does not let pass.
    async fn admit(&mut self, hurdles: &[Hurdle]) -> Compared {
        let gates = self.gates(hurdles);
        let store = self.lab.handle(self.turn).clone();
        let mut replies = crate::cases::gates::ask(&*store, &gates).await.into_iter();
        for gate in &gates {
            let Some(reply) = replies.next() else { return Err(mismatch("reply", &"none", gate)) };
            let passes = reply.as_ref().is_ok_and(GateReply::passes);
            self.same_gate(gate, reply)?;
            if !passes {
                break;
            }
        }
        same("replies after a gate that did not let pass", &replies.len(), &0)
    }

    fn gates(&mut self, hurdles: &[Hurdle]) -> Vec<Gate> {
        let (mut gates, mut lock) = (Vec::new(), None);
        for hurdle in hurdles {
            match *hurdle {
                Hurdle::Put { key, condition, ttl } => {
                    let single = Single::Put { key, condition, ttl };
                    if self.supported(&single)
                        && let BatchOp::Put(key, put) = self.request(&single)
                    {
                        gates.push(Gate::Put(key, put));
                    }
                }
                Hurdle::RateLimit { key, algorithm, cost } if self.lab.capabilities().rate_limits => {
                    gates.push(Gate::RateLimit(self.key(key), self.limit(algorithm, cost)));
                }
                Hurdle::Lock { lock: name, owner, mode, units } if self.lab.capabilities().locks => {
                    lock = Some(self.acquire_request(name, owner, mode, units));
                }
                Hurdle::RateLimit { .. } | Hurdle::Lock { .. } => {}
            }
        }
        gates.extend(lock.map(Gate::Lock));
        gates
    }

    fn same_gate(&mut self, gate: &Gate, got: Result<GateReply, Error>) -> Compared {
        match (gate, got) {
            (Gate::Put(key, put), got) => {
                let got = got.map(|reply| match reply {
                    GateReply::Put(outcome) => BatchReply::Put(outcome),
                    GateReply::RateLimit(_) | GateReply::Lock(_) => BatchReply::Got(None),
                });
                let expected = self.expect(&BatchOp::Put(key.clone(), put.clone()));
                self.same_reply(got, expected)
            }
            (Gate::RateLimit(key, request), Ok(GateReply::RateLimit(got))) => self.same_decision(key, request, got),
            (Gate::Lock(request), Ok(GateReply::Lock(got))) => self.same_outcome(request, got),
            (gate, got) => Err(mismatch("reply", &got, gate)),
        }
    }

    /// Each request is worth one and a half units, where time is exact; otherwise nothing refills within a sequence.
    fn gcra_window(&self) -> Duration {
        match self.lab.time() {
            Time::Manual => self.span(1) * GCRA_LIMIT,
            Time::Real => self.unit * UNITS_FAR,
        }
    }

    async fn due_step(&mut self, step: &Step) -> Compared {
        match *step {
            Step::Schedule { queue, id, due } => {
                let due_at = match due {
                    Due::Now => DueAt::After(Duration::ZERO),
                    Due::Past(at_ms) => DueAt::UnixMs(u64::from(at_ms)),
                    Due::Units(units) => DueAt::After(self.span(units)),
                };
                let payload = format!("payload {}", self.turn).into();
                let schedule = Schedule { id: item(id), due_at, payload };
                let queue = self.key(queue);
                let got = self.lab.handle(self.turn).schedule(&queue, &schedule).await;
                let expected = self.model.queues.schedule(&queue, &schedule, self.model.now);
                same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            Step::Cancel { queue, id } => {
                let queue = self.key(queue);
                let got = self.lab.handle(self.turn).cancel(&queue, &item(id)).await;
                let expected = self.model.queues.cancel(&queue, &item(id));
                same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            Step::Claim { queue, limit, units } => self.claim(queue, u32::from(limit), units).await,
            Step::Ack { claim } => {
                let Some((queue, id, token)) = self.claim_named(claim) else { return Ok(()) };
                let got = self.lab.handle(self.turn).ack(&queue, &id, token).await;
                let expected = self.model.queues.ack(&queue, &id, token);
                same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            Step::ExtendClaim { claim, units } => {
                let Some((queue, id, token)) = self.claim_named(claim) else { return Ok(()) };
                let visibility = self.span(units);
                let got = self.lab.handle(self.turn).extend_claim(&queue, &id, token, visibility).await;
                let expected = self.model.queues.extend(&queue, &id, token, self.model.now + visibility);
                same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            _ => Ok(()),
        }
    }

    /// A claim that was made before, counted from the last one.
    fn claim_named(&self, back: u8) -> Option<(StateKey, String, ClaimToken)> {
        self.claims.iter().rev().nth(usize::from(back)).cloned()
    }

    async fn claim(&mut self, queue: u8, limit: u32, units: u8) -> Compared {
        let (queue, visibility) = (self.key(queue), self.span(units));
        let got = self.lab.handle(self.turn).claim_due(&queue, ClaimDue { limit, visibility }).await;
        let got = got.map_err(|error| mismatch("claim", &error, &"items"))?;
        let next = self.model.queues.claim(&queue, limit, visibility, self.model.now, &got);
        let next = next.map_err(|expected| mismatch("claim", &got, &format_args!("{expected}")))?;
        self.claims.extend(got.items.into_iter().map(|item| (queue.clone(), item.id, item.token)));
        self.close("time until the next item", got.next_due_in, next)
    }

    async fn lock_step(&mut self, step: &Step) -> Compared {
        match *step {
            Step::LockAcquire { lock, owner, mode, units } => self.lock_acquire(lock, owner, mode, units).await,
            Step::LockExtend { lock, owner, units } => {
                let (key, owner, lease) = (self.key(lock), self.owner(lock, owner), self.span(units));
                let got = self.lab.handle(self.turn).lock_extend(&key, owner, lease).await;
                let expected = self.model.locks.at(&key, self.model.now).extend(owner, self.model.now + lease);
                same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            Step::LockRelease { lock, owner } => {
                let (key, owner) = (self.key(lock), self.owner(lock, owner));
                let got = self.lab.handle(self.turn).lock_release(&key, owner).await;
                let expected = self.model.locks.at(&key, self.model.now).release(owner);
                same("reply", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            Step::LockInspect { lock } => {
                let key = self.key(lock);
                let got = self.lab.handle(self.turn).lock_inspect(&key).await;
                let got = got.map_err(|error| mismatch("state", &error, &"a state"))?;
                self.same_lock(&key, got)
            }
            Step::LockForceRelease { lock } => {
                let key = self.key(lock);
                let got = self.lab.handle(self.turn).lock_force_release(&key, "conformance").await;
                let expected = self.model.locks.at(&key, self.model.now).force_release();
                same("leases ended", &got.map_err(|error| error.kind()), &Ok(expected))
            }
            Step::LockList if self.lab.capabilities().scan => {
                let page = self.lab.handle(self.turn).lock_list(&Scan::new(self.scope.clone())).await;
                let page = page.map_err(|error| mismatch("list", &error, &"a page"))?;
                let mut got: Vec<StateKey> = page.items.into_iter().map(|state| state.key).collect();
                got.sort_unstable();
                same("locks", &got, &self.model.locks.names())
            }
            _ => Ok(()),
        }
    }

    fn owner(&mut self, lock: u8, owner: u8) -> OwnerId {
        *self.owners.entry((lock, owner % NAMES)).or_insert_with(OwnerId::draw)
    }

    async fn lock_acquire(&mut self, lock: u8, owner: u8, mode: u8, units: u8) -> Compared {
        let request = self.acquire_request(lock, owner, mode, units);
        let got = self.lab.handle(self.turn).lock_acquire(&request).await;
        let got = got.map_err(|error| mismatch("grant", &error, &"an outcome"))?;
        self.same_outcome(&request, got)
    }

    fn acquire_request(&mut self, lock: u8, owner: u8, mode: u8, units: u8) -> LockRequest {
        let capabilities = self.lab.capabilities();
        let mode = match mode {
            1 if capabilities.shared_locks => LockMode::Shared,
            2 if capabilities.semaphores => LockMode::Permit { of: 2 },
            _ => LockMode::Exclusive,
        };
        let (key, lease) = (self.key(lock), self.span(units));
        LockRequest { owner: self.acquisition(lock, owner), mode, ..LockRequest::new(key, lease) }
    }

    fn same_outcome(&mut self, request: &LockRequest, got: LockOutcome) -> Compared {
        let now = self.model.now;
        let busy_for = self.model.locks.at(&request.key, now).acquire(request, now, &got);
        let busy_for = busy_for.map_err(|expected| mismatch("outcome", &got, &format_args!("{expected}")))?;
        match got {
            LockOutcome::Busy(busy) => self.close("retry_after", Some(busy.retry_after), busy_for),
            LockOutcome::Granted(_) => Ok(()),
        }
    }

    /// An owner names one acquisition: it asks again while it holds the lock or just after it released it, to see that it
    /// is recognised, and is drawn anew otherwise.
    fn acquisition(&mut self, lock: u8, owner: u8) -> OwnerId {
        let (key, now) = (self.key(lock), self.model.now);
        let known = self.owner(lock, owner);
        let state = self.model.locks.at(&key, now);
        if state.last_release == Some(known) || state.holders.iter().any(|holder| holder.owner == known) {
            return known;
        }
        let fresh = OwnerId::draw();
        self.owners.insert((lock, owner % NAMES), fresh);
        fresh
    }

    fn same_lock(&mut self, key: &StateKey, got: Option<LockState>) -> Compared {
        let now = self.model.now;
        let lock = self.model.locks.at(key, now);
        let (last_token, mut expected) = (lock.last_token, lock.holders.clone());
        let Some(got) = got else {
            return same("last token of a lock that is not there", &0, &last_token);
        };
        same("last token", &got.last_token.get(), &last_token)?;
        expected.sort_by_key(|holder| holder.token);
        let mut holders = got.holders;
        holders.sort_by_key(|holder| holder.token);
        let got: Vec<_> = holders.iter().map(|holder| (holder.owner, holder.mode, holder.token.get())).collect();
        let plain: Vec<_> = expected.iter().map(|holder| (holder.owner, holder.mode, holder.token)).collect();
        same("holders", &got, &plain)?;
        for (got, expected) in holders.iter().zip(&expected) {
            self.close("remaining lease", Some(got.expires_in), Some(expected.expires_at - now))?;
            self.close("time held", Some(got.held_for), Some(now - expected.since))?;
        }
        Ok(())
    }
}

fn item(id: u8) -> String {
    format!("item-{id}")
}

fn mismatch(what: &str, got: &dyn Debug, expected: &dyn Debug) -> End {
    End::Mismatch(format!("{what}\n  expected: {expected:?}\n       got: {got:?}"))
}

fn same<T: Debug + PartialEq>(what: &str, got: &T, expected: &T) -> Compared {
    if got == expected { Ok(()) } else { Err(mismatch(what, got, expected)) }
}

fn without_ttl(entry: Entry) -> Entry {
    Entry { ttl: None, ..entry }
}

/// The reply without times to live that only come along.
pub(crate) fn plain(reply: BatchReply) -> BatchReply {
    let timeless = |counter: Counter| Counter { resets_after: None, ..counter };
    match reply {
        BatchReply::Got(entry) => BatchReply::Got(entry.map(without_ttl)),
        BatchReply::Taken(entry) => BatchReply::Taken(entry.map(without_ttl)),
        BatchReply::Put(PutOutcome::NotMet(entry)) => BatchReply::Put(PutOutcome::NotMet(entry.map(without_ttl))),
        BatchReply::Deleted(DeleteOutcome::NotMet(entry)) => {
            BatchReply::Deleted(DeleteOutcome::NotMet(without_ttl(entry)))
        }
        BatchReply::Incremented(outcome) => BatchReply::Incremented(match outcome {
            IncrementOutcome::Applied(counter) => IncrementOutcome::Applied(timeless(counter)),
            IncrementOutcome::Clamped(counter) => IncrementOutcome::Clamped(timeless(counter)),
            IncrementOutcome::Refused(counter) => IncrementOutcome::Refused(timeless(counter)),
        }),
        other => other,
    }
}

fn plain_outcome(outcome: TransactOutcome) -> TransactOutcome {
    match outcome {
        TransactOutcome::Refused { index, current } => {
            TransactOutcome::Refused { index, current: current.map(without_ttl) }
        }
        TransactOutcome::Committed => TransactOutcome::Committed,
    }
}
