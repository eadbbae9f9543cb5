//! What each operation costs, as the page about this backend tells it: requests, read units and write units.
//!
//! Measured by [`DynamoStore::capacity`] on the emulator, which reports units as the service does. Of a refused condition the
//! service does not report what it costs, which is a write of the item that it looked at: those are added here.

use std::future::Future;
use std::time::Duration;

use acteon_state_core::{
    BatchOp, ClaimDue, Condition, Counting, DueAt, FencingToken, Get, Increment, LockRequest, Put, RateLimit, Result,
    Scan, Schedule, Scope, StateKey, StateStore as _, TransactOp, Ttl,
};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_test_support::DynamoServer;

use crate::{config, key, until};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/backends/dynamodb.md");
/// Encloses the table in the page.
const MARK: &str = "<!-- requests -->";
const HEAD: &str = "| operation | requests | read units | write units |\n|---|---:|---:|---:|\n";
const HOUR: Duration = Duration::from_secs(3_600);
const MOMENT: Duration = Duration::from_millis(1);

/// Measures operations one after the other and writes the table.
struct Meter<'a> {
    store: &'a DynamoStore,
    table: String,
}

impl Meter<'_> {
    async fn row<T>(&mut self, name: &str, operation: impl Future<Output = Result<T>>) -> T {
        self.row_with(name, 0, operation).await
    }

    /// Adds a row for an operation of which so many writes are refused.
    async fn row_with<T>(&mut self, name: &str, refused: u8, operation: impl Future<Output = Result<T>>) -> T {
        let capacity = self.store.capacity();
        let (before, sent_before) = (capacity.total(), capacity.sent());
        let outcome = operation.await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (after, sent) = (capacity.total(), capacity.sent() - sent_before);
        let requests = after.requests - before.requests;
        assert_eq!(requests, sent, "{name}: requests that were counted, and those that left");
        let read = after.read_units - before.read_units;
        let write = after.write_units - before.write_units + f64::from(refused);
        self.table.push_str(&format!("| {name} | {requests} | {read} | {write} |\n"));
        outcome
    }
}

/// Waits until an entry has expired. Its item is still there.
async fn until_expired(store: &DynamoStore, key: &StateKey) {
    until("the entry expires", async || store.get(key, Get::default()).await.unwrap().is_none()).await;
}

async fn values(meter: &mut Meter<'_>) {
    let store = meter.store;
    let (value, absent, expired) = (key("value"), key("absent"), key("expired"));
    let fence = FencingToken::new(7).unwrap();
    let put = Put::new("v");
    meter.row("put", store.put(&value, &put)).await;
    meter.row("get", store.get(&value, Get::default())).await;
    meter.row("put, if absent", store.put(&absent, &Put::new("v").if_absent())).await;
    meter.row_with("put, if absent, refused", 1, store.put(&absent, &Put::new("v").if_absent())).await;
    let next = Put::new("v").if_version(put.version);
    meter.row("put, if version", store.put(&value, &next)).await;
    meter.row("put, fenced", store.put(&value, &Put::new("v").fenced_by(fence))).await;
    store.put(&expired, &Put::new("v").fenced_by(fence).ttl(Ttl::After(MOMENT))).await.unwrap();
    until_expired(store, &expired).await;
    meter.row_with("put over an expired entry that had a fence", 1, store.put(&expired, &Put::new("v"))).await;
    meter.row("touch", store.touch(&value, Ttl::After(HOUR))).await;
    meter.row("take", store.take(&value)).await;
    meter.row("delete", store.delete(&absent, Condition::Always)).await;
}

async fn counters(meter: &mut Meter<'_>) {
    let store = meter.store;
    let (counter, window) = (key("counter"), key("window"));
    let bounded = Increment::by(1).at_most(2);
    meter.row("increment", store.increment(&counter, bounded)).await;
    store.increment(&counter, bounded).await.unwrap();
    meter.row_with("increment, refused by its bound", 1, store.increment(&counter, bounded)).await;
    let clamped = Increment::by(5).at_most(4).clamped();
    meter.row_with("increment, clamped to its bound", 1, store.increment(&counter, clamped)).await;
    store.increment(&window, Increment::by(1).window(Counting::OnCreate(MOMENT))).await.unwrap();
    until_expired(store, &window).await;
    let again = Increment::by(1).window(Counting::OnCreate(HOUR));
    meter.row_with("increment, first after a window", 1, store.increment(&window, again)).await;
}

async fn rates(meter: &mut Meter<'_>) {
    let store = meter.store;
    let (fixed, gcra, sliding) = (key("fixed"), key("gcra"), key("sliding"));
    let limit = RateLimit::fixed_window(2, HOUR);
    meter.row("rate limit, fixed window", store.rate_limit(&fixed, &limit)).await;
    store.rate_limit(&fixed, &limit).await.unwrap();
    meter.row_with("rate limit, fixed window, refused", 1, store.rate_limit(&fixed, &limit)).await;
    let ended = key("ended");
    let short = RateLimit::fixed_window(2, MOMENT);
    store.rate_limit(&ended, &short).await.unwrap();
    tokio::time::sleep(20 * MOMENT).await;
    meter.row_with("rate limit, fixed window, first after a window", 1, store.rate_limit(&ended, &limit)).await;
    let limit = RateLimit::gcra(2, HOUR, 2);
    meter.row("rate limit, GCRA, idle", store.rate_limit(&gcra, &limit)).await;
    meter.row_with("rate limit, GCRA, burst in use", 1, store.rate_limit(&gcra, &limit)).await;
    meter.row_with("rate limit, GCRA, refused", 1, store.rate_limit(&gcra, &limit)).await;
    let limit = || RateLimit::sliding_window(2, HOUR);
    meter.row("rate limit, sliding window, first", store.rate_limit(&sliding, &limit())).await;
    meter.row("rate limit, sliding window", store.rate_limit(&sliding, &limit())).await;
    meter.row("rate limit, sliding window, refused", store.rate_limit(&sliding, &limit())).await;
}

async fn many(meter: &mut Meter<'_>) {
    let store = meter.store;
    let keys: Vec<_> = (0..100).map(|number| key(&format!("many {number}"))).collect();
    let puts: Vec<_> = keys.iter().map(|key| BatchOp::Put(key.clone(), Put::new("v"))).collect();
    meter.row("batch of 100 puts", store.batch(&puts)).await;
    let gets: Vec<_> = keys.iter().map(|key| BatchOp::Get(key.clone(), Get::default())).collect();
    meter.row("batch of 100 gets", store.batch(&gets)).await;
    let ops =
        [TransactOp::Put(keys[0].clone(), Put::new("v")), TransactOp::Increment(key("transacted"), Increment::by(1))];
    meter.row("transact of 2 operations", store.transact(&ops)).await;
    let scope = Scope::new("tests", "acme", "listed").unwrap();
    for number in 0..100 {
        store.put(&scope.key(&format!("{number}")).unwrap(), &Put::new("v")).await.unwrap();
    }
    meter.row("scan, all 100 keys of a scope", store.scan(&Scan::new(scope))).await;
}

async fn due(meter: &mut Meter<'_>) {
    let (store, queue) = (meter.store, key("queue"));
    let schedule = |id: &str| Schedule { id: id.to_owned(), due_at: DueAt::After(Duration::ZERO), payload: "p".into() };
    let claim = ClaimDue { limit: 10, visibility: HOUR };
    meter.row("schedule", store.schedule(&queue, &schedule("one"))).await;
    meter.row("cancel", store.cancel(&queue, "one")).await;
    meter.row("claim due, nothing there", store.claim_due(&queue, claim)).await;
    store.schedule(&queue, &schedule("two")).await.unwrap();
    let token = meter.row("claim due, 1 item", store.claim_due(&queue, claim)).await.items[0].token;
    meter.row("extend claim", store.extend_claim(&queue, "two", token, 2 * HOUR)).await;
    meter.row("acknowledge", store.ack(&queue, "two", token)).await;
}

async fn locks(meter: &mut Meter<'_>) {
    let (store, lock) = (meter.store, key("lock"));
    let request = || LockRequest::new(lock.clone(), HOUR);
    let (first, second) = (request(), request());
    meter.row("lock acquire, first ever", store.lock_acquire(&first)).await;
    meter.row("lock extend", store.lock_extend(&lock, first.owner, HOUR)).await;
    meter.row("lock release", store.lock_release(&lock, first.owner)).await;
    meter.row("lock acquire", store.lock_acquire(&second)).await;
    meter.row_with("lock acquire, refused", 1, store.lock_acquire(&request())).await;
    meter.row("lock inspect", store.lock_inspect(&lock)).await;
    meter.row("lock force release", store.lock_force_release(&lock, "a test")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_takes_the_requests_and_units_that_its_page_says() {
    let server = DynamoServer::start().unwrap();
    let store = DynamoStore::connect(config(server.url())).await.unwrap();
    let mut meter = Meter { store: &store, table: HEAD.to_owned() };
    meter.row("ping", store.ping()).await;
    values(&mut meter).await;
    counters(&mut meter).await;
    rates(&mut meter).await;
    many(&mut meter).await;
    due(&mut meter).await;
    locks(&mut meter).await;
    let eventual = DynamoConfig { consistent_reads: false, ..config(server.url()) };
    let eventual = DynamoStore::connect(eventual).await.unwrap();
    let mut half = Meter { store: &eventual, table: meter.table };
    half.row("get, eventually consistent", eventual.get(&key("many 0"), Get::default())).await;
    let measured = half.table;
    let page = std::fs::read_to_string(PAGE).unwrap_or_default();
    let told = page.split(MARK).nth(1).unwrap_or_default().trim();
    assert!(told == measured.trim(), "docs/backends/dynamodb.md says\n\n{told}\n\nand measured is\n\n{measured}");
}
