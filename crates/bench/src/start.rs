//! From starting a process until it is ready, what it takes then, and how large the program is.
//!
//! The server is started as it is shipped: `acteon.toml` and `rules` of this repository, on a port of its own. It is ready when `/ready`
//! says so. `acteon-server engine` stands beside redis-server, both without data, until they answer.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use acteon_test_support::supervised;

use crate::engine::{Keeps, Program, Server, Setup, redis_version};
use crate::report::{self, Chart, Goal, Group, Report, Scale};
use crate::rounds::{alternate, median};
use crate::{Options, Outcome, machine};

/// How long a server may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile: this much may be in what is measured.
const POLL: Duration = Duration::from_millis(1);
/// What waits for an answer to one question.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// After this long without work, a server is idle.
const IDLE: Duration = Duration::from_millis(500);
const CONFIG: &str = "acteon.toml";
const NAMES: [&str; 3] = ["acteon-server, memory and the shipped rules", "acteon-server engine", "redis-server"];

/// What one start took.
struct Sample {
    took: Duration,
    resident_bytes: u64,
}

/// Runs the suite, from the root of the repository.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    report.line(format_args!("{} starts of each by turns; {}.", options.rounds, redis_version()?));
    let samples: [Vec<Sample>; 3] = alternate(options.rounds, |at| {
        eprintln!("start: {}", NAMES[at]);
        match at {
            0 => shipped(options.program),
            1 => bare(Program::Engine { program: options.program, threads: 1 }),
            _ => bare(Program::Redis),
        }
    })?;
    report.table(&["server", "ready after, median", "longest", "resident memory, idle"], 1);
    for (name, samples) in NAMES.iter().zip(&samples) {
        let (middle, longest, bytes) = figures(samples);
        let [middle, longest] = [middle, longest].map(report::time);
        report.line(format_args!("| {name} | {middle} | {longest} | {:.1} MiB |", mebibytes(bytes)));
    }
    sizes(options.program, report)?;
    goals(&samples[0], report);
    chart(&samples, report);
    Ok(())
}

/// Median and longest time, and the median of what is resident.
fn figures(samples: &[Sample]) -> (Duration, Duration, u64) {
    let times = samples.iter().map(|sample| sample.took);
    let bytes = median(samples.iter().map(|sample| sample.resident_bytes).collect());
    (median(times.clone().collect()), times.max().unwrap_or_default(), bytes)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The program as it was built, and without its symbols and what tells backtraces their lines.
fn sizes(program: &Path, report: &mut Report) -> Outcome {
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join("stripped");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(program).status()?;
    if !status.success() {
        return Err(format!("strip ends with {status}").into());
    }
    let [built, stripped] = [fs::metadata(program)?.len(), fs::metadata(stripped)?.len()].map(mebibytes);
    report.table(&["program", "size", "without symbols"], 1);
    report.line(format_args!("| acteon-server | {built:.1} MiB | {stripped:.1} MiB |"));
    Ok(())
}

fn goals(samples: &[Sample], report: &mut Report) {
    let (middle, longest, bytes) = figures(samples);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let times = [("median", ms(middle)), ("longest", ms(longest))];
    report.goal(Goal::at_most("from cold start to ready, memory", 50.0, " ms").cases(times));
    report.goal(Goal::at_most("resident memory when idle", 30.0, " MiB").case("", mebibytes(bytes)));
}

fn chart(samples: &[Vec<Sample>; 3], report: &mut Report) {
    let group = |(name, samples): (&&str, &Vec<Sample>)| {
        let (middle, longest, _) = figures(samples);
        let ms = |time: Duration| Some(time.as_secs_f64() * 1e3);
        // Only the server as it is shipped has a goal.
        Group {
            label: (*name).to_owned(),
            values: vec![ms(middle), ms(longest)],
            goal: (*name == NAMES[0]).then_some(50.0),
        }
    };
    report.chart(Chart {
        name: "",
        title: "From starting a process until it is ready".to_owned(),
        axis: "milliseconds",
        scale: Scale::Linear,
        series: vec!["median".to_owned(), "longest".to_owned()],
        groups: NAMES.iter().zip(samples).map(group).collect(),
    });
}

/// A process that ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Neither fails while it runs; if it has ended already, nothing is left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with the configuration of this repository.
fn shipped(program: &Path) -> Outcome<Sample> {
    if !Path::new(CONFIG).exists() {
        return Err(format!("{CONFIG} is not here: this runs from the root of the repository").into());
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(fs::canonicalize(program)?);
    command.args(["-c", CONFIG]).env("ACTEON__SERVER__PORT", port.to_string()).env("ACTEON__SERVER__LOG", "warn");
    command.stdout(Stdio::null());
    let began = Instant::now();
    let mut process = Running(supervised(command)?);
    while !is_ready(port) {
        if let Some(status) = process.0.try_wait()? {
            return Err(format!("the server ended with {status} before it was ready").into());
        }
        if began.elapsed() > READY_MAX {
            return Err(format!("the server is not ready after {READY_MAX:?}").into());
        }
        sleep(POLL);
    }
    let took = began.elapsed();
    sleep(IDLE);
    let resident = machine::resident_bytes(&process.0.id().to_string());
    Ok(Sample { took, resident_bytes: resident.ok_or("the server's resident memory is unknown")? })
}

/// Whether somebody listens and says that he is ready.
fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// A server of the Redis protocol that keeps nothing.
fn bare(program: Program<'_>) -> Outcome<Sample> {
    let setup = Setup { program, keeps: Keeps::Nothing };
    let (server, took): (Server, Duration) = setup.start_in(Arc::new(tempfile::tempdir()?))?;
    sleep(IDLE);
    Ok(Sample { took, resident_bytes: server.resident_bytes()? })
}
