//! Two clients change a page behind an HTTP API, one at a time, under a lock. The first one stands still for longer than its lease, and when it goes on, its
//! write is refused: the API compares tokens. `cargo run -p fenced-api` shows it.
//!
//! [`api`] is what a service of yours would have, [`client`] what its callers send.

mod api;
mod client;

use std::error::Error;
use std::time::Duration;

use acteon_state::config::Document;
use acteon_state::{LockGuard, LockOptions, State, StateConfig, StateKey};
use client::{Client, serve};

type Failure = Box<dyn Error + Send + Sync>;

/// Short, so that nobody has to wait for a pause that is longer.
const LEASE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

async fn take_lock(state: &State, name: &str) -> Result<LockGuard, Failure> {
    let page = StateKey::new("wiki", "acme", "page", "home")?;
    let guard = state.lock(&page, &LockOptions::new(LEASE).wait(PATIENCE).meta(name)).await?.acquired();
    let guard = guard.ok_or("the page is busy")?;
    println!("{name} holds the lock");
    Ok(guard)
}

/// Reads the page under the token of a lock.
async fn read(api: &Client, name: &str, guard: &LockGuard) -> Result<String, Failure> {
    let answer = api.fence(&guard.token().to_string()).await?;
    println!("{name} reads: {}", answer.status());
    Ok(answer.error_for_status()?.text().await?)
}

/// Writes the page under the token of a lock. To be refused is no error of the request: somebody else is in charge now.
async fn write(api: &Client, name: &str, guard: &LockGuard, text: &str) -> Result<(), Failure> {
    let answer = api.write(Some(&guard.token().to_string()), None, text).await?;
    println!("{name} writes: {}", answer.status());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut settings = Document::parse("state.toml", include_str!("../state.toml"))?;
    settings.overlay_env()?; // ACTEON__STATE__BACKEND=redis, …
    let state = settings.read_section::<StateConfig>("state")?.unwrap_or_default().open().await?;
    let api = Client::new(serve().await?)?;

    let first = take_lock(&state, "A").await?;
    let text = read(&api, "A", &first).await? + "a line of A\n";
    println!("A stands still");
    // Until its lease has ended and B was let in. A does not look at its guard: a pause after that look would be the same.
    let second = take_lock(&state, "B").await?;
    let longer = read(&api, "B", &second).await? + "a line of B\n";
    println!("A goes on");
    write(&api, "A", &first, &text).await?;
    write(&api, "B", &second, &longer).await?;
    print!("the page: {}", read(&api, "B", &second).await?);

    first.release().await?;
    second.release().await?;
    state.close().await?;
    Ok(())
}
