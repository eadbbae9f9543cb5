//! Three nodes of which one leads at a time and writes a report. Each leader steps down after a while, as it does when its node is
//! upgraded, and another one follows at once. `cargo run -p elect` runs until nobody is left.

use std::error::Error;
use std::time::Duration;

use acteon_state::config::Document;
use acteon_state::{Election, FencingToken, LockOptions, Put, State, StateConfig, StateKey};

type Failure = Box<dyn Error + Send + Sync>;

/// How long the others wait for the next leader after one has crashed.
const LEASE: Duration = Duration::from_secs(10);

/// Leads for as long as it may: it is dropped when the lead is lost, or handed over.
async fn write_reports(state: &State, token: FencingToken) -> Result<(), Failure> {
    let report = StateKey::new("shop", "acme", "report", "today")?;
    loop {
        // Refused once a later leader has written: a leader that was paused and does not know it yet does no harm.
        if !state.put(&report, &Put::new("42 orders").fenced_by(token)).await?.is_applied() {
            return Err("another node leads".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn run(state: State, node: Election) -> Result<(), Failure> {
    let led = node.lead(|token| write_reports(&state, token)).await?;
    led.unwrap_or(Ok(()))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut settings = Document::parse("state.toml", include_str!("../state.toml"))?;
    settings.overlay_env()?; // ACTEON__STATE__BACKEND=redis, …
    let state = settings.read_section::<StateConfig>("state")?.unwrap_or_default().open().await?;
    let election = StateKey::new("shop", "acme", "leader", "reports")?;

    let names = ["node 1", "node 2", "node 3"];
    let nodes = names.map(|name| state.elect(&election, &LockOptions::new(LEASE).meta(name)));
    let running = nodes.clone().map(|node| tokio::spawn(run(state.clone(), node)));

    // Anybody can watch, whether a candidate or not.
    let mut watch = state.watch_leader(&election, Duration::from_millis(20));
    while !nodes.iter().all(Election::has_stepped_down) {
        let Some(leader) = watch.changed().await? else { continue };
        println!("{} leads, term {}", leader.meta, leader.token.get());
        let node = names.iter().position(|name| *name == leader.meta).ok_or("an unknown node leads")?;
        nodes[node].step_down().await;
    }
    for node in running {
        node.await??;
    }
    state.close().await?;
    Ok(())
}
