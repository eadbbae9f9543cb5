//! Whose time ends a lease: clocks that are wrong, clocks that keep the bound, and time that is only observed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_state_core::clock::BootInstant;
use acteon_state_core::{LockGrant, LockOutcome, LockRequest, ReleaseOutcome, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{LEASE, PATIENCE, busy, config, connect, connect_ahead, granted, inspect, key, request, start, until};

/// How far the clocks of two machines are apart.
const APART_S: i64 = 30;

/// The grants of a lock, in their order.
#[derive(Default)]
struct History {
    grants: Mutex<Vec<Granted>>,
}

struct Granted {
    token: u64,
    /// Until when its holder may rely on it, unless it has begun to release it.
    relied_on_until: Option<BootInstant>,
}

impl History {
    /// Enters a grant; nobody may rely on an earlier one any more. `false` if this one is over already, on a busy machine.
    fn enter(&self, grant: LockGrant) -> bool {
        let mut grants = self.grants.lock();
        let now = BootInstant::now();
        if now >= grant.deadline {
            return false;
        }
        if let Some(last) = grants.last() {
            assert!(grant.token.get() > last.token, "{} after {}", grant.token, last.token);
            let is_over = last.relied_on_until.is_none_or(|until| until <= now);
            assert!(is_over, "taken over before its holder had to stop");
        }
        grants.push(Granted { token: grant.token.get(), relied_on_until: Some(grant.deadline) });
        true
    }

    fn begin_release(&self, grant: LockGrant) {
        let mut grants = self.grants.lock();
        let ours = grants.iter_mut().find(|granted| granted.token == grant.token.get()).unwrap();
        ours.relied_on_until = None;
    }
}

/// Holds the lock again and again, and every third time leaves it to its lease.
async fn contend(store: DynamoStore, history: Arc<History>, rounds: usize) {
    let key = key("contended");
    for round in 0..rounds {
        let mine = LockRequest { wait: PATIENCE * 3, ..request(&key, Duration::from_millis(400)) };
        let grant = granted(&store, &mine).await;
        if !history.enter(grant) {
            continue;
        }
        let holders = inspect(&store, &key).await.holders;
        assert!(holders.len() <= 1, "{holders:?}");
        if round % 3 != 2 {
            history.begin_release(grant);
            store.lock_release(&key, mine.owner).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_half_a_minute_apart_never_make_two_holders_and_tokens_rise() {
    let server = start();
    let history = Arc::new(History::default());
    let mut tasks = JoinSet::new();
    for ahead_s in [0, APART_S] {
        let store = connect_ahead(config(&server), ahead_s).await;
        for _ in 0..2 {
            tasks.spawn(contend(store.clone(), history.clone(), 4));
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(history.grants.lock().len() >= 12);
}

#[tokio::test]
async fn tokens_rise_from_a_clock_that_is_ahead_to_one_that_is_behind() {
    let server = start();
    let ahead = connect_ahead(config(&server), APART_S).await;
    let behind = connect_ahead(config(&server), -APART_S).await;
    let key = key("tokens");
    let mut last = 0;
    for store in [&ahead, &behind, &behind, &ahead, &behind] {
        let mine = request(&key, LEASE);
        let token = granted(store, &mine).await.token.get();
        assert!(token > last, "{token} after {last}");
        last = token;
        assert_eq!(store.lock_release(&key, mine.owner).await.unwrap(), ReleaseOutcome::Released);
    }
}

#[tokio::test]
async fn by_time_a_lease_is_taken_over_only_when_the_bound_has_passed_as_well() {
    let server = start();
    let skew_max = Duration::from_millis(600);
    let bounded = DynamoConfig { skew_max, ..config(&server) };
    let holder = DynamoStore::connect(bounded.clone()).await.unwrap();
    let other = DynamoStore::connect(bounded).await.unwrap();
    let (key, lease) = (key("bound"), Duration::from_secs(2));
    let grant = granted(&holder, &request(&key, lease)).await;

    // Nobody has looked before the lease has ended, so observation would need another two seconds.
    tokio::time::sleep(grant.deadline.remaining()).await;
    let first_look = Instant::now();
    let refusal = busy(&other, &request(&key, lease)).await;
    assert!(refusal.retry_after <= skew_max, "{refusal:?}");
    let waiting = LockRequest { wait: PATIENCE, ..request(&key, lease) };
    let token = granted(&other, &waiting).await.token;
    assert!(BootInstant::now() >= grant.deadline + skew_max, "taken over within the bound");
    assert!(first_look.elapsed() < lease, "taken over by observation, after {:?}", first_look.elapsed());
    assert!(token > grant.token);
}

#[tokio::test]
async fn without_the_bound_a_lease_is_taken_over_only_after_it_was_seen_unchanged_for_its_length() {
    let server = start();
    // Closer than corrected clocks come: the one that is wrong does not keep it.
    let tight = DynamoConfig { skew_max: Duration::from_millis(1), ..config(&server) };
    let holder = DynamoStore::connect(tight.clone()).await.unwrap();
    let bystander = DynamoStore::connect(tight.clone()).await.unwrap();
    let wrong = connect_ahead(tight, APART_S).await;
    let (key, lease) = (key("observed"), Duration::from_millis(800));
    let mine = request(&key, lease);
    let grant = granted(&holder, &mine).await;
    tokio::time::sleep(grant.deadline.remaining() + Duration::from_millis(50)).await;

    let first_look = Instant::now();
    busy(&wrong, &request(&key, lease)).await;
    let theirs = request(&key, lease);
    until("a takeover by observation", || async {
        match wrong.lock_acquire(&theirs).await.unwrap() {
            LockOutcome::Granted(grant_after) => {
                assert!(grant_after.token > grant.token);
                true
            }
            LockOutcome::Busy(_) => false,
        }
    })
    .await;
    assert!(first_look.elapsed() >= lease, "taken over after {:?}", first_look.elapsed());
    assert_eq!(holder.lock_release(&key, mine.owner).await.unwrap(), ReleaseOutcome::AlreadyLost);

    // What the wrong clock wrote ends by observation for others too, however right theirs is.
    tokio::time::sleep(lease + Duration::from_millis(50)).await;
    busy(&bystander, &request(&key, lease)).await;
}

#[tokio::test]
async fn an_extended_lease_is_not_taken_over_by_who_has_watched_it() {
    let server = start();
    let (holder, other) = (connect(&server).await, connect(&server).await);
    let (key, lease) = (key("extended"), Duration::from_millis(1_500));
    let mine = request(&key, lease);
    granted(&holder, &mine).await;
    let started = Instant::now();
    while started.elapsed() < 3 * lease {
        busy(&other, &request(&key, lease)).await;
        tokio::time::sleep(lease / 15).await;
        holder.lock_extend(&key, mine.owner, lease).await.unwrap();
    }
    assert_eq!(inspect(&other, &key).await.holders[0].owner, mine.owner);
}
