//! The PostgreSQL driver beside raw sqlx: the same statements over the same number of connections, one operation per call, on one
//! server that waits for the disk at every commit.
//!
//! Both sides run in turns within each round, and a ratio is taken within a round. Raw sqlx shows what the driver adds to a lonely
//! operation, and what it saves where many are under way: there, it sends those that wait together. pgbench with statements
//! that somebody would write by hand is there for orientation; it neither checks conditions nor knows versions.
//!
//! Processor time is that of the server with all its processes, and of this process, which holds either side and the tasks that call.

mod driver;
mod fill;
mod pgbench;
mod queue;
mod raw;
mod server;

use std::time::{Duration, Instant};

use acteon_state_core::{StateKey, StateStore as _, Version};
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_test_support::{PostgresOptions, PostgresServer};
use tokio::runtime::{Builder, Runtime};

use self::raw::Raw;
use crate::report::{self, Chart, Goal, Group, Report, Scale};
use crate::rounds::median;
use crate::{Options, Outcome, machine};

pub(crate) use self::queue::RawQueue;
pub(crate) use self::server::ServerCpu;

/// Connections of the raw side, as many as the driver opens unless told otherwise.
const CONNECTIONS: u32 = 8;
/// How long one side works before it is the other's turn.
const TURN: Duration = Duration::from_millis(250);
const TASKS: [usize; 4] = [1, 8, 64, 512];
/// Keys of each task, so that the table is larger than what is under way.
const KEYS_PER_TASK: u64 = 64;
/// A prime, so that reads that follow each other do not meet the same page.
const STRIDE: u64 = 7_919;
const VALUE: &[u8] = &[b'x'; 64];
const TTL: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(30);
/// Nothing is late on this machine but by the load that is measured.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    PutTtl,
    PutIfAbsent,
    CompareAndSwap,
    Increment,
    HotCounter,
    LockCycle,
    Schedule,
    /// Claims up to so many items and acknowledges each.
    Claim(u32),
}

const ALL: [(Operation, &str); 11] = [
    (Operation::Get, "get"),
    (Operation::PutTtl, "put with ttl"),
    (Operation::PutIfAbsent, "put if absent, fresh keys"),
    (Operation::CompareAndSwap, "compare and swap"),
    (Operation::Increment, "increment with bound, many keys"),
    (Operation::HotCounter, "increment with bound, one key"),
    (Operation::LockCycle, "lock and release, a pair"),
    (Operation::Schedule, "schedule"),
    (Operation::Claim(1), "claim 1 and acknowledge, an item"),
    (Operation::Claim(10), "claim 10 and acknowledge, an item"),
    (Operation::Claim(100), "claim 100 and acknowledge, an item"),
];

/// One task's place on one side: its keys, which no other task touches, and what it knows of them.
struct Task {
    /// The side and the number, the beginning of its keys.
    name: String,
    number: u64,
    /// Of the single key that is compared and swapped.
    version: Version,
    /// Calls so far, over all rounds.
    calls: u64,
}

impl Task {
    fn new(side: &str, operation: Operation, tasks: usize, number: u64) -> Self {
        Self { name: format!("{side} {operation:?} {tasks} {number}"), number, version: Version::draw(), calls: 0 }
    }

    /// The key of the present call.
    fn key(&self, operation: Operation) -> Outcome<StateKey> {
        let id = match operation {
            Operation::Get => format!("entry {}", (self.number + self.calls) * STRIDE % fill::ENTRIES),
            Operation::HotCounter => "hot".to_owned(),
            Operation::CompareAndSwap => self.name.clone(),
            Operation::PutIfAbsent | Operation::Schedule => self.item(),
            _ => format!("{} {}", self.name, self.calls % KEYS_PER_TASK),
        };
        Ok(StateKey::new("bench", "acme", "postgres", &id)?)
    }

    /// A name that was not used before.
    fn item(&self) -> String {
        format!("{} {}", self.name, self.calls)
    }
}

/// Either side.
trait Side: Clone + Send + Sync + 'static {
    /// Carries out the operation once, and returns how many things it did: one, or as many as there were items.
    fn operate(&self, operation: Operation, task: &mut Task) -> impl Future<Output = Outcome<u64>> + Send;
}

/// What one turn was good for.
#[derive(Clone, Default)]
struct Turn {
    done: u64,
    wall: Duration,
    server_cpu: Duration,
    client_cpu: Duration,
    /// Of each call, when there is only one task.
    latencies: Vec<Duration>,
}

/// All turns of one side in one case, beside its tasks.
struct Contestant<S> {
    side: S,
    tasks: Vec<Task>,
    turns: Vec<Turn>,
}

/// Runs the suite: the cases whose name contains `only`, the driver with so many connections.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let Options { rounds, only, connections, .. } = *options;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let server = PostgresServer::start(PostgresOptions { durable: true, ..PostgresOptions::default() })?;
    let (driver, raw) = runtime.block_on(connect(&server, connections))?;
    let version = server.query("SHOW server_version")?.into_iter().flatten().flatten().next().unwrap_or_default();
    report.line(format_args!(
        "Medians of {rounds} rounds; PostgreSQL {version} on the same machine, fsync on, synchronous_commit on; {connections} connections of the driver, {CONNECTIONS} of raw sqlx."
    ));
    let cpu = ServerCpu::of(&server)?;
    fill::fill(&server)?;
    let (mut alone, mut ratios) = (Vec::new(), Vec::new());
    report.table(&COLUMNS, 1);
    for (operation, name) in ALL.into_iter().filter(|(_, name)| name.contains(only)) {
        for count in TASKS {
            eprintln!("postgres: {name}, {count} tasks");
            if matches!(operation, Operation::Claim(_)) {
                fill::top_up(&server)?;
            }
            let tasks = |side| (0..count as u64).map(|number| Task::new(side, operation, count, number)).collect();
            let mut ours = Contestant { side: driver.clone(), tasks: tasks("driver"), turns: Vec::new() };
            let mut theirs = Contestant { side: raw.clone(), tasks: tasks("raw"), turns: Vec::new() };
            for round in 0..=rounds {
                for turn in 0..2 {
                    if (round + turn) % 2 == 0 {
                        ours.turn(&runtime, &cpu, operation)?;
                    } else {
                        theirs.turn(&runtime, &cpu, operation)?;
                    }
                }
            }
            let ratio = row(name, count, &ours.turns[1..], &theirs.turns[1..], report);
            ratios.push(Ratio { operation, name, tasks: count, ratio });
            if count == 1 {
                alone.push((name, latencies(&ours.turns[1..]), latencies(&theirs.turns[1..])));
            }
        }
    }
    latency_table(&alone, report);
    goals(&ratios, report);
    chart(&ratios, report);
    runtime.block_on(driver.close())?;
    pgbench::run(&server, CONNECTIONS, report)
}

/// Throughput of the driver beside raw sqlx.
struct Ratio {
    operation: Operation,
    name: &'static str,
    tasks: usize,
    ratio: f64,
}

fn goals(ratios: &[Ratio], report: &mut Report) {
    // Claims are a goal of the suite `due`.
    let cases = |chosen: fn(&Ratio) -> bool| {
        let chosen = ratios.iter().filter(move |it| chosen(it) && !matches!(it.operation, Operation::Claim(_)));
        chosen
            .map(|it| (format!("{}, {} {}", it.name, it.tasks, if it.tasks == 1 { "task" } else { "tasks" }), it.ratio))
    };
    let (alone, hot) = (cases(|it| it.tasks == 1), cases(|it| it.tasks >= 64 && it.operation == Operation::HotCounter));
    report.goal(Goal::at_least("one task: throughput to raw sqlx", 0.95, "x").cases(alone));
    for tasks in [64, 512] {
        let cases = cases(|it| it.operation != Operation::HotCounter);
        let cases = cases.filter(|(name, _)| name.ends_with(&format!(", {tasks} tasks")));
        report.goal(Goal::at_least(format!("{tasks} tasks: throughput to raw sqlx"), 5.0, "x").cases(cases));
    }
    report.goal(Goal::at_least("one hot counter: throughput to raw sqlx", 20.0, "x").cases(hot));
}

fn chart(ratios: &[Ratio], report: &mut Report) {
    let group = |(operation, name): &(Operation, &str)| Group {
        label: (*name).to_owned(),
        values: TASKS
            .map(|tasks| ratios.iter().find(|it| it.operation == *operation && it.tasks == tasks).map(|it| it.ratio))
            .to_vec(),
        goal: match operation {
            Operation::HotCounter => Some(20.0),
            Operation::Claim(_) => Some(10.0),
            _ => Some(5.0),
        },
    };
    report.chart(Chart {
        name: "",
        title: "The PostgreSQL driver's throughput beside raw sqlx; the goal is for many tasks".to_owned(),
        axis: "throughput relative to raw sqlx, logarithmic",
        scale: Scale::Log,
        series: TASKS.map(|tasks| format!("{tasks} {}", if tasks == 1 { "task" } else { "tasks" })).to_vec(),
        groups: ALL
            .iter()
            .filter(|(operation, _)| ratios.iter().any(|it| it.operation == *operation))
            .map(group)
            .collect(),
    });
}

async fn connect(server: &PostgresServer, connections: usize) -> Outcome<(PostgresStore, Raw)> {
    // Nothing expires meanwhile; the sweep would only add its own work to one side's turns.
    let sweep_interval = Duration::ZERO;
    let operation_timeout = PATIENCE;
    let config =
        PostgresConfig { connections, sweep_interval, operation_timeout, ..PostgresConfig::from_url(&server.url())? };
    let driver = PostgresStore::connect(config).await?;
    let raw = Raw::connect(&server.url(), CONNECTIONS).await?;
    Ok((driver, raw))
}

impl<S: Side> Contestant<S> {
    fn turn(&mut self, runtime: &Runtime, cpu: &ServerCpu, operation: Operation) -> Outcome {
        let tasks = std::mem::take(&mut self.tasks);
        let (client, server) = (client_cpu()?, cpu.spent()?);
        let (turn, tasks) = runtime.block_on(take_turn(&self.side, operation, tasks))?;
        let (client_cpu, server_cpu) = (client_cpu()? - client, cpu.spent()? - server);
        self.turns.push(Turn { client_cpu, server_cpu, ..turn });
        self.tasks = tasks;
        Ok(())
    }
}

fn client_cpu() -> Outcome<Duration> {
    machine::cpu_time("self").ok_or_else(|| "this process's CPU time is unknown".into())
}

async fn take_turn(side: &impl Side, operation: Operation, tasks: Vec<Task>) -> Outcome<(Turn, Vec<Task>)> {
    let is_alone = tasks.len() == 1;
    let started = Instant::now();
    let running: Vec<_> = tasks
        .into_iter()
        .map(|task| tokio::spawn(work(side.clone(), operation, task, started + TURN, is_alone)))
        .collect();
    let mut turn = Turn::default();
    let mut tasks = Vec::with_capacity(running.len());
    for work in running {
        let (task, done, latencies) = work.await??;
        tasks.push(task);
        turn.done += done;
        turn.latencies.extend(latencies);
    }
    turn.wall = started.elapsed();
    Ok((turn, tasks))
}

async fn work(
    side: impl Side,
    operation: Operation,
    mut task: Task,
    until: Instant,
    is_alone: bool,
) -> Outcome<(Task, u64, Vec<Duration>)> {
    let (mut done, mut latencies) = (0, Vec::new());
    let mut called = Instant::now();
    while called < until {
        done += side.operate(operation, &mut task).await?;
        task.calls += 1;
        let returned = Instant::now();
        if is_alone {
            latencies.push(returned - called);
        }
        called = returned;
    }
    Ok((task, done, latencies))
}

const COLUMNS: [&str; 9] = [
    "operation",
    "tasks",
    "driver, per second",
    "raw sqlx, per second",
    "ratio",
    "server CPU per 1,000: driver",
    "raw",
    "client CPU per 1,000: driver",
    "raw",
];

/// Returns the ratio of the rates.
fn row(name: &str, tasks: usize, ours: &[Turn], theirs: &[Turn], report: &mut Report) -> f64 {
    let rate = |turn: &Turn| turn.done as f64 / turn.wall.as_secs_f64();
    let rates = |turns: &[Turn]| median(turns.iter().map(rate).collect());
    let ratio = median(ours.iter().zip(theirs).map(|(one, other)| rate(one) / rate(other)).collect());
    let cpu = |turns: &[Turn], part: fn(&Turn) -> Duration| {
        // The kernel counts in hundredths of a second: all turns together say more than a median of them.
        let (spent, done) =
            turns.iter().fold((0.0, 0), |sum, turn| (sum.0 + part(turn).as_secs_f64(), sum.1 + turn.done));
        report::time(Duration::from_secs_f64(1_000.0 * spent / done.max(1) as f64))
    };
    report.line(format_args!(
        "| {name} | {tasks} | {:.0} | {:.0} | {ratio:.2} | {} | {} | {} | {} |",
        rates(ours),
        rates(theirs),
        cpu(ours, |turn| turn.server_cpu),
        cpu(theirs, |turn| turn.server_cpu),
        cpu(ours, |turn| turn.client_cpu),
        cpu(theirs, |turn| turn.client_cpu),
    ));
    ratio
}

/// The 50th and the 99th percentile.
fn latencies(turns: &[Turn]) -> [Duration; 2] {
    let mut all: Vec<Duration> = turns.iter().flat_map(|turn| turn.latencies.iter().copied()).collect();
    all.sort_unstable();
    [50, 99].map(|percent| all.get(all.len() * percent / 100).copied().unwrap_or_default())
}

fn latency_table(alone: &[(&str, [Duration; 2], [Duration; 2])], report: &mut Report) {
    report.line("\nOne task, time of a call:");
    report.table(&["operation", "driver, p50", "raw sqlx, p50", "driver, p99", "raw sqlx, p99"], 1);
    for (name, ours, theirs) in alone {
        let [a, b, c, d] = [ours[0], theirs[0], ours[1], theirs[1]].map(report::time);
        report.line(format_args!("| {name} | {a} | {b} | {c} | {d} |"));
    }
}
