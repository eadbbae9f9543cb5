//! The servers that are compared: redis-server, and this program again as a server of the engine.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig};
use acteon_state_core::clock::{Clock as _, SeededClock};
use acteon_test_support::supervised;
use tempfile::TempDir;

use crate::{Outcome, machine};

/// The argument that makes this program a server.
const ARGUMENT: &str = "engine-service";
/// What the line with the server's port begins with.
const PORT_MARK: &str = "engine at port ";
/// How long a server may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How the server is told its number of threads.
const WORKERS_VARIABLE: &str = "ACTEON_BENCH_WORKERS";

/// A running server; it ends when this is dropped.
pub(super) struct Server {
    process: Child,
    port: u16,
    _folder: Option<TempDir>,
}

impl Server {
    pub(super) fn redis() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(folder.path()).stdout(Stdio::null());
        let server = Self { process: supervised(command)?, port, _folder: Some(folder) };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// The engine with so many threads.
    pub(super) fn engine(workers: usize) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).env(WORKERS_VARIABLE, workers.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = supervised(command)?;
        let output = process.stdout.take().ok_or("the server has no output")?;
        for line in BufReader::new(output).lines() {
            if let Some(port) = line?.strip_prefix(PORT_MARK) {
                let server = Self { port: port.parse()?, process, _folder: None };
                server.wait_until_it_answers()?;
                return Ok(server);
            }
        }
        Err("the server ended before it said where it is".into())
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn cpu_time(&self) -> Outcome<Duration> {
        machine::cpu_time(&self.process.id().to_string()).ok_or_else(|| "the server's processor time is unknown".into())
    }

    /// Resident memory in bytes.
    pub(super) fn resident_bytes(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no resident memory is given")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    pub(super) fn version(&self) -> Outcome<String> {
        let output = Command::new("redis-server").arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        Ok(format!("redis-server {}", version.ok_or("redis-server does not tell its version")?))
    }

    fn wait_until_it_answers(&self) -> Outcome {
        let begin = std::time::Instant::now();
        while begin.elapsed() < START_TIMEOUT {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("nothing listens on port {} after {START_TIMEOUT:?}", self.port).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither fails while it runs; if it has ended already, nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is a server of the engine, until the input ends.
///
/// # Errors
/// It cannot listen.
pub fn serve() -> Outcome {
    let workers = std::env::var(WORKERS_VARIABLE).ok().and_then(|workers| workers.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let clock = Arc::new(SeededClock::new());
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
        let server = EngineServer::bind(instance, config, Arc::new(move || clock.now_us())).await?;
        println!("{PORT_MARK}{}", server.addresses()[0].port());
        io::stdout().flush()?;
        let stopper = server.stopper();
        std::thread::spawn(move || {
            // Whatever it reads, its end is what matters.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stopper.stop();
        });
        server.serve().await;
        Ok(())
    })
}
