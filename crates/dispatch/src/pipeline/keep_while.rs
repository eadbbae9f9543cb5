//! Keeps something alive while work goes on: a lock, or a claim, that is renewed for as long as the work takes.
//!
//! # How it works
//! Work that is done in its first step, as with a store in this process and a provider that answers at once, needs no renewal: its future is
//! made, with its timers, only when the work has to wait. Boxed then, so that what is seldom needed takes no room in the future of every
//! dispatch.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Runs `work` to its end, and polls what `keep` makes while it waits. What is kept may be lost before: then `lost` is called once, and the
/// work goes on without.
///
/// The work is pinned by the caller: taken as it is, it would have a place in this future as an argument and another one as what is polled.
pub(super) async fn keep_while<T, K: Future<Output = ()>>(
    mut work: Pin<&mut impl Future<Output = T>>,
    keep: impl FnOnce() -> K,
    lost: impl FnOnce(),
) -> T {
    let (mut keep, mut keeping) = (Some(keep), None);
    let ended = poll_fn(|context| {
        // The work first: when it ends as it loses what it needed, it has ended.
        if let Poll::Ready(result) = work.as_mut().poll(context) {
            return Poll::Ready(Some(result));
        }
        if keeping.is_none() {
            keeping = keep.take().map(|keep| Box::pin(keep()));
        }
        keeping.as_mut().map_or(Poll::Pending, |keeping| keeping.as_mut().poll(context)).map(|()| None)
    });
    match ended.await {
        Some(result) => result,
        None => {
            lost();
            work.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::pin::pin;

    use tokio::sync::oneshot;

    use super::keep_while;

    #[tokio::test]
    async fn work_that_need_not_wait_is_kept_by_nothing() {
        let keep = || -> std::future::Pending<()> { panic!("nothing is to be kept") };
        assert_eq!(keep_while(pin!(ready(7)), keep, || panic!("nothing was lost")).await, 7);
    }

    #[tokio::test]
    async fn what_is_lost_is_told_once_and_the_work_goes_on() {
        let (end, ended) = oneshot::channel();
        let losses = Cell::new(0);
        let lost = || {
            losses.set(losses.get() + 1);
            end.send(5).expect("the work waits for it");
        };
        assert_eq!(keep_while(pin!(ended), || ready(()), lost).await, Ok(5));
        assert_eq!(losses.get(), 1);
    }

    #[tokio::test]
    async fn the_end_of_the_work_ends_the_keeping() {
        let work = pin!(async {
            tokio::task::yield_now().await;
            3
        });
        assert_eq!(keep_while(work, pending::<()>, || panic!("nothing was lost")).await, 3);
    }
}
