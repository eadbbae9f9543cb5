//! Each operation under each fault: what its error says must be true.

use std::time::Duration;

use acteon_state_core::{
    BatchOp, ClaimDue, ClaimToken, Condition, DueAt, Effect, Error, ErrorKind, FencingToken, Get, Increment,
    LockOutcome, LockRequest, OwnerId, Put, RateLimit, Result, Scan, Schedule, Scope, StateKey, StateStore as _,
    TransactOp, Ttl, Version,
};
use acteon_state_dynamodb::DynamoStore;
use acteon_test_support::DynamoFault;
use futures_util::future::join_all;

use crate::{Bed, DENIED, INTERNAL, LATE, REQUEST_LIMIT, THROTTLED, THROUGHPUT, UNAVAILABLE, key, on_writes, until};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const ITEM: &str = "item";

/// A fault, what a write that meets it is told, and whether it was carried out all the same.
struct Row {
    fault: DynamoFault,
    kind: ErrorKind,
    effect: Effect,
    is_applied: bool,
}

const fn row(fault: DynamoFault, kind: ErrorKind, effect: Effect, is_applied: bool) -> Row {
    Row { fault, kind, effect, is_applied }
}

const ROWS: [Row; 11] = [
    row(DynamoFault::LoseReply, ErrorKind::Unavailable, Effect::Unknown, true),
    row(DynamoFault::LoseRequest, ErrorKind::Unavailable, Effect::Unknown, false),
    row(DynamoFault::DelayReply(LATE), ErrorKind::Timeout, Effect::Unknown, true),
    row(DynamoFault::ApplyThenFail(INTERNAL), ErrorKind::Unavailable, Effect::Unknown, true),
    row(DynamoFault::Refuse(INTERNAL), ErrorKind::Unavailable, Effect::Unknown, false),
    row(DynamoFault::ApplyThenFail(UNAVAILABLE), ErrorKind::Unavailable, Effect::Unknown, true),
    row(DynamoFault::Refuse(UNAVAILABLE), ErrorKind::Unavailable, Effect::Unknown, false),
    row(DynamoFault::Refuse(THROTTLED), ErrorKind::Throttled, Effect::NotApplied, false),
    row(DynamoFault::Refuse(THROUGHPUT), ErrorKind::Throttled, Effect::NotApplied, false),
    row(DynamoFault::Refuse(REQUEST_LIMIT), ErrorKind::Throttled, Effect::NotApplied, false),
    row(DynamoFault::Refuse(DENIED), ErrorKind::Denied, Effect::NotApplied, false),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Put,
    PutIfAbsent,
    PutIfVersion,
    PutFenced,
    Delete,
    Take,
    Touch,
    Increment,
    BatchPut,
    Transact,
    FixedWindow,
    SlidingWindow,
    Gcra,
    Schedule,
    Cancel,
    Ack,
    ExtendClaim,
    LockExtend,
    LockRelease,
    LockForceRelease,
}

const WRITES: [Write; 20] = [
    Write::Put,
    Write::PutIfAbsent,
    Write::PutIfVersion,
    Write::PutFenced,
    Write::Delete,
    Write::Take,
    Write::Touch,
    Write::Increment,
    Write::BatchPut,
    Write::Transact,
    Write::FixedWindow,
    Write::SlidingWindow,
    Write::Gcra,
    Write::Schedule,
    Write::Cancel,
    Write::Ack,
    Write::ExtendClaim,
    Write::LockExtend,
    Write::LockRelease,
    Write::LockForceRelease,
];

/// One write on a key of its own, and what it needs from before.
struct Case {
    write: Write,
    key: StateKey,
    version: Version,
    owner: OwnerId,
    claim: Option<ClaimToken>,
}

impl Case {
    /// Puts the key into the state from which the write starts.
    async fn prepare(write: Write, id: &str, direct: &DynamoStore) -> Self {
        let old = Put::new("old");
        let mut case = Self {
            write,
            key: key(&format!("{write:?} {id}")),
            version: old.version,
            owner: OwnerId::draw(),
            claim: None,
        };
        match write {
            Write::Put | Write::PutIfVersion | Write::PutFenced | Write::Delete | Write::Take | Write::Touch => {
                direct.put(&case.key, &old).await.unwrap();
            }
            Write::Cancel => case.schedule(direct).await.unwrap(),
            Write::Ack | Write::ExtendClaim => {
                case.schedule(direct).await.unwrap();
                let claim = ClaimDue { limit: 1, visibility: MINUTE };
                case.claim = Some(direct.claim_due(&case.key, claim).await.unwrap().items[0].token);
            }
            Write::LockExtend | Write::LockRelease | Write::LockForceRelease => {
                let request = LockRequest { owner: case.owner, ..LockRequest::new(case.key.clone(), MINUTE) };
                let outcome = direct.lock_acquire(&request).await.unwrap();
                assert!(matches!(outcome, LockOutcome::Granted(_)), "{outcome:?}");
            }
            _ => {}
        }
        case
    }

    async fn schedule(&self, store: &DynamoStore) -> Result<()> {
        let schedule = Schedule { id: ITEM.to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
        store.schedule(&self.key, &schedule).await.map(drop)
    }

    fn limit(&self) -> RateLimit {
        match self.write {
            Write::FixedWindow => RateLimit::fixed_window(10, HOUR),
            Write::SlidingWindow => RateLimit::sliding_window(10, HOUR),
            _ => RateLimit::gcra(10, HOUR, 10),
        }
    }

    fn claim(&self) -> ClaimToken {
        self.claim.unwrap()
    }

    /// Carries the write out.
    async fn run(&self, store: &DynamoStore) -> Result<()> {
        let key = &self.key;
        let new = Put::new("new");
        match self.write {
            Write::Put => store.put(key, &new).await.map(drop),
            Write::PutIfAbsent => store.put(key, &new.if_absent()).await.map(drop),
            Write::PutIfVersion => store.put(key, &new.if_version(self.version)).await.map(drop),
            Write::PutFenced => store.put(key, &new.fenced_by(FencingToken::new(7).unwrap())).await.map(drop),
            Write::Delete => store.delete(key, Condition::Always).await.map(drop),
            Write::Take => store.take(key).await.map(drop),
            Write::Touch => store.touch(key, Ttl::After(HOUR)).await.map(drop),
            Write::Increment => store.increment(key, Increment::by(1)).await.map(drop),
            Write::BatchPut => store.batch(&[BatchOp::Put(key.clone(), new)]).await?.remove(0).map(drop),
            Write::Transact => {
                let increment = TransactOp::Increment(key.clone(), Increment::by(1));
                store.transact(&[increment]).await.map(drop)
            }
            Write::FixedWindow | Write::SlidingWindow | Write::Gcra => {
                store.rate_limit(key, &self.limit()).await.map(drop)
            }
            Write::Schedule => self.schedule(store).await,
            Write::Cancel => store.cancel(key, ITEM).await.map(drop),
            Write::Ack => store.ack(key, ITEM, self.claim()).await.map(drop),
            Write::ExtendClaim => store.extend_claim(key, ITEM, self.claim(), HOUR).await.map(drop),
            Write::LockExtend => store.lock_extend(key, self.owner, HOUR).await.map(drop),
            Write::LockRelease => store.lock_release(key, self.owner).await.map(drop),
            Write::LockForceRelease => store.lock_force_release(key, "a test").await.map(drop),
        }
    }

    /// Whether it was carried out, once. May change the state.
    async fn is_applied(&self, bed: &Bed) -> bool {
        let (key, direct) = (&self.key, &bed.direct);
        let entry = || async { direct.get(key, Get::with_ttl()).await.unwrap() };
        match self.write {
            Write::Put | Write::PutIfAbsent | Write::PutIfVersion | Write::PutFenced | Write::BatchPut => {
                entry().await.is_some_and(|entry| entry.value == "new")
            }
            Write::Delete | Write::Take => entry().await.is_none(),
            Write::Touch => entry().await.unwrap().ttl.is_some(),
            Write::Increment | Write::Transact => match bed.count(key).await {
                None => false,
                count => {
                    assert_eq!(count, Some(1), "{key}");
                    true
                }
            },
            Write::FixedWindow | Write::SlidingWindow | Write::Gcra => {
                let used = 9 - direct.rate_limit(key, &self.limit()).await.unwrap().remaining;
                assert!(used <= 1, "{key}: {used}");
                used == 1
            }
            Write::Schedule => direct.cancel(key, ITEM).await.unwrap(),
            Write::Cancel | Write::Ack => !direct.cancel(key, ITEM).await.unwrap(),
            Write::ExtendClaim => {
                let claim = ClaimDue { limit: 1, visibility: MINUTE };
                direct.claim_due(key, claim).await.unwrap().next_due_in.unwrap() > 2 * MINUTE
            }
            Write::LockExtend | Write::LockRelease | Write::LockForceRelease => {
                let holders = direct.lock_inspect(key).await.unwrap().unwrap().holders;
                if self.write == Write::LockExtend { holders[0].expires_in > 2 * MINUTE } else { holders.is_empty() }
            }
        }
    }
}

fn assert_told(what: &str, error: &Error, kind: ErrorKind, effect: Effect) {
    assert_eq!((error.kind(), error.effect()), (kind, effect), "{what}: {error}");
    assert!(!error.message().is_empty(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_tells_the_truth_about_what_it_did_whatever_the_fault() {
    let bed = Bed::start().await;
    for (number, Row { fault, kind, effect, is_applied }) in ROWS.into_iter().enumerate() {
        let id = number.to_string();
        let cases = join_all(WRITES.map(|write| Case::prepare(write, &id, &bed.direct))).await;
        bed.proxy.rule(on_writes(fault));
        let outcomes = join_all(cases.iter().map(|case| case.run(&bed.store))).await;
        bed.proxy.heal();
        bed.until_settled().await;
        for (case, outcome) in cases.iter().zip(outcomes) {
            let what = format!("{:?} under {fault:?}", case.write);
            let Err(error) = outcome else { panic!("{what} succeeded") };
            assert_told(&what, &error, kind, effect);
            assert_eq!(case.is_applied(&bed).await, is_applied, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_reaches_the_service_after_its_caller_gave_up_was_of_unknown_effect() {
    let bed = Bed::start().await;
    let cases = join_all(WRITES.map(|write| Case::prepare(write, "late", &bed.direct))).await;
    bed.proxy.rule(on_writes(DynamoFault::DelayRequest(LATE)));
    let outcomes = join_all(cases.iter().map(|case| case.run(&bed.store))).await;
    bed.proxy.heal();
    bed.until_settled().await;
    for (case, outcome) in cases.iter().zip(outcomes) {
        let what = format!("{:?}", case.write);
        assert_told(&what, &outcome.unwrap_err(), ErrorKind::Timeout, Effect::Unknown);
        assert!(case.is_applied(&bed).await, "{what}: it has arrived since");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_is_never_of_unknown_effect() {
    let bed = Bed::start().await;
    let key = key("read");
    let scope = Scope::new("tests", "acme", "service").unwrap();
    bed.direct.put(&key, &Put::new("v")).await.unwrap();
    for Row { fault, kind, .. } in ROWS {
        bed.proxy.rule(move |_| fault);
        let store = &bed.store;
        let outcomes = tokio::join!(
            async { store.ping().await },
            async { store.get(&key, Get::default()).await.map(drop) },
            async { store.batch(&[BatchOp::Get(key.clone(), Get::default())]).await.unwrap().remove(0).map(drop) },
            async { store.touch(&key, Ttl::Keep).await.map(drop) },
            async { store.scan(&Scan::new(scope.clone())).await.map(drop) },
            async { store.lock_inspect(&key).await.map(drop) },
            async { store.lock_list(&Scan::new(scope.clone())).await.map(drop) },
            // It begins with a look at the index; nothing was handed out.
            async { store.claim_due(&key, ClaimDue { limit: 1, visibility: MINUTE }).await.map(drop) },
        );
        let (ping, get, batch, touch, scan, inspect, list, claim) = outcomes;
        let outcomes = [ping, get, batch, touch, scan, inspect, list, claim];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            assert_told(&format!("read {number} under {fault:?}"), &outcome.unwrap_err(), kind, Effect::NotApplied);
        }
    }
    bed.proxy.heal();
    assert_eq!(bed.store.get(&key, Get::default()).await.unwrap().unwrap().value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_for_which_no_connection_can_be_opened_was_not_applied() {
    let Bed { proxy, store, direct, _server } = Bed::start().await;
    drop(proxy);
    // A connection that was open may be noticed to be gone by the first who uses it.
    until("no connection is left", async || store.ping().await.is_err()).await;
    let key = key("refused");
    let write = store.increment(&key, Increment::by(1)).await.unwrap_err();
    assert_told("refused", &write, ErrorKind::Unavailable, Effect::NotApplied);
    assert!(direct.get(&key, Get::default()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_sent_for_one_write_that_fails_and_none_is_repeated_on_the_quiet() {
    let bed = Bed::start().await;
    for fault in [DynamoFault::LoseRequest, DynamoFault::Refuse(INTERNAL), DynamoFault::Refuse(THROTTLED)] {
        bed.proxy.rule(on_writes(fault));
        let before = bed.proxy.received();
        bed.store.increment(&key("once"), Increment::by(1)).await.unwrap_err();
        assert_eq!(bed.proxy.received() - before, 1, "{fault:?}");
    }
}
