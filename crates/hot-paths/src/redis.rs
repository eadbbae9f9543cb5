//! The Redis driver: from the call to the bytes of the request, and from those of the reply to the value.
//!
//! Its server is an engine on a thread of its own, whose instructions do not count. What the kernel does for the sockets does not
//! count either; what the runtime does does.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig};
use acteon_state_core::{Get, Increment, LockRequest, Put, Scope, StateKey, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::meter::{KEYS, must, repeat_async, runtime, walk};
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "redis-get", run: get },
    Path { name: "redis-put-ttl", run: put_ttl },
    Path { name: "redis-increment", run: increment },
    Path { name: "redis-lock-and-release", run: lock_and_release },
];

/// The server's clock stands still, so nothing expires.
const NOW_US: u64 = 1_000_000_000_000;
const VALUE: Bytes = Bytes::from_static(&[b'x'; 64]);
const TTL: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(30);

fn get() -> Outcome {
    let Side { runtime, store, keys } = Side::start()?;
    runtime.block_on(async {
        for key in &keys {
            store.put(key, &Put::new(VALUE)).await?;
        }
        Ok::<_, acteon_state_core::Error>(())
    })?;
    repeat_async(&runtime, async |turn| {
        assert!(must(store.get(&keys[walk(turn) % keys.len()], Get::default()).await).is_some());
    });
    Ok(())
}

fn put_ttl() -> Outcome {
    let Side { runtime, store, keys } = Side::start()?;
    repeat_async(&runtime, async |turn| {
        let put = Put::new(VALUE).expires_after(TTL);
        assert!(must(store.put(&keys[walk(turn) % keys.len()], &put).await).is_applied());
    });
    Ok(())
}

fn increment() -> Outcome {
    let Side { runtime, store, keys } = Side::start()?;
    repeat_async(&runtime, async |turn| {
        must(store.increment(&keys[walk(turn) % keys.len()], Increment::by(1)).await);
    });
    Ok(())
}

fn lock_and_release() -> Outcome {
    let Side { runtime, store, keys } = Side::start()?;
    repeat_async(&runtime, async |turn| {
        let key = &keys[walk(turn) % keys.len()];
        let request = LockRequest::new(key.clone(), LEASE);
        must(store.lock_acquire(&request).await);
        must(store.lock_release(key, request.owner).await);
    });
    Ok(())
}

/// A driver that is connected, and the keys that are used.
struct Side {
    runtime: Runtime,
    store: Arc<dyn StateStore>,
    keys: Vec<StateKey>,
}

impl Side {
    fn start() -> Outcome<Self> {
        let (ready, address) = mpsc::channel();
        thread::spawn(move || serve(&ready));
        let url = format!("redis://{}", address.recv()??);
        let runtime = runtime()?;
        let config = RedisConfig { connections: 1, prefix: "bench".to_owned(), ..RedisConfig::from_url(&url)? };
        let store = runtime.block_on(RedisStore::connect(config))?;
        let scope = Scope::new("bench", "acme", "value")?;
        // Few: the server's memory is not what is looked at.
        let keys = (0..KEYS / 64).map(|at| scope.key(&format!("{at:012}"))).collect::<Result<_, _>>()?;
        Ok(Self { runtime, store: Arc::new(store), keys })
    }
}

/// Serves an engine until the process ends, and tells its address first.
fn serve(ready: &Sender<Outcome<std::net::SocketAddr>>) {
    let bound = runtime().and_then(|runtime| {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
        let server = runtime.block_on(EngineServer::bind(instance, config, Arc::new(|| NOW_US)))?;
        Ok((runtime, server))
    });
    match bound {
        Ok((runtime, server)) => {
            // Nobody listens any more only when the process is ending.
            let _ = ready.send(Ok(server.addresses()[0]));
            runtime.block_on(server.serve());
        }
        Err(error) => _ = ready.send(Err(error)),
    }
}
