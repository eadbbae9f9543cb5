//! The native engine behind the protocol of Redis. It keeps nothing over a crash, and says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use acteon_test_support::{FakeClock, supervised};
use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};

use crate::clients::{program, require_faketime};
use crate::network::{self, Way};
use crate::row::{self, Backend, Fault, Harm};

const PROGRAM: &str = env!("CARGO_BIN_EXE_acteon-faults-engine");
const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

const KILLED: Fault = Fault::new("kill -9 of the server", Harm::Crash);
const FROZEN: Fault = Fault::new("a frozen server", Harm::Delay);
/// The engine looks at the wall clock when it starts and goes on by a monotonic one: nobody may notice.
const CLOCK_SET: Fault = Fault::new("the server's wall clock set forward and back", Harm::Delay);

/// By how much.
const CLOCK_STEP_MS: i64 = 3_600_000;

struct Engine {
    server: Child,
    clock: FakeClock,
    address: SocketAddr,
    way: Way,
}

impl Engine {
    async fn start() -> io::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let clock = FakeClock::new().map_err(io::Error::other)?;
        Ok(Self { server: serve(address, &clock).await?, clock, address, way: Way::to(address).await? })
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or_else(|| io::Error::other("no process id"))?, signal)?)
    }
}

/// Starts the server, and returns once it answers.
async fn serve(address: SocketAddr, clock: &FakeClock) -> io::Result<Child> {
    let mut command = clock.supervised_command(program(PROGRAM));
    command.arg(address.port().to_string()).stdin(Stdio::null());
    let mut server = supervised(command)?;
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begin.elapsed() > START_TIMEOUT || server.try_wait()?.is_some() {
            return Err(io::Error::other("the engine does not come up"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(server)
}

#[async_trait]
impl Backend for Engine {
    fn name(&self) -> &'static str {
        "engine over the protocol"
    }

    fn config(&self) -> String {
        format!("[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\n", self.way.port())
    }

    fn faults(&self) -> Vec<Fault> {
        [KILLED, FROZEN, CLOCK_SET].into_iter().chain(network::FAULTS).collect()
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        match *fault {
            KILLED => {
                self.server.kill()?;
                self.server.wait()?;
                tokio::time::sleep(lasting).await;
                self.server = serve(self.address, &self.clock).await?;
                Ok(())
            }
            FROZEN => {
                self.signal(Signal::STOP)?;
                tokio::time::sleep(lasting).await;
                self.signal(Signal::CONT)
            }
            CLOCK_SET => {
                require_faketime(self.server.id())?;
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

impl Drop for Engine {
    fn drop(&mut self) {
        // There is nobody to report an error to.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_engine_keeps_what_it_declares() {
    row::run(&mut Engine::start().await.unwrap()).await;
}
