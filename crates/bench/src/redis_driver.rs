//! The Redis driver beside raw redis-rs: the same commands with the same arguments over one multiplexed connection each, so
//! the difference is what the driver adds in the client.
//!
//! Client CPU counts most: the server and the network cost the same on both sides.

use std::time::{Duration, Instant};

use acteon_state_core::key::Companion;
use acteon_state_core::{
    Condition, Get, Increment, Keyspace, LockRequest, OwnerId, Put, StateKey, StateStore, Ttl, Version,
};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::runtime::Builder;

use crate::rounds::median;
use crate::{Outcome, machine, report};

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
}

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(rounds: usize) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let server = RedisServer::start(RedisOptions::default())?;
    let (driver, raw) = runtime.block_on(async {
        let config = RedisConfig { connections: 1, prefix: PREFIX.to_owned(), ..RedisConfig::from_url(&server.url())? };
        let driver = RedisStore::connect(config).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((driver, Raw::connect(&server.url()).await?))
    })?;
    println!("medians of {rounds} rounds; one redis-server 7.0 on the same machine\n");
    println!("| tasks | operation | driver | raw redis-rs | time ratio | client CPU ratio |");
    println!("|---:|---|---:|---:|---:|---:|");
    for tasks in [1, 64, 1_024] {
        for (operation, name) in ALL {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                let mut turn = |is_ours: bool| -> Outcome {
                    let cost = if is_ours {
                        runtime.block_on(measure(&driver, operation, tasks))?
                    } else {
                        runtime.block_on(measure(&raw, operation, tasks))?
                    };
                    if round > 0 {
                        if is_ours { ours.push(cost) } else { theirs.push(cost) }
                    }
                    Ok(())
                };
                turn(round % 2 == 0)?;
                turn(round % 2 == 1)?;
            }
            row(tasks, name, &ours, &theirs);
        }
    }
    Ok(())
}

fn row(tasks: usize, name: &str, ours: &[Cost], theirs: &[Cost]) {
    let ratio = |part: fn(&Cost) -> Duration| {
        median(ours.iter().zip(theirs).map(|(a, b)| part(a).as_secs_f64() / part(b).as_secs_f64()).collect::<Vec<_>>())
    };
    let wall = |costs: &[Cost]| report::time(median(costs.iter().map(|cost| cost.wall).collect()));
    let (time, cpu) = (ratio(|cost| cost.wall), ratio(|cost| cost.cpu));
    println!("| {tasks} | {name} | {} | {} | {time:.2} | {cpu:.2} |", wall(ours), wall(theirs));
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

async fn measure(side: &impl Side, operation: Operation, tasks: usize) -> Outcome<Cost> {
    let total = if tasks == 1 { OPERATIONS_ALONE } else { OPERATIONS };
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
    Ok(Cost { wall: started.elapsed() / operations, cpu: (cpu_time()? - cpu_before) / operations })
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
    async fn connect(url: &str) -> Outcome<Self> {
        let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let mut load = async |parts: &[&str]| {
            let source = format!("#!lua\n{}", parts.join("\n"));
            redis::cmd("SCRIPT").arg("LOAD").arg(source).query_async::<String>(&mut connection).await
        };
        let (record, condition) = (part!("part_record"), part!("part_condition"));
        let put = load(&[record, condition, part!("part_write"), part!("put")]).await?;
        let increment = load(&[record, part!("part_add"), part!("increment")]).await?;
        let acquire = load(&[part!("part_time"), part!("part_lock"), part!("lock_acquire")]).await?;
        let release = load(&[part!("part_time"), part!("part_lock"), part!("lock_release")]).await?;
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
