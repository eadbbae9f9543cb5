//! Moves the bytes of one connection: requests out, answers in, and whose time is over.
//!
//! # Failure
//! Whatever ends it, also being dropped, ends all calls.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::MutexGuard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::decode::{Decoder, Incoming};
use super::value::Value;
use super::{Farewell, OnPush, Shared};
use crate::gather::Gather;

/// What the buffer for answers begins with, and shrinks to after a large one.
const INPUT_BYTES: usize = 16 * 1_024;

/// What a buffer for requests may keep for the next ones.
const OUT_BYTES_KEPT: usize = 256 * 1_024;

/// See the module.
pub(super) struct Pump<S> {
    shared: Arc<Shared>,
    stream: S,
    on_push: OnPush,
    input: Input,
    decoder: Decoder,
    /// Requests that are being written, and how far.
    writing: Vec<u8>,
    written: usize,
    is_flushed: bool,
    gather: Gather,
    alarm: Pin<Box<Sleep>>,
    alarm_at: Option<Instant>,
    // Kept for the room that they have.
    arrived: Vec<Incoming>,
    woken: Vec<Waker>,
}

/// Bytes that arrived and are not read yet.
struct Input {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl<S> Pump<S> {
    pub(super) fn new(shared: Arc<Shared>, stream: S, on_push: OnPush) -> Self {
        Self {
            shared,
            stream,
            on_push,
            input: Input { bytes: vec![0; INPUT_BYTES], begin: 0, end: 0 },
            decoder: Decoder::default(),
            writing: Vec::new(),
            written: 0,
            is_flushed: true,
            gather: Gather::new(),
            alarm: Box::pin(sleep_until(Instant::now())),
            alarm_at: None,
            arrived: Vec::new(),
            woken: Vec::new(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Pump<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(why) => {
                self.shared.end(why);
                Poll::Ready(())
            }
        }
    }
}

impl<S> Drop for Pump<S> {
    fn drop(&mut self) {
        self.shared.end(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up"));
    }
}

/// Why writing has stopped.
enum Written {
    All,
    /// The other side takes no more.
    Blocked,
    /// Others shall come along.
    SteppedBack,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    /// Does what there is to do, and sees to being woken when there is more.
    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            self.read(cx)?;
            let written = match self.write(cx) {
                Ok(written) => written,
                Err(why) => {
                    // Answers that have arrived meanwhile count, and the server may say there why it hangs up.
                    self.read(cx)?;
                    return Err(why);
                }
            };
            let is_blocked = match written {
                Written::All => false,
                Written::Blocked => true,
                Written::SteppedBack => return Ok(()),
            };
            if self.alarm_at.is_some() && self.alarm.is_elapsed() {
                self.expire();
            }
            if self.falls_asleep(cx, is_blocked) {
                return Ok(());
            }
        }
    }

    /// Leaves a waker for whoever sends next, unless somebody has sent meanwhile, or the alarm has to be set anew.
    fn falls_asleep(&mut self, cx: &mut Context<'_>, is_blocked: bool) -> bool {
        let alarm_at = {
            let mut state = self.shared.state.lock();
            if state.alarm == self.alarm_at {
                let is_idle = is_blocked || state.calls.unsent_bytes() == 0;
                if is_idle {
                    state.pump = Some(cx.waker().clone());
                }
                return is_idle;
            }
            state.alarm
        };
        self.alarm_at = alarm_at;
        if let Some(at) = alarm_at {
            self.alarm.as_mut().reset(at);
            // Leaves the waker, also when this task has had its share of the processor: it would not be polled again. What is due
            // already is seen in the next turn.
            let _: Poll<()> = Pin::new(&mut unconstrained(self.alarm.as_mut())).poll(cx);
        }
        false
    }

    /// Ends the calls whose time is over.
    fn expire(&mut self) {
        {
            let mut state = self.shared.state.lock();
            let next = state.calls.expire(Instant::now(), &mut self.woken);
            state.alarm = next;
        }
        // It has rung.
        self.alarm_at = None;
        self.woken.drain(..).for_each(Waker::wake);
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let mut free = ReadBuf::new(self.input.free());
            match Pin::new(&mut self.stream).poll_read(cx, &mut free) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => read?,
            }
            let count = free.filled().len();
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
            self.gather.answered();
            self.input.end += count;
            let decoded = self.decode();
            // Whoever was answered before what cannot be read is.
            self.hand_out()?;
            decoded?;
        }
    }

    fn decode(&mut self) -> io::Result<()> {
        loop {
            let read = self.decoder.read(self.input.filled());
            let (count, incoming) = read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.input.begin += count;
            match incoming {
                Some(incoming) => self.arrived.push(incoming),
                None => return Ok(()),
            }
        }
    }

    /// Gives what has arrived to those who asked for it.
    fn hand_out(&mut self) -> io::Result<()> {
        let mut unasked = None;
        let mut state = self.shared.state.lock();
        for incoming in self.arrived.drain(..) {
            match state.calls.arrived(incoming, &mut self.woken) {
                None => {}
                // Nothing of ours is locked while others look at a message.
                Some(Incoming::Push(push)) => MutexGuard::unlocked(&mut state, || (self.on_push)(&push)),
                Some(Incoming::Reply(reply)) => unasked = Some(reply),
            }
        }
        drop(state);
        self.woken.drain(..).for_each(Waker::wake);
        match unasked {
            None => Ok(()),
            Some(Value::ServerError(error)) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, Farewell(error))),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the server answered what nobody asked")),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<Written> {
        loop {
            if self.written == self.writing.len() {
                match self.take_requests() {
                    Some(true) => {}
                    Some(false) => break,
                    None => {
                        // A task that wakes itself goes to the end of the queue.
                        cx.waker().wake_by_ref();
                        return Ok(Written::SteppedBack);
                    }
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.writing[self.written..]) {
                Poll::Pending => return Ok(Written::Blocked),
                Poll::Ready(written) => match written? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => self.written += count,
                },
            }
            self.is_flushed = false;
        }
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return Ok(Written::Blocked),
                Poll::Ready(flushed) => flushed?,
            }
            self.is_flushed = true;
        }
        Ok(Written::All)
    }

    /// Takes over the requests that wait, and returns whether there are any; `None` when others shall come along.
    fn take_requests(&mut self) -> Option<bool> {
        self.writing.clear();
        self.writing.shrink_to(OUT_BYTES_KEPT);
        self.written = 0;
        let mut state = self.shared.state.lock();
        let bytes = state.calls.unsent_bytes();
        if bytes == 0 {
            return Some(false);
        }
        if self.gather.steps_back(bytes) {
            return None;
        }
        let has_taken = state.calls.take(&mut self.writing, &mut self.woken);
        drop(state);
        self.woken.drain(..).for_each(Waker::wake);
        Some(has_taken)
    }
}

impl Input {
    fn filled(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    /// Room for more, at least one byte.
    fn free(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            if self.bytes.len() > INPUT_BYTES {
                // After a large answer. What the next ones need is known when they come.
                self.bytes.truncate(INPUT_BYTES);
                self.bytes.shrink_to_fit();
            }
        }
        if self.end == self.bytes.len() {
            if self.begin > 0 {
                self.bytes.copy_within(self.begin..self.end, 0);
                (self.begin, self.end) = (0, self.end - self.begin);
            } else {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }
}
