//! An engine that is embedded here and published to other nodes: what an application copies.

use std::net::SocketAddr;
use std::sync::Arc;

use acteon_engine::{Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig, Stopper};
use acteon_state::State;
use acteon_state::core::clock::{Clock, SeededClock};
use acteon_state::core::key::Companion;
use acteon_state::memory::{MemoryConfig, MemoryStore};
use tokio::task::JoinHandle;

use crate::Failure;

/// An engine that any Redis client can use.
pub(crate) struct Published {
    /// The embedded handle: typed calls in this process, without a network in between.
    pub(crate) state: State,
    pub(crate) address: SocketAddr,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl Published {
    /// Publishes an empty engine, whose keys begin with `prefix`, on `address`. Port 0 chooses a free one.
    pub(crate) async fn start(prefix: &str, address: &str) -> Result<Self, Failure> {
        let clock = Arc::new(SeededClock::new());
        let config = MemoryConfig { prefix: prefix.to_owned(), ..MemoryConfig::default() };
        let store = MemoryStore::open_with_clock(&config, clock.clone())?;
        let instance = Instance::new(store.engine().clone(), InstanceConfig::default());
        share_locks(&store, &instance);
        // Without a password only this machine is let in. `InstanceConfig` takes one, `ListenConfig` certificates.
        let listen = ListenConfig { tcp: vec![address.to_owned()], ..ListenConfig::default() };
        // The store and its clients must agree on what has expired, so they take the time from one clock.
        let server = EngineServer::bind(instance, listen, Arc::new(move || clock.now_us())).await?;
        let (address, stopper) = (server.addresses()[0], server.stopper());
        Ok(Self { state: State::new(Arc::new(store)), address, stopper, serving: tokio::spawn(server.serve()) })
    }

    /// Ends it: clients are answered, then disconnected.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.stopper.stop();
        self.serving.await?;
        self.state.close().await?;
        Ok(())
    }
}

/// Lets those who wait for a lock on either side hear at once when it is released on the other one.
fn share_locks(store: &MemoryStore, instance: &Arc<Instance>) {
    let publisher = Arc::downgrade(instance); // the instance holds the store, so the store must not hold the instance
    store.on_lock_change(move |record| {
        if let Some(instance) = publisher.upgrade() {
            instance.publish(record, b"");
        }
    });
    let waiting = store.clone();
    let is_lock = |channel: &[u8]| channel.ends_with(Companion::Lock.suffix().as_bytes());
    instance.on_message(is_lock, move |channel| waiting.lock_changed(channel));
}
