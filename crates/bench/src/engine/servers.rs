//! The servers that are compared, each a process of its own on a free port.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acteon_test_support::supervised;
use tempfile::TempDir;

use crate::{Outcome, machine};

/// How long a server may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    port: u16,
    /// Where it runs.
    _folder: TempDir,
}

impl Server {
    /// redis-server, which writes nothing to the disk.
    pub(super) fn redis() -> Outcome<Self> {
        Self::start(|port, _| {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            Ok(command)
        })
    }

    /// The engine alone, with so many threads.
    pub(crate) fn engine(program: &Path, threads: usize) -> Outcome<Self> {
        Self::start(|port, folder| {
            let config = folder.join("acteon.toml");
            fs::write(&config, format!("[server]\nthreads = {threads}\nlog = \"warn\"\n"))?;
            let mut command = Command::new(fs::canonicalize(program)?);
            command.arg("-c").arg(config).args(["engine", "--listen", &format!("127.0.0.1:{port}")]);
            Ok(command)
        })
    }

    fn start(command: impl FnOnce(u16, &Path) -> Outcome<Command>) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = command(port, folder.path())?;
        command.current_dir(folder.path()).stdout(Stdio::null());
        let server = Self { process: supervised(command)?, port, _folder: folder };
        let begin = Instant::now();
        while let Err(error) = server.ask::<String>(&["PING"]) {
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!("no answer from port {port} after {START_TIMEOUT:?}: {error}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends one command over a connection of its own.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Outcome<T> {
        let mut connection = redis::Client::open(("127.0.0.1", self.port))?.get_connection()?;
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        Ok(command.query(&mut connection)?)
    }

    /// Processor time so far, of all threads.
    pub(crate) fn cpu_time(&self) -> Outcome<Duration> {
        machine::cpu_time(&self.process.id().to_string()).ok_or_else(|| "the server's processor time is unknown".into())
    }

    /// Resident memory in bytes.
    pub(super) fn resident_bytes(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no resident memory is given")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither fails while it runs; if it has ended already, nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Name and version of the redis-server that is installed.
pub(super) fn redis_version() -> Outcome<String> {
    let output = Command::new("redis-server").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(format!("redis-server {}", version.ok_or("redis-server does not tell its version")?))
}
