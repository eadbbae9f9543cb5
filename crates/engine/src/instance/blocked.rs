//! Commands that wait for a key, such as `BLPOP`: first come, first served.
//!
//! # Guarantees
//! - Whoever changes a key carries out the commands that wait for it, in the order in which they came, before its own next command.
//! - A command is carried out once or gives up, never both; what it takes, it delivers.
//!
//! # How it works
//! A command joins the queue of each of its keys while it holds them, right after it found nothing. So every later change sees it: the change
//! makes the key ready (`observe.rs`), and after it has let go of its keys, the changing thread takes the waiting command's keys and
//! carries the whole command out again, as the client would. If the command finds nothing, it keeps its place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use acteon_resp::ReplyWriter;
use parking_lot::Mutex;

use super::execute::{self, Step};
use super::mailbox::Peer;
use super::session::DetachedSession;
use super::{Instance, Session};
use crate::command::{self, BlockRequest, Effects};
use crate::lock::{Locked, Places};

/// A key of a database.
type Name = (usize, Box<[u8]>);

/// The queues of all keys that somebody waits for.
#[derive(Default)]
pub(crate) struct Blocked {
    queues: Mutex<HashMap<Name, VecDeque<Arc<Waiter>>>>,
}

/// One waiting command.
pub(crate) struct Waiter {
    args: Vec<Box<[u8]>>,
    keys: Vec<Box<[u8]>>,
    session: DetachedSession,
    peer: Arc<Peer>,
    on_timeout: fn(&mut ReplyWriter<'_>),
    /// Changed while the keys are held.
    state: Mutex<State>,
}

enum State {
    Waiting,
    /// The reply.
    Served(Vec<u8>),
    Over,
}

impl Blocked {
    /// Lets a command wait whose keys are held.
    pub(crate) fn join(
        &self,
        session: &Session,
        args: &[&[u8]],
        request: BlockRequest,
        locked: &mut Locked<'_>,
    ) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter {
            args: args.iter().map(|arg| Box::from(*arg)).collect(),
            keys: distinct(request.keys),
            session: session.detached(),
            peer: session.peer.clone(),
            on_timeout: request.on_timeout,
            state: Mutex::new(State::Waiting),
        });
        let mut queues = self.queues.lock();
        for key in &waiter.keys {
            queues.entry((waiter.database(), key.clone())).or_default().push_back(waiter.clone());
            let place = locked.databases().place(waiter.database(), key);
            locked.step(place, |_, segment| segment.notices.add_waiter(key));
        }
        waiter
    }

    /// Whether a client waits, for its list entry and for INFO.
    pub(crate) fn count(&self) -> usize {
        let queues = self.queues.lock();
        let mut peers: Vec<_> = queues.values().flatten().map(|waiter| waiter.peer.id).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.len()
    }

    fn leave(&self, waiter: &Arc<Waiter>, locked: &mut Locked<'_>) {
        let mut queues = self.queues.lock();
        for key in &waiter.keys {
            let name = (waiter.database(), key.clone());
            if let Some(queue) = queues.get_mut(&name) {
                queue.retain(|other| !Arc::ptr_eq(other, waiter));
                if queue.is_empty() {
                    queues.remove(&name);
                }
            }
            let place = locked.databases().place(waiter.database(), key);
            locked.step(place, |_, segment| segment.notices.remove_waiter(key));
        }
    }

    fn queue_of(&self, name: &Name) -> Vec<Arc<Waiter>> {
        self.queues.lock().get(name).map(|queue| queue.iter().cloned().collect()).unwrap_or_default()
    }
}

impl Waiter {
    fn database(&self) -> usize {
        self.session.database
    }

    /// The reply, if the command was carried out by now.
    pub(crate) fn take_reply(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Served(reply) => Some(reply),
            before => {
                *state = before;
                None
            }
        }
    }

    /// Gives up, unless the command was carried out at the last moment: then its reply is returned.
    /// `error` is what the client gets instead of the reply of a wait that ended.
    pub(crate) fn give_up(self: &Arc<Self>, instance: &Instance, error: Option<&str>, out: &mut Vec<u8>) {
        let mut locked = execute::hold_patiently(&instance.databases, &self.places(instance));
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Served(reply) => out.extend_from_slice(&reply),
            State::Waiting => {
                instance.blocked.leave(self, &mut locked);
                let mut reply = ReplyWriter::new(out, self.session.protocol);
                match error {
                    Some(error) => reply.error(error),
                    None => (self.on_timeout)(&mut reply),
                }
            }
            State::Over => {}
        }
    }

    /// The places of all keys that the command names.
    fn places(&self, instance: &Instance) -> Places {
        let args: Vec<&[u8]> = self.args.iter().map(|arg| &**arg).collect();
        let mut places: Places = self.keys.iter().map(|key| instance.databases.place(self.database(), key)).collect();
        if let Ok(command) = command::look_up(&args) {
            let positions = command.row.keys.positions(&args);
            places.extend(positions.iter().map(|at| instance.databases.place(self.database(), args[*at])));
        }
        places
    }

    /// Carries the command out if it can be. The keys are held.
    fn attempt<'e>(
        self: &Arc<Self>,
        instance: &'e Arc<Instance>,
        locked: &mut Locked<'e>,
        now_us: u64,
        effects: &mut Effects,
    ) -> bool {
        let mut state = self.state.lock();
        if !matches!(*state, State::Waiting) {
            return false;
        }
        let args: Vec<&[u8]> = self.args.iter().map(|arg| &**arg).collect();
        let Ok(command) = command::look_up(&args) else { return false };
        let (mut session, mut reply) = (self.session.attach(instance.next_seed()), Vec::new());
        let step = Step { instance, session: &mut session, command, args: &args, now_us, deny_blocking: false };
        // What it says when it cannot be carried out is a reply as well: the key may hold another type now, for which it
        // goes on waiting.
        match step.run_for_waiter(locked, &mut reply, effects) {
            Ok(true) => {
                *state = State::Served(reply);
                instance.blocked.leave(self, locked);
                self.peer.wake();
                true
            }
            Ok(false) | Err(_) => false,
        }
    }
}

impl Instance {
    /// Carries out what waits for keys that have become ready. Nothing may be held.
    pub(crate) fn serve_ready(self: &Arc<Self>, now_us: u64) {
        // A served command may make further keys ready.
        loop {
            let ready = self.databases.signals().take_ready();
            if ready.is_empty() {
                return;
            }
            for name in ready {
                self.serve(&name, now_us);
            }
        }
    }

    fn serve(self: &Arc<Self>, name: &Name, now_us: u64) {
        for waiter in self.blocked.queue_of(name) {
            let mut effects = Effects::default();
            let mut locked = execute::hold_patiently(&self.databases, &waiter.places(self));
            if !locked.slot(name.0, &name.1, now_us / 1_000).exists() {
                return;
            }
            waiter.attempt(self, &mut locked, now_us, &mut effects);
            drop(locked);
            self.discard(effects.garbage);
        }
    }
}

fn distinct(mut keys: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    keys
}
