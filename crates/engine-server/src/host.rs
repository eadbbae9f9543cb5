//! What the instance asks its server: where it listens, what went over the network, and to end.

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use acteon_engine::{Host, HostFacts, Keeper, Traffic, Usage};
use acteon_engine_disk::Disk;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::counters::Counters;
use crate::keeper::DiskKeeper;
use crate::usage;

/// The part of its time that a long script waits for another thread to take over what its own one leaves. Mostly the first pause, of a
/// millisecond, is long enough; on a machine with more to do than processors it takes one of the next.
const HAND_OVER_PART: u32 = 10;
const HAND_OVER_PAUSE_MAX: Duration = Duration::from_millis(50);

/// The server, as the instance sees it.
pub(crate) struct ServerHost {
    facts: HostFacts,
    counters: Arc<Counters>,
    stopping: CancellationToken,
    keeper: Option<DiskKeeper>,
}

impl ServerHost {
    pub(crate) fn new(
        facts: HostFacts,
        counters: Arc<Counters>,
        stopping: CancellationToken,
        disk: Option<Arc<Disk>>,
    ) -> Self {
        Self { facts, counters, stopping, keeper: disk.map(DiskKeeper) }
    }
}

impl Host for ServerHost {
    fn facts(&self) -> HostFacts {
        self.facts.clone()
    }

    fn usage(&self) -> Usage {
        usage::now()
    }

    fn traffic(&self) -> Option<Traffic> {
        let totals = self.counters.totals();
        Some(Traffic {
            connections_received: totals.received,
            connections_rejected: totals.rejected,
            input_bytes: totals.input_bytes,
            output_bytes: totals.output_bytes,
            output_limit_disconnections: totals.output_limit_disconnections,
            query_limit_disconnections: totals.query_limit_disconnections,
        })
    }

    // A worker of the runtime that is kept busy may be the one that looks after all sockets: nobody would be heard, not even SCRIPT KILL. What
    // a worker has to do passes to another thread while it blocks; by the time it goes on with the script, it is one no longer.
    fn keep_thread(&self, so_far: Duration) {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
            block_in_place(|| thread::sleep((so_far / HAND_OVER_PART).min(HAND_OVER_PAUSE_MAX)));
        }
    }

    fn shut_down(&self) -> bool {
        self.stopping.cancel();
        true
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        self.keeper.as_ref().map(|keeper| keeper as &dyn Keeper)
    }

    fn warn(&self, text: &str) {
        warn!("{text}");
    }
}

/// Where a server listens and runs. What the system does not tell is left out.
pub(crate) fn facts(addresses: &[SocketAddr], tls_addresses: &[SocketAddr], unix_socket: Option<&Path>) -> HostFacts {
    let port = |addresses: &[SocketAddr]| addresses.first().map_or(0, SocketAddr::port);
    let mut bind: Vec<String> = addresses.iter().chain(tls_addresses).map(|address| address.ip().to_string()).collect();
    bind.dedup();
    HostFacts {
        port: port(addresses),
        tls_port: port(tls_addresses),
        bind: bind.join(" "),
        unix_socket: unix_socket.map(|path| path.display().to_string()).unwrap_or_default(),
        directory: env::current_dir().unwrap_or_default(),
        executable: env::current_exe().unwrap_or_default(),
        process_id: std::process::id(),
        os: usage::os(),
        ..HostFacts::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use acteon_engine::{Engine, EngineConfig, Host, HostFacts, Instance, InstanceConfig};

    use super::ServerHost;
    use crate::config::ListenConfig;
    use crate::server::EngineServer;

    #[tokio::test]
    async fn who_asks_it_to_end_ends_the_server() {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let server =
            EngineServer::bind(instance, ListenConfig::default(), Arc::new(|| 1)).await.expect("nothing to bind");
        let stopping = server.shared.stopping.clone();
        let host = ServerHost::new(HostFacts::default(), server.counters(), stopping, None);
        assert!(host.shut_down());
        server.serve().await;
    }
}
