//! Wakes a connection from any thread: mail has arrived, a wait is over, or the server stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// The bell of one connection. Rings that come before it is listened to are kept as one.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    has_rung: AtomicBool,
    is_stopping: AtomicBool,
    listener: AtomicWaker,
}

/// The bells of all connections, so that they can be told to stop.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    all: Mutex<HashMap<u64, Arc<Wake>>>,
    /// Set while `all` is locked, so that a connection that comes at the same time is told as well.
    is_stopping: AtomicBool,
    ids: AtomicU64,
}

impl Wake {
    pub(crate) fn ring(&self) {
        self.has_rung.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Whether it has rung since this was asked last. Otherwise the task is woken when it does.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.has_rung.swap(false, Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.listener.register(context.waker());
        // It may have rung before anybody listened.
        if self.has_rung.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.ring();
    }
}

impl Wakes {
    /// A bell for a new connection, to be given back under its number.
    pub(crate) fn join(&self) -> (u64, Arc<Wake>) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Wake::default());
        let mut all = self.all.lock();
        if self.is_stopping.load(Ordering::Acquire) {
            wake.stop();
        }
        all.insert(id, wake.clone());
        (id, wake)
    }

    pub(crate) fn leave(&self, id: u64) {
        self.all.lock().remove(&id);
    }

    /// Tells all connections, and those to come.
    pub(crate) fn stop(&self) {
        let all = self.all.lock();
        self.is_stopping.store(true, Ordering::Release);
        all.values().for_each(|wake| wake.stop());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::Wakes;

    #[tokio::test]
    async fn a_ring_before_anybody_listens_is_heard_once() {
        let (_, wake) = Wakes::default().join();
        wake.ring();
        poll_fn(|context| wake.poll(context)).await;
        let heard = poll_fn(|context| std::task::Poll::Ready(wake.poll(context))).await;
        assert!(heard.is_pending());
    }

    #[tokio::test]
    async fn a_ring_from_another_thread_wakes_the_listener() {
        let (_, wake) = Wakes::default().join();
        let ringer = Arc::clone(&wake);
        let thread = std::thread::spawn(move || ringer.ring());
        poll_fn(|context| wake.poll(context)).await;
        thread.join().expect("no panic");
    }

    #[test]
    fn who_comes_after_the_stop_is_told_as_well() {
        let wakes = Wakes::default();
        let (_, before) = wakes.join();
        wakes.stop();
        let (_, after) = wakes.join();
        assert!(before.is_stopping() && after.is_stopping());
    }
}
