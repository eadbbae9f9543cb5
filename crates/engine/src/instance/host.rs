//! What an instance cannot know or do by itself: where it listens, what its process uses, and ending it.

use std::path::PathBuf;
use std::time::Duration;

/// Whoever runs an instance. What is left out is reported as unknown: empty or zero.
pub trait Host: Send + Sync {
    /// Where it listens and runs. Does not change.
    fn facts(&self) -> HostFacts {
        HostFacts::default()
    }

    /// What the process uses now.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// What went over the network until now; `None` if there is no network.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// The calling thread has been carrying out a script for some milliseconds, and may do so for much longer: whoever has other work for
    /// the thread gives that to another one now. Called again whenever the time has doubled.
    fn keep_thread(&self, _so_far: Duration) {}

    /// Begins to end the server, because a client says `SHUTDOWN`. Returns whether it will end.
    fn shut_down(&self) -> bool {
        false
    }

    /// Something that whoever looks after the process should know, for its log.
    fn warn(&self, _text: &str) {}
}

/// Where an instance listens and runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The port for TCP; 0: none.
    pub port: u16,
    /// The port for TLS; 0: none.
    pub tls_port: u16,
    /// The addresses, separated by spaces.
    pub bind: String,
    /// The path of the socket in the file system; empty: none.
    pub unix_socket: String,
    /// The directory that the process works in.
    pub directory: PathBuf,
    /// The program.
    pub executable: PathBuf,
    /// Its configuration.
    pub config_file: PathBuf,
    /// The number of the process.
    pub process_id: u32,
    /// The operating system, in the words of `uname`: system, release, machine.
    pub os: String,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory of the process that is in RAM.
    pub resident_bytes: u64,
    /// RAM of the machine.
    pub machine_bytes: u64,
    /// Time in the kernel.
    pub cpu_system_us: u64,
    /// Time in the program.
    pub cpu_user_us: u64,
}

/// What went over the network, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were taken.
    pub connections_received: u64,
    /// Connections that were turned away.
    pub connections_rejected: u64,
    /// Bytes from clients.
    pub input_bytes: u64,
    /// Bytes to clients.
    pub output_bytes: u64,
    /// Clients that were disconnected because they did not read.
    pub output_limit_disconnections: u64,
    /// Clients that were disconnected because of a request that was too long.
    pub query_limit_disconnections: u64,
}
