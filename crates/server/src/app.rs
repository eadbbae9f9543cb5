//! The wiring: from a configuration to a running server, and back to nothing.
//!
//! # What it promises
//! [`Server::start`] returns once the server listens, the rules are in force and the backend answered (unless it is optional), or with
//! the reason why not. Cheap checks come first: a misspelt rule is reported without waiting for a backend.
//!
//! [`Server::run`] ends in this order, so that nothing that was accepted is lost:
//! 1. `/ready` says `draining`, for `server.drain_delay`: load balancers stop sending.
//! 2. No more connections are accepted, no more scheduled actions are claimed. Idle connections close.
//! 3. Requests, dispatches and deliveries under way are finished, for `server.drain_timeout` at most; then the engine's clients are
//!    disconnected.
//! 4. The store is closed; if it keeps its data in a directory, what is left is written first, however long that takes.
//!
//! # Failure
//! What could not be written to the directory at last is an error, by which the process ends with a failure. What is not finished in time is cut off and logged: a deduplication claim or a lock then ends with its lease, and a scheduled
//! action is delivered again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acteon_dispatch::providers::Registry as Providers;
use acteon_dispatch::rules::effect::Effect;
use acteon_dispatch::rules::{LoadError, RuleSet, Rules};
use acteon_dispatch::{DispatchMetrics, Dispatcher};
use acteon_state::config::{Connect, Secret};
use acteon_state::core::fault_log::FaultLog;
use acteon_state::core::layer::metrics::StoreMetrics;
use acteon_state::core::{Capabilities, LockSemantics};
use acteon_state::{OpenOptions, State};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;
#[cfg(feature = "memory")]
use crate::engine::{EngineSource, PublishedEngine};
use crate::http::limits::Limits;
use crate::http::metrics::ServerMetrics;
use crate::http::{router, serve};
use crate::shutdown::Shutdown;
use crate::start_error::StartError;

/// Closing the store says goodbye to the backend; one that is gone does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all requests share. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    dispatcher: Dispatcher,
    providers: Arc<Providers>,
    state: State,
    optional: Optional,
    limits: Limits,
    admin_token: Option<Secret>,
    registry: Registry,
    metrics: ServerMetrics,
    draining: AtomicBool,
    started: Instant,
    faults: FaultLog,
    /// What is done without an answer of the backend, by kind.
    degradation: BTreeMap<&'static str, &'static str>,
    /// What the engine is published from, and what its figures are read from, if the store is one.
    #[cfg(feature = "memory")]
    engine: Option<EngineSource>,
}

/// Without which backends the server goes on.
#[derive(Clone, Copy, Debug)]
pub struct Optional {
    /// That of the data.
    pub data: bool,
    /// That of the locks, which is the same one unless configured.
    pub locks: bool,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    app: App,
    config: Config,
    address: SocketAddr,
    closing: CancellationToken,
    /// The loop that accepts, the worker, and the watcher of the rules: all end by `closing`.
    serving: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    /// The engine for Redis clients, if it is published.
    #[cfg(feature = "memory")]
    engine: Option<PublishedEngine>,
}

impl App {
    /// Loads the rules, makes the providers and opens the store. Nothing runs yet.
    ///
    /// # Errors
    /// [`StartError`] for the first of them that does not work.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, OpenOptions::default()).await
    }

    /// The same for a look at everything: nothing is changed in the store, not even its schema.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn inspect(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, OpenOptions { inspect: true, ..OpenOptions::default() }).await
    }

    async fn open_with(config: &Config, options: OpenOptions) -> Result<Self, StartError> {
        let rules = Arc::new(load_rules(config).await?);
        let providers = Arc::new(make_providers(config).await?);
        check_reroutes(&rules.current(), &providers)?;
        let mut registry = Registry::default();
        let metrics = ServerMetrics::register(&mut registry);
        let dispatch_metrics = DispatchMetrics::register(&mut registry);
        #[cfg(feature = "memory")]
        let has_engine = config.engine.is_published() || config.state.backend == "memory";
        #[cfg(feature = "memory")]
        let make_engine = || EngineSource::new(&config.engine);
        #[cfg(feature = "memory")]
        let engine = has_engine.then(make_engine);
        #[cfg(feature = "memory")]
        let options = with_engine(options, engine.as_ref(), &mut registry);
        let state = open_state(config, options, &mut registry).await?;
        let options = config.dispatch_options();
        let dispatcher = Dispatcher::new(state.clone(), rules, Arc::clone(&providers), options, dispatch_metrics);
        let server = &config.server;
        let body_bytes_max = usize::try_from(server.body_max.0).unwrap_or(usize::MAX);
        Ok(Self(Arc::new(Parts {
            dispatcher,
            providers,
            state,
            optional: Optional {
                data: config.state.optional,
                locks: config.state.lock.as_ref().map_or(config.state.optional, |lock| lock.optional),
            },
            limits: Limits::new(body_bytes_max, server.request_timeout.0, server.concurrency_max),
            admin_token: server.admin_token.clone(),
            registry,
            metrics,
            draining: AtomicBool::new(false),
            started: Instant::now(),
            faults: FaultLog::new(),
            degradation: config.degradation(),
            #[cfg(feature = "memory")]
            engine,
        })))
    }

    /// Takes actions.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.0.dispatcher
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        self.0.dispatcher.rules()
    }

    /// The providers.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.0.providers
    }

    /// The store.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// Without which backends the server goes on.
    #[must_use]
    pub fn optional(&self) -> Optional {
        self.0.optional
    }

    /// What is done without an answer of the backend, by kind of key.
    #[must_use]
    pub fn degradation(&self) -> &BTreeMap<&'static str, &'static str> {
        &self.0.degradation
    }

    /// Keeps an outage from filling the log.
    #[must_use]
    pub fn faults(&self) -> &FaultLog {
        &self.0.faults
    }

    /// What requests may cost.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What administrators present, if there are any.
    #[must_use]
    pub fn admin_token(&self) -> Option<&Secret> {
        self.0.admin_token.as_ref()
    }

    /// What the server counts.
    #[must_use]
    pub fn metrics(&self) -> &ServerMetrics {
        &self.0.metrics
    }

    /// All metrics of the process.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Whether the server is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// When it was opened.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// Reads the rules again, and logs the result with who asked for it.
    ///
    /// # Errors
    /// [`LoadError`] with every problem that was found; the old rules stay in force.
    pub async fn reload_rules(&self, asked_by: &'static str) -> Result<Arc<RuleSet>, LoadError> {
        let rules = Arc::clone(self.rules());
        let result = blocking(move || rules.reload()).await;
        match &result {
            Ok(set) => {
                info!(asked_by, rules = set.rules().len(), generation = set.generation(), "rules reloaded");
                for problem in lost_reroutes(set, &self.0.providers) {
                    warn!(%problem, "a rule sends actions to a provider that does not exist; they will fail");
                }
            }
            Err(problems) => error!(asked_by, %problems, "rules not reloaded; the old ones stay in force"),
        }
        result
    }
}

impl Server {
    /// Opens everything and begins to listen.
    ///
    /// # Errors
    /// [`StartError`] with the reason and, where there is one, a hint.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let app = App::open(&config).await?;
        let (listener, address) = listen(&config).await?;
        #[cfg(feature = "memory")]
        let engine = match &app.0.engine {
            Some(source) if config.engine.is_published() => Some(source.publish(&config.engine).await?),
            _ => None,
        };
        let closing = CancellationToken::new();
        let background = start_background(&app, &config, &closing);
        let serving = tokio::spawn(serve::serve(listener, router(app.clone()), closing.clone()));
        announce(&app, &config, address);
        Ok(Self {
            app,
            config,
            address,
            closing,
            serving,
            background,
            #[cfg(feature = "memory")]
            engine,
        })
    }

    /// Where it listens; with `port = 0` the port that was chosen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine for Redis clients, if it is published.
    #[cfg(feature = "memory")]
    #[must_use]
    pub fn engine(&self) -> Option<&PublishedEngine> {
        self.engine.as_ref()
    }

    /// What its requests share.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Serves until `shutdown` begins, and then until what is under way is finished; see the module for the order.
    ///
    /// # Errors
    /// The store keeps its data in a directory, and not everything is there in the end.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), StartError> {
        shutdown.begun().await;
        self.app.0.draining.store(true, Ordering::Release);
        info!(delay = %self.config.server.drain_delay, "draining");
        tokio::select! {
            () = tokio::time::sleep(self.config.server.drain_delay.0) => {}
            () = shutdown.hurried() => {}
        }
        self.closing.cancel();
        let patience = self.config.server.drain_timeout.0;
        let finishing = async {
            finish(&self.app, &mut self.serving, patience).await;
            // Last, since what is under way may be of use to its clients.
            #[cfg(feature = "memory")]
            if let Some(engine) = &mut self.engine {
                engine.stop().await;
            }
        };
        tokio::select! {
            finished = timeout(patience, finishing) => match finished {
                Ok(()) => info!("everything under way was finished"),
                Err(_) => self.report_cut_off("after server.drain_timeout"),
            },
            () = shutdown.hurried() => self.report_cut_off("in a hurry"),
        }
        self.serving.abort();
        for task in &self.background {
            task.abort();
        }
        let closed = self.close_data(&shutdown).await;
        say_goodbye(self.app.state()).await;
        info!("stopped");
        closed
    }

    /// Closes the store of the data, if it is in this process.
    async fn close_data(&self, shutdown: &Shutdown) -> Result<(), StartError> {
        #[cfg(feature = "memory")]
        if let Some(source) = &self.app.0.engine {
            return source.close(self.app.state(), shutdown).await;
        }
        let _ = shutdown;
        Ok(())
    }

    fn report_cut_off(&self, why: &str) {
        warn!(requests = self.app.limits().tasks().len(), "cutting off what is under way, {why}");
    }
}

/// Closes what is still open of the store: for backends behind a network.
pub(crate) async fn say_goodbye(state: &State) {
    match timeout(CLOSE_TIMEOUT, state.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the store did not close cleanly"),
        Err(_) => warn!("the store did not close in time"),
    }
}

/// Waits for connections, for the work of requests whose callers went away, and for deliveries.
async fn finish(app: &App, serving: &mut JoinHandle<()>, patience: Duration) {
    if let Err(error) = serving.await {
        error!(%error, "the accepting loop ended unexpectedly");
    }
    let tasks = app.limits().tasks();
    tasks.close();
    tasks.wait().await;
    app.dispatcher().drain(patience).await;
}

async fn load_rules(config: &Config) -> Result<Rules, StartError> {
    let (directory, options) = (config.rules.directory.clone(), config.load_options());
    let shown = directory.display().to_string();
    blocking(move || Rules::load(directory, options)).await.map_err(|error| {
        let failed = StartError::new(format!("the rules in {shown} cannot be used"), error);
        if config.rules.directory.is_dir() {
            return failed;
        }
        failed.with_hint("the path is relative to the working directory; set `directory` in [rules], or create it")
    })
}

/// A rule that sends actions to nobody would fail each of them, at the moment when it is needed.
fn check_reroutes(rules: &RuleSet, providers: &Providers) -> Result<(), StartError> {
    let problems: Vec<String> = lost_reroutes(rules, providers).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let known: Vec<&str> = providers.describe().map(|(name, ..)| name).collect();
    let hint = format!("there are the providers {}; add a [[providers]] section for the others", known.join(", "));
    Err(StartError::because("rules send actions to providers that do not exist", problems.join("\n")).with_hint(hint))
}

/// The enabled rules that reroute to a provider that does not exist, each with its place.
fn lost_reroutes<'a>(rules: &'a RuleSet, providers: &'a Providers) -> impl Iterator<Item = String> + 'a {
    rules.rules().iter().filter(|rule| rule.enabled).filter_map(|rule| match &rule.effect {
        Effect::Reroute { provider } if !providers.contains(provider) => {
            let (file, line, name) = (rule.file.display(), rule.line, &rule.name);
            Some(format!("{file}:{line}: rule {name} reroutes to the provider {provider:?}"))
        }
        _ => None,
    })
}

async fn make_providers(config: &Config) -> Result<Providers, StartError> {
    let configs = config.providers.clone();
    let made = blocking(move || Providers::from_config(&configs)).await;
    made.map_err(|error| StartError::new("the providers cannot be made", error))
}

/// What dispatching asks of the store of the data.
const NEEDED: [&str; 3] = ["cas", "rate_limits", "due"];
/// And of that of the locks.
const NEEDED_OF_LOCKS: [&str; 1] = ["locks"];

async fn open_state(config: &Config, options: OpenOptions, registry: &mut Registry) -> Result<State, StartError> {
    let options = OpenOptions { metrics: Some(StoreMetrics::register(registry)), ..options };
    let opened = acteon_state::open_with(&config.state, options).await;
    let state = opened.map_err(|error| StartError::because("the state store cannot be opened", error.message()))?;
    check_needs(&state.lock_semantics(), state.lock_store().capabilities(), &NEEDED_OF_LOCKS)?;
    check_needs(&state.lock_semantics(), state.store().capabilities(), &NEEDED)?;
    Ok(state)
}

/// Refuses a backend on which no action could be dispatched, such as a table that several regions write to on their own: better
/// at the start than with every action.
fn check_needs(locks: &LockSemantics, capabilities: &Capabilities, needed: &[&'static str]) -> Result<(), StartError> {
    let missing: Vec<&str> = needed.iter().copied().filter(|name| capabilities.has(name) != Some(true)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!("it lacks {}; its locks: {}, fit for {}", missing.join(", "), locks.topology, locks.fit_for);
    Err(StartError::because("the state store cannot do what dispatching needs", reason)
        .with_hint("choose another backend; locks alone can be kept elsewhere, in [state.lock]"))
}

/// Opens the store in such a way that its engine can be published, and is seen in the metrics.
#[cfg(feature = "memory")]
fn with_engine(options: OpenOptions, engine: Option<&EngineSource>, registry: &mut Registry) -> OpenOptions {
    let Some(engine) = engine else { return options };
    engine.register(registry);
    OpenOptions { registry: engine.drivers(), ..options }
}

async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let (host, port) = (config.server.host.as_str(), config.server.port);
    let bound = async {
        let listener = TcpListener::bind((host, port)).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    bound.await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => Some("another program has the port; choose one with --port"),
            std::io::ErrorKind::PermissionDenied => Some("ports below 1024 need a privilege; choose one with --port"),
            _ => None,
        };
        let failed = StartError::new(format!("cannot listen on {host} port {port}"), error);
        match hint {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    })
}

/// Runs what waits for the disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // A task that was not cancelled can only have panicked, and that goes on here.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Starts the worker and the watcher, as far as they are configured.
fn start_background(app: &App, config: &Config, closing: &CancellationToken) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    if config.dispatch.worker.enabled {
        tasks.push(app.dispatcher().spawn_worker(closing.clone()));
    }
    if config.rules.watch {
        match app.rules().watch(closing.clone()) {
            Ok(task) => tasks.push(task),
            // The rules are in force, and SIGHUP and HTTP reload them: no reason not to serve.
            Err(error) => warn!(%error, "changes of the rules will not be noticed; use SIGHUP"),
        }
    }
    tasks
}

fn announce(app: &App, config: &Config, address: SocketAddr) {
    let locks = app.state().lock_semantics();
    let is_lazy = [Some(&config.state), config.state.lock.as_deref()]
        .into_iter()
        .flatten()
        .any(|it| it.connect() == Connect::Lazy);
    info!(
        %address,
        backend = app.state().store().backend(),
        rules = app.rules().current().rules().len(),
        providers = config.providers.len(),
        locks = %locks.topology,
        locks_fit_for = %locks.fit_for,
        "{}",
        if is_lazy { "acteon is listening, and connects to its backend in the background" } else { "acteon is ready" },
    );
    if config.server.is_exposed() {
        warn!(
            host = config.server.host,
            "OTHER MACHINES CAN REACH THIS SERVER, AND IT DOES NOT AUTHENTICATE THEM. Whoever reaches it can dispatch \
             actions. Put a proxy in front that does, or listen on 127.0.0.1."
        );
    }
}

#[cfg(test)]
mod tests {
    use acteon_state::core::{Capabilities, LockClock, LockSemantics, Survival, Waiting};

    use super::{NEEDED, NEEDED_OF_LOCKS, check_needs};

    #[test]
    fn a_backend_that_refuses_locks_is_refused_at_the_start_with_a_way_out() {
        let locks = LockSemantics {
            topology: "dynamodb, several regions".to_owned(),
            clock: LockClock::Observed,
            tokens_rise_across: String::new(),
            survives_server_crash: Survival::Yes,
            survives_failover: Survival::Yes,
            waiting: Waiting::Backoff,
            fit_for: "nothing: locks are refused".to_owned(),
            notes: Vec::new(),
        };
        let some = Capabilities { cas: true, rate_limits: true, due: true, ..Capabilities::none() };
        assert!(check_needs(&locks, &some, &NEEDED).is_ok());
        let error = check_needs(&locks, &some, &NEEDED_OF_LOCKS).unwrap_err().to_string();
        assert!(error.contains("lacks locks") && error.contains("[state.lock]"), "{error}");
    }
}
