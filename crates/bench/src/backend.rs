//! The backends, each a server process of its own but for memory, with what they tell of the work that they did.
//!
//! A request is what the backend counts as one: in Redis and the engine, calls of those commands that the driver sends for what is
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

use crate::dynamodb::Service;
use crate::engine::Server;
use crate::postgres::ServerCpu;
use crate::{Outcome, machine};

/// What can be asked for by name.
pub(crate) const NAMES: [&str; 5] = ["memory", "redis", "engine", "postgres", "dynamodb"];
/// Nothing is late on this machine but by the load that is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend with its nodes.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) nodes: Vec<State>,
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
    /// The one of that name, with so many stores on it, each with connections of its own.
    pub(crate) async fn start(name: &str, program: &Path, nodes: usize) -> Outcome<Self> {
        match name {
            "memory" => Ok(Self::memory(nodes)),
            "redis" => Self::redis(nodes).await,
            "engine" => Self::engine(program, nodes).await,
            "postgres" => Self::postgres(nodes).await,
            "dynamodb" => Self::dynamodb(nodes).await,
            other => Err(format!("there is no backend {other}").into()),
        }
    }

    fn memory(nodes: usize) -> Self {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::default());
        Self { name: "memory", nodes: vec![State::new(store); nodes], server: Running::InProcess }
    }

    async fn redis(nodes: usize) -> Outcome<Self> {
        let server = RedisServer::start(RedisOptions::default())?;
        let process = server.info("process_id")?.ok_or("the server does not tell its process")?;
        let nodes = redis_nodes(&server.url(), nodes).await?;
        Ok(Self { name: "redis", nodes, server: Running::Redis { server, process } })
    }

    /// The engine behind its protocol, with the same driver as Redis.
    async fn engine(program: &Path, nodes: usize) -> Outcome<Self> {
        let server = Server::engine(program, 1)?;
        let nodes = redis_nodes(&format!("redis://127.0.0.1:{}", server.port()), nodes).await?;
        Ok(Self { name: "engine", nodes, server: Running::Engine(server) })
    }

    /// It waits for the disk at every commit.
    async fn postgres(count: usize) -> Outcome<Self> {
        let settings = vec!["shared_preload_libraries = 'pg_stat_statements'".to_owned()];
        let server = PostgresServer::start(PostgresOptions { durable: true, settings, ..PostgresOptions::default() })?;
        server.query("CREATE EXTENSION pg_stat_statements")?;
        let cpu = ServerCpu::of(&server)?;
        let mut nodes = Vec::new();
        for _ in 0..count {
            let config = PostgresConfig { operation_timeout: PATIENCE, ..PostgresConfig::from_url(&server.url())? };
            let store = PostgresStore::connect(config).await?;
            nodes.push(State::new(Arc::new(store)));
        }
        Ok(Self { name: "postgres", nodes, server: Running::Postgres { server, cpu } })
    }

    /// The emulator that the driver's tests use.
    async fn dynamodb(count: usize) -> Outcome<Self> {
        let service = Service::start()?;
        let mut nodes = Vec::new();
        for _ in 0..count {
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

    /// The server, if it is PostgreSQL.
    pub(crate) fn postgres_server(&self) -> Option<&PostgresServer> {
        match &self.server {
            Running::Postgres { server, .. } => Some(server),
            _ => None,
        }
    }

    /// Requests so far, of these commands where commands are counted; `None` where there are no such things.
    pub(crate) fn requests(&self, commands: &[&str]) -> Outcome<Option<u64>> {
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
    pub(crate) fn cpu(&self) -> Outcome<Option<Duration>> {
        let of = |process: &str| machine::cpu_time(process).ok_or("the server's processor time is unknown");
        Ok(Some(match &self.server {
            Running::InProcess => return Ok(None),
            Running::Redis { process, .. } => of(process)?,
            Running::Engine(server) => server.cpu_time()?,
            Running::Postgres { cpu, .. } => cpu.spent()?,
            Running::Dynamo { service, .. } => of(&service.process_id().to_string())?,
        }))
    }

    pub(crate) async fn close(self) -> Outcome {
        for node in &self.nodes {
            node.close().await?;
        }
        Ok(())
    }
}

async fn redis_nodes(url: &str, count: usize) -> Outcome<Vec<State>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let config = RedisConfig { operation_timeout: PATIENCE, ..RedisConfig::from_url(url)? };
        let store = RedisStore::connect(config).await?;
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
