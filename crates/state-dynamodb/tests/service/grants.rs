//! Locks and claims whose requests go wrong: what was granted is granted to one, and what nobody learnt of is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acteon_state_core::clock::BootInstant;
use acteon_state_core::{
    ClaimDue, ClaimOutcome, DueAt, Effect, ExtendOutcome, FencingToken, LockGrant, LockOutcome, LockRequest, Schedule,
    StateKey, StateStore as _,
};
use acteon_state_dynamodb::DynamoStore;
use acteon_test_support::DynamoFault;
use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::{Bed, INTERNAL, LATE, PATIENCE, THROTTLED, is_write, key, once, through};

const MINUTE: Duration = Duration::from_secs(60);

fn granted(outcome: LockOutcome) -> LockGrant {
    match outcome {
        LockOutcome::Granted(grant) => grant,
        LockOutcome::Busy(busy) => panic!("busy: {busy:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_which_nobody_learnt_does_not_block_the_lock_for_its_lease() {
    let bed = Bed::start().await;
    for fault in [DynamoFault::LoseReply, DynamoFault::ApplyThenFail(INTERNAL), DynamoFault::LoseRequest] {
        let key = key(&format!("{fault:?}"));
        bed.proxy.rule(once(fault));
        let lost = bed.store.lock_acquire(&LockRequest::new(key.clone(), MINUTE)).await;
        assert_eq!(lost.unwrap_err().effect(), Effect::Unknown, "{fault:?}");
        let started = Instant::now();
        let next = LockRequest { wait: PATIENCE, ..LockRequest::new(key, MINUTE) };
        granted(bed.direct.lock_acquire(&next).await.unwrap());
        assert!(started.elapsed() < MINUTE / 2, "{fault:?}: it waited for the lease");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquisition_that_is_repeated_after_a_lost_answer_gets_the_lock() {
    let bed = Bed::start().await;
    let request = LockRequest { wait: PATIENCE, ..LockRequest::new(key("repeated"), MINUTE) };
    bed.proxy.rule(once(DynamoFault::LoseReply));
    assert_eq!(bed.store.lock_acquire(&request).await.unwrap_err().effect(), Effect::Unknown);
    let grant = granted(bed.store.lock_acquire(&request).await.unwrap());
    let state = bed.direct.lock_inspect(&request.key).await.unwrap().unwrap();
    assert_eq!(state.holders.len(), 1);
    assert_eq!((state.holders[0].owner, state.holders[0].token), (request.owner, grant.token));
}

/// Who holds the lock as far as those who hold it know.
#[derive(Debug, Default)]
struct Ledger {
    held: Option<(FencingToken, BootInstant)>,
    last: Option<FencingToken>,
    grants: u64,
}

impl Ledger {
    fn enter(&mut self, grant: LockGrant) {
        if let Some((token, deadline)) = self.held {
            assert!(deadline.remaining().is_zero(), "{:?} was granted while {token:?} is held", grant.token);
        }
        assert!(self.last.is_none_or(|last| last < grant.token), "{:?} follows {:?}", grant.token, self.last);
        (self.held, self.last) = (Some((grant.token, grant.deadline)), Some(grant.token));
        self.grants += 1;
    }

    fn leave(&mut self, grant: LockGrant) {
        if self.held.is_some_and(|(token, _)| token == grant.token) {
            self.held = None;
        }
    }
}

/// A third of the writes meet a fault, in a fixed order.
fn unsteady() -> impl Fn(&str) -> DynamoFault {
    const FAULTS: [DynamoFault; 5] = [
        DynamoFault::LoseReply,
        DynamoFault::Refuse(THROTTLED),
        DynamoFault::ApplyThenFail(INTERNAL),
        DynamoFault::DelayRequest(Duration::from_millis(30)),
        DynamoFault::LoseRequest,
    ];
    let count = AtomicU64::new(0);
    move |operation| {
        let number =
            if is_write(operation) { usize::try_from(count.fetch_add(1, Ordering::Relaxed)).unwrap() } else { 1 };
        if number.is_multiple_of(3) { FAULTS[number / 3 % FAULTS.len()] } else { DynamoFault::None }
    }
}

/// Takes the lock, keeps it for a moment and releases it, until it was granted so many times to all together.
async fn contend(store: DynamoStore, key: StateKey, ledger: Arc<Mutex<Ledger>>, grants: u64) {
    while ledger.lock().grants < grants {
        let request = LockRequest { wait: PATIENCE, ..LockRequest::new(key.clone(), Duration::from_millis(500)) };
        // One that fails has nothing, or has it until it is withdrawn.
        let Ok(LockOutcome::Granted(grant)) = store.lock_acquire(&request).await else { continue };
        if grant.deadline.remaining().is_zero() {
            continue;
        }
        ledger.lock().enter(grant);
        tokio::time::sleep(Duration::from_millis(1)).await;
        ledger.lock().leave(grant);
        // One that fails leaves the lock to its lease.
        let _ = store.lock_release(&key, request.owner).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_never_granted_to_two_under_faults_and_its_tokens_rise() {
    const GRANTS: u64 = 100;
    let bed = Bed::start().await;
    // Two processes, as far as the driver knows.
    let stores = [bed.store.clone(), through(&bed.proxy).await];
    let (key, ledger) = (key("contended"), Arc::new(Mutex::new(Ledger::default())));
    bed.proxy.rule(unsteady());
    let tasks: Vec<_> = (0..6)
        .map(|task| tokio::spawn(contend(stores[task % 2].clone(), key.clone(), ledger.clone(), GRANTS)))
        .collect();
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert!(ledger.lock().grants >= GRANTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_whose_claim_was_lost_on_the_way_is_handed_out_again_when_it_is_visible() {
    let bed = Bed::start().await;
    let queue = key("queue");
    let schedule = Schedule { id: "item".to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
    bed.direct.schedule(&queue, &schedule).await.unwrap();
    let claim = ClaimDue { limit: 10, visibility: Duration::from_secs(2) };
    bed.proxy.rule(once(DynamoFault::LoseReply));
    let sent = Instant::now();
    let lost = bed.store.claim_due(&queue, claim).await.unwrap_err();
    assert_eq!(lost.effect(), Effect::Unknown, "{lost}");
    let item = loop {
        let found = bed.direct.claim_due(&queue, claim).await.unwrap().items;
        if let Some(item) = found.into_iter().next() {
            break item;
        }
        assert!(sent.elapsed() < PATIENCE, "it is never visible again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(sent.elapsed() >= claim.visibility, "handed out twice within its visibility");
    assert_eq!(item.attempt, 2, "the claim that was lost counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_under_faults_hand_each_item_to_one_worker_within_its_visibility() {
    const ITEMS: usize = 60;
    let bed = Bed::start().await;
    let queue = key("worked");
    for number in 0..ITEMS {
        let schedule = Schedule { id: format!("{number}"), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
        bed.direct.schedule(&queue, &schedule).await.unwrap();
    }
    let stores = [bed.store.clone(), through(&bed.proxy).await];
    bed.proxy.rule(unsteady());
    // Nobody acknowledges, and nothing becomes visible again before the test is over.
    let claim = ClaimDue { limit: 5, visibility: Duration::from_secs(3_600) };
    let workers = (0..6).map(|worker| {
        let (store, queue) = (&stores[worker % 2], &queue);
        async move {
            let mut items = Vec::new();
            loop {
                match store.claim_due(queue, claim).await {
                    Ok(claimed) if claimed.items.is_empty() && claimed.next_due_in != Some(Duration::ZERO) => {
                        break items;
                    }
                    Ok(claimed) => items.extend(claimed.items),
                    Err(_) => {}
                }
            }
        }
    });
    let items: Vec<_> = join_all(workers).await.into_iter().flatten().collect();
    let mut ids: Vec<_> = items.iter().map(|item| item.id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), items.len(), "an item was handed out twice");
    assert!(items.iter().all(|item| item.attempt == 1));
    // The rest was claimed by calls that never heard of it.
    assert!(items.len() > ITEMS / 2 && items.len() <= ITEMS, "{}", items.len());
}

/// A shorter time than what follows, so that it shows where it is undone.
const SHORT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_arrives_late_does_not_shorten_the_lease_of_the_one_after_it() {
    let bed = Bed::start().await;
    let request = LockRequest::new(key("extended"), SHORT);
    granted(bed.direct.lock_acquire(&request).await.unwrap());
    bed.proxy.rule(once(DynamoFault::DelayRequest(LATE)));
    let lost = bed.store.lock_extend(&request.key, request.owner, SHORT).await.unwrap_err();
    assert_eq!(lost.effect(), Effect::Unknown);
    let again = bed.direct.lock_extend(&request.key, request.owner, 10 * MINUTE).await.unwrap();
    assert_eq!(again, ExtendOutcome::Extended);
    bed.until_settled().await;
    let expires_in = async || bed.direct.lock_inspect(&request.key).await.unwrap().unwrap().holders[0].expires_in;
    assert!(expires_in().await > MINUTE, "{:?}", expires_in().await);
    // Meant to be shorter, it is.
    bed.direct.lock_extend(&request.key, request.owner, SHORT).await.unwrap();
    assert!(expires_in().await <= SHORT + MINUTE / 30, "{:?}", expires_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_arrives_late_does_not_shorten_the_claim_of_the_one_after_it() {
    let bed = Bed::start().await;
    let queue = key("extended claims");
    let schedule = Schedule { id: "item".to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
    bed.direct.schedule(&queue, &schedule).await.unwrap();
    let claim = ClaimDue { limit: 1, visibility: SHORT };
    let token = bed.direct.claim_due(&queue, claim).await.unwrap().items[0].token;
    bed.proxy.rule(once(DynamoFault::DelayRequest(LATE)));
    let lost = bed.store.extend_claim(&queue, "item", token, SHORT).await.unwrap_err();
    assert_eq!(lost.effect(), Effect::Unknown);
    let extend = async |visibility| bed.direct.extend_claim(&queue, "item", token, visibility).await.unwrap();
    assert_eq!(extend(10 * MINUTE).await, ClaimOutcome::Done);
    bed.until_settled().await;
    let visible_in = async || bed.direct.claim_due(&queue, claim).await.unwrap().next_due_in.unwrap();
    assert!(visible_in().await > MINUTE, "{:?}", visible_in().await);
    // Meant to be shorter, it is.
    assert_eq!(extend(SHORT).await, ClaimOutcome::Done);
    assert!(visible_in().await <= SHORT + MINUTE / 30, "{:?}", visible_in().await);
}
