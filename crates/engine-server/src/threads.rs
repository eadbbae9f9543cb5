//! Threads that answer connections, each with a runtime of its own.
//!
//! # Guarantees
//! A connection is answered by one thread from its first byte to its last: the one that had the fewest when it came.
//!
//! # How it works
//! Threads that share one runtime also share what its sockets report: one of them hears of it, and wakes others, which costs more than a short
//! command does. A thread with a runtime of its own hears of its own sockets only. The runtimes are of the kind that has several threads,
//! with one each: a script that runs for long hands the others' connections over to a further thread (`block_in_place`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

/// What carries out the connections of a server.
#[derive(Default)]
pub(crate) struct Threads(Vec<Thread>);

struct Thread {
    /// Taken when it ends.
    runtime: Option<Runtime>,
    seats: Arc<AtomicUsize>,
}

/// The place of a connection on its thread.
pub(crate) struct Seat {
    pub(crate) runtime: Handle,
    taken: Arc<AtomicUsize>,
}

impl Threads {
    /// Starts as many; with none, connections stay where they are accepted.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(Thread::start).collect::<io::Result<_>>().map(Self)
    }

    /// A place on the thread with the fewest connections.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let thread = self.0.iter().min_by_key(|thread| thread.seats.load(Ordering::Relaxed))?;
        let taken = Arc::clone(&thread.seats);
        taken.fetch_add(1, Ordering::Relaxed);
        Some(Seat { runtime: thread.runtime.as_ref()?.handle().clone(), taken })
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(format!("engine-{number}")).enable_all();
        Ok(Self { runtime: Some(builder.build()?), seats: Arc::default() })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // It may be dropped by a task, which must not wait for threads to end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Threads;

    #[tokio::test]
    async fn connections_go_where_there_are_fewest() {
        let threads = Threads::start(2).expect("threads can be started");
        let seats: Vec<_> = (0..4).filter_map(|_| threads.seat()).collect();
        let ids: Vec<_> = seats.iter().map(|seat| seat.runtime.id()).collect();
        assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
        assert_ne!(ids[0], ids[1]);
        drop(seats);
        assert!(threads.0.iter().all(|thread| thread.seats.load(std::sync::atomic::Ordering::Relaxed) == 0));
    }

    #[test]
    fn without_threads_there_is_no_seat() {
        assert!(Threads::start(0).expect("nothing is started").seat().is_none());
    }
}
