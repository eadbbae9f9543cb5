//! The servers that are compared, each a process of its own on a free port, in a temporary folder of its own.
//!
//! All folders are beside each other in the system's temporary directory (`TMPDIR` chooses another one), so what servers keep is on the same
//! disk. Automatic rewriting of journals is off in all of them: it would fall into the turn of one or the other by chance.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acteon_test_support::supervised;
use tempfile::TempDir;

use crate::{Outcome, machine};

/// How long a server may take to answer, with what it has to load.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How often it is asked meanwhile: often, because start-up is measured.
const START_POLL: Duration = Duration::from_millis(2);
/// How long a server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_POLL: Duration = Duration::from_millis(5);
/// Where in its folder a server keeps its data.
const DATA: &str = "data";

/// When what was written has to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Always,
    EverySecond,
    No,
}

impl Fsync {
    /// In the words of both servers.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }
}

/// What a server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Nothing by itself. redis-server begins with a `dump.rdb` all the same.
    Nothing,
    /// A journal; an append-only file, as Redis calls it.
    Journal(Fsync),
}

/// Which server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    Redis,
    /// The engine alone, with so many threads.
    Engine {
        program: &'a Path,
        threads: usize,
    },
}

/// A server that can be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) program: Program<'a>,
    pub(crate) keeps: Keeps,
}

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    port: u16,
    /// Where it runs.
    folder: Arc<TempDir>,
}

impl Setup<'_> {
    pub(super) fn start(self) -> Outcome<Server> {
        self.start_in(Arc::new(tempfile::tempdir()?)).map(|(server, _)| server)
    }

    /// Starts with the data that the folder has from an earlier time. Returns as well how long it took until the first reply.
    pub(crate) fn start_in(self, folder: Arc<TempDir>) -> Outcome<(Server, Duration)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::create_dir_all(folder.path().join(DATA))?;
        let mut command = match self.program {
            Program::Redis => self.redis(port),
            Program::Engine { program, threads } => self.engine(program, threads, port, folder.path())?,
        };
        command.current_dir(folder.path()).stdout(Stdio::null());
        let begin = Instant::now();
        let server = Server { process: supervised(command)?, port, folder };
        while let Err(error) = server.ask::<String>(&["PING"]) {
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!("no answer from port {port} after {START_TIMEOUT:?}: {error}").into());
            }
            std::thread::sleep(START_POLL);
        }
        Ok((server, begin.elapsed()))
    }

    fn redis(self, port: u16) -> Command {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", DATA]);
        match self.keeps {
            Keeps::Nothing => command.args(["--appendonly", "no"]),
            Keeps::Journal(fsync) => command.args(["--appendonly", "yes", "--appendfsync", fsync.as_str()]),
        };
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        command
    }

    fn engine(self, program: &Path, threads: usize, port: u16, folder: &Path) -> io::Result<Command> {
        let config = folder.join("acteon.toml");
        let mut text = format!("[server]\nthreads = {threads}\nlog = \"warn\"\n");
        if let Keeps::Journal(fsync) = self.keeps {
            let fsync = fsync.as_str();
            text.push_str(&format!("[engine]\ndir = \"{DATA}\"\nfsync = \"{fsync}\"\nrewrite_growth_percent = 0\n"));
        }
        fs::write(&config, text)?;
        let mut command = Command::new(fs::canonicalize(program)?);
        command.arg("-c").arg(config).args(["engine", "--listen", &format!("127.0.0.1:{port}")]);
        Ok(command)
    }
}

impl Server {
    /// redis-server, which writes nothing to the disk.
    pub(super) fn redis() -> Outcome<Self> {
        Setup { program: Program::Redis, keeps: Keeps::Nothing }.start()
    }

    /// The engine alone, with so many threads, which writes nothing to the disk.
    pub(crate) fn engine(program: &Path, threads: usize) -> Outcome<Self> {
        Setup { program: Program::Engine { program, threads }, keeps: Keeps::Nothing }.start()
    }

    /// Ends it in order. Returns its folder with what it kept.
    pub(super) fn stop(mut self) -> Outcome<Arc<TempDir>> {
        // The reply is a closed connection, which the client takes for a failure.
        let reply = self.ask::<String>(&["SHUTDOWN", "NOSAVE"]);
        let begin = Instant::now();
        while self.process.try_wait()?.is_none() {
            if begin.elapsed() > STOP_TIMEOUT {
                return Err(
                    format!("a server runs {STOP_TIMEOUT:?} after SHUTDOWN, which it answered {reply:?}").into()
                );
            }
            std::thread::sleep(STOP_POLL);
        }
        Ok(Arc::clone(&self.folder))
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

    /// One field of a section of `INFO`.
    pub(super) fn info(&self, section: &str, field: &str) -> Outcome<String> {
        let text: String = self.ask(&["INFO", section])?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).ok_or_else(|| format!("INFO {section} has no {field}").into())
    }

    /// What the server says that its data take.
    pub(super) fn used_bytes(&self) -> Outcome<u64> {
        Ok(self.info("memory", "used_memory")?.parse()?)
    }

    /// Processor time so far, of all threads.
    pub(crate) fn cpu_time(&self) -> Outcome<Duration> {
        machine::cpu_time(&self.process.id().to_string()).ok_or_else(|| "the server's processor time is unknown".into())
    }

    /// The same with that of its processes that have ended, such as those that save.
    pub(super) fn cpu_time_with_children(&self) -> Outcome<Duration> {
        let time = machine::cpu_time_with_ended_children(&self.process.id().to_string());
        time.ok_or_else(|| "the server's processor time is unknown".into())
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let bytes = machine::resident_bytes(&self.process.id().to_string());
        bytes.ok_or_else(|| "the server's resident memory is unknown".into())
    }

    /// Where it keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        data_in(&self.folder)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither fails while it runs; if it has ended already, nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where in a folder the data of its server are.
pub(super) fn data_in(folder: &TempDir) -> PathBuf {
    folder.path().join(DATA)
}

/// The size of all files in a folder and those in it.
pub(super) fn bytes_below(folder: &Path) -> io::Result<u64> {
    fs::read_dir(folder)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let bytes = if entry.file_type()?.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
        Ok(sum + bytes)
    })
}

/// Has all that was written, by whomever, brought to the disk: otherwise who comes next would pay for it.
pub(super) fn settle_disk() -> Outcome {
    let status = Command::new("sync").status()?;
    if status.success() { Ok(()) } else { Err(format!("sync ends with {status}").into()) }
}

/// Name and version of the redis-server that is installed.
pub(crate) fn redis_version() -> Outcome<String> {
    let output = Command::new("redis-server").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(format!("redis-server {}", version.ok_or("redis-server does not tell its version")?))
}
