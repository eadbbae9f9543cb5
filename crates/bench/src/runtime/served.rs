//! The engine's server on a runtime of one kind, in a process of its own: this program again, with other arguments.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{Clock, EngineServer, ListenConfig};
use acteon_state_core::clock::{Clock as _, SeededClock};
use acteon_test_support::supervised;
use tokio::runtime::{Builder, Runtime};

use crate::{Outcome, machine};

/// The arguments that make this program a server; its kind follows.
const ARGUMENTS: [&str; 2] = ["runtime-server", "--only"];
/// What the line with the ports begins with.
const PORTS_MARK: &str = "engine on ports ";

/// What the threads of a server run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavor {
    /// One runtime, which moves tasks between its threads.
    MultiThread,
    /// Each a runtime and a listener of its own.
    CurrentThread,
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) flavor: Flavor,
    pub(super) threads: usize,
}

/// A running server; it ends when this is dropped.
pub(super) struct Served {
    pub(super) kind: Kind,
    /// One, or one for each runtime.
    pub(super) ports: Vec<u16>,
    process: Child,
}

impl Kind {
    fn name(self) -> String {
        let flavor = match self.flavor {
            Flavor::MultiThread => "multi-thread",
            Flavor::CurrentThread => "current-thread",
        };
        format!("{flavor} {}", self.threads)
    }

    fn named(name: &str) -> Option<Self> {
        let (flavor, threads) = name.split_once(' ')?;
        let flavor = match flavor {
            "multi-thread" => Flavor::MultiThread,
            "current-thread" => Flavor::CurrentThread,
            _ => return None,
        };
        Some(Self { flavor, threads: threads.parse().ok().filter(|threads| *threads > 0)? })
    }
}

impl Served {
    pub(super) fn start(kind: Kind) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(ARGUMENTS).arg(kind.name()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut served = Self { kind, ports: Vec::new(), process: supervised(command)? };
        let output = served.process.stdout.take().ok_or("the server has no output")?;
        for line in BufReader::new(output).lines() {
            if let Some(ports) = line?.strip_prefix(PORTS_MARK) {
                served.ports = ports.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                return Ok(served);
            }
        }
        Err("the server ended before it said where it is".into())
    }

    /// Processor time so far, of all threads.
    pub(super) fn cpu_time(&self) -> Outcome<Duration> {
        machine::cpu_time(&self.process.id().to_string()).ok_or_else(|| "the server's processor time is unknown".into())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Neither fails while it runs; if it has ended already, nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is a server of this kind, until the input ends.
///
/// # Errors
/// There is no such kind, or it cannot be started.
pub fn serve(kind: &str) -> Outcome {
    let kind = Kind::named(kind).ok_or_else(|| format!("there is no runtime {kind:?}"))?;
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let time = SeededClock::new();
    let clock: Clock = Arc::new(move || time.now_us());
    let mut ports = Vec::new();
    // Until the end of this: with its runtime a server would end.
    let mut shared = None;
    match kind.flavor {
        Flavor::MultiThread => {
            let runtime = Builder::new_multi_thread().worker_threads(kind.threads).enable_all().build()?;
            let server = bind(&runtime, instance, clock, &mut ports)?;
            runtime.spawn(server.serve());
            shared = Some(runtime);
        }
        Flavor::CurrentThread => {
            for _ in 0..kind.threads {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let server = bind(&runtime, Arc::clone(&instance), Arc::clone(&clock), &mut ports)?;
                thread::spawn(move || runtime.block_on(server.serve()));
            }
        }
    }
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    println!("{PORTS_MARK}{}", ports.join(" "));
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(shared);
    Ok(())
}

fn bind(runtime: &Runtime, instance: Arc<Instance>, clock: Clock, ports: &mut Vec<u16>) -> Outcome<EngineServer> {
    let config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
    let server = runtime.block_on(EngineServer::bind(instance, config, clock))?;
    ports.extend(server.addresses().iter().map(std::net::SocketAddr::port));
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::{Flavor, Kind};

    #[test]
    fn a_kind_is_known_by_its_name() {
        for flavor in [Flavor::MultiThread, Flavor::CurrentThread] {
            let kind = Kind { flavor, threads: 2 };
            assert_eq!(Kind::named(&kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("current-thread 0"), None);
        assert_eq!(Kind::named("green 1"), None);
    }
}
