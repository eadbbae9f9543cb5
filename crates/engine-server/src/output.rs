//! The replies and messages that a client has not read yet, and the patience with it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use acteon_engine::OutputLimit;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// Room that is kept while nothing waits, as Redis keeps for each client.
const KEPT_BYTES: usize = 16 << 10;
/// What was sent is dropped from the front in pieces of at least this.
const DROPPED_BYTES_MIN: usize = 64 << 10;

/// Replies in the order in which they were given.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// What lies before this was sent.
    start: usize,
    /// Something was handed to the stream that it may keep to itself until it is flushed.
    is_unflushed: bool,
    /// Since when there has been more than the soft limit.
    soft_since: Option<Instant>,
}

impl Output {
    /// Where replies are appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether everything has been sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.len() == 0 && !self.is_unflushed
    }

    /// Sends as much as the stream takes, and returns how many bytes; ready also when only part of it could be sent.
    pub(crate) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut sent = 0;
        while self.len() > 0 {
            match Pin::new(&mut *stream).poll_write(context, &self.bytes[self.start..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    sent += count;
                    self.start += count;
                    self.is_unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if sent > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        self.compact();
        if self.len() == 0 && self.is_unflushed {
            match Pin::new(stream).poll_flush(context)? {
                Poll::Ready(()) => self.is_unflushed = false,
                Poll::Pending if sent == 0 => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        Poll::Ready(Ok(sent))
    }

    /// Whether the client lets more wait than it may.
    pub(crate) fn is_over(&mut self, limit: OutputLimit) -> bool {
        let len = self.len() as u64;
        if limit.hard_bytes > 0 && len > limit.hard_bytes {
            return true;
        }
        if limit.soft_bytes == 0 || len <= limit.soft_bytes {
            self.soft_since = None;
            return false;
        }
        let now = Instant::now();
        now.duration_since(*self.soft_since.get_or_insert(now)) >= Duration::from_secs(limit.soft_s)
    }

    /// When the patience with what waits now ends.
    pub(crate) fn over_at(&self, limit: OutputLimit) -> Option<Instant> {
        self.soft_since?.checked_add(Duration::from_secs(limit.soft_s))
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives room back that is not needed.
    pub(crate) fn compact(&mut self) {
        if self.len() == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.start = 0;
        } else if self.start >= DROPPED_BYTES_MIN && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use acteon_engine::OutputLimit;

    use super::Output;

    #[tokio::test]
    async fn everything_is_sent_in_order_through_a_narrow_stream() {
        let sent: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        let (mut stream, mut reader) = tokio::io::duplex(1_000);
        let mut output = Output::default();
        output.buffer().extend_from_slice(&sent);
        let reading = tokio::spawn(async move {
            let mut seen = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut seen).await.expect("readable");
            seen
        });
        let mut sent_bytes = 0;
        while !output.is_sent() {
            sent_bytes += poll_fn(|context| output.poll_send(&mut stream, context)).await.expect("writable");
        }
        assert_eq!(sent_bytes, sent.len());
        drop(stream);
        assert!(reading.await.expect("no panic") == sent);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_soft_limit_is_borne_for_its_time_only() {
        let limit = OutputLimit { hard_bytes: 100, soft_bytes: 10, soft_s: 60 };
        let mut output = Output::default();
        output.buffer().extend_from_slice(&[0; 11]);
        assert!(!output.is_over(limit));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!output.is_over(limit));
        assert_eq!(output.over_at(limit), Some(tokio::time::Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(output.is_over(limit));
    }

    #[tokio::test(start_paused = true)]
    async fn falling_below_the_soft_limit_begins_the_time_anew_and_the_hard_limit_waits_for_nothing() {
        let limit = OutputLimit { hard_bytes: 100, soft_bytes: 10, soft_s: 60 };
        let mut output = Output::default();
        output.buffer().extend_from_slice(&[0; 11]);
        assert!(!output.is_over(limit));
        tokio::time::advance(Duration::from_secs(59)).await;
        output.buffer().truncate(10);
        assert!(!output.is_over(limit));
        tokio::time::advance(Duration::from_secs(59)).await;
        output.buffer().push(0);
        assert!(!output.is_over(limit));
        output.buffer().extend_from_slice(&[0; 90]);
        assert!(output.is_over(limit));
    }
}
