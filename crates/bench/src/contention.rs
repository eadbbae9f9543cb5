//! Many waiters on one lock, on each backend: how many turns per second, how soon the next one has the lock, how long the worst wait
//! is, who gets how many turns, and what a turn costs; beside the lock of the textbooks on the same store in the same round.
//!
//! Waiters are spread over four stores with connections of their own, as on four nodes; in memory there is one process. They hold
//! the lock for no time at all, which shows what the hand-over costs, or sleep for a millisecond with it. All of it, but for the
//! servers, runs in this process: its processor time holds the waiters' own.
//!
//! The polling lock is put-if-absent with a time to live, tried every 50 ms, and a delete. It has no owner and no token, so its
//! release may remove somebody else's lock; it is here for its waiting. Whether it rests after a turn makes a great difference: the greedy one
//! does not, and takes turn after turn while the others sleep.

mod backend;
mod figures;
mod round;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::backend::Backend;
use self::figures::{Figures, Spread};
use self::round::{Lock, Setting, WINDOW};
use crate::rounds::median;
use crate::{Outcome, machine, report};

const WAITERS: [usize; 2] = [16, 256];
const HOLDS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(1)];

/// One round of one lock with what it cost.
struct Measured {
    figures: Figures,
    requests_per_turn: Option<f64>,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
}

/// All rounds of one lock in one case.
struct Row {
    backend: &'static str,
    setting: Setting,
    /// Turns per second over those of the polling lock in the same round.
    ratio: f64,
    rounds: Vec<Measured>,
}

/// Runs the suite: the backends whose name contains `only`. `server` is the program that is the engine.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(server: &Path, rounds: usize, only: &str) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let seconds = (WINDOW.end - WINDOW.start).as_secs();
    println!(
        "medians of {rounds} rounds of {seconds} s, the worst wait of all of them; waiters on 4 nodes in one process\n"
    );
    let mut rows = Vec::new();
    for name in ["memory", "redis", "engine", "postgres", "dynamodb"].into_iter().filter(|name| name.contains(only)) {
        let backend = runtime.block_on(async {
            match name {
                "memory" => Ok(Backend::memory()),
                "redis" => Backend::redis().await,
                "engine" => Backend::engine(server).await,
                "postgres" => Backend::postgres().await,
                _ => Backend::dynamodb().await,
            }
        })?;
        for waiters in WAITERS {
            for hold in HOLDS {
                let locks: &[Lock] = match waiters {
                    // The greedy one says the same with more waiters.
                    16 => &[Lock::Ours, Lock::Polling, Lock::Greedy],
                    _ => &[Lock::Ours, Lock::Polling],
                };
                let settings: Vec<_> = locks.iter().map(|lock| Setting { lock: *lock, waiters, hold }).collect();
                rows.extend(compare(&runtime, &backend, &settings, rounds)?);
            }
        }
        runtime.block_on(backend.close())?;
    }
    waiting_table(&rows);
    cost_table(&rows);
    Ok(())
}

/// Lets the locks take turns, beginning with another one each round.
fn compare(runtime: &Runtime, backend: &Backend, settings: &[Setting], rounds: usize) -> Outcome<Vec<Row>> {
    let mut measured: Vec<Vec<Measured>> = settings.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..settings.len() {
            let at = (round + turn) % settings.len();
            let setting = settings[at];
            let name = format!("{:?} {} {:?} {round}", setting.lock, setting.waiters, setting.hold);
            measured[at].push(measure(runtime, backend, setting, &name)?);
        }
    }
    let rates = |rounds: &[Measured]| rounds.iter().map(|round| round.figures.per_second).collect::<Vec<_>>();
    let polling =
        settings.iter().position(|setting| setting.lock == Lock::Polling).ok_or("there is no polling lock")?;
    let base = rates(&measured[polling]);
    let row = |(rounds, setting): (Vec<Measured>, &Setting)| {
        let ratio = median(rates(&rounds).iter().zip(&base).map(|(own, base)| own / base).collect());
        Row { backend: backend.name, setting: *setting, ratio, rounds }
    };
    Ok(measured.into_iter().zip(settings).map(row).collect())
}

fn measure(runtime: &Runtime, backend: &Backend, setting: Setting, name: &str) -> Outcome<Measured> {
    let own_cpu = || machine::cpu_time("self").ok_or("this process's CPU time is unknown");
    let requests_before = backend.requests(setting.lock)?;
    let (server_before, own_before) = (backend.cpu()?, own_cpu()?);
    let record = runtime.block_on(round::run(&backend.nodes, setting, name))?;
    let (server_after, own_after) = (backend.cpu()?, own_cpu()?);
    let requests_after = backend.requests(setting.lock)?;
    // The costs are of the whole round, so all of its turns share them.
    let turns = record.turns.len().max(1) as f64;
    let share = |before: Duration, after: Duration| (after - before).div_f64(turns);
    Ok(Measured {
        figures: Figures::of(record, WINDOW, setting.waiters)
            .map_err(|error| format!("{}, {name}: {error}", backend.name))?,
        requests_per_turn: requests_before.zip(requests_after).map(|(before, after)| (after - before) as f64 / turns),
        server_cpu: server_before.zip(server_after).map(|(before, after)| share(before, after)),
        client_cpu: share(own_before, own_after),
    })
}

fn waiting_table(rows: &[Row]) {
    println!(
        "| backend | waiters | held | lock | turns per second | to polling | hand-over p50 | p99 | wake-up p50 | p99 | mean wait | worst wait | worst / mean |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        let time = |of: fn(&Figures) -> Duration| report::time(row.median(|round| of(&round.figures)));
        let rate = row.median(|round| round.figures.per_second);
        let worst = row.rounds.iter().map(|round| round.figures.wait_worst).max().unwrap_or_default();
        let worst_to_mean = row.rounds.iter().map(|round| round.figures.worst_to_mean()).fold(0.0, f64::max);
        let between = |of: fn(&Figures) -> Spread| {
            let p50 = row.median(|round| of(&round.figures).p50);
            let p99 = row.median(|round| of(&round.figures).p99);
            format!("{} | {}", report::time(p50), report::time(p99))
        };
        println!(
            "| {} | {rate:.0} | {:.1} | {} | {} | {} | {} | {worst_to_mean:.1} |",
            row.case(),
            row.ratio,
            between(|figures| figures.hand_over),
            between(|figures| figures.wake_up),
            time(|figures| figures.wait_mean),
            report::time(worst),
        );
    }
}

fn cost_table(rows: &[Row]) {
    println!(
        "\n| backend | waiters | held | lock | turns of a waiter, fewest to most | requests per turn | server CPU per turn | client CPU per turn |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|---:|");
    for row in rows {
        let least = row.median(|round| round.figures.turns_least);
        let most = row.median(|round| round.figures.turns_most);
        let requests =
            row.median(|round| round.requests_per_turn).map_or("–".to_owned(), |count| format!("{count:.1}"));
        let server = row.median(|round| round.server_cpu).map_or("–".to_owned(), report::time);
        let client = report::time(row.median(|round| round.client_cpu));
        println!("| {} | {least} to {most} | {requests} | {server} | {client} |", row.case());
    }
}

impl Row {
    fn median<T: PartialOrd + Copy>(&self, of: impl Fn(&Measured) -> T) -> T {
        median(self.rounds.iter().map(of).collect())
    }

    /// The cells that say which row this is.
    fn case(&self) -> String {
        let lock = match self.setting.lock {
            Lock::Ours => "this",
            Lock::Polling => "polling",
            Lock::Greedy => "polling, greedy",
        };
        let held = match self.setting.hold.is_zero() {
            true => "0".to_owned(),
            // Timers are coarse: what was asked for and what came of it differ.
            false => report::time(self.median(|round| round.figures.held_mean)),
        };
        format!("{} | {} | {held} | {lock}", self.backend, self.setting.waiters)
    }
}
