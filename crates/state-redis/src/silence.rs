//! A stream that breaks when the other side is silent for too long.
//!
//! A server that is frozen, or cut off without a word, keeps its connections open. Calls have deadlines of their own; this is
//! for the connection: when nothing could be written for `write`, or nothing was read for `read` although something had been
//! written before, reading and writing fail with `TimedOut`, and the connection is replaced.
//!
//! Silence while nothing was asked is no fault: TCP keepalive looks after that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a stream may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) read: Duration,
    pub(crate) write: Duration,
}

/// See the module.
pub(crate) struct Silence<S> {
    stream: S,
    timeouts: Timeouts,
    /// Since when an answer is awaited: the first write after the last read.
    asked_at: Option<Instant>,
    /// Since when bytes wait to be written.
    stuck_at: Option<Instant>,
    /// Wakes the task to look. Left to ring, unless something is due before: one timer per timeout instead of one per request.
    alarm: Pin<Box<Sleep>>,
    /// When it rings, if it was set.
    set_for: Option<Instant>,
}

impl<S> Silence<S> {
    pub(crate) fn new(stream: S, timeouts: Timeouts) -> Self {
        let alarm = Box::pin(sleep_until(Instant::now()));
        Self { stream, timeouts, asked_at: None, stuck_at: None, alarm, set_for: None }
    }

    /// Called when nothing moves: fails when that has been so for too long, and otherwise sees to being called again.
    fn check<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let answer_due = self.asked_at.map(|at| (at + self.timeouts.read, "nothing was answered"));
        let write_due = self.stuck_at.map(|at| (at + self.timeouts.write, "nothing could be written"));
        let Some((due, what)) = [answer_due, write_due].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        loop {
            if self.set_for.is_none_or(|at| at > due) {
                if Instant::now() >= due {
                    let message = format!("the server was silent for too long: {what}");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)));
                }
                self.alarm.as_mut().reset(due);
                self.set_for = Some(due);
            }
            ready!(self.alarm.as_mut().poll(cx));
            // It may have been set for an earlier silence that is over.
            self.set_for = None;
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stuck_at = None;
            return poll;
        }
        self.stuck_at.get_or_insert_with(Instant::now);
        self.check(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Silence<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, bytes);
        if poll.is_pending() {
            return self.check(cx);
        }
        self.asked_at = None;
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Silence<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let poll = self.written(cx, poll);
        if poll.is_ready() && self.asked_at.is_none() {
            self.asked_at = Some(Instant::now());
            // Whoever writes may have looked for answers before, and would otherwise not be woken to look again. Nothing can be
            // due yet.
            let _: Poll<io::Result<()>> = self.check(cx);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io;
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::{Silence, Timeouts};

    const TIMEOUTS: Timeouts = Timeouts { read: Duration::from_secs(5), write: Duration::from_secs(2) };

    #[tokio::test(start_paused = true)]
    async fn silence_after_a_question_breaks_the_stream_at_its_time() {
        let (ours, _theirs) = duplex(64);
        let mut stream = Silence::new(ours, TIMEOUTS);
        stream.write_all(b"question").await.unwrap();
        let begin = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, TIMEOUTS.read));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_without_a_question_is_no_fault_and_an_answer_ends_the_wait() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = Silence::new(ours, TIMEOUTS);
        assert!(timeout(TIMEOUTS.read * 3, stream.read_u8()).await.is_err());
        for _ in 0..3 {
            stream.write_all(b"question").await.unwrap();
            sleep(TIMEOUTS.read / 2).await;
            theirs.write_all(b"a").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'a');
        }
        assert!(timeout(TIMEOUTS.read * 3, stream.read_u8()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_looks_for_answers_before_asking_is_woken_when_there_are_none() {
        let (ours, _theirs) = duplex(64);
        let mut stream = Silence::new(ours, TIMEOUTS);
        let (begin, mut is_asked) = (Instant::now(), false);
        let read: io::Result<()> = poll_fn(|cx| {
            let mut byte = [0];
            let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            // In this order, as the pump of a connection does it.
            is_asked = is_asked || Pin::new(&mut stream).poll_write(cx, b"question").is_ready();
            read
        })
        .await;
        assert_eq!((read.unwrap_err().kind(), begin.elapsed()), (io::ErrorKind::TimedOut, TIMEOUTS.read));
    }

    #[tokio::test(start_paused = true)]
    async fn the_shorter_time_counts_also_when_the_longer_one_began_before() {
        let (ours, _theirs) = duplex(64);
        let mut stream = Silence::new(ours, TIMEOUTS);
        stream.write_all(b"question").await.unwrap();
        assert!(timeout(Duration::from_millis(1), stream.read_u8()).await.is_err());
        let begin = Instant::now();
        let error = stream.write_all(&[b'x'; 100]).await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, TIMEOUTS.write));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_nobody_takes_break_the_stream() {
        let (ours, _theirs) = duplex(4);
        let mut stream = Silence::new(ours, TIMEOUTS);
        let begin = Instant::now();
        let error = stream.write_all(b"more than fits").await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, TIMEOUTS.write));
    }
}
