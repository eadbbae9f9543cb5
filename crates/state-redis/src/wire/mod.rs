//! One connection that many calls share: requests leave in the order in which they come, and so do their answers.
//!
//! # Guarantees
//! A request is written at most once. Each call ends at its deadline, and all of them when the connection does. A call that is
//! dropped takes no answer from anybody.
//!
//! # Failure
//! [`Failure`] says whether the request may have reached the server. One that the pump had not taken to write it, with those around
//! it, has changed nothing and never will: it is taken out again when its call ends.
//!
//! # How it works
//! A call takes a place in a table ([`calls`]), appends its request to a buffer that all share, and wakes the [`pump`] unless that is
//! at work. The pump is a task of its own: it writes what has gathered with one system call, reads answers by as many as have arrived,
//! and wakes the callers. So a call costs two short locks and no allocation but its request's, and under load neither a system call nor a wake-up of
//! the pump of its own.
//!
//! The pump also looks after deadlines, by one timer for all calls: it rings when the earliest deadline is over that was known when it was
//! set, which nearly always belongs to a call that has its answer by then. So calls end in time only as long as the runtime is driven on
//! which the connection was opened.
//!
//! # Bounds
//! Requests beyond [`OUT_BYTES_MAX`] that wait to be written make others wait. How many calls there are, their callers bound.

mod calls;
mod cmd;
mod decode;
mod outbox;
mod places;
mod pump;
mod value;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use calls::{Calls, Expects};
use places::Ticket;

pub(crate) use cmd::{Cmd, Pipeline};
pub(crate) use value::{ServerError, Value};

/// Bytes that may wait to be written before further requests wait for room. One request may be larger.
const OUT_BYTES_MAX: usize = 4 << 20;

/// Receives what the server sends without being asked. Must not block.
pub(crate) type OnPush = Arc<dyn Fn(&[Value]) + Send + Sync>;

/// What becomes of a call.
pub(crate) type Outcome = Result<Value, Failure>;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The deadline is over.
    TimedOut,
    /// The connection ended, and the answer with it.
    Lost(Arc<io::Error>),
    /// The request was not taken to be written, since the connection had ended, or was busy with others until the deadline. It never will be.
    NotSent(Option<Arc<io::Error>>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("there was no answer in time"),
            Self::NotSent(None) => f.write_str("the request could not be sent in time"),
            Self::Lost(why) | Self::NotSent(Some(why)) => write!(f, "the connection broke: {why}"),
        }
    }
}

/// An error that the server answered before it was asked anything: why it does not want the connection.
#[derive(Debug)]
pub(crate) struct Farewell(ServerError);

impl Farewell {
    /// What the server said, if the connection ended by that.
    pub(crate) fn of(error: &io::Error) -> Option<&ServerError> {
        error.get_ref()?.downcast_ref().map(|Self(error)| error)
    }
}

impl fmt::Display for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server said {} without being asked", self.0.code())
    }
}

impl std::error::Error for Farewell {}

/// Why there is no subscription.
#[derive(Debug)]
pub(crate) enum Refused {
    /// RESP2 has no messages between answers.
    NoPush,
    ByServer(ServerError),
    Failed(Failure),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPush => f.write_str("RESP2 has no messages between answers"),
            Self::ByServer(error) => write!(f, "the server answered {} {}", error.code(), error.details()),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

/// What callers share of a connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Wire {
    shared: Arc<Shared>,
    /// Whether messages can come in between answers.
    has_push: bool,
}

/// What is to be sent.
#[derive(Clone, Copy)]
pub(crate) enum Request<'a> {
    /// One reply.
    One(&'a Cmd),
    /// An array of as many replies.
    All(&'a Pipeline),
    /// A change of so many subscriptions.
    Confirmed(&'a Cmd, usize),
}

struct Shared {
    /// Known to callers at once, before anyone gets to replace it.
    broken: AtomicBool,
    // Locked to append a request, to take an answer, and to hand out those that arrived together; never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: Calls,
    /// Wakes the pump; `None` while it is awake, or was woken already.
    pump: Option<Waker>,
    /// When the pump has to look for calls whose time is over.
    alarm: Option<Instant>,
    /// Why nothing is sent any more.
    ended: Option<Arc<io::Error>>,
}

/// A call under way.
struct Call<'a> {
    shared: &'a Shared,
    /// Until it waits to be written.
    request: Option<Request<'a>>,
    deadline: Option<Instant>,
    ticket: Option<Ticket>,
}

impl Wire {
    /// Takes over a stream, over which the server can send messages in RESP3. The future moves its bytes, and the connection ends
    /// when it does.
    pub(crate) fn new<S>(stream: S, on_push: OnPush, has_push: bool) -> (Self, impl Future<Output = ()> + Send + use<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared { broken: AtomicBool::new(false), state: Mutex::default() });
        (Self { shared: shared.clone(), has_push }, pump::Pump::new(shared, stream, on_push))
    }

    /// Sends a request and waits for the answer, which may be an error of the server; without a deadline until the connection ends.
    pub(crate) fn call<'a>(
        &'a self,
        request: Request<'a>,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Outcome> + Send + use<'a> {
        Call { shared: &self.shared, request: Some(request), deadline, ticket: None }
    }

    /// Sends commands whose caller looks after the time. One reply each.
    pub(crate) async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
        match self.call(Request::All(pipeline), None).await? {
            Value::Array(replies) => Ok(replies),
            other => Ok(vec![other]),
        }
    }

    /// Subscribes to channels. Without messages, and where the server refuses, it returns why not.
    pub(crate) async fn subscribe(&self, channels: &[impl AsRef<[u8]>]) -> Result<(), Refused> {
        self.change_subscriptions("SUBSCRIBE", channels).await
    }

    /// The opposite.
    pub(crate) async fn unsubscribe(&self, channels: &[impl AsRef<[u8]>]) -> Result<(), Refused> {
        self.change_subscriptions("UNSUBSCRIBE", channels).await
    }

    async fn change_subscriptions(&self, name: &str, channels: &[impl AsRef<[u8]>]) -> Result<(), Refused> {
        if !self.has_push {
            return Err(Refused::NoPush);
        }
        let mut cmd = Cmd::new(name);
        for channel in channels {
            cmd.arg(channel);
        }
        match self.call(Request::Confirmed(&cmd, channels.len()), None).await {
            Ok(Value::ServerError(error)) => Err(Refused::ByServer(error)),
            Ok(_) => Ok(()),
            Err(failure) => Err(Refused::Failed(failure)),
        }
    }

    /// Whether the connection has failed somebody.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire)
    }

    /// Keeps further calls away.
    pub(crate) fn set_broken(&self) {
        self.shared.broken.store(true, Ordering::Release);
    }
}

impl Request<'_> {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::One(cmd) | Self::Confirmed(cmd, _) => cmd.write(out),
            Self::All(pipeline) => pipeline.write(out),
        }
    }

    /// At least as much as is written.
    fn bytes_max(self) -> usize {
        match self {
            Self::One(cmd) | Self::Confirmed(cmd, _) => cmd.bytes_max(),
            Self::All(pipeline) => pipeline.bytes(),
        }
    }

    /// The answer, if nothing is asked: the server would not answer, and the caller be given what belongs to the next one.
    fn answer_to_nothing(self) -> Option<Value> {
        match self {
            Self::All(pipeline) if pipeline.len() == 0 => Some(Value::Array(Vec::new())),
            Self::Confirmed(_, 0) => Some(Value::Nil),
            _ => None,
        }
    }

    fn expects(self) -> Expects {
        match self {
            Self::One(_) => Expects::One,
            Self::All(pipeline) => Expects::Many { left: pipeline.len(), replies: Vec::with_capacity(pipeline.len()) },
            Self::Confirmed(_, count) => Expects::Confirmations(count),
        }
    }
}

impl Shared {
    /// Ends the connection for all callers.
    fn end(&self, why: io::Error) {
        // Before anybody hears of it: who tries again must not come back here.
        self.broken.store(true, Ordering::Release);
        let mut woken = Vec::new();
        {
            let mut state = self.state.lock();
            let why = state.ended.get_or_insert(Arc::new(why)).clone();
            state.calls.fail(&why, &mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn ring_at(&mut self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline
            && self.alarm.is_none_or(|alarm| alarm > deadline)
        {
            self.alarm = Some(deadline);
        }
    }
}

impl Call<'_> {
    /// Enters the table, or looks what has become of the call.
    fn advance(&mut self, state: &mut State, waker: &Waker) -> Poll<Outcome> {
        if let Some(ticket) = self.ticket {
            let poll = state.calls.poll(ticket, &mut self.request, waker);
            if poll.is_ready() {
                self.ticket = None;
            }
            return poll;
        }
        if let Some(answer) = self.request.and_then(Request::answer_to_nothing) {
            return Poll::Ready(Ok(answer));
        }
        if let Some(why) = &state.ended {
            return Poll::Ready(Err(Failure::NotSent(Some(why.clone()))));
        }
        self.ticket = Some(state.calls.enter(&mut self.request, self.deadline, waker));
        state.ring_at(self.deadline);
        Poll::Pending
    }
}

impl Future for Call<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let was_sent = self.request.is_none();
        let (poll, pump) = {
            let mut state = self.shared.state.lock();
            let poll = self.advance(&mut state, cx.waker());
            // Whoever finds it gone already knows that it was woken.
            (poll, if was_sent { None } else { state.pump.take() })
        };
        if let Some(pump) = pump {
            pump.wake();
        }
        poll
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut woken = Vec::new();
            self.shared.state.lock().calls.leave(ticket, &mut woken);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests;
