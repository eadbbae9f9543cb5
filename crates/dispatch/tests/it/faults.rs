//! The pipeline under faults of the store and of providers: answers that come late, outages at the worst moment, workers
//! that die, keys that changed hands meanwhile.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acteon_dispatch::providers::config::ProviderConfig;
use acteon_dispatch::providers::{ErrorCode, ExecuteContext, Provider, ProviderError, Receipt, Registry};
use acteon_dispatch::rules::{LoadOptions, Rules, load_text};
use acteon_dispatch::{Action, DispatchMetrics, DispatchOptions, Dispatcher, Effect, Outcome, WorkerOptions};
use acteon_state_core::layer::deadline::{self, Deadline};
use acteon_state_core::layer::{Around, Layered};
use acteon_state_core::operation::{Call, Operation, Reply};
use acteon_state_core::{ClaimDue, Error, ErrorKind, Scan, Scope, State, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a test waits for at most: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a provider does with each action, told by its payload: `{"work_ms": 5}`, `{"fail": true}`, `{"panic": true}`.
#[derive(Debug, Default)]
struct Puppet {
    executed: Mutex<Vec<String>>,
    begun: AtomicUsize,
}

impl Puppet {
    fn count(&self, action: &Action) -> usize {
        self.executed.lock().unwrap().iter().filter(|id| **id == action.id).count()
    }
}

#[async_trait]
impl Provider for Puppet {
    fn name(&self) -> &str {
        "puppet"
    }

    fn kind(&self) -> &'static str {
        "puppet"
    }

    async fn execute(&self, action: &Action, _ctx: &ExecuteContext) -> Result<Receipt, ProviderError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(action.payload["work_ms"].as_u64().unwrap_or(0))).await;
        self.executed.lock().unwrap().push(action.id.clone());
        assert!(action.payload["panic"].is_null(), "the puppet was told to panic");
        if action.payload["fail"] == true {
            let (code, message) = (ErrorCode::HttpStatus, "told to fail".to_owned());
            return Err(ProviderError { code, message, retryable: false, effect: Effect::NotApplied, attempts: 1 });
        }
        Ok(Receipt { attempts: 1, detail: Value::Null })
    }
}

/// A layer that makes trouble.
#[derive(Clone, Debug, Default)]
struct Trouble {
    /// Nothing is answered, and nothing done.
    outage: Arc<AtomicBool>,
    /// Puts are done at once and answered late.
    late_puts: Arc<AtomicBool>,
    /// Everything is done at once and answered so late.
    delay: Option<Duration>,
    /// Cancelled by the first claim that finds something.
    on_claim: Option<CancellationToken>,
}

impl Around for Trouble {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, acteon_state_core::Result<T>> + Send + Sync + 'a,
    ) -> acteon_state_core::Result<T> {
        if self.outage.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "an outage of the test"));
        }
        let answer = attempt().await;
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay).await;
        }
        if call.operation == Operation::Put && self.late_puts.swap(false, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if call.operation == Operation::ClaimDue
            && let Some(cancel) = &self.on_claim
        {
            cancel.cancel();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        answer
    }
}

struct Server {
    dispatcher: Dispatcher,
    puppet: Arc<Puppet>,
    trouble: Trouble,
}

fn server(rules: &str, trouble: Trouble, options: DispatchOptions) -> Server {
    let (puppet, mut registry) = (Arc::new(Puppet::default()), Registry::default());
    registry.insert(puppet.clone(), &ProviderConfig::log("puppet")).unwrap();
    let rules = load_text(vec![("rules.yaml".into(), format!("rules: [{rules}]"))], LoadOptions::default()).unwrap();
    let metrics = DispatchMetrics::register(&mut prometheus_client::registry::Registry::default());
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
    // As stores are that the configuration makes: a bound for each call, around everything that takes time.
    let store = Layered::wrap(Layered::wrap(store, trouble.clone()), Deadline::new(PATIENCE));
    let state = State::new(store);
    let dispatcher = Dispatcher::new(state, Arc::new(Rules::fixed(rules)), Arc::new(registry), options, metrics);
    Server { dispatcher, puppet, trouble }
}

fn quick() -> DispatchOptions {
    let worker = WorkerOptions {
        visibility: Duration::from_millis(300),
        poll: Duration::from_millis(20),
        attempts_max: 2,
        backoff: Duration::from_millis(10),
        ..WorkerOptions::default()
    };
    DispatchOptions { worker, ..DispatchOptions::default() }
}

fn once(ttl: &str) -> String {
    format!("{{ name: once, action: {{ deduplicate: {{ ttl: {ttl} }} }} }}")
}

fn action(payload: Value) -> Action {
    let action = Action::new("demo", "acme", "puppet", "greet", payload);
    Action { dedup_key: Some("k".to_owned()), ..action }
}

fn in_ms(action: &Action, ms: u64) -> Action {
    let deliver_at = Timestamp::now().saturating_add(Duration::from_millis(ms)).unwrap();
    Action { deliver_at: Some(deliver_at), ..action.clone() }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

async fn original_id(dispatcher: &Dispatcher) -> Option<String> {
    match dispatcher.dispatch(action(json!({}))).await.unwrap() {
        Outcome::Deduplicated { original, .. } => original.map(|original| original.action_id().to_owned()),
        other => panic!("not recognised as a duplicate: {other:?}"),
    }
}

async fn dead_ids(dispatcher: &Dispatcher) -> Vec<String> {
    let dead = Scan::new(Scope::new("demo", "acme", "dead").unwrap());
    let dead: Vec<_> = dispatcher.state().scan(dead).try_collect().await.unwrap();
    dead.into_iter().map(|item| item.key.id().to_owned()).collect()
}

/// A claim whose last renewal was under way when the action ended was taken for lost: the outcome was not recorded, and
/// after the lease the duplicate was executed.
#[tokio::test]
async fn an_outcome_is_recorded_although_a_renewal_was_under_way() {
    let options = DispatchOptions { claim_lease: Duration::from_millis(600), ..quick() };
    let Server { dispatcher, trouble, .. } = server(&once("1h"), Trouble::default(), options);
    let first = action(json!({"work_ms": 400}));
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        trouble.late_puts.store(true, Ordering::SeqCst);
    };
    let (outcome, ()) = tokio::join!(dispatcher.dispatch(first.clone()), late);
    assert_eq!(outcome.unwrap().status(), "executed");
    assert!(!trouble.late_puts.load(Ordering::SeqCst), "the renewal was under way");
    assert_eq!(original_id(&dispatcher).await, Some(first.id));
}

/// The outcome of an executed action was given up after one failed write, so its duplicate was executed after the lease.
#[tokio::test]
async fn an_outcome_is_recorded_after_an_outage_even_when_the_claim_has_expired() {
    let options = DispatchOptions { claim_lease: Duration::from_millis(200), ..quick() };
    let Server { dispatcher, trouble, puppet } = server(&once("1h"), Trouble::default(), options);
    let first = action(json!({"work_ms": 100}));
    let breaks = async {
        until("the work has begun", async || puppet.begun.load(Ordering::SeqCst) == 1).await;
        trouble.outage.store(true, Ordering::SeqCst);
    };
    let (outcome, ()) = tokio::join!(dispatcher.dispatch(first.clone()), breaks);
    assert_eq!(outcome.unwrap().status(), "executed");
    tokio::time::sleep(Duration::from_millis(300)).await;
    trouble.outage.store(false, Ordering::SeqCst);
    assert!(dispatcher.drain(PATIENCE).await, "the claim is settled");
    assert_eq!(original_id(&dispatcher).await, Some(first.id));
}

/// A delivery wrote its outcome over whatever stood under its deduplication key, also over the claim of the next action.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_leaves_the_claim_of_the_next_action_alone() {
    let Server { dispatcher, puppet, .. } = server(&once("1s"), Trouble::default(), quick());
    let (first, second) = (action(json!({})), action(json!({"work_ms": 1_000})));
    dispatcher.dispatch(in_ms(&first, 1_300)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let _worker = dispatcher.spawn_worker(CancellationToken::new());
    assert_eq!(dispatcher.dispatch(second.clone()).await.unwrap().status(), "executed");
    assert_eq!(puppet.count(&first), 1, "delivered while the second one was executed");
    assert_eq!(original_id(&dispatcher).await, Some(second.id));
}

/// A scheduled action that was given up went on blocking its duplicates as `scheduled`.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_was_given_up_gives_its_key_back() {
    let Server { dispatcher, .. } = server(&once("1h"), Trouble::default(), quick());
    let _worker = dispatcher.spawn_worker(CancellationToken::new());
    let hopeless = action(json!({"fail": true}));
    dispatcher.dispatch(in_ms(&hopeless, 10)).await.unwrap();
    until("the next one runs", async || dispatcher.dispatch(action(json!({}))).await.unwrap().status() == "executed")
        .await;
    assert_eq!(dead_ids(&dispatcher).await, [hopeless.id]);
}

/// An item that takes its server down was delivered again without end.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_deliveries_never_end_is_put_aside() {
    let Server { dispatcher, puppet, .. } = server("", Trouble::default(), quick());
    let deadly = action(json!({}));
    dispatcher.dispatch(in_ms(&deadly, 10)).await.unwrap();
    let queue = StateKey::new("acteon", "dispatch", "queue", "scheduled").unwrap();
    let claim = ClaimDue { limit: 1, visibility: Duration::from_millis(5) };
    for _ in 0..2 {
        // A worker that dies between its claim and its acknowledgement leaves exactly this behind.
        let store = dispatcher.state();
        until("it was claimed", async || !store.claim_due(&queue, claim).await.unwrap().items.is_empty()).await;
    }
    let _worker = dispatcher.spawn_worker(CancellationToken::new());
    until("it is put aside", async || dead_ids(&dispatcher).await == [deadly.id.clone()]).await;
    assert_eq!(puppet.count(&deadly), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_panics_uses_up_its_attempts() {
    let Server { dispatcher, puppet, .. } = server("", Trouble::default(), quick());
    let _worker = dispatcher.spawn_worker(CancellationToken::new());
    let deadly = action(json!({"panic": true}));
    dispatcher.dispatch(in_ms(&deadly, 10)).await.unwrap();
    until("it is put aside", async || dead_ids(&dispatcher).await == [deadly.id.clone()]).await;
    assert_eq!(puppet.count(&deadly), 2, "attempts_max");
}

/// An action that waited for its lock used up its attempts and was given up without ever being tried.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_busy_lock_uses_up_no_attempts() {
    let options = DispatchOptions { lock_wait: Duration::from_millis(5), ..quick() };
    let Server { dispatcher, puppet, .. } = server("", Trouble::default(), options);
    let waiting = action(json!({}));
    let key = StateKey::new("demo", "acme", "action", &waiting.id).unwrap();
    let attempt = dispatcher.state().try_lock(&key, Duration::from_secs(60)).await.unwrap();
    let acteon_state_core::LockAttempt::Acquired(elsewhere) = attempt else { panic!("nobody holds it") };
    let _worker = dispatcher.spawn_worker(CancellationToken::new());
    dispatcher.dispatch(in_ms(&waiting, 10)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    elsewhere.release().await.unwrap();
    until("it was executed", async || puppet.count(&waiting) == 1).await;
    assert!(dead_ids(&dispatcher).await.is_empty());
}

/// A delivery whose acknowledgement met an outage was delivered again, though it was known to be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_acknowledged_after_an_outage() {
    let mut options = quick();
    options.worker.visibility = Duration::from_secs(60);
    let Server { dispatcher, trouble, puppet } = server("", Trouble::default(), options);
    let only = action(json!({"work_ms": 100}));
    dispatcher.dispatch(in_ms(&only, 10)).await.unwrap();
    let cancel = CancellationToken::new();
    dispatcher.spawn_worker(cancel.clone());
    until("the work has begun", async || puppet.begun.load(Ordering::SeqCst) == 1).await;
    trouble.outage.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    trouble.outage.store(false, Ordering::SeqCst);
    cancel.cancel();
    assert!(dispatcher.drain(PATIENCE).await);
    assert_eq!(puppet.count(&only), 1);
    let queue = StateKey::new("acteon", "dispatch", "queue", "scheduled").unwrap();
    let id = format!("demo/acme/{}#4.4", only.id);
    assert!(!dispatcher.state().cancel(&queue, &id).await.unwrap(), "it is still in the queue");
}

/// A worker that was stopped in the middle of a claim left its items claimed by nobody until their visibility ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_at_shutdown_is_delivered_before_the_drain_ends() {
    let cancel = CancellationToken::new();
    let trouble = Trouble { on_claim: Some(cancel.clone()), ..Trouble::default() };
    let Server { dispatcher, puppet, .. } = server("", trouble, DispatchOptions::default());
    let last = action(json!({"work_ms": 50}));
    dispatcher.dispatch(in_ms(&last, 10)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let worker = dispatcher.spawn_worker(cancel);
    assert!(dispatcher.drain(PATIENCE).await);
    assert_eq!(puppet.count(&last), 1);
    worker.await.unwrap();
}

/// The first step of a dispatch, which is taken in the caller's task, was under the caller's deadline, and the rest was not: a claim that was
/// made was given up unanswered. A dispatch that was begun is finished, whoever waits for it and how long.
#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_caller_is_none_for_the_dispatch() {
    let trouble = Trouble { delay: Some(Duration::from_millis(80)), ..Trouble::default() };
    let Server { dispatcher, puppet, .. } = server(&once("1h"), trouble, quick());
    for patience in [Duration::from_millis(50), Duration::ZERO] {
        let action = Action { dedup_key: Some(format!("{patience:?}")), ..action(json!({})) };
        let outcome = deadline::until(Instant::now() + patience, dispatcher.dispatch(action.clone())).await;
        assert_eq!(outcome.unwrap().status(), "executed");
        assert_eq!(puppet.count(&action), 1);
    }
}

/// A grant that comes after its lease, as after a machine that stood still, is none: somebody else may have the lock by now.
#[tokio::test]
async fn a_lock_whose_grant_came_too_late_begins_nothing() {
    let lock_lease = Duration::from_millis(10);
    let trouble = Trouble { delay: Some(lock_lease * 2), ..Trouble::default() };
    let options = DispatchOptions { lock_lease, ..quick() };
    let Server { dispatcher, puppet, .. } = server(&once("1h"), trouble, options);
    match dispatcher.dispatch(action(json!({}))).await.unwrap() {
        Outcome::Failed { error, attempts, .. } => {
            assert_eq!((error.code.as_str(), error.retryable, attempts), ("cancelled", true, 0));
        }
        other => panic!("it was executed without its lock: {other:?}"),
    }
    assert_eq!(puppet.begun.load(Ordering::SeqCst), 0);
}
