//! What a process that stands for a client is told to do, and how it does it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acteon_state::config::Document;
use acteon_state::{StateConfig, open};
use acteon_state_core::{Error, Result, Scope, State, StateKey};
use serde::{Deserialize, Serialize};

use crate::ask::Terms;
use crate::log::{Log, now_ns};
use crate::random::Random;
use crate::safety::Updaters;
use crate::workload::{Kind, Workload};

/// The work of one process, until its standard input ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// A document with the section `[state]`.
    pub config: String,
    /// Where all choices come from.
    pub seed: u64,
    /// A key in the scope of all objects, as text.
    pub scope: String,
    /// Tasks that ask objects of all kinds.
    pub tasks: u32,
    /// The number of the first of them, unlike those of all other processes.
    pub first_process: u32,
    /// The kinds of their objects.
    pub kinds: Vec<Kind>,
    /// Times to live, leases and visibility timeouts of these objects, in ms.
    pub lifetime_ms: u64,
    /// The longest pause between two calls of a task, in ms.
    pub pause_max_ms: u64,
    /// After which a call is given up, in ms.
    pub patience_ms: u64,
    /// Tasks that update registers under locks, of each kind.
    pub updaters: u32,
    /// The lease of these locks, in ms.
    pub lease_ms: u64,
}

/// More than any run makes: it ends by being stopped.
const CALLS_MAX: u32 = 900_000;

impl Job {
    /// Does it, over a connection of its own that is closed at the end. Returns how many calls failed without effect, by kind.
    ///
    /// # Errors
    /// The state cannot be opened, or a call failed in a way that no fault explains.
    pub async fn run(&self, log: &Log, stop: Arc<AtomicBool>) -> Result<BTreeMap<&'static str, u64>> {
        let state = self.open().await?;
        let outcome = self.run_over(&state, log, stop).await;
        // Faults may go on: what cannot be closed ends with the process.
        let _ = tokio::time::timeout(Duration::from_millis(self.patience_ms), state.close()).await;
        outcome
    }

    /// The same over a state of the caller.
    ///
    /// # Errors
    /// A call failed in a way that no fault explains.
    pub async fn run_over(
        &self,
        state: &State,
        log: &Log,
        stop: Arc<AtomicBool>,
    ) -> Result<BTreeMap<&'static str, u64>> {
        let scope = self.scope()?;
        let (mut random, patience) = (Random::new(self.seed), Duration::from_millis(self.patience_ms));
        let workload = Workload {
            tasks: self.tasks,
            first_process: self.first_process,
            calls: CALLS_MAX,
            kinds: self.kinds.clone(),
            terms: Terms { lock_wait: Duration::from_millis(self.lifetime_ms / 4), ..Terms::default() },
            lifetime: Duration::from_millis(self.lifetime_ms),
            pause_max: Duration::from_millis(self.pause_max_ms),
            patience: Some(patience),
            stop: stop.clone(),
            // Above those of a process that came before, as far as both rise as fast as the clock.
            first_token: now_ns() / 1_000_000,
            ..Workload::new(random.number(), scope.clone())
        };
        let lease = Duration::from_millis(self.lease_ms);
        let updaters = Updaters { seed: random.number(), tasks: self.updaters, scope, lease, patience, stop };
        let states = [state.clone()];
        let (failures, ()) = tokio::join!(workload.run(&states, log), updaters.run(state, log));
        failures
    }

    async fn open(&self) -> Result<State> {
        let config: StateConfig = Document::parse("job.toml", &self.config)
            .and_then(|document| document.read_section("state"))
            .map_err(|error| Error::config(error.to_string()))?
            .unwrap_or_default();
        open(&config).await
    }

    fn scope(&self) -> Result<Scope> {
        let key = StateKey::from_text(&self.scope).ok_or_else(|| Error::config("the scope is no key"))?;
        Ok(key.scope())
    }
}

/// The main of a process that gets its job and the path of its log as arguments. `Err` says what went wrong, after it was logged.
///
/// # Errors
/// The arguments are no job, or it failed.
pub async fn main(arguments: &[String]) -> std::result::Result<(), String> {
    let [job, path] = arguments else {
        return Err("usage: acteon-faults-worker JOB LOG".to_owned());
    };
    let job: Job = serde_json::from_str(job).map_err(|error| format!("this is no job: {error}"))?;
    let log = Log::create(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    std::thread::spawn(move || stop_with_input(&stopping));
    job.run(&log, stop).await.map(drop).map_err(|error| {
        let reason = format!("{error:?}");
        log.broken(&reason);
        reason
    })
}

/// Whoever started us closes our input when it is enough, or dies.
fn stop_with_input(stop: &AtomicBool) {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    stop.store(true, Ordering::Relaxed);
}
