//! Wakes those who wait for a lock: by notifications between all nodes, one local waiter at a time.
//!
//! # Guarantees
//! - Whoever ends a lease tells those who wait, after the commit, in a statement of its own that it does not wait for. A
//!   `NOTIFY` inside of the transaction would make all commits of the database stand in one queue.
//! - A node that never waits has no connection for it; one that waits has one, for all of its locks.
//!
//! # Failure
//! A notification can be lost with the connection, and behind a transaction pooler no session can listen. Waiters
//! therefore never sleep longer than a bound of their own, which is much shorter while nobody listens for them. Where a release leaves the lock
//! to all nodes, and our own notification of it does not come back, the first waiter here asks after [`ECHO_MAX`].
//!
//! # How it works
//! All nodes of one schema and prefix share a channel. The payload is the lock as sixteen hexadecimal digits: FNV-1a with 64
//! bits over the key's text. Two locks with one hash wake each other's waiters, who ask in vain; nothing else. After it
//! comes a space and, as eight digits, the process that has woken its own waiters already. Without that, everyone is meant,
//! also by a `w` behind the digits: it says that the process still has waiters. Processes take turns by that, see
//! [`rotation`](acteon_state_core::lock::rotation). This is what nodes of different versions tell each other: it must not change.
//!
//! Notifications that come up while a statement is under way are gathered for the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acteon_state_core::StateKey;
use acteon_state_core::lock::line::Lines;
use acteon_state_core::lock::rotation::Rotation;
use parking_lot::Mutex;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgListener, PgPoolOptions};
use sqlx::{Arguments as _, Executor as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::Connector;
use crate::hand_over::Offers;
use crate::lane::Lane;
use crate::names::Names;
use crate::store::{Statement, Writing};

/// Sends notifications, committed without waiting for the disk: after a crash nobody listens any more.
const NOTIFY: &str = "SELECT pg_notify($1, payload) FROM {t}durability(true), unnest($2::text[]) AS payload";
/// How often a lock is handed over at home before the waiters of all nodes have the same chance, those of this one last. Handing
/// over at home costs one commit, between nodes three trips: rare enough to keep most of that, often enough that a waiter
/// elsewhere waits for a few hand-overs, not for the end of all.
const AT_HOME_MAX: u32 = 15;
/// For how long, counted from the first of them: who holds the lock for longer than that does not save much by handing it over at home.
/// Where a release takes long, for as many releases.
const AT_HOME_TIME_MIN: Duration = Duration::from_millis(20);
const AT_HOME_RELEASES: u32 = 8;
/// How long our own notification may take to come back, before the first waiter here asks without it.
const ECHO_MAX: Duration = Duration::from_millis(100);
/// The most locks whose notifications are kept for the next statement. Beyond, waiters find out by themselves.
const PENDING_MAX: usize = 10_000;
/// How long the listening connection stays open without waiters.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often the listening connection is asked for a sign of life, and whether it is still needed.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long it may take to give one, to connect, and to say goodbye.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause before the next attempt to listen; doubled up to the second.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Who waits for which lock in this process, and how they are woken.
pub(crate) struct Waiters {
    pub(crate) lines: Arc<Lines>,
    /// What they want, for whoever releases the lock.
    pub(crate) offers: Offers,
    /// Acquisitions under way and the withdrawals that they leave behind.
    pub(crate) acquisitions: TaskTracker,
    /// Ends all waits.
    pub(crate) closed: CancellationToken,
    channel: String,
    notify_sql: Arc<str>,
    /// Drawn at random: tells our own notifications from those of other processes.
    origin: u32,
    /// Somebody waits.
    wanted: Notify,
    is_listening: AtomicBool,
    // What to tell, by lock; locked for an insertion or a swap only.
    pending: Mutex<HashMap<u64, Audience>>,
    has_pending: Notify,
    // By lock, of those that somebody waits for here; locked for a look-up and a step only.
    turns: Mutex<HashMap<u64, Turns>>,
}

/// Turns of this process and of others with one lock.
#[derive(Default)]
struct Turns {
    rotation: Rotation,
    /// How often the lock was handed over at home since all had the same chance, and when first.
    at_home: u32,
    at_home_since: Option<Instant>,
    /// How long the last release took, its commit included.
    release_took: Duration,
    /// The first waiter was last woken from here, not by a notification.
    is_woken_here: bool,
    /// How often the lock was left to all nodes, and whether no notification of it has come since.
    left_home: u64,
    is_untold: bool,
}

/// Who is to be told of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Other processes; the waiters of this one are awake.
    Others,
    /// All processes at the same time, this one among them.
    Everyone,
}

/// The hash that notifications carry. See the module: it must not change.
pub(crate) fn lock_hash(key: &StateKey) -> u64 {
    key.text().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The name of the line of waiters.
pub(crate) fn line_name(hash: u64) -> String {
    format!("{hash:016x}")
}

impl Waiters {
    pub(crate) fn new(names: &Names) -> Arc<Self> {
        Arc::new(Self {
            lines: Arc::default(),
            offers: Offers::default(),
            acquisitions: TaskTracker::new(),
            closed: CancellationToken::new(),
            channel: channel(names),
            notify_sql: names.sql(NOTIFY),
            origin: rand::random(),
            wanted: Notify::new(),
            is_listening: AtomicBool::new(false),
            pending: Mutex::default(),
            has_pending: Notify::new(),
            turns: Mutex::default(),
        })
    }

    /// Whether notifications arrive at the moment.
    pub(crate) fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Acquire)
    }

    /// Asks for notifications. To be called after joining a line.
    pub(crate) fn want_notifications(&self) {
        if !self.is_listening() {
            self.wanted.notify_one();
        }
    }

    /// Whether a release here is to be handed over to the first waiter here; otherwise, after so many in a row, it is the others' turn.
    pub(crate) fn stays_at_home(&self, hash: u64, now: Instant) -> bool {
        let mut turns = self.turns.lock();
        let turns = turns.entry(hash).or_default();
        let since = *turns.at_home_since.get_or_insert(now);
        let time_max = AT_HOME_TIME_MIN.max(turns.release_took * AT_HOME_RELEASES);
        let stays = turns.at_home < AT_HOME_MAX && now.saturating_duration_since(since) < time_max;
        (turns.at_home, turns.at_home_since) = if stays { (turns.at_home + 1, Some(since)) } else { (0, None) };
        stays
    }

    /// Remembers how long a release took, of a lock that others wait for here. Where nobody did, it need not be left to other nodes soon.
    pub(crate) fn released(&self, hash: u64, took: Duration, was_waited_for: bool) {
        if let Some(turns) = self.turns.lock().get_mut(&hash) {
            turns.release_took = took;
            if !was_waited_for {
                (turns.at_home, turns.at_home_since) = (0, None);
            }
        }
    }

    /// Lets the first waiter here ask after a while, unless a notification comes before.
    pub(crate) fn wake_unless_told(self: &Arc<Self>, hash: u64) {
        let number = {
            let mut turns = self.turns.lock();
            let turns = turns.entry(hash).or_default();
            turns.left_home += 1;
            turns.is_untold = true;
            turns.left_home
        };
        let waiters = self.clone();
        tokio::spawn(async move {
            let is_over = waiters.closed.run_until_cancelled(tokio::time::sleep(ECHO_MAX)).await;
            if is_over.is_some() && waiters.is_untold(hash, number) {
                waiters.wake_here(hash);
            }
        });
    }

    fn is_untold(&self, hash: u64, number: u64) -> bool {
        self.turns.lock().get(&hash).is_some_and(|turns| turns.is_untold && turns.left_home == number)
    }

    /// Lets the first waiter here ask at once.
    pub(crate) fn wake_here(&self, hash: u64) {
        if let Some(turns) = self.turns.lock().get_mut(&hash) {
            turns.is_woken_here = true;
        }
        self.lines.wake(&line_name(hash));
    }

    /// How long the first waiter, having been woken, lets those of other processes go first.
    pub(crate) fn head_start_of_others(&self, hash: u64) -> Duration {
        match self.turns.lock().get(&hash) {
            Some(turns) if !turns.is_woken_here => turns.rotation.head_start_of_others(self.origin.into()),
            _ => Duration::ZERO,
        }
    }

    /// Tells other nodes, in the background.
    pub(crate) fn notify(&self, hash: u64, audience: Audience) {
        let mut pending = self.pending.lock();
        if pending.len() >= PENDING_MAX {
            return;
        }
        let told = pending.entry(hash).or_insert(audience);
        if audience == Audience::Everyone {
            *told = audience;
        }
        drop(pending);
        self.has_pending.notify_one();
    }

    /// Sends notifications until the store is closed.
    pub(crate) async fn keep_telling(self: Arc<Self>, writing: Arc<Lane<Writing>>, closed: CancellationToken) {
        loop {
            tokio::select! {
                () = self.has_pending.notified() => self.tell(&writing).await,
                () = closed.cancelled() => return,
            }
        }
    }

    /// Sends what is pending.
    pub(crate) async fn tell(&self, writing: &Lane<Writing>) {
        let pending = std::mem::take(&mut *self.pending.lock());
        if pending.is_empty() {
            return;
        }
        let payloads = pending.into_iter().map(|(hash, audience)| payload(hash, audience, self.origin)).collect();
        let told = match self.notify_arguments(payloads) {
            Ok(arguments) => writing.submit(Statement { sql: self.notify_sql.clone(), arguments }).await.map(|_| ()),
            Err(error) => return tracing::error!(%error, "notifications cannot be encoded"),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "those who wait for locks on other nodes were not told; they find out by themselves");
        }
    }

    fn notify_arguments(&self, payloads: Vec<String>) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(&self.channel)?;
        arguments.add(payloads)?;
        Ok(arguments)
    }

    /// Listens whenever somebody waits, until the store is closed.
    pub(crate) async fn keep_listening(self: Arc<Self>, connector: Arc<Connector>, closed: CancellationToken) {
        closed.run_until_cancelled(self.listen_when_wanted(&connector)).await;
        self.is_listening.store(false, Ordering::Release);
    }

    async fn listen_when_wanted(&self, connector: &Connector) {
        let mut delay = RETRY_DELAY_MIN;
        loop {
            while self.lines.is_empty() {
                self.wanted.notified().await;
            }
            let outcome = self.listen(connector).await;
            if self.is_listening.swap(false, Ordering::AcqRel) {
                delay = RETRY_DELAY_MIN;
            }
            let Err(error) = outcome else { continue };
            tracing::debug!(%error, "those who wait for locks are without notifications; they ask more often meanwhile");
            // Half of it at random: many nodes lose their server at the same moment.
            tokio::time::sleep(delay.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }

    /// Listens on a connection of its own until nobody has waited for a while, or it is lost.
    async fn listen(&self, connector: &Connector) -> sqlx::Result<()> {
        // The listener insists on a pool; it holds just this connection, and nothing is ever put back into it.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ANSWER_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(connector.options());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        timeout(ANSWER_TIMEOUT, listener.listen(&self.channel)).await.map_err(no_answer)??;
        self.is_listening.store(true, Ordering::Release);
        // What was released before was not heard.
        self.turns.lock().clear();
        self.lines.wake_all();
        let outcome = self.hear(&mut listener).await;
        drop(listener);
        let _ = timeout(ANSWER_TIMEOUT, pool.close()).await;
        outcome
    }

    async fn hear(&self, listener: &mut PgListener) -> sqlx::Result<()> {
        let mut idle_since = Instant::now();
        let mut check_at = idle_since + CHECK_INTERVAL;
        loop {
            if let Ok(heard) = timeout_at(check_at, listener.try_recv()).await {
                let notification = heard?.ok_or_else(|| sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()))?;
                self.on_notification(notification.payload());
                continue;
            }
            self.forget_turns();
            let now = Instant::now();
            if !self.lines.is_empty() {
                idle_since = now;
            } else if now - idle_since >= IDLE_MAX {
                return Ok(());
            }
            timeout(ANSWER_TIMEOUT, listener.execute("SELECT 1")).await.map_err(no_answer)??;
            check_at = Instant::now() + CHECK_INTERVAL;
        }
    }

    fn on_notification(&self, payload: &str) {
        let (lock, origin) = payload.split_once(' ').unwrap_or((payload, ""));
        let (origin, waits_on) = origin.strip_suffix('w').map_or((origin, false), |origin| (origin, true));
        let origin = u32::from_str_radix(origin, 16).ok();
        if let Ok(hash) = u64::from_str_radix(lock, 16)
            && self.lines.has_waiters(lock)
        {
            let mut turns = self.turns.lock();
            let turns = turns.entry(hash).or_default();
            turns.is_woken_here = false;
            turns.is_untold = false;
            if let Some(origin) = origin {
                turns.rotation.released(origin.into(), waits_on);
            }
        }
        if waits_on || origin != Some(self.origin) {
            self.lines.wake(lock);
        }
    }

    /// Forgets the turns with locks that nobody waits for here.
    fn forget_turns(&self) {
        self.turns.lock().retain(|hash, _| self.lines.has_waiters(&line_name(*hash)));
    }
}

fn payload(hash: u64, audience: Audience, origin: u32) -> String {
    match audience {
        Audience::Others => format!("{} {origin:08x}", line_name(hash)),
        // Those who release to everyone do it because others wait where they are.
        Audience::Everyone => format!("{} {origin:08x}w", line_name(hash)),
    }
}

/// The channel of a schema and prefix. It is a database's own name space, and at most 63 bytes long: hence a hash.
fn channel(names: &Names) -> String {
    let name = names.qualified("");
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("acteon_locks_{hash:016x}")
}

fn no_answer(_: tokio::time::error::Elapsed) -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use acteon_state_core::lock::line::Woken;
    use tokio::time::Instant;

    use super::{AT_HOME_MAX, AT_HOME_RELEASES, AT_HOME_TIME_MIN, Audience, Waiters, line_name, payload};
    use crate::names::Names;

    const LOCK: u64 = 0xfeed;
    /// Far longer than a busy machine takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn waiters() -> Arc<Waiters> {
        Waiters::new(&Names::new("public", "acteon_").unwrap())
    }

    #[test]
    fn nodes_take_turns_by_what_they_are_told() {
        let (here, there) = (waiters(), waiters());
        let _place = here.lines.join(&line_name(LOCK), None);
        for origin in [here.origin, there.origin] {
            here.on_notification(&payload(LOCK, Audience::Everyone, origin));
        }
        assert!(here.head_start_of_others(LOCK).is_zero(), "it had the lock longest ago");
        here.on_notification(&payload(LOCK, Audience::Everyone, here.origin));
        assert!(!here.head_start_of_others(LOCK).is_zero(), "the other one waits too");
        here.wake_here(LOCK);
        assert_eq!(here.head_start_of_others(LOCK), Duration::ZERO, "a hand-over at home lets nobody go first");
        here.on_notification(&payload(LOCK, Audience::Others, there.origin));
        assert_eq!(here.head_start_of_others(LOCK), Duration::ZERO, "nobody waits there any more");
    }

    #[test]
    fn a_lock_leaves_home_after_so_many_hand_overs() {
        let waiters = waiters();
        let now = Instant::now();
        let stays: Vec<bool> = (0..=AT_HOME_MAX).map(|_| waiters.stays_at_home(LOCK, now)).collect();
        assert_eq!(stays.iter().position(|stays| !stays), Some(AT_HOME_MAX as usize));
        assert!(waiters.stays_at_home(LOCK, now));
        waiters.forget_turns();
        assert!(waiters.turns.lock().is_empty());
    }

    /// Where the listening connection was dead and nobody had noticed, it slept for a second at each release of a lock that was held for long.
    #[tokio::test]
    async fn the_first_waiter_asks_although_its_own_notification_is_lost() {
        let waiters = waiters();
        let place = waiters.lines.join(&line_name(LOCK), Some(waiters.lines.wakes()));
        let woken = async || tokio::time::timeout(PATIENCE, place.woken()).await;
        waiters.wake_unless_told(LOCK);
        assert!(waiters.is_untold(LOCK, 1));
        assert_eq!(woken().await, Ok(Woken::Ask));
        waiters.wake_unless_told(LOCK);
        assert!(!waiters.is_untold(LOCK, 1), "it is about the last one");
        waiters.on_notification(&payload(LOCK, Audience::Everyone, waiters.origin));
        assert_eq!(woken().await, Ok(Woken::Ask));
        assert!(!waiters.is_untold(LOCK, 2), "it came back");
    }

    /// The span was counted from a hand-over long ago, so the first one after a quiet time left home.
    #[test]
    fn the_time_at_home_is_counted_while_somebody_waits() {
        let waiters = waiters();
        let now = Instant::now();
        assert!(waiters.stays_at_home(LOCK, now));
        waiters.released(LOCK, Duration::ZERO, true);
        waiters.released(LOCK, Duration::ZERO, false);
        assert!(waiters.stays_at_home(LOCK, now + AT_HOME_TIME_MIN * 100));
    }

    #[test]
    fn a_lock_that_is_held_for_long_leaves_home_sooner() {
        let waiters = waiters();
        let now = Instant::now();
        assert!(waiters.stays_at_home(LOCK, now));
        assert!(waiters.stays_at_home(LOCK, now + AT_HOME_TIME_MIN / 2));
        assert!(!waiters.stays_at_home(LOCK, now + AT_HOME_TIME_MIN));
        let later = now + AT_HOME_TIME_MIN;
        assert!(waiters.stays_at_home(LOCK, later), "the next time begins anew");
        // It is not held for long, only committed slowly.
        waiters.released(LOCK, AT_HOME_TIME_MIN, true);
        assert!(waiters.stays_at_home(LOCK, later + AT_HOME_TIME_MIN * (AT_HOME_RELEASES - 1)));
        assert!(!waiters.stays_at_home(LOCK, later + AT_HOME_TIME_MIN * AT_HOME_RELEASES));
    }
}
