//! Two nodes share one engine: node A embeds and publishes it, node B uses `backend = "redis"` with the URL of A. Both have the same state layer, so
//! what one of them writes, counts, locks or schedules, the other one sees.
//!
//! `cargo run -p shared-engine` runs both as two tasks. As two processes, in two terminals:
//!
//! ```sh
//! cargo run -p shared-engine -- --node a 127.0.0.1:6390
//! cargo run -p shared-engine -- --node b 127.0.0.1:6390
//! ```

mod publish;

use std::error::Error;
use std::time::Duration;

use acteon_state::config::ConnectionUrl;
use acteon_state::{
    ClaimDue, DueAt, DueItem, Increment, LockAttempt, LockOptions, Put, Schedule, State, StateConfig, StateKey,
};
use publish::Published;
use tokio::time::sleep;

type Failure = Box<dyn Error + Send + Sync>;

/// Nodes that share an engine see each other's keys where these begin alike.
const PREFIX: &str = "shop";
const LEASE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look for what only arrives by being looked for.
const POLL: Duration = Duration::from_millis(20);
const USAGE: &str = "usage: shared-engine [--node a|b ADDRESS]";

/// The keys that both nodes use.
struct Keys {
    greeting: StateKey,
    visits: StateKey,
    report: StateKey,
    mails: StateKey,
}

impl Keys {
    fn new() -> acteon_state::Result<Self> {
        let key = |kind, id| StateKey::new("example", "acme", kind, id);
        Ok(Self {
            greeting: key("greeting", "today")?,
            visits: key("visits", "all")?,
            report: key("report", "daily")?,
            mails: key("queue", "mails")?,
        })
    }
}

/// Has the lock first, and delivers what B schedules.
async fn node_a(state: &State) -> Result<(), Failure> {
    let keys = Keys::new()?;
    state.put(&keys.greeting, &Put::new("good morning")).await?;
    let options = LockOptions::new(LEASE).wait(PATIENCE).renew().meta("node a");
    let guard = state.lock(&keys.report, &options).await?.acquired().ok_or("the report is busy")?;
    let token = guard.token();
    println!("a: holds the lock, token {token}");
    println!("a: visit {}", count(state, &keys, 1).await?);

    // B has counted itself once it has found the lock busy.
    while count(state, &keys, 0).await? < 2 {
        sleep(POLL).await;
    }
    println!("a: releases the lock");
    guard.release().await?;

    let mail = next_mail(state, &keys).await?;
    println!("a: delivers the mail {:?}: {:?}", mail.id, String::from_utf8_lossy(&mail.payload));
    state.ack(&keys.mails, &mail).await?;
    // A has been slow, and B has written meanwhile under a newer token: the late write is refused.
    let late = state.put(&keys.report, &Put::new("by a, too late").fenced_by(token)).await?;
    println!("a: a write with token {token} is {}", if late.is_applied() { "applied" } else { "refused" });
    println!("a: the report reads {:?}", read(state, &keys.report).await?);
    Ok(())
}

/// Comes second, waits for the lock, and schedules a mail.
async fn node_b(state: &State) -> Result<(), Failure> {
    let keys = Keys::new()?;
    while count(state, &keys, 0).await? < 1 {
        sleep(POLL).await;
    }
    println!("b: the greeting reads {:?}", read(state, &keys.greeting).await?);
    if let LockAttempt::Acquired(_) = state.try_lock(&keys.report, LEASE).await? {
        return Err("the lock was free while A held it".into());
    }
    println!("b: the lock is busy, so it waits");
    println!("b: visit {}", count(state, &keys, 1).await?);
    let options = LockOptions::new(LEASE).wait(PATIENCE).renew().meta("node b");
    let guard = state.lock(&keys.report, &options).await?.acquired().ok_or("the report is busy")?;
    println!("b: holds the lock, token {}", guard.token());
    state.put(&keys.report, &Put::new("by b").fenced_by(guard.token())).await?;
    guard.release().await?;

    let mail = Schedule { id: "ada".to_owned(), due_at: DueAt::After(POLL), payload: "the report is written".into() };
    state.schedule(&keys.mails, &mail).await?;
    println!("b: has scheduled a mail");
    Ok(())
}

/// Adds to the counter of visits, and returns it.
async fn count(state: &State, keys: &Keys, visits: i64) -> Result<i64, Failure> {
    Ok(state.increment(&keys.visits, Increment::by(visits)).await?.counter().value)
}

async fn read(state: &State, key: &StateKey) -> Result<String, Failure> {
    let entry = state.get(key).await?.ok_or("there is no such value")?;
    Ok(String::from_utf8_lossy(&entry.value).into_owned())
}

/// The next mail that is due; it is handed out again unless it is acknowledged in time.
async fn next_mail(state: &State, keys: &Keys) -> Result<DueItem, Failure> {
    loop {
        let mut claimed = state.claim_due(&keys.mails, ClaimDue { limit: 1, visibility: LEASE }).await?;
        if let Some(mail) = claimed.items.pop() {
            return Ok(mail);
        }
        sleep(POLL).await;
    }
}

/// What another node has in its configuration: `[state] backend = "redis"`, the URL of the node that publishes, and the same prefix.
async fn connect(address: &str) -> Result<State, Failure> {
    let url = Some(ConnectionUrl::new(format!("redis://{address}")));
    let config = StateConfig { url, prefix: Some(PREFIX.to_owned()), ..StateConfig::new("redis") };
    Ok(config.open().await?)
}

async fn run_a(address: &str) -> Result<(), Failure> {
    let published = Published::start(PREFIX, address).await?;
    println!("a: listens on {}", published.address);
    node_a(&published.state).await?;
    published.stop().await
}

async fn run_b(address: &str) -> Result<(), Failure> {
    let state = connect(address).await?;
    node_b(&state).await?;
    Ok(state.close().await?)
}

async fn run_both() -> Result<(), Failure> {
    let published = Published::start(PREFIX, "127.0.0.1:0").await?;
    let address = published.address.to_string();
    println!("a: listens on {address}");
    tokio::try_join!(node_a(&published.state), run_b(&address))?;
    published.stop().await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run_both().await,
        ["--node", "a", address] => run_a(address).await,
        ["--node", "b", address] => run_b(address).await,
        _ => Err(USAGE.into()),
    }
}
