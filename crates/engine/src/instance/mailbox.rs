//! What connections see of each other: a number, a mailbox for messages, and a way to wake the connection up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

/// Called when something has arrived in a mailbox; must be quick, and may be called from any thread.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// All connections of an instance.
#[derive(Default)]
pub(crate) struct Peers {
    by_id: RwLock<HashMap<u64, Arc<Peer>>>,
    ids: AtomicU64,
    /// The time of the last command, in µs.
    last_us: AtomicU64,
}

/// A connection, as others see it.
pub(crate) struct Peer {
    pub(crate) id: u64,
    waker: Waker,
    /// Bytes that others have sent, in order.
    mailbox: Mutex<Vec<u8>>,
    /// Something is in the mailbox: looked at without its lock.
    has_mail: AtomicBool,
    /// The connection is to be closed.
    is_killed: AtomicBool,
}

impl Peers {
    pub(crate) fn join(&self, waker: Waker) -> Arc<Peer> {
        let peer = Arc::new(Peer {
            id: self.ids.fetch_add(1, Ordering::Relaxed) + 1,
            waker,
            mailbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
        });
        self.by_id.write().insert(peer.id, peer.clone());
        peer
    }

    pub(crate) fn leave(&self, id: u64) {
        self.by_id.write().remove(&id);
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Peer>> {
        self.by_id.read().get(&id).cloned()
    }

    /// All connections, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut all: Vec<_> = self.by_id.read().values().cloned().collect();
        all.sort_unstable_by_key(|peer| peer.id);
        all
    }

    pub(crate) fn note_time(&self, now_us: u64) {
        self.last_us.store(now_us, Ordering::Relaxed);
    }

    pub(crate) fn last_us(&self) -> u64 {
        self.last_us.load(Ordering::Relaxed)
    }
}

impl Peer {
    /// Puts encoded bytes into the mailbox and wakes the connection.
    pub(crate) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.mailbox.lock());
        self.has_mail.store(true, Ordering::Release);
        (self.waker)();
    }

    /// Moves what has arrived to `out`.
    pub(crate) fn receive(&self, out: &mut Vec<u8>) {
        if self.has_mail.load(Ordering::Acquire) {
            let mut mailbox = self.mailbox.lock();
            self.has_mail.store(false, Ordering::Release);
            out.append(&mut mailbox);
        }
    }

    pub(crate) fn wake(&self) {
        (self.waker)();
    }

    pub(crate) fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        (self.waker)();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}
