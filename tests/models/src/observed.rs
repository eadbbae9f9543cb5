//! Leases of a service without a clock: one item, changed by conditional writes, whose lease ends as clients observe it.
//!
//! # How it works
//! A client looks at the item and decides, in one step, whether it can be had; its write arrives later, once or several
//! times or never, under the condition that the item is still as it was seen. A look that took its time is one after which the
//! client paused. As the driver does, a client may also write without looking, under the condition that the lock is free.
//!
//! Somebody else's lease has ended when the item stayed as it is for a whole lease on the client's own monotonic clock, which
//! here is true time; or, where clocks are declared to differ by at most a bound, when the client's wall clock is past its
//! end by that bound.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::history::{Client, Grants, Owner, Phase, Tick, Work, at_most_one_holder, owner};
use crate::leases::{CHANGED_HANDS, NO_LOST_UPDATE, NO_STALE_WRITE, ONE_HOLDER, TOKENS_RISE, WRITE_REFUSED};
use crate::register::{Register, Write, Writes};

/// A lease ended although its holder had not released it.
pub const TAKEN_OVER: &str = "a lease that had ended was taken over";

/// Old requests that find the lock free again would be granted again and again.
const GRANTS_MAX: usize = 3;
/// Wall clocks start here, so that those behind are above zero.
const WALL_START: i16 = 100;

/// A rule of the protocol that is broken, to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A lease is taken for ended a tick early.
    WatchesTooShort,
    /// An extension does not begin the watch anew.
    WatchesTheOwner,
    /// The write of a takeover is under the condition that the same owner holds it, whatever it did meanwhile.
    TakesOverUnseen,
    /// A wall clock is trusted to the tick.
    NoMarginForClocks,
    /// A client counts its deadline from the reply instead of from before the request.
    DeadlineFromReply,
    /// Each grant's token is the wall clock of its client.
    TokensWithoutCount,
}

/// A model of two clients and one item.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How far each client's wall clock is ahead.
    clocks_ahead: [i8; 2],
    /// How far wall clocks may differ, if that is declared.
    skew_max: Option<u8>,
    writes: Writes,
    lease: Tick,
    acquisitions: [u8; 2],
    until: Tick,
    broken: Option<Broken>,
}

/// All there is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: Tick,
    item: Item,
    clients: [Client; 2],
    /// What each client has seen of somebody else's lease, and since when.
    sightings: [Option<(Mark, Tick)>; 2],
    network: BTreeSet<Message>,
    register: Register,
    grants: Grants,
    taken_over: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Item {
    last_token: u64,
    last_release: Option<Owner>,
    holder: Option<Holder>,
    /// Changes with every write and never repeats.
    version: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Holder {
    owner: Owner,
    /// By its holder's wall clock.
    ends_at: i16,
}

/// What of an item must stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// Its version.
    Version(u8),
    /// Its owner.
    Owner(Option<Owner>),
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A conditional write that takes the lock as it was seen; without a mark, a free one.
    Take {
        /// Who.
        owner: Owner,
        /// When it was sent.
        sent_at: Tick,
        /// As what it was seen.
        seen: Option<Mark>,
        /// The fencing token.
        token: u64,
    },
    /// An extension, sent at this time.
    Extend(Owner, Tick),
    /// A release, sent at this time.
    Release(Owner, Tick),
    /// A grant.
    Granted {
        /// To whom.
        owner: Owner,
        /// When the write was sent.
        sent_at: Tick,
        /// The fencing token.
        token: u64,
        /// The place of the grant among all.
        place: u8,
    },
    /// An extension that was sent at this time succeeded.
    Extended(Owner, Tick),
    /// A write to the register.
    Write(Write),
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time goes on.
    Tick,
    /// A client asks: it takes the lock without looking, if it is free.
    Ask(u8),
    /// It looks, and takes the lock if it can be had.
    Look(u8),
    /// A holder extends its lease.
    Extend(u8),
    /// A holder reads the register.
    Read(u8),
    /// A holder writes the register.
    Write(u8),
    /// A client releases what it holds, or may have been granted without knowing.
    Release(u8),
    /// A message arrives.
    Deliver(Message),
}

impl Observed {
    /// Two clients whose wall clocks are ahead by so much, of which nothing is declared.
    #[must_use]
    pub fn with_clocks_ahead(clocks_ahead: [i8; 2]) -> Self {
        Self {
            clocks_ahead,
            skew_max: None,
            writes: Writes::None,
            lease: 2,
            acquisitions: [1, 1],
            until: 5,
            broken: None,
        }
    }

    /// The same with clocks that are declared to differ by at most this.
    #[must_use]
    pub fn declaring(self, skew_max: u8) -> Self {
        Self { skew_max: Some(skew_max), ..self }
    }

    /// The same with holders that use the register like this.
    #[must_use]
    pub fn writing(self, writes: Writes) -> Self {
        Self { writes, ..self }
    }

    /// The same with so many acquisitions of each client.
    #[must_use]
    pub fn acquisitions(self, acquisitions: [u8; 2]) -> Self {
        Self { acquisitions, ..self }
    }

    /// The same until another end of time.
    #[must_use]
    pub fn until(self, until: Tick) -> Self {
        Self { until, ..self }
    }

    /// The same with a rule that does not hold.
    #[must_use]
    pub fn breaking(self, broken: Broken) -> Self {
        Self { broken: Some(broken), ..self }
    }

    fn wall(&self, client: u8, at: Tick) -> i16 {
        WALL_START + i16::from(at) + i16::from(self.clocks_ahead[usize::from(client)])
    }

    fn clock_token(&self, client: u8, at: Tick) -> u64 {
        u64::from(self.wall(client, at).unsigned_abs()) * 10
    }

    fn mark(&self, item: &Item) -> Mark {
        match self.broken {
            Some(Broken::WatchesTheOwner | Broken::TakesOverUnseen) => {
                Mark::Owner(item.holder.map(|holder| holder.owner))
            }
            _ => Mark::Version(item.version),
        }
    }

    fn is_as_seen(&self, item: &Item, seen: Mark) -> bool {
        match seen {
            Mark::Version(version) => item.version == version,
            Mark::Owner(owner) => item.holder.map(|holder| holder.owner) == owner,
        }
    }

    /// Looks at the item. Sends a write that takes the lock if nobody's lease forbids it.
    fn look(&self, state: &mut State, client: u8) -> Option<()> {
        let Phase::Asking(_) = state.clients[usize::from(client)].phase else { return None };
        let owner = owner(&state.clients, client);
        if state.item.last_release == Some(owner) {
            return None;
        }
        let is_under_way =
            |message: &Message| matches!(message, Message::Take { owner: of, seen: Some(_), .. } if *of == owner);
        if state.network.iter().any(is_under_way) {
            return None;
        }
        let mark = self.mark(&state.item);
        if let Some(holder) = state.item.holder {
            let sighting = &mut state.sightings[usize::from(client)];
            let since = match *sighting {
                Some((known, since)) if known == mark => since,
                _ => state.now,
            };
            *sighting = Some((mark, since));
            if !self.has_ended(holder, client, since, state.now) {
                return Some(());
            }
        }
        let floor = self.clock_token(client, state.now);
        let token = match self.broken {
            Some(Broken::TokensWithoutCount) => floor,
            _ => floor.max(state.item.last_token + 1),
        };
        let seen = match self.broken {
            // It watched the version, but writes over whatever the same owner did meanwhile.
            Some(Broken::TakesOverUnseen) => Mark::Owner(state.item.holder.map(|holder| holder.owner)),
            _ => Mark::Version(state.item.version),
        };
        self.send_take(state, owner, Some(seen), token);
        Some(())
    }

    /// Whether somebody else's lease, unchanged since then, has ended for this client.
    fn has_ended(&self, holder: Holder, client: u8, since: Tick, now: Tick) -> bool {
        let watched_for = match self.broken {
            Some(Broken::WatchesTooShort) => self.lease - 1,
            _ => self.lease,
        };
        let margin = match self.broken {
            Some(Broken::NoMarginForClocks) => 0,
            _ => i16::from(self.skew_max.unwrap_or(0)),
        };
        let by_time = self.skew_max.is_some() && self.wall(client, now) >= holder.ends_at + margin;
        since + watched_for <= now || by_time
    }

    fn send_take(&self, state: &mut State, owner: Owner, seen: Option<Mark>, token: u64) {
        let now = state.now;
        state.clients[usize::from(owner.client)].phase = Phase::Asking(now);
        state.network.insert(Message::Take { owner, sent_at: now, seen, token });
    }

    fn hold(&self, state: &mut State, number: u8, action: Action) -> Option<()> {
        let owner = owner(&state.clients, number);
        let client = &mut state.clients[usize::from(number)];
        let mut hold = client.hold(state.now)?;
        match action {
            Action::Extend(_) => {
                hold.extended = true;
                state.network.insert(Message::Extend(owner, state.now));
            }
            Action::Read(_) => hold.work = Work::Read(state.register.read(hold.token, self.writes)?),
            _ => {
                let Work::Read(read) = hold.work else { return None };
                hold.work = Work::Done;
                state.network.insert(Message::Write(Write { token: hold.token, place: hold.place, read }));
            }
        }
        client.phase = Phase::Holding(hold);
        Some(())
    }

    fn release(state: &mut State, number: u8) {
        state.network.insert(Message::Release(owner(&state.clients, number), state.now));
        state.clients[usize::from(number)].phase = Phase::Idle;
    }

    fn deliver(&self, state: &mut State, message: Message) -> Option<()> {
        match message {
            Message::Take { owner, sent_at, seen, token } => self.take(state, owner, sent_at, seen, token)?,
            Message::Extend(owner, sent_at) => {
                let ends_at = self.wall(owner.client, sent_at) + i16::from(self.lease);
                let holder = self.own(&state.item, owner, sent_at).filter(|holder| holder.ends_at < ends_at)?;
                state.item.holder = Some(Holder { ends_at, ..holder });
                state.item.version += 1;
                state.network.insert(Message::Extended(owner, sent_at));
            }
            Message::Release(owner, sent_at) => {
                self.own(&state.item, owner, sent_at)?;
                state.item = Item { holder: None, last_release: Some(owner), ..state.item };
                state.item.version += 1;
            }
            Message::Granted { owner, sent_at, token, place } => {
                let (now, deadline) = (state.now, self.deadline(sent_at, state.now));
                let client = Self::client(state, owner)?;
                *client = client.granted(token, place, deadline, now)?;
            }
            Message::Extended(owner, sent_at) => {
                let (now, deadline) = (state.now, self.deadline(sent_at, state.now));
                let client = Self::client(state, owner)?;
                *client = client.extended(deadline, now)?;
            }
            Message::Write(write) => {
                state.network.remove(&message);
                state.register.write(write, self.writes);
            }
        }
        Some(())
    }

    /// The condition of an extension and of a release: the owner holds the lock, and its lease lasted when it was sent.
    fn own(&self, item: &Item, owner: Owner, sent_at: Tick) -> Option<Holder> {
        item.holder.filter(|holder| holder.owner == owner && holder.ends_at > self.wall(owner.client, sent_at))
    }

    fn take(&self, state: &mut State, owner: Owner, sent_at: Tick, seen: Option<Mark>, token: u64) -> Option<()> {
        let item = &state.item;
        let is_met = match seen {
            Some(seen) => self.is_as_seen(item, seen),
            // Tokens must rise, and who released last is refused.
            None => item.holder.is_none() && item.last_token < token && item.last_release != Some(owner),
        };
        if !is_met {
            return None;
        }
        state.taken_over |= item.holder.is_some_and(|holder| holder.owner != owner);
        let ends_at = self.wall(owner.client, sent_at) + i16::from(self.lease);
        state.item.holder = Some(Holder { owner, ends_at });
        state.item.last_token = token;
        state.item.version += 1;
        let place = state.grants.place(owner, token);
        state.network.insert(Message::Granted { owner, sent_at, token, place });
        Some(())
    }

    fn deadline(&self, sent_at: Tick, now: Tick) -> Tick {
        let from = if self.broken == Some(Broken::DeadlineFromReply) { now } else { sent_at };
        from + self.lease
    }

    /// The client, if it still means this acquisition.
    fn client(state: &mut State, of: Owner) -> Option<&mut Client> {
        let client = &mut state.clients[usize::from(of.client)];
        (client.acquisitions == of.acquisition).then_some(client)
    }

    /// Removes what makes no difference any more.
    fn tidy(&self, state: &mut State) {
        let now = state.now;
        for number in 0..2 {
            let client = &state.clients[usize::from(number)];
            let is_holding = matches!(client.phase, Phase::Holding(_));
            if is_holding && client.is_over(now, self.lease) {
                Self::release(state, number);
            }
            if !matches!(state.clients[usize::from(number)].phase, Phase::Asking(_)) {
                state.sightings[usize::from(number)] = None;
            }
        }
        let mut network = std::mem::take(&mut state.network);
        network.retain(|message| match *message {
            Message::Take { seen: Some(Mark::Version(version)), .. } => version == state.item.version,
            Message::Granted { owner, sent_at, token, place } => {
                let deadline = self.deadline(sent_at, now);
                Self::client(state, owner).is_some_and(|client| client.granted(token, place, deadline, now).is_some())
            }
            Message::Extended(owner, sent_at) => {
                let deadline = self.deadline(sent_at, now);
                Self::client(state, owner).is_some_and(|client| client.extended(deadline, now).is_some())
            }
            _ => true,
        });
        state.network = network;
    }
}

impl Model for Observed {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            item: Item::default(),
            clients: [Client::default(); 2],
            sightings: [None; 2],
            network: BTreeSet::new(),
            register: Register::default(),
            grants: Grants::default(),
            taken_over: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.until {
            actions.push(Action::Tick);
        }
        for (number, client) in (0..).zip(&state.clients) {
            match client.phase {
                Phase::Idle if client.acquisitions < self.acquisitions[usize::from(number)] => {
                    actions.push(Action::Ask(number));
                }
                Phase::Idle => {}
                Phase::Asking(_) => {
                    actions.extend([Action::Look(number), Action::Release(number)]);
                }
                Phase::Holding(hold) => {
                    actions.push(Action::Release(number));
                    if !hold.extended {
                        actions.push(Action::Extend(number));
                    }
                    match hold.work {
                        _ if self.writes == Writes::None => {}
                        Work::Ahead => actions.push(Action::Read(number)),
                        Work::Read(_) => actions.push(Action::Write(number)),
                        Work::Done => {}
                    }
                }
            }
        }
        actions.extend(state.network.iter().copied().map(Action::Deliver));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Ask(number) => {
                state.clients[usize::from(number)].acquisitions += 1;
                let (owner, token) = (owner(&state.clients, number), self.clock_token(number, state.now));
                self.send_take(&mut state, owner, None, token);
            }
            Action::Look(number) => self.look(&mut state, number)?,
            Action::Extend(number) | Action::Read(number) | Action::Write(number) => {
                self.hold(&mut state, number, action)?;
            }
            Action::Release(number) => Self::release(&mut state, number),
            Action::Deliver(message) => self.deliver(&mut state, message)?,
        }
        self.tidy(&mut state);
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.grants.count() <= GRANTS_MAX
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TOKENS_RISE, |_, state: &State| state.grants.rise()),
            Property::always(ONE_HOLDER, |_, state: &State| at_most_one_holder(&state.clients, state.now)),
            Property::always(NO_STALE_WRITE, |_, state: &State| !state.register.stale),
            Property::always(NO_LOST_UPDATE, |_, state: &State| !state.register.lost_update),
            Property::sometimes(CHANGED_HANDS, |_, state: &State| state.grants.changed_hands()),
            Property::sometimes(WRITE_REFUSED, |_, state: &State| state.register.refused),
            Property::sometimes(TAKEN_OVER, |_, state: &State| state.taken_over),
        ]
    }
}
