//! The server of one case: an empty engine on a free port.

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig, Stopper};
use acteon_state_core::clock::{Clock, SeededClock};
use libtest_mimic::Failed;

/// Serves until it is dropped.
pub(crate) struct Served {
    address: SocketAddr,
    /// `None` where the server is not ours.
    stopper: Option<Stopper>,
}

/// Names the server to use instead of one that is started here.
const URL_ENV: &str = "ACTEON_ENGINE_URL";

/// Whether all cases meet the same server.
pub(crate) fn is_shared() -> bool {
    env::var_os(URL_ENV).is_some()
}

impl Served {
    /// # Errors
    /// Nothing can be listened on, or the given server is not there.
    pub(crate) fn start() -> Result<Self, Failed> {
        if let Ok(url) = env::var(URL_ENV) {
            let given = Self { address: given_address(&url)?, stopper: None };
            redis::cmd("FLUSHALL").exec(&mut redis::Client::open(given.url())?.get_connection()?)?;
            return Ok(given);
        }
        let (bound, outcome) = mpsc::channel();
        thread::spawn(move || serve(&bound));
        let (address, stopper) = outcome.recv()??;
        Ok(Self { address, stopper: Some(stopper) })
    }

    /// As clients are given it in two arguments.
    pub(crate) fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// The other one of the two.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// As clients are given it in one argument.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stopper) = &self.stopper {
            stopper.stop();
        }
    }
}

fn given_address(url: &str) -> Result<SocketAddr, Failed> {
    let authority = url.strip_prefix("redis://").ok_or_else(|| format!("{URL_ENV} is not redis://HOST:PORT: {url}"))?;
    let address = authority.trim_end_matches('/').to_socket_addrs()?.next();
    address.ok_or_else(|| format!("{authority} has no address").into())
}

type Bound = mpsc::Sender<Result<(SocketAddr, Stopper), String>>;

/// Two threads serve, so that commands of different clients do run at the same time.
fn serve(bound: &Bound) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return bound.send(Err(error.to_string())).unwrap_or(()),
    };
    runtime.block_on(async {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
        let clock = SeededClock::new();
        match EngineServer::bind(instance, config, Arc::new(move || clock.now_us())).await {
            Ok(server) => {
                let address = server.addresses()[0];
                bound.send(Ok((address, server.stopper()))).unwrap_or(());
                server.serve().await;
            }
            Err(error) => bound.send(Err(error.to_string())).unwrap_or(()),
        }
    });
}
