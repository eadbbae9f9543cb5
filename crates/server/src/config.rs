//! Every option of the server, with its default and bounds.
//!
//! # Where it comes from
//! Later sources win: the defaults below, the configuration file (`-c`, otherwise `./acteon.toml` if there is one), the environment
//! (`ACTEON__SERVER__PORT=8081`), the command line (`--host`, `--port`). `acteon.toml` in the root of the repository lists every
//! option; a test compares it with this file.
//!
//! # Failure
//! Unknown keys, wrong types and values out of bounds are a [`ConfigError`] that names file and line, or the variable, the key, and what
//! is allowed. Durations and sizes carry units.
//!
//! Relative paths are relative to the working directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use acteon_dispatch::pipeline::options::{DispatchOptions, OnStateError, WorkerOptions};
use acteon_dispatch::providers::config::ProviderConfig;
use acteon_dispatch::rules::{DefaultDecision, LoadOptions};
use acteon_state::config::{ByteSize, ConfigError, Degradation, Document, HumanDuration, Secret, StateConfig};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::engine::EngineConfig;
use crate::http::admin::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN};

/// The file that is read when none is named.
pub const FILE_DEFAULT: &str = "acteon.toml";
/// The provider that exists when none is configured, so that a first start needs nothing.
const PROVIDER_DEFAULT: &str = "log";

/// The kinds of keys that the dispatcher can do without; see `[state.layers.degradation]`.
const DEGRADABLE: [&str; 2] = [DEDUP, THROTTLE];
const DEDUP: &str = "dedup";
const THROTTLE: &str = "throttle";

/// Largest body that can be configured. It is held in memory, once per request.
pub const BODY_BYTES_MAX: u64 = 64 << 20;
/// Longest duration that can be configured: a day, so that a mistyped unit is noticed.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Most threads that can be configured: more than any machine has processors.
pub const THREADS_MAX: usize = 4_096;
/// Most requests or deliveries at a time that can be configured.
pub const CONCURRENCY_MAX: usize = 100_000;

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen, and what requests may cost.
    pub server: ServerConfig,
    /// Where state is kept.
    pub state: StateConfig,
    /// Where Redis clients reach the engine of `backend = "memory"`.
    pub engine: EngineConfig,
    /// Where rules are.
    pub rules: RulesConfig,
    /// How actions are executed.
    pub dispatch: DispatchConfig,
    /// Who executes them.
    pub providers: Vec<ProviderConfig>,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on; 0 chooses a free one.
    pub port: u16,
    /// Threads that carry out requests, of HTTP and of the engine; as many as there are processors unless given.
    pub threads: Option<usize>,
    /// What administrators present; without it there are none.
    pub admin_token: Option<Secret>,
    /// Largest request body.
    pub body_max: ByteSize,
    /// Time for a body to arrive, and then for an answer.
    pub request_timeout: HumanDuration,
    /// Dispatching requests under way at a time; more are refused.
    pub concurrency_max: usize,
    /// How long `/ready` says `draining` before connections are closed.
    pub drain_delay: HumanDuration,
    /// How long to wait for what is under way when stopping.
    pub drain_timeout: HumanDuration,
    /// Which log lines to write.
    pub log: String,
    /// How to write them.
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[rules]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// The directory with the rule files.
    pub directory: PathBuf,
    /// Whether to read them again when they change.
    pub watch: bool,
    /// What happens to an action that no terminal rule decides.
    pub default: DefaultDecision,
}

/// `[dispatch]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DispatchConfig {
    /// How long the lock of an action lasts without renewal.
    pub lock_lease: HumanDuration,
    /// How long to wait when the same action is being executed elsewhere.
    pub lock_wait: HumanDuration,
    /// How long a deduplication claim lasts without renewal.
    pub claim_lease: HumanDuration,
    /// Time for a provider, all its attempts included.
    pub execute_timeout: HumanDuration,
    /// Actions of one batch under way at a time.
    pub batch_concurrency: usize,
    /// How scheduled actions are delivered.
    pub worker: WorkerConfig,
}

/// `[dispatch.worker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Whether this server delivers scheduled actions.
    pub enabled: bool,
    /// Deliveries at a time.
    pub concurrency: usize,
    /// How long a claimed action is ours without renewal.
    pub visibility: HumanDuration,
    /// How often to look for due actions when nothing says when the next one is due.
    pub poll: HumanDuration,
    /// Deliveries of one action before it is put aside.
    pub attempts_max: u32,
    /// The pause after the first failed delivery; it doubles each time.
    pub backoff: HumanDuration,
    /// The longest pause.
    pub backoff_max: HumanDuration,
    /// How long an action that was given up is kept.
    pub dead_ttl: HumanDuration,
}

/// What a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that was named; `./acteon.toml` is looked for when none was.
    pub file: Option<PathBuf>,
    /// Variables of the environment; others than ours are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// `--host`
    pub host: Option<String>,
    /// `--port`
    pub port: Option<u16>,
    /// Where the engine shall listen, instead of what is configured.
    pub engine_listen: Vec<String>,
}

impl Sources {
    /// Nothing but the environment, and `./acteon.toml` if there is one.
    #[must_use]
    pub fn with_env(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { environment: environment.into_iter().collect(), ..Self::default() }
    }

    /// The file that will be read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        let default = Path::new(FILE_DEFAULT);
        self.file.as_deref().or_else(|| default.exists().then_some(default))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig::default(),
            state: StateConfig::default(),
            engine: EngineConfig::default(),
            rules: RulesConfig::default(),
            dispatch: DispatchConfig::default(),
            providers: vec![ProviderConfig::log(PROVIDER_DEFAULT)],
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            threads: None,
            admin_token: None,
            body_max: ByteSize(1 << 20),
            request_timeout: seconds(30),
            concurrency_max: 1_024,
            drain_delay: HumanDuration(Duration::from_millis(500)),
            drain_timeout: seconds(30),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
        }
    }
}

impl Default for RulesConfig {
    fn default() -> Self {
        Self { directory: "./rules".into(), watch: true, default: DefaultDecision::Allow }
    }
}

impl Default for DispatchConfig {
    fn default() -> Self {
        let options = DispatchOptions::default();
        Self {
            lock_lease: HumanDuration(options.lock_lease),
            lock_wait: HumanDuration(options.lock_wait),
            claim_lease: HumanDuration(options.claim_lease),
            execute_timeout: HumanDuration(options.execute_timeout),
            batch_concurrency: options.batch_concurrency,
            worker: WorkerConfig::default(),
        }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        let options = WorkerOptions::default();
        Self {
            enabled: true,
            concurrency: options.concurrency,
            visibility: HumanDuration(options.visibility),
            poll: HumanDuration(options.poll),
            attempts_max: options.attempts_max,
            backoff: HumanDuration(options.backoff),
            backoff_max: HumanDuration(options.backoff_max),
            dead_ttl: HumanDuration(options.dead_ttl),
        }
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut document = sources.file().map_or_else(|| Ok(Document::empty()), Document::load)?;
        document.overlay(ours(&sources.environment)?)?;
        if let Some(host) = &sources.host {
            document.set("server.host", "--host", host.as_str())?;
        }
        if let Some(port) = sources.port {
            document.set("server.port", "--port", i64::from(port))?;
        }
        if !sources.engine_listen.is_empty() {
            document.set("engine.listen", "--listen", sources.engine_listen.clone())?;
        }
        let mut config: Self = document.read()?;
        config.engine.dir_origin = document.origin("engine.dir").cloned();
        config.check(&document)?;
        Ok(config)
    }

    /// How the dispatcher shall work. What it does without its store is configured with the store.
    #[must_use]
    pub fn dispatch_options(&self) -> DispatchOptions {
        let DispatchConfig { lock_lease, lock_wait, claim_lease, execute_timeout, batch_concurrency, ref worker } =
            self.dispatch;
        DispatchOptions {
            node: this_process(),
            lock_lease: lock_lease.0,
            lock_wait: lock_wait.0,
            claim_lease: claim_lease.0,
            execute_timeout: execute_timeout.0,
            on_state_error_dedup: self.on_state_error(DEDUP),
            on_state_error_throttle: self.on_state_error(THROTTLE),
            batch_concurrency,
            worker: WorkerOptions {
                concurrency: worker.concurrency,
                visibility: worker.visibility.0,
                poll: worker.poll.0,
                attempts_max: worker.attempts_max,
                backoff: worker.backoff.0,
                backoff_max: worker.backoff_max.0,
                dead_ttl: worker.dead_ttl.0,
            },
        }
    }

    /// How rules shall be read.
    #[must_use]
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { default: self.rules.default }
    }

    /// What is done without an answer of the backend, for each kind that the dispatcher can do without.
    #[must_use]
    pub fn degradation(&self) -> BTreeMap<&'static str, &'static str> {
        let policy = self.state.degradation();
        DEGRADABLE.into_iter().map(|kind| (kind, policy.for_kind(kind).as_str())).collect()
    }

    fn on_state_error(&self, kind: &str) -> OnStateError {
        match self.state.degradation().for_kind(kind) {
            // What stands in answers in place of the store. When even that fails, nothing is left.
            Degradation::Closed | Degradation::Local => OnStateError::Closed,
            Degradation::Open => OnStateError::Open,
            Degradation::Stale => OnStateError::Stale,
        }
    }

    fn check_degradation(&self) -> Result<(), ConfigError> {
        let policy = self.state.degradation();
        if policy.for_kind(THROTTLE) != Degradation::Stale {
            return Ok(());
        }
        let message =
            "a limit is counted, not read, so `throttle` cannot be `stale`; choose `closed`, `open` or `local` for it";
        Err(self.state.error(&format!("layers.degradation.{}", policy.place_of(THROTTLE)), message))
    }

    /// Checks what types cannot.
    fn check(&self, document: &Document) -> Result<(), ConfigError> {
        self.state.check()?;
        self.state.check_degradation_kinds(&DEGRADABLE)?;
        self.check_degradation()?;
        let refuse = |key: &str, message: String| Err(document.error(key, message));
        for (key, duration, min) in self.durations() {
            if duration < min || duration > DURATION_MAX && key != "dispatch.worker.dead_ttl" {
                let (found, min, max) = (HumanDuration(duration), HumanDuration(min), HumanDuration(DURATION_MAX));
                return refuse(key, format!("is {found}; allowed: {min} to {max}"));
            }
        }
        for (key, number) in self.concurrencies() {
            if !(1..=CONCURRENCY_MAX).contains(&number) {
                return refuse(key, format!("is {number}; allowed: 1 to {CONCURRENCY_MAX}"));
            }
        }
        if let Some(threads) = self.server.threads.filter(|threads| !(1..=THREADS_MAX).contains(threads)) {
            return refuse("server.threads", format!("is {threads}; allowed: 1 to {THREADS_MAX}"));
        }
        if let Some(token) = &self.server.admin_token {
            check_admin_token(token.expose()).or_else(|message| refuse("server.admin_token", message))?;
        }
        if !(1..=BODY_BYTES_MAX).contains(&self.server.body_max.0) {
            let (found, max) = (self.server.body_max, ByteSize(BODY_BYTES_MAX));
            return refuse("server.body_max", format!("is {found}; allowed: 1B to {max}"));
        }
        if self.dispatch.worker.attempts_max == 0 {
            return refuse("dispatch.worker.attempts_max", "is 0; allowed: at least 1".to_owned());
        }
        self.check_engine().or_else(|(key, message)| refuse(&format!("engine.{key}"), message))?;
        if let Err(error) = EnvFilter::try_new(&self.server.log) {
            let message = format!("{error}; write a level (error, warn, info, debug, trace) or target=level, ..");
            return refuse("server.log", message);
        }
        Ok(())
    }

    /// Checks `[engine]`, also against the chosen backend. Returns the key below it that is wrong, and why.
    pub(crate) fn check_engine(&self) -> Result<(), (&'static str, String)> {
        self.engine.check()?;
        let key = match &self.engine {
            engine if !engine.listen.is_empty() => "listen",
            engine if !engine.tls_listen.is_empty() => "tls_listen",
            engine if engine.unix_socket.is_some() => "unix_socket",
            engine if engine.dir.is_some() => "dir",
            _ => return Ok(()),
        };
        if cfg!(not(feature = "memory")) {
            let message = "the engine was not compiled in; build with the cargo feature `memory` (--features memory)";
            return Err((key, message.to_owned()));
        }
        if self.state.backend != "memory" {
            let backend = &self.state.backend;
            let message = format!(
                "is about the engine of backend = \"memory\", but state.backend is \"{backend}\": its data are \
                 there; remove this, or set backend = \"memory\""
            );
            return Err((key, message));
        }
        // Found when it is opened as well, but loading a directory may take minutes before that.
        #[cfg(feature = "memory")]
        if self.state.lock.as_ref().is_some_and(|lock| lock.backend == "memory") {
            return Err((key, format!("does not go with [state.lock]: backend = {}", crate::engine::SECOND_ENGINE)));
        }
        Ok(())
    }

    /// Every duration with its lower bound: zero where that means "do not wait".
    fn durations(&self) -> [(&'static str, Duration, Duration); 17] {
        let (server, dispatch, worker, engine) = (&self.server, &self.dispatch, &self.dispatch.worker, &self.engine);
        let (zero, millisecond, second) = (Duration::ZERO, Duration::from_millis(1), Duration::from_secs(1));
        [
            ("server.request_timeout", server.request_timeout.0, millisecond),
            ("server.drain_delay", server.drain_delay.0, zero),
            ("server.drain_timeout", server.drain_timeout.0, zero),
            // A lease is renewed at a third of its length, which must leave time for a round trip.
            ("dispatch.lock_lease", dispatch.lock_lease.0, second),
            ("dispatch.lock_wait", dispatch.lock_wait.0, zero),
            ("dispatch.claim_lease", dispatch.claim_lease.0, second),
            ("dispatch.execute_timeout", dispatch.execute_timeout.0, millisecond),
            ("dispatch.worker.visibility", worker.visibility.0, second),
            ("dispatch.worker.poll", worker.poll.0, Duration::from_millis(10)),
            ("dispatch.worker.backoff", worker.backoff.0, millisecond),
            ("dispatch.worker.backoff_max", worker.backoff_max.0, worker.backoff.0),
            ("dispatch.worker.dead_ttl", worker.dead_ttl.0, second),
            ("engine.idle_timeout", engine.idle_timeout.map_or(second, |time| time.0), second),
            ("engine.tcp_keepalive", engine.tcp_keepalive.0, zero),
            ("engine.output_pubsub_soft_time", engine.output_pubsub_soft_time.0, second),
            ("engine.tls_handshake_timeout", engine.tls_handshake_timeout.0, millisecond),
            ("engine.drain_timeout", engine.drain_timeout.0, zero),
        ]
    }

    fn concurrencies(&self) -> [(&'static str, usize); 3] {
        [
            ("server.concurrency_max", self.server.concurrency_max),
            ("dispatch.batch_concurrency", self.dispatch.batch_concurrency),
            ("dispatch.worker.concurrency", self.dispatch.worker.concurrency),
        ]
    }
}

impl ServerConfig {
    /// Whether other machines may reach the server. A name is not looked up here, and `localhost` counts as this machine.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => !address.is_loopback(),
            Err(_) => !self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// What locks say of us: the machine and the process.
fn this_process() -> String {
    let name = rustix::system::uname();
    let machine: String = name.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).collect();
    format!("{machine}, pid {}", std::process::id())
}

/// A token that can be guessed protects nothing, and one that no header can hold lets nobody in.
fn check_admin_token(token: &str) -> Result<(), String> {
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        let found = token.len();
        return Err(format!("has {found} characters; allowed: {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} random ones"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("contains white space, or something else than ASCII; allowed: visible ASCII characters".to_owned());
    }
    Ok(())
}

const fn seconds(number: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(number))
}

/// The variables that can be ours, as text. One of another program may be no Unicode; one of ours may not.
fn ours(environment: &[(OsString, OsString)]) -> Result<Vec<(String, String)>, ConfigError> {
    let named = environment.iter().filter_map(|(name, value)| {
        name.to_str().filter(|name| name.starts_with("ACTEON__")).map(|name| (name, value))
    });
    named
        .map(|(name, value)| match value.to_str() {
            Some(value) => Ok((name.to_owned(), value.to_owned())),
            None => Err(ConfigError::new(format!("environment variable {name}: not Unicode"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use acteon_dispatch::pipeline::options::OnStateError;

    use super::{Config, Sources};

    fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("a.toml");
        fs::write(&file, toml).expect("writable");
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let sources = Sources { file: Some(file), environment, ..Sources::default() };
        // Without the directory, which has another name each time.
        let shown =
            |error: super::ConfigError| error.to_string().replace(&format!("{}/", directory.path().display()), "");
        Config::load(&sources).map_err(shown)
    }

    #[test]
    fn an_empty_file_is_the_default_with_a_log_provider() {
        let config = load("", &[]).expect("valid");
        assert_eq!(config.state.backend, "memory");
        assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 8080));
        assert_eq!(config.providers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["log"]);
        assert!(config.dispatch.worker.enabled && config.rules.watch);
    }

    #[test]
    fn later_sources_win() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("a.toml");
        fs::write(&file, "[server]\nhost = \"::1\"\nport = 1\nrequest_timeout = \"1s\"").expect("writable");
        let environment =
            vec![("ACTEON__SERVER__PORT".into(), "2".into()), ("ACTEON__SERVER__LOG".into(), "warn".into())];
        let sources = Sources { file: Some(file), environment, port: Some(3), ..Sources::default() };
        let server = Config::load(&sources).expect("valid").server;
        assert_eq!((server.port, server.host.as_str(), server.log.as_str()), (3, "::1", "warn"));
        assert_eq!(server.request_timeout.0.as_secs(), 1);
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_what_is_allowed() {
        for (toml, parts) in [
            ("[server]\nprot = 1", ["a.toml:2", "server.prot", "did you mean `port`"]),
            ("[sever]\nport = 1", ["a.toml:1", "sever", "did you mean `server`"]),
            ("[server]\nport = 70000", ["a.toml:2", "server.port", "70000"]),
            ("[server]\nrequest_timeout = 30", ["a.toml:2", "server.request_timeout", "has no unit"]),
            ("[server]\nlog = \"x=loud\"", ["a.toml:2", "server.log", "write a level"]),
            ("[dispatch]\n\nlock_lease = \"1ms\"", ["a.toml:3", "dispatch.lock_lease", "allowed: 1s to 1day"]),
            ("[dispatch.worker]\nconcurrency = 0", ["a.toml:2", "dispatch.worker.concurrency", "allowed: 1 to"]),
            ("[server]\nthreads = 0", ["a.toml:2", "server.threads", "allowed: 1 to 4096"]),
            (
                "[server]\nadmin_token = \"hunter2\"",
                ["a.toml:2", "server.admin_token", "has 7 characters; allowed: 16 to"],
            ),
            (
                "[server]\nadmin_token = \"hunter2 hunter2 hunter2\"",
                ["a.toml:2", "server.admin_token", "visible ASCII characters"],
            ),
            ("[server]\nbody_max = \"1GiB\"", ["a.toml:2", "server.body_max", "64MiB"]),
            ("[[providers]]\nname = \"x\"\nkind = \"fax\"", ["a.toml:3", "providers[0].kind", "webhook"]),
            ("[[providers]]\nname = \"x\"\nkind = \"log\"\ntimeuot = \"1s\"", ["a.toml:4", "timeuot", "timeout"]),
            ("[state.layers.degradation]\nthrotle = \"open\"", ["a.toml:2", "throtle", "did you mean `throttle`"]),
            (
                "[state.layers.degradation]\nthrottle = \"stale\"",
                ["a.toml:2", "degradation.throttle", "counted, not read"],
            ),
            ("[state.layers.degradation]\ndefault = \"stale\"", ["a.toml:2", "degradation.default", "`throttle`"]),
            ("[rules]\ndefault = \"alow\"", ["a.toml:2", "rules.default", "allow"]),
        ] {
            let error = load(toml, &[]).expect_err(toml);
            for part in parts {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        }
        let error = load("", &[("ACTEON__SERVER__PROT", "1")]).expect_err("misspelt");
        assert!(error.contains("ACTEON__SERVER__PROT") && error.contains("ACTEON__SERVER__PORT"), "{error}");
    }

    #[test]
    fn what_happens_without_the_store_is_configured_with_the_store() {
        let options = |toml: &str| load(toml, &[]).expect("valid").dispatch_options();
        let open = options("[state.layers.degradation]\ndedup = \"open\"");
        assert_eq!(open.on_state_error_dedup, OnStateError::Open);
        assert_eq!(open.on_state_error_throttle, OnStateError::Closed);
        let mixed = options("[state.layers.degradation]\ndefault = \"stale\"\nthrottle = \"local\"");
        assert_eq!(mixed.on_state_error_dedup, OnStateError::Stale);
        assert_eq!(mixed.on_state_error_throttle, OnStateError::Closed, "the stand-in counts");
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let sources = Sources { file: Some(PathBuf::from("/nowhere/a.toml")), ..Sources::default() };
        assert!(Config::load(&sources).expect_err("missing").to_string().contains("/nowhere/a.toml"));
    }

    #[test]
    fn only_this_machine_is_not_exposed() {
        let mut server = super::ServerConfig::default();
        for (host, exposed) in [
            ("127.0.0.1", false),
            ("::1", false),
            ("localhost", false),
            ("0.0.0.0", true),
            ("::", true),
            ("host", true),
        ] {
            server.host = host.to_owned();
            assert_eq!(server.is_exposed(), exposed, "{host}");
        }
    }
}
