//! From the store that was opened to a listening engine.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use acteon_engine::{Instance, InstanceConfig, OutputLimit, OutputLimits, ScriptLog, ScriptLogLevel, User};
use acteon_engine_disk::Disk;
use acteon_engine_server::{BindError, Clock, EngineServer, Limits, ListenConfig, Stopper, TlsConfig, UnixConfig};
use acteon_state::config::ByteSize;
use acteon_state::core::clock::{Clock as StoreClock, SeededClock};
use acteon_state::core::key::Companion;
use acteon_state::memory::{KeepConfig, KeepFsync, MemoryStore};
use acteon_state::{
    DriverConfig, Error, ErrorKind, OpenOptions, Registry as Drivers, State, StateStore, open_memory_kept,
};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::config::{EngineConfig, EngineFsync, UserConfig};
use super::metrics::Figures;
use crate::app::{blocking, say_goodbye};
use crate::config::Config;
use crate::shutdown::Shutdown;
use crate::start_error::StartError;

/// How often the log says what is still to be written while the store closes.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How long a store may still write when somebody is in a hurry.
const HURRIED_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a second memory store is refused.
pub(crate) const SECOND_ENGINE: &str = "\"memory\" would put the locks into a second engine, which is neither kept in engine.dir nor \
    reached by the engine's clients: remove [state.lock], and they are where the data are";

/// The engine that `backend = "memory"` opens, to be published.
#[derive(Clone, Debug)]
pub struct EngineSource {
    clock: Arc<dyn StoreClock>,
    opened: Arc<OnceLock<MemoryStore>>,
    keep: Option<KeepConfig>,
    /// For what is wrong with the directory.
    config: Arc<EngineConfig>,
    /// Others rely on what is in the engine: a directory, or clients.
    is_relied_on: bool,
    figures: Figures,
}

/// An engine that listens.
#[derive(Debug)]
pub struct PublishedEngine {
    places: Vec<String>,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl EngineSource {
    /// Nothing was opened yet; what is will keep its data where `config` says.
    #[must_use]
    pub fn new(config: &EngineConfig) -> Self {
        let (clock, keep) = (Arc::new(SeededClock::new()), keep_config(config));
        let is_relied_on = keep.is_some() || config.is_published();
        let config = Arc::new(config.clone());
        Self { clock, opened: Arc::default(), keep, config, is_relied_on, figures: Figures::default() }
    }

    /// The drivers, with one for memory that keeps what it opens.
    #[must_use]
    pub fn drivers(&self) -> Drivers {
        let source = self.clone();
        Drivers::new().with("memory", move |driver| source.clone().open(driver))
    }

    /// Opens a store: that of the data comes first. A second one, that of the locks, is an engine by itself.
    async fn open(self, driver: DriverConfig) -> acteon_state::Result<Arc<dyn StateStore>> {
        let is_first = self.opened.get().is_none();
        if !is_first && self.is_relied_on {
            return Err(Error::config(SECOND_ENGINE));
        }
        let (clock, keep) = (Arc::clone(&self.clock), self.keep.clone());
        // Reading a directory takes its time, in which signals are to be heard.
        let store = blocking(move || open_memory_kept(&driver, clock, keep)).await;
        let store = store.map_err(|error| blame_directory(&self.config, error))?;
        if is_first {
            self.figures.follow(store.engine().clone(), store.disk().cloned());
            let _ = self.opened.set(store.clone());
        }
        Ok(Arc::new(store))
    }

    /// Closes the store of the data of `state`, which was opened here. What is to be written to its directory gets the time that it needs, which
    /// the log tells; only who is in a hurry does not wait for it.
    ///
    /// # Errors
    /// Not everything is on the disk.
    pub(crate) async fn close(&self, state: &State, shutdown: &Shutdown) -> Result<(), StartError> {
        let disk = self.opened.get().and_then(MemoryStore::disk);
        let (mut closing, mut progress) = (pin!(state.store().close()), interval(PROGRESS_EVERY));
        let mut hurry = pin!(async {
            shutdown.hurried().await;
            sleep(HURRIED_CLOSE_TIMEOUT).await;
        });
        progress.reset();
        loop {
            tokio::select! {
                closed = &mut closing => return judge(closed),
                () = &mut hurry => return Err(not_kept("the disk did not take them in time")),
                _ = progress.tick() => if let Some(disk) = disk { tell_what_is_left(disk) },
            }
        }
    }

    /// Adds what the engine counts.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.figures.clone()));
    }

    /// Begins to listen where `config` says. The store must have been opened.
    ///
    /// # Errors
    /// [`StartError`] for the place that cannot be had.
    pub async fn publish(&self, config: &EngineConfig) -> Result<PublishedEngine, StartError> {
        let store = self.opened.get().ok_or_else(|| {
            StartError::because("the engine cannot be published", "the store is not of backend = \"memory\"")
        })?;
        let instance = Instance::new(store.engine().clone(), instance_config(config));
        share_locks(store, &instance);
        let store_clock = Arc::clone(&self.clock);
        let clock: Clock = Arc::new(move || store_clock.now_us());
        let disk = store.disk().cloned();
        let server = EngineServer::bind_with_disk(instance, listen_config(config), clock, disk).await;
        let server = server.map_err(cannot_listen)?;
        self.figures.follow_clients(server.counters());
        let places = places(config, &server);
        info!(places = places.join(", "), "the engine listens for Redis clients");
        if config.password.is_none() && !config.protected_mode {
            warn!(
                "OTHER MACHINES MAY USE THE ENGINE WITHOUT A PASSWORD: set engine.password, or protected_mode = true."
            );
        }
        let stopper = server.stopper();
        let serving = tokio::spawn(async {
            server.serve().await;
            info!("the engine listens no longer");
        });
        Ok(PublishedEngine { places, stopper, serving })
    }
}

impl PublishedEngine {
    /// Where it listens, with the ports that were chosen.
    #[must_use]
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// Waits until it is to end by itself, since a client said SHUTDOWN.
    pub async fn ended(&self) {
        self.stopper.stopped().await;
    }

    /// Ends it: no more connections, what was carried out is answered, then all is closed.
    pub async fn stop(&mut self) {
        self.stopper.stop();
        if let Err(error) = (&mut self.serving).await {
            warn!(%error, "the engine's server ended unexpectedly");
        }
    }
}

impl Drop for PublishedEngine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Runs the engine of `config` and nothing else, until `shutdown` begins.
///
/// # Errors
/// [`StartError`] when it cannot start, and when not everything is on the disk in the end.
pub async fn run_alone(config: &Config, shutdown: Shutdown) -> Result<(), StartError> {
    let source = EngineSource::new(&config.engine);
    let options = OpenOptions { registry: source.drivers(), ..OpenOptions::default() };
    let Some(opened) = shutdown.unless_begun(acteon_state::open_with(&config.state, options)).await else {
        info!("stopped before the engine had started");
        return Ok(());
    };
    let state = opened.map_err(|error| StartError::because("the state store cannot be opened", error.message()))?;
    let mut published = source.publish(&config.engine).await?;
    tokio::select! {
        () = shutdown.begun() => {}
        () = published.ended() => {}
    }
    tokio::select! {
        () = published.stop() => info!("stopped"),
        () = shutdown.hurried() => warn!("stopped in a hurry"),
    }
    drop(published);
    let closed = source.close(&state, &shutdown).await;
    say_goodbye(&state).await;
    closed
}

/// To the memory driver the directory is an option of its own, `dir`. Here it has another name, and a place where it was set.
fn blame_directory(config: &EngineConfig, error: Error) -> Error {
    let Some(reason) = error.message().strip_prefix("dir: ") else { return error };
    let placed = config.directory_error(reason);
    Error::new(error.kind(), placed.to_string()).with_source(placed)
}

/// What came of closing. A backend that does not say goodbye takes nothing away.
fn judge(closed: acteon_state::Result<()>) -> Result<(), StartError> {
    match closed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotDurable => Err(not_kept(error.message())),
        Err(error) => {
            warn!(%error, "the store did not close cleanly");
            Ok(())
        }
    }
}

fn not_kept(reason: &str) -> StartError {
    error!(reason, "WHAT WAS CHANGED LAST IS NOT ON THE DISK, AND LOST");
    StartError::because("what was changed last is not on the disk, and lost", reason)
        .with_hint("look at the disk; the directory itself is sound, and holds what came before")
}

fn tell_what_is_left(disk: &Disk) {
    let statistics = disk.statistics();
    let changes = statistics.position.saturating_sub(statistics.synced_position);
    info!(bytes = statistics.pending_bytes, changes, "still writing what is left to the disk; a signal stops it");
}

/// Lets those who wait for a lock here and those who wait through the protocol hear of each other's releases.
fn share_locks(store: &MemoryStore, instance: &Arc<Instance>) {
    // Of the two, only the instance holds the other one: so both end when the server does.
    let publisher = Arc::downgrade(instance);
    store.on_lock_change(move |record| {
        if let Some(instance) = publisher.upgrade() {
            instance.publish(record, b"");
        }
    });
    let waiting = store.clone();
    instance.on_message(is_lock, move |channel| waiting.lock_changed(channel));
}

/// Whether this is the channel on which the release of a lock is announced, which has the name of its record.
fn is_lock(channel: &[u8]) -> bool {
    channel.ends_with(Companion::Lock.suffix().as_bytes())
}

fn cannot_listen(error: BindError) -> StartError {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Some("another program has the place; choose another one in [engine], or by --listen")
        }
        std::io::ErrorKind::PermissionDenied => Some("ports below 1024 and some directories need a privilege"),
        _ => None,
    };
    let failed = StartError::because("the engine cannot listen", error.to_string());
    match hint {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

fn keep_config(config: &EngineConfig) -> Option<KeepConfig> {
    Some(KeepConfig {
        dir: config.dir.clone()?,
        fsync: match config.fsync {
            EngineFsync::Always => KeepFsync::Always,
            EngineFsync::EverySecond => KeepFsync::EverySecond,
            EngineFsync::No => KeepFsync::No,
        },
        save: config.save.iter().map(|save| (save.after.0.as_secs(), save.changes)).collect(),
        rewrite_growth_percent: config.rewrite_growth_percent,
        rewrite_bytes_min: config.rewrite_min.0,
        buffer_bytes_max: config.disk_buffer_max.0,
    })
}

fn instance_config(config: &EngineConfig) -> InstanceConfig {
    let user = |user: &UserConfig| User { name: user.name.clone(), password: user.password.expose().into() };
    InstanceConfig {
        databases: config.databases,
        seed: Uuid::new_v4().as_u64_pair().0,
        password: config.password.as_ref().map(|password| password.expose().into()),
        users: config.users.iter().map(user).collect(),
        output_limits: OutputLimits {
            normal: OutputLimit { hard_bytes: config.output_max.0, soft_bytes: 0, soft_s: 0 },
            pubsub: OutputLimit {
                hard_bytes: config.output_pubsub_max.0,
                soft_bytes: config.output_pubsub_soft_max.0,
                soft_s: config.output_pubsub_soft_time.0.as_secs(),
            },
        },
        script_log: ScriptLog::new(log_of_script),
    }
}

/// What scripts say by `redis.log` is theirs: it gets in nobody's way at the usual level.
fn log_of_script(level: ScriptLogLevel, text: &str) {
    match level {
        ScriptLogLevel::Debug | ScriptLogLevel::Verbose => debug!(text, "a script logs"),
        ScriptLogLevel::Notice => info!(text, "a script logs"),
        ScriptLogLevel::Warning => warn!(text, "a script logs"),
    }
}

fn listen_config(config: &EngineConfig) -> ListenConfig {
    let tls = config.tls_cert_file.clone().zip(config.tls_key_file.clone()).map(|(certificate_file, key_file)| {
        let client_ca_file = config.tls_client_ca_file.clone();
        TlsConfig { listen: config.tls_listen.clone(), certificate_file, key_file, client_ca_file }
    });
    ListenConfig {
        tcp: config.listen.clone(),
        tls,
        unix: config.unix_socket.clone().map(|path| UnixConfig { path, mode: config.mode() }),
        is_open_to_all: !config.protected_mode,
        limits: limits(config),
    }
}

fn limits(config: &EngineConfig) -> Limits {
    let bytes = |size: ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
    Limits {
        clients_max: config.clients_max,
        idle_timeout: config.idle_timeout.map(|time| time.0),
        tcp_keepalive: Some(config.tcp_keepalive.0).filter(|time| !time.is_zero()),
        bulk_bytes_max: bytes(config.bulk_max),
        query_buffer_bytes_max: bytes(config.query_buffer_max),
        drain_timeout: config.drain_timeout.0,
        handshake_timeout: config.tls_handshake_timeout.0,
    }
}

/// Where it really listens.
fn places(config: &EngineConfig, server: &EngineServer) -> Vec<String> {
    let plain = server.addresses().iter().map(ToString::to_string);
    let tls = server.tls_addresses().iter().map(|address| format!("{address} with TLS"));
    let unix = config.unix_socket.iter().map(|path| path.display().to_string());
    plain.chain(tls).chain(unix).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_engine::{Engine, EngineConfig as Contents, InstanceConfig, OutputLimit, OutputLimits};
    use acteon_engine_disk::simulation::{Directory, Faults};
    use acteon_engine_disk::{Disk, DiskConfig};
    use acteon_engine_server::{Limits, ListenConfig, TlsConfig, UnixConfig};
    use acteon_state::memory::{KeepConfig, KeepFsync, MemoryConfig, MemoryStore};
    use acteon_state::{Put, State, StateKey};

    use super::{EngineConfig, EngineSource, Shutdown, instance_config, is_lock, keep_config, listen_config};

    /// Every key with another value than its default.
    const ALL: &str = r#"
        listen = "127.0.0.1:1"
        dir = "data"
        fsync = "always"
        save = [{ after = "15s", changes = 16 }]
        rewrite_growth_percent = 17
        rewrite_min = "18MiB"
        disk_buffer_max = "19MiB"
        unix_socket = "engine.sock"
        unix_socket_mode = "640"
        tls_listen = ["127.0.0.1:2", "[::1]:2"]
        tls_cert_file = "cert.pem"
        tls_key_file = "key.pem"
        tls_client_ca_file = "ca.pem"
        password = "one"
        users = [{ name = "ada", password = "two" }]
        protected_mode = false
        databases = 3
        clients_max = 4
        idle_timeout = "5s"
        tcp_keepalive = "6s"
        bulk_max = "7MiB"
        query_buffer_max = "8MiB"
        output_max = "9MiB"
        output_pubsub_max = "10MiB"
        output_pubsub_soft_max = "11MiB"
        output_pubsub_soft_time = "12s"
        tls_handshake_timeout = "13s"
        drain_timeout = "14s"
    "#;

    fn all() -> EngineConfig {
        toml::from_str(ALL).expect("valid")
    }

    #[test]
    fn every_key_is_among_those_that_are_followed_here() {
        let (given, default) = (toml::Table::try_from(all()), toml::Table::try_from(EngineConfig::default()));
        let (given, default) = (given.expect("TOML"), default.expect("TOML"));
        for (key, value) in &given {
            assert_ne!(default.get(key), Some(value), "{key} has its default");
        }
        // What is unknown is refused with all that is known.
        let refused = toml::from_str::<EngineConfig>("zzzzzzzzzz = 1").expect_err("unknown").to_string();
        let known: Vec<_> = refused.rsplit("expected one of ").next().expect("a list").split('`').collect();
        let known: Vec<_> = known.iter().skip(1).step_by(2).copied().collect();
        assert_eq!(given.len(), known.len(), "{known:?}");
        assert!(known.iter().all(|key| given.contains_key(*key)), "{known:?}");
    }

    #[test]
    fn each_key_reaches_the_sockets() {
        let expected = ListenConfig {
            tcp: vec!["127.0.0.1:1".to_owned()],
            tls: Some(TlsConfig {
                listen: vec!["127.0.0.1:2".to_owned(), "[::1]:2".to_owned()],
                certificate_file: "cert.pem".into(),
                key_file: "key.pem".into(),
                client_ca_file: Some("ca.pem".into()),
            }),
            unix: Some(UnixConfig { path: "engine.sock".into(), mode: Some(0o640) }),
            is_open_to_all: true,
            limits: Limits {
                clients_max: 4,
                idle_timeout: Some(Duration::from_secs(5)),
                tcp_keepalive: Some(Duration::from_secs(6)),
                bulk_bytes_max: 7 << 20,
                query_buffer_bytes_max: 8 << 20,
                drain_timeout: Duration::from_secs(14),
                handshake_timeout: Duration::from_secs(13),
            },
        };
        assert_eq!(listen_config(&all()), expected);
    }

    /// The process said so in its log and ended as if all was well.
    #[tokio::test]
    async fn what_the_disk_does_not_take_in_the_end_is_an_error() {
        for is_full in [false, true] {
            let (directory, engine) = (Directory::new(1), Engine::new(Contents::default()));
            let disk = Disk::open(Arc::new(directory.clone()), &engine, DiskConfig::default(), 1).expect("new").0;
            let source = EngineSource::new(&EngineConfig::default());
            let config = MemoryConfig::default();
            let store = MemoryStore::over_kept(engine, Arc::new(disk), &config, Arc::clone(&source.clock));
            let store = source.opened.get_or_init(|| store.expect("allowed"));
            let state = State::new(Arc::new(store.clone()));
            let bytes_max = is_full.then(|| directory.bytes());
            directory.set_faults(Faults { bytes_max, ..Faults::default() });
            let key = StateKey::new("shop", "acme", "cart", "1").expect("a key");
            state.put(&key, &Put::new("apples")).await.expect("taken");
            let closed = source.close(&state, &Shutdown::default()).await;
            assert_eq!(closed.is_err(), is_full);
            if let Err(error) = closed {
                assert!(error.to_string().contains("1 changes may not be on the disk"), "{error}");
            }
        }
    }

    #[test]
    fn each_key_reaches_the_directory() {
        let expected = KeepConfig {
            dir: "data".into(),
            fsync: KeepFsync::Always,
            save: vec![(15, 16)],
            rewrite_growth_percent: 17,
            rewrite_bytes_min: 18 << 20,
            buffer_bytes_max: 19 << 20,
        };
        assert_eq!(keep_config(&all()), Some(expected));
        assert_eq!(keep_config(&EngineConfig::default()), None);
        let directory = EngineConfig { dir: Some("data".into()), ..EngineConfig::default() };
        assert_eq!(keep_config(&directory), Some(KeepConfig::new("data")));
    }

    #[test]
    fn each_key_reaches_the_instance() {
        let InstanceConfig { databases, password, users, output_limits, .. } = instance_config(&all());
        assert_eq!(databases, 3);
        let expected = OutputLimits {
            normal: OutputLimit { hard_bytes: 9 << 20, soft_bytes: 0, soft_s: 0 },
            pubsub: OutputLimit { hard_bytes: 10 << 20, soft_bytes: 11 << 20, soft_s: 12 },
        };
        assert_eq!(output_limits, expected);
        // That these are asked for is seen from outside, in the tests of the server.
        assert!(password.is_some() && users.len() == 1 && users[0].name == "ada");
    }

    #[test]
    fn defaults_are_those_of_the_engine() {
        let default = listen_config(&EngineConfig::default());
        assert_eq!(default, ListenConfig::default());
        let (ours, theirs) = (instance_config(&EngineConfig::default()), InstanceConfig::default());
        assert_eq!(ours.databases, theirs.databases);
        assert_eq!(ours.output_limits.pubsub, theirs.output_limits.pubsub);
    }

    #[test]
    fn what_is_random_differs_from_start_to_start() {
        let first = instance_config(&EngineConfig::default());
        assert_ne!(first.seed, instance_config(&EngineConfig::default()).seed);
    }

    #[test]
    fn channels_of_locks_are_told_from_others() {
        assert!(is_lock(b"{acteon:a:b:c:d}:lock"));
        assert!(!is_lock(b"news") && !is_lock(b"{acteon:a:b:c:d}:locks"));
    }
}
