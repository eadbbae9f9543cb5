//! A stream that lets requests gather before it writes them.
//!
//! The multiplexer is woken by the first of many tasks that have something to send, and would write that one request by
//! itself: a system call here, one more at the server, and a packet, for each. So a write steps back once, behind the tasks
//! that are ready to run, and takes along what they send. That needs no timer.
//!
//! A task that is alone has nothing to wait for, and stepping back could wake another thread for nothing. So a write steps
//! back only where the last one gained by it, or where an earlier one is still unanswered: then there is somebody else.
//!
//! Nagle's algorithm would gather as well, but holds small requests back for as long as the server takes to acknowledge what
//! was sent before: up to 40 ms when it is busy with a slow command.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From this much on, a system call costs little beside the bytes that it moves.
const ENOUGH_BYTES: usize = 8 * 1024;

/// See the module.
pub(crate) struct Gather<S> {
    stream: S,
    /// How many bytes there were when this write stepped back; `None` when it did not.
    before: Option<usize>,
    /// Whether the last write that stepped back found more bytes afterwards.
    has_paid: bool,
    /// Whether something was read since the last write.
    is_answered: bool,
}

impl<S> Gather<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, before: None, has_paid: false, is_answered: true }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let is_alone = self.is_answered && !self.has_paid;
        if self.before.is_none() && !is_alone && bytes.len() < ENOUGH_BYTES {
            self.before = Some(bytes.len());
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        if let Some(before) = self.before.take() {
            self.has_paid = bytes.len() > before;
        }
        self.is_answered = false;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled_before = bytes.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, bytes);
        self.is_answered |= bytes.filled().len() > filled_before;
        read
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

    use super::{ENOUGH_BYTES, Gather};

    /// Whether the bytes were written rather than held back.
    fn is_written(gather: &mut Gather<DuplexStream>, bytes: &[u8]) -> bool {
        match pin!(gather).poll_write(&mut Context::from_waker(Waker::noop()), bytes) {
            Poll::Ready(written) => written.unwrap() == bytes.len(),
            Poll::Pending => false,
        }
    }

    async fn answer(gather: &mut Gather<DuplexStream>, theirs: &mut DuplexStream) {
        theirs.write_all(b"answer").await.unwrap();
        let mut bytes = [0; 16];
        let read = pin!(gather).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut bytes));
        assert!(read.is_ready());
    }

    #[tokio::test]
    async fn writes_step_back_only_where_others_may_join_them() {
        let (ours, mut theirs) = duplex(4 * ENOUGH_BYTES);
        let mut gather = Gather::new(ours);
        assert!(is_written(&mut gather, b"alone"));
        assert!(!is_written(&mut gather, b"beside one that waits"));
        assert!(is_written(&mut gather, b"beside one that waits, joined by another"));
        answer(&mut gather, &mut theirs).await;
        assert!(!is_written(&mut gather, b"after one that was joined"));
        assert!(is_written(&mut gather, b"after one that was joined"));
        answer(&mut gather, &mut theirs).await;
        assert!(is_written(&mut gather, b"after one that nobody joined"));
        assert!(is_written(&mut gather, &[b'x'; ENOUGH_BYTES]), "as large as it needs to be");
    }
}
