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

use acteon_state_core::{Get, Increment, Put, StateKey, StateStore as _, Ttl};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use tokio::runtime::{Builder, Runtime};

use self::raw::Raw;
use crate::rounds::median;
use crate::{Outcome, machine, report};

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
    Put,
    PutIfAbsent,
    Increment,
}

const ALL: [(Operation, &str); 4] = [
    // In this order: what is read was put before.
    (Operation::Put, "put with ttl"),
    (Operation::Get, "get"),
    (Operation::PutIfAbsent, "put if absent, fresh keys"),
    (Operation::Increment, "increment with bound"),
];

/// Either side: carries an operation out once.
trait Side: Clone + Send + Sync + 'static {
    fn operate(&self, operation: Operation, key: &StateKey) -> impl Future<Output = Outcome> + Send;
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
pub fn run(rounds: usize) -> Outcome {
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
    println!("medians of {rounds} rounds; an emulator in a process of its own on the same machine\n");
    println!(
        "| operation | tasks | driver, per second | raw SDK, per second | ratio | client CPU per 1,000: driver | raw SDK | ratio |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for count in TASKS {
        let tasks = |side| (0..count).map(|number| Task { side, number: count + number, calls: 0 }).collect();
        let mut ours = Contestant { side: driver.clone(), tasks: tasks("ours") };
        let mut theirs = Contestant { side: raw.clone(), tasks: tasks("them") };
        for (operation, name) in ALL {
            let turns = alternate(&runtime, operation, rounds, &mut ours, &mut theirs)?;
            row(name, count, &turns);
        }
    }
    runtime.block_on(driver.close())?;
    Ok(())
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

impl<S: Side> Contestant<S> {
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

fn row(name: &str, tasks: u64, turns: &[[Turn; 2]]) {
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
    println!(
        "| {name} | {tasks} | {:.0} | {:.0} | {rates:.2} | {} | {} | {:.2} |",
        rate_of(0),
        rate_of(1),
        times[0],
        times[1],
        cpu(0) / cpu(1)
    );
}

impl Side for DynamoStore {
    async fn operate(&self, operation: Operation, key: &StateKey) -> Outcome {
        match operation {
            Operation::Get => {
                self.get(key, Get::default()).await?;
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
