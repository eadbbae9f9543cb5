//! The pipeline over a Redis of its own, which asks for claim, limits and lock in one round trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_dispatch::providers::Registry;
use acteon_dispatch::providers::config::ProviderConfig;
use acteon_dispatch::rules::{LoadOptions, Rules, load_text};
use acteon_dispatch::{Action, DispatchError, DispatchMetrics, DispatchOptions, Dispatcher, Outcome};
use acteon_state_core::layer::{Around, Layered};
use acteon_state_core::operation::{Call, Operation, Reply};
use acteon_state_core::{Effect, Error, ErrorKind, LockAttempt, State, StateKey};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

/// What a test waits for at most: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);
const RULES: &str = "{ name: once, action: { deduplicate: { ttl: 10m } } },
    { name: few, action: { throttle: { key: [tenant], limit: 3, window: 1h } } },
    { name: evenly, action: { throttle: { key: [tenant], limit: 1000, window: 1s, algorithm: gcra } } }";

/// A layer that counts round trips: calls that are under way at the same moment are one.
#[derive(Clone, Debug, Default)]
struct Trips {
    under_way: Arc<AtomicUsize>,
    count: Arc<AtomicUsize>,
    operations: Arc<Mutex<Vec<&'static str>>>,
    /// The next answer about gates is lost.
    loses_gates: Arc<AtomicBool>,
}

impl Trips {
    /// How many there were since the last time, and which calls they were made of.
    fn take(&self) -> (usize, Vec<&'static str>) {
        let mut operations = std::mem::take(&mut *self.operations.lock());
        operations.sort_unstable();
        (self.count.swap(0, Ordering::SeqCst), operations)
    }
}

impl Around for Trips {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, acteon_state_core::Result<T>> + Send + Sync + 'a,
    ) -> acteon_state_core::Result<T> {
        if self.under_way.fetch_add(1, Ordering::SeqCst) == 0 {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        self.operations.lock().push(call.operation.as_str());
        let answer = attempt().await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        if call.operation == Operation::Admit && self.loses_gates.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Timeout, "the answer was lost").with_effect(Effect::Unknown));
        }
        answer
    }
}

struct Server {
    dispatcher: Dispatcher,
    trips: Trips,
    _redis: RedisServer,
}

async fn server(rules: &str) -> Server {
    let redis = RedisServer::start(RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let store = RedisStore::connect(RedisConfig::from_url(&redis.url()).unwrap()).await.unwrap();
    let trips = Trips::default();
    let state = State::new(Layered::wrap(Arc::new(store), trips.clone()));
    let rules = load_text(vec![("rules.yaml".into(), format!("rules: [{rules}]"))], LoadOptions::default()).unwrap();
    let registry = Registry::from_config(&[ProviderConfig::log("log")]).unwrap();
    let metrics = DispatchMetrics::register(&mut prometheus_client::registry::Registry::default());
    let options = DispatchOptions { lock_wait: PATIENCE, ..DispatchOptions::default() };
    let dispatcher = Dispatcher::new(state, Arc::new(Rules::fixed(rules)), Arc::new(registry), options, metrics);
    Server { dispatcher, trips, _redis: redis }
}

fn action(dedup_key: &str) -> Action {
    let action = Action::new("demo", "acme", "log", "greet", json!({"to": "ada"}));
    Action { dedup_key: Some(dedup_key.to_owned()), ..action }
}

fn lock_of(action: &Action) -> StateKey {
    StateKey::new(&action.namespace, &action.tenant, "action", &action.id).unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

/// Before, claim, each limit and the lock were round trips of their own: five for this action.
#[tokio::test]
async fn an_action_takes_two_round_trips_at_most() {
    let Server { dispatcher, trips, _redis } = server(RULES).await;
    let cases = [
        ("a", "executed", 2, vec!["admit", "lock_release", "put"]),
        ("a", "deduplicated", 1, vec!["admit"]),
        ("b", "executed", 2, vec!["admit", "lock_release", "put"]),
        ("c", "executed", 2, vec!["admit", "lock_release", "put"]),
        ("d", "throttled", 2, vec!["admit", "delete"]),
        ("c", "deduplicated", 1, vec!["admit"]),
    ];
    for (key, status, count, operations) in cases {
        assert_eq!(dispatcher.dispatch(action(key)).await.unwrap().status(), status, "{key}");
        assert_eq!(trips.take(), (count, operations), "{key}, {status}");
    }
    let Server { dispatcher, trips, _redis } = server("").await;
    assert_eq!(dispatcher.dispatch(action("a")).await.unwrap().status(), "executed");
    assert_eq!(trips.take(), (2, vec!["lock_acquire", "lock_release"]), "without rules");
}

#[tokio::test]
async fn a_scheduled_action_takes_no_lock() {
    let Server { dispatcher, trips, _redis } = server(RULES).await;
    let deliver_at = Some(Timestamp::now().saturating_add(Duration::from_secs(3_600)).unwrap());
    let scheduled = Action { deliver_at, ..action("later") };
    assert_eq!(dispatcher.dispatch(scheduled.clone()).await.unwrap().status(), "scheduled");
    assert_eq!(trips.take(), (3, vec!["admit", "put", "schedule"]));
    assert_eq!(dispatcher.state().inspect_lock(&lock_of(&scheduled)).await.unwrap(), None);
}

#[tokio::test]
async fn an_action_that_is_executed_elsewhere_waits_and_uses_up_its_limit_once() {
    let Server { dispatcher, trips, _redis } = server(RULES).await;
    let waiting = action("waits");
    let attempt = dispatcher.state().try_lock(&lock_of(&waiting), Duration::from_secs(60)).await.unwrap();
    let LockAttempt::Acquired(elsewhere) = attempt else { panic!("nobody holds it") };
    trips.take();
    let release = async {
        until("it waits for the lock", async || trips.operations.lock().contains(&"lock_acquire")).await;
        elsewhere.release().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(dispatcher.dispatch(waiting), release);
    assert_eq!(outcome.unwrap().status(), "executed");
    for (key, status) in [("b", "executed"), ("c", "executed"), ("d", "throttled")] {
        assert_eq!(dispatcher.dispatch(action(key)).await.unwrap().status(), status, "{key}");
    }
}

/// The claim and the lock may have been granted, and nobody was told of it: a retry must not wait for their leases.
#[tokio::test]
async fn after_a_lost_answer_the_claim_and_the_lock_are_given_back() {
    let Server { dispatcher, trips, _redis } = server(RULES).await;
    let lost = action("lost");
    trips.loses_gates.store(true, Ordering::SeqCst);
    let error = dispatcher.dispatch(lost.clone()).await.unwrap_err();
    assert!(matches!(error, DispatchError::State { stage: "deduplicate", .. }), "{error}");
    until("nobody holds the lock", async || {
        let state = dispatcher.state().inspect_lock(&lock_of(&lost)).await.unwrap();
        state.is_some_and(|state| state.holders.is_empty())
    })
    .await;
    until("the claim is given back", async || {
        let outcome = dispatcher.dispatch(lost.clone()).await.unwrap();
        matches!(outcome, Outcome::Executed { .. })
    })
    .await;
}
