//! [`Client`]: one connection, command by command.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use acteon_resp::{Protocol, ReplyWriter};

use super::batch::Batch;
use super::blocked::Waiter;
use super::execute::{Need, Progress, Step, resolve};
use super::facts::Buffers;
use super::mailbox::Waker;
use super::measure::Measured;
use super::monitor::Told;
use super::session::Replies;
use super::{Instance, Session};
use crate::ahead;
use crate::command::{Command, CommandError, Flags, Known, Scope, look_up};
use crate::keyspace::Engine;
use crate::lock::{Contended, Locked};

/// What is known of a connection before its first command.
pub struct ClientOptions {
    /// Called when the connection has something to do: mail, the end of a wait, or its own end.
    pub waker: Waker,
    /// Who is at the other end: `127.0.0.1:50123`, `[::1]:50123`, or `/path/of/socket:0`.
    pub peer_address: String,
    /// Where it connected to, in the same form.
    pub local_address: String,
    /// It comes from this machine: over the loopback interface or a Unix socket.
    pub is_local: bool,
    /// It came over a Unix socket.
    pub is_unix: bool,
    /// The number of its file descriptor, for `CLIENT LIST`; -1: none.
    pub descriptor: i64,
    /// When it connected, by the clock that [`Client::execute`] is given.
    pub connected_us: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            waker: Box::new(|| ()),
            peer_address: "127.0.0.1:0".to_owned(),
            local_address: "127.0.0.1:0".to_owned(),
            is_local: true,
            is_unix: false,
            descriptor: -1,
            connected_us: 0,
        }
    }
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The reply, if it has one, was written.
    Done,
    /// The client waits: its next command has to wait as well, until [`Client::resume`] says `Done`, to be called when the waker
    /// was called and at this time (µs, by the engine's clock).
    Blocked {
        /// When the wait ends by itself.
        until_us: Option<u64>,
    },
    /// Nothing was done, because others hold the keys for long: call again with the same arguments a moment later.
    Retry,
    /// The reply was written, and the connection is to be closed.
    Close,
}

/// One connection to an [`Instance`].
pub struct Client {
    pub(super) instance: Arc<Instance>,
    session: Session,
    waiting: Option<(Arc<Waiter>, Option<u64>)>,
    /// Empty between commands and batches, and kept: to make one and to end it is a tenth of what a short command executes.
    pub(super) progress: Progress,
}

impl Client {
    /// A new connection.
    #[must_use]
    pub fn connect(instance: &Arc<Instance>, options: ClientOptions) -> Self {
        instance.stats.note_start(options.connected_us);
        let peer = instance.peers.join(options);
        let mut session = Session::new(peer, instance.limits(), instance.next_seed());
        session.is_authenticated = instance.access.is_open();
        Self { instance: instance.clone(), session, waiting: None, progress: Progress::default() }
    }

    /// Lets it do everything without a password.
    pub(crate) fn trust(&mut self) {
        self.session.is_authenticated = true;
    }

    #[cfg(test)]
    pub(crate) fn instance_of_tests(&self) -> Arc<Instance> {
        Arc::clone(&self.instance)
    }

    /// The number that `CLIENT ID` shows: no other connection of the instance has it, before or after.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.session.peer.id
    }

    /// Carries out one command. `args` begins with its name; without arguments nothing happens. Replies and messages are appended
    /// to `out`, in the order in which they happened.
    pub fn execute(&mut self, args: &[&[u8]], now_us: u64, out: &mut Vec<u8>) -> Flow {
        self.instance.peers.note_time(now_us);
        let flow = self.execute_next(args, now_us, out);
        self.progress.measured.finish(&self.instance.stats);
        flow
    }

    /// Begins to carry out commands that have come together.
    pub fn batch<'c>(&'c mut self, clock: &'c dyn Fn() -> u64) -> Batch<'c> {
        Batch::new(self, clock)
    }

    /// Carries out the next of several commands.
    pub(super) fn execute_next(&mut self, args: &[&[u8]], now_us: u64, out: &mut Vec<u8>) -> Flow {
        debug_assert!(self.waiting.is_none(), "a client that waits has no next command");
        self.session.peer.receive(out);
        if self.session.peer.is_killed() {
            return Flow::Close;
        }
        if args.is_empty() {
            return Flow::Done;
        }
        // A subscriber's replies come after the messages that were sent before them.
        if self.session.peer.is_held_back() && !self.session.is_monitor {
            return Flow::Retry;
        }
        self.refresh_settings();
        let out_len = out.len();
        let flow = match self.admit(args, now_us) {
            Ok(command) => self.dispatch(command, args, now_us, out),
            Err(error) => {
                self.refuse(args, &error, out);
                self.progress.measured.pass();
                Flow::Done
            }
        };
        self.session.peer.facts.note_session(&self.session);
        if flow != Flow::Retry {
            self.session.told = Told::default();
        }
        if self.session.is_silent() && matches!(flow, Flow::Done | Flow::Close) {
            out.truncate(out_len);
            self.end_silence();
        }
        flow
    }

    /// Goes on after the waker was called or a wait has ended by its time: writes mail, and the reply of a command that waited.
    pub fn resume(&mut self, now_us: u64, out: &mut Vec<u8>) -> Flow {
        self.session.peer.receive(out);
        if let Some((waiter, until_us)) = &self.waiting {
            if until_us.is_some_and(|until_us| now_us >= until_us) {
                waiter.time_out(&self.instance);
            }
            match waiter.take_reply(&self.instance) {
                Some(_) if self.session.is_silent() => {}
                Some(reply) => out.extend_from_slice(&reply),
                None if self.session.peer.is_killed() => return Flow::Close,
                None => return Flow::Blocked { until_us: *until_us },
            }
            self.waiting = None;
            self.session.peer.facts.is_blocked.store(false, Ordering::Relaxed);
            self.end_silence();
        }
        if self.session.peer.is_killed() { Flow::Close } else { Flow::Done }
    }

    /// Moves messages that others have sent to `out`.
    pub fn receive(&mut self, out: &mut Vec<u8>) {
        self.session.peer.receive(out);
    }

    /// Whether the connection may do what others may not keep to themselves: known by a password, or needing none. Until then its
    /// requests should be short, see [`RequestLimits::unauthenticated`](acteon_resp::RequestLimits::unauthenticated).
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.session.is_authenticated || self.instance.access.is_open()
    }

    /// Whether the connection waits for what others do, so that its silence is no reason to close it.
    #[must_use]
    pub fn waits_for_others(&self) -> bool {
        self.waiting.is_some() || self.session.is_subscriber() || self.session.is_monitor
    }

    /// Whether somebody has ended the connection, or a limit has: nobody is interested in its replies any more.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.session.peer.is_killed()
    }

    /// Whether a request may keep its thread busy for long, so that a thread that serves other connections should not carry it out:
    /// a script of which it is not known, or is known, that it takes more than some milliseconds, or EXEC of one; `DEBUG SLEEP`; and what waits
    /// for a disk.
    #[must_use]
    #[inline]
    pub fn may_take_long(&self, args: &[&[u8]]) -> bool {
        args.first().is_some_and(|name| may_name_a_long_command(name)) && self.takes_long(args)
    }

    fn takes_long(&self, args: &[&[u8]]) -> bool {
        let Some(name) = args.first() else { return false };
        let queued = match &self.session.transaction {
            Some(transaction) if name.eq_ignore_ascii_case(b"exec") => &*transaction.queue,
            Some(_) => return false,
            None => {
                let is_long = |long: &&[u8]| name.eq_ignore_ascii_case(long);
                let always_long: [&[u8]; 3] = [b"debug", b"save", b"shutdown"];
                return always_long.iter().any(is_long) || self.instance.script_may_take_long(args);
            }
        };
        queued.iter().any(|args| {
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
            args[0].eq_ignore_ascii_case(b"debug") || self.instance.script_may_take_long(&args)
        })
    }

    /// Looks up what its next commands name, several at once: worth it where some commands have come together. Each is given by its words. Nothing
    /// changes by it.
    pub fn look_up<'k, W: Iterator<Item = &'k [u8]>>(&self, requests: impl Iterator<Item = W> + Clone) {
        ahead::look_up(self.instance.databases.get(self.session.database).keyspace(), requests);
    }

    /// Tells what the network layer keeps for the connection, for `CLIENT LIST`.
    pub fn note_buffers(&self, buffers: Buffers) {
        self.session.peer.facts.note_buffers(buffers);
    }

    /// Finds the command and whether the connection may ask for it at this moment.
    fn admit(&mut self, args: &[&[u8]], now_us: u64) -> Result<&'static Command, CommandError> {
        let command = resolve(args)?;
        let (session, flags) = (&self.session, command.row.flags);
        if !session.is_authenticated && !flags.has(Flags::NO_AUTH) && !self.instance.access.is_open() {
            return Err(CommandError::text("NOAUTH Authentication required."));
        }
        if session.is_monitor && flags.has(Flags::WRITE.and(Flags::READONLY).and(Flags::MAY_REPLICATE)) {
            return Err(CommandError::text("ERR Replica can't interact with the keyspace"));
        }
        if session.is_subscriber() && session.protocol == Protocol::Resp2 && !is_for_subscribers(command) {
            return Err(not_for_subscribers(command));
        }
        if flags.has(Flags::WRITE) || self.executes(command, Flags::WRITE) {
            self.instance.check_writable()?;
        }
        let is_queued = session.transaction.is_some() && !runs_at_once_in_transaction(command);
        if is_queued || may_take_memory(command) {
            self.find_memory(command, is_queued, now_us)?;
        }
        Ok(command)
    }

    /// Sees to it that there is memory for what the command may take. A transaction is refused as a whole, and so is a command that is
    /// queued for one.
    fn find_memory(&mut self, command: &Command, is_queued: bool, now_us: u64) -> Result<(), CommandError> {
        let measured = &mut self.progress.measured;
        let make_room = |engine: &Engine| measured.aside(|| engine.make_room_slowly(now_us / 1_000));
        let lacks_memory = self.instance.lacks_memory(make_room);
        // Scripts ask before their first write.
        self.session.lacks_memory = lacks_memory;
        let takes_memory =
            || is_queued || command.row.flags.has(Flags::DENYOOM) || self.executes(command, Flags::DENYOOM);
        if lacks_memory && takes_memory() {
            return Err(CommandError::OutOfMemory);
        }
        Ok(())
    }

    /// Whether it is an EXEC of commands some of which have this flag.
    fn executes(&self, command: &Command, flag: Flags) -> bool {
        let transaction = self.session.transaction.as_ref().filter(|_| command.row.name == "exec");
        transaction.is_some_and(|transaction| transaction.has(flag))
    }

    #[inline]
    fn dispatch(&mut self, command: &'static Command, args: &[&[u8]], now_us: u64, out: &mut Vec<u8>) -> Flow {
        if self.instance.is_paused(&self.session, command, args, now_us) {
            return Flow::Retry;
        }
        self.session.peer.facts.note_command(command.number, now_us);
        if self.session.transaction.is_some() && !runs_at_once_in_transaction(command) {
            match self.queue(command, args) {
                Ok(()) => ReplyWriter::new(out, self.session.protocol).simple("QUEUED"),
                Err(error) => self.refuse(args, &error, out),
            }
            self.progress.measured.pass();
            return Flow::Done;
        }
        match self.run(command, args, now_us, out) {
            Some(flow) => flow,
            None => self.run_again(command, args, now_us, out),
        }
    }

    // Apart, for the compiler makes ready for a loop what one attempt would mostly do without.
    #[cold]
    fn run_again(&mut self, command: &'static Command, args: &[&[u8]], now_us: u64, out: &mut Vec<u8>) -> Flow {
        loop {
            if let Some(flow) = self.run(command, args, now_us, out) {
                return flow;
            }
        }
    }

    /// Carries the command out; `None`: once more, and at once.
    // A call of its own, and `dispatch` is none: one of them is.
    #[inline(never)]
    fn run(&mut self, command: &'static Command, args: &[&[u8]], now_us: u64, out: &mut Vec<u8>) -> Option<Flow> {
        // Not a handle of its own: to count it would take the line of the count from all other threads, at each command.
        let (instance, session) = (&self.instance, &mut self.session);
        let known = command.only_key.and_then(|at| args.get(at)).map(|key| Known::of(key, &instance.databases));
        let Progress { measured, effects, served } = &mut self.progress;
        if known.is_none() || measured.is_full() {
            // It may be one that tells counts, or sets them to zero.
            measured.count(&instance.stats);
        }
        let result = {
            // Taken and let go where it lies: to move it costs as much as to take it.
            let mut locked = Locked::none(&instance.databases);
            if hold(&mut locked, instance, session, command, args, known, measured).is_err() {
                drop(locked);
                return Some(self.stand_back(command, args, out));
            }
            if instance.databases.signals().has_ready() {
                measured.aside(|| instance.serve_held(&mut locked, now_us, effects, served));
            }
            if served.is_incomplete() {
                // Somebody who came earlier is to have what lies there.
                drop(locked);
                measured.add_changes(mem::take(&mut effects.changes));
                instance.discard(&mut effects.garbage);
                measured.aside(|| instance.finish_serving(served, now_us));
                return Some(Flow::Retry);
            }
            let mut step =
                Step { known, measured: Some(measured), ..Step::new(instance, session, command, args, now_us) };
            let result = step.run(&mut locked, out, effects);
            if let Some(request) = effects.block.take() {
                let until_us = request.until_us;
                self.waiting = Some((instance.blocked.join(session, *command, args, request, &mut locked), until_us));
            }
            if instance.databases.signals().has_ready() {
                measured.aside(|| instance.serve_held(&mut locked, now_us, effects, served));
            }
            result
        };
        measured.add_changes(effects.changes);
        instance.discard(&mut effects.garbage);
        let takes_time = !served.is_empty() || !effects.stores.is_empty() || instance.tap.is_pending();
        let closes = if takes_time {
            measured.aside(|| {
                instance.finish_serving(served, now_us);
                let closes = effects.end();
                instance.tap.tell();
                closes
            })
        } else {
            effects.end()
        };
        if result.is_err() {
            self.session.told.begin_again();
            measured.begin_again();
        }
        match &self.waiting {
            // It has met a key that it does not declare, and is known for that now: it will hold all of them.
            _ if result.is_err() && matches!(command.row.scope, Scope::Script) => None,
            _ if result.is_err() => Some(Flow::Retry),
            Some((_, until_us)) => {
                self.session.peer.facts.is_blocked.store(true, Ordering::Relaxed);
                Some(Flow::Blocked { until_us: *until_us })
            }
            None if closes || self.session.peer.is_killed() => Some(Flow::Close),
            None => Some(Flow::Done),
        }
    }

    /// Others hold what the command needs: it is to be tried again, unless it is a script that holds on to it.
    #[cold]
    fn stand_back(&mut self, command: &Command, args: &[&[u8]], out: &mut Vec<u8>) -> Flow {
        if !self.instance.scripts.overseer.any_slow() || command.row.flags.has(Flags::ALLOW_BUSY) {
            return Flow::Retry;
        }
        self.refuse(args, &BUSY, out);
        Flow::Done
    }

    /// Keeps a command for EXEC.
    fn queue(&mut self, command: &Command, args: &[&[u8]]) -> Result<(), CommandError> {
        if command.row.flags.has(Flags::NO_MULTI) {
            return Err(CommandError::text("ERR Command not allowed inside a transaction"));
        }
        let Some(transaction) = &mut self.session.transaction else { return Ok(()) };
        transaction.push(args)
    }

    /// Writes an error that came before the command ran.
    #[cold]
    fn refuse(&mut self, args: &[&[u8]], error: &CommandError, out: &mut Vec<u8>) {
        let mut text = error.to_bytes();
        if args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
            self.session.transaction = None;
            self.instance.unwatch(&mut self.session);
            let why = text.strip_prefix(b"ERR ").unwrap_or(&text);
            text = [b"EXECABORT Transaction discarded because of: ", why].concat().into();
        } else if let Some(transaction) = &mut self.session.transaction {
            transaction.is_spoilt = true;
        }
        let stats = &self.instance.stats;
        stats.add_error(&text);
        if let Ok(command) = look_up(args) {
            stats.add_rejected(command.number);
        }
        ReplyWriter::new(out, self.session.protocol).error_bytes(&text);
    }

    /// A command that was not answered is over.
    fn end_silence(&mut self) {
        let replies = &mut self.session.replies;
        *replies = match *replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            Replies::On | Replies::Off => return,
        };
    }

    #[inline]
    fn refresh_settings(&mut self) {
        if self.session.settings_version != self.instance.settings_version() {
            self.take_settings();
        }
    }

    #[cold]
    fn take_settings(&mut self) {
        (self.session.settings_version, self.session.limits) = self.instance.limits();
    }
}

/// Holds what a command needs, where nothing is held yet. Where others hold it, the wait is no part of the command.
#[inline]
fn hold<'e>(
    locked: &mut Locked<'e>,
    instance: &'e Instance,
    session: &Session,
    command: &Command,
    args: &[&[u8]],
    known: Option<Known<'_>>,
    measured: &mut Measured,
) -> Result<(), Contended> {
    if let Some(known) = known {
        return locked.take_first(session.database, known.hash, || instance.patience(), |wait| measured.aside(wait));
    }
    *locked = match hold_all(instance, session, command, args, Duration::ZERO) {
        Err(Contended) => measured.aside(|| hold_all(instance, session, command, args, instance.patience())),
        held => held,
    }?;
    Ok(())
}

fn hold_all<'e>(
    instance: &'e Instance,
    session: &Session,
    command: &Command,
    args: &[&[u8]],
    patience: Duration,
) -> Result<Locked<'e>, Contended> {
    // While a script runs for long, nobody waits for it in the middle of a command.
    let find_need = if instance.scripts.overseer.any_long() { Need::within } else { Need::of };
    find_need(instance, session, command, args).hold(&instance.databases, patience)
}

const BUSY: CommandError =
    CommandError::text("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.");

/// Whether a name may be that of EXEC, of a command that runs scripts, or of one that may wait for a disk, as far as its first letter tells:
/// most commands need not be looked at more closely.
#[inline]
fn may_name_a_long_command(name: &[u8]) -> bool {
    name.len() >= 4 && matches!(name[0].to_ascii_lowercase(), b'd' | b'e' | b's')
}

#[cold]
fn not_for_subscribers(command: &Command) -> CommandError {
    let name = command.full_name();
    let text = format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
    );
    CommandError::Text(text.into())
}

/// Commands that a subscriber may use in the older protocol, where replies and messages look alike.
fn is_for_subscribers(command: &Command) -> bool {
    ["ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "quit", "reset"]
        .contains(&command.row.name)
        && command.container.is_none()
}

/// Commands that write, or carry out others that may.
fn may_take_memory(command: &Command) -> bool {
    command.row.flags.has(Flags::WRITE.and(Flags::DENYOOM))
        || matches!(command.row.scope, Scope::Script | Scope::Queued)
}

/// Commands that are not queued between MULTI and EXEC.
fn runs_at_once_in_transaction(command: &Command) -> bool {
    // SLOWLOG RESET is no RESET.
    ["exec", "discard", "multi", "watch", "quit", "reset"].contains(&command.row.name) && command.container.is_none()
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some((waiter, _)) = self.waiting.take() {
            waiter.abandon(&self.instance);
        }
        self.instance.unwatch(&mut self.session);
        self.instance.pubsub.leave_all(&mut self.session);
        if self.session.is_monitor {
            self.instance.monitors.leave(&self.session.peer);
        }
        self.instance.peers.leave(self.session.peer.id);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.session.peer.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
