//! What an instance cannot know or do by itself: where it listens, what its process uses, what is on a disk, and ending it.

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

    /// Whoever keeps the data on a disk; `None`: they are in memory only.
    fn keeper(&self) -> Option<&dyn Keeper> {
        None
    }

    /// Something that whoever looks after the process should know, for its log.
    fn warn(&self, _text: &str) {}
}

/// Keeps the data of an instance: a journal of its changes, and snapshots.
pub trait Keeper: Send + Sync {
    /// Where it stands.
    fn figures(&self) -> KeeperFigures;

    /// Writes a snapshot, and waits for its end. Nothing of the instance may be held.
    ///
    /// # Errors
    /// Why there is none.
    fn save(&self) -> Result<(), String>;

    /// Begins a snapshot in the background. Returns whether it did: not while there is one already.
    fn start_save(&self) -> bool;

    /// Begins to rewrite the journal in the background. Returns whether it did: not while it is under way already.
    fn start_rewrite(&self) -> bool;

    /// Chooses when changes have to be on the disk.
    ///
    /// # Errors
    /// Why it stays as it is: it is less than whoever has opened the disk relies on, for example.
    fn set_sync(&self, sync: SyncPolicy) -> Result<(), String>;
}

/// When changes have to be on the disk, as `appendfsync` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before they are acknowledged.
    Always,
    /// Once in a second.
    #[default]
    EverySecond,
    /// When the operating system likes.
    No,
}

/// Where a keeper stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperFigures {
    /// The directory.
    pub directory: PathBuf,
    /// When changes have to be on the disk.
    pub sync: SyncPolicy,
    /// Why writes are refused, if they are.
    pub refusal: Option<String>,
    /// All files of the journal, with the snapshot that they begin with.
    pub journal_bytes: u64,
    /// That snapshot.
    pub base_bytes: u64,
    /// What waits to be written.
    pub pending_bytes: u64,
    /// What was written and not synced yet, in groups of changes.
    pub pending_syncs: u64,
    /// In percent of that snapshot: the growth after which the journal is rewritten; 0: never by itself.
    pub rewrite_growth_percent: u64,
    /// Below this it is not.
    pub rewrite_bytes_min: u64,
    /// When a snapshot is written by itself: seconds, and changes.
    pub save_points: Vec<(u64, u64)>,
    /// Groups of changes since the last snapshot.
    pub changes_since_save: u64,
    /// When the last snapshot was written, or the data were loaded, in seconds since 1970.
    pub last_save_s: u64,
    /// Snapshots.
    pub save: KeeperJob,
    /// Rewriting of the journal.
    pub rewrite: KeeperJob,
}

/// Where something in the background stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeeperJob {
    /// It runs.
    pub is_running: bool,
    /// It runs next.
    pub is_scheduled: bool,
    /// How often it has ended.
    pub ended: u64,
    /// The last one has failed.
    pub has_failed: bool,
    /// How long the last one took, in seconds.
    pub last_s: u64,
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
