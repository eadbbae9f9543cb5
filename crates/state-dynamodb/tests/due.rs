//! The due index on an emulator in this process: what a claim costs, its order over the shards, and workers that compete.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, DueAt, DueItem, Operation, Schedule, StateKey, StateStore,
};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::DynamoServer;
use futures_util::future::try_join_all;

/// Far longer than a test lasts.
const LONG: Duration = Duration::from_secs(3_600);
/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SHARDS: u8 = 4;

/// Shows a time that is off.
#[derive(Debug)]
struct WrongClock {
    right: SeededClock,
    ahead: Duration,
}

impl Clock for WrongClock {
    fn now_us(&self) -> u64 {
        self.right.now_us() + u64::try_from(self.ahead.as_micros()).unwrap()
    }
}

fn config(server: &DynamoServer, due_shards: u8) -> DynamoConfig {
    DynamoConfig {
        url: Some(server.url()),
        region: Some("us-east-1".to_owned()),
        due_shards,
        // The emulator takes turns at its database, so a burst of requests waits for itself.
        attempt_timeout: Duration::from_secs(20),
        operation_timeout: Duration::from_secs(30),
        ..DynamoConfig::default()
    }
}

async fn connect(server: &DynamoServer) -> DynamoStore {
    DynamoStore::connect(config(server, SHARDS)).await.unwrap()
}

fn queue(id: &str) -> StateKey {
    StateKey::new("due", "tests", "queue", id).unwrap()
}

fn due_now(id: &str) -> Schedule {
    Schedule { id: id.to_owned(), due_at: DueAt::After(Duration::ZERO), payload: format!("payload of {id}").into() }
}

async fn schedule_all(store: &DynamoStore, queue: &StateKey, schedules: &[Schedule]) {
    // A few at a time: more would only wait for the emulator.
    for chunk in schedules.chunks(32) {
        try_join_all(chunk.iter().map(|schedule| store.schedule(queue, schedule))).await.unwrap();
    }
}

async fn claim(store: &DynamoStore, queue: &StateKey, limit: u32) -> Vec<DueItem> {
    store.claim_due(queue, ClaimDue { limit, visibility: LONG }).await.unwrap().items
}

fn requests(store: &DynamoStore, operation: Operation) -> u64 {
    store.capacity().of(operation).requests
}

#[tokio::test]
async fn a_claim_is_one_query_per_shard_and_one_update_per_item() {
    let server = DynamoServer::start().unwrap();
    let (store, queue) = (connect(&server).await, queue("cost"));
    assert_eq!(claim(&store, &queue, 10).await, []);
    assert_eq!(requests(&store, Operation::ClaimDue), u64::from(SHARDS), "of an empty queue");
    for id in ["a", "b", "c"] {
        store.schedule(&queue, &due_now(id)).await.unwrap();
    }
    assert_eq!(requests(&store, Operation::Schedule), 3);
    let items = claim(&store, &queue, 10).await;
    assert_eq!(items.len(), 3);
    assert_eq!(requests(&store, Operation::ClaimDue), 2 * u64::from(SHARDS) + 3);

    assert_eq!(store.extend_claim(&queue, "a", items[0].token, LONG).await.unwrap(), ClaimOutcome::Done);
    assert_eq!(store.ack(&queue, "a", items[0].token).await.unwrap(), ClaimOutcome::Done);
    assert_eq!(store.ack(&queue, "b", ClaimToken::draw()).await.unwrap(), ClaimOutcome::Lost);
    assert!(store.cancel(&queue, "b").await.unwrap());
    let costs =
        [Operation::ExtendClaim, Operation::Ack, Operation::Cancel].map(|operation| requests(&store, operation));
    assert_eq!(costs, [1, 2, 1]);
}

#[tokio::test]
async fn items_of_all_shards_come_in_the_order_of_their_times() {
    let server = DynamoServer::start().unwrap();
    let (store, queue) = (connect(&server).await, queue("order"));
    let schedules: Vec<Schedule> = (0..60_u64)
        // Scheduled in another order than they are due.
        .map(|at| (at * 37) % 60)
        .map(|at| Schedule { due_at: DueAt::UnixMs(1_000 + at), ..due_now(&format!("job-{at:02}")) })
        .collect();
    schedule_all(&store, &queue, &schedules).await;
    let mut taken = Vec::new();
    while let items = claim(&store, &queue, 7).await
        && !items.is_empty()
    {
        taken.extend(items.into_iter().map(|item| item.id));
    }
    assert_eq!(taken, (0..60).map(|at| format!("job-{at:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_others_hold_or_is_not_due_yet_tells_when_to_come_back() {
    let server = DynamoServer::start().unwrap();
    let (store, other, queue) = (connect(&server).await, connect(&server).await, queue("next"));
    let soon = Schedule { due_at: DueAt::After(LONG / 2), ..due_now("soon") };
    schedule_all(&store, &queue, &[due_now("now"), soon]).await;
    assert_eq!(claim(&store, &queue, 10).await.len(), 1);
    let claimed = other.claim_due(&queue, ClaimDue { limit: 10, visibility: LONG }).await.unwrap();
    assert_eq!(claimed.items, []);
    let wait = claimed.next_due_in.unwrap();
    assert!(wait <= LONG / 2 + Duration::from_millis(1) && wait > LONG / 2 - PATIENCE, "{wait:?}");
}

/// Claims and acknowledges until nothing is left. Returns what was handed out.
async fn work(store: DynamoStore, queue: StateKey, limit: u32) -> Vec<String> {
    let mut done = Vec::new();
    loop {
        let claimed = store.claim_due(&queue, ClaimDue { limit, visibility: LONG }).await.unwrap();
        if claimed.items.is_empty() && claimed.next_due_in.is_none() {
            return done;
        }
        let acks = claimed.items.iter().map(|item| store.ack(&queue, &item.id, item.token));
        for outcome in try_join_all(acks).await.unwrap() {
            assert_eq!(outcome, ClaimOutcome::Done);
        }
        assert!(
            claimed.items.iter().all(|item| item.attempt == 1 && item.payload == format!("payload of {}", item.id))
        );
        done.extend(claimed.items.into_iter().map(|item| item.id));
        // What others hold is theirs for a moment; without a pause this would ask again and again until they are done.
        tokio::time::sleep(claimed.next_due_in.unwrap_or_default().min(Duration::from_millis(5))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_of_two_stores_hand_out_each_item_once() {
    const ITEMS: usize = 400;
    let server = DynamoServer::start().unwrap();
    let stores = [connect(&server).await, connect(&server).await];
    let queue = queue("shared");
    let expected: BTreeSet<String> = (0..ITEMS).map(|at| format!("job-{at}")).collect();
    let schedules: Vec<Schedule> = expected.iter().map(|id| due_now(id)).collect();
    schedule_all(&stores[0], &queue, &schedules).await;
    let workers = (0..8).map(|worker: u32| {
        let store = stores[worker as usize % 2].clone();
        tokio::spawn(work(store, queue.clone(), 1 + worker * 7))
    });
    let taken = try_join_all(workers).await.unwrap().concat();
    assert_eq!(taken.len(), ITEMS, "nothing was handed out twice");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), expected);
}

/// The index answers with at most 1 MB, which is fewer items than may be claimed when their names are long.
#[tokio::test]
async fn a_queue_that_does_not_fit_one_answer_is_worked_off() {
    const ITEMS: usize = 900;
    let server = DynamoServer::start().unwrap();
    let store = DynamoStore::connect(config(&server, 1)).await.unwrap();
    let queue = queue(&"q".repeat(512));
    let schedules: Vec<Schedule> = (0..ITEMS).map(|at| due_now(&format!("{at:x>512}"))).collect();
    schedule_all(&store, &queue, &schedules).await;
    let (mut taken, mut claims) = (BTreeSet::new(), 0);
    let started = Instant::now();
    loop {
        let claimed = store.claim_due(&queue, ClaimDue { limit: 1_000, visibility: LONG }).await.unwrap();
        claims += 1;
        taken.extend(claimed.items.into_iter().map(|item| item.id));
        match claimed.next_due_in {
            Some(Duration::ZERO) => assert!(started.elapsed() < PATIENCE, "{} taken in {claims} claims", taken.len()),
            _ => break,
        }
    }
    assert_eq!(taken.len(), ITEMS);
    assert!(claims > 1, "all of them fitted one answer");
}

/// A worker whose clock is half a minute fast would hand out everything half a minute early.
#[tokio::test]
async fn a_clock_that_is_fast_hands_nothing_out_early() {
    let server = DynamoServer::start().unwrap();
    let right = connect(&server).await;
    let clock = WrongClock { right: SeededClock::new(), ahead: Duration::from_secs(30) };
    let fast = DynamoStore::connect_with_clock(config(&server, SHARDS), Arc::new(clock)).await.unwrap();
    let queue = queue("fast");
    let later = Schedule { due_at: DueAt::After(Duration::from_secs(20)), ..due_now("later") };
    schedule_all(&right, &queue, &[due_now("now"), later]).await;
    let started = Instant::now();
    let items = claim(&fast, &queue, 10).await;
    assert!(started.elapsed() < Duration::from_secs(15), "too slow to tell");
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["now"]);
}
