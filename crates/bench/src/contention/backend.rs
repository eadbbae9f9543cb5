//! The backends, each a server process of its own but for memory, with what they tell of the work that they did.
//!
//! A request is what the backend counts as one: in Redis and the engine, calls of those commands that the driver sends for the lock
//! in question (`INFO commandstats`, which also counts what scripts call), a statement in PostgreSQL (pg_stat_statements; the driver may put several operations
//! into one), a request of the DynamoDB driver as it was sent. Memory has none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{State, StateStore};
use acteon_state_dynamodb::{DynamoConfig, DynamoStore};
use acteon_state_memory::MemoryStore;
use acteon_state_postgres::{PostgresConfig, PostgresStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};

use super::round::Lock;
use crate::dynamodb::Service;
use crate::engine::Server;
use crate::postgres::ServerCpu;
use crate::{Outcome, machine};

/// Over how many stores, each with connections of its own, the waiters are spread.
const NODES: usize = 4;
/// Nothing is late on this machine but by the load that is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend with its nodes.
pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) nodes: Vec<State>,
    server: Running,
}

/// Where the work is done.
enum Running {
    InProcess,
    Redis { server: RedisServer, process: String },
    Engine(Server),
    Postgres { server: PostgresServer, cpu: ServerCpu },
    Dynamo { service: Service, nodes: Vec<DynamoStore> },
}

impl Backend {
    pub(super) fn memory() -> Self {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
        Self { name: "memory", nodes: vec![State::new(store); NODES], server: Running::InProcess }
    }

    pub(super) async fn redis() -> Outcome<Self> {
        let server = RedisServer::start(RedisOptions::default())?;
        let process = server.info("process_id")?.ok_or("the server does not tell its process")?;
        let nodes = redis_nodes(&server.url()).await?;
        Ok(Self { name: "redis", nodes, server: Running::Redis { server, process } })
    }

    /// The engine behind its protocol, with the same driver as Redis.
    pub(super) async fn engine(program: &Path) -> Outcome<Self> {
        let server = Server::engine(program, 1)?;
        let nodes = redis_nodes(&format!("redis://127.0.0.1:{}", server.port())).await?;
        Ok(Self { name: "engine", nodes, server: Running::Engine(server) })
    }

    /// It waits for the disk at every commit.
    pub(super) async fn postgres() -> Outcome<Self> {
        let settings = vec!["shared_preload_libraries = 'pg_stat_statements'".to_owned()];
        let server = PostgresServer::start(PostgresOptions { durable: true, settings, ..PostgresOptions::default() })?;
        server.query("CREATE EXTENSION pg_stat_statements")?;
        let cpu = ServerCpu::of(&server)?;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let store = PostgresStore::connect(PostgresConfig::from_url(&server.url())?).await?;
            nodes.push(State::new(Arc::new(store)));
        }
        Ok(Self { name: "postgres", nodes, server: Running::Postgres { server, cpu } })
    }

    /// The emulator that the driver's tests use.
    pub(super) async fn dynamodb() -> Outcome<Self> {
        let service = Service::start()?;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let config = DynamoConfig {
                url: Some(service.url().to_owned()),
                region: Some("us-east-1".to_owned()),
                attempt_timeout: PATIENCE,
                operation_timeout: PATIENCE,
                ..DynamoConfig::default()
            };
            nodes.push(DynamoStore::connect(config).await?);
        }
        let states = nodes.iter().map(|store| State::new(Arc::new(store.clone()))).collect();
        Ok(Self { name: "dynamodb, emulator", nodes: states, server: Running::Dynamo { service, nodes } })
    }

    /// Requests for locks of this kind so far; `None` where there are no such things.
    pub(super) fn requests(&self, lock: Lock) -> Outcome<Option<u64>> {
        let commands: &[&str] = match lock {
            Lock::Ours => &["eval", "evalsha"],
            // Unconditional deletes and puts of what is absent need no script.
            Lock::Polling | Lock::Greedy => &["set", "del"],
        };
        Ok(Some(match &self.server {
            Running::InProcess => return Ok(None),
            Running::Redis { server, .. } => {
                calls(commands, &server.query(&["INFO", "commandstats"])?.ok_or("INFO has no answer")?)?
            }
            Running::Engine(server) => calls(commands, &server.ask::<String>(&["INFO", "commandstats"])?)?,
            Running::Postgres { server, .. } => {
                let rows = server.query("SELECT sum(calls) FROM pg_stat_statements")?;
                rows.into_iter().flatten().flatten().next().ok_or("no statements are counted")?.parse()?
            }
            Running::Dynamo { nodes, .. } => nodes.iter().map(|store| store.capacity().sent()).sum(),
        }))
    }

    /// Processor time of the server so far, with all its processes; `None` in process.
    pub(super) fn cpu(&self) -> Outcome<Option<Duration>> {
        let of = |process: &str| machine::cpu_time(process).ok_or("the server's processor time is unknown");
        Ok(Some(match &self.server {
            Running::InProcess => return Ok(None),
            Running::Redis { process, .. } => of(process)?,
            Running::Engine(server) => server.cpu_time()?,
            Running::Postgres { cpu, .. } => cpu.spent()?,
            Running::Dynamo { service, .. } => of(&service.process_id().to_string())?,
        }))
    }

    pub(super) async fn close(self) -> Outcome {
        for node in &self.nodes {
            node.close().await?;
        }
        Ok(())
    }
}

async fn redis_nodes(url: &str) -> Outcome<Vec<State>> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let store = RedisStore::connect(RedisConfig::from_url(url)?).await?;
        nodes.push(State::new(Arc::new(store)));
    }
    Ok(nodes)
}

/// How often these commands were called, out of `cmdstat_evalsha:calls=12,usec=…` and the like.
fn calls(commands: &[&str], stats: &str) -> Outcome<u64> {
    let mut calls = 0;
    for line in stats.lines() {
        let counted = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls="));
        if let Some((command, figures)) = counted
            && commands.contains(&command)
        {
            calls += figures.split(',').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn only_calls_of_the_named_commands_are_counted() {
        let stats = "# Commandstats\r\ncmdstat_get:calls=9,usec=1,usec_per_call=0.1\r\n\
            cmdstat_evalsha:calls=5,usec=40,usec_per_call=8.00,rejected_calls=0\r\ncmdstat_eval:calls=2,usec=1\r\n";
        assert_eq!(calls(&["eval", "evalsha"], stats).unwrap(), 7);
        assert_eq!(calls(&["set"], stats).unwrap(), 0);
    }
}
