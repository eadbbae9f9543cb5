//! What connections see of each other: a number, a mailbox for messages, and a way to wake the connection up.
//!
//! # Guarantees
//! Mail arrives in the order in which it was sent. A mailbox is bounded: a connection that does not fetch its mail is disconnected.
//!
//! What is sent while the sender holds keys is there for the receiver once the sender's changes were handed to the log, if there is one; what was sent
//! later by others waits behind it.
//!
//! # How it works
//! The owner of a connection moves mail to its output only while that is short; what waits meanwhile lies in the mailbox,
//! where the bound for subscribers applies ([`OutputLimits::pubsub`]).

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::client::ClientOptions;
use super::facts::Facts;
use crate::change::{is_in_section, once_handed_over};

/// Room that a mailbox keeps while it is empty: some messages of usual size.
const KEPT_BYTES: usize = 4 << 10;

/// Called when something has arrived in a mailbox; must be quick, and may be called from any thread.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// How much may wait for a connection that reads slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// With more than this it is disconnected at once; 0: no limit.
    pub hard_bytes: u64,
    /// With more than this for `soft_s` it is disconnected; 0: no limit.
    pub soft_bytes: u64,
    /// In seconds.
    pub soft_s: u64,
}

/// The limits by class of connection, as `client-output-buffer-limit` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// For replies; whoever writes them to the network enforces it.
    pub normal: OutputLimit,
    /// For what others send: messages, and the lines of MONITOR.
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            normal: OutputLimit { hard_bytes: 0, soft_bytes: 0, soft_s: 0 },
            pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_s: 60 },
        }
    }
}

/// All connections of an instance.
#[derive(Default)]
pub(crate) struct Peers {
    by_id: RwLock<HashMap<u64, Arc<Peer>>>,
    ids: AtomicU64,
    common: Arc<Common>,
}

/// What a connection needs to know of the instance.
#[derive(Default)]
struct Common {
    /// The time of the last command, in µs.
    last_us: AtomicU64,
    limits: RwLock<OutputLimits>,
    /// How many connections were ended by a limit.
    disconnections: AtomicU64,
}

/// A connection, as others see it.
pub(crate) struct Peer {
    pub(crate) id: u64,
    pub(crate) facts: Facts,
    waker: Waker,
    mailbox: Mutex<Mailbox>,
    /// Something is in the mailbox: looked at without its lock.
    has_mail: AtomicBool,
    /// Something in the mailbox cannot be taken yet: looked at without its lock.
    is_held_back: AtomicBool,
    /// The connection is to be closed.
    is_killed: AtomicBool,
    common: Arc<Common>,
}

#[derive(Default)]
struct Mailbox {
    /// What others have sent, in order.
    bytes: Vec<u8>,
    /// Threads whose changes are not handed over yet, each with where the first thing begins that it has sent since it began; in ascending order. The
    /// receiver takes what lies before the first one. Each stays for as long as it holds keys, so nobody waits for ever behind others
    /// that come and go.
    held: Vec<(ThreadId, usize)>,
    /// Since when it holds more than the soft limit.
    over_since_us: Option<u64>,
}

impl Peers {
    pub(crate) fn join(&self, mut options: ClientOptions) -> Arc<Peer> {
        let peer = Arc::new(Peer {
            id: self.ids.fetch_add(1, Ordering::Relaxed) + 1,
            waker: mem::replace(&mut options.waker, Box::new(|| ())),
            facts: Facts::new(options),
            mailbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
            is_held_back: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            common: self.common.clone(),
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

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.by_id.read().len()
    }

    /// How many connections there were.
    pub(crate) fn total(&self) -> u64 {
        self.ids.load(Ordering::Relaxed)
    }

    /// All connections, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut all: Vec<_> = self.by_id.read().values().cloned().collect();
        all.sort_unstable_by_key(|peer| peer.id);
        all
    }

    pub(crate) fn note_time(&self, now_us: u64) {
        self.common.last_us.store(now_us, Ordering::Relaxed);
    }

    pub(crate) fn limits(&self) -> OutputLimits {
        *self.common.limits.read()
    }

    pub(crate) fn set_limits(&self, limits: OutputLimits) {
        *self.common.limits.write() = limits;
    }

    /// How many connections were ended because they did not fetch their mail.
    pub(crate) fn output_limit_disconnections(&self) -> u64 {
        self.common.disconnections.load(Ordering::Relaxed)
    }
}

impl Peer {
    /// Puts encoded bytes into the mailbox and wakes the connection, once nothing that the bytes tell of is still to be handed over; whoever has
    /// too much in it is disconnected.
    pub(crate) fn send(self: &Arc<Self>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_killed() {
            return;
        }
        let mut mailbox = self.mailbox.lock();
        let from = mailbox.bytes.len();
        write(&mut mailbox.bytes);
        if self.common.is_too_much(&mut mailbox) {
            (mailbox.bytes, mailbox.held) = (Vec::new(), Vec::new());
            drop(mailbox);
            self.common.disconnections.fetch_add(1, Ordering::Relaxed);
            self.kill();
            return;
        }
        if is_in_section() {
            if mailbox.hold(thread::current().id(), from) {
                self.is_held_back.store(true, Ordering::Release);
                drop(mailbox);
                let peer = Arc::clone(self);
                once_handed_over(move || peer.release());
            }
            return;
        }
        self.announce(mailbox);
    }

    /// What the calling thread has sent is there from now on.
    fn release(&self) {
        let mut mailbox = self.mailbox.lock();
        let holder = thread::current().id();
        mailbox.held.retain(|(other, _)| *other != holder);
        self.is_held_back.store(!mailbox.held.is_empty(), Ordering::Release);
        if mailbox.open_bytes() > 0 {
            self.announce(mailbox);
        }
    }

    fn announce(&self, mailbox: MutexGuard<'_, Mailbox>) {
        // Who was woken and did not come yet will find this as well.
        let had_mail = self.has_mail.swap(true, Ordering::AcqRel);
        drop(mailbox);
        if !had_mail {
            (self.waker)();
        }
    }

    /// Moves what has arrived to `out`.
    #[inline]
    pub(crate) fn receive(&self, out: &mut Vec<u8>) {
        if self.has_mail.load(Ordering::Acquire) {
            self.fetch(out);
        }
    }

    #[cold]
    fn fetch(&self, out: &mut Vec<u8>) {
        let mut mailbox = self.mailbox.lock();
        self.has_mail.store(false, Ordering::Release);
        let bytes = mailbox.open_bytes();
        mailbox.take(bytes, out);
    }

    /// The same together with what the calling thread has sent itself, for a reply that nobody gets before that is handed over either. Returns
    /// whether all was taken; otherwise something of another thread is held back.
    pub(crate) fn receive_own(&self, out: &mut Vec<u8>) -> bool {
        let mut mailbox = self.mailbox.lock();
        self.has_mail.store(false, Ordering::Release);
        let bytes = mailbox.open_bytes_for(thread::current().id());
        mailbox.take(bytes, out);
        mailbox.bytes.is_empty()
    }

    /// Whether something has come that cannot be taken yet.
    #[inline]
    pub(crate) fn is_held_back(&self) -> bool {
        self.is_held_back.load(Ordering::Acquire)
    }

    /// How many bytes wait to be fetched.
    pub(crate) fn mail_bytes(&self) -> usize {
        self.mailbox.lock().bytes.len()
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

impl Mailbox {
    /// Holds back what lies behind `from`. Returns whether the holder is new.
    fn hold(&mut self, holder: ThreadId, from: usize) -> bool {
        let is_new = self.held.iter().all(|(other, _)| *other != holder);
        if is_new {
            self.held.push((holder, from));
        }
        is_new
    }

    /// How much may be taken by anybody.
    fn open_bytes(&self) -> usize {
        self.held.first().map_or(self.bytes.len(), |(_, from)| *from)
    }

    /// How much may be taken by a thread.
    fn open_bytes_for(&self, thread: ThreadId) -> usize {
        self.held.iter().find(|(holder, _)| *holder != thread).map_or(self.bytes.len(), |(_, from)| *from)
    }

    fn take(&mut self, bytes: usize, out: &mut Vec<u8>) {
        self.over_since_us = None;
        if bytes == self.bytes.len() {
            out.append(&mut self.bytes);
        } else {
            out.extend(self.bytes.drain(..bytes));
        }
        self.held.iter_mut().for_each(|(_, from)| *from = from.saturating_sub(bytes));
        self.bytes.shrink_to(KEPT_BYTES);
    }
}

impl Common {
    fn is_too_much(&self, mailbox: &mut Mailbox) -> bool {
        /// Less than this is nothing to ask the limits about.
        const UNSUSPICIOUS_BYTES: usize = 4 << 10;
        if mailbox.bytes.len() <= UNSUSPICIOUS_BYTES {
            return false;
        }
        let (limit, now_us) = (self.limits.read().pubsub, self.last_us.load(Ordering::Relaxed));
        let is_over = |limit_bytes: u64| limit_bytes > 0 && mailbox.bytes.len() as u64 > limit_bytes;
        if is_over(limit.hard_bytes) {
            return true;
        }
        if !is_over(limit.soft_bytes) {
            mailbox.over_since_us = None;
            return false;
        }
        let since_us = *mailbox.over_since_us.get_or_insert(now_us);
        now_us.saturating_sub(since_us) > limit.soft_s.saturating_mul(1_000_000)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{OutputLimit, OutputLimits, Peer, Peers};
    use crate::instance::ClientOptions;

    fn peers(pubsub: OutputLimit) -> (Peers, Arc<Peer>, Arc<AtomicUsize>) {
        let peers = Peers::default();
        peers.set_limits(OutputLimits { pubsub, ..OutputLimits::default() });
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let waker = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let peer = peers.join(ClientOptions { waker, ..ClientOptions::default() });
        (peers, peer, woken)
    }

    fn send(peer: &Arc<Peer>, bytes: usize) {
        peer.send(|mailbox| mailbox.resize(mailbox.len() + bytes, b'x'));
    }

    #[test]
    fn connection_is_woken_once_until_it_fetches_its_mail() {
        let (_, peer, woken) = peers(OutputLimits::default().pubsub);
        send(&peer, 1);
        send(&peer, 2);
        let mut out = Vec::new();
        peer.receive(&mut out);
        assert_eq!((out.len(), woken.load(Ordering::Relaxed)), (3, 1));
        send(&peer, 1);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn mailbox_gives_the_room_of_many_messages_back() {
        let (_, peer, _) = peers(OutputLimits::default().pubsub);
        send(&peer, 1 << 20);
        peer.receive(&mut Vec::new());
        assert!(peer.mailbox.lock().bytes.capacity() <= super::KEPT_BYTES);
    }

    #[test]
    fn mailbox_over_its_hard_limit_ends_the_connection() {
        let (peers, peer, _) = peers(OutputLimit { hard_bytes: 10_000, soft_bytes: 0, soft_s: 0 });
        send(&peer, 10_000);
        assert!(!peer.is_killed());
        send(&peer, 1);
        assert!(peer.is_killed());
        assert_eq!((peer.mail_bytes(), peers.output_limit_disconnections()), (0, 1));
    }

    #[test]
    fn mailbox_over_its_soft_limit_for_too_long_ends_the_connection() {
        let (peers, peer, _) = peers(OutputLimit { hard_bytes: 0, soft_bytes: 5_000, soft_s: 10 });
        let at = |now_s: u64, bytes| {
            peers.note_time(now_s * 1_000_000);
            send(&peer, bytes);
            peer.is_killed()
        };
        assert!(!at(100, 6_000));
        // Fetching begins the time anew.
        peer.receive(&mut Vec::new());
        assert!(!at(120, 6_000));
        assert!(!at(130, 1));
        assert!(at(131, 1));
    }
}
