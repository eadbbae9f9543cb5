//! A server in this process over memory, and the binary as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use acteon_server::{Config, Server, Shutdown};
use acteon_test_support::{supervised, supervised_command};
use reqwest::{Client, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything takes on a machine that compiles meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A server in this process, stopped when it is dropped with the runtime of its test.
pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) rules: TempDir,
}

impl TestServer {
    /// A server with these rules and the defaults.
    pub(crate) async fn start(rules: &str) -> Self {
        Self::start_with(rules, |_| ()).await
    }

    pub(crate) async fn start_with(rules: &str, change: impl FnOnce(&mut Config)) -> Self {
        let directory = rules_directory(rules);
        let mut config = Config::default();
        config.server.port = 0;
        config.rules.directory = directory.path().to_owned();
        change(&mut config);
        let server = Server::start(config).await.expect("starts");
        let url = format!("http://{}", server.address());
        tokio::spawn(server.run(Shutdown::default()));
        Self { url, client: client(), rules: directory }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.expect("answered")
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("{}{path}", self.url)).json(body).send().await.expect("answered")
    }

    /// The status and the JSON of an answer.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.post(path, body).await).await
    }

    pub(crate) async fn get_json(&self, path: &str) -> (StatusCode, Value) {
        read(self.get(path).await).await
    }

    pub(crate) fn write_rules(&self, rules: &str) {
        fs::write(self.rules.path().join("rules.yaml"), rules).expect("writable");
    }
}

/// Each test has its own client: connections that are kept alive belong to the runtime of one test.
pub(crate) fn client() -> Client {
    // Plain HTTP, but reqwest asks for a provider of cryptography all the same. Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(PATIENCE).no_proxy().build().expect("client")
}

pub(crate) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.expect("a body");
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status, json)
}

pub(crate) fn rules_directory(rules: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    fs::write(directory.path().join("rules.yaml"), rules).expect("writable");
    directory
}

pub(crate) fn action() -> Value {
    json!({"namespace": "demo", "tenant": "acme", "provider": "log", "action_type": "greet", "payload": {"to": "Ada"}})
}

/// `base` with one field set.
pub(crate) fn with(mut base: Value, field: &str, value: impl Into<Value>) -> Value {
    base[field] = value.into();
    base
}

/// The binary as a process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Until all is read.
    collecting: Option<thread::JoinHandle<()>>,
    // Below the child, so that the folder is removed after the process that works in it.
    pub(crate) directory: Option<TempDir>,
}

impl Process {
    /// Starts the binary in a folder with an empty rules directory and this `acteon.toml`.
    pub(crate) fn start(toml: &str, arguments: &[&str]) -> Self {
        let directory = folder(toml);
        let mut process = Self::start_in(directory.path(), arguments);
        process.directory = Some(directory);
        process
    }

    /// The same in a folder that is there, and stays.
    pub(crate) fn start_in(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = command(directory, arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = supervised(command).expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("piped");
        let collecting = Some(collect(stderr, Arc::clone(&log)));
        Self { child, log, collecting, directory: None }
    }

    /// Waits until the server is ready, and returns its URL.
    pub(crate) fn url(&mut self) -> String {
        // Also of a server that does not wait for its backend.
        let line = self.wait_for_log("locks_fit_for=");
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
        format!("http://{address}")
    }

    /// Waits for a log line with this text.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            if let Some(status) = self.child.try_wait().expect("waitable") {
                panic!("ended with {status} before it logged {text:?}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "no {text:?} in:\n{log}");
            thread::sleep(POLL);
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the end, after which the log is whole.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                if let Some(collecting) = self.collecting.take() {
                    collecting.join().expect("no panic");
                }
                return status;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run of the binary left behind.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end in a folder with an empty rules directory and this `acteon.toml`.
pub(crate) fn run(toml: &str, arguments: &[&str]) -> Finished {
    run_in(folder(toml).path(), arguments, &[])
}

pub(crate) fn run_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = command(directory, arguments);
    command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = supervised(command).expect("the binary starts");
    let mut stdout = child.stdout.take().expect("piped");
    let stderr = child.stderr.take().expect("piped");
    let reading = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let log = Arc::new(Mutex::new(String::new()));
    let collecting = collect(stderr, Arc::clone(&log));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("waitable") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("killable");
            panic!("still running:\n{}", log.lock().expect("not poisoned"));
        }
        thread::sleep(POLL);
    };
    collecting.join().expect("no panic");
    let stdout = reading.join().expect("no panic").expect("readable");
    let stderr = log.lock().expect("not poisoned").clone();
    Finished { code: status.code(), stdout, stderr }
}

/// A folder with an empty rules directory and this `acteon.toml`.
pub(crate) fn folder(toml: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(directory.path().join("rules")).expect("writable");
    fs::write(directory.path().join("acteon.toml"), toml).expect("writable");
    directory
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = supervised_command(env!("CARGO_BIN_EXE_acteon-server"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ACTEON__") {
            command.env_remove(name);
        }
    }
    command
}

fn collect(stderr: ChildStderr, log: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("not poisoned");
            log.push_str(&line);
            log.push('\n');
        }
    })
}
