//! The clients of a history: processes that can be killed and frozen, and the logs that they leave.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use acteon_faults::Kind;
use acteon_faults::job::Job;
use acteon_faults::log::{Logged, read};
use acteon_test_support::{FakeClock, supervised, supervised_command};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The program that clients run.
const PROGRAM: &str = env!("CARGO_BIN_EXE_acteon-faults-worker");
/// The variable that names a folder with the programs of this package: of a long run they are the same all the time, whatever is built meanwhile.
const PROGRAMS_VARIABLE: &str = "ACTEON_FAULTS_PROGRAMS";
/// How many there are: the lock of one that was killed is taken over by another.
pub(crate) const CLIENTS: u32 = 3;
/// Tasks of each that ask objects of all kinds.
const TASKS: u32 = 2;
/// How long they may take to connect and to make their first calls, on a machine that does other things.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long they may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// By how much the wall clock of a client is set.
const CLIENT_CLOCK_STEP_MS: i64 = 3_600_000;
const POLL: Duration = Duration::from_millis(10);

/// Running clients, killed when dropped.
pub(crate) struct Clients {
    job: Job,
    folder: TempDir,
    running: Vec<Child>,
    logs: Vec<PathBuf>,
    /// The wall clock of the first one, if it is not the machine's.
    clock: Option<FakeClock>,
}

/// The logs of clients that have ended, removed when dropped.
pub(crate) struct Logs {
    folder: TempDir,
    logs: Vec<PathBuf>,
}

impl Logs {
    /// Keeps a copy of them in a folder, which is created. They say more than was judged: how each call failed.
    pub(crate) fn keep(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        self.logs.iter().try_for_each(|log| {
            let name = log.strip_prefix(self.folder.path()).map_err(io::Error::other)?;
            std::fs::copy(log, folder.join(name)).map(drop)
        })
    }
}

/// Where to find a program that was built at this path.
pub(crate) fn program(built: &str) -> PathBuf {
    let built = Path::new(built);
    match (std::env::var_os(PROGRAMS_VARIABLE), built.file_name()) {
        (Some(folder), Some(name)) => Path::new(&folder).join(name),
        _ => built.to_owned(),
    }
}

/// What the clients of a backend do in all histories.
pub(crate) fn job(config: String, scope: String, seed: u64, lease_ms: u64) -> Job {
    Job {
        config,
        seed,
        scope,
        tasks: TASKS,
        first_process: 0,
        kinds: Kind::ALL.to_vec(),
        lifetime_ms: 100,
        pause_max_ms: 12,
        patience_ms: 700,
        updaters: 1,
        lease_ms,
    }
}

impl Clients {
    /// Starts them, and returns once each has been answered something.
    pub(crate) async fn start(job: Job, clock: Option<FakeClock>) -> io::Result<Self> {
        let mut clients = Self { job, folder: TempDir::new()?, running: Vec::new(), logs: Vec::new(), clock };
        for _ in 0..CLIENTS {
            clients.start_one()?;
        }
        let begin = Instant::now();
        while !clients.logs.iter().all(|log| std::fs::read_to_string(log).is_ok_and(|text| text.contains("told"))) {
            if begin.elapsed() > START_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answers: {}", clients.complaints())));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(clients)
    }

    /// Kills one of them, and starts another in its place.
    pub(crate) async fn kill_one(&mut self, which: usize, replaced_after: Duration) -> io::Result<()> {
        let which = which % self.running.len();
        self.running[which].kill()?;
        self.running.remove(which).wait()?;
        tokio::time::sleep(replaced_after).await;
        self.start_one()
    }

    /// Freezes one of them for a while.
    pub(crate) async fn freeze_one(&mut self, which: usize, lasting: Duration) -> io::Result<()> {
        let id = self.running[which % self.running.len()].id();
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process id"))?;
        kill_process(pid, Signal::STOP)?;
        tokio::time::sleep(lasting).await;
        Ok(kill_process(pid, Signal::CONT)?)
    }

    /// Sets the clock of the first one forward, back beyond the true time, and right again.
    pub(crate) async fn set_clock(&self, lasting: Duration) -> io::Result<()> {
        let clock = self.clock.as_ref().ok_or_else(|| io::Error::other("the clients see the machine's clock"))?;
        require_faketime(self.running[0].id())?;
        for offset_ms in [CLIENT_CLOCK_STEP_MS, -CLIENT_CLOCK_STEP_MS, 0] {
            clock.set(offset_ms)?;
            tokio::time::sleep(lasting / 3).await;
        }
        Ok(())
    }

    /// Lets them end, and returns what they logged, also as it is on disk.
    pub(crate) async fn finish(mut self) -> io::Result<(Logged, Logs)> {
        // Their input ends.
        self.running.iter_mut().for_each(|client| drop(client.stdin.take()));
        let begin = Instant::now();
        let mut has_failed = false;
        for client in &mut self.running {
            loop {
                if let Some(status) = client.try_wait()? {
                    has_failed |= !status.success();
                    break;
                }
                if begin.elapsed() > END_TIMEOUT {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "a client does not end"));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        let mut logged = read(&self.logs)?;
        if has_failed {
            logged.broken.push(format!("a client failed: {}", self.complaints()));
        }
        let folder = std::mem::replace(&mut self.folder, TempDir::new()?);
        Ok((logged, Logs { folder, logs: std::mem::take(&mut self.logs) }))
    }

    fn start_one(&mut self) -> io::Result<()> {
        let number = self.logs.len();
        let place = u32::try_from(number).unwrap_or(u32::MAX);
        let seed = self.job.seed.wrapping_add(u64::from(place));
        let job = Job { first_process: place * TASKS, seed, ..self.job.clone() };
        let log = self.folder.path().join(format!("client-{number}.jsonl"));
        let mut command = match &self.clock {
            Some(clock) if number == 0 => clock.supervised_command(program(PROGRAM)),
            _ => supervised_command(program(PROGRAM)),
        };
        command.arg(serde_json::to_string(&job).map_err(io::Error::other)?).arg(&log);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::create(self.folder.path().join(format!("client-{number}.err")))?);
        self.running.push(supervised(command)?);
        self.logs.push(log);
        Ok(())
    }

    /// What they wrote to their standard error.
    fn complaints(&self) -> String {
        let text = |number| std::fs::read_to_string(self.folder.path().join(format!("client-{number}.err")));
        (0..self.logs.len()).filter_map(|number| text(number).ok()).collect()
    }
}

/// A fault that a process does not see would prove nothing: it must have loaded the library that steps its clock.
pub(crate) fn require_faketime(process: u32) -> io::Result<()> {
    let libraries = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    if libraries.contains("libfaketime") {
        return Ok(());
    }
    Err(io::Error::other("the process does not see the clock that is set"))
}

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &mut self.running {
            // Those that have ended are of no interest; there is nobody to report the others to.
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}
