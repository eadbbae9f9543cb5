//! Keys of the contract, and the memory driver as applications call it: through `Arc<dyn StateStore>`.

use std::hint::black_box;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::clock::ManualClock;
use acteon_state_core::{
    ClaimDue, ClaimOutcome, DueAt, Get, Increment, LockRequest, Put, RateLimit, Schedule, Scope, StateKey, StateStore,
};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use bytes::Bytes;

use crate::meter::{KEYS, must, repeat, repeat_async, runtime, walk};
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "key-render", run: render },
    Path { name: "store-get", run: get },
    Path { name: "store-put-ttl", run: put_ttl },
    Path { name: "store-increment", run: increment },
    Path { name: "store-rate-limit", run: rate_limit },
    Path { name: "store-lock-and-release", run: lock_and_release },
    Path { name: "store-schedule-claim-ack", run: schedule_claim_ack },
];

const NOW_US: u64 = 1_000_000_000_000;
const VALUE: Bytes = Bytes::from_static(&[b'x'; 64]);
const TTL: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(30);
/// More than there are requests: all are allowed.
const LIMIT: u64 = 1_000_000;
/// Items that wait in the queue beside the one that is claimed.
const BACKLOG: u32 = 1_000;

/// A key with two characters to escape.
fn render() -> Outcome {
    repeat(|turn| {
        let id = if turn % 2 == 0 { "welcome:ada@example.com" } else { "welcome:bob@example.com" };
        black_box(must(StateKey::new(black_box("mail"), black_box("acme-1"), "dedup", black_box(id))));
    });
    Ok(())
}

fn get() -> Outcome {
    let (store, keys) = (store()?, keys()?);
    let runtime = runtime()?;
    runtime.block_on(async {
        for key in &keys {
            store.put(key, &Put::new(VALUE)).await?;
        }
        Ok::<_, acteon_state_core::Error>(())
    })?;
    repeat_async(&runtime, async |turn| {
        assert!(must(store.get(&keys[walk(turn)], Get::default()).await).is_some());
    });
    Ok(())
}

fn put_ttl() -> Outcome {
    let (store, keys) = (store()?, keys()?);
    repeat_async(&runtime()?, async |turn| {
        let put = Put::new(VALUE).expires_after(TTL);
        assert!(must(store.put(&keys[walk(turn)], &put).await).is_applied());
    });
    Ok(())
}

fn increment() -> Outcome {
    let (store, keys) = (store()?, keys()?);
    repeat_async(&runtime()?, async |turn| {
        // Sixteen counters, each many times.
        black_box(must(store.increment(&keys[walk(turn) % 16], Increment::by(1)).await));
    });
    Ok(())
}

fn rate_limit() -> Outcome {
    let (store, keys) = (store()?, keys()?);
    repeat_async(&runtime()?, async |turn| {
        let request = RateLimit::gcra(LIMIT, TTL, LIMIT);
        assert!(must(store.rate_limit(&keys[walk(turn) % 16], &request).await).allowed);
    });
    Ok(())
}

fn lock_and_release() -> Outcome {
    let (store, keys) = (store()?, keys()?);
    repeat_async(&runtime()?, async |turn| {
        let key = &keys[walk(turn) % 16];
        let request = LockRequest::new(key.clone(), LEASE);
        black_box(must(store.lock_acquire(&request).await));
        black_box(must(store.lock_release(key, request.owner).await));
    });
    Ok(())
}

/// One item comes, and the oldest one goes.
fn schedule_claim_ack() -> Outcome {
    let store = store()?;
    let queue = StateKey::new("bench", "acme", "queue", "due")?;
    let schedule = |number: u32| Schedule {
        id: format!("item-{number:06}"),
        due_at: DueAt::UnixMs(u64::from(number)),
        payload: VALUE,
    };
    let runtime = runtime()?;
    runtime.block_on(async {
        for number in 0..BACKLOG {
            store.schedule(&queue, &schedule(number)).await?;
        }
        Ok::<_, acteon_state_core::Error>(())
    })?;
    repeat_async(&runtime, async |turn| {
        must(store.schedule(&queue, &schedule(BACKLOG + turn)).await);
        let claimed = must(store.claim_due(&queue, ClaimDue { limit: 1, visibility: LEASE }).await);
        assert_eq!(claimed.items.len(), 1);
        for item in &claimed.items {
            assert_eq!(must(store.ack(&queue, &item.id, item.token).await), ClaimOutcome::Done);
        }
    });
    Ok(())
}

/// A store whose clock stands still, and whose sweeper, which goes by the real time, never gets a turn.
pub(crate) fn store() -> Outcome<Arc<dyn StateStore>> {
    let store = MemoryStore::open_with_clock(&MemoryConfig::default(), Arc::new(ManualClock::new(NOW_US)))?;
    // The first call inside of a runtime leaves the sweeper there. Nobody runs this one any more, and it is not dropped, which would make the
    // next call start another sweeper.
    let runtime = runtime()?;
    runtime.block_on(store.get(&StateKey::new("bench", "acme", "value", "none")?, Get::default()))?;
    mem::forget(runtime);
    Ok(Arc::new(store))
}

fn keys() -> Outcome<Vec<StateKey>> {
    let scope = Scope::new("bench", "acme", "value")?;
    Ok((0..KEYS).map(|at| scope.key(&format!("{at:012}"))).collect::<Result<_, _>>()?)
}
