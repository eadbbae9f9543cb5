//! One row of the matrix: a backend, and one fault after the other.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use acteon_faults::{Random, SEED_VARIABLE, seed};
use acteon_state::config::Document;
use acteon_state::{State, StateConfig, Survival};
use acteon_state_conformance::objects::{StepDirection, Uncertainty};
use async_trait::async_trait;

use crate::account::Account;
use crate::bench::Outcome;
use crate::episode::{Episode, Terms};

/// The variable that says for how many minutes each row goes on.
const MINUTES_VARIABLE: &str = "ACTEON_FAULTS_MINUTES";

/// A backend, and what can be done to it.
#[async_trait]
pub(crate) trait Backend: Send {
    /// What the row is called.
    fn name(&self) -> &'static str;

    /// The document with the section `[state]` that clients get.
    fn config(&self) -> String;

    /// What can go wrong here, besides what happens to clients.
    fn faults(&self) -> Vec<Fault>;

    /// Sets up what the last fault has used up.
    async fn prepare(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Brings a fault about, lets it last for about this long, and repairs the damage.
    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()>;

    /// What the last fault came to, if it was more than it is called: a primary that is not heard for a while may be replaced.
    fn came_to(&self) -> Option<Harm> {
        None
    }

    /// By how much ends of lifetimes may be early or late here.
    fn uncertainty(&self) -> Uncertainty {
        // The clocks of server and clients are those of one machine; servers count whole milliseconds.
        Uncertainty { early_ns: 2_000_000, late_ns: 5_000_000, step: None }
    }

    /// What else is particular about it.
    fn traits(&self) -> Traits {
        Traits::default()
    }
}

/// What is particular about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Whether acknowledged writes of all kinds survive a failover, and not only grants: no capability says so.
    pub(crate) failover_keeps_writes: bool,
    /// Whether a lock may be refused though nobody holds it: while a new primary waits for old leases to end, and
    /// where others must have watched it for a whole lease before they take it over.
    pub(crate) refuses_free_locks: bool,
    /// Whether due queues are asked: not where one of the keys that they consist of may be evicted. That is reported as `Corrupt`, item by item,
    /// and an operator's matter.
    pub(crate) has_queues: bool,
    /// Whether claims pass over items that another call is just changing: those are handed out by a later claim.
    pub(crate) claims_pass_over: bool,
    /// Whether claims keep items to themselves that they do not take, as long as they last.
    pub(crate) claims_look_at_more: bool,
    /// The lease of locks under which registers are updated.
    pub(crate) lease_ms: u64,
}

impl Default for Traits {
    fn default() -> Self {
        let (failover_keeps_writes, refuses_free_locks) = (false, false);
        let (claims_pass_over, claims_look_at_more) = (false, false);
        Self {
            failover_keeps_writes,
            refuses_free_locks,
            has_queues: true,
            claims_pass_over,
            claims_look_at_more,
            lease_ms: 400,
        }
    }
}

impl Traits {
    /// PostgreSQL: claims lock rows, until they are committed, and pass over those that are locked.
    pub(crate) fn postgres() -> Self {
        Self { claims_pass_over: true, claims_look_at_more: true, ..Self::default() }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) harm: Harm,
}

/// What a fault does, and hence what may be lost by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Whoever asks, waits: nothing may be lost.
    Delay,
    /// A server dies and comes back.
    Crash,
    /// Another server takes over.
    Failover,
    /// The server runs out of memory.
    Memory,
    /// A client is killed.
    ClientKilled,
    /// A client stands still for longer than its leases.
    ClientFrozen,
    /// The wall clock of a client is set: nobody may notice.
    ClientClock,
    /// The clock of a server is set forward by [`CLOCK_STEP`]: what lives then ends earlier by that, and nothing else may happen.
    ClockForward,
    /// The clock of a server is set back by as much: what lives then ends later by that, or is back if it was over before, and nothing else may happen.
    ClockBack,
}

impl Fault {
    pub(crate) const fn new(name: &'static str, harm: Harm) -> Self {
        Self { name, harm }
    }
}

/// How long closing may take after a fault; of no consequence for what was judged.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens to clients of every backend.
const CLIENT_FAULTS: [Fault; 2] = [
    Fault::new("kill -9 of a client", Harm::ClientKilled),
    Fault::new("a client frozen beyond its leases", Harm::ClientFrozen),
];

/// By how much the clock of a server is set: longer than the leases of locks and than all times to live.
pub(crate) const CLOCK_STEP: Duration = Duration::from_millis(600);

/// What happens to the clients of some backends: one for each driver.
pub(crate) const CLIENT_CLOCK: Fault = Fault::new("a client's wall clock set forward and back", Harm::ClientClock);

impl Harm {
    /// Where to the clock of a server is set.
    pub(crate) const fn step_direction(self) -> Option<StepDirection> {
        match self {
            Self::ClockForward => Some(StepDirection::Forward),
            Self::ClockBack => Some(StepDirection::Back),
            _ => None,
        }
    }
}

/// What a fault may take away, by what the backend declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Grants of locks.
    pub(crate) grants: bool,
    /// Acknowledged writes.
    pub(crate) writes: bool,
}

impl Losses {
    pub(crate) fn of(state: &State, traits: Traits, harm: Harm) -> Self {
        let (semantics, capabilities) = (state.lock_semantics(), state.store().capabilities());
        let may_be_lost = |survival: Survival| !matches!(survival, Survival::Yes);
        match harm {
            Harm::Delay | Harm::ClientKilled | Harm::ClientFrozen | Harm::ClientClock => Self::default(),
            // Lifetimes are judged by the step; nothing of what lives is lost.
            Harm::ClockForward | Harm::ClockBack => Self::default(),
            Harm::Crash => Self { grants: may_be_lost(semantics.survives_server_crash), writes: !capabilities.durable },
            Harm::Failover => {
                Self { grants: may_be_lost(semantics.survives_failover), writes: !traits.failover_keeps_writes }
            }
            // A server that evicts is not durable, whatever its disk says.
            Harm::Memory => Self { grants: !capabilities.durable, writes: !capabilities.durable },
        }
    }
}

/// Runs a row with all faults, and panics with all that was wrong.
pub(crate) async fn run(backend: &mut dyn Backend) {
    let faults: Vec<Fault> = backend.faults().into_iter().chain(CLIENT_FAULTS).collect();
    run_faults(backend, &faults, 1.0).await;
}

/// The same with these faults, for a share of the time of a row.
pub(crate) async fn run_faults(backend: &mut dyn Backend, faults: &[Fault], share: f64) {
    let (seed, mut account) = (seed(), Account::new(backend.name()));
    println!("{}: {SEED_VARIABLE}={seed} repeats the schedule", backend.name());
    for (number, fault, mut random) in Schedule::new(seed, faults.to_vec(), share) {
        let begin = Instant::now();
        let outcome = one(backend, &mut account, seed, number, fault, &mut random).await;
        account.add(&fault, outcome);
        let (name, seconds) = (backend.name(), begin.elapsed().as_secs_f64());
        println!("{name}: {number} {}, {seconds:.1} s: {}", fault.name, account.progress());
    }
    account.finish(seed);
}

/// One fault, over a connection of its own: what it declares is what is connected now.
async fn one(
    backend: &mut dyn Backend,
    account: &mut Account,
    row_seed: u64,
    number: u32,
    fault: Fault,
    random: &mut Random,
) -> Result<Outcome, String> {
    backend.prepare().await.map_err(|error| error.to_string())?;
    let state = open(&backend.config()).await?;
    account.topology = state.lock_semantics().topology;
    let folder = folder().join(format!("{}-{row_seed}-{number}", backend.name().replace(' ', "-")));
    let terms = Terms { row_seed, seed: random.number(), number, fault, folder };
    let outcome = Episode::run(backend, &state, &terms, random).await;
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, state.close()).await;
    outcome
}

/// Opens a state by a document.
pub(crate) async fn open(config: &str) -> Result<State, String> {
    let document = Document::parse("matrix.toml", config).map_err(|error| error.to_string())?;
    let section: Option<StateConfig> = document.read_section("state").map_err(|error| error.to_string())?;
    acteon_state::open(&section.unwrap_or_default()).await.map_err(|error| error.to_string())
}

/// Where drawings go.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix")
}

/// Which fault comes next: each once, or any until the time is over, and one at least.
struct Schedule {
    random: Random,
    faults: Vec<Fault>,
    left: Vec<Fault>,
    until: Option<Instant>,
    count: u32,
}

impl Schedule {
    fn new(seed: u64, faults: Vec<Fault>, share: f64) -> Self {
        let until = time_given().map(|time| Instant::now() + time.mul_f64(share));
        Self { random: Random::new(seed), left: faults.clone(), faults, until, count: 0 }
    }
}

/// For how long a row should go on; `None`: once through its faults.
pub(crate) fn time_given() -> Option<Duration> {
    let text = std::env::var(MINUTES_VARIABLE).ok()?;
    let minutes: f64 = text.parse().unwrap_or_else(|_| panic!("{MINUTES_VARIABLE}={text} is no number"));
    Some(Duration::from_secs_f64(minutes * 60.0))
}

impl Iterator for Schedule {
    type Item = (u32, Fault, Random);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(until) = self.until {
            if self.count > 0 && Instant::now() >= until {
                return None;
            }
            if self.left.is_empty() {
                self.left.clone_from(&self.faults);
            }
        }
        if self.left.is_empty() {
            return None;
        }
        let at = self.random.below(self.left.len() as u64) as usize;
        self.count += 1;
        Some((self.count, self.left.remove(at), self.random.fork()))
    }
}
