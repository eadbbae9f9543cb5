//! A Redis server without sockets: databases, clients, scripts and settings, driven from outside.
//!
//! # Guarantees
//! An [`Instance`] may be used from any number of threads. A [`Client`] belongs to one connection and executes one command at a
//! time; what others send it (messages, the end of a wait) lies in its mailbox, and its waker is called.
//!
//! # What is not here
//! No clock, no thread, no I/O: the time is an argument, the owner reads and writes the bytes, calls
//! [`Client::resume`] when a wait may be over, and [`Instance::housekeeping`] from time to time.
//!
//! # Example
//! ```
//! use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};
//!
//! let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
//! let mut client = Client::connect(&instance, ClientOptions::default());
//! let (now_us, mut replies) = (1_000_000, Vec::new());
//! assert_eq!(client.execute(&[b"SET", b"greeting", b"hello"], now_us, &mut replies), Flow::Done);
//! assert_eq!(client.execute(&[b"GET", b"greeting"], now_us, &mut replies), Flow::Done);
//! assert_eq!(replies, b"+OK\r\n$5\r\nhello\r\n");
//! ```

mod access;
mod batch;
mod blocked;
mod client;
mod execute;
mod facts;
mod histogram;
mod host;
mod latency;
mod mailbox;
mod marks;
mod measure;
mod monitor;
mod note;
mod notifications;
mod pause;
mod pubsub;
mod session;
mod settings;
mod slowlog;
mod stats;
mod tap;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

pub(crate) use access::DEFAULT_USER;
pub use access::{Secret, User};
pub use batch::Batch;
pub use client::{Client, ClientOptions, Flow};
pub(crate) use execute::{Need, key_places, nested};
pub use facts::Buffers;
pub use host::{Host, HostFacts, Keeper, KeeperFigures, KeeperJob, SyncPolicy, Traffic, Usage};
pub(crate) use latency::Event as LatencyEvent;
pub use mailbox::{OutputLimit, OutputLimits, Waker};
pub(crate) use mailbox::{Peer, Peers};
pub(crate) use marks::Mark;
pub(crate) use pause::Paused;
pub(crate) use pubsub::Channels;
pub(crate) use session::{Replies, Session, Transaction, Watched};
pub use settings::NetworkSettings;
pub(crate) use settings::SettingError;

use tap::Tap;

use crate::algorithm::random::Random;
use crate::command::CommandError;
use crate::entry::Removed;
use crate::evict::Eviction;
use crate::keyspace::Engine;
use crate::lock::{Databases, PATIENCE};
use crate::memory::Room;
use crate::observe::{EventClass, Observer};
use crate::script::{ScriptLog, Scripts};
use crate::store::Store;
use crate::value::Limits;
use access::Access;
use blocked::Blocked;
use latency::LatencyEvents;
use marks::StaleMarks;
use measure::now_ns;
use monitor::Monitors;
use notifications::Notifications;
use pause::Pause;
use pubsub::PubSub;
use settings::Settings;
use slowlog::Slowlog;
use stats::Stats;

/// How long a segment is waited for while a script runs for long, which may be what holds it.
const PATIENCE_WHILE_LONG: Duration = Duration::from_micros(100);

/// Databases unless configured, as Redis has.
const DATABASES_DEFAULT: usize = 16;

/// What the owner of an instance decides when creating it.
#[derive(Clone, Debug)]
pub struct InstanceConfig {
    /// Databases that clients can `SELECT`. Default 16.
    pub databases: usize,
    /// Seed of everything random (`SRANDMEMBER`, `RANDOMKEY`, ..). A fixed seed makes a run repeatable.
    pub seed: u64,
    /// The password of the default user. Default: none, so that nobody needs one.
    pub password: Option<Secret>,
    /// Further users.
    pub users: Vec<User>,
    /// How much may wait for a connection that reads slowly.
    pub output_limits: OutputLimits,
    /// Where scripts log. Default: nowhere.
    pub script_log: ScriptLog,
}

impl Default for InstanceConfig {
    fn default() -> Self {
        Self {
            databases: DATABASES_DEFAULT,
            seed: 0x5eed,
            password: None,
            users: Vec::new(),
            output_limits: OutputLimits::default(),
            script_log: ScriptLog::default(),
        }
    }
}

/// A Redis server without sockets.
pub struct Instance {
    pub(crate) databases: Databases,
    pub(crate) peers: Peers,
    pub(crate) blocked: Blocked,
    pub(crate) pubsub: PubSub,
    pub(crate) tap: Tap,
    pub(crate) monitors: Monitors,
    pub(crate) access: Access,
    pub(crate) pause: Pause,
    pub(crate) scripts: Scripts,
    pub(crate) settings: Settings,
    pub(crate) stats: Stats,
    pub(crate) slowlog: Slowlog,
    pub(crate) latency: LatencyEvents,
    /// Forty hexadecimal digits that tell this run of a server from others.
    pub(crate) run_id: String,
    host: RwLock<Option<Arc<dyn Host>>>,
    notifications: Notifications,
    /// Thresholds of encodings, as `CONFIG SET` changes them; sessions keep a copy.
    limits: RwLock<Limits>,
    /// Rises with every change of a setting that sessions keep a copy of.
    settings_version: AtomicU64,
    /// Seeds for sessions.
    random: Mutex<Random>,
    stale_marks: StaleMarks,
    /// Large values that were removed and are freed by housekeeping.
    garbage: Mutex<Vec<Removed>>,
    /// Tables of databases that were emptied, to be freed by housekeeping.
    stores: Mutex<Vec<Store>>,
}

impl Instance {
    /// An instance over `engine`, which becomes database 0 and may be used by an embedding application at the same time.
    #[must_use]
    pub fn new(engine: Engine, config: InstanceConfig) -> Arc<Self> {
        let instance = Arc::new(Self {
            databases: Databases::new(engine, config.databases),
            peers: Peers::default(),
            blocked: Blocked::default(),
            pubsub: PubSub::default(),
            tap: Tap::default(),
            monitors: Monitors::default(),
            access: Access::new(config.password, config.users),
            pause: Pause::default(),
            scripts: Scripts::new(config.script_log),
            settings: Settings::default(),
            stats: Stats::default(),
            slowlog: Slowlog::default(),
            latency: LatencyEvents::default(),
            run_id: run_id(config.seed),
            host: RwLock::default(),
            notifications: Notifications::default(),
            limits: RwLock::default(),
            settings_version: AtomicU64::new(1),
            random: Mutex::new(Random::new(config.seed)),
            stale_marks: StaleMarks::default(),
            garbage: Mutex::default(),
            stores: Mutex::default(),
        });
        instance.set_output_limits(config.output_limits);
        let observer = Arc::new(Watch(Arc::downgrade(&instance)));
        let is_first = instance.databases.signals().observe(observer);
        debug_assert!(is_first, "an engine has one instance");
        instance
    }

    /// What has to be done from time to time, some ten times a second: removes expired keys of all databases, evicts
    /// what is above the bound of the memory, and frees large values.
    /// `budget` bounds the keys that are visited, and about those that are freed. Returns whether there is more to do at once.
    pub fn housekeeping(self: &Arc<Self>, now_us: u64, budget: u32) -> bool {
        let has_more_to_free = self.free_some(budget);
        let mut ran_out = self.settings.expires_actively.load(Ordering::Relaxed) && self.expire(now_us, budget);
        ran_out |= self.evict(now_us, budget);
        self.serve_ready(now_us);
        self.remove_stale_marks();
        let traffic = self.traffic();
        self.stats.note_start(now_us);
        self.stats.sample(now_us, traffic.input_bytes, traffic.output_bytes);
        ran_out || has_more_to_free
    }

    fn expire(&self, now_us: u64, budget: u32) -> bool {
        let began_ns = now_ns();
        let mut ran_out = false;
        for (_, engine) in self.databases.used() {
            ran_out |= engine.expire_cycle(now_us / 1_000, budget).ran_out;
        }
        self.note_event("expire-cycle", now_ns().saturating_sub(began_ns), now_us);
        ran_out
    }

    /// Goes on with what writers have left to be evicted.
    fn evict(&self, now_us: u64, budget: u32) -> bool {
        let began_ns = now_ns();
        let report = self.databases.first().evict_cycle(now_us / 1_000, budget);
        if report.evicted > 0 {
            self.note_event("eviction-cycle", now_ns().saturating_sub(began_ns), now_us);
        }
        report.ran_out
    }

    /// What is evicted, and how.
    pub(crate) fn eviction(&self) -> &Eviction {
        &self.databases.first().keyspace().context.memory.eviction
    }

    /// Looks for room for a command that writes, before it holds anything, and has it made if need be. Returns whether there is none.
    #[inline]
    pub(crate) fn lacks_memory(&self, make_room: impl FnOnce(&Engine) -> Room) -> bool {
        let engine = self.databases.first();
        match engine.room_at_once().unwrap_or_else(|| make_room(engine)) {
            Room::None => true,
            Room::Made => false,
            Room::Left => engine.keyspace().context.memory.is_full(),
        }
    }

    /// Ends all scripts that run at this moment, also those that have written something and so would do half of what they do: for when
    /// the server ends, and does not wait for them any longer. Their clients get an error.
    pub fn end_scripts(&self) {
        self.scripts.overseer.end_all();
    }

    /// How long a command waits for a segment that is held: while a script runs for long, only as long as others hold theirs, because
    /// this thread may have other connections to serve.
    pub(crate) fn patience(&self) -> Duration {
        if self.scripts.overseer.any_long() { PATIENCE_WHILE_LONG } else { PATIENCE }
    }

    /// Frees large values, and tables until they held `budget` keys together. Returns whether there are more.
    fn free_some(&self, budget: u32) -> bool {
        let garbage = std::mem::take(&mut *self.garbage.lock());
        drop(garbage);
        let mut freed = 0;
        while freed < budget as usize {
            // Freed here, where nobody waits for the list.
            let Some(store) = self.stores.lock().pop() else { return false };
            freed += store.len();
        }
        !self.stores.lock().is_empty()
    }

    /// Frees what commands have removed and left for later.
    pub(crate) fn free_garbage(&self) {
        let garbage = std::mem::take(&mut *self.garbage.lock());
        drop(garbage);
        let stores = std::mem::take(&mut *self.stores.lock());
        drop(stores);
    }

    /// What takes so long is noted as an event; 0: nothing is.
    pub(crate) fn latency_threshold_ms(&self) -> u64 {
        self.settings.latency_threshold_ms.load(Ordering::Relaxed)
    }

    /// Refuses writes while the journal cannot keep them.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<(), CommandError> {
        let outlet = &self.databases.first().keyspace().context.outlet;
        if outlet.is_attached() { self.check_journal() } else { Ok(()) }
    }

    fn check_journal(&self) -> Result<(), CommandError> {
        match self.databases.first().keyspace().context.outlet.refusal() {
            None => Ok(()),
            Some(reason) => Err(CommandError::not_writable(&reason)),
        }
    }

    /// The position of the log after all that has happened until now, see [`Engine::log_position`].
    #[must_use]
    pub fn log_position(&self) -> u64 {
        self.databases.first().log_position()
    }

    /// Whether clients may do everything without a password: then only those of this machine should be let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.access.is_open()
    }

    /// How much may wait for a connection that reads slowly, as it is set now.
    #[must_use]
    pub fn output_limits(&self) -> OutputLimits {
        self.peers.limits()
    }

    fn set_output_limits(&self, limits: OutputLimits) {
        /// Whoever enforces the limits need not look at less.
        const UNSUSPICIOUS_BYTES: u64 = 64 << 10;
        let bytes_max = match limits.normal.hard_bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes.max(UNSUSPICIOUS_BYTES)).unwrap_or(usize::MAX),
        };
        self.settings.reply_bytes_max.store(bytes_max, Ordering::Relaxed);
        self.peers.set_limits(limits);
    }

    /// Tells who runs the instance, in the place of whoever did before.
    pub fn set_host(&self, host: Arc<dyn Host>) {
        self.scripts.overseer.set_host(Arc::clone(&host));
        *self.host.write() = Some(host);
    }

    /// Asks whoever runs the instance, if anybody does.
    fn ask<R>(&self, question: impl FnOnce(&dyn Host) -> R) -> Option<R> {
        let host = self.host.read().clone();
        host.map(|host| question(&*host))
    }

    pub(crate) fn host_facts(&self) -> HostFacts {
        self.ask(|host| host.facts()).unwrap_or_default()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.ask(|host| host.usage()).unwrap_or_default()
    }

    /// What went over the network; without one, connections are those of the embedding application.
    pub(crate) fn traffic(&self) -> Traffic {
        let traffic = self.ask(|host| host.traffic()).flatten();
        traffic.unwrap_or_else(|| Traffic { connections_received: self.peers.total(), ..Traffic::default() })
    }

    /// Begins to end the server. Returns whether it will.
    pub(crate) fn shut_down(&self) -> bool {
        self.ask(|host| host.shut_down()).unwrap_or(false)
    }

    /// Asks whoever keeps the data on a disk, if anybody does.
    pub(crate) fn ask_keeper<R>(&self, question: impl FnOnce(&dyn Keeper) -> R) -> Option<R> {
        self.ask(|host| host.keeper().map(question)).flatten()
    }

    /// Where the data on the disk stand, if there are any.
    pub(crate) fn keeper_figures(&self) -> Option<KeeperFigures> {
        self.ask_keeper(|keeper| keeper.figures())
    }

    /// Tells whoever looks after the process.
    pub(crate) fn warn(&self, text: &str) {
        self.ask(|host| host.warn(text));
    }

    /// Begins the counts anew. `expired_total` keys have expired until now.
    pub(crate) fn reset_stats(&self, expired_total: u64) {
        self.stats.reset(expired_total, self.eviction().evicted_total());
    }

    /// The thresholds of encodings, with the version of the settings.
    pub(crate) fn limits(&self) -> (u64, Limits) {
        let version = self.settings_version();
        (version, *self.limits.read())
    }

    pub(crate) fn settings_version(&self) -> u64 {
        self.settings_version.load(Ordering::Acquire)
    }

    pub(crate) fn set_limits(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.limits.write());
        self.settings_version.fetch_add(1, Ordering::AcqRel);
    }

    fn next_seed(&self) -> u64 {
        self.random.lock().next_u64()
    }

    /// Lets housekeeping free tables with all they hold.
    pub(crate) fn free_later(&self, stores: Vec<Store>) {
        self.stores.lock().extend(stores);
    }

    /// Frees what a command has removed, later where that takes its time.
    #[inline]
    fn discard(&self, garbage: &mut Vec<Removed>) {
        if !garbage.is_empty() {
            self.discard_some(garbage);
        }
    }

    fn discard_some(&self, garbage: &mut Vec<Removed>) {
        /// What is freed on the spot: some tens of microseconds.
        const FREED_AT_ONCE_BYTES: u64 = 64 << 10;
        /// Room that a connection keeps for what it removes next.
        const KEPT: usize = 8;
        if garbage.iter().map(Removed::cost_bytes).sum::<u64>() > FREED_AT_ONCE_BYTES {
            self.garbage.lock().append(garbage);
        } else {
            garbage.clear();
        }
        garbage.shrink_to(KEPT);
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("databases", &self.databases.count()).finish_non_exhaustive()
    }
}

fn run_id(seed: u64) -> String {
    /// A multiple of four bits that 16 digits show.
    const WORDS: usize = 3;
    let mut random = Random::new(!seed);
    let digits: String = (0..WORDS).map(|_| format!("{:016x}", random.next_u64())).collect();
    digits[..40].to_owned()
}

/// Passes on what the engine tells, as long as the instance is there.
struct Watch(std::sync::Weak<Instance>);

impl Observer for Watch {
    fn event(&self, database: usize, class: EventClass, name: &str, key: &[u8]) {
        if let Some(instance) = self.0.upgrade() {
            instance.publish_event(database, class, name, key);
        }
    }

    fn keys_ready(&self, now_ms: u64) {
        if let Some(instance) = self.0.upgrade() {
            // The embedding application changed a key that a client waits for. By its time, not by that of the last command: what has
            // just been written with a deadline may seem to be over by then, if the clock was set back in between.
            instance.serve_ready(now_ms.saturating_mul(1_000));
        }
    }
}
