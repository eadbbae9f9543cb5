//! What starts its own emulator, and what all of it shares.

mod clocks;
mod requests;
mod waiting;
mod withdrawal;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_state_core::clock::{Clock, SeededClock};
use acteon_state_core::{LockBusy, LockGrant, LockOutcome, LockRequest, LockState, StateKey, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::DynamoServer;

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// A lease that does not end while a test runs.
const LEASE: Duration = Duration::from_secs(60);

/// A wall clock that is wrong.
#[derive(Debug)]
struct WrongClock {
    right: SeededClock,
    ahead_us: i64,
}

impl Clock for WrongClock {
    fn now_us(&self) -> u64 {
        self.right.now_us().saturating_add_signed(self.ahead_us)
    }
}

fn start() -> DynamoServer {
    DynamoServer::start().unwrap()
}

fn config(server: &DynamoServer) -> DynamoConfig {
    DynamoConfig { region: Some("us-east-1".to_owned()), ..DynamoConfig::from_url(&server.url()).unwrap() }
}

async fn connect(server: &DynamoServer) -> DynamoStore {
    DynamoStore::connect(config(server)).await.unwrap()
}

/// A store on a machine whose clock is ahead by some seconds, or behind.
async fn connect_ahead(config: DynamoConfig, ahead_s: i64) -> DynamoStore {
    let clock = WrongClock { right: SeededClock::new(), ahead_us: ahead_s * 1_000_000 };
    DynamoStore::connect_with_clock(config, Arc::new(clock)).await.unwrap()
}

fn key(id: &str) -> StateKey {
    StateKey::new("driver", "tests", "k", id).unwrap()
}

fn request(key: &StateKey, lease: Duration) -> LockRequest {
    LockRequest::new(key.clone(), lease)
}

fn waiting(key: &StateKey) -> LockRequest {
    LockRequest { wait: PATIENCE, ..request(key, LEASE) }
}

async fn granted(store: &DynamoStore, request: &LockRequest) -> LockGrant {
    match store.lock_acquire(request).await.unwrap() {
        LockOutcome::Granted(grant) => grant,
        LockOutcome::Busy(busy) => panic!("{busy:?}"),
    }
}

async fn busy(store: &DynamoStore, request: &LockRequest) -> LockBusy {
    match store.lock_acquire(request).await.unwrap() {
        LockOutcome::Granted(grant) => panic!("{grant:?}"),
        LockOutcome::Busy(busy) => busy,
    }
}

async fn inspect(store: &DynamoStore, key: &StateKey) -> LockState {
    store.lock_inspect(key).await.unwrap().unwrap()
}

/// Repeats until the condition holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
