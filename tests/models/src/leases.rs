//! Leases of a service with a clock, alone or with a standby that takes over.
//!
//! # How it works
//! Time goes on by ticks of a millisecond. Requests and replies are never taken out of the network, so each may arrive at any later
//! time, any number of times, or never. A write to the register arrives once at most. A failure has two steps, between which at
//! least a tick goes by: the server stops (or is cut off from its standby), then it is there again, or the standby is in
//! its place. It happens at most once.
//!
//! A client whose request was not answered gives up and sends a release. A holder extends once, reads and writes the register once
//! for as long as its own deadline has not come, and releases. What it has sent arrives whenever it likes. A client that
//! crashes is one whose release never arrives.
//!
//! States are kept few by what makes no difference: leases that have ended are dropped, replies that nobody wants any more too, and
//! a client whose time is over gives up at once.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use acteon_state_core::{LockRequest, StateKey};
use stateright::{Model, Property};

use crate::history::{Client, Grants, Owner, Phase, Tick, Work, at_most_one_holder, owner};
use crate::register::{Register, Write, Writes};
use crate::service::{Broken, Record};

/// Each token is greater than all before it.
pub const TOKENS_RISE: &str = "tokens rise";
/// No two clients are within their own deadlines.
pub const ONE_HOLDER: &str = "at most one client counts itself the holder";
/// The last release is in force.
pub const RELEASED: &str = "who released last holds nothing";
/// No write of an older grant is accepted after one of a newer grant.
pub const NO_STALE_WRITE: &str = "no late write is accepted after a newer one";
/// Each write that is accepted was made by who had read the one before.
pub const NO_LOST_UPDATE: &str = "no update is lost";
/// The lock went from one client to another.
pub const CHANGED_HANDS: &str = "the lock changed hands";
/// The fence had something to do.
pub const WRITE_REFUSED: &str = "a write was refused";
/// A grant after the failure.
pub const RECOVERED: &str = "the lock was granted after the failure";

/// When the service's clock starts: above all counts of grants.
const START_US: i64 = 1_000_000;
const TICK_US: i64 = 1_000;
/// Old requests that arrive again and again would be granted again and again, within one tick.
const GRANTS_MAX_USUAL: usize = 3;

/// The servers, and how they fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// One server that does not fail.
    Reliable,
    /// One server that crashes and comes back.
    Restarts {
        /// What it still has then.
        keeps: Keeps,
        /// By how much its clock was set meanwhile.
        clock_set_us: i64,
    },
    /// A primary, and a standby that takes its place.
    FailsOver {
        /// What the standby has before a client is told.
        acknowledged: Acknowledged,
        /// How far the standby's clock is ahead of the primary's.
        skew_us: i64,
        /// For so long after it was cut off, the primary still serves clients.
        cut_off_for: Tick,
        /// For so long the new primary grants nothing.
        quarantine: Tick,
    },
}

/// What a server has after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All that was acknowledged.
    Everything,
    /// What it had written to its disk at some time before.
    APrefix,
    /// Nothing.
    Nothing,
}

/// What a standby has before a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing: replication is asynchronous.
    Nothing,
    /// Grants. Extensions and releases go asynchronously.
    Grants,
    /// Every write: a primary that is cut off can write nothing.
    Everything,
}

/// A model of clients and a service.
#[derive(Clone)]
pub struct Leases {
    /// The servers.
    service: Service,
    /// How holders use the register.
    writes: Writes,
    /// The register is a key of the same service, and shares its fate.
    register_in_service: bool,
    /// The length of leases.
    lease: Tick,
    /// How many acquisitions each client begins.
    acquisitions: [u8; 2],
    /// When time ends.
    until: Tick,
    /// How many grants clients learn of.
    grants_max: usize,
    /// A rule that does not hold.
    broken: Option<Broken>,
    template: LockRequest,
}

/// All there is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: Tick,
    /// Who serves; and what is behind it, its disk or its standby.
    serving: Data,
    behind: Data,
    /// What a primary that was cut off still has.
    cut_off: Option<Data>,
    failed_at: Option<Tick>,
    recovered_at: Option<Tick>,
    clients: [Client; 2],
    network: BTreeSet<Message>,
    /// Replies about grants that the standby does not have yet.
    unacknowledged: Vec<(Owner, Tick, u64)>,
    register: Register,
    grants: Grants,
    granted_after_failure: bool,
    released: Option<Owner>,
}

/// What one server has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Data {
    record: Record,
    /// Only where it is a key of the service.
    register: Option<Register>,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A request for the lock.
    Acquire(Owner, Tick),
    /// A request for a longer lease.
    Extend(Owner, Tick),
    /// A request to end the lease.
    Release(Owner),
    /// The reply to an acquisition that was sent at this time.
    Granted {
        /// To whom.
        owner: Owner,
        /// When the request was sent.
        sent_at: Tick,
        /// The fencing token.
        token: u64,
        /// The place of the grant among all.
        place: u8,
    },
    /// The reply to an extension that was sent at this time.
    Extended(Owner, Tick),
    /// A write to the register.
    Write(Write),
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time goes on.
    Tick,
    /// A client asks for the lock.
    Ask(u8),
    /// A holder asks for a longer lease.
    Extend(u8),
    /// A holder reads the register.
    Read(u8),
    /// A holder writes the register.
    Write(u8),
    /// A client releases what it holds, or may have been granted without knowing.
    Release(u8),
    /// A message arrives.
    Deliver(Message),
    /// A message arrives at the primary that was cut off.
    DeliverToCutOff(Message),
    /// What the server has reaches its disk or its standby.
    Store,
    /// The server crashes or is cut off.
    Fail,
    /// It is there again, or the standby takes its place.
    Recover,
}

impl Leases {
    /// Two clients and this service; holders do not use the register.
    #[must_use]
    pub fn of(service: Service) -> Self {
        let key = StateKey::new("n", "t", "k", "lock").expect("a valid key");
        Self {
            service,
            writes: Writes::None,
            register_in_service: false,
            lease: 2,
            acquisitions: [1, 1],
            until: 5,
            grants_max: GRANTS_MAX_USUAL,
            broken: None,
            template: LockRequest::new(key, Duration::from_millis(1)),
        }
    }

    /// The same with holders that use the register like this.
    #[must_use]
    pub fn writing(self, writes: Writes) -> Self {
        Self { writes, ..self }
    }

    /// The same until another end of time.
    #[must_use]
    pub fn until(self, until: Tick) -> Self {
        Self { until, ..self }
    }

    /// The same with leases of this length.
    #[must_use]
    pub fn lease(self, lease: Tick) -> Self {
        Self { lease, ..self }
    }

    /// The same up to so many grants.
    #[must_use]
    pub fn grants(self, grants_max: usize) -> Self {
        Self { grants_max, ..self }
    }

    /// The same with so many acquisitions of each client.
    #[must_use]
    pub fn acquisitions(self, acquisitions: [u8; 2]) -> Self {
        Self { acquisitions, ..self }
    }

    /// The same with the register as a key of the service.
    #[must_use]
    pub fn with_register_in_service(self) -> Self {
        Self { register_in_service: true, ..self }
    }

    /// The same with a rule that does not hold.
    #[must_use]
    pub fn breaking(self, broken: Broken) -> Self {
        Self { broken: Some(broken), ..self }
    }

    fn clock_us(&self, state: &State) -> u64 {
        Self::time_us(state.now, if state.recovered_at.is_some() { self.moved_us() } else { 0 })
    }

    /// By how much the clock is ahead after the failure.
    fn moved_us(&self) -> i64 {
        match self.service {
            Service::Reliable => 0,
            Service::Restarts { clock_set_us, .. } => clock_set_us,
            Service::FailsOver { skew_us, .. } => skew_us,
        }
    }

    fn time_us(now: Tick, moved_us: i64) -> u64 {
        u64::try_from(START_US + i64::from(now) * TICK_US + moved_us).expect("clocks are moved by little")
    }

    fn acknowledged(&self) -> Acknowledged {
        match self.service {
            Service::FailsOver { acknowledged, .. } => acknowledged,
            Service::Reliable | Service::Restarts { .. } => Acknowledged::Nothing,
        }
    }

    /// Whether what is behind the server may be older than what it has.
    fn lags(&self) -> bool {
        match self.service {
            Service::Reliable => false,
            Service::Restarts { keeps, .. } => keeps == Keeps::APrefix,
            Service::FailsOver { acknowledged, .. } => acknowledged != Acknowledged::Everything,
        }
    }

    fn is_serving(state: &State) -> bool {
        state.failed_at.is_none() || state.recovered_at.is_some()
    }

    fn cut_off_serves(&self, state: &State) -> bool {
        match (self.service, state.failed_at) {
            (Service::FailsOver { acknowledged, cut_off_for, .. }, Some(at)) => {
                acknowledged != Acknowledged::Everything && state.now < at + cut_off_for
            }
            _ => false,
        }
    }

    fn is_quarantined(&self, state: &State) -> bool {
        match (self.service, state.recovered_at) {
            (Service::FailsOver { quarantine, .. }, Some(at)) => state.now < at + quarantine,
            _ => false,
        }
    }

    fn client_actions(&self, state: &State, number: u8, actions: &mut Vec<Action>) {
        let client = &state.clients[usize::from(number)];
        match client.phase {
            Phase::Idle if client.acquisitions < self.acquisitions[usize::from(number)] => {
                actions.push(Action::Ask(number));
            }
            Phase::Idle => {}
            Phase::Asking(_) => actions.push(Action::Release(number)),
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

    fn ask(state: &mut State, number: u8) {
        let now = state.now;
        let client = &mut state.clients[usize::from(number)];
        client.acquisitions += 1;
        client.phase = Phase::Asking(now);
        let owner = owner(&state.clients, number);
        state.network.insert(Message::Acquire(owner, now));
    }

    /// A holder extends, reads or writes.
    fn hold(&self, state: &mut State, number: u8, action: Action) -> Option<()> {
        let owner = owner(&state.clients, number);
        let client = &mut state.clients[usize::from(number)];
        let mut hold = client.hold(state.now)?;
        match action {
            Action::Extend(_) => {
                hold.extended = true;
                state.network.insert(Message::Extend(owner, state.now));
            }
            Action::Read(_) => {
                let register = state.serving.register.as_mut().unwrap_or(&mut state.register);
                hold.work = Work::Read(register.read(hold.token, self.writes)?);
            }
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
        state.network.insert(Message::Release(owner(&state.clients, number)));
        state.clients[usize::from(number)].phase = Phase::Idle;
    }

    /// Removes what makes no difference any more.
    fn tidy(&self, state: &mut State) {
        let now = state.now;
        if self.acknowledged() == Acknowledged::Everything && state.failed_at.is_none() {
            state.behind = state.serving.clone();
        }
        for number in 0..2 {
            let is_asking = matches!(state.clients[usize::from(number)].phase, Phase::Asking(_));
            let may_come_late = is_asking && self.broken == Some(Broken::DeadlineFromReply);
            if !may_come_late && state.clients[usize::from(number)].is_over(now, self.lease) {
                Self::release(state, number);
            }
        }
        let mut network = std::mem::take(&mut state.network);
        network.retain(|message| match *message {
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
        // By whichever clock is behind: a clock that is set back makes a lease last again.
        let ended_us = Self::time_us(now, self.moved_us().min(0));
        for data in [Some(&mut state.serving), Some(&mut state.behind), state.cut_off.as_mut()].into_iter().flatten() {
            data.record.drop_expired(ended_us);
        }
        if state.recovered_at.is_some() {
            state.behind = Data::default();
        }
        if !self.cut_off_serves(state) {
            state.cut_off = state.cut_off.take().map(|_| Data::default());
        }
    }

    fn deliver(&self, state: &mut State, message: Message) -> Option<()> {
        match message {
            Message::Acquire(..) | Message::Extend(..) | Message::Release(_) => {
                if !Self::is_serving(state) {
                    return None;
                }
                let now_us = self.clock_us(state);
                let mut data = std::mem::take(&mut state.serving);
                self.serve(state, &mut data.record, message, now_us, state.cut_off.is_none());
                state.serving = data;
            }
            Message::Granted { owner: of, sent_at, token, place } => {
                let (now, deadline) = (state.now, self.deadline(sent_at, state.now));
                let client = Self::client(state, of)?;
                *client = client.granted(token, place, deadline, now)?;
            }
            Message::Extended(of, sent_at) => {
                let (now, deadline) = (state.now, self.deadline(sent_at, state.now));
                let client = Self::client(state, of)?;
                *client = client.extended(deadline, now)?;
            }
            Message::Write(write) => {
                if self.register_in_service && !Self::is_serving(state) {
                    return None;
                }
                state.network.remove(&message);
                state.serving.register.as_mut().unwrap_or(&mut state.register).write(write, self.writes);
            }
        }
        Some(())
    }

    /// Carries out a request at a server. Without a standby that acknowledges, what must be acknowledged is not.
    fn serve(&self, state: &mut State, record: &mut Record, message: Message, now_us: u64, has_standby: bool) {
        let lease_ms = u64::from(self.lease);
        match message {
            Message::Acquire(owner, sent_at) => {
                let token = record.acquire(owner, &self.template, lease_ms, now_us, self.broken);
                match (token, self.acknowledged()) {
                    (None, _) => {}
                    (Some(token), Acknowledged::Grants) if has_standby => {
                        let reply = (owner, sent_at, token);
                        if !state.unacknowledged.contains(&reply) {
                            state.unacknowledged.push(reply);
                        }
                    }
                    (Some(token), _) => Self::tell(state, owner, sent_at, token),
                }
            }
            Message::Extend(owner, sent_at) => {
                if record.extend(owner, lease_ms, now_us, self.broken) {
                    state.network.insert(Message::Extended(owner, sent_at));
                }
            }
            Message::Release(owner) => {
                if record.release(owner, now_us, self.broken) {
                    state.released = Some(owner);
                }
            }
            Message::Granted { .. } | Message::Extended(..) | Message::Write(_) => {}
        }
    }

    fn tell(state: &mut State, owner: Owner, sent_at: Tick, token: u64) {
        let place = state.grants.place(owner, token);
        state.granted_after_failure |= state.recovered_at.is_some();
        state.network.insert(Message::Granted { owner, sent_at, token, place });
    }

    /// The client, if it still means this acquisition.
    fn client(state: &mut State, of: Owner) -> Option<&mut Client> {
        let client = &mut state.clients[usize::from(of.client)];
        (client.acquisitions == of.acquisition).then_some(client)
    }

    fn deadline(&self, sent_at: Tick, now: Tick) -> Tick {
        let from = if self.broken == Some(Broken::DeadlineFromReply) { now } else { sent_at };
        from + self.lease
    }

    fn store(state: &mut State) {
        state.behind = state.serving.clone();
        for (owner, sent_at, token) in std::mem::take(&mut state.unacknowledged) {
            Self::tell(state, owner, sent_at, token);
        }
    }

    fn recover(&self, state: &mut State) {
        state.recovered_at = Some(state.now);
        let before = match self.service {
            Service::Restarts { keeps: Keeps::Everything, .. } | Service::Reliable => return,
            Service::Restarts { keeps: Keeps::Nothing, .. } => std::mem::take(&mut state.serving),
            Service::Restarts { keeps: Keeps::APrefix, .. } | Service::FailsOver { .. } => {
                std::mem::replace(&mut state.serving, state.behind.clone())
            }
        };
        if let Some(register) = &before.register {
            state.serving.register.get_or_insert_default().keep_findings(register);
        }
        state.unacknowledged.clear();
        if matches!(self.service, Service::FailsOver { .. }) {
            state.cut_off = Some(before);
        }
    }

    fn deliver_to_cut_off(&self, state: &mut State, message: Message) -> Option<()> {
        let now_us = Self::time_us(state.now, 0);
        let is_promoted = state.cut_off.is_some();
        let mut data = if is_promoted { state.cut_off.take()? } else { std::mem::take(&mut state.serving) };
        // A grant that must be acknowledged is not any more, so nobody is told of it.
        let is_told = !(matches!(message, Message::Acquire(..)) && self.acknowledged() == Acknowledged::Grants);
        if is_told {
            self.serve(state, &mut data.record, message, now_us, false);
        }
        *(if is_promoted { state.cut_off.insert(Data::default()) } else { &mut state.serving }) = data;
        is_told.then_some(())
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, writes, register_in_service, lease, acquisitions, until, grants_max, broken, template: _ } =
            self;
        write!(f, "{service:?}, writes {writes:?}, register in the service: {register_in_service}, lease {lease}, ")?;
        write!(f, "acquisitions {acquisitions:?}, until {until}, at most {grants_max} grants, broken: {broken:?}")
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let data = Data { record: Record::default(), register: self.register_in_service.then(Register::default) };
        vec![State {
            now: 0,
            serving: data.clone(),
            behind: data,
            cut_off: None,
            failed_at: None,
            recovered_at: None,
            clients: [Client::default(); 2],
            network: BTreeSet::new(),
            unacknowledged: Vec::new(),
            register: Register::default(),
            grants: Grants::default(),
            granted_after_failure: false,
            released: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.until {
            actions.push(Action::Tick);
        }
        for client in 0..2 {
            self.client_actions(state, client, actions);
        }
        for message in &state.network {
            let is_new_grant = matches!(message, Message::Acquire(..)) && self.is_quarantined(state);
            if !is_new_grant {
                actions.push(Action::Deliver(*message));
            }
            let is_request = matches!(message, Message::Acquire(..) | Message::Extend(..) | Message::Release(_));
            if is_request && self.cut_off_serves(state) {
                actions.push(Action::DeliverToCutOff(*message));
            }
        }
        if self.lags() && state.failed_at.is_none() {
            actions.push(Action::Store);
        }
        match (self.service, state.failed_at, state.recovered_at) {
            (Service::Reliable, ..) | (_, Some(_), Some(_)) => {}
            (_, None, _) => actions.push(Action::Fail),
            (_, Some(at), None) if state.now > at => actions.push(Action::Recover),
            (_, Some(_), None) => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Ask(client) => Self::ask(&mut state, client),
            Action::Release(client) => Self::release(&mut state, client),
            Action::Extend(client) | Action::Read(client) | Action::Write(client) => {
                self.hold(&mut state, client, action)?;
            }
            Action::Deliver(message) => self.deliver(&mut state, message)?,
            Action::DeliverToCutOff(message) => self.deliver_to_cut_off(&mut state, message)?,
            Action::Store => Self::store(&mut state),
            Action::Fail => state.failed_at = Some(state.now),
            Action::Recover => self.recover(&mut state),
        }
        self.tidy(&mut state);
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.grants.count() + state.unacknowledged.len() <= self.grants_max
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn register(state: &State) -> &Register {
            state.serving.register.as_ref().unwrap_or(&state.register)
        }
        vec![
            Property::always(TOKENS_RISE, |_, state: &State| state.grants.rise()),
            Property::always(ONE_HOLDER, |_, state: &State| at_most_one_holder(&state.clients, state.now)),
            Property::always(RELEASED, |_, state: &State| state.serving.record.is_released_by(state.released)),
            Property::always(NO_STALE_WRITE, |_, state: &State| !register(state).stale),
            Property::always(NO_LOST_UPDATE, |_, state: &State| !register(state).lost_update),
            Property::sometimes(CHANGED_HANDS, |_, state: &State| state.grants.changed_hands()),
            Property::sometimes(WRITE_REFUSED, |_, state: &State| register(state).refused),
            Property::sometimes(RECOVERED, |_, state: &State| state.granted_after_failure),
        ]
    }
}
