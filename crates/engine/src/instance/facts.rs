//! What `CLIENT LIST` and others may know of a connection while it works.
//!
//! # How it works
//! The connection writes, anybody reads. Each number is right by itself; two of them need not belong to the same moment. Writing is a plain
//! store for each, so that a command does not become slower by being visible.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use acteon_resp::Protocol;
use parking_lot::Mutex;

use super::Session;
use super::access::DEFAULT_USER;
use super::client::ClientOptions;

/// What is known of a connection.
pub(crate) struct Facts {
    pub(crate) peer_address: String,
    pub(crate) local_address: String,
    pub(crate) is_unix: bool,
    pub(crate) descriptor: i64,
    pub(crate) connected_us: u64,
    /// Changes rarely.
    said: Mutex<Said>,
    /// When the last command came.
    used_us: AtomicU64,
    /// The number of the last command plus one; 0: there was none.
    command: AtomicUsize,
    database: AtomicUsize,
    protocol: AtomicU8,
    /// Commands queued since MULTI; -1: outside of a transaction.
    queued: AtomicI64,
    queued_bytes: AtomicUsize,
    channels: AtomicUsize,
    patterns: AtomicUsize,
    shard_channels: AtomicUsize,
    pub(crate) is_monitor: AtomicBool,
    pub(crate) is_blocked: AtomicBool,
    pub(crate) is_protected: AtomicBool,
    buffers: [AtomicU64; 4],
}

struct Said {
    name: Vec<u8>,
    user: Arc<str>,
    /// Whether a watched key has changed, while there are some.
    watch: Weak<AtomicBool>,
}

/// Bytes that the network layer keeps for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Of requests that were not carried out yet.
    pub input_bytes: u64,
    /// Room for more of them.
    pub input_free_bytes: u64,
    /// Of replies that the other end did not take yet.
    pub output_bytes: u64,
    /// Room for replies, taken or not.
    pub output_capacity_bytes: u64,
}

impl Buffers {
    /// All of them together.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.input_bytes + self.input_free_bytes + self.output_capacity_bytes
    }
}

impl Facts {
    pub(crate) fn new(options: ClientOptions) -> Self {
        Self {
            peer_address: options.peer_address,
            local_address: options.local_address,
            is_unix: options.is_unix,
            descriptor: options.descriptor,
            connected_us: options.connected_us,
            said: Mutex::new(Said { name: Vec::new(), user: Arc::from(DEFAULT_USER), watch: Weak::new() }),
            used_us: AtomicU64::new(options.connected_us),
            command: AtomicUsize::new(0),
            database: AtomicUsize::new(0),
            protocol: AtomicU8::new(2),
            queued: AtomicI64::new(-1),
            queued_bytes: AtomicUsize::new(0),
            channels: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            shard_channels: AtomicUsize::new(0),
            is_monitor: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            is_protected: AtomicBool::new(false),
            buffers: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// A command begins.
    #[inline]
    pub(crate) fn note_command(&self, number: usize, now_us: u64) {
        self.command.store(number + 1, Ordering::Relaxed);
        self.used_us.store(now_us, Ordering::Relaxed);
    }

    /// A command is over.
    #[inline]
    pub(crate) fn note_session(&self, session: &Session) {
        self.database.store(session.database, Ordering::Relaxed);
        self.note_protocol(session.protocol);
        let (queued, queued_bytes) = match &session.transaction {
            Some(transaction) => (i64::try_from(transaction.queue.len()).unwrap_or(i64::MAX), transaction.queued_bytes),
            None => (-1, 0),
        };
        self.queued.store(queued, Ordering::Relaxed);
        self.queued_bytes.store(queued_bytes, Ordering::Relaxed);
    }

    /// Messages are encoded in this protocol from now on.
    #[inline]
    pub(crate) fn note_protocol(&self, protocol: Protocol) {
        self.protocol.store(if protocol == Protocol::Resp3 { 3 } else { 2 }, Ordering::Relaxed);
    }

    pub(crate) fn protocol(&self) -> Protocol {
        if self.protocol.load(Ordering::Relaxed) == 3 { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// The numbers of channels, patterns and shard channels.
    pub(crate) fn note_subscriptions(&self, [channels, patterns, shard_channels]: [usize; 3]) {
        self.channels.store(channels, Ordering::Relaxed);
        self.patterns.store(patterns, Ordering::Relaxed);
        self.shard_channels.store(shard_channels, Ordering::Relaxed);
    }

    pub(crate) fn note_buffers(&self, buffers: Buffers) {
        let Buffers { input_bytes, input_free_bytes, output_bytes, output_capacity_bytes } = buffers;
        let numbers = [input_bytes, input_free_bytes, output_bytes, output_capacity_bytes];
        self.buffers.iter().zip(numbers).for_each(|(to, number)| to.store(number, Ordering::Relaxed));
    }

    /// The connection watches keys; `is_dirty` tells whether one has changed.
    pub(crate) fn note_watch(&self, is_dirty: &Arc<AtomicBool>) {
        self.said.lock().watch = Arc::downgrade(is_dirty);
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        self.said.lock().name.clone()
    }

    pub(crate) fn set_name(&self, name: &[u8]) {
        self.said.lock().name = name.to_vec();
    }

    pub(crate) fn user(&self) -> Arc<str> {
        self.said.lock().user.clone()
    }

    pub(crate) fn set_user(&self, user: Arc<str>) {
        self.said.lock().user = user;
    }

    /// Whether the connection gets messages.
    pub(crate) fn is_subscriber(&self) -> bool {
        [&self.channels, &self.patterns, &self.shard_channels].iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// All at once, for a line of `CLIENT LIST`.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let said = self.said.lock();
        let [input_bytes, input_free_bytes, output_bytes, output_capacity_bytes] =
            [0, 1, 2, 3].map(|at| self.buffers[at].load(Ordering::Relaxed));
        Snapshot {
            name: said.name.clone(),
            user: said.user.clone(),
            is_dirty: said.watch.upgrade().is_some_and(|is_dirty| is_dirty.load(Ordering::Acquire)),
            used_us: self.used_us.load(Ordering::Relaxed),
            command: self.command.load(Ordering::Relaxed).checked_sub(1),
            database: self.database.load(Ordering::Relaxed),
            protocol: self.protocol.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            queued_bytes: self.queued_bytes.load(Ordering::Relaxed),
            channels: self.channels.load(Ordering::Relaxed),
            patterns: self.patterns.load(Ordering::Relaxed),
            shard_channels: self.shard_channels.load(Ordering::Relaxed),
            buffers: Buffers { input_bytes, input_free_bytes, output_bytes, output_capacity_bytes },
        }
    }
}

/// What changes about a connection, at about one moment.
pub(crate) struct Snapshot {
    pub(crate) name: Vec<u8>,
    pub(crate) user: Arc<str>,
    pub(crate) is_dirty: bool,
    pub(crate) used_us: u64,
    /// The number of the last command.
    pub(crate) command: Option<usize>,
    pub(crate) database: usize,
    pub(crate) protocol: u8,
    pub(crate) queued: i64,
    pub(crate) queued_bytes: usize,
    pub(crate) channels: usize,
    pub(crate) patterns: usize,
    pub(crate) shard_channels: usize,
    pub(crate) buffers: Buffers,
}
