//! From a configuration to listening sockets, and back to nothing.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Instance, NetworkSettings};
use acteon_engine_disk::Disk;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::admission::Admission;
use crate::config::{Limits, ListenConfig};
use crate::counters::Counters;
use crate::host::{self, ServerHost};
use crate::housekeeping;
use crate::listener::{Incoming, Listener, Origin, bind_tcp, bind_unix, tune};
use crate::session::Session;
use crate::tls;
use crate::wake::Wakes;

/// The time in µs, the same that everyone gives to the engine.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Pause after a connection could not be accepted, usually for want of file descriptors: to let some be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time beyond `drain_timeout` for connections to end by themselves.
const END_MARGIN: Duration = Duration::from_secs(1);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place}: {source}")]
pub struct BindError {
    place: String,
    source: io::Error,
}

impl BindError {
    /// What kind of obstacle it is.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// A server whose sockets listen. Connections are answered once it [serves](Self::serve).
pub struct EngineServer {
    pub(crate) shared: Arc<Shared>,
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
}

/// Ends a server. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Stopper(CancellationToken);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) instance: Arc<Instance>,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    /// Keeps what the engine holds, if anything does.
    pub(crate) disk: Option<Arc<Disk>>,
    pub(crate) wakes: Wakes,
    /// Whether a thread may be kept busy for long, because others take over its tasks.
    pub(crate) may_keep_thread: bool,
    sessions: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

impl EngineServer {
    /// Listens where `config` says. `clock` gives the time in µs; everyone who uses the same engine must take it from the same clock.
    ///
    /// # Errors
    /// [`BindError`] for the first place that cannot be had.
    pub async fn bind(instance: Arc<Instance>, config: ListenConfig, clock: Clock) -> Result<Self, BindError> {
        Self::bind_with_disk(instance, config, clock, None).await
    }

    /// The same for an engine whose changes `disk` keeps: nothing is acknowledged before it is kept as the disk's setting promises, and clients
    /// can ask for snapshots. The disk stays open when the server ends; whoever has opened it closes it.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with_disk(
        instance: Arc<Instance>,
        config: ListenConfig,
        clock: Clock,
        disk: Option<Arc<Disk>>,
    ) -> Result<Self, BindError> {
        let ListenConfig { tcp, tls, unix, is_open_to_all, limits } = config;
        let mut listeners = Vec::new();
        let addresses = listen(&mut listeners, &tcp, Listener::Tcp).await?;
        let mut tls_addresses = Vec::new();
        if let Some(config) = &tls {
            let place = || format!("{} with TLS", config.listen.join(", "));
            let acceptor = tls::acceptor(config).map_err(|source| BindError { place: place(), source })?;
            let with_tls = |listener| Listener::Tls(listener, TlsAcceptor::clone(&acceptor));
            tls_addresses = listen(&mut listeners, &config.listen, with_tls).await?;
        }
        if let Some(config) = &unix {
            let place = config.path.display().to_string();
            let (listener, file) = bind_unix(config).map_err(|source| BindError { place, source })?;
            listeners.push(Listener::Unix(listener, file));
        }
        let shared = Arc::new(Shared {
            instance,
            clock,
            limits,
            counters: Arc::default(),
            disk,
            wakes: Wakes::default(),
            may_keep_thread: Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread,
            sessions: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        let facts = host::facts(&addresses, &tls_addresses, unix.as_ref().map(|config| config.path.as_path()));
        let (counters, disk) = (Arc::clone(&shared.counters), shared.disk.clone());
        let host = ServerHost::new(facts, counters, shared.stopping.clone(), disk);
        shared.instance.set_host(Arc::new(host));
        shared.instance.set_network_settings(settings(&shared.limits, is_open_to_all));
        Ok(Self { shared, listeners, addresses, tls_addresses })
    }

    /// Where it listens without encryption, in the order of the configuration; with port 0 the port that was chosen.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens with encryption.
    #[must_use]
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// What ends it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.stopping.clone())
    }

    /// Answers connections until it is stopped, and then until all of them are closed, for little more than `drain_timeout`. Dropping
    /// this future stops it as well, without waiting for the connections.
    pub async fn serve(self) {
        let Self { shared, listeners, .. } = self;
        // Dropped at the end, by whatever way: connections must not outlive their server unnoticed.
        let _stop = StopOnDrop(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(listener, Arc::clone(&shared)));
        }
        let (instance, clock, disk) = (Arc::clone(&shared.instance), Arc::clone(&shared.clock), shared.disk.clone());
        tasks.spawn(housekeeping::keep(instance, clock, disk));
        shared.stopping.cancelled().await;
        tasks.shutdown().await;
        shared.wakes.stop();
        shared.sessions.close();
        if timeout(shared.limits.drain_timeout + END_MARGIN, shared.sessions.wait()).await.is_ok() {
            return;
        }
        // A script that runs and runs keeps its connection, and a thread, from ending.
        shared.instance.end_scripts();
        if timeout(END_MARGIN, shared.sessions.wait()).await.is_err() {
            warn!(connections = shared.sessions.len(), "connections of the engine did not end in time");
        }
    }
}

impl Stopper {
    /// Stops the server: see [`EngineServer::serve`].
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Waits until somebody stops the server, such as a client by `SHUTDOWN`.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }
}

impl Shared {
    fn tcp_keepalive(&self) -> Option<Duration> {
        let keepalive_s = self.instance.network_settings().tcp_keepalive_s;
        (keepalive_s > 0).then(|| Duration::from_secs(keepalive_s))
    }

    /// Whether connections of other machines are refused.
    pub(crate) fn is_protected(&self) -> bool {
        self.instance.network_settings().protected_mode && self.instance.is_open()
    }
}

impl fmt::Debug for EngineServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (addresses, tls_addresses) = (&self.addresses, &self.tls_addresses);
        f.debug_struct("EngineServer")
            .field("addresses", addresses)
            .field("tls_addresses", tls_addresses)
            .finish_non_exhaustive()
    }
}

/// What clients can change later.
fn settings(limits: &Limits, is_open_to_all: bool) -> NetworkSettings {
    NetworkSettings {
        clients_max: limits.clients_max as u64,
        idle_timeout_s: limits.idle_timeout.map_or(0, |time| time.as_secs().max(1)),
        tcp_keepalive_s: limits.tcp_keepalive.map_or(0, |time| time.as_secs().max(1)),
        bulk_bytes_max: limits.bulk_bytes_max as u64,
        query_buffer_bytes_max: limits.query_buffer_bytes_max as u64,
        protected_mode: !is_open_to_all,
    }
}

/// Tells all connections that the server has ended, and lets go of those that carry out scripts.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.wakes.stop();
        self.0.instance.end_scripts();
    }
}

async fn listen(
    listeners: &mut Vec<Listener>,
    places: &[String],
    make: impl Fn(tokio::net::TcpListener) -> Listener,
) -> Result<Vec<SocketAddr>, BindError> {
    let mut addresses = Vec::new();
    for place in places {
        let failed = |source| BindError { place: place.clone(), source };
        let listener = bind_tcp(place).await.map_err(failed)?;
        addresses.push(listener.local_addr().map_err(failed)?);
        listeners.push(make(listener));
    }
    Ok(addresses)
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok(incoming) => take(incoming, &shared),
            Err(error) => {
                warn!(%error, "a connection to the engine cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn take(incoming: Incoming, shared: &Arc<Shared>) {
    let admission = match Admission::request(shared, incoming.origin().is_local) {
        Ok(admission) => admission,
        Err(refusal) => {
            info!(peer = incoming.origin().peer_address, ?refusal, "a connection to the engine is refused");
            return incoming.refuse(refusal.text());
        }
    };
    let shared_by_task = Arc::clone(shared);
    match incoming {
        Incoming::Tcp(stream, origin) => {
            if let Err(error) = tune(&stream, shared.tcp_keepalive()) {
                debug!(%error, peer = origin.peer_address, "a connection to the engine was gone at once");
                return;
            }
            shared.sessions.spawn(Session::new(stream, origin, admission, shared_by_task).run());
        }
        Incoming::Unix(stream, origin) => {
            shared.sessions.spawn(Session::new(stream, origin, admission, shared_by_task).run());
        }
        Incoming::Tls(stream, acceptor, origin) => {
            shared.sessions.spawn(run_with_tls(stream, acceptor, origin, admission, shared_by_task));
        }
    }
}

/// Encrypts a connection before it begins. One that takes its time must not keep others waiting.
async fn run_with_tls(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    origin: Origin,
    admission: Admission,
    shared: Arc<Shared>,
) {
    let handshake = async {
        tune(&stream, shared.tcp_keepalive())?;
        timeout(shared.limits.handshake_timeout, acceptor.accept(stream)).await?
    };
    let stream = tokio::select! {
        stream = handshake => stream,
        () = shared.stopping.cancelled() => return,
    };
    match stream {
        Ok(stream) => Session::new(stream, origin, admission, shared).run().await,
        Err(error) => info!(%error, peer = origin.peer_address, "a TLS handshake with the engine failed"),
    }
}
