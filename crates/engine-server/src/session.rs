//! One connection: reads requests, carries them out, writes replies.
//!
//! # Guarantees
//! - One command at a time, in order. While one waits (`BLPOP`), those behind it wait as well.
//! - What was carried out is answered as long as the client reads, also when the connection is to end.
//! - Nothing is said before it is kept as the setting of the disk promises ([`Gate`]).
//!
//! # Failure
//! Bytes that are no request are answered with an error, and the connection ends. A client that does not read what is sent to it ends by the
//! limits of the output. One of which something may be lost because the disk fails ends without an answer.
//!
//! # How it works
//! All that can happen to a connection is looked at in one place, [`Session::poll_event`]: room to write, something to read, a ring of the bell,
//! the end of a time. After each event, [`Session::execute`] carries out the complete commands that are there, and their replies are written
//! together. While too many replies wait to be read nothing is carried out, but requests are still read: clients that
//! send a long pipeline before they read its first reply would wait forever otherwise. Who has not given a password yet gets much less room.
//!
//! Where several commands have come together, they are read together ([`Pipeline`]), and what can be done once for all of them is
//! ([`Batch`](acteon_engine::Batch)). Their keys, and members of large collections, are looked up together first: in a large database, that takes
//! about half of the time from short commands ([`Client::look_up`]).

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use acteon_engine::{Buffers, Client, ClientOptions, Flow, NetworkSettings, OutputLimit};
use acteon_resp::{Arguments, Pipeline, Protocol, ReplyWriter, RequestDecoder, RequestLimits};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{block_in_place, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::admission::Admission;
use crate::counters::Counters;
use crate::gate::{Gate, Outcome};
use crate::input::Input;
use crate::listener::Origin;
use crate::output::Output;
use crate::server::Shared;
use crate::timer::Timer;
use crate::wake::Wake;

#[cfg(test)]
mod tests;

/// Replies that wait to be written before further commands are carried out: several writes' worth, so that the socket never runs dry.
const OUTPUT_PAUSE_BYTES: usize = 1 << 20;
/// The same before authentication, when replies are short and nothing is owed to anybody.
const OUTPUT_PAUSE_UNAUTHENTICATED_BYTES: usize = 16 << 10;
/// Requests that are kept before authentication: more than the longest that is allowed then, ten arguments of 16 KiB.
const INPUT_UNAUTHENTICATED_BYTES_MAX: u64 = 256 << 10;
/// Less than this is nothing to ask the limits about.
const OUTPUT_UNSUSPICIOUS_BYTES: usize = 16 << 10;
/// Commands that are carried out before other connections get the thread: some hundred microseconds.
const COMMANDS_PER_TURN_MAX: usize = 1_024;
/// Time after which other connections get the thread, where commands take longer.
const TURN_US_MAX: u64 = 2_000;
/// Requests that are read together, and whose keys are looked up together: more accesses to memory than that, a processor cannot have under way.
const READ_AHEAD_MAX: usize = 16;
/// Pause before a command is tried again whose keys are held for long, and the longest that it becomes. In between it is an eighth of
/// the time waited so far, so that a thousand clients that wait for long take little time of the machine.
const RETRY_PAUSE: Duration = Duration::from_millis(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(50);
const RETRIES_WHILE_TIME_DOUBLES: u32 = 8;
/// Silence after which a peer that was still sending is no longer waited for.
const LINGER_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Arguments that are passed on without allocating.
const ARGS_INLINE: usize = 16;

/// A connection over any kind of stream.
pub(crate) struct Session<S> {
    stream: S,
    client: Client,
    input: Input,
    decoder: RequestDecoder,
    args: Arguments,
    output: Output,
    gate: Gate,
    pace: Pace,
    /// No more requests will come.
    has_input_ended: bool,
    /// The turn ended before the commands did.
    has_more: bool,
    /// The bell has rung, and what is there is fetched once the output is short.
    has_mail: bool,
    /// When bytes went to or fro, if anybody asks.
    active_at: Instant,
    /// What clients may change, as it was at the last event, and which of the states that it had.
    settings: NetworkSettings,
    settings_version: u64,
    timer: Timer,
    wake: Arc<Wake>,
    peer_address: String,
    shared: Arc<Shared>,
    _admission: Admission,
}

/// What a connection carries out before others get the thread.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// By the engine's clock, once it has begun.
    ends_us: u64,
    /// Commands that it has had.
    commands: usize,
}

/// The arguments of a command.
type Args<'a> = SmallVec<[&'a [u8]; ARGS_INLINE]>;

/// What the next command has to wait for.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Nothing.
    Free,
    /// The command before it.
    Waiting { until: Option<Instant> },
    /// It is the first of the input, this many bytes long, has waited since then, and is tried again.
    Retry { request_bytes: usize, since: Instant, at: Instant },
    /// There will be none: what was answered is written, until then at most.
    Closing { until: Instant },
}

/// What has happened to a connection.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Requests have arrived, or there is room for replies again.
    Go,
    /// Others have something for this connection, or a time is over.
    Rung,
    /// All is written, and the connection is to end.
    Finished,
    /// The other side is gone.
    Lost,
}

impl Turn {
    /// Whether it is over at this time; it begins when this is asked for the first time.
    fn is_over(&mut self, now_us: u64) -> bool {
        let is_over = now_us >= self.ends_us;
        self.ends_us = self.ends_us.min(now_us.saturating_add(TURN_US_MAX));
        is_over
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(crate) fn new(stream: S, origin: Origin, admission: Admission, shared: Arc<Shared>) -> Self {
        let wake = Arc::clone(&admission.wake);
        let waker = Arc::clone(&wake);
        let options = ClientOptions {
            waker: Box::new(move || waker.ring()),
            peer_address: origin.peer_address.clone(),
            local_address: origin.local_address,
            is_local: origin.is_local,
            is_unix: origin.is_unix,
            descriptor: origin.descriptor,
            connected_us: (shared.clock)(),
        };
        Self {
            stream,
            client: Client::connect(&shared.instance, options),
            input: Input::default(),
            decoder: RequestDecoder::new(),
            args: Arguments::default(),
            output: Output::default(),
            gate: Gate::new(shared.disk.clone()),
            pace: Pace::Free,
            has_input_ended: false,
            has_more: false,
            has_mail: false,
            active_at: Instant::now(),
            settings_version: shared.instance.network_version(),
            settings: shared.instance.network_settings(),
            timer: Timer::default(),
            wake,
            peer_address: origin.peer_address,
            shared,
            _admission: admission,
        }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn run(mut self) {
        loop {
            let event = poll_fn(|context| self.poll_event(context)).await;
            match event {
                Event::Go => {}
                Event::Rung => self.resume(),
                Event::Finished => break,
                Event::Lost => return,
            }
            self.refresh_settings();
            if self.has_more {
                yield_now().await;
            }
            self.has_more = !self.gate.is_closed() && self.execute_turn();
            if let Some(why) = self.overstepped() {
                info!(peer = self.peer_address, why, "a client of the engine is disconnected");
                return;
            }
        }
        if let Pace::Closing { until } = self.pace {
            // The replies are written; a peer that has closed its side already does not mind.
            let _ = timeout_at(until, self.end()).await;
        }
    }

    /// Ends the stream in such a way that the last replies arrive. A system that is told to close a connection with bytes unread resets it,
    /// and drops what it has not sent: so a peer that is still sending is heard out.
    async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let (input, stream) = (&mut self.input, &mut self.stream);
        let mut is_sending = input.len() > 0 && !self.has_input_ended;
        if !is_sending {
            is_sending = poll_fn(|context| match input.poll_skip(stream, context) {
                Poll::Ready(read) => Poll::Ready(read.map(|count| count > 0)),
                Poll::Pending => Poll::Ready(Ok(false)),
            })
            .await?;
        }
        while is_sending {
            let skip = poll_fn(|context| input.poll_skip(stream, context));
            is_sending = timeout(LINGER_PAUSE_MAX, skip).await?? > 0;
        }
        Ok(())
    }

    /// Writes what waits, and says what happens next.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let was_paused = self.is_paused();
        match self.gate.poll(context) {
            Poll::Ready(Ok(())) => {
                if self.poll_send(context).is_err() {
                    return Poll::Ready(Event::Lost);
                }
            }
            Poll::Ready(Err(error)) => {
                warn!(%error, peer = self.peer_address, "a client of the engine is disconnected");
                return Poll::Ready(Event::Lost);
            }
            Poll::Pending => {}
        }
        if matches!(self.pace, Pace::Closing { .. }) && self.output.is_sent() && !self.gate.is_closed() {
            return Poll::Ready(Event::Finished);
        }
        self.note_buffers();
        // Until it is listened to again: this may end in waiting for something else.
        while self.wake.poll(context).is_ready() {
            self.has_mail = true;
            if self.wake.is_stopping() {
                return Poll::Ready(Event::Rung);
            }
            if self.client.is_killed() {
                return Poll::Ready(Event::Lost);
            }
        }
        if self.has_more || was_paused && !self.is_paused() {
            return Poll::Ready(Event::Go);
        }
        if self.has_mail && !self.is_paused() {
            return Poll::Ready(Event::Rung);
        }
        let deadline = self.deadline();
        if self.timer.poll(deadline, context).is_ready() {
            return Poll::Ready(Event::Rung);
        }
        if self.wants_input() { self.poll_receive(context) } else { Poll::Pending }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), ()> {
        if self.output.is_sent() {
            // Replies that were taken back, as those of a silent client are, leave room behind.
            self.output.compact();
            return Ok(());
        }
        match self.output.poll_send(&mut self.stream, context) {
            Poll::Ready(Ok(count)) => {
                Counters::add(&self.shared.counters.output_bytes, count);
                self.note_activity();
                Ok(())
            }
            Poll::Ready(Err(error)) => {
                debug!(%error, peer = self.peer_address, "a client of the engine is gone");
                Err(())
            }
            Poll::Pending => Ok(()),
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let wanted = self.decoder.input_bytes_wanted();
        match self.input.poll_fill(&mut self.stream, wanted, context) {
            Poll::Ready(Ok(0)) => {
                self.has_input_ended = true;
                // Whoever has sent its last request may still read; but nobody waits for what may never come.
                Poll::Ready(if matches!(self.pace, Pace::Waiting { .. }) { Event::Lost } else { Event::Go })
            }
            Poll::Ready(Ok(count)) => {
                Counters::add(&self.shared.counters.input_bytes, count);
                self.note_activity();
                Poll::Ready(Event::Go)
            }
            Poll::Ready(Err(error)) => {
                debug!(%error, peer = self.peer_address, "a client of the engine is gone");
                Poll::Ready(Event::Lost)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Carries out what is there, and closes the gate behind it.
    fn execute_turn(&mut self) -> bool {
        let (turn, bytes_before) = (self.gate.begin_turn(), self.output.len());
        let has_more = self.execute();
        let outcome = Outcome { has_output: self.output.len() > bytes_before, was_served: false };
        self.gate.end_turn(turn, outcome, self.shared.instance.log_position());
        has_more
    }

    /// Carries out the commands that are there. Returns whether there are more that need not wait.
    fn execute(&mut self) -> bool {
        let mut turn = Turn { ends_us: u64::MAX, commands: 0 };
        while turn.commands < COMMANDS_PER_TURN_MAX {
            if self.wake.is_stopping() {
                return false;
            }
            let now_us = match self.pace {
                Pace::Free if !self.is_paused() => {
                    let pipeline = self.read_ahead();
                    if !pipeline.is_empty() {
                        self.execute_all(&pipeline, &mut turn)
                    } else if let Some(request_bytes) = self.decode() {
                        self.execute_one(request_bytes, &mut turn)
                    } else {
                        return false;
                    }
                }
                Pace::Retry { request_bytes, at, .. } if at <= Instant::now() => {
                    self.execute_one(request_bytes, &mut turn)
                }
                Pace::Free | Pace::Retry { .. } | Pace::Waiting { .. } | Pace::Closing { .. } => return false,
            };
            if turn.is_over(now_us) {
                break;
            }
        }
        true
    }

    /// The next requests, as far as they can be read in one go. None, if a part of the first one was read before, or if the client may not do
    /// everything yet: then each may change what the next one may be.
    fn read_ahead(&self) -> Pipeline {
        if self.decoder.is_pending() || !self.client.is_authenticated() {
            return Pipeline::default();
        }
        Pipeline::read(self.input.bytes(), &self.request_limits(), READ_AHEAD_MAX)
    }

    /// Carries out requests that were read together, as far as none of them has to wait and the turn is not over. Returns the time by then.
    fn execute_all(&mut self, pipeline: &Pipeline, turn: &mut Turn) -> u64 {
        if pipeline.len() > 1 {
            self.client.look_up(pipeline.args(self.input.bytes()));
        }
        let Self { client, input, output, shared, wake, .. } = self;
        let (mut batch, mut last) = (client.batch(&*shared.clock), (Flow::Done, 0));
        for request in pipeline.requests() {
            let args: Args<'_> = request.args(input.bytes()).collect();
            let (out, request_bytes) = (output.buffer(), request.bytes());
            let flow = if shared.may_keep_thread && batch.client().may_take_long(&args) {
                block_in_place(|| batch.execute(&args, out))
            } else {
                batch.execute(&args, out)
            };
            drop(args);
            if flow != Flow::Retry {
                input.consume(request_bytes);
            }
            last = (flow, request_bytes);
            turn.commands += 1;
            let has_to_pause = output.len() >= OUTPUT_PAUSE_BYTES || wake.is_stopping();
            if flow != Flow::Done || has_to_pause || turn.is_over(batch.now_us()) {
                break;
            }
        }
        let now_us = batch.now_us();
        drop(batch);
        match last {
            (Flow::Done, _) => {}
            (Flow::Retry, request_bytes) => {
                // Its arguments have to be known when it is tried again. After a RESET it may be one that is refused, which closes the connection.
                if self.decode().is_some() {
                    self.retry_later(request_bytes);
                }
            }
            (flow, _) => self.follow(flow),
        }
        now_us
    }

    /// The length of the next request, whose arguments are known then.
    fn decode(&mut self) -> Option<usize> {
        match self.decoder.decode(self.input.bytes(), &self.request_limits(), &mut self.args) {
            Ok(Some(request_bytes)) => Some(request_bytes),
            Ok(None) => {
                if self.has_input_ended {
                    self.close();
                }
                None
            }
            Err(error) => {
                debug!(%error, peer = self.peer_address, "a client of the engine speaks another protocol");
                error.write_reply(&mut ReplyWriter::new(self.output.buffer(), Protocol::Resp2));
                self.close();
                None
            }
        }
    }

    fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            bulk_bytes_max: usize::try_from(self.settings.bulk_bytes_max).unwrap_or(usize::MAX),
            is_authenticated: self.client.is_authenticated(),
            ..RequestLimits::default()
        }
    }

    /// Carries out the request whose arguments are known. Returns the time at which it began.
    fn execute_one(&mut self, request_bytes: usize, turn: &mut Turn) -> u64 {
        turn.commands += 1;
        let (now_us, input) = ((self.shared.clock)(), self.input.bytes());
        let args: Args<'_> = self.args.iter(input).collect();
        let (client, output) = (&mut self.client, self.output.buffer());
        let flow = if self.shared.may_keep_thread && client.may_take_long(&args) {
            block_in_place(|| client.execute(&args, now_us, output))
        } else {
            client.execute(&args, now_us, output)
        };
        drop(args);
        if flow == Flow::Retry {
            self.retry_later(request_bytes);
            return now_us;
        }
        self.input.consume(request_bytes);
        // Not with the next request, which may be long in coming: many arguments take much room.
        self.args.clear();
        self.pace = Pace::Free;
        self.follow(flow);
        now_us
    }

    fn retry_later(&mut self, request_bytes: usize) {
        let now = Instant::now();
        let since = if let Pace::Retry { since, .. } = self.pace { since } else { now };
        let pause = (now.duration_since(since) / RETRIES_WHILE_TIME_DOUBLES).clamp(RETRY_PAUSE, RETRY_PAUSE_MAX);
        self.pace = Pace::Retry { request_bytes, since, at: now + pause };
    }

    /// Takes what others have for this connection.
    fn resume(&mut self) {
        if self.wake.is_stopping() {
            self.has_mail = false;
            return self.close();
        }
        if self.gate.is_closed() {
            return;
        }
        self.has_mail = false;
        let (turn, bytes_before) = (self.gate.begin_turn(), self.output.len());
        let flow = self.client.resume((self.shared.clock)(), self.output.buffer());
        // What ended its wait may have been carried out by another thread.
        let was_served = matches!(self.pace, Pace::Waiting { .. }) && !matches!(flow, Flow::Blocked { .. });
        let outcome = Outcome { has_output: self.output.len() > bytes_before, was_served };
        self.gate.end_turn(turn, outcome, self.shared.instance.log_position());
        match self.pace {
            Pace::Waiting { .. } => {
                self.pace = Pace::Free;
                self.follow(flow);
            }
            Pace::Free | Pace::Retry { .. } if flow == Flow::Close => self.close(),
            Pace::Free | Pace::Retry { .. } | Pace::Closing { .. } => {}
        }
    }

    /// Sets the pace after a command.
    fn follow(&mut self, flow: Flow) {
        match flow {
            Flow::Done => {}
            Flow::Close => self.close(),
            // Nobody who is gone may take what others wait for.
            Flow::Blocked { .. } if self.has_input_ended => self.close(),
            Flow::Blocked { until_us } => {
                let now_us = (self.shared.clock)();
                let until = until_us.map(|until_us| Duration::from_micros(until_us.saturating_sub(now_us)));
                // A duration that no clock can show is no deadline.
                self.pace = Pace::Waiting { until: until.and_then(|wait| Instant::now().checked_add(wait)) };
            }
            Flow::Retry => self.pace = Pace::Waiting { until: Some(Instant::now() + RETRY_PAUSE) },
        }
    }

    /// Ends the connection once everything is written.
    fn close(&mut self) {
        if !matches!(self.pace, Pace::Closing { .. }) {
            self.pace = Pace::Closing { until: Instant::now() + self.shared.limits.drain_timeout };
        }
    }

    /// Which limit the connection has overstepped, if it has.
    fn overstepped(&mut self) -> Option<&'static str> {
        if self.is_output_suspicious() && self.output.is_over(self.output_limit()) {
            Counters::add(&self.shared.counters.output_limit_disconnections, 1);
            return Some("it does not read what is sent to it");
        }
        let is_request_too_long = matches!(self.pace, Pace::Free) && !self.is_paused() && !self.has_more;
        if is_request_too_long && self.input.len() as u64 > self.settings.query_buffer_bytes_max {
            Counters::add(&self.shared.counters.query_limit_disconnections, 1);
            return Some("its request is too long");
        }
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= Instant::now());
        if let Pace::Closing { until } = self.pace {
            return is_over(Some(until)).then_some("it does not read its last replies");
        }
        is_over(self.idle_until()).then_some("it has been idle for too long")
    }

    /// When something is to be done even if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let by_pace = match self.pace {
            // Nothing is done until the gate opens.
            Pace::Waiting { .. } | Pace::Retry { .. } if self.gate.is_closed() => None,
            Pace::Free => None,
            Pace::Waiting { until } => until,
            Pace::Retry { at: until, .. } | Pace::Closing { until } => Some(until),
        };
        let by_output = if self.is_output_suspicious() { self.output.over_at(self.output_limit()) } else { None };
        [by_pace, self.idle_until(), by_output].into_iter().flatten().min()
    }

    /// When the patience with a client that does nothing ends.
    fn idle_until(&self) -> Option<Instant> {
        let idle_timeout = Duration::from_secs(self.settings.idle_timeout_s);
        if idle_timeout.is_zero() {
            return None;
        }
        (!self.client.waits_for_others()).then(|| self.active_at + idle_timeout)
    }

    /// What may wait for a client that only asks. Messages are bounded before they come here.
    fn output_limit(&self) -> OutputLimit {
        self.shared.instance.output_limits().normal
    }

    /// Says what the connection holds, for those who look at it.
    fn note_buffers(&self) {
        self.client.note_buffers(Buffers {
            input_bytes: self.input.len() as u64,
            input_free_bytes: self.input.free() as u64,
            output_bytes: self.output.len() as u64,
            output_capacity_bytes: self.output.capacity() as u64,
        });
    }

    fn is_output_suspicious(&self) -> bool {
        self.output.len() > OUTPUT_UNSUSPICIOUS_BYTES
    }

    fn is_paused(&self) -> bool {
        if self.gate.is_closed() {
            return true;
        }
        let is_authenticated = self.client.is_authenticated();
        let pause_bytes = if is_authenticated { OUTPUT_PAUSE_BYTES } else { OUTPUT_PAUSE_UNAUTHENTICATED_BYTES };
        self.output.len() >= pause_bytes
    }

    fn wants_input(&self) -> bool {
        !self.has_input_ended
            && !matches!(self.pace, Pace::Closing { .. })
            && self.input.len() as u64 <= self.input_bytes_max()
    }

    /// Beyond this nothing is read for now.
    fn input_bytes_max(&self) -> u64 {
        let bytes_max = self.settings.query_buffer_bytes_max;
        if self.client.is_authenticated() { bytes_max } else { bytes_max.min(INPUT_UNAUTHENTICATED_BYTES_MAX) }
    }

    fn refresh_settings(&mut self) {
        let instance = &self.shared.instance;
        // Asked for first: settings are under a lock, which all connections would take at each event.
        let version = instance.network_version();
        if self.settings_version != version {
            (self.settings_version, self.settings) = (version, instance.network_settings());
        }
    }

    fn note_activity(&mut self) {
        if self.settings.idle_timeout_s > 0 {
            self.active_at = Instant::now();
        }
    }
}
