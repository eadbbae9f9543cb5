//! Requests that wait to be written.
//!
//! # How it works
//! They are rendered behind each other into chunks, and each chunk keeps the lengths of its requests. So the pump takes
//! a chunk as it is, and one that nobody waits for any more can be cut out until then. Chunks are small: what was taken is written,
//! also when its callers leave, and a server that stands still for a while must not find the requests of a second ago first.

use std::collections::VecDeque;

use super::Request;
use super::calls::Expects;
use super::places::{Places, Stage, Ticket};

/// A chunk that is as large as this gets no further requests. A system call costs little beside the bytes that it moves.
const CHUNK_BYTES: usize = 64 * 1_024;
/// Empty chunks that are kept for their room: with those in use, about what a connection under load needs between two writes.
const SPARES_MAX: usize = 3;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    /// Takes what comes next.
    open: Chunk,
    /// The older ones, oldest first.
    full: VecDeque<Chunk>,
    spares: Vec<Chunk>,
    bytes: usize,
    count: usize,
    /// Requests that nobody waits for any more.
    abandoned: usize,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    requests: Vec<Unsent>,
}

struct Unsent {
    ticket: Ticket,
    expects: Expects,
    bytes: usize,
}

impl Outbox {
    /// Of all requests together, those that nobody waits for among them: at most half of the requests.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, ticket: Ticket, request: Request<'_>) {
        let before = self.open.bytes.len();
        request.write(&mut self.open.bytes);
        let bytes = self.open.bytes.len() - before;
        self.open.requests.push(Unsent { ticket, expects: request.expects(), bytes });
        self.bytes += bytes;
        self.count += 1;
        if self.open.bytes.len() >= CHUNK_BYTES {
            let next = self.spares.pop().unwrap_or_default();
            self.full.push_back(std::mem::replace(&mut self.open, next));
        }
    }

    /// Takes out the next bytes to be written, in exchange for an empty buffer, and puts their requests into the line of those that
    /// are sent. Returns whether there were any.
    pub(super) fn take(
        &mut self,
        writing: &mut Vec<u8>,
        places: &mut Places,
        line: &mut VecDeque<(Ticket, Expects)>,
    ) -> bool {
        while self.count > 0 {
            let chunk = self.full.front_mut().unwrap_or(&mut self.open);
            self.bytes -= chunk.bytes.len();
            self.count -= chunk.requests.len();
            if self.abandoned > 0 {
                self.abandoned -= chunk.cut(places);
            }
            for Unsent { ticket, expects, .. } in chunk.requests.drain(..) {
                if let Some(stage) = places.stage(ticket) {
                    *stage = Stage::Sent;
                }
                line.push_back((ticket, expects));
            }
            std::mem::swap(&mut chunk.bytes, writing);
            // The open one is used again where it is.
            if let Some(empty) = self.full.pop_front()
                && self.spares.len() < SPARES_MAX
            {
                self.spares.push(empty);
            }
            if !writing.is_empty() {
                return true;
            }
        }
        false
    }

    /// Notes that nobody waits for so many requests any more. Once those are half of all, they are cut out, so that each request is looked at
    /// a few times at most.
    pub(super) fn abandon(&mut self, count: usize, places: &mut Places) {
        self.abandoned += count;
        if count == 0 || self.abandoned * 2 < self.count {
            return;
        }
        for chunk in self.full.iter_mut().chain([&mut self.open]) {
            self.bytes -= chunk.bytes.len();
            self.count -= chunk.cut(places);
            self.bytes += chunk.bytes.len();
        }
        self.full.retain(|chunk| !chunk.requests.is_empty());
        self.abandoned = 0;
    }
}

impl Chunk {
    /// Takes out the requests that nobody waits for, and returns how many those were.
    fn cut(&mut self, places: &mut Places) -> usize {
        let (bytes, count) = (&mut self.bytes, self.requests.len());
        let (mut from, mut to) = (0, 0);
        self.requests.retain(|request| {
            let end = from + request.bytes;
            let is_kept = places.stage(request.ticket).is_some();
            if is_kept {
                if from != to {
                    bytes.copy_within(from..end, to);
                }
                to += request.bytes;
            }
            from = end;
            is_kept
        });
        bytes.truncate(to);
        count - self.requests.len()
    }
}
