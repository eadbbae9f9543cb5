//! Messages that the embedding application wants to know of, and those that it sends.
//!
//! # Guarantees
//! The listener is called after the command that published has let go of its keys, so it may call the engine; once for each message, in no
//! particular order among connections.

use std::fmt;
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Instance;
use super::pubsub::Channels;

/// Who listens from inside of this process.
#[derive(Default)]
pub(crate) struct Tap {
    listener: OnceLock<Listener>,
    /// Channels of messages that the listener has not been told of.
    pending: Mutex<Vec<Box<[u8]>>>,
    has_pending: AtomicBool,
}

/// Called with the channel of a message.
type OnMessage = Box<dyn Fn(&[u8]) + Send + Sync>;

struct Listener {
    wants: fn(&[u8]) -> bool,
    call: OnMessage,
}

impl Tap {
    /// A message was published on `channel`.
    pub(crate) fn note(&self, channel: &[u8]) {
        if self.listener.get().is_some_and(|listener| (listener.wants)(channel)) {
            self.pending.lock().push(channel.into());
            self.has_pending.store(true, Ordering::Release);
        }
    }

    /// Whether there may be something to tell.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.has_pending.load(Ordering::Relaxed)
    }

    /// Tells the listener; nothing may be held.
    #[inline]
    pub(crate) fn tell(&self) {
        // Looked at first: to exchange it after each command would take its line of the cache from all other threads.
        if self.is_pending() && self.has_pending.swap(false, Ordering::AcqRel) {
            self.tell_pending();
        }
    }

    #[cold]
    fn tell_pending(&self) {
        let pending = mem::take(&mut *self.pending.lock());
        if let Some(listener) = self.listener.get() {
            pending.iter().for_each(|channel| (listener.call)(channel));
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("has_listener", &self.listener.get().is_some()).finish_non_exhaustive()
    }
}

impl Instance {
    /// Publishes a message on a channel, as PUBLISH does. Returns how many subscribers it was sent to.
    pub fn publish(&self, channel: &[u8], message: &[u8]) -> usize {
        self.pubsub.publish(Channels::Plain, channel, message)
    }

    /// Calls `call` with the channel of each message that clients publish and that `wants` accepts. There is one listener; returns whether
    /// this is it.
    pub fn on_message(&self, wants: fn(&[u8]) -> bool, call: impl Fn(&[u8]) + Send + Sync + 'static) -> bool {
        self.tap.listener.set(Listener { wants, call: Box::new(call) }).is_ok()
    }
}
