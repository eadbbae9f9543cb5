//! The Redis driver beside raw redis-rs: the same commands with the same arguments over one multiplexed connection each, so
//! the difference is what the driver adds in the client.
//!
//! Client CPU counts most: the server and the network cost the same on both sides. The driver is measured on the engine as well.

use std::time::{Duration, Instant};

use acteon_state_core::key::Companion;
use acteon_state_core::{
    Condition, Get, Increment, Keyspace, LockRequest, OwnerId, Put, StateKey, StateStore, Ttl, Version,
};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, IntoConnectionInfo as _, Value};
use tokio::runtime::Builder;

use crate::engine::{Server, redis_version};
use crate::report::{self, Chart, Goal, Group, Report, Scale};
use crate::rounds::{alternate, middle, ratio};
use crate::{Error, Options, Outcome, machine};

/// Operations of one round, over all tasks; fewer with one task, which waits for each answer.
const OPERATIONS: usize = 40_000;
const OPERATIONS_ALONE: usize = 8_000;
const VALUE: &[u8] = &[b'x'; 64];
const TTL: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(30);
const RETENTION_MS: u64 = 24 * 3_600_000;
const PREFIX: &str = "bench";

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../state-redis/src/scripts/", $name, ".lua"))
    };
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Get,
    PutTtl,
    CompareAndSwap,
    Increment,
    LockCycle,
}

const ALL: [(Operation, &str); 5] = [
    (Operation::Get, "get"),
    (Operation::PutTtl, "put with ttl"),
    (Operation::CompareAndSwap, "compare and swap"),
    (Operation::Increment, "increment with bound"),
    (Operation::LockCycle, "lock and release"),
];

/// Time and client CPU per operation of one round.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
    /// How often the server read from a connection.
    reads: f64,
}

/// What one row of the table says.
struct Row {
    tasks: usize,
    name: &'static str,
    /// Driver, raw redis-rs, the same with Nagle's algorithm off, and the driver on the engine: time per operation.
    wall: [Duration; 4],
    time_ratio: f64,
    cpu_ratio: f64,
    /// Client CPU to that of raw redis-rs with Nagle's algorithm off.
    prompt_cpu_ratio: f64,
    /// Time of the driver on the engine to that on Redis.
    engine_ratio: f64,
    /// What one round trip is, as long as nothing travels together.
    reads: f64,
}

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let server = RedisServer::start(RedisOptions::default())?;
    let engine = Server::engine(options.program, 1)?;
    let (driver, raw, prompt, on_engine) = runtime.block_on(async {
        let driver = connect(&server.url()).await?;
        let on_engine = connect(&format!("redis://127.0.0.1:{}", engine.port())).await?;
        let (raw, prompt) = (Raw::connect(&server.url(), false).await?, Raw::connect(&server.url(), true).await?);
        Ok::<_, Error>((driver, raw, prompt, on_engine))
    })?;
    report.line(format_args!(
        "Medians of {} rounds; {} and the engine on the same machine.",
        options.rounds,
        redis_version()?
    ));
    let columns = [
        "tasks",
        "operation",
        "driver",
        "raw redis-rs",
        "time ratio",
        "client CPU ratio",
        "raw, Nagle off",
        "client CPU to it",
        "driver on the engine",
        "to Redis",
        "reads by Redis per operation",
    ];
    report.table(&columns, 2);
    let mut rows = Vec::new();
    for tasks in [1, 64, 1_024] {
        for (operation, name) in ALL {
            eprintln!("redis: {tasks} tasks, {name}");
            let total = options.scaled(if tasks == 1 { OPERATIONS_ALONE } else { OPERATIONS }).max(tasks);
            let costs: [Vec<Cost>; 4] = alternate(options.rounds, |at| {
                let before = reads(&server)?;
                let cost = match at {
                    0 => runtime.block_on(measure(&driver, operation, tasks, total))?,
                    1 => runtime.block_on(measure(&raw, operation, tasks, total))?,
                    2 => runtime.block_on(measure(&prompt, operation, tasks, total))?,
                    _ => runtime.block_on(measure(&on_engine, operation, tasks, total))?,
                };
                Ok(Cost { reads: (reads(&server)? - before) / (total / tasks * tasks) as f64, ..cost })
            })?;
            let row = Row::of(tasks, operation, name, &costs);
            report.line(row.cells());
            rows.push(row);
        }
    }
    goals(&rows, report);
    chart(&rows, report);
    Ok(())
}

async fn connect(url: &str) -> Outcome<RedisStore> {
    let config = RedisConfig { connections: 1, prefix: PREFIX.to_owned(), ..RedisConfig::from_url(url)? };
    Ok(RedisStore::connect(config).await?)
}

/// How often the server has read from any of its connections so far.
fn reads(server: &RedisServer) -> Outcome<f64> {
    Ok(server.info("total_reads_processed")?.ok_or("Redis does not tell its reads")?.parse()?)
}

impl Row {
    fn of(
        tasks: usize,
        operation: Operation,
        name: &'static str,
        [ours, theirs, prompt, engine]: &[Vec<Cost>; 4],
    ) -> Self {
        let (wall, cpu) = (|cost: &Cost| cost.wall.as_secs_f64(), |cost: &Cost| cost.cpu.as_secs_f64());
        // Two operations of the contract.
        let operations = if matches!(operation, Operation::LockCycle) { 2.0 } else { 1.0 };
        Self {
            tasks,
            name,
            wall: [ours, theirs, prompt, engine].map(|costs| Duration::from_secs_f64(middle(costs, wall))),
            time_ratio: ratio(ours, theirs, wall),
            cpu_ratio: ratio(ours, theirs, cpu),
            prompt_cpu_ratio: ratio(ours, prompt, cpu),
            engine_ratio: ratio(engine, ours, wall),
            reads: middle(ours, |cost| cost.reads) / operations,
        }
    }

    fn cells(&self) -> String {
        let Self { tasks, name, wall, time_ratio, cpu_ratio, prompt_cpu_ratio, engine_ratio, reads } = self;
        let [ours, theirs, prompt, engine] = wall.map(report::time);
        format!(
            "| {tasks} | {name} | {ours} | {theirs} | {time_ratio:.2} | {cpu_ratio:.2} | {prompt} | {prompt_cpu_ratio:.2} | {engine} | {engine_ratio:.2} | {reads:.2} |"
        )
    }

    fn label(&self) -> String {
        format!("{}, {} {}", self.name, self.tasks, if self.tasks == 1 { "task" } else { "tasks" })
    }
}

fn goals(rows: &[Row], report: &mut Report) {
    let cases = |value: fn(&Row) -> f64| rows.iter().map(move |row| (row.label(), value(row)));
    report.goal(Goal::at_most("client CPU to raw redis-rs", 1.05, "x").cases(cases(|row| row.cpu_ratio)));
    // The two connections that ask for the count are in it: hundredths are exact enough.
    let alone = rows.iter().filter(|row| row.tasks == 1).map(|row| (row.label(), (row.reads * 100.0).round() / 100.0));
    report.goal(Goal::at_most("round trips per operation", 1.0, "").cases(alone));
    report.goal(Goal::at_most("time on the engine to that on Redis", 1.0, "x").cases(cases(|row| row.engine_ratio)));
}

fn chart(rows: &[Row], report: &mut Report) {
    let group =
        |row: &Row| Group { label: row.label(), values: vec![Some(row.cpu_ratio), Some(row.engine_ratio)], goal: None };
    report.chart(Chart {
        name: "",
        title: "The Redis driver: beside raw redis-rs, and on the engine".to_owned(),
        axis: "ratio, below 1 is better",
        scale: Scale::Linear,
        series: vec!["client CPU to raw redis-rs".to_owned(), "time on the engine to Redis".to_owned()],
        groups: rows.iter().map(group).collect(),
    });
}

/// Either side: carries out one operation of a task, whose keys and versions nobody else touches.
trait Side: Clone + Send + Sync + 'static {
    fn operate(
        &self,
        operation: Operation,
        key: &StateKey,
        version: &mut Version,
    ) -> impl Future<Output = Outcome> + Send;
}

async fn measure(side: &impl Side, operation: Operation, tasks: usize, total: usize) -> Outcome<Cost> {
    let per_task = total / tasks;
    let cpu_time = || machine::cpu_time("self").ok_or("this process's CPU time is unknown");
    let (cpu_before, started) = (cpu_time()?, Instant::now());
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let side = side.clone();
            tokio::spawn(async move {
                let key = StateKey::new("bench", "acme", "redis", &format!("{operation:?} {task}"))?;
                let mut version = Version::draw();
                for _ in 0..per_task {
                    side.operate(operation, &key, &mut version).await?;
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            })
        })
        .collect();
    for task in running {
        task.await??;
    }
    let operations = u32::try_from(per_task * tasks)?;
    let (wall, cpu) = (started.elapsed() / operations, (cpu_time()? - cpu_before) / operations);
    // Whoever calls this knows the server.
    Ok(Cost { wall, cpu, reads: 0.0 })
}

impl Side for RedisStore {
    async fn operate(&self, operation: Operation, key: &StateKey, version: &mut Version) -> Outcome {
        match operation {
            Operation::Get => drop(self.get(key, Get::default()).await?),
            Operation::PutTtl => drop(self.put(key, &Put::new(VALUE).ttl(Ttl::After(TTL))).await?),
            Operation::CompareAndSwap => {
                let put = Put::new(VALUE).when(Condition::Version(*version));
                if !self.put(key, &put).await?.is_applied() {
                    self.put(key, &Put { condition: Condition::Always, ..put.clone() }).await?;
                }
                *version = put.version;
            }
            Operation::Increment => drop(self.increment(key, Increment::by(1).at_most(i64::MAX)).await?),
            Operation::LockCycle => {
                let request = LockRequest::new(key.clone(), LEASE);
                self.lock_acquire(&request).await?;
                self.lock_release(key, request.owner).await?;
            }
        }
        Ok(())
    }
}

/// redis-rs, with the driver's scripts.
#[derive(Clone)]
struct Raw {
    connection: MultiplexedConnection,
    keyspace: Keyspace,
    put: String,
    increment: String,
    acquire: String,
    release: String,
}

impl Raw {
    /// With Nagle's algorithm, as by default, or without.
    async fn connect(url: &str, is_prompt: bool) -> Outcome<Self> {
        let info = url.into_connection_info()?;
        let settings = info.tcp_settings().clone().set_nodelay(is_prompt);
        let client = redis::Client::open(info.set_tcp_settings(settings))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut load = async |parts: &[&str]| {
            let source = format!("#!lua\n{}", parts.join("\n"));
            redis::cmd("SCRIPT").arg("LOAD").arg(source).query_async::<String>(&mut connection).await
        };
        let (record, condition) = (part!("part_record"), part!("part_condition"));
        let put = load(&[record, condition, part!("part_write"), part!("part_put"), part!("put")]).await?;
        let increment = load(&[record, part!("part_add"), part!("increment")]).await?;
        let (time, lock) = (part!("part_time"), part!("part_lock"));
        let acquire = load(&[time, lock, part!("part_lock_acquire"), part!("lock_acquire")]).await?;
        let release = load(&[time, lock, part!("lock_release")]).await?;
        Ok(Self { connection, keyspace: Keyspace::new(PREFIX)?, put, increment, acquire, release })
    }

    async fn send(&self, cmd: &Cmd) -> Outcome<Value> {
        let reply = self.connection.clone().send_packed_command(cmd).await?;
        Ok(reply.extract_error()?)
    }

    fn script(sha: &str, text: &str) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(sha).arg(1).arg(text);
        cmd
    }

    async fn put(&self, text: &str, new: Version, condition: &str, old: &[u8], ttl: &str) -> Outcome<Value> {
        let mut cmd = Self::script(&self.put, text);
        self.send(cmd.arg(&new.to_text()[..]).arg(VALUE).arg(condition).arg(old).arg(ttl)).await
    }
}

impl Side for Raw {
    async fn operate(&self, operation: Operation, key: &StateKey, version: &mut Version) -> Outcome {
        let text = self.keyspace.text(key);
        match operation {
            Operation::Get => drop(self.send(redis::cmd("GET").arg(text)).await?),
            Operation::PutTtl => drop(self.put(&text, Version::draw(), "always", b"", "600000").await?),
            Operation::CompareAndSwap => {
                let new = Version::draw();
                let reply = self.put(&text, new, "version", &version.to_text(), "clear").await?;
                if reply != Value::Array(vec![Value::Int(1)]) {
                    self.put(&text, new, "always", b"", "clear").await?;
                }
                *version = new;
            }
            Operation::Increment => {
                let mut cmd = Self::script(&self.increment, &text);
                self.send(cmd.arg(1).arg("").arg(i64::MAX).arg("refuse").arg("keep").arg("")).await?;
            }
            Operation::LockCycle => {
                let (text, owner) = (self.keyspace.companion(key, Companion::Lock), OwnerId::draw());
                let mut cmd = Self::script(&self.acquire, &text);
                cmd.arg(&owner.to_text()[..]).arg("x").arg(1).arg(30_000).arg(RETENTION_MS).arg("");
                self.send(&cmd).await?;
                let mut cmd = Self::script(&self.release, &text);
                self.send(cmd.arg(&owner.to_text()[..]).arg(RETENTION_MS)).await?;
            }
        }
        Ok(())
    }
}
