//! The contract, with one handle embedded and the other one through the protocol: values, counters, locks, due items and fences
//! that one of them writes are seen by the other.

mod published;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use acteon_state_conformance::Factory;
use acteon_state_core::{Result, StateStore};
use acteon_state_memory::MemoryStore;
use async_trait::async_trait;
use published::Published;

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

fn main() -> ExitCode {
    let started = Published::start().and_then(|published| {
        let embedded = published.embed()?;
        Ok(TwoWays { published, embedded, opened: Mutex::default() })
    });
    match started {
        Ok(two_ways) => acteon_state_conformance::main(two_ways),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
