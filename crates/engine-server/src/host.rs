//! What the instance asks its server: where it listens, what went over the network, and to end.

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use acteon_engine::{Host, HostFacts, Traffic, Usage};
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::usage;

/// The server, as the instance sees it.
pub(crate) struct ServerHost {
    facts: HostFacts,
    counters: Arc<Counters>,
    stopping: CancellationToken,
}

impl ServerHost {
    pub(crate) fn new(facts: HostFacts, counters: Arc<Counters>, stopping: CancellationToken) -> Self {
        Self { facts, counters, stopping }
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

    fn shut_down(&self) -> bool {
        self.stopping.cancel();
        true
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
        let host = ServerHost::new(HostFacts::default(), server.counters(), stopping);
        assert!(host.shut_down());
        server.serve().await;
    }
}
