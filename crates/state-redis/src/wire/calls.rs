//! The calls under way: who waits, whose request waits to be written, and in which order answers come.
//!
//! # Guarantees
//! Each answer goes to the request that it belongs to, whoever has left meanwhile: answers for those who left are dropped. Requests
//! of calls that are over before the pump took them are never sent.
//!
//! # How it works
//! Calls have [`places`](super::places), their requests wait in the [`outbox`](super::outbox), and stand in a line from when they
//! are sent to when they are answered.
//!
//! # Bounds
//! When the outbox is full, calls wait for room, in the order in which they came. Room that comes free is kept for the first of them until
//! they take it or are over, and newcomers go behind them. One that is not polled keeps its share, and holds up nobody else.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::decode::Incoming;
use super::outbox::Outbox;
use super::places::{Places, Stage, Ticket};
use super::value::Value;
use super::{OUT_BYTES_MAX, Outcome, Request};

/// How a request is answered.
pub(super) enum Expects {
    /// By one reply.
    One,
    /// By so many more.
    Many { left: usize, replies: Vec<Value> },
    /// By so many confirmations of subscriptions, or by one error.
    Confirmations(usize),
}

/// See the module.
#[derive(Default)]
pub(super) struct Calls {
    places: Places,
    outbox: Outbox,
    /// Kept for calls that were told that there is room.
    admitted_bytes: usize,
    /// Calls that wait for room. While there are any, there is none.
    crowd: VecDeque<Ticket>,
    /// Those among them that are over.
    crowd_abandoned: usize,
    /// Sent, and not answered as a whole.
    line: VecDeque<(Ticket, Expects)>,
}

/// What calls that are over have left behind.
#[derive(Default)]
struct Left {
    queued: usize,
    crowded: usize,
    admitted_bytes: usize,
}

impl Calls {
    /// Adds a call. Its request is taken in, or stays where there is no room.
    pub(super) fn enter(
        &mut self,
        request: &mut Option<Request<'_>>,
        deadline: Option<Instant>,
        waker: &Waker,
    ) -> Ticket {
        if self.has_room() {
            let ticket = self.places.enter(waker, deadline, Stage::Queued);
            if let Some(request) = request.take() {
                self.outbox.push(ticket, request);
            }
            return ticket;
        }
        let bytes = request.map_or(0, Request::bytes_max);
        let ticket = self.places.enter(waker, deadline, Stage::Crowded(bytes));
        self.crowd.push_back(ticket);
        ticket
    }

    /// What has become of a call, whose request is taken in if it waited for room and there is some now. Whoever is given an outcome has left.
    pub(super) fn poll(&mut self, ticket: Ticket, request: &mut Option<Request<'_>>, waker: &Waker) -> Poll<Outcome> {
        let poll = self.places.poll(ticket, waker);
        if let Some(waiting) = *request
            && let Some(stage) = self.places.stage(ticket)
            && let Stage::Admitted(bytes) = *stage
        {
            *stage = Stage::Queued;
            *request = None;
            self.admitted_bytes -= bytes;
            self.outbox.push(ticket, waiting);
        }
        poll
    }

    /// Gives up a call. Its request is not sent any more if it was not, and otherwise its answer dropped.
    pub(super) fn leave(&mut self, ticket: Ticket, woken: &mut Vec<Waker>) {
        let mut left = Left::default();
        if let Some(stage) = self.places.leave(ticket) {
            left.add(stage);
        }
        self.clear_up(&left, woken);
    }

    /// Ends the calls whose time is over; returns when that of the next one will be.
    pub(super) fn expire(&mut self, now: Instant, woken: &mut Vec<Waker>) -> Option<Instant> {
        let mut left = Left::default();
        let next = self.places.expire(now, woken, |stage| left.add(stage));
        self.clear_up(&left, woken);
        next
    }

    /// Ends all calls.
    pub(super) fn fail(&mut self, why: &Arc<io::Error>, woken: &mut Vec<Waker>) {
        self.places.fail(why, woken);
        *self = Self { places: std::mem::take(&mut self.places), ..Self::default() };
    }

    /// How much waits to be written.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Takes out the next requests to be written, in exchange for an empty buffer. Returns whether there were any.
    pub(super) fn take(&mut self, writing: &mut Vec<u8>, woken: &mut Vec<Waker>) -> bool {
        let has_taken = self.outbox.take(writing, &mut self.places, &mut self.line);
        self.admit(woken);
        has_taken
    }

    /// Hands on what has arrived. Returns what answers nobody: a message, or a reply that was never asked for.
    pub(super) fn arrived(&mut self, incoming: Incoming, woken: &mut Vec<Waker>) -> Option<Incoming> {
        let Some((ticket, expects)) = self.line.front_mut() else { return Some(incoming) };
        let ticket = *ticket;
        let outcome = match (expects, incoming) {
            (Expects::Confirmations(left), Incoming::Push(push)) if is_confirmation(&push) => {
                *left = left.saturating_sub(1);
                (*left == 0).then_some(Value::Nil)
            }
            (_, Incoming::Push(push)) => return Some(Incoming::Push(push)),
            (Expects::Many { left, replies }, Incoming::Reply(value)) => {
                replies.push(value);
                *left = left.saturating_sub(1);
                (*left == 0).then(|| Value::Array(std::mem::take(replies)))
            }
            (Expects::One | Expects::Confirmations(_), Incoming::Reply(value)) => Some(value),
        };
        if let Some(value) = outcome {
            self.line.pop_front();
            self.places.end(ticket, Ok(value), woken);
        }
        None
    }

    fn has_room(&self) -> bool {
        self.outbox.bytes() + self.admitted_bytes < OUT_BYTES_MAX
    }

    fn clear_up(&mut self, left: &Left, woken: &mut Vec<Waker>) {
        let Self { places, outbox, crowd, .. } = self;
        outbox.abandon(left.queued, places);
        self.admitted_bytes -= left.admitted_bytes;
        self.crowd_abandoned += left.crowded;
        // As in the outbox: each is looked at a few times at most.
        if left.crowded > 0 && self.crowd_abandoned * 2 >= crowd.len() {
            crowd.retain(|ticket| places.stage(*ticket).is_some());
            self.crowd_abandoned = 0;
        }
        self.admit(woken);
    }

    /// Keeps what room there is for those who wait for it.
    fn admit(&mut self, woken: &mut Vec<Waker>) {
        while !self.crowd.is_empty()
            && self.has_room()
            && let Some(ticket) = self.crowd.pop_front()
        {
            match self.places.waiting(ticket) {
                Some((waker, stage)) => {
                    if let Stage::Crowded(bytes) = *stage {
                        *stage = Stage::Admitted(bytes);
                        self.admitted_bytes += bytes;
                        woken.push(waker.clone());
                    }
                }
                None => self.crowd_abandoned -= 1,
            }
        }
    }
}

impl Left {
    fn add(&mut self, stage: Stage) {
        match stage {
            Stage::Crowded(_) => self.crowded += 1,
            Stage::Admitted(bytes) => self.admitted_bytes += bytes,
            Stage::Queued => self.queued += 1,
            // Its answer is dropped when it comes.
            Stage::Sent => {}
        }
    }
}

/// Whether a message says that a subscription has begun or ended.
fn is_confirmation(push: &[Value]) -> bool {
    matches!(push.first(), Some(Value::BulkString(kind)) if kind == b"subscribe" || kind == b"unsubscribe")
}

#[cfg(test)]
mod tests {
    use std::task::{Poll, Waker};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Calls, Incoming, OUT_BYTES_MAX, Ticket, Value};
    use crate::wire::{Cmd, Failure, Outcome, Pipeline, Request};

    fn reply(number: i64) -> Incoming {
        Incoming::Reply(Value::Int(number))
    }

    fn push(kind: &str) -> Incoming {
        Incoming::Push(vec![Value::BulkString(kind.as_bytes().to_vec())])
    }

    fn echo(text: &str) -> Cmd {
        let mut cmd = Cmd::new("ECHO");
        cmd.arg(text);
        cmd
    }

    fn enter(calls: &mut Calls, request: Request<'_>, deadline: Option<Instant>) -> (Ticket, bool) {
        let mut request = Some(request);
        let ticket = calls.enter(&mut request, deadline, Waker::noop());
        (ticket, request.is_none())
    }

    fn ask(calls: &mut Calls, request: Request<'_>) -> Ticket {
        enter(calls, request, None).0
    }

    fn poll(calls: &mut Calls, ticket: Ticket) -> Poll<Outcome> {
        calls.poll(ticket, &mut None, Waker::noop())
    }

    /// What the pump writes next.
    fn take(calls: &mut Calls) -> String {
        let mut bytes = Vec::new();
        calls.take(&mut bytes, &mut Vec::new());
        String::from_utf8(bytes).unwrap()
    }

    fn rendered(texts: &[&str]) -> String {
        texts.iter().map(|text| format!("*2\r\n$4\r\nECHO\r\n${}\r\n{text}\r\n", text.len())).collect()
    }

    #[test]
    fn answers_come_in_the_order_of_the_requests_whoever_has_left() {
        let (mut calls, mut woken, ping) = (Calls::default(), Vec::new(), Cmd::new("PING"));
        let two: Pipeline = [&ping, &ping].into_iter().collect();
        let first = ask(&mut calls, Request::One(&ping));
        let second = ask(&mut calls, Request::All(&two));
        take(&mut calls);
        calls.leave(first, &mut woken);
        // In the place of the first one, and not to be given its answer.
        let third = ask(&mut calls, Request::One(&ping));
        take(&mut calls);
        for number in 1..=3 {
            assert_eq!(calls.arrived(reply(number), &mut woken), None);
        }
        assert_eq!(woken.len(), 1);
        assert!(matches!(poll(&mut calls, second), Poll::Ready(Ok(Value::Array(two))) if two.len() == 2));
        assert!(poll(&mut calls, third).is_pending());
        assert_eq!(calls.arrived(reply(4), &mut woken), None);
        assert!(matches!(poll(&mut calls, third), Poll::Ready(Ok(Value::Int(4)))));
        assert_eq!(calls.arrived(reply(5), &mut woken), Some(reply(5)), "nobody has asked for it");
    }

    #[test]
    fn messages_answer_nobody_and_confirmations_only_those_who_subscribe() {
        let (mut calls, mut woken, cmd) = (Calls::default(), Vec::new(), Cmd::new("SUBSCRIBE"));
        ask(&mut calls, Request::One(&cmd));
        let [subscribes, refused] = [(); 2].map(|()| ask(&mut calls, Request::Confirmed(&cmd, 2)));
        take(&mut calls);
        for kind in ["message", "unsubscribe"] {
            assert_eq!(calls.arrived(push(kind), &mut woken), Some(push(kind)));
        }
        calls.arrived(reply(1), &mut woken);
        calls.arrived(push("subscribe"), &mut woken);
        assert_eq!(calls.arrived(push("message"), &mut woken), Some(push("message")));
        assert!(poll(&mut calls, subscribes).is_pending());
        calls.arrived(push("subscribe"), &mut woken);
        assert!(poll(&mut calls, subscribes).is_ready());
        calls.arrived(reply(2), &mut woken);
        assert!(matches!(poll(&mut calls, refused), Poll::Ready(Ok(Value::Int(2)))));
    }

    #[test]
    fn whose_time_is_over_is_woken_and_the_late_answer_goes_to_nobody() {
        let (mut calls, mut woken, ping) = (Calls::default(), Vec::new(), Cmd::new("PING"));
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let [early, late] = [1, 2].map(|after| enter(&mut calls, Request::One(&ping), Some(now + second * after)).0);
        take(&mut calls);
        let unsent = enter(&mut calls, Request::One(&ping), Some(now + second)).0;
        assert_eq!(calls.expire(now + second, &mut woken), Some(now + second * 2));
        assert!(matches!(poll(&mut calls, early), Poll::Ready(Err(Failure::TimedOut))));
        assert!(matches!(poll(&mut calls, unsent), Poll::Ready(Err(Failure::NotSent(None)))));
        assert_eq!(take(&mut calls), "");
        calls.arrived(reply(1), &mut woken);
        assert!(poll(&mut calls, late).is_pending());
        calls.arrived(reply(2), &mut woken);
        assert!(matches!(poll(&mut calls, late), Poll::Ready(Ok(Value::Int(2)))));
        assert_eq!(calls.expire(now + second * 9, &mut woken), None);
    }

    #[test]
    fn requests_of_calls_that_are_over_are_cut_out_wherever_they_stand() {
        let texts: Vec<String> = (0..6).map(|number| number.to_string().repeat(number * 40_000 + 1)).collect();
        // Each bit is a call that leaves, from the first to the last and the other way round.
        for (pattern, is_backwards) in (0..64).flat_map(|pattern| [(pattern, false), (pattern, true)]) {
            let mut calls = Calls::default();
            let tickets: Vec<Ticket> = texts.iter().map(|text| ask(&mut calls, Request::One(&echo(text)))).collect();
            let mut leaving: Vec<usize> = (0..6).filter(|call| pattern & (1 << call) != 0).collect();
            if is_backwards {
                leaving.reverse();
            }
            leaving.iter().for_each(|call| calls.leave(tickets[*call], &mut Vec::new()));
            let stay: Vec<usize> = (0..6).filter(|call| !leaving.contains(call)).collect();
            let mut written = String::new();
            while calls.unsent_bytes() > 0 {
                written += &take(&mut calls);
            }
            assert_eq!(written, rendered(&stay.iter().map(|call| &*texts[*call]).collect::<Vec<_>>()));
            for call in stay {
                assert_eq!(calls.arrived(reply(call as i64), &mut Vec::new()), None);
                assert!(matches!(poll(&mut calls, tickets[call]), Poll::Ready(Ok(Value::Int(n))) if n == call as i64));
            }
            assert_eq!(calls.arrived(reply(0), &mut Vec::new()), Some(reply(0)));
        }
    }

    #[test]
    fn room_goes_to_those_who_have_waited_longest_and_newcomers_go_behind_them() {
        let (mut calls, mut woken, ping) = (Calls::default(), Vec::new(), Cmd::new("PING"));
        let (large, half) = (echo(&"x".repeat(OUT_BYTES_MAX)), echo(&"y".repeat(OUT_BYTES_MAX / 2)));
        let fills = ask(&mut calls, Request::One(&large));
        let crowd = [&half, &half, &ping].map(|cmd| enter(&mut calls, Request::One(cmd), None));
        assert!(crowd.iter().all(|(_, is_taken)| !is_taken));
        calls.leave(fills, &mut woken);
        assert_eq!(woken.len(), 2, "there is room for two");
        let (newcomer, is_taken) = enter(&mut calls, Request::One(&ping), None);
        assert!(!is_taken, "what room there is belongs to those two");
        let mut request = Some(Request::One(&half));
        assert!(calls.poll(crowd[1].0, &mut request, Waker::noop()).is_pending() && request.is_none());
        // The other one goes without having been polled.
        calls.leave(crowd[0].0, &mut woken);
        assert_eq!(woken.len(), 4);
        for ticket in [newcomer, crowd[2].0] {
            let mut request = Some(Request::One(&ping));
            assert!(calls.poll(ticket, &mut request, Waker::noop()).is_pending() && request.is_none());
        }
        assert_eq!((calls.admitted_bytes, calls.crowd.len(), calls.crowd_abandoned), (0, 0, 0));
    }

    #[test]
    fn callers_that_come_and_go_while_there_is_no_room_leave_nothing_behind() {
        let (mut calls, mut woken, ping) = (Calls::default(), Vec::new(), Cmd::new("PING"));
        ask(&mut calls, Request::One(&echo(&"x".repeat(OUT_BYTES_MAX))));
        let patient = ask(&mut calls, Request::One(&ping));
        for _ in 0..1_000 {
            let short = ask(&mut calls, Request::One(&ping));
            let mut request = Some(Request::One(&ping));
            assert!(calls.poll(patient, &mut request, Waker::noop()).is_pending());
            calls.leave(short, &mut woken);
            assert!(calls.crowd.len() <= 3);
        }
        assert!(woken.is_empty());
        take(&mut calls);
        assert_eq!(woken.len(), 0);
        let mut request = Some(Request::One(&ping));
        assert!(calls.poll(patient, &mut request, Waker::noop()).is_pending() && request.is_none());
    }
}
