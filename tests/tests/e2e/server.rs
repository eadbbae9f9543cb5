//! An `acteon-server` process with a configuration of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use acteon_test_support::{acteon_server_program, supervised};
use serde_json::{Value, json};

/// What a test waits for at most: far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server with this Redis, these rules, and a webhook provider `hook`; waits until it is ready.
    pub(crate) async fn start(redis_url: &str, rules: &str, hook: SocketAddr) -> Self {
        let state = format!("backend = \"redis\"\nurl = \"{redis_url}\"\nprefix = \"e2e\"\n");
        Self::start_with(&state, rules, hook).await
    }

    /// The same with these lines in the section `[state]`.
    pub(crate) async fn start_with(state: &str, rules: &str, hook: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let rules_folder = folder.path().join("rules");
        fs::create_dir(&rules_folder).unwrap();
        fs::write(rules_folder.join("rules.yaml"), format!("rules: [{rules}]")).unwrap();
        let config = folder.path().join("acteon.toml");
        fs::write(
            &config,
            format!(
                "[server]\nport = {port}\nlog = \"warn\"\n\
                 [state]\n{state}\n\
                 [rules]\ndirectory = {rules_folder:?}\n\
                 [dispatch.worker]\nvisibility = \"2s\"\npoll = \"100ms\"\n\
                 [[providers]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://{hook}/\"\ntimeout = \"60s\"\n"
            ),
        )
        .unwrap();
        let program = acteon_server_program().expect("acteon-server is built before these tests run");
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdout(Stdio::null());
        let process = supervised(command).unwrap();
        let server = Self { process, address: (Ipv4Addr::LOCALHOST, port).into(), client: client(), _folder: folder };
        server.until_ready(true).await;
        server
    }

    /// Waits until `/ready` says that the server is ready, or is not.
    pub(crate) async fn until_ready(&self, ready: bool) {
        let started = Instant::now();
        loop {
            let answer = self.client.get(self.url("/ready")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success() == ready) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waited in vain for ready = {ready}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Dispatches an action; returns the status and the body.
    pub(crate) async fn dispatch(&self, action: &Value) -> (u16, Value) {
        let answer = self.client.post(self.url("/v1/dispatch")).json(action).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    /// Kills it with SIGKILL, as a crash would.
    pub(crate) fn kill9(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An action for the provider `hook`.
pub(crate) fn action(id: &str, dedup_key: &str) -> Value {
    json!({
        "id": id, "namespace": "demo", "tenant": "acme", "provider": "hook", "action_type": "greet",
        "payload": {"to": "ada"}, "dedup_key": dedup_key,
    })
}

fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another test program's code may have installed one; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().timeout(PATIENCE).build().unwrap()
}
