//! The DynamoDB driver beside the raw AWS SDK: the same requests, with the same expressions, over the same kind of HTTP client, so
//! the difference is what the driver adds in the client.
//!
//! Both sides run in turns within each round, and a ratio is taken within a round. The service is an emulator in a process of its
//! own, so that its work does not count as the client's. Its speed says nothing about AWS: what a call waits for there is
//! the network and the service. What this machine can tell is how much processor time a call takes, and that nothing in the
//! driver stands in the way of many calls at once.

mod raw;
mod service;

use std::time::{Duration, Instant};

use acteon_state_core::{BatchOp, Get, Increment, Put, StateKey, StateStore as _, Ttl};
use acteon_state_dynamodb::{Consumed, DynamoConfig, DynamoStore};
use tokio::runtime::{Builder, Runtime};

use self::raw::Raw;
use crate::report::{self, Chart, Goal, Group, Report, Scale};
use crate::rounds::median;
use crate::{Options, Outcome, machine};

pub(crate) use self::service::Service;
pub use self::service::serve;

/// How long one side works before it is the other's turn.
const TURN: Duration = Duration::from_millis(500);
/// Alone, and as many as the driver lets through at once by default.
const TASKS: [u64; 2] = [1, 256];
/// Keys of each task, so that requests spread over the table.
const KEYS_PER_TASK: u64 = 64;
const VALUE: &[u8] = &[b'x'; 64];
const TTL: Duration = Duration::from_secs(600);
const TABLE: &str = "bench";
/// Emulators keep separate tables for each region, so both sides must name the same.
const REGION: &str = "us-east-1";
/// Its keys have partitions of their own, so that the raw side can name them without the driver's shards.
const KIND: &str = "dynamodb";
/// Nothing is late on this machine but by the load that is measured.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    GetMany,
    Put,
    PutIfAbsent,
    Increment,
}

const ALL: [(Operation, &str); 5] = [
    // In this order: what is read was put before.
    (Operation::Put, "put with ttl"),
    (Operation::Get, "get"),
    (Operation::GetMany, "batch of 64 gets"),
    (Operation::PutIfAbsent, "put if absent, fresh keys"),
    (Operation::Increment, "increment with bound"),
];

/// Either side: carries an operation out once.
trait Side: Clone + Send + Sync + 'static {
    fn operate(&self, operation: Operation, key: &StateKey) -> impl Future<Output = Outcome> + Send;
}

/// The keys of a batch, from what they have in common.
fn many(common: &StateKey) -> Outcome<Vec<StateKey>> {
    let (scope, id) = (common.scope(), common.id());
    (0..KEYS_PER_TASK).map(|at| Ok(scope.key(&format!("{id} {at}"))?)).collect()
}

/// One task's place on one side, whose keys no other task touches.
struct Task {
    side: &'static str,
    number: u64,
    /// So far, over all operations and rounds.
    calls: u64,
}

impl Task {
    fn key(&self, operation: Operation) -> Outcome<StateKey> {
        let Self { side, number, calls } = self;
        let id = match operation {
            Operation::PutIfAbsent => format!("{side} {number} fresh {calls}"),
            Operation::Increment => format!("{side} {number} counter {}", calls % KEYS_PER_TASK),
            // All of the task's values.
            Operation::GetMany => format!("{side} {number} value"),
            Operation::Get | Operation::Put => format!("{side} {number} value {}", calls % KEYS_PER_TASK),
        };
        Ok(StateKey::new("bench", "acme", KIND, &id)?)
    }
}

/// What one turn was good for.
#[derive(Clone, Copy)]
struct Turn {
    done: u64,
    wall: Duration,
    cpu: Duration,
}

/// One side beside its tasks.
struct Contestant<S> {
    side: S,
    tasks: Vec<Task>,
}

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let rounds = options.rounds;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let service = Service::start()?;
    let (driver, raw) = runtime.block_on(async {
        let config = DynamoConfig {
            url: Some(service.url().to_owned()),
            region: Some(REGION.to_owned()),
            table_name: TABLE.to_owned(),
            point_kinds: vec![KIND.to_owned()],
            attempt_timeout: PATIENCE,
            operation_timeout: PATIENCE,
            ..DynamoConfig::default()
        };
        let driver = DynamoStore::connect(config.clone()).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((driver, Raw::new(&config)?))
    })?;
    report.line(format_args!(
        "Medians of {rounds} rounds; an emulator in a process of its own on the same machine. Requests and capacity units are those of the driver."
    ));
    let columns = [
        "operation",
        "tasks",
        "driver, per second",
        "raw SDK, per second",
        "ratio",
        "client CPU per 1,000: driver",
        "raw SDK",
        "ratio",
        "requests per operation",
        "read units",
        "write units",
    ];
    report.table(&columns, 1);
    let mut rows = Vec::new();
    for count in TASKS {
        let tasks = |side| (0..count).map(|number| Task { side, number: count + number, calls: 0 }).collect();
        let mut ours = Contestant { side: driver.clone(), tasks: tasks("ours") };
        let mut theirs = Contestant { side: raw.clone(), tasks: tasks("them") };
        for (operation, name) in ALL {
            eprintln!("dynamodb: {name}, {count} tasks");
            let (before, calls_before) = (driver.capacity().total(), ours.calls());
            let turns = alternate(&runtime, operation, rounds, &mut ours, &mut theirs)?;
            let spent = per_operation(driver.capacity().total(), before, ours.calls() - calls_before);
            rows.push(row(name, count, &turns, spent, report));
        }
    }
    goals(&rows, report);
    chart(&rows, report);
    runtime.block_on(driver.close())?;
    Ok(())
}

/// What a row of the table tells to goals and charts.
struct Row {
    label: String,
    /// Client CPU beside the raw SDK.
    cpu: f64,
    /// Requests per operation.
    requests: f64,
}

fn goals(rows: &[Row], report: &mut Report) {
    let cpu = rows.iter().map(|row| (row.label.as_str(), row.cpu));
    report.goal(Goal::at_most("client CPU to the raw SDK", 1.05, "x").cases(cpu));
    let requests = rows.iter().map(|row| (row.label.as_str(), row.requests));
    report.goal(Goal::at_most("requests per operation", 1.0, "").cases(requests));
}

fn chart(rows: &[Row], report: &mut Report) {
    let group = |row: &Row| Group { label: row.label.clone(), values: vec![Some(row.cpu)], goal: Some(1.05) };
    report.chart(Chart {
        name: "",
        title: "The DynamoDB driver's processor time beside the raw AWS SDK's".to_owned(),
        axis: "client CPU relative to the raw SDK",
        scale: Scale::Linear,
        series: vec!["driver".to_owned()],
        groups: rows.iter().map(group).collect(),
    });
}

/// Lets the sides take turns; the other one begins each time. One round before the counted ones warms up.
fn alternate(
    runtime: &Runtime,
    operation: Operation,
    rounds: usize,
    ours: &mut Contestant<impl Side>,
    theirs: &mut Contestant<impl Side>,
) -> Outcome<Vec<[Turn; 2]>> {
    let mut turns = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let pair = if round % 2 == 0 {
            let first = ours.turn(runtime, operation)?;
            [first, theirs.turn(runtime, operation)?]
        } else {
            let first = theirs.turn(runtime, operation)?;
            [ours.turn(runtime, operation)?, first]
        };
        if round > 0 {
            turns.push(pair);
        }
    }
    Ok(turns)
}

/// Requests, read units and write units per operation.
fn per_operation(after: Consumed, before: Consumed, operations: u64) -> [f64; 3] {
    let spent = [
        (after.requests - before.requests) as f64,
        after.read_units - before.read_units,
        after.write_units - before.write_units,
    ];
    spent.map(|spent| spent / operations.max(1) as f64)
}

impl<S: Side> Contestant<S> {
    /// Operations so far, with those of rounds that do not count.
    fn calls(&self) -> u64 {
        self.tasks.iter().map(|task| task.calls).sum()
    }

    fn turn(&mut self, runtime: &Runtime, operation: Operation) -> Outcome<Turn> {
        let cpu_time = || machine::cpu_time("self").ok_or("this process's CPU time is unknown");
        let tasks = std::mem::take(&mut self.tasks);
        let (cpu_before, started) = (cpu_time()?, Instant::now());
        let (tasks, done) = runtime.block_on(take_turn(&self.side, operation, tasks, started + TURN))?;
        self.tasks = tasks;
        Ok(Turn { done, wall: started.elapsed(), cpu: cpu_time()? - cpu_before })
    }
}

async fn take_turn(
    side: &impl Side,
    operation: Operation,
    tasks: Vec<Task>,
    until: Instant,
) -> Outcome<(Vec<Task>, u64)> {
    let work = |mut task: Task| {
        let side = side.clone();
        async move {
            let mut done = 0;
            while Instant::now() < until {
                side.operate(operation, &task.key(operation)?).await?;
                (task.calls, done) = (task.calls + 1, done + 1);
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((task, done))
        }
    };
    let running: Vec<_> = tasks.into_iter().map(|task| tokio::spawn(work(task))).collect();
    let (mut tasks, mut all_done) = (Vec::with_capacity(running.len()), 0);
    for work in running {
        let (task, done) = work.await??;
        tasks.push(task);
        all_done += done;
    }
    Ok((tasks, all_done))
}

fn row(name: &str, tasks: u64, turns: &[[Turn; 2]], spent: [f64; 3], report: &mut Report) -> Row {
    let rate = |turn: &Turn| turn.done as f64 / turn.wall.as_secs_f64();
    let rate_of = |side: usize| median(turns.iter().map(|pair| rate(&pair[side])).collect());
    let rates = median(turns.iter().map(|[ours, theirs]| rate(ours) / rate(theirs)).collect());
    let cpu = |side: usize| {
        // The kernel counts in hundredths of a second: all turns together say more than a median of them.
        let (spent, done) =
            turns.iter().fold((0.0, 0), |sum, pair| (sum.0 + pair[side].cpu.as_secs_f64(), sum.1 + pair[side].done));
        1_000.0 * spent / done.max(1) as f64
    };
    let times = [cpu(0), cpu(1)].map(|seconds| report::time(Duration::from_secs_f64(seconds)));
    let (ratio, [requests, read_units, write_units]) = (cpu(0) / cpu(1), spent);
    report.line(format_args!(
        "| {name} | {tasks} | {:.0} | {:.0} | {rates:.2} | {} | {} | {ratio:.2} | {requests:.2} | {read_units:.2} | {write_units:.2} |",
        rate_of(0),
        rate_of(1),
        times[0],
        times[1],
    ));
    Row { label: format!("{name}, {tasks} {}", if tasks == 1 { "task" } else { "tasks" }), cpu: ratio, requests }
}

impl Side for DynamoStore {
    async fn operate(&self, operation: Operation, key: &StateKey) -> Outcome {
        match operation {
            Operation::Get => {
                self.get(key, Get::default()).await?;
            }
            Operation::GetMany => {
                let ops: Vec<_> = many(key)?.into_iter().map(|key| BatchOp::Get(key, Get::default())).collect();
                for reply in self.batch(&ops).await? {
                    reply?;
                }
            }
            Operation::Put => {
                self.put(key, &Put::new(VALUE).ttl(Ttl::After(TTL))).await?;
            }
            Operation::PutIfAbsent => {
                if !self.put(key, &Put::new(VALUE).ttl(Ttl::After(TTL)).if_absent()).await?.is_applied() {
                    return Err(format!("{key} was not there before").into());
                }
            }
            Operation::Increment => {
                self.increment(key, Increment::by(1).at_most(i64::MAX)).await?;
            }
        }
        Ok(())
    }
}
