//! The bytes that a client has sent and that were not carried out yet.
//!
//! # How it works
//! Bytes are read into a chunk on the stack and copied from there, so that a connection that waits for its next command holds next to
//! no memory. Where a large argument is known to come, they are read to their place at once.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes that are read at once: as much as a client with a long pipeline sends in one piece.
const CHUNK_BYTES: usize = 16 << 10;
/// Room that is kept while nothing waits.
const KEPT_BYTES: usize = 1 << 10;
/// Room that is made for a large argument on the word of its header alone; after that it doubles as bytes arrive.
const RESERVED_BYTES_MIN: usize = 64 << 10;

/// Requests in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    /// What lies before this was carried out.
    start: usize,
}

impl Input {
    /// What is still to be carried out.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Room that is taken beyond that.
    pub(crate) fn free(&self) -> usize {
        self.bytes.capacity() - self.len()
    }

    /// Drops the first bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len(), "no more than there is can be dropped");
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.start = 0;
        }
    }

    /// Reads what has arrived, and returns how many bytes; zero means that there will be no more. `wanted` is the length below
    /// which nothing can be carried out.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.compact();
        let missing = wanted.saturating_sub(self.len());
        if missing > CHUNK_BYTES {
            self.bytes.reserve(missing.min(self.len().max(RESERVED_BYTES_MIN)));
            return poll_read_buf(Pin::new(stream), context, &mut self.bytes);
        }
        poll_chunk(stream, context, |chunk| self.bytes.extend_from_slice(chunk))
    }

    /// Reads what has arrived, and forgets it with all that came before.
    pub(crate) fn poll_skip<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.consume(self.len());
        poll_chunk(stream, context, |_| ())
    }

    /// Moves what is left to the front, once that is less than what it makes room for.
    fn compact(&mut self) {
        if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

fn poll_chunk<S: AsyncRead + Unpin>(
    stream: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut chunk = [MaybeUninit::uninit(); CHUNK_BYTES];
    let mut chunk = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(stream).poll_read(context, &mut chunk))?;
    take(chunk.filled());
    Poll::Ready(Ok(chunk.filled().len()))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::{Input, KEPT_BYTES};

    #[tokio::test]
    async fn bytes_stay_in_order_through_small_and_large_reads() {
        let sent: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        let (mut stream, mut input, mut seen) = (sent.as_slice(), Input::default(), Vec::new());
        while seen.len() + input.len() < sent.len() {
            let wanted = if seen.len() % 2 == 0 { 1 } else { input.len() + 100_000 };
            poll_fn(|context| input.poll_fill(&mut stream, wanted, context)).await.expect("readable");
            let count = input.len().div_ceil(3);
            seen.extend_from_slice(&input.bytes()[..count]);
            input.consume(count);
        }
        seen.extend_from_slice(input.bytes());
        assert!(seen == sent);
    }

    #[tokio::test]
    async fn what_was_carried_out_gives_its_room_back() {
        let sent = vec![b'x'; 200_000];
        let (mut stream, mut input) = (sent.as_slice(), Input::default());
        while input.len() < sent.len() {
            poll_fn(|context| input.poll_fill(&mut stream, sent.len(), context)).await.expect("readable");
        }
        input.consume(sent.len());
        assert!(input.bytes.capacity() <= KEPT_BYTES);
    }
}
