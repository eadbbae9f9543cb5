//! Wakes those who wait for a lock: by notifications of the server, one local waiter at a time.
//!
//! # Guarantees
//! Waiters of one lock in one process stand in line; only the first asks the server. A waiter that leaves, however it does,
//! lets the next one step up, so none is forgotten.
//!
//! # Failure
//! A notification can be lost with the connection, and the right to subscribe may be missing. Waiters therefore never sleep
//! longer than a bound of their own; they are only slower then.
//!
//! # How it works
//! Releasing a lock publishes to a channel named like its record. One task subscribes to the channels that have waiters, on
//! the first link: with RESP3, notifications come along with replies, and no connection is spent on them. When the server
//! has confirmed a subscription, the first waiter asks once more, so a release just before that is not missed. Channels
//! stay subscribed for a while after their last waiter, since a contended lock soon has the next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::link::{Line, Link};

/// How long a channel without waiters stays subscribed.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How long to wait for the server to confirm subscriptions.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Who waits for which lock.
#[derive(Default)]
pub(crate) struct Wakeups {
    // Short critical sections, no await inside; taken once per wait and per notification.
    channels: Mutex<HashMap<Arc<str>, Channel>>,
    /// The set of channels with waiters changed.
    changed: Notify,
}

struct Channel {
    line: VecDeque<Arc<Waiter>>,
    idle_since: Instant,
}

#[derive(Default)]
struct Waiter {
    /// Something changed for this waiter.
    signal: Notify,
    /// It should ask the server now.
    ask: AtomicBool,
    /// The lease, in ms, of the holder behind whom it stepped up.
    lease_ms: AtomicU64,
}

/// A place in the line for one lock. Dropping it leaves the line.
pub(crate) struct Place {
    wakeups: Arc<Wakeups>,
    channel: Arc<str>,
    waiter: Arc<Waiter>,
    /// The lease that we leave with, in ms. Without one, the next in line asks the server as soon as it steps up.
    leaves_with_ms: Option<u64>,
}

/// Why a waiter was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The lock may be free.
    Ask,
    /// It is first now, behind a new holder with this lease.
    SteppedUp(Duration),
}

impl Wakeups {
    /// Whether somebody in this process waits for the lock.
    pub(crate) fn has_waiters(&self, channel: &str) -> bool {
        self.channels.lock().get(channel).is_some_and(|channel| !channel.line.is_empty())
    }

    /// Joins the line.
    pub(crate) fn join(self: &Arc<Self>, channel: &str) -> Place {
        let waiter = Arc::new(Waiter::default());
        let mut channels = self.channels.lock();
        let name = match channels.get_key_value(channel) {
            Some((name, _)) => name.clone(),
            None => Arc::from(channel),
        };
        let entry = channels
            .entry(name.clone())
            .or_insert_with(|| Channel { line: VecDeque::new(), idle_since: Instant::now() });
        let is_new = entry.line.is_empty();
        entry.line.push_back(waiter.clone());
        drop(channels);
        if is_new {
            self.changed.notify_one();
        }
        Place { wakeups: self.clone(), channel: name, waiter, leaves_with_ms: None }
    }

    /// Takes in what the server sends without being asked.
    pub(crate) fn on_push(&self, push: &PushInfo) {
        if push.kind == PushKind::Message
            && let Some(Value::BulkString(channel)) = push.data.first()
            && let Ok(channel) = std::str::from_utf8(channel)
        {
            self.wake(channel);
        }
    }

    /// Keeps the subscriptions in step with the waiters, on one connection after the other.
    pub(crate) async fn subscribe(self: Arc<Self>, link: Arc<Link>) {
        let mut line = link.watch();
        loop {
            let up = match line.wait_for(|line| matches!(line, Line::Up(_))).await {
                Ok(line) => line.clone(),
                Err(_) => return,
            };
            if let Line::Up(live) = up {
                tokio::select! {
                    () = self.follow(live.connection) => {}
                    _ = line.changed() => {}
                }
            }
        }
    }

    /// Subscribes and unsubscribes on this connection; ends when it fails to.
    async fn follow(&self, mut connection: MultiplexedConnection) {
        let mut subscribed = HashSet::new();
        loop {
            let (added, removed, idle) = self.differences(&subscribed);
            if !removed.is_empty() {
                let names: Vec<&str> = removed.iter().map(|channel| &**channel).collect();
                let _ = tokio::time::timeout(CONFIRM_TIMEOUT, connection.unsubscribe(names)).await;
                subscribed.retain(|channel| !removed.contains(channel));
            }
            if !added.is_empty() {
                let names: Vec<&str> = added.iter().map(|channel| &**channel).collect();
                let confirmed = tokio::time::timeout(CONFIRM_TIMEOUT, connection.subscribe(names)).await;
                if let Ok(Err(error)) = &confirmed {
                    tracing::debug!(%error, "lock waiters do without notifications");
                }
                added.iter().for_each(|channel| self.wake(channel));
                // Also when it was refused: asking again and again would not change that.
                subscribed.extend(added);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(IDLE_MAX), if idle => {}
            }
        }
    }

    /// Channels to subscribe to, channels to leave, and whether some will have to be left soon.
    fn differences(&self, subscribed: &HashSet<Arc<str>>) -> (Vec<Arc<str>>, Vec<Arc<str>>, bool) {
        let mut channels = self.channels.lock();
        channels.retain(|_, channel| !channel.line.is_empty() || channel.idle_since.elapsed() < IDLE_MAX);
        let added = channels.keys().filter(|name| !subscribed.contains(*name)).cloned().collect();
        let removed = subscribed.iter().filter(|name| !channels.contains_key(*name)).cloned().collect();
        let idle = channels.values().any(|channel| channel.line.is_empty());
        (added, removed, idle)
    }

    fn wake(&self, channel: &str) {
        if let Some(first) = self.channels.lock().get(channel).and_then(|channel| channel.line.front()) {
            first.wake(true);
        }
    }
}

impl Waiter {
    fn wake(&self, ask: bool) {
        if ask {
            self.ask.store(true, Ordering::Release);
        }
        self.signal.notify_one();
    }
}

impl Place {
    /// Whether nobody in this process is before us.
    pub(crate) fn is_first(&self) -> bool {
        let channels = self.wakeups.channels.lock();
        let first = channels.get(&self.channel).and_then(|channel| channel.line.front());
        first.is_some_and(|first| Arc::ptr_eq(first, &self.waiter))
    }

    /// Waits until something changed.
    pub(crate) async fn woken(&self) -> Woken {
        self.waiter.signal.notified().await;
        if self.waiter.ask.swap(false, Ordering::AcqRel) {
            return Woken::Ask;
        }
        Woken::SteppedUp(Duration::from_millis(self.waiter.lease_ms.load(Ordering::Acquire)))
    }

    /// Leaves the line with a lock that nobody else can get meanwhile: the next in line has nothing to ask before it is
    /// notified.
    pub(crate) fn leave_with_exclusive(mut self, lease_ms: u64) {
        self.leaves_with_ms = Some(lease_ms);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut channels = self.wakeups.channels.lock();
        let Some(channel) = channels.get_mut(&self.channel) else { return };
        let was_first = channel.line.front().is_some_and(|first| Arc::ptr_eq(first, &self.waiter));
        channel.line.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        if let (true, Some(next)) = (was_first, channel.line.front()) {
            // A notification that we did not act on any more is handed on.
            next.lease_ms.store(self.leaves_with_ms.unwrap_or(0), Ordering::Release);
            next.wake(self.leaves_with_ms.is_none() || self.waiter.ask.load(Ordering::Acquire));
        }
        if channel.line.is_empty() {
            channel.idle_since = Instant::now();
            drop(channels);
            self.wakeups.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Wakeups, Woken};

    #[tokio::test]
    async fn a_notification_wakes_the_first_in_line_only() {
        let wakeups = Arc::new(Wakeups::default());
        let (first, second) = (wakeups.join("lock"), wakeups.join("lock"));
        wakeups.wake("lock");
        assert_eq!(first.woken().await, Woken::Ask);
        assert!(first.is_first() && !second.is_first());
        assert!(!second.waiter.ask.load(std::sync::atomic::Ordering::Relaxed));
    }

    #[tokio::test]
    async fn who_leaves_lets_the_next_one_ask() {
        let wakeups = Arc::new(Wakeups::default());
        let (first, second) = (wakeups.join("lock"), wakeups.join("lock"));
        drop(first);
        assert!(second.woken().await == Woken::Ask && second.is_first());
        drop(second);
        assert!(!wakeups.has_waiters("lock"));
    }

    #[tokio::test]
    async fn an_unused_notification_is_handed_on_also_by_a_new_holder() {
        let wakeups = Arc::new(Wakeups::default());
        let (first, second, third) = (wakeups.join("lock"), wakeups.join("lock"), wakeups.join("lock"));
        first.leave_with_exclusive(7);
        assert_eq!(second.woken().await, Woken::SteppedUp(Duration::from_millis(7)));
        wakeups.wake("lock");
        second.leave_with_exclusive(7);
        assert_eq!(third.woken().await, Woken::Ask);
    }
}
