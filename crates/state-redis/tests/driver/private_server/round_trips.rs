//! Each operation is one round trip: measured behind a proxy that delays everything.

use std::time::{Duration, Instant};

use acteon_state_core::{
    BatchOp, ClaimDue, ClaimToken, Condition, DueAt, FencingToken, Gate, Get, Increment, LockRequest, OwnerId, Put,
    RateLimit, Result, Schedule, StateStore, TransactOp, Ttl, Version,
};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{Fault, FaultProxy};
use futures_util::future::{BoxFuture, FutureExt, join_all};

use super::{connect, key, server};

/// Of each direction. Large against what a busy machine adds.
const DELAY: Duration = Duration::from_millis(150);

/// One call, by name, without its reply.
fn call<'a, T>(
    name: &'static str,
    call: impl Future<Output = Result<T>> + Send + 'a,
) -> (&'static str, BoxFuture<'a, ()>) {
    (name, call.map(move |reply| assert!(reply.is_ok(), "{name}: {:?}", reply.err())).boxed())
}

#[tokio::test]
async fn every_operation_takes_one_round_trip() {
    let server = server();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let config = RedisConfig {
        operation_timeout: Duration::from_secs(30),
        ..RedisConfig::from_url(&format!("redis://{}", proxy.address())).unwrap()
    };
    let store = &RedisStore::connect(config).await.unwrap();
    proxy.set(Fault::Delay(DELAY));
    let (second, token) = (Duration::from_secs(1), FencingToken::new(1).unwrap());
    let k: Vec<_> = (0..30).map(|_| key("trip")).collect();
    let put = |condition| Put::new("v").when(condition).ttl(Ttl::After(second));
    let puts = [
        Condition::Always,
        Condition::Absent,
        Condition::Present,
        Condition::Version(Version::draw()),
        Condition::Fence(token),
    ]
    .map(put);
    let schedule = Schedule { id: "i".into(), due_at: DueAt::After(second), payload: "p".into() };
    let limits =
        [RateLimit::fixed_window(1, second), RateLimit::sliding_window(1, second), RateLimit::gcra(1, second, 1)];
    let batch: Vec<_> = k.iter().map(|key| BatchOp::Put(key.clone(), Put::new("v"))).collect();
    let transaction: Vec<_> = k.iter().map(|key| TransactOp::Increment(key.clone(), Increment::by(0))).collect();
    let transaction = &transaction[20..];
    let request = LockRequest::new(k[17].clone(), second);
    let gates = [
        Gate::Put(key("gate"), Put::new("v").if_absent()),
        Gate::RateLimit(key("gate"), limits[1]),
        Gate::RateLimit(key("gate"), limits[2]),
        Gate::Lock(LockRequest::new(key("gate"), second)),
    ];
    let mut calls = vec![
        call("ping", store.ping()),
        call("get", store.get(&k[0], Get::default())),
        call("get with ttl", store.get(&k[0], Get::with_ttl())),
        call("delete", store.delete(&k[6], Condition::Always)),
        call("delete by version", store.delete(&k[7], Condition::Version(Version::draw()))),
        call("take", store.take(&k[8])),
        call("touch", store.touch(&k[9], Ttl::After(second))),
        call("touch clear", store.touch(&k[9], Ttl::Clear)),
        call("touch keep", store.touch(&k[9], Ttl::Keep)),
        call("increment", store.increment(&k[10], Increment::by(1).at_most(5))),
        call("transact", store.transact(transaction)),
        call("admit", store.admit(&gates)),
        call("schedule", store.schedule(&k[14], &schedule)),
        call("cancel", store.cancel(&k[14], "i")),
        call("claim", store.claim_due(&k[14], ClaimDue { limit: 10, visibility: second })),
        call("ack", store.ack(&k[14], "i", ClaimToken::draw())),
        call("extend claim", store.extend_claim(&k[14], "i", ClaimToken::draw(), second)),
        call("lock", store.lock_acquire(&request)),
        call("extend", store.lock_extend(&k[18], OwnerId::draw(), second)),
        call("release", store.lock_release(&k[18], OwnerId::draw())),
        call("inspect", store.lock_inspect(&k[18])),
        call("force release", store.lock_force_release(&k[18], "test")),
    ];
    calls.extend(puts.iter().zip(&k[1..]).map(|(put, key)| call("put", store.put(key, put))));
    calls.extend(limits.iter().map(|limit| call("rate limit", store.rate_limit(&k[11], limit))));
    let timed = calls.into_iter().map(|(name, call)| async move {
        let started = Instant::now();
        call.await;
        (name, started.elapsed())
    });
    let mut times = join_all(timed).await;
    // By itself, since it writes to the keys of the others.
    let started = Instant::now();
    assert!(store.batch(&batch).await.unwrap().iter().all(Result::is_ok));
    times.push(("batch", started.elapsed()));
    for (name, time) in times {
        assert!(time >= 2 * DELAY && time < 4 * DELAY, "{name} took {time:?}: not one round trip of {:?}", 2 * DELAY);
    }
}

/// A single worker thread: there the connection's own task is the next to run as soon as the first of many tasks has sent something.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_of_many_tasks_travel_together() {
    const TASKS: u64 = 64;
    const CALLS: u64 = 50;
    let server = server();
    let store = connect(&server).await;
    let reads = || {
        let stats = server.query(&["INFO", "stats"]).unwrap().unwrap();
        let field = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        field.and_then(|reads| reads.trim().parse::<u64>().ok()).expect("the server counts what it reads")
    };
    let before = reads();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, key) = (store.clone(), key("together"));
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    store.get(&key, Get::default()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let pieces = reads() - before;
    assert!(pieces < TASKS * CALLS / 16, "{} calls came in {pieces} pieces", TASKS * CALLS);
}
