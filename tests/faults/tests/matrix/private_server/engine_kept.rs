//! The native engine as the program that users run, with a directory in which each write is synced before it is acknowledged. It keeps everything over a crash.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use acteon_test_support::{EngineOptions, EngineServer, FakeClock};
use async_trait::async_trait;

use crate::clients::require_faketime;
use crate::network::{self, Way};
use crate::row::{self, Backend, Fault, Harm, Losses, Traits, open};

const KILLED: Fault = Fault::new("kill -9 of the server", Harm::Crash);
/// Once more while it reads what it has kept.
const KILLED_TWICE: Fault = Fault::new("kill -9 of the server, and again while it loads", Harm::Crash);
const FROZEN: Fault = Fault::new("a frozen server", Harm::Delay);
/// It looks at the wall clock when it starts and goes on by a monotonic one: nobody may notice.
const CLOCK_SET: Fault = Fault::new("the server's wall clock set forward and back", Harm::Delay);
const FAULTS: [Fault; 4] = [KILLED, KILLED_TWICE, FROZEN, CLOCK_SET];

/// By how much.
const CLOCK_STEP_MS: i64 = 3_600_000;
/// When a server that was started is killed again: it needs about as long to begin to listen.
const LOADING: Duration = Duration::from_millis(30);

struct Engine {
    server: EngineServer,
    clock: Arc<FakeClock>,
    way: Way,
}

#[async_trait]
impl Backend for Engine {
    fn name(&self) -> &'static str {
        "engine with a directory"
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\n", self.way.port())
    }

    fn faults(&self) -> Vec<Fault> {
        FAULTS.into_iter().chain(network::FAULTS).collect()
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        match *fault {
            KILLED | KILLED_TWICE => {
                self.server.kill9()?;
                tokio::time::sleep(lasting).await;
                if *fault == KILLED_TWICE {
                    self.server.begin_restart().map_err(io::Error::other)?;
                    tokio::time::sleep(LOADING).await;
                }
                self.server.restart().map_err(io::Error::other)
            }
            FROZEN => {
                self.server.pause()?;
                tokio::time::sleep(lasting).await;
                self.server.resume()
            }
            CLOCK_SET => {
                require_faketime(self.server.process_id()?)?;
                for offset_ms in [CLOCK_STEP_MS, -CLOCK_STEP_MS, 0] {
                    self.clock.set(offset_ms)?;
                    tokio::time::sleep(lasting / 3).await;
                }
                Ok(())
            }
            _ => {
                assert!(self.way.strike(fault, lasting).await, "{} is not known here", fault.name);
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_engine_with_a_directory_keeps_what_it_declares() {
    let clock = Arc::new(FakeClock::new().unwrap_or_else(|error| panic!("{error}")));
    let settings = vec!["fsync = \"always\"".to_owned(), "rewrite_min = \"64KiB\"".to_owned()];
    let options = EngineOptions { settings, clock: Some(clock.clone()), ..EngineOptions::default() };
    let server = EngineServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    let way = Way::to(server.address()).await.unwrap();
    let mut engine = Engine { server, clock, way };
    let state = open(&engine.config()).await.unwrap();
    // A row in which everything may be lost would prove nothing.
    assert_eq!(Losses::of(&state, Traits::default(), Harm::Crash), Losses::default(), "every write is synced");
    state.close().await.unwrap();
    row::run(&mut engine).await;
}
