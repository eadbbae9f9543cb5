//! Servers whose disk is full for a while.
//!
//! What a server does then depends on what it cannot write. A Redis that has each write on the disk before it answers ends itself; one that
//! writes behind refuses writes and answers reads. A PostgreSQL refuses what needs another page of a table, and crashes without room for
//! its log. Acteon's engine refuses writes under every setting; those that were under way are not answered. Nothing that was acknowledged may be lost in any of these.

use std::io;
use std::time::{Duration, Instant};

use acteon_faults::Random;
use acteon_state::State;
use acteon_state_core::{Effect, ErrorKind, Put, StateKey};
use acteon_test_support::{
    EngineOptions, EngineServer, PostgresDisk, PostgresOptions, PostgresServer, RedisOptions, RedisServer, SmallDisk,
};
use async_trait::async_trait;

use crate::row::{self, Backend, Fault, Harm, Traits, open};

const ENDED: Fault = Fault::new("a full disk that ends the server", Harm::Crash);
const REFUSING: Fault = Fault::new("a full disk that refuses writes", Harm::Delay);

/// Room for what the clients of one fault write, some times over.
const REDIS_DISK_BYTES: u64 = 64 << 20;
/// For segments of 16 MiB, of which a few are kept.
const LOG_DISK_BYTES: u64 = 96 << 20;
/// An empty server has 22 MiB of tables.
const TABLES_DISK_BYTES: u64 = 96 << 20;
/// More than what is left in the last page of a file.
const PROBE_BYTES: usize = 16 * 1024;
/// How long a server may take to notice.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

const PROBE_TABLE: &str = "CREATE TABLE IF NOT EXISTS probe (filler text)";
const PROBE_ROW: &str = "INSERT INTO probe SELECT repeat('x', 1000) FROM generate_series(1, 100)";

struct Full {
    name: &'static str,
    server: Server,
    fault: Fault,
}

enum Server {
    Engine(EngineServer),
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    fn disk(&self) -> io::Result<&SmallDisk> {
        let disk = match self {
            Self::Engine(server) => server.disk(),
            Self::Redis(server) => server.disk(),
            Self::Postgres(server) => server.disk(),
        };
        disk.ok_or_else(|| io::Error::other("the server has no disk of its own"))
    }

    /// Writes something that needs space.
    fn probe(&self, fault: Fault) -> io::Result<()> {
        match self {
            Self::Engine(server) => server.query(&["SET", "probe", &"x".repeat(PROBE_BYTES)]).map(drop),
            Self::Redis(server) => server.query(&["SET", "probe", &"x".repeat(PROBE_BYTES)]).map(drop),
            // The next segment of the log is one that is not there yet, sooner or later.
            Self::Postgres(server) if fault == ENDED => server.query("SELECT pg_switch_wal()").map(drop),
            Self::Postgres(server) => server.query(PROBE_ROW).map(drop),
        }
    }
}

impl Full {
    /// A driver says that a write was refused for lack of space, and that it did not happen; reads go on.
    async fn check_refusal(&self, state: &State) -> io::Result<()> {
        let expected = match self.server {
            Server::Engine(_) | Server::Redis(_) => ErrorKind::NotDurable,
            Server::Postgres(_) => ErrorKind::OutOfMemory,
        };
        let key = StateKey::new("faults", "matrix", "probe", "disk").map_err(io::Error::other)?;
        let mut random = Random::new(0);
        // Nothing that could be compressed into a page that is there.
        let value: Vec<u8> = (0..PROBE_BYTES).map(|_| random.below(256) as u8).collect();
        match state.put(&key, &Put::new(value)).await {
            Err(error) if error.kind() == expected && error.effect() == Effect::NotApplied => {}
            outcome => return Err(io::Error::other(format!("a write to a full disk: {outcome:?}"))),
        }
        match state.get(&key).await {
            Ok(None) => Ok(()),
            outcome => Err(io::Error::other(format!("a read besides a full disk: {outcome:?}"))),
        }
    }

    /// Returns once a probe ends as it should.
    async fn wait_for_probe(&self, is_refused: bool) -> io::Result<()> {
        let begin = Instant::now();
        while self.server.probe(self.fault).is_err() != is_refused {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("writes are refused: expected {is_refused}, in vain")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Full {
    fn name(&self) -> &'static str {
        self.name
    }

    fn config(&self) -> String {
        match &self.server {
            Server::Engine(server) => format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", server.url()),
            Server::Redis(server) => format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", server.url()),
            Server::Postgres(server) => format!("[state]\nbackend = \"postgres\"\nurl = \"{}\"\n", server.url()),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        vec![self.fault]
    }

    fn traits(&self) -> Traits {
        match self.server {
            Server::Engine(_) | Server::Redis(_) => Traits::default(),
            Server::Postgres(_) => Traits::postgres(),
        }
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        if let Server::Postgres(server) = &self.server {
            server.query(PROBE_TABLE)?;
        }
        let state = open(&self.config()).await.map_err(io::Error::other)?;
        self.server.disk()?.fill()?;
        self.wait_for_probe(true).await?;
        if *fault == REFUSING {
            self.check_refusal(&state).await?;
        }
        tokio::time::sleep(lasting).await;
        self.server.disk()?.free()?;
        if *fault == ENDED {
            match &mut self.server {
                Server::Engine(server) => server.restart().map_err(io::Error::other)?,
                Server::Redis(server) => server.restart().map_err(io::Error::other)?,
                Server::Postgres(server) => server.restart().map_err(io::Error::other)?,
            }
        }
        self.wait_for_probe(false).await
    }
}

fn redis(name: &'static str, fault: Fault) -> Full {
    let fsync = if fault == ENDED { "always" } else { "everysec" };
    let settings = vec!["appendonly yes".to_owned(), format!("appendfsync {fsync}")];
    let options = RedisOptions { small_disk_bytes: Some(REDIS_DISK_BYTES), settings, ..RedisOptions::default() };
    let server = RedisServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    Full { name, server: Server::Redis(server), fault }
}

fn engine(name: &'static str, fsync: &str) -> Full {
    let settings = vec![format!("fsync = \"{fsync}\"")];
    let options = EngineOptions { small_disk_bytes: Some(REDIS_DISK_BYTES), settings, ..EngineOptions::default() };
    let server = EngineServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    Full { name, server: Server::Engine(server), fault: REFUSING }
}

fn postgres(name: &'static str, fault: Fault) -> Full {
    let small_disk = match fault {
        ENDED => (PostgresDisk::Log, LOG_DISK_BYTES),
        _ => (PostgresDisk::Tables, TABLES_DISK_BYTES),
    };
    let settings = vec!["min_wal_size = '32MB'".to_owned(), "max_wal_size = '48MB'".to_owned()];
    let options =
        PostgresOptions { durable: true, small_disk: Some(small_disk), settings, ..PostgresOptions::default() };
    let server = PostgresServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    Full { name, server: Server::Postgres(server), fault }
}

async fn run(rows: [Full; 2]) {
    let share = 1.0 / rows.len() as f64;
    for mut row in rows {
        let fault = row.fault;
        row::run_faults(&mut row, &[fault], share).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_on_a_disk_that_is_full_for_a_while_keeps_what_it_declares() {
    let writing_behind = redis("redis on a full disk, everysec", REFUSING);
    run([redis("redis on a full disk, always", ENDED), writing_behind]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_on_a_disk_that_is_full_for_a_while_keeps_what_it_declares() {
    let log = postgres("postgres on a full disk, its log", ENDED);
    run([log, postgres("postgres on a full disk, its tables", REFUSING)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_engine_on_a_disk_that_is_full_for_a_while_keeps_what_it_declares() {
    let always = engine("engine on a full disk, always", "always");
    run([always, engine("engine on a full disk, everysec", "everysec")]).await;
}
