//! Who wants to know what happens to keys: watchers, those who wait for a key to fill, and listeners to events.
//!
//! # Guarantees
//! A watcher that was registered under a key's lock learns of every later change of that key, by whomever. A key that somebody waits for is
//! reported ready after each change that may serve them. Events of one key arrive in the order of its changes.
//!
//! # How it works
//! While nobody asks, a change costs one comparison in its segment and one load for events. What is registered lies in the key's segment,
//! under the same lock as the key. Keys become ready under that lock, and are served after it: serving needs other locks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use indexmap::IndexSet;
use parking_lot::Mutex;

use crate::sync::AtomicUsize;

/// The kinds of events, as bits; a listener chooses among them.
/// See <https://redis.io/docs/latest/develop/use/keyspace-notifications/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventClass(pub(crate) u32);

impl EventClass {
    /// Commands that are not specific to a type.
    pub(crate) const GENERIC: Self = Self(1 << 2);
    /// Strings.
    pub(crate) const STRING: Self = Self(1 << 3);
    /// Lists.
    pub(crate) const LIST: Self = Self(1 << 4);
    /// Sets.
    pub(crate) const SET: Self = Self(1 << 5);
    /// Hashes.
    pub(crate) const HASH: Self = Self(1 << 6);
    /// Sorted sets.
    pub(crate) const SORTED_SET: Self = Self(1 << 7);
    /// Keys that expired.
    pub(crate) const EXPIRED: Self = Self(1 << 8);
    /// Keys that were evicted.
    pub(crate) const EVICTED: Self = Self(1 << 9);
    /// Streams.
    pub(crate) const STREAM: Self = Self(1 << 10);
    /// Look-ups of absent keys.
    pub(crate) const MISS: Self = Self(1 << 11);
    /// New keys.
    pub(crate) const NEW: Self = Self(1 << 14);
}

/// Told of events and of keys that somebody waits for.
pub(crate) trait Observer: Send + Sync {
    /// `name` happened to `key` of a database. Called under the key's lock: must be quick, and not call the engine.
    fn event(&self, database: usize, class: EventClass, name: &str, key: &[u8]);

    /// Keys have become ready outside of a command, at this time. Called without locks.
    fn keys_ready(&self, now_ms: u64);
}

/// A key of a database.
pub(crate) type Name = (usize, Box<[u8]>);

/// What all databases of one engine share for telling.
#[derive(Default)]
pub(crate) struct Signals {
    /// The classes that anybody listens to.
    classes: AtomicU32,
    observer: OnceLock<Arc<dyn Observer>>,
    has_ready: AtomicBool,
    /// How many scripts wait for a segment while they hold others, see `lock.rs`.
    pub(crate) escalations: AtomicUsize,
    /// Keys that somebody waits for and that have come to hold something, in this order.
    ready: Mutex<IndexSet<Name>>,
}

impl Signals {
    /// There can be one observer; a second one is refused.
    pub(crate) fn observe(&self, observer: Arc<dyn Observer>) -> bool {
        self.observer.set(observer).is_ok()
    }

    pub(crate) fn set_classes(&self, classes: u32) {
        self.classes.store(classes, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn event(&self, database: usize, class: EventClass, name: &str, key: &[u8]) {
        if self.classes.load(Ordering::Relaxed) & class.0 != 0 {
            self.tell(database, class, name, key);
        }
    }

    #[cold]
    fn tell(&self, database: usize, class: EventClass, name: &str, key: &[u8]) {
        if let Some(observer) = self.observer.get() {
            observer.event(database, class, name, key);
        }
    }

    pub(crate) fn add_ready(&self, database: usize, key: &[u8]) {
        let mut ready = self.ready.lock();
        ready.insert((database, key.into()));
        self.has_ready.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.has_ready.load(Ordering::Acquire)
    }

    /// Takes the ready keys that `is_mine` chooses, each once, in the order in which they became ready.
    pub(crate) fn take_ready(&self, is_mine: impl Fn(usize, &[u8]) -> bool) -> Vec<Name> {
        let mut ready = self.ready.lock();
        let mut mine = Vec::new();
        ready.retain(|(database, key)| {
            let is_mine = is_mine(*database, key);
            if is_mine {
                mine.push((*database, key.clone()));
            }
            !is_mine
        });
        self.has_ready.store(!ready.is_empty(), Ordering::Release);
        mine
    }

    /// All keys that are ready now.
    pub(crate) fn all_ready(&self) -> Vec<Name> {
        self.ready.lock().iter().cloned().collect()
    }

    /// After an update that was no command.
    #[inline]
    pub(crate) fn announce_ready(&self, now_ms: u64) {
        if self.has_ready()
            && let Some(observer) = self.observer.get()
        {
            observer.keys_ready(now_ms);
        }
    }
}

/// What is registered for the keys of one segment.
#[derive(Default)]
pub(crate) struct Notices {
    // A pointer, not a map: every segment has one of these, and hardly any has contents.
    #[allow(clippy::box_collection, reason = "a word instead of six, in each of a thousand segments")]
    by_key: Option<Box<HashMap<Box<[u8]>, Notice>>>,
}

#[derive(Default)]
struct Notice {
    watchers: Vec<Arc<AtomicBool>>,
    /// How many wait for the key to fill.
    waiters: usize,
}

impl Notices {
    /// `dirty` is set by the next change of `key`.
    pub(crate) fn watch(&mut self, key: &[u8], dirty: &Arc<AtomicBool>) {
        self.notice(key).watchers.push(dirty.clone());
    }

    pub(crate) fn unwatch(&mut self, key: &[u8], dirty: &Arc<AtomicBool>) {
        self.change(key, |notice| notice.watchers.retain(|other| !Arc::ptr_eq(other, dirty)));
    }

    pub(crate) fn add_waiter(&mut self, key: &[u8]) {
        self.notice(key).waiters += 1;
    }

    pub(crate) fn remove_waiter(&mut self, key: &[u8]) {
        self.change(key, |notice| notice.waiters = notice.waiters.saturating_sub(1));
    }

    /// Nobody asks about any key.
    #[cfg(all(test, feature = "commands"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.by_key.is_none()
    }

    /// Somebody asks about some key.
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.by_key.is_some()
    }

    /// `key` has changed, and `serves` those who wait for it.
    #[inline]
    pub(crate) fn changed(&mut self, signals: &Signals, database: usize, key: &[u8], serves: bool) {
        if self.has_any() {
            self.tell(signals, database, key, serves);
        }
    }

    /// All keys may have changed, because the database was cleared or exchanged: those that `was_touched` names have.
    pub(crate) fn all_changed(
        &mut self,
        signals: &Signals,
        database: usize,
        serve: bool,
        was_touched: impl Fn(&[u8]) -> bool,
    ) {
        let Some(by_key) = &mut self.by_key else { return };
        for (key, notice) in by_key.iter_mut().filter(|(key, _)| was_touched(key)) {
            notice.tell(signals, database, key, serve);
        }
        self.tidy();
    }

    #[cold]
    fn tell(&mut self, signals: &Signals, database: usize, key: &[u8], serves: bool) {
        self.change(key, |notice| notice.tell(signals, database, key, serves));
    }

    fn notice(&mut self, key: &[u8]) -> &mut Notice {
        self.by_key.get_or_insert_default().entry(key.into()).or_default()
    }

    fn change(&mut self, key: &[u8], change: impl FnOnce(&mut Notice)) {
        if let Some(by_key) = &mut self.by_key
            && let Some(notice) = by_key.get_mut(key)
        {
            change(notice);
            if notice.is_empty() {
                by_key.remove(key);
                self.tidy();
            }
        }
    }

    fn tidy(&mut self) {
        if let Some(by_key) = &mut self.by_key {
            by_key.retain(|_, notice| !notice.is_empty());
            if by_key.is_empty() {
                self.by_key = None;
            }
        }
    }
}

impl Notice {
    fn tell(&mut self, signals: &Signals, database: usize, key: &[u8], serves: bool) {
        for watcher in self.watchers.drain(..) {
            watcher.store(true, Ordering::Release);
        }
        if serves && self.waiters > 0 {
            signals.add_ready(database, key);
        }
    }

    fn is_empty(&self) -> bool {
        self.watchers.is_empty() && self.waiters == 0
    }
}
