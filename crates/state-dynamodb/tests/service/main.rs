//! What is special to the DynamoDB driver under load and faults: what failed requests have done, who wins races, and how many
//! requests and units each operation takes. Every test here starts an emulator of its own.

#![allow(clippy::unwrap_used, reason = "a step that fails is to fail its test, also in helpers")]

mod effects;
mod expired;
mod grants;
mod races;
mod repeats;
mod requests;
mod slow;

use std::time::{Duration, Instant};

use acteon_state_core::{Get, StateKey, StateStore as _};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::{DynamoError, DynamoFault, DynamoProxy, DynamoServer};

/// What a test waits for at most: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request waits for its answer where tests lose and delay some.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Long enough to be given up on, and short enough to be waited for.
const LATE: Duration = Duration::from_millis(1_500);
/// All stores are in this process, so their clocks are the same.
const SKEW: Duration = Duration::from_millis(1);

const INTERNAL: DynamoError = DynamoError { status: 500, code: "InternalServerError" };
const UNAVAILABLE: DynamoError = DynamoError { status: 503, code: "ServiceUnavailable" };
const THROTTLED: DynamoError = DynamoError { status: 400, code: "ThrottlingException" };
const THROUGHPUT: DynamoError = DynamoError { status: 400, code: "ProvisionedThroughputExceededException" };
const REQUEST_LIMIT: DynamoError = DynamoError { status: 400, code: "RequestLimitExceeded" };
const DENIED: DynamoError = DynamoError { status: 400, code: "AccessDeniedException" };

/// An emulator, a store that reaches it through a proxy, and one that reaches it undisturbed.
struct Bed {
    _server: DynamoServer,
    proxy: DynamoProxy,
    store: DynamoStore,
    direct: DynamoStore,
}

impl Bed {
    async fn start() -> Self {
        let server = DynamoServer::start().unwrap();
        let proxy = DynamoProxy::start(server.address()).await.unwrap();
        // The one creates the table, the other finds it.
        let direct = DynamoStore::connect(config(server.url())).await.unwrap();
        let store = through(&proxy).await;
        Self { _server: server, proxy, store, direct }
    }

    /// The number of a counter; `None` when there is none.
    async fn count(&self, key: &StateKey) -> Option<u64> {
        let entry = self.direct.get(key, Get::default()).await.unwrap()?;
        Some(std::str::from_utf8(&entry.value).unwrap().parse().unwrap())
    }

    /// Waits until nothing is delayed any more.
    async fn until_settled(&self) {
        until("all requests are settled", async || self.proxy.under_way() == 0).await;
    }
}

fn config(url: String) -> DynamoConfig {
    DynamoConfig {
        url: Some(url),
        region: Some("us-east-1".to_owned()),
        table_name: "acteon-service".to_owned(),
        skew_max: SKEW,
        // What is not meant to be late is not, on a machine that does many other things.
        attempt_timeout: PATIENCE,
        operation_timeout: PATIENCE,
        ..DynamoConfig::default()
    }
}

/// A store that gives up on answers, through a proxy.
async fn through(proxy: &DynamoProxy) -> DynamoStore {
    let config = DynamoConfig {
        attempt_timeout: ATTEMPT_TIMEOUT,
        operation_timeout: 4 * ATTEMPT_TIMEOUT,
        ..config(proxy.url())
    };
    DynamoStore::connect(config).await.unwrap()
}

fn key(id: &str) -> StateKey {
    StateKey::new("tests", "acme", "service", id).unwrap()
}

/// Whether this operation of the service changes something.
fn is_write(operation: &str) -> bool {
    matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem" | "TransactWriteItems")
}

/// The fault for every write; reads pass.
fn on_writes(fault: DynamoFault) -> impl Fn(&str) -> DynamoFault {
    move |operation| if is_write(operation) { fault } else { DynamoFault::None }
}

/// The fault for the next write; everything else passes.
fn once(fault: DynamoFault) -> impl Fn(&str) -> DynamoFault {
    let is_left = std::sync::atomic::AtomicBool::new(true);
    move |operation| {
        let is_hit = is_write(operation) && is_left.swap(false, std::sync::atomic::Ordering::Relaxed);
        if is_hit { fault } else { DynamoFault::None }
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
