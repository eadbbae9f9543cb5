//! Wakes those who wait for a lock: by notifications of the server, one local waiter at a time.
//!
//! # Failure
//! A notification can be lost with the connection, and the right to subscribe may be missing. Waiters therefore never sleep
//! longer than a bound of their own; they are only slower then.
//!
//! # How it works
//! Releasing a lock publishes to a channel named like its record, and so is the line of its waiters. One task subscribes to
//! the channels that have waiters, on the first link: with RESP3, notifications come along with replies, and no connection is
//! spent on them. When the server has confirmed a subscription, the first waiter asks once more, so a release just before
//! that is not missed. Channels stay subscribed for a while after their last waiter, since a contended lock soon has the
//! next.
//!
//! Each release wakes the first waiter of every process. Its message says who released, so that they take turns, see
//! [`rotation`](acteon_state_core::lock::rotation): `w` and the process as sixteen hexadecimal digits if others wait there, `n`
//! if not. Anything else, also what older versions send, wakes without saying anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::lock::line::{Lines, Place};
use acteon_state_core::lock::rotation::Rotation;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::link::{Line, Link};
use crate::wire::{Value, Wire};

/// How long a channel without waiters stays subscribed.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How long to wait for the server to confirm subscriptions.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Who waits for which lock.
pub(crate) struct Wakeups {
    lines: Arc<Lines>,
    /// Drawn at random: tells this process from others.
    process: u64,
    // By channel, of those that are subscribed to. Locked for a look-up and a step of the rotation only.
    rotations: Mutex<HashMap<Arc<str>, Rotation>>,
}

impl Default for Wakeups {
    fn default() -> Self {
        Self { lines: Arc::default(), process: rand::random(), rotations: Mutex::default() }
    }
}

impl Wakeups {
    /// Whether somebody in this process waits for the lock.
    pub(crate) fn has_waiters(&self, channel: &str) -> bool {
        self.lines.has_waiters(channel)
    }

    /// Counts wake-ups, see [`Lines::join`].
    pub(crate) fn wakes(&self) -> u64 {
        self.lines.wakes()
    }

    /// Joins the line of a lock, see [`Lines::join`].
    pub(crate) fn join(&self, channel: &str, asked: Option<u64>) -> Place {
        self.lines.join(channel, asked)
    }

    /// What others are told with a release from here.
    pub(crate) fn message(&self, channel: &str) -> String {
        let mark = if self.lines.has_waiters(channel) { 'w' } else { 'n' };
        format!("{mark}{:016x}", self.process)
    }

    /// How long the first waiter here lets those of other processes go first.
    pub(crate) fn head_start_of_others(&self, channel: &str) -> Duration {
        self.rotations.lock().get(channel).map_or(Duration::ZERO, |known| known.head_start_of_others(self.process))
    }

    /// Takes in what the server sends without being asked.
    pub(crate) fn on_push(&self, push: &[Value]) {
        if let [Value::BulkString(kind), Value::BulkString(channel), Value::BulkString(message), ..] = push
            && kind == b"message"
            && let Ok(channel) = std::str::from_utf8(channel)
        {
            if let Some((process, waits_on)) = read_message(message)
                && let Some(rotation) = self.rotations.lock().get_mut(channel)
            {
                rotation.released(process, waits_on);
            }
            self.lines.wake(channel);
        }
    }

    /// Keeps the subscriptions in step with the waiters, on one connection after the other.
    pub(crate) async fn subscribe<F: Future<Output = Arc<Link>>>(self: Arc<Self>, any_link: impl Fn() -> F) {
        loop {
            let mut line = any_link().await.watch();
            let up = match line.wait_for(|line| matches!(line, Line::Up(_))).await {
                Ok(line) => line.clone(),
                Err(_) => continue,
            };
            if let Line::Up(live) = up {
                tokio::select! {
                    () = self.follow(&live.wire) => {}
                    _ = line.changed() => {}
                }
            }
        }
    }

    /// Subscribes and unsubscribes on this connection.
    async fn follow(&self, wire: &Wire) {
        let mut subscribed = Subscribed::default();
        // What was released meanwhile is not known.
        self.rotations.lock().clear();
        loop {
            let (added, removed) = subscribed.update(&self.lines.names(), Instant::now());
            if !removed.is_empty() {
                self.rotations.lock().retain(|channel, _| !removed.contains(channel));
                let names: Vec<&str> = removed.iter().map(|channel| &**channel).collect();
                let _ = tokio::time::timeout(CONFIRM_TIMEOUT, wire.unsubscribe(&names)).await;
            }
            if !added.is_empty() {
                self.rotations.lock().extend(added.iter().map(|channel| (channel.clone(), Rotation::default())));
                let names: Vec<&str> = added.iter().map(|channel| &**channel).collect();
                let confirmed = tokio::time::timeout(CONFIRM_TIMEOUT, wire.subscribe(&names)).await;
                if let Ok(Err(refused)) = &confirmed {
                    tracing::debug!(%refused, "lock waiters do without notifications");
                }
                // Also when it was refused: asking again and again would not change that.
                added.iter().for_each(|channel| self.lines.wake(channel));
            }
            tokio::select! {
                () = self.lines.changed() => {}
                () = tokio::time::sleep(IDLE_MAX), if subscribed.has_idle() => {}
            }
        }
    }
}

/// Who released, and whether others wait there; `None` if the message does not say.
fn read_message(message: &[u8]) -> Option<(u64, bool)> {
    let message = std::str::from_utf8(message).ok()?;
    let (process, waits_on) = match message.strip_prefix('w') {
        Some(process) => (process, true),
        None => (message.strip_prefix('n')?, false),
    };
    Some((u64::from_str_radix(process, 16).ok()?, waits_on))
}

/// The channels that one connection is subscribed to.
#[derive(Default)]
struct Subscribed {
    /// Since when each has had no waiters; `None` while it has.
    channels: HashMap<Arc<str>, Option<Instant>>,
}

impl Subscribed {
    /// Takes over which channels have waiters. Returns what to subscribe to, and what to leave.
    fn update(&mut self, waited_for: &[Arc<str>], now: Instant) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let waited_for: HashSet<&Arc<str>> = waited_for.iter().collect();
        let mut removed = Vec::new();
        self.channels.retain(|channel, idle_since| {
            *idle_since = if waited_for.contains(channel) { None } else { idle_since.or(Some(now)) };
            let stays = idle_since.is_none_or(|since| now - since < IDLE_MAX);
            if !stays {
                removed.push(channel.clone());
            }
            stays
        });
        let added: Vec<Arc<str>> =
            waited_for.into_iter().filter(|channel| !self.channels.contains_key(*channel)).cloned().collect();
        self.channels.extend(added.iter().map(|channel| (channel.clone(), None)));
        (added, removed)
    }

    /// Whether some will have to be left soon.
    fn has_idle(&self) -> bool {
        self.channels.values().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::{IDLE_MAX, Subscribed, Wakeups, read_message};

    #[test]
    fn a_message_says_who_released_and_whether_others_wait_there() {
        let wakeups = Wakeups { process: 0xab, ..Wakeups::default() };
        assert_eq!(wakeups.message("lock"), "n00000000000000ab");
        let _place = wakeups.join("lock", None);
        assert_eq!(wakeups.message("lock"), "w00000000000000ab");
        assert_eq!(read_message(b"w00000000000000ab"), Some((0xab, true)));
        assert_eq!(read_message(b"n00000000000000ab"), Some((0xab, false)));
        for silent in [&b""[..], b"w", b"x00ab", b"n-1", "w\u{e4}".as_bytes(), b"\xff"] {
            assert_eq!(read_message(silent), None);
        }
    }

    #[test]
    fn a_channel_is_left_only_after_it_had_no_waiters_for_a_while() {
        let start = Instant::now();
        let lock: [Arc<str>; 1] = ["lock".into()];
        let mut subscribed = Subscribed::default();
        assert_eq!(subscribed.update(&lock, start), (lock.to_vec(), vec![]));
        assert_eq!(subscribed.update(&[], start), (vec![], vec![]));
        assert!(subscribed.has_idle());
        // The next waiter in time keeps it, and the while begins anew.
        assert_eq!(subscribed.update(&lock, start + IDLE_MAX / 2), (vec![], vec![]));
        assert!(!subscribed.has_idle());
        assert_eq!(subscribed.update(&[], start + IDLE_MAX), (vec![], vec![]));
        assert_eq!(subscribed.update(&[], start + IDLE_MAX * 2), (vec![], lock.to_vec()));
        assert!(!subscribed.has_idle());
    }
}
