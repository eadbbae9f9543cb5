//! Who waits for an answer: a table whose places are used again.
//!
//! # Guarantees
//! A ticket stands for one call: a place that was left is taken by somebody else only under another generation. A call that ends
//! without an answer is told whether its request may have reached the server.
//!
//! # How it works
//! No allocation per call: places are taken again once they were left.

use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::{Failure, Outcome};

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    place: usize,
    generation: u64,
}

/// How far the request of a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no room for its bytes, as many as these.
    Crowded(usize),
    /// Room for so many bytes is kept for it.
    Admitted(usize),
    /// It waits to be written.
    Queued,
    /// It may have reached the server.
    Sent,
}

/// See the module.
#[derive(Default)]
pub(super) struct Places {
    places: Vec<Place>,
    free: Vec<usize>,
}

struct Place {
    generation: u64,
    state: State,
}

enum State {
    Free,
    Waits { waker: Waker, deadline: Option<Instant>, stage: Stage },
    Done(Outcome),
}

impl Places {
    /// Adds somebody who waits.
    pub(super) fn enter(&mut self, waker: &Waker, deadline: Option<Instant>, stage: Stage) -> Ticket {
        let state = State::Waits { waker: waker.clone(), deadline, stage };
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place].state = state;
                place
            }
            None => {
                self.places.push(Place { generation: 0, state });
                self.places.len() - 1
            }
        };
        Ticket { place, generation: self.places[place].generation }
    }

    /// What has become of a call. Whoever is given an outcome has left.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Outcome> {
        let place = &mut self.places[ticket.place];
        match std::mem::replace(&mut place.state, State::Free) {
            State::Done(outcome) => {
                place.generation += 1;
                self.free.push(ticket.place);
                Poll::Ready(outcome)
            }
            State::Waits { waker: mut known, deadline, stage } => {
                known.clone_from(waker);
                place.state = State::Waits { waker: known, deadline, stage };
                Poll::Pending
            }
            State::Free => unreachable!("a call keeps its place until it leaves"),
        }
    }

    /// Gives up a place. Returns how far the request had come, if the call was not over.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Stage> {
        let place = &mut self.places[ticket.place];
        place.generation += 1;
        self.free.push(ticket.place);
        match std::mem::replace(&mut place.state, State::Free) {
            State::Waits { stage, .. } => Some(stage),
            State::Free | State::Done(_) => None,
        }
    }

    /// How far the request of a call has come, unless the call is over.
    pub(super) fn stage(&mut self, ticket: Ticket) -> Option<&mut Stage> {
        self.waiting(ticket).map(|(_, stage)| stage)
    }

    /// The same, and whom to wake.
    pub(super) fn waiting(&mut self, ticket: Ticket) -> Option<(&Waker, &mut Stage)> {
        let place = self.places.get_mut(ticket.place).filter(|place| place.generation == ticket.generation)?;
        match &mut place.state {
            State::Waits { waker, stage, .. } => Some((waker, stage)),
            State::Free | State::Done(_) => None,
        }
    }

    /// Ends a call, unless it is over already.
    pub(super) fn end(&mut self, ticket: Ticket, outcome: Outcome, woken: &mut Vec<Waker>) {
        let place = &mut self.places[ticket.place];
        if place.generation == ticket.generation {
            place.end(outcome, woken);
        }
    }

    /// Ends the calls whose time is over, and tells how far each had come; returns when that of the next one will be.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        woken: &mut Vec<Waker>,
        mut ended: impl FnMut(Stage),
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for place in &mut self.places {
            let State::Waits { deadline: Some(deadline), stage, .. } = place.state else { continue };
            if deadline <= now {
                place.end(Err(stage.timed_out()), woken);
                ended(stage);
            } else {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            }
        }
        next
    }

    /// Ends all calls.
    pub(super) fn fail(&mut self, why: &Arc<io::Error>, woken: &mut Vec<Waker>) {
        for place in &mut self.places {
            if let State::Waits { stage, .. } = place.state {
                place.end(Err(stage.failed(why.clone())), woken);
            }
        }
    }
}

impl Place {
    fn end(&mut self, outcome: Outcome, woken: &mut Vec<Waker>) {
        if matches!(self.state, State::Waits { .. })
            && let State::Waits { waker, .. } = std::mem::replace(&mut self.state, State::Done(outcome))
        {
            woken.push(waker);
        }
    }
}

impl Stage {
    fn timed_out(self) -> Failure {
        if self == Self::Sent { Failure::TimedOut } else { Failure::NotSent(None) }
    }

    fn failed(self, why: Arc<io::Error>) -> Failure {
        if self == Self::Sent { Failure::Lost(why) } else { Failure::NotSent(Some(why)) }
    }
}
