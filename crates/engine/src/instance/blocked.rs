//! Commands that wait for a key, such as `BLPOP`: first come, first served.
//!
//! # Guarantees
//! - Whoever fills a key carries out the commands that wait for it before letting go of the key, in the order in which they came. So nobody
//!   can take what a waiting command is entitled to, and who has filled a key finds it as the waiting commands have left it.
//! - What a transaction or script pushes is served after its end, key by key in the order in which they first came to hold a list or a sorted set,
//!   as Redis does.
//! - A command is carried out once or gives up, never both; what it takes, it delivers, unless its connection is gone.
//! - Nobody gets a reply before what it tells of was handed to the log, if there is one, whatever wakes the connection.
//!
//! # How a command waits
//! A handler looks at its keys; if they have nothing for it, it calls [`Call::block`](crate::command::Call::block) instead of replying:
//!
//! ```ignore
//! let until_us = options::timeout(call.args[last], call.keys.now_us)?;
//! for key in call.candidates(1..last) { /* take from the first that has something, reply, and return */ }
//! call.block(names_of_keys, until_us, |reply| reply.null_array())
//! ```
//! The handler runs again once one of the keys holds a value of its family's type, a list for a command of [`Group::List`] and a sorted set for
//! one of [`Group::SortedSet`]; any other value leaves it waiting. It then may use that key only, even if other keys have something as
//! well or are of another type by now: that is what `candidates` is for. What it says this time is the reply, an error included.
//! [`Group::List`]: crate::command::Group::List
//! [`Group::SortedSet`]: crate::command::Group::SortedSet
//!
//! # How it works
//! A command joins the queue of each of its keys while it holds them, right after it found nothing. Every later change that leaves a list or
//! a sorted set there makes it ready (`observe.rs`), and who holds a ready key serves it before releasing it, whoever has made it ready.
//!
//! `BLMOVE` also needs its destination, which may belong to somebody else at this moment. Waiting for it while holding the source could
//! close a circle, so the source is released then and both are taken in order. Whoever takes the source in between finds it ready, and does the
//! same before its own command.
//!
//! A command that ended leaves the queues at once. The marks that it left in the segments of its keys are removed by its own client, which
//! holds nothing; until then they make keys ready for nobody, which does no harm.
//!
//! Whoever serves may have other connections on its thread, so it waits for nobody for long: what is held by a script that runs
//! long stays ready, and is served when the script ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use acteon_resp::ReplyWriter;
use parking_lot::Mutex;

use super::execute::Step;
use super::mailbox::Peer;
use super::marks::Mark;
use super::session::DetachedSession;
use super::{Instance, Session};
use crate::change::once_handed_over;
use crate::command::{BlockRequest, Command, Effects};
use crate::entry::Kind;
use crate::lock::{Locked, PATIENCE, Places};
use crate::observe::Name;

/// What a client gets whose wait was ended by `CLIENT UNBLOCK .. ERROR`.
const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// All commands that wait.
#[derive(Default)]
pub(crate) struct Blocked {
    /// Taken last: nobody waits for a key or for a waiter's state while holding it.
    register: Mutex<Register>,
}

#[derive(Default)]
struct Register {
    /// Those who wait for a key, by ticket, which is the order in which they came.
    queues: HashMap<Name, BTreeMap<u64, Arc<Waiter>>>,
    by_client: HashMap<u64, Arc<Waiter>>,
    last_ticket: u64,
}

/// One waiting command.
pub(crate) struct Waiter {
    ticket: u64,
    command: Command,
    args: Vec<Box<[u8]>>,
    /// What it waits for, each key once.
    keys: Vec<Box<[u8]>>,
    /// What a key has to hold for it.
    kind: Kind,
    /// Where the keys are that it needs besides the one that it waited for.
    others: Places,
    session: DetachedSession,
    peer: Arc<Peer>,
    on_timeout: fn(&mut ReplyWriter<'_>),
    /// Held while the command is carried out, so that it cannot give up meanwhile.
    state: Mutex<State>,
}

enum State {
    Waiting,
    /// The reply, which its client cannot take yet: it may tell of changes that are not handed over.
    Served(Vec<u8>),
    /// The reply, which its client has not taken yet.
    Answered(Vec<u8>),
    Over,
}

/// What remains to be done after serving, when nothing is held any more: see [`Instance::finish_serving`].
#[derive(Default)]
#[must_use]
pub(crate) struct Served {
    /// Whose commands were carried out.
    waiters: Vec<Arc<Waiter>>,
    /// Ready keys whose next command needs a key that somebody else holds.
    postponed: Vec<(Name, Arc<Waiter>)>,
}

impl Served {
    /// There is nothing to be done.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty() && self.postponed.is_empty()
    }

    /// Somebody waits for a key that is held and ready, but could not be served yet.
    #[inline]
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.postponed.is_empty()
    }
}

impl Blocked {
    /// Lets a command wait whose keys are held.
    pub(crate) fn join(
        &self,
        session: &Session,
        command: Command,
        args: &[&[u8]],
        request: BlockRequest,
        locked: &mut Locked<'_>,
    ) -> Arc<Waiter> {
        let (database, keys) = (session.database, distinct(request.keys));
        for key in &keys {
            let place = locked.databases().place(database, key);
            locked.step_held(place, |_, segment| segment.notices.add_waiter(key));
        }
        let positions = command.row.keys.positions(args);
        let others = positions.iter().map(|at| args[*at]).filter(|arg| !keys.iter().any(|key| **key == **arg));
        let others = others.map(|arg| locked.databases().place(database, arg)).collect();
        let mut register = self.register.lock();
        register.last_ticket += 1;
        let waiter = Arc::new(Waiter {
            ticket: register.last_ticket,
            command,
            args: args.iter().map(|arg| Box::from(*arg)).collect(),
            keys,
            kind: request.kind,
            others,
            session: session.detached(),
            peer: session.peer.clone(),
            on_timeout: request.on_timeout,
            state: Mutex::new(State::Waiting),
        });
        for name in waiter.names() {
            register.queues.entry(name).or_default().insert(waiter.ticket, waiter.clone());
        }
        register.by_client.insert(waiter.peer.id, waiter.clone());
        waiter
    }

    /// How many clients wait.
    pub(crate) fn count(&self) -> usize {
        self.register.lock().by_client.len()
    }

    /// The first one behind `ticket` who waits for `name` to hold a value of `kind`.
    fn next(&self, name: &Name, kind: Kind, ticket: u64) -> Option<Arc<Waiter>> {
        let register = self.register.lock();
        let mut behind = register.queues.get(name)?.range(ticket + 1..);
        behind.find_map(|(_, waiter)| (waiter.kind == kind).then(|| waiter.clone()))
    }

    /// Removes a waiter whose wait has ended.
    fn strike(&self, waiter: &Waiter) {
        let mut register = self.register.lock();
        for name in waiter.names() {
            if let Some(queue) = register.queues.get_mut(&name) {
                queue.remove(&waiter.ticket);
                if queue.is_empty() {
                    register.queues.remove(&name);
                }
            }
        }
        register.by_client.remove(&waiter.peer.id);
    }
}

impl Waiter {
    /// The reply, once there is one: the wait is over then.
    pub(crate) fn take_reply(&self, instance: &Instance) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Answered(_)) {
            return None;
        }
        let State::Answered(reply) = std::mem::replace(&mut *state, State::Over) else { return None };
        drop(state);
        self.remove_marks(instance);
        Some(reply)
    }

    fn remove_marks(&self, instance: &Instance) {
        for key in &self.keys {
            instance.remove_mark(self.session.database, key, Mark::Waiter);
        }
    }

    /// Lets the client have its reply.
    fn hand_out(&self) {
        let mut state = self.state.lock();
        if let State::Served(reply) = &mut *state {
            *state = State::Answered(std::mem::take(reply));
        }
        drop(state);
        self.peer.wake();
    }

    /// The time has come to give up. The reply is there afterwards. That of a command which was carried out, or unblocked, at the last moment comes as soon as
    /// changes were handed over, which wakes the client.
    pub(crate) fn time_out(&self, instance: &Instance) {
        if self.end(instance, self.on_timeout) {
            self.hand_out();
        }
    }

    /// The connection is gone, and with it whatever reply there was.
    pub(crate) fn abandon(&self, instance: &Instance) {
        self.end(instance, |_| ());
        *self.state.lock() = State::Over;
        self.remove_marks(instance);
    }

    /// Ends the wait with what `answer` writes. Returns whether it was still waiting. Waits for no key, so others may be held.
    fn end(&self, instance: &Instance, answer: impl FnOnce(&mut ReplyWriter<'_>)) -> bool {
        let mut state = self.state.lock();
        if !matches!(*state, State::Waiting) {
            return false;
        }
        let mut reply = Vec::new();
        answer(&mut ReplyWriter::new(&mut reply, self.session.protocol));
        *state = State::Served(reply);
        instance.blocked.strike(self);
        true
    }

    /// Carries the command out for `key`, if it still waits. Returns whether it has a reply now. The key and the others are held.
    fn attempt<'e>(
        &self,
        instance: &'e Arc<Instance>,
        key: &[u8],
        locked: &mut Locked<'e>,
        now_us: u64,
        effects: &mut Effects,
    ) -> bool {
        let mut state = self.state.lock();
        if !matches!(*state, State::Waiting) || self.peer.is_killed() {
            return false;
        }
        let args: Vec<&[u8]> = self.args.iter().map(|arg| &**arg).collect();
        let woken_by = self.command.row.keys.positions(&args).into_iter().find(|at| *args[*at] == *key);
        let (mut session, mut reply) = (self.session.attach(instance.next_seed()), Vec::new());
        let session = &mut session;
        let mut step = Step { woken_by, ..Step::new(instance, session, &self.command, &args, now_us) };
        let result = step.run(locked, &mut reply, effects);
        if result.is_err() || effects.block.take().is_some() {
            return false;
        }
        *state = State::Served(reply);
        instance.blocked.strike(self);
        true
    }

    fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.keys.iter().map(|key| (self.session.database, key.clone()))
    }
}

impl Instance {
    /// Ends the wait of a client, as if its time were over or with an error. Returns whether it did wait.
    /// This is `CLIENT UNBLOCK`; keys may be held.
    pub(crate) fn unblock(&self, client_id: u64, with_error: bool) -> bool {
        let waiter = self.blocked.register.lock().by_client.get(&client_id).cloned();
        let Some(waiter) = waiter else { return false };
        let has_ended = if with_error {
            waiter.end(self, |reply| reply.error(UNBLOCKED))
        } else {
            waiter.end(self, waiter.on_timeout)
        };
        if has_ended {
            once_handed_over(move || waiter.hand_out());
        }
        has_ended
    }

    /// Carries out what waits for those keys that are held and ready, to be called before a command, for what others have left, and after it.
    #[inline]
    pub(crate) fn serve_held<'e>(
        self: &'e Arc<Self>,
        locked: &mut Locked<'e>,
        now_us: u64,
        effects: &mut Effects,
        served: &mut Served,
    ) {
        if self.databases.signals().has_ready() {
            self.serve_held_ready(locked, now_us, effects, served);
        }
    }

    #[cold]
    fn serve_held_ready<'e>(
        self: &'e Arc<Self>,
        locked: &mut Locked<'e>,
        now_us: u64,
        effects: &mut Effects,
        served: &mut Served,
    ) {
        let signals = self.databases.signals();
        let postponed_before = served.postponed.len();
        loop {
            // A command that is carried out may make further keys ready.
            let ready = signals.take_ready(|database, key| locked.holds(self.databases.place(database, key)));
            if ready.is_empty() {
                break;
            }
            for name in ready {
                self.serve_key(name, locked, now_us, effects, served);
            }
        }
        // Whoever takes the key next shall see that it is ready.
        for ((database, key), _) in &served.postponed[postponed_before..] {
            signals.add_ready(*database, key);
        }
    }

    fn serve_key<'e>(
        self: &'e Arc<Self>,
        name: Name,
        locked: &mut Locked<'e>,
        now_us: u64,
        effects: &mut Effects,
        served: &mut Served,
    ) {
        let mut ticket = 0;
        loop {
            let kind = locked.slot(name.0, &name.1, now_us / 1_000).get().map(|value| value.kind());
            let Some(kind) = kind else { return };
            let Some(waiter) = self.blocked.next(&name, kind, ticket) else { return };
            if !waiter.others.iter().all(|place| locked.try_take(*place)) {
                served.postponed.push((name, waiter));
                return;
            }
            if waiter.attempt(self, &name.1, locked, now_us, effects) {
                served.waiters.push(waiter.clone());
            }
            ticket = waiter.ticket;
        }
    }

    /// Hands out the replies of those who were served, and serves what was postponed. Nothing may be held.
    #[inline]
    pub(crate) fn finish_serving(self: &Arc<Self>, served: &mut Served, now_us: u64) {
        if !served.is_empty() {
            self.finish_serving_some(served, now_us);
        }
    }

    #[cold]
    fn finish_serving_some(self: &Arc<Self>, served: &mut Served, now_us: u64) {
        loop {
            served.waiters.drain(..).for_each(|waiter| waiter.hand_out());
            let Some(((database, key), waiter)) = served.postponed.pop() else { break };
            let mut places = waiter.others.clone();
            places.push(self.databases.place(database, &key));
            self.serve_at(places, self.patience(), now_us, served);
        }
        // Seldom used again by the same connection.
        *served = Served::default();
    }

    /// Serves all keys that are ready, whoever has made them ready. Nothing may be held.
    pub(crate) fn serve_ready(self: &Arc<Self>, now_us: u64) {
        let patience = if self.scripts.overseer.any_long() { Duration::ZERO } else { PATIENCE };
        for (database, key) in self.databases.signals().all_ready() {
            let mut served = Served::default();
            let places = Places::from_slice(&[self.databases.place(database, &key)]);
            self.serve_at(places, patience, now_us, &mut served);
            self.finish_serving(&mut served, now_us);
        }
    }

    /// What somebody holds for longer than `patience` stays ready: who holds it serves it, or housekeeping does.
    fn serve_at(self: &Arc<Self>, places: Places, patience: Duration, now_us: u64, served: &mut Served) {
        let mut effects = Effects::default();
        let Ok(mut locked) = Locked::acquire(&self.databases, places, patience) else { return };
        self.serve_held(&mut locked, now_us, &mut effects, served);
        drop(locked);
        self.stats.add_changes(effects.changes);
        self.discard(&mut effects.garbage);
    }
}

fn distinct(mut keys: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    keys
}

#[cfg(test)]
mod tests;
