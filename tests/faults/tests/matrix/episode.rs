//! One fault: clients at work, something goes wrong, it is repaired, and what they saw is judged.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use acteon_faults::job::Job;
use acteon_faults::log::{Logged, now_ns};
use acteon_faults::safety::{Updates, Writing};
use acteon_faults::{Kind, Random};
use acteon_state::{Scope, State};
use acteon_state_conformance::objects::{ClockStep, Loss};
use acteon_test_support::FakeClock;

use crate::bench::{Bench, Outcome};
use crate::clients::{Clients, Logs, job};
use crate::row::{Backend, CLOCK_STEP, Fault, Harm, Losses, Traits};

/// How long clients work before a fault, and after it was repaired.
const CALM: Duration = Duration::from_millis(400);
/// How long a fault lasts: within a patience, or beyond it.
const FAULT_MS: (u64, u64) = (200, 900);
/// After a failover some clients are connected to the server that was deposed, until they notice.
const NOTICE: Duration = Duration::from_secs(2);
/// How long the backend may take to answer again, once a fault was repaired.
const RECOVERY: Duration = Duration::from_secs(20);

/// How much later than by its lease a lock may become free, on a busy machine.
const LEASE_SLACK: Duration = Duration::from_millis(100);

/// What is to happen.
pub(crate) struct Terms {
    /// What repeats the row, and with it this.
    pub(crate) row_seed: u64,
    pub(crate) seed: u64,
    pub(crate) number: u32,
    pub(crate) fault: Fault,
    /// Where drawings go.
    pub(crate) folder: PathBuf,
}

/// A fault that is under way.
pub(crate) struct Episode<'a> {
    backend: &'a mut dyn Backend,
    state: &'a State,
    terms: &'a Terms,
    /// What it may have taken away.
    losses: Losses,
}

impl Episode<'_> {
    /// Lets it happen.
    pub(crate) async fn run(
        backend: &mut dyn Backend,
        state: &State,
        terms: &Terms,
        random: &mut Random,
    ) -> Result<Outcome, String> {
        let losses = Losses::of(state, backend.traits(), terms.fault.harm);
        let mut episode = Episode { backend, state, terms, losses };
        let scope = episode.scope("under");
        let work = episode.job(&scope, terms.seed);
        let lease = Duration::from_millis(work.lease_ms);
        let (logged, logs, span) = episode.strike(work, random).await.map_err(|error| error.to_string())?;
        let mut outcome = episode.bench_with(Some(span)).judge(logged, span);
        episode.check_register(&scope, &mut outcome).await;
        // By a clock that was set back, leases end later.
        let longer = if terms.fault.harm == Harm::ClockBack { CLOCK_STEP } else { Duration::ZERO };
        episode.check_locks(&scope, lease + longer, &mut outcome).await;
        if episode.losses.writes {
            episode.check_aftermath(&mut outcome, random.number()).await.map_err(|error| error.to_string())?;
        }
        if !outcome.wrong.is_empty() {
            logs.keep(&terms.folder).map_err(|error| format!("the logs cannot be kept: {error}"))?;
        }
        Ok(outcome)
    }

    fn bench(&self) -> Bench<'_> {
        self.bench_with(None)
    }

    /// What is known of a history in which the fault was in this span.
    fn bench_with(&self, span: Option<Loss>) -> Bench<'_> {
        let (mut uncertainty, traits) = (self.backend.uncertainty(), self.backend.traits());
        if let (Some(Loss { from, until }), Some(direction)) = (span, self.terms.fault.harm.step_direction()) {
            let by_ns = u64::try_from(CLOCK_STEP.as_nanos()).unwrap_or(u64::MAX);
            uncertainty.step = Some(ClockStep { from, until, by_ns, direction });
        }
        Bench { uncertainty, traits, losses: self.losses, seed: self.terms.row_seed, folder: &self.terms.folder }
    }

    /// A scope of its own: what an earlier fault has lost is of no concern to this history.
    fn scope(&self, part: &str) -> Scope {
        let kind = format!("{part}-{}-{}", self.terms.number, self.terms.seed);
        Scope::new("faults", "matrix", &kind).expect("the names are short")
    }

    fn job(&self, scope: &Scope, seed: u64) -> Job {
        let key = scope.key("scope").expect("the name is short");
        let Traits { has_queues, lease_ms, .. } = self.backend.traits();
        let mut job = job(self.backend.config(), key.text().to_owned(), seed, lease_ms);
        job.kinds.retain(|kind| has_queues || *kind != Kind::Queue);
        job
    }

    /// The history, the logs that it was read from, and when the fault was.
    async fn strike(&mut self, work: Job, random: &mut Random) -> io::Result<(Logged, Logs, Loss)> {
        let lease_ms = work.lease_ms;
        let clock = match self.terms.fault.harm {
            Harm::ClientClock => Some(FakeClock::new().map_err(io::Error::other)?),
            _ => None,
        };
        let mut clients = Clients::start(work, clock).await?;
        tokio::time::sleep(CALM).await;
        let lasting = Duration::from_millis(FAULT_MS.0 + random.below(FAULT_MS.1 - FAULT_MS.0));
        let (from, which) = (now_ns(), random.number() as usize);
        match self.terms.fault.harm {
            Harm::ClientKilled => clients.kill_one(which, lasting / 4).await?,
            Harm::ClientFrozen => clients.freeze_one(which, lasting + Duration::from_millis(lease_ms)).await?,
            Harm::ClientClock => clients.set_clock(lasting).await?,
            _ => self.backend.strike(&self.terms.fault, lasting).await?,
        }
        if let Some(harm) = self.backend.came_to() {
            self.losses = Losses::of(self.state, self.backend.traits(), harm);
        }
        self.wait_for_answers().await?;
        if self.losses.grants {
            tokio::time::sleep(NOTICE).await;
        }
        let until = now_ns();
        tokio::time::sleep(CALM).await;
        let (logged, logs) = clients.finish().await?;
        Ok((logged, logs, Loss { from, until }))
    }

    /// Returns once the backend answers, as it must when the fault was repaired.
    async fn wait_for_answers(&self) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            match tokio::time::timeout(RECOVERY, self.state.ping()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if begin.elapsed() > RECOVERY => {
                    return Err(io::Error::other(format!("no answer after the fault was repaired: {error}")));
                }
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer after the fault was repaired"));
                }
            }
        }
    }

    /// The register that was written on the version that was read has counted every update that was acknowledged.
    async fn check_register(&self, scope: &Scope, outcome: &mut Outcome) {
        if self.losses.writes {
            return;
        }
        let register = scope.key(Writing::Compared.name()).expect("the name is short");
        let found = match self.state.get(&register).await {
            Ok(found) => found.map(|entry| String::from_utf8_lossy(&entry.value).parse::<u64>()),
            Err(error) => {
                outcome.wrong.push(format!("the register cannot be read: {error}"));
                return;
            }
        };
        let updates = outcome.updates.iter().find(|(writing, _)| *writing == Writing::Compared);
        let Updates { acknowledged, unknown, .. } = updates.map(|(_, updates)| *updates).unwrap_or_default();
        match found {
            None if acknowledged == 0 => {}
            // Whoever was killed may have written once without a line about it.
            Some(Ok(number)) if (acknowledged..=acknowledged + unknown + 1).contains(&number) => {}
            found => outcome.wrong.push(format!(
                "the register holds {found:?} after {acknowledged} updates and {unknown} of which nobody knows"
            )),
        }
    }

    /// Nobody holds a lock any more, nor gets one: neither those who were killed, nor those who went away while they waited.
    async fn check_locks(&self, scope: &Scope, lease: Duration, outcome: &mut Outcome) {
        tokio::time::sleep(lease + LEASE_SLACK).await;
        for writing in Writing::ALL {
            let lock = scope.key(&format!("{}-lock", writing.name())).expect("the name is short");
            match self.state.inspect_lock(&lock).await {
                Ok(seen) if seen.as_ref().is_none_or(|seen| seen.holders.is_empty()) => {}
                Ok(seen) => outcome.wrong.push(format!("a lock is held though everybody has gone: {seen:?}")),
                Err(error) => outcome.wrong.push(format!("a lock cannot be looked at: {error}")),
            }
        }
    }

    /// What was lost is lost; on new objects everything is right again.
    async fn check_aftermath(&self, outcome: &mut Outcome, seed: u64) -> io::Result<()> {
        let clients = Clients::start(Job { updaters: 0, ..self.job(&self.scope("after"), seed) }, None).await?;
        tokio::time::sleep(CALM).await;
        let (logged, logs) = clients.finish().await?;
        outcome.calls += logged.history.len() + logged.refused.len();
        let before = outcome.wrong.len();
        outcome.wrong.extend(logged.broken);
        self.bench().judge_history(logged.history, logged.refused, None, outcome);
        if outcome.wrong.len() > before {
            logs.keep(&self.terms.folder.join("after"))?;
        }
        Ok(())
    }
}
