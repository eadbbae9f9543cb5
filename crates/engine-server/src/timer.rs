//! The one timer of a connection, which most connections never start.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at a moment that may change from one look to the next. Moving the moment away costs nothing: the timer fires early once and is
/// set again then.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    has_fired: bool,
}

impl Timer {
    /// Whether `deadline` has passed. Otherwise the task is woken when it does.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if self.has_fired || deadline < sleep.deadline() {
            self.has_fired = false;
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= deadline {
                self.has_fired = true;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Timer;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_or_closer_is_met() {
        let (mut timer, start) = (Timer::default(), Instant::now());
        let after = |ms| Some(start + Duration::from_millis(ms));
        let pending = poll_fn(|context| std::task::Poll::Ready(timer.poll(after(10), context))).await;
        assert!(pending.is_pending());
        poll_fn(|context| timer.poll(after(50), context)).await;
        assert_eq!(start.elapsed(), Duration::from_millis(50));
        let pending = poll_fn(|context| std::task::Poll::Ready(timer.poll(after(500), context))).await;
        assert!(pending.is_pending());
        poll_fn(|context| timer.poll(after(100), context)).await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }
}
