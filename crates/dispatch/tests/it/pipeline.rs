//! The pipeline from outside, over the memory engine: two dispatchers on one store stand for two servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acteon_dispatch::providers::config::ProviderConfig;
use acteon_dispatch::providers::{ErrorCode, ExecuteContext, Provider, ProviderError, Receipt, Registry};
use acteon_dispatch::rules::{LoadOptions, Rules, load_text};
use acteon_dispatch::{
    Action, DispatchError, DispatchMetrics, DispatchOptions, Dispatcher, Effect, OnStateError, Outcome, WorkerOptions,
};
use acteon_state_core::layer::degrade::{self, Bounds, Degradation, Policies};
use acteon_state_core::layer::{Around, Layered, Layers};
use acteon_state_core::operation::{Call, Reply};
use acteon_state_core::{Error, ErrorKind, Scan, Scope, State, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const ONCE: &str = "{ name: once, action: { deduplicate: { ttl: 10m } } }";
/// What a test waits for at most: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A provider that counts, and fails or waits when told to.
#[derive(Debug)]
struct Probe {
    executions: Mutex<HashMap<String, usize>>,
    running: AtomicUsize,
    overlapped: AtomicBool,
    failures_left: AtomicUsize,
    retryable: AtomicBool,
    work: Duration,
    gate: Semaphore,
}

impl Probe {
    fn new() -> Self {
        Self {
            executions: Mutex::default(),
            running: AtomicUsize::new(0),
            overlapped: AtomicBool::new(false),
            failures_left: AtomicUsize::new(0),
            retryable: AtomicBool::new(true),
            work: Duration::ZERO,
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }

    fn count(&self, id: &str) -> usize {
        self.executions.lock().unwrap().get(id).copied().unwrap_or(0)
    }

    fn total(&self) -> usize {
        self.executions.lock().unwrap().values().sum()
    }
}

#[async_trait]
impl Provider for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn kind(&self) -> &'static str {
        "probe"
    }

    async fn execute(&self, action: &Action, _ctx: &ExecuteContext) -> Result<Receipt, ProviderError> {
        let _place = self.gate.acquire().await.expect("never closed");
        if self.running.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        tokio::time::sleep(self.work).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        *self.executions.lock().unwrap().entry(action.id.clone()).or_default() += 1;
        let fail = |left: usize| left.checked_sub(1);
        if self.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail).is_ok() {
            let retryable = self.retryable.load(Ordering::SeqCst);
            return Err(ProviderError {
                code: ErrorCode::HttpStatus,
                message: "the probe was told to fail".to_owned(),
                retryable,
                effect: Effect::NotApplied,
                attempts: 1,
            });
        }
        Ok(Receipt { attempts: 1, detail: json!({"seen": action.payload}) })
    }
}

/// One server on a store.
fn server(store: Arc<dyn StateStore>, probe: &Arc<Probe>, rules: &str, options: DispatchOptions) -> Dispatcher {
    server_on(State::new(store), probe, rules, options)
}

fn server_on(state: State, probe: &Arc<Probe>, rules: &str, options: DispatchOptions) -> Dispatcher {
    let mut registry = Registry::default();
    registry.insert(probe.clone(), &ProviderConfig::log("probe")).unwrap();
    let rules = load_text(vec![("rules.yaml".into(), format!("rules: [{rules}]"))], LoadOptions::default()).unwrap();
    let metrics = DispatchMetrics::register(&mut prometheus_client::registry::Registry::default());
    Dispatcher::new(state, Arc::new(Rules::fixed(rules)), Arc::new(registry), options, metrics)
}

fn memory() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::default())
}

fn action(dedup_key: &str) -> Action {
    let action = Action::new("demo", "acme", "probe", "greet", json!({"to": "ada"}));
    Action { dedup_key: Some(dedup_key.to_owned()), ..action }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

#[tokio::test]
async fn a_duplicate_gets_the_outcome_of_the_first() {
    let probe = Arc::new(Probe::new());
    let server = server(memory(), &probe, ONCE, DispatchOptions::default());
    let first = server.dispatch(action("k")).await.unwrap();
    assert!(matches!(first, Outcome::Executed { .. }), "{first:?}");
    match server.dispatch(action("k")).await.unwrap() {
        Outcome::Deduplicated { original, rule, .. } => {
            assert_eq!((rule.as_str(), original), ("once", Some(Box::new(first))));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(probe.total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_action_sent_to_two_servers_at_once_is_executed_once() {
    let (probe, store) = (Arc::new(Probe::new()), memory());
    let servers = [0, 1].map(|_| server(store.clone(), &probe, ONCE, DispatchOptions::default()));
    for round in 0..200 {
        let action = action(&format!("round {round}"));
        let (left, right) = tokio::join!(servers[0].dispatch(action.clone()), servers[1].dispatch(action.clone()));
        let statuses = [left.unwrap().status(), right.unwrap().status()];
        assert_eq!(probe.count(&action.id), 1, "round {round}: {statuses:?}");
        assert!(statuses.contains(&"executed") && statuses.contains(&"deduplicated"), "{statuses:?}");
    }
}

#[tokio::test]
async fn a_failed_action_gives_its_claim_back_so_that_a_retry_runs() {
    let probe = Arc::new(Probe::new());
    probe.failures_left.store(1, Ordering::SeqCst);
    let server = server(memory(), &probe, ONCE, DispatchOptions::default());
    assert_eq!(server.dispatch(action("k")).await.unwrap().status(), "failed");
    assert_eq!(server.dispatch(action("k")).await.unwrap().status(), "executed");
    assert_eq!(server.dispatch(action("k")).await.unwrap().status(), "deduplicated");
    assert_eq!(probe.total(), 2);
}

#[tokio::test]
async fn deduplicating_and_throttling_combine_and_a_throttled_action_may_come_again() {
    let probe = Arc::new(Probe::new());
    let rules = format!("{ONCE}, {{ name: few, action: {{ throttle: {{ key: [tenant], limit: 2, window: 1h }} }} }}");
    let server = server(memory(), &probe, &rules, DispatchOptions::default());
    let mut statuses = Vec::new();
    for key in ["a", "a", "a", "b", "c", "c"] {
        statuses.push(server.dispatch(action(key)).await.unwrap().status());
    }
    let expected = ["executed", "deduplicated", "deduplicated", "executed", "throttled", "throttled"];
    assert_eq!(statuses, expected, "duplicates use up no limit, and a throttled action holds no claim");
}

#[tokio::test]
async fn denied_suppressed_and_rerouted_actions_say_by_which_rule() {
    let probe = Arc::new(Probe::new());
    let rules = "{ name: no, condition: { field: action_type, eq: wipe }, action: deny },
        { name: quiet, condition: { field: tenant, eq: test }, action: suppress },
        { name: elsewhere, condition: { field: provider, eq: old }, action: { reroute: { provider: probe } } }";
    let server = server(memory(), &probe, rules, DispatchOptions::default());
    let denied = server.dispatch(Action { action_type: "wipe".into(), ..action("k") }).await.unwrap();
    assert!(matches!(denied, Outcome::Denied { rule: Some(ref rule), .. } if rule == "no"), "{denied:?}");
    let quiet = server.dispatch(Action { tenant: "test".into(), ..action("k") }).await.unwrap();
    assert!(matches!(quiet, Outcome::Suppressed { ref rule, .. } if rule == "quiet"), "{quiet:?}");
    assert_eq!(probe.total(), 0);
    match server.dispatch(Action { provider: "old".into(), ..action("k") }).await.unwrap() {
        Outcome::Rerouted { from, to, result, .. } => {
            assert_eq!((from.as_str(), to.as_str(), result.status()), ("old", "probe", "executed"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dispatch_whose_caller_went_away_is_finished() {
    let mut probe = Probe::new();
    probe.gate = Semaphore::new(0);
    let probe = Arc::new(probe);
    let server = server(memory(), &probe, ONCE, DispatchOptions::default());
    let abandoned = tokio::time::timeout(Duration::from_millis(20), server.dispatch(action("k"))).await;
    assert!(abandoned.is_err(), "the provider waits at its gate");
    match server.dispatch(action("k")).await.unwrap() {
        Outcome::Deduplicated { original: None, .. } => {}
        other => panic!("the first one is still under way: {other:?}"),
    }
    probe.gate.add_permits(1);
    assert!(server.drain(PATIENCE).await);
    assert_eq!(probe.total(), 1);
}

#[tokio::test]
async fn the_lock_of_an_action_says_who_executes_it() {
    let mut probe = Probe::new();
    probe.gate = Semaphore::new(0);
    let (probe, state) = (Arc::new(probe), State::new(memory()));
    let options = DispatchOptions { node: "web-3, pid 4711".to_owned(), ..DispatchOptions::default() };
    let server = server_on(state.clone(), &probe, "", options);
    let action = action("k");
    let key = StateKey::new(&action.namespace, &action.tenant, "action", &action.id).unwrap();
    let look = async {
        until("it is locked", async || state.inspect_lock(&key).await.unwrap().is_some()).await;
        let holders = state.inspect_lock(&key).await.unwrap().unwrap().holders;
        probe.gate.add_permits(1);
        holders
    };
    let (outcome, holders) = tokio::join!(server.dispatch(action.clone()), look);
    assert_eq!(outcome.unwrap().status(), "executed");
    assert_eq!(holders.iter().map(|holder| holder.meta.as_str()).collect::<Vec<_>>(), ["web-3, pid 4711"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_and_the_claim_are_renewed_for_as_long_as_the_work_takes() {
    let mut probe = Probe::new();
    probe.work = Duration::from_millis(900);
    let (probe, store) = (Arc::new(probe), memory());
    let lease = Duration::from_millis(300);
    let options = DispatchOptions { lock_lease: lease, claim_lease: lease, ..DispatchOptions::default() };
    let servers = [0, 1].map(|_| server(store.clone(), &probe, ONCE, options.clone()));
    let action = action("k");
    let other_key = Action { dedup_key: Some("other".to_owned()), ..action.clone() };
    let late = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        tokio::join!(servers[1].dispatch(action.clone()), servers[1].dispatch(other_key))
    };
    let (first, (duplicate, same_id)) = tokio::join!(servers[0].dispatch(action.clone()), late);
    assert_eq!(first.unwrap().status(), "executed");
    assert_eq!(duplicate.unwrap().status(), "deduplicated", "twice the claim's lease has passed");
    assert_eq!(same_id.unwrap().status(), "executed");
    assert!(!probe.overlapped.load(Ordering::SeqCst), "one action was in execution twice at once");
}

fn quick_worker() -> DispatchOptions {
    let worker = WorkerOptions {
        visibility: Duration::from_millis(300),
        poll: Duration::from_millis(50),
        attempts_max: 3,
        backoff: Duration::from_millis(10),
        ..WorkerOptions::default()
    };
    DispatchOptions { worker, ..DispatchOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_action_is_delivered_by_another_server_and_its_duplicates_learn_of_it() {
    let (probe, store) = (Arc::new(Probe::new()), memory());
    let [first, second] = [0, 1].map(|_| server(store.clone(), &probe, ONCE, quick_worker()));
    let deliver_at = Timestamp::now().saturating_add(Duration::from_millis(100)).unwrap();
    let scheduled = first.dispatch(Action { deliver_at: Some(deliver_at), ..action("k") }).await.unwrap();
    assert!(matches!(scheduled, Outcome::Scheduled { deliver_at: at, .. } if at == deliver_at), "{scheduled:?}");
    assert_eq!(probe.total(), 0);
    drop(first);
    let _worker = second.spawn_worker(CancellationToken::new());
    until("it was executed", async || probe.total() == 1).await;
    assert!(Timestamp::now() >= deliver_at, "not before its time");
    until("duplicates see that it was executed", async || {
        let duplicate = second.dispatch(action("k")).await.unwrap();
        matches!(duplicate, Outcome::Deduplicated { original: Some(original), .. } if original.status() == "executed")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_schedules_delays_an_action() {
    let probe = Arc::new(Probe::new());
    let rules = "{ name: later, action: { schedule: { delay: 100ms } } }";
    let server = server(memory(), &probe, rules, quick_worker());
    let _worker = server.spawn_worker(CancellationToken::new());
    assert_eq!(server.dispatch(action("k")).await.unwrap().status(), "scheduled");
    assert_eq!(probe.total(), 0);
    until("it was executed", async || probe.total() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_worker_died_is_delivered_again() {
    let (probe, store) = (Arc::new(Probe::new()), memory());
    let server = server(store.clone(), &probe, ONCE, quick_worker());
    let deliver_at = Some(Timestamp::now().saturating_add(Duration::from_millis(20)).unwrap());
    server.dispatch(Action { deliver_at, ..action("k") }).await.unwrap();
    // A worker that dies between its claim and its acknowledgement leaves exactly this behind.
    let queue = acteon_state_core::StateKey::new("acteon", "dispatch", "queue", "scheduled").unwrap();
    let claim = acteon_state_core::ClaimDue { limit: 10, visibility: Duration::from_millis(300) };
    until("it was claimed", async || !store.claim_due(&queue, claim).await.unwrap().items.is_empty()).await;
    let _worker = server.spawn_worker(CancellationToken::new());
    until("it was executed", async || probe.total() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_fails_is_tried_again_and_then_put_aside() {
    let (probe, store) = (Arc::new(Probe::new()), memory());
    probe.failures_left.store(2, Ordering::SeqCst);
    let server = server(store.clone(), &probe, "", quick_worker());
    let _worker = server.spawn_worker(CancellationToken::new());
    let soon = Some(Timestamp::now().saturating_add(Duration::from_millis(10)).unwrap());
    let passing = Action { deliver_at: soon, ..action("k") };
    server.dispatch(passing.clone()).await.unwrap();
    until("it was executed in the third attempt", async || probe.count(&passing.id) == 3).await;

    probe.failures_left.store(usize::MAX, Ordering::SeqCst);
    let hopeless = Action { deliver_at: soon, ..action("k") };
    let later = Some(Timestamp::now().saturating_add(Duration::from_millis(10)).unwrap());
    server.dispatch(Action { deliver_at: later, ..hopeless.clone() }).await.unwrap();
    let dead = Scan::new(Scope::new("demo", "acme", "dead").unwrap()).with_entries();
    until("it was put aside", async || {
        let dead: Vec<_> = server.state().scan(dead.clone()).try_collect().await.unwrap();
        dead.iter().any(|item| item.key.id() == hopeless.id)
    })
    .await;
    assert_eq!(probe.count(&hopeless.id), 3, "attempts_max");
    let dead: Vec<_> = server.state().scan(dead).try_collect().await.unwrap();
    assert_eq!(dead.len(), 1);
    let record: Value = serde_json::from_slice(&dead[0].entry.as_ref().unwrap().value).unwrap();
    assert_eq!(record["reason"], "the probe was told to fail");
    assert!(record["payload"].as_str().unwrap().contains(&hopeless.id), "the action is kept");
}

/// A layer that answers nothing while the outage lasts.
#[derive(Debug)]
struct Outage(Arc<AtomicBool>);

impl Around for Outage {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        _call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, acteon_state_core::Result<T>> + Send + Sync + 'a,
    ) -> acteon_state_core::Result<T> {
        if self.0.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "an outage of the test"));
        }
        attempt().await
    }
}

#[tokio::test]
async fn without_a_store_nothing_is_executed_unless_told_to_fail_open_and_the_lock_never_does() {
    let (probe, outage) = (Arc::new(Probe::new()), Arc::new(AtomicBool::new(true)));
    let store = Layered::wrap(memory(), Outage(outage.clone()));
    let closed = server(store.clone(), &probe, ONCE, DispatchOptions::default());
    let error = closed.dispatch(action("k")).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("state_unavailable", true), "{error}");
    let open = DispatchOptions {
        on_state_error_dedup: OnStateError::Open,
        on_state_error_throttle: OnStateError::Open,
        ..DispatchOptions::default()
    };
    let error = server(store, &probe, ONCE, open).dispatch(action("k")).await.unwrap_err();
    assert!(matches!(error, DispatchError::State { stage: "lock", .. }), "{error}");
    assert_eq!(probe.total(), 0);
    outage.store(false, Ordering::SeqCst);
    assert_eq!(closed.dispatch(action("k")).await.unwrap().status(), "executed");
}

/// Locks are elsewhere, so that the outage is one of the data.
#[tokio::test]
async fn without_a_store_known_duplicates_get_their_outcome_when_stale_reads_are_served() {
    let (probe, outage) = (Arc::new(Probe::new()), Arc::new(AtomicBool::new(false)));
    let policies = Policies::new(Degradation::Closed, [("dedup", Degradation::Stale)]);
    let degrade = degrade::Options { policies, last_seen: Bounds::default(), stand_in: None };
    let layers = Layers { degrade: Some(degrade), ..Layers::default() };
    let state = State::with_locks(layers.wrap(Layered::wrap(memory(), Outage(outage.clone()))), memory());
    let options = DispatchOptions { on_state_error_dedup: OnStateError::Stale, ..DispatchOptions::default() };
    let server = server_on(state, &probe, ONCE, options);
    let first = action("known");
    assert_eq!(server.dispatch(first.clone()).await.unwrap().status(), "executed");

    outage.store(true, Ordering::SeqCst);
    let Outcome::Deduplicated { original: Some(original), .. } = server.dispatch(action("known")).await.unwrap() else {
        panic!("its outcome is known")
    };
    assert_eq!((original.status(), original.action_id()), ("executed", first.id.as_str()));
    let error = server.dispatch(action("new")).await.unwrap_err();
    assert!(matches!(error, DispatchError::State { stage: "deduplicate", .. }), "{error}");
    assert_eq!(probe.total(), 1);
}

#[tokio::test]
async fn an_invalid_action_is_refused_by_its_field() {
    let server = server(memory(), &Arc::new(Probe::new()), "", DispatchOptions::default());
    let error = server.dispatch(Action { tenant: String::new(), ..action("k") }).await.unwrap_err();
    assert_eq!(error.code(), "invalid_action");
    assert!(error.to_string().contains("tenant"), "{error}");
}

#[tokio::test]
async fn an_execution_may_be_given_all_the_time_in_the_world() {
    let options = DispatchOptions { execute_timeout: Duration::MAX, ..DispatchOptions::default() };
    let server = server(memory(), &Arc::new(Probe::new()), "", options);
    assert_eq!(server.dispatch(action("k")).await.unwrap().status(), "executed");
}

#[tokio::test]
async fn a_batch_answers_in_its_order() {
    let server = server(memory(), &Arc::new(Probe::new()), ONCE, DispatchOptions::default());
    let actions = vec![action("a"), Action { tenant: String::new(), ..action("b") }, action("c")];
    let ids: Vec<String> = actions.iter().map(|action| action.id.clone()).collect();
    let answers = server.dispatch_batch(actions).await;
    assert_eq!(answers[0].as_ref().unwrap().action_id(), ids[0]);
    assert!(answers[1].is_err());
    assert_eq!(answers[2].as_ref().unwrap().action_id(), ids[2]);
}
