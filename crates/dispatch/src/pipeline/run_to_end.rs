//! Work that is finished whatever becomes of its caller, without a task of its own unless it has to wait.
//!
//! # Guarantees
//! Work that was begun ends, also when its caller goes away; it is tracked, so that a shutdown can wait for it. Its panic is an error here
//! and goes no further. Work whose caller went away before the first poll was never begun. A deadline of the caller's for state calls is
//! none for the work, in its first step either; other task-locals of the caller are there in the first step, and not after it.
//!
//! # How it works
//! The first step is taken in the caller's task. With a store in this process and a provider that answers at once, that step is all there
//! is: no task is made, and no thread is woken. Work that has to wait goes on as a task. Nothing is awaited in between, so the caller
//! cannot go away in between. Before the first step the runtime may turn to other tasks, as wherever a task waits: otherwise a caller with
//! one piece of such work after the other would keep its thread for itself. What had noted whom to wake in the first step wakes the
//! caller, which does no harm; the task asks again by itself.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use acteon_state_core::layer::deadline;
use tokio::task::consume_budget;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Work that panicked, or whose runtime was shut down.
#[derive(Debug)]
pub struct Unfinished {
    message: String,
}

/// Runs `work` to its end, and waits for it. Dropping the future stops waiting, not the work. A task that it becomes runs in the caller's
/// span, so that its log lines carry the id of the request.
///
/// Boxed, since it is moved on its way.
///
/// # Errors
/// [`Unfinished`] when it panicked.
pub async fn run_to_end<T: Send + 'static>(
    tasks: &TaskTracker,
    work: Pin<Box<impl Future<Output = T> + Send + 'static>>,
) -> Result<T, Unfinished> {
    consume_budget().await;
    let mut work = tasks.track_future(work);
    let first_step = poll_fn(|context| {
        let step = || deadline::without(|| Pin::new(&mut work).poll(context));
        // A future that panicked is dropped and not polled again, so nobody sees it half changed.
        Poll::Ready(catch_unwind(AssertUnwindSafe(step)))
    });
    match first_step.await {
        Ok(Poll::Ready(result)) => Ok(result),
        Ok(Poll::Pending) => tokio::spawn(work.in_current_span()).await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => Unfinished::of(&*panic),
            Err(error) => Unfinished { message: error.to_string() },
        }),
        Err(panic) => Err(Unfinished::of(&*panic)),
    }
}

impl Unfinished {
    fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self { message: format!("it panicked: {}", text.unwrap_or("no message")) }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unfinished {}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Poll;

    use tokio::sync::{Notify, oneshot};
    use tokio_util::task::TaskTracker;

    use super::run_to_end;

    #[tokio::test]
    async fn work_that_need_not_wait_is_done_in_the_callers_task() {
        let tasks = TaskTracker::new();
        let caller = tokio::spawn(async move {
            let work = Box::pin(async { tokio::task::id() });
            (tokio::task::id(), run_to_end(&tasks, work).await.expect("done"), tasks.len())
        });
        let (own, of_work, left) = caller.await.expect("no panic");
        assert_eq!((own, left), (of_work, 0));
    }

    #[tokio::test]
    async fn work_that_waits_ends_without_its_caller_and_can_be_waited_for() {
        let (tasks, go, is_done) = (TaskTracker::new(), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let work = {
            let (go, is_done) = (go.clone(), is_done.clone());
            Box::pin(async move {
                go.notified().await;
                is_done.store(true, Ordering::SeqCst);
            })
        };
        let mut waiting = Box::pin(run_to_end(&tasks, work));
        let first = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
        assert!(first.is_pending());
        drop(waiting);
        assert_eq!(tasks.len(), 1);
        go.notify_one();
        tasks.close();
        tasks.wait().await;
        assert!(is_done.load(Ordering::SeqCst));
    }

    /// A caller with much to dispatch, over a store in this process, was never interrupted: its thread was lost to all others, and nobody could
    /// end it.
    #[tokio::test]
    async fn a_caller_that_never_has_to_wait_lets_others_run() {
        let (tasks, is_over) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
        let other = tokio::spawn({
            let is_over = is_over.clone();
            async move { is_over.store(true, Ordering::SeqCst) }
        });
        let many = 10_000;
        let mut done = 0;
        while !is_over.load(Ordering::SeqCst) && done < many {
            run_to_end(&tasks, Box::pin(async {})).await.expect("done");
            done += 1;
        }
        assert!(done < many, "the other task had its turn");
        other.await.expect("no panic");
    }

    #[tokio::test]
    async fn work_that_was_never_begun_is_never_done() {
        let tasks = TaskTracker::new();
        let (sender, receiver) = oneshot::channel::<()>();
        let work = Box::pin(async move {
            let _ = sender.send(());
        });
        drop(run_to_end(&tasks, work));
        receiver.await.expect_err("the work was dropped");
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_in_the_first_step_and_later() {
        let tasks = TaskTracker::new();
        let at_once = run_to_end(&tasks, Box::pin(async { panic!("at {}", "once") })).await;
        let later = run_to_end(
            &tasks,
            Box::pin(async {
                tokio::task::yield_now().await;
                panic!("later")
            }),
        );
        let results: [Result<(), _>; 2] = [at_once, later.await];
        let messages = results.map(|result| result.expect_err("panicked").to_string());
        assert_eq!(messages, ["it panicked: at once", "it panicked: later"]);
        assert!(tasks.is_empty());
    }
}
