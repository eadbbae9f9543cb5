//! Dispatches through HTTP: a real server process, keep-alive connections, one action after the other on each.
//!
//! The full pipeline (deduplicate, throttle, lock) stands beside an empty one (lock only) and `/health`, which shows what
//! HTTP alone costs here. Load generator and server share the machine. State operations per action come from the server's
//! own metrics.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acteon_test_support::{RedisOptions, RedisServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::rounds::median;
use crate::{Outcome, machine};

/// Actions of one round, over all connections.
const ACTIONS: usize = 20_000;
const START_MAX: Duration = Duration::from_secs(10);

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

/// Runs the suite.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(server: &Path, rounds: usize) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let redis = RedisServer::start(RedisOptions::default())?;
    let memory_state = "[state]\nbackend = \"memory\"\n".to_owned();
    let redis_state = format!("[state]\nbackend = \"redis\"\nurl = \"{}\"\n", redis.url());
    let servers = [
        ("memory, no rules", Server::start(server, &memory_state, "rules: []\n")?, Load::Dispatch),
        ("memory, full pipeline", Server::start(server, &memory_state, FULL_PIPELINE)?, Load::Dispatch),
        ("redis, no rules", Server::start(server, &redis_state, "rules: []\n")?, Load::Dispatch),
        ("redis, full pipeline", Server::start(server, &redis_state, FULL_PIPELINE)?, Load::Dispatch),
        ("GET /health", Server::start(server, &memory_state, "rules: []\n")?, Load::Health),
    ];
    println!("{ACTIONS} requests per round, medians of {rounds} rounds, server and load generator on one machine\n");
    println!("| connections | case | requests per second | server CPU per request | state operations per request |");
    println!("|---:|---|---:|---:|---:|");
    for connections in [1, 64] {
        let mut results: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for turn in 0..servers.len() {
                let at = (round + turn) % servers.len();
                let (_, server, load) = &servers[at];
                let result = runtime.block_on(one_round(server, *load, connections))?;
                if round > 0 {
                    results[at].push(result);
                }
            }
        }
        for ((name, ..), results) in servers.iter().zip(&results) {
            row(connections, name, results);
        }
    }
    Ok(())
}

struct Round {
    per_second: f64,
    cpu_us: f64,
    operations: f64,
}

fn row(connections: usize, name: &str, rounds: &[Round]) {
    let per_second = median(rounds.iter().map(|round| round.per_second).collect());
    let cpu_us = median(rounds.iter().map(|round| round.cpu_us).collect());
    let operations = median(rounds.iter().map(|round| round.operations).collect());
    println!("| {connections} | {name} | {per_second:.0} | {cpu_us:.1} µs | {operations:.1} |");
}

async fn one_round(server: &Server, load: Load, connections: usize) -> Outcome<Round> {
    let (cpu_before, operations_before) = (server.cpu_time()?, server.state_operations().await?);
    let started = Instant::now();
    let per_connection = ACTIONS / connections;
    let clients = (0..connections).map(|_| tokio::spawn(client(server.address, load, per_connection)));
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    let elapsed = started.elapsed();
    let requests = (per_connection * connections) as f64;
    let operations = server.state_operations().await? - operations_before;
    Ok(Round {
        per_second: requests / elapsed.as_secs_f64(),
        cpu_us: (server.cpu_time()? - cpu_before).as_secs_f64() * 1e6 / requests,
        operations: operations / requests,
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
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
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
