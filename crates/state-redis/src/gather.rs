//! A stream that lets requests gather before it writes them.
//!
//! The multiplexer is woken by the first of many tasks that have something to send, and would write that one request by
//! itself: a system call here, one more at the server, and a packet, for each. So a write steps back once, behind the tasks
//! that are ready to run, and takes along what they send. That needs no timer, and nothing waits when nothing else is ready.
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
    /// Whether this write has stepped back.
    has_stepped_back: bool,
}

impl<S> Gather<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, has_stepped_back: false }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.has_stepped_back && bytes.len() < ENOUGH_BYTES {
            self.has_stepped_back = true;
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.has_stepped_back = false;
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
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{ENOUGH_BYTES, Gather};

    #[tokio::test]
    async fn a_small_write_lets_ready_tasks_go_first_and_a_large_one_does_not() {
        let (ours, mut theirs) = duplex(2 * ENOUGH_BYTES);
        let mut gather = Gather::new(ours);
        let others = Arc::new(AtomicUsize::new(0));
        for (bytes, others_ran) in [(1, 1), (1, 2), (ENOUGH_BYTES, 2)] {
            let ran = others.clone();
            tokio::spawn(async move { ran.fetch_add(1, Ordering::Relaxed) });
            gather.write_all(&vec![b'x'; bytes]).await.unwrap();
            assert_eq!(others.load(Ordering::Relaxed), others_ran);
            theirs.read_exact(&mut vec![0; bytes]).await.unwrap();
        }
    }
}
