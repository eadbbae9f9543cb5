//! A small job runner on shared state: each job runs once, however often and wherever it is submitted, at most 3 a minute
//! for each customer, and only one at a time writes a customer's report. `cargo run -p embed` runs it to completion.

use std::error::Error;
use std::time::Duration;

use acteon_state::config::Document;
use acteon_state::{Condition, Counting, Increment, LockOptions, Put, PutOutcome, State, StateConfig, StateKey, Ttl};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq)]
enum Ran {
    Done,
    Duplicate,
    TooMany,
}

async fn run(state: &State, customer: &str, job: &str) -> Result<Ran, Box<dyn Error + Send + Sync>> {
    // Deduplicate: of all who submit the job, one writes this key.
    let claim = Put::new("claimed").when(Condition::Absent).ttl(Ttl::After(MINUTE));
    let claimed = StateKey::new("jobs", customer, "claim", job)?;
    let PutOutcome::Applied(claim) = state.put(&claimed, &claim).await? else {
        return Ok(Ran::Duplicate);
    };
    // Count: at most 3 in the minute that begins with the first one. A refused job may be submitted again.
    let one = Increment::by(1).at_most(3).window(Counting::OnCreate(MINUTE));
    if !state.increment(&StateKey::new("jobs", customer, "rate", "all")?, one).await?.is_applied() {
        state.delete(&claimed, Condition::Version(claim)).await?;
        return Ok(Ran::TooMany);
    }
    // Lock: one writer at a time. Its write counts only on what it has read: if it comes too late, another one has written since.
    let report = StateKey::new("jobs", customer, "report", "lines")?;
    let wanted = LockOptions::new(Duration::from_secs(10)).wait(MINUTE).renew().meta("embed");
    let guard = state.lock(&report, &wanted).await?.acquired().ok_or("the report is busy")?;
    let before = state.get(&report).await?;
    let unchanged = before.as_ref().and_then(|entry| entry.version).map_or(Condition::Absent, Condition::Version);
    let lines = before.map(|entry| entry.value.to_vec()).unwrap_or_default();
    let put = Put::new([lines, format!("{job}\n").into_bytes()].concat()).when(unchanged);
    let written = state.put(&report, &put).await?;
    guard.release().await?;
    if written.is_applied() { Ok(Ran::Done) } else { Err("the lock was lost".into()) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut settings = Document::parse("state.toml", include_str!("../state.toml"))?;
    settings.overlay_env()?; // ACTEON__STATE__BACKEND=redis, …
    let state = settings.read_section::<StateConfig>("state")?.unwrap_or_default().open().await?;
    let submitted = ["a", "b", "a", "c", "d"].map(|job| (job, state.clone()));
    let jobs = submitted.map(|(job, state)| tokio::spawn(async move { run(&state, "acme", job).await }));
    for (number, job) in jobs.into_iter().enumerate() {
        println!("job {number}: {:?}", job.await??);
    }
    state.close().await?;
    Ok(())
}
