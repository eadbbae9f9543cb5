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

mod figures;
mod round;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::figures::{Figures, Spread};
use self::round::{Lock, Setting, WINDOW};
use crate::backend::{Backend, NAMES};
use crate::report::{self, Chart, Goal, Group, Report, Scale};
use crate::rounds::median;
use crate::{Options, Outcome, machine};

const WAITERS: [usize; 2] = [16, 256];
const HOLDS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(1)];

/// Over how many stores, each with connections of its own, the waiters are spread.
const NODES: usize = 4;

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

/// Runs the suite: the backends whose name contains `only`.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let Options { program: server, rounds, only, is_quick, .. } = *options;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let seconds = (WINDOW.end - WINDOW.start).as_secs();
    report.line(format_args!(
        "Medians of {rounds} rounds of {seconds} s, the worst wait of all of them; waiters on {NODES} nodes in one process."
    ));
    let mut rows = Vec::new();
    for name in NAMES.into_iter().filter(|name| name.contains(only)) {
        let backend = runtime.block_on(Backend::start(name, server, NODES))?;
        for waiters in WAITERS {
            for hold in HOLDS.into_iter().take(if is_quick { 1 } else { HOLDS.len() }) {
                eprintln!("contention: {name}, {waiters} waiters, held {hold:?}");
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
    waiting_table(&rows, report);
    cost_table(&rows, report);
    goals(&rows, report);
    chart(&rows, report);
    Ok(())
}

/// The rows of our lock.
fn ours(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.setting.lock == Lock::Ours)
}

fn goals(rows: &[Row], report: &mut Report) {
    let named = |row: &Row| format!("{}, {} waiters", row.backend, row.setting.waiters);
    // A section of a millisecond bounds either lock: how soon it is handed over shows where the section is empty.
    let empty = || ours(rows).filter(|row| row.setting.hold.is_zero());
    let turns = empty().map(|row| (named(row), row.ratio));
    report.goal(Goal::at_least("empty section: turns to polling", 20.0, "x").cases(turns));
    for (is_held, section) in [(false, "empty section"), (true, "section of 1 ms")] {
        let rows = ours(rows).filter(|row| row.setting.hold.is_zero() != is_held);
        let waits = rows.map(|row| (named(row), row.worst_to_mean()));
        report.goal(Goal::at_most(format!("{section}: worst wait to the mean"), 5.0, "x").cases(waits));
    }
}

fn chart(rows: &[Row], report: &mut Report) {
    let group = |row: &Row| Group {
        label: format!(
            "{}, {} waiters{}",
            row.backend,
            row.setting.waiters,
            if row.setting.hold.is_zero() { "" } else { ", 1 ms" }
        ),
        values: vec![Some(row.ratio)],
        goal: row.setting.hold.is_zero().then_some(20.0),
    };
    report.chart(Chart {
        name: "",
        title: "Waiters on one lock: turns beside a lock that polls every 50 ms".to_owned(),
        axis: "turns per second relative to polling, logarithmic",
        scale: Scale::Log,
        series: vec!["this lock".to_owned()],
        groups: ours(rows).map(group).collect(),
    });
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
    let requests_before = backend.requests(commands(setting.lock))?;
    let (server_before, own_before) = (backend.cpu()?, own_cpu()?);
    let record = runtime.block_on(round::run(&backend.nodes, setting, name))?;
    let (server_after, own_after) = (backend.cpu()?, own_cpu()?);
    let requests_after = backend.requests(commands(setting.lock))?;
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

/// What the driver sends to Redis for a lock.
const fn commands(lock: Lock) -> &'static [&'static str] {
    match lock {
        Lock::Ours => &["eval", "evalsha"],
        // Unconditional deletes and puts of what is absent need no script.
        Lock::Polling | Lock::Greedy => &["set", "del"],
    }
}

fn waiting_table(rows: &[Row], report: &mut Report) {
    let columns = [
        "backend",
        "waiters",
        "held",
        "lock",
        "turns per second",
        "to polling",
        "hand-over p50",
        "p99",
        "wake-up p50",
        "p99",
        "mean wait",
        "worst wait",
        "worst / mean",
    ];
    report.table(&columns, 4);
    for row in rows {
        let time = |of: fn(&Figures) -> Duration| report::time(row.median(|round| of(&round.figures)));
        let rate = row.median(|round| round.figures.per_second);
        let worst = row.rounds.iter().map(|round| round.figures.wait_worst).max().unwrap_or_default();
        let between = |of: fn(&Figures) -> Spread| {
            let p50 = row.median(|round| of(&round.figures).p50);
            let p99 = row.median(|round| of(&round.figures).p99);
            format!("{} | {}", report::time(p50), report::time(p99))
        };
        report.line(format_args!(
            "| {} | {rate:.0} | {:.1} | {} | {} | {} | {} | {:.1} |",
            row.case(),
            row.ratio,
            between(|figures| figures.hand_over),
            between(|figures| figures.wake_up),
            time(|figures| figures.wait_mean),
            report::time(worst),
            row.worst_to_mean(),
        ));
    }
}

fn cost_table(rows: &[Row], report: &mut Report) {
    let columns = [
        "backend",
        "waiters",
        "held",
        "lock",
        "turns of a waiter, fewest to most",
        "requests per turn",
        "server CPU per turn",
        "client CPU per turn",
    ];
    report.table(&columns, 4);
    for row in rows {
        let least = row.median(|round| round.figures.turns_least);
        let most = row.median(|round| round.figures.turns_most);
        let requests =
            row.median(|round| round.requests_per_turn).map_or("–".to_owned(), |count| format!("{count:.1}"));
        let server = row.median(|round| round.server_cpu).map_or("–".to_owned(), report::time);
        let client = report::time(row.median(|round| round.client_cpu));
        report.line(format_args!("| {} | {least} to {most} | {requests} | {server} | {client} |", row.case()));
    }
}

impl Row {
    fn median<T: PartialOrd + Copy>(&self, of: impl Fn(&Measured) -> T) -> T {
        median(self.rounds.iter().map(of).collect())
    }

    /// In the round where it was worst.
    fn worst_to_mean(&self) -> f64 {
        self.rounds.iter().map(|round| round.figures.worst_to_mean()).fold(0.0, f64::max)
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
