//! Dispatches through HTTP: a real server process, keep-alive connections, one action after the other on each.
//!
//! The full pipeline (deduplicate, throttle, lock) stands beside an empty one (lock only) and `/health`, which shows what
//! HTTP alone costs here. Load generator and server share the machine. State operations per action come from the server's
//! own metrics, round trips from what Redis tells of its reads.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acteon_test_support::{RedisOptions, RedisServer, supervised};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::report::{Chart, Goal, Group, Report, Scale};
use crate::rounds::{alternate_all, middle};
use crate::{Error, Options, Outcome, machine};

/// Actions of one round, over all connections.
const ACTIONS: usize = 20_000;
const START_MAX: Duration = Duration::from_secs(10);

const NO_RULES: &str = "rules: []\n";
const FULL_PIPELINE: &str = "rules:
  - name: once
    action:
      deduplicate: { ttl: 10m }
  - name: rate
    action:
      throttle: { key: [tenant], limit: 1000000, window: 1s, algorithm: gcra }
";

/// What is asked in one round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Health,
    Dispatch,
}

/// One server, and what is asked of it.
struct Case {
    name: &'static str,
    server: Server,
    load: Load,
    uses_redis: bool,
}

const CONNECTIONS: [usize; 2] = [1, 64];
const MEMORY: &str = "memory, full pipeline";
const REDIS: &str = "redis, full pipeline";

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let redis = RedisServer::start(RedisOptions::default())?;
    let cases = cases(options.program, &redis)?;
    let (rounds, actions) = (options.rounds, options.scaled(ACTIONS));
    report.line(format_args!(
        "{actions} requests per round, medians of {rounds} rounds, server and load generator on one machine"
    ));
    let columns = [
        "connections",
        "case",
        "requests per second",
        "server CPU per request",
        "state operations per request",
        "reads by Redis per request",
    ];
    report.table(&columns, 2);
    let mut medians = Vec::new();
    for connections in CONNECTIONS {
        eprintln!("dispatch: {connections} connections");
        let rounds = alternate_all(cases.len(), rounds, |at| {
            runtime.block_on(one_round(&cases[at], &redis, connections, actions))
        })?;
        for (case, rounds) in cases.iter().zip(&rounds) {
            let median = Round::median(rounds);
            median.row(connections, case, report);
            medians.push((connections, case.name, median));
        }
    }
    goals(&medians, report);
    chart(&cases, &medians, report);
    Ok(())
}

fn cases(program: &Path, redis: &RedisServer) -> Outcome<[Case; 5]> {
    let memory_state = "[state]\nbackend = \"memory\"\n".to_owned();
    let redis_state = format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", redis.url());
    let case = |name, load, uses_redis: bool, rules| {
        let state = if uses_redis { &redis_state } else { &memory_state };
        Ok::<_, Error>(Case { name, server: Server::start(program, state, rules)?, load, uses_redis })
    };
    Ok([
        case("memory, no rules", Load::Dispatch, false, NO_RULES)?,
        case(MEMORY, Load::Dispatch, false, FULL_PIPELINE)?,
        case("redis, no rules", Load::Dispatch, true, NO_RULES)?,
        case(REDIS, Load::Dispatch, true, FULL_PIPELINE)?,
        case("GET /health", Load::Health, false, NO_RULES)?,
    ])
}

fn goals(medians: &[(usize, &str, Round)], report: &mut Report) {
    let of = |asked_connections: usize, asked_name: &'static str, value: fn(&Round) -> f64| {
        let chosen = medians
            .iter()
            .filter(move |(connections, name, _)| *connections == asked_connections && *name == asked_name);
        chosen.map(move |(.., round)| (asked_name, value(round)))
    };
    let rate = |round: &Round| round.per_second;
    report.goal(Goal::at_least("full pipeline in memory, 64 connections", 40_000.0, "/s").cases(of(64, MEMORY, rate)));
    report.goal(Goal::at_least("full pipeline on Redis, 64 connections", 15_000.0, "/s").cases(of(64, REDIS, rate)));
    // With one connection, nothing travels with what others ask: a read of the server is a round trip. What looks into the queue
    // meanwhile, and asks for the count, is a part of thousands.
    let trips = of(1, REDIS, |round| (round.reads * 100.0).round() / 100.0);
    report.goal(Goal::at_most("round trips to Redis per action, full pipeline", 2.0, "").cases(trips));
}

fn chart(cases: &[Case], medians: &[(usize, &str, Round)], report: &mut Report) {
    let rate = |asked: usize, name: &str| {
        medians.iter().find(|(connections, of, _)| *connections == asked && *of == name).map(|(.., it)| it.per_second)
    };
    let group = |case: &Case| Group {
        label: case.name.to_owned(),
        values: CONNECTIONS.map(|connections| rate(connections, case.name)).to_vec(),
        goal: match case.name {
            MEMORY => Some(40_000.0),
            REDIS => Some(15_000.0),
            _ => None,
        },
    };
    report.chart(Chart {
        name: "",
        title: "Dispatches through HTTP".to_owned(),
        axis: "requests per second, logarithmic",
        scale: Scale::Log,
        series: CONNECTIONS
            .map(|count| if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") })
            .to_vec(),
        groups: cases.iter().map(group).collect(),
    });
}

impl Case {
    /// How often Redis has read from any of its connections so far.
    fn reads(&self, redis: &RedisServer) -> Outcome<f64> {
        if !self.uses_redis {
            return Ok(0.0);
        }
        let reads = redis.info("total_reads_processed")?.ok_or("Redis does not tell its reads")?;
        Ok(reads.parse()?)
    }
}

/// What a round was good for; of requests, the mean.
struct Round {
    per_second: f64,
    cpu_us: f64,
    operations: f64,
    reads: f64,
}

impl Round {
    fn median(rounds: &[Self]) -> Self {
        Self {
            per_second: middle(rounds, |round| round.per_second),
            cpu_us: middle(rounds, |round| round.cpu_us),
            operations: middle(rounds, |round| round.operations),
            reads: middle(rounds, |round| round.reads),
        }
    }

    fn row(&self, connections: usize, case: &Case, report: &mut Report) {
        let Self { per_second, cpu_us, operations, reads } = self;
        let reads = if case.uses_redis { format!("{reads:.1}") } else { "–".to_owned() };
        let name = case.name;
        report.line(format_args!(
            "| {connections} | {name} | {per_second:.0} | {cpu_us:.1} µs | {operations:.1} | {reads} |"
        ));
    }
}

async fn one_round(case: &Case, redis: &RedisServer, connections: usize, actions: usize) -> Outcome<Round> {
    let Case { server, load, .. } = case;
    let (operations_before, reads_before) = (server.state_operations().await?, case.reads(redis)?);
    let (cpu_before, started) = (server.cpu_time()?, Instant::now());
    let per_connection = actions / connections;
    let clients = (0..connections).map(|_| tokio::spawn(client(server.address, *load, per_connection)));
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    let (elapsed, cpu) = (started.elapsed(), server.cpu_time()? - cpu_before);
    let requests = (per_connection * connections) as f64;
    Ok(Round {
        per_second: requests / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        operations: (server.state_operations().await? - operations_before) / requests,
        reads: (case.reads(redis)? - reads_before) / requests,
    })
}

async fn client(address: SocketAddr, load: Load, requests: usize) -> Outcome {
    let mut connection = Connection::open(address).await?;
    let mut body = String::new();
    let mut request = String::new();
    for _ in 0..requests {
        request.clear();
        match load {
            Load::Health => request.push_str("GET /health HTTP/1.1\r\nhost: bench\r\n\r\n"),
            Load::Dispatch => {
                action(&mut body);
                request.push_str("POST /v1/dispatch HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n");
                request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
            }
        }
        let answer = connection.exchange(request.as_bytes()).await?;
        if answer.status != 200 {
            return Err(format!("the server answered {}: {}", answer.status, answer.body).into());
        }
    }
    Ok(())
}

/// An action that never came before.
fn action(body: &mut String) {
    use std::fmt::Write as _;
    body.clear();
    let id: u128 = rand::random();
    let _ = write!(
        body,
        r#"{{"namespace":"bench","tenant":"acme","provider":"log","action_type":"greet","payload":{{"to":"ada"}},"dedup_key":"{id:032x}"}}"#
    );
}

struct Answer {
    status: u16,
    body: String,
}

/// One keep-alive connection; just enough HTTP to send a request and read an answer with a length.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    async fn exchange(&mut self, request: &[u8]) -> Outcome<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(answer) = parse(&self.buffer)? {
                return Ok(answer);
            }
        }
    }
}

fn parse(buffer: &[u8]) -> Outcome<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = response.parse(buffer)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or(0);
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(header) => std::str::from_utf8(header.value)?.parse()?,
        None => return Err("the answer has no content-length".into()),
    };
    let body = buffer.get(head_bytes..head_bytes + length);
    Ok(body.map(|body| Answer { status, body: String::from_utf8_lossy(body).into_owned() }))
}

/// A server process on a free port, with its own configuration; killed when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(program: &Path, state: &str, rules: &str) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let rules_folder = folder.path().join("rules");
        fs::create_dir(&rules_folder)?;
        fs::write(rules_folder.join("bench.yaml"), rules)?;
        let config = folder.path().join("acteon.toml");
        let text = format!(
            "[server]\nport = {port}\nlog = \"warn\"\n{state}prefix = \"bench{port}\"\n[rules]\ndirectory = {rules_folder:?}\n"
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdout(Stdio::null());
        let process = supervised(command).map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let server = Self { process, address: (Ipv4Addr::LOCALHOST, port).into(), _folder: folder };
        let started = Instant::now();
        while std::net::TcpStream::connect(server.address).is_err() {
            if started.elapsed() > START_MAX {
                return Err("the server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn cpu_time(&self) -> Outcome<Duration> {
        machine::cpu_time(&self.process.id().to_string()).ok_or_else(|| "the server's CPU time is unknown".into())
    }

    /// How many operations the server has asked of its state store.
    async fn state_operations(&self) -> Outcome<f64> {
        let mut connection = Connection::open(self.address).await?;
        let answer = connection.exchange(b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
        let counts = answer.body.lines().filter(|line| line.starts_with("acteon_state_operations_total{"));
        // The worker looks into its queue, whether actions come or not.
        let counts = counts.filter(|line| !line.contains("claim_due"));
        Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
