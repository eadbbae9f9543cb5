//! The contract, with one handle embedded and the other one through the protocol: values, counters, locks, due items and fences
//! that one of them writes are seen by the other.

mod published;

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_state_conformance::Factory;
use acteon_state_core::clock::SeededClock;
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::{MemoryConfig, MemoryStore};
use async_trait::async_trait;
use published::Published;

/// How the record of a lock is named: waiters listen on the channel of that name.
const LOCK_SUFFIX: &[u8] = b"}:lock";

#[derive(Debug)]
struct TwoWays {
    published: Published,
    embedded: MemoryStore,
    /// How many handles were opened for each prefix.
    opened: Mutex<HashMap<String, usize>>,
}

#[async_trait]
impl Factory for TwoWays {
    /// By turns. The first handle, whose capabilities count, is the one that declares less: that of the Redis driver.
    async fn open(&self, prefix: &str) -> Result<Arc<dyn StateStore>> {
        let turn = {
            let mut opened = self.opened.lock().expect("no test panics while it opens a handle");
            let turn = opened.entry(prefix.to_owned()).or_default();
            *turn += 1;
            *turn
        };
        if turn.is_multiple_of(2) {
            return Ok(Arc::new(self.embedded.with_prefix(prefix)?));
        }
        self.published.connect(prefix).await
    }

    fn is_one_driver(&self) -> bool {
        false
    }

    /// The engine ends with the process.
    async fn clean(&self, _prefix: &str) -> Result<()> {
        Ok(())
    }
}

impl TwoWays {
    /// One engine, embedded and published. There is one embedded store; further handles come from it.
    fn start() -> std::result::Result<Self, Box<dyn Error>> {
        let engine = Engine::new(EngineConfig::default());
        let instance = Instance::new(engine.clone(), InstanceConfig::default());
        let clock = Arc::new(SeededClock::new());
        let embedded = MemoryStore::over(engine, &MemoryConfig::default(), clock.clone())?;
        let (told, waiting) = (instance.clone(), embedded.clone());
        embedded.on_lock_change(move |record| _ = told.publish(record, b""));
        instance.on_message(|channel| channel.ends_with(LOCK_SUFFIX), move |channel| waiting.lock_changed(channel));
        Ok(Self { published: Published::start(instance, clock)?, embedded, opened: Mutex::default() })
    }
}

fn main() -> ExitCode {
    match TwoWays::start() {
        Ok(two_ways) => acteon_state_conformance::main(two_ways),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
