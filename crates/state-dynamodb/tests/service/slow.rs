//! A service that answers slowly: what was done in time is not lost with the rest.

use std::collections::BTreeSet;
use std::time::Duration;

use acteon_state_core::{ClaimDue, DueAt, Schedule, StateStore as _};
use acteon_state_dynamodb::DynamoStore;
use acteon_test_support::DynamoFault;
use futures_util::future::try_join_all;

use crate::{ATTEMPT_TIMEOUT, Bed, config, key, on_writes};

const HOUR: Duration = Duration::from_secs(3_600);
/// More than can be claimed within the time of an operation, at this pace.
const ITEMS: u32 = 320;
const PACE: Duration = Duration::from_millis(250);

/// Were the claim to fail as a whole, all that it has taken would be hidden from everybody until their visibility is over; the
/// next claim of as many would fail as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_takes_too_long_hands_out_what_it_has_taken_and_leaves_the_rest() {
    assert!(PACE * (ITEMS / 16) > 4 * ATTEMPT_TIMEOUT, "all of them can be claimed in time");
    let bed = Bed::start().await;
    let queue = key("slow");
    for chunk in (0..ITEMS).collect::<Vec<_>>().chunks(32) {
        let schedules: Vec<Schedule> = chunk.iter().map(|at| due_now(&format!("item-{at}"))).collect();
        try_join_all(schedules.iter().map(|schedule| bed.direct.schedule(&queue, schedule))).await.unwrap();
    }
    let claim = ClaimDue { limit: ITEMS, visibility: HOUR };
    bed.proxy.rule(on_writes(DynamoFault::DelayRequest(PACE)));
    let claimed = bed.store.claim_due(&queue, claim).await.unwrap();
    assert!(!claimed.items.is_empty() && claimed.items.len() < ITEMS as usize, "{}", claimed.items.len());
    assert_eq!(claimed.next_due_in, Some(Duration::ZERO), "there is more");

    bed.until_settled().await;
    let rest = bed.direct.claim_due(&queue, claim).await.unwrap().items;
    let taken: BTreeSet<String> = claimed.items.into_iter().chain(rest).map(|item| item.id).collect();
    assert_eq!(taken.len(), ITEMS as usize, "nothing is hidden from both");
}

fn due_now(id: &str) -> Schedule {
    Schedule { id: id.to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "payload".into() }
}

/// Three rounds of requests take longer than this, each of which counts from when it was sent.
const BRIEFLY: Duration = Duration::from_millis(2_900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_long_claim_takes_last_is_its_own_for_as_long_as_what_it_takes_first() {
    let bed = Bed::start().await;
    let queue = key("long");
    let schedules: Vec<Schedule> = (0..33).map(|at| due_now(&format!("item-{at}"))).collect();
    try_join_all(schedules.iter().map(|schedule| bed.direct.schedule(&queue, schedule))).await.unwrap();
    let store = DynamoStore::connect(config(bed.proxy.url())).await.unwrap();
    bed.proxy.rule(on_writes(DynamoFault::DelayRequest(Duration::from_secs(1))));
    let claim = ClaimDue { limit: 33, visibility: BRIEFLY };
    let items = store.claim_due(&queue, claim).await.unwrap().items;
    assert_eq!(items.len(), 33);
    let last = &items[32].id;
    let again = bed.direct.claim_due(&queue, claim).await.unwrap().items;
    assert!(again.iter().all(|item| item.id != *last), "{last} is handed out again at once");
}
