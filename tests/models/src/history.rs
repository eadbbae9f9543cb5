//! What all models have in common: owners, what was granted to whom, and who counts itself the holder.

use std::fmt;

use acteon_state_core::OwnerId;

/// A moment of true time, in ticks of a millisecond.
pub type Tick = u8;

/// One acquisition of one client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The client.
    pub client: u8,
    /// Which of its acquisitions.
    pub acquisition: u8,
}

impl Owner {
    /// As the contract names it.
    #[must_use]
    pub fn id(self) -> OwnerId {
        OwnerId::from_u128(u128::from(self.client) << 8 | u128::from(self.acquisition))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(b'A' + self.client), self.acquisition)
    }
}

/// All grants that clients may have learnt of, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grants(Vec<(Owner, u64)>);

impl Grants {
    /// The place of a grant among all; a repeated reply tells of the same one.
    pub fn place(&mut self, owner: Owner, token: u64) -> u8 {
        let grant = (owner, token);
        let known = self.0.iter().rposition(|known| *known == grant);
        let place = known.unwrap_or_else(|| {
            self.0.push(grant);
            self.0.len() - 1
        });
        u8::try_from(place).expect("few grants fit into a model")
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether each token is greater than all before it.
    #[must_use]
    pub fn rise(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].1 < pair[1].1)
    }

    /// Whether the lock went from one client to another.
    #[must_use]
    pub fn changed_hands(&self) -> bool {
        self.0.windows(2).any(|pair| pair[0].0.client != pair[1].0.client)
    }
}

/// What a client knows of the lock that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    /// The fencing token.
    pub token: u64,
    /// The place of the grant among all: the order that tokens should have.
    pub place: u8,
    /// When it stops by itself.
    pub deadline: Tick,
    /// It has asked for an extension.
    pub extended: bool,
    /// What it has done with the register.
    pub work: Work,
}

/// What a holder has done with the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Nothing.
    Ahead,
    /// It has read it, when it had been written so often.
    Read(u8),
    /// It has written it.
    Done,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// It has asked for the lock at this time.
    Asking(Tick),
    /// It was granted the lock.
    Holding(Hold),
}

/// One client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// How many acquisitions it has begun.
    pub acquisitions: u8,
    /// What it is doing.
    pub phase: Phase,
}

impl Client {
    /// The hold that it counts as its own at this time, by its own deadline.
    #[must_use]
    pub fn hold(&self, now: Tick) -> Option<Hold> {
        match self.phase {
            Phase::Holding(hold) if hold.deadline > now => Some(hold),
            _ => None,
        }
    }

    /// Takes in a grant, unless it comes too late.
    #[must_use]
    pub fn granted(self, token: u64, place: u8, deadline: Tick, now: Tick) -> Option<Self> {
        let hold = Hold { token, place, deadline, extended: false, work: Work::Ahead };
        let is_asking = matches!(self.phase, Phase::Asking(_));
        (is_asking && deadline > now).then_some(Self { phase: Phase::Holding(hold), ..self })
    }

    /// Takes in an extension, unless the hold is over: one that is lost is not taken back.
    #[must_use]
    pub fn extended(self, deadline: Tick, now: Tick) -> Option<Self> {
        let hold = self.hold(now).filter(|hold| deadline > hold.deadline)?;
        Some(Self { phase: Phase::Holding(Hold { deadline, ..hold }), ..self })
    }

    /// Whether it can do nothing any more with what it holds or asked for, at this time.
    #[must_use]
    pub fn is_over(&self, now: Tick, lease: Tick) -> bool {
        match self.phase {
            Phase::Idle => false,
            Phase::Asking(sent_at) => sent_at + lease <= now,
            Phase::Holding(hold) => hold.deadline <= now,
        }
    }
}

/// Whether no two clients count themselves holders.
#[must_use]
pub fn at_most_one_holder(clients: &[Client], now: Tick) -> bool {
    clients.iter().filter(|client| client.hold(now).is_some()).count() <= 1
}

/// The owner of a client's present acquisition.
#[must_use]
pub fn owner(clients: &[Client], client: u8) -> Owner {
    Owner { client, acquisition: clients[usize::from(client)].acquisitions }
}
