//! Holds the replies of a connection back until what they tell of is on the disk.
//!
//! # Guarantees
//! Under `fsync = "always"`, nothing that a connection is sent (a reply, a message, the end of a wait) tells of a change that a crash could still
//! take back, be it its own or that of others. Where nothing waits for the disk, nothing is held back.
//!
//! # Failure
//! When the disk fails meanwhile, it is unknown whether what the connection has written will be there after a crash: then it cannot be answered,
//! and ends. Who has only read gets what is in memory.
//!
//! # How it works
//! After each turn of commands the gate closes at the position that the log has by then, whoever has written last. The position covers all
//! that the replies can tell of. All connections that wait at that moment share one sync of the disk.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use acteon_engine::groups_of_this_thread;
use acteon_engine_disk::{Batch, Disk, Kept, NotKept};

/// What stands between the replies of a connection and its peer.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    disk: Option<Arc<Disk>>,
    state: State,
    /// The disk has everything up to here.
    passed: u64,
    /// The connection has written something that it was not answered for.
    has_written: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// Replies wait until everything up to a position is kept.
    Keeping { kept: Kept, position: u64 },
    /// More is written than the disk takes: the next commands wait.
    Crowded(Kept),
}

/// Notices what is written while it lives.
#[derive(Debug)]
pub(crate) struct Turn {
    groups_before: u64,
    /// What is written in one turn comes to the disk together.
    batch: Option<Batch>,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Something is to be sent.
    pub(crate) has_output: bool,
    /// Somebody else has written on behalf of the connection.
    pub(crate) was_served: bool,
}

impl Gate {
    pub(crate) fn new(disk: Option<Arc<Disk>>) -> Self {
        Self { disk, ..Self::default() }
    }

    /// Whether replies are held back, and no further commands are to be carried out.
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// To be called before commands are carried out, on the same thread as [`end_turn`](Self::end_turn).
    pub(crate) fn begin_turn(&self) -> Turn {
        debug_assert!(!self.is_closed(), "no commands are carried out behind a closed gate");
        let batch = self.disk.as_ref().and_then(|disk| disk.batch());
        Turn { groups_before: groups_of_this_thread(), batch }
    }

    /// Closes unless everything up to `position`, that of the log, is known to be kept, or nothing came of the turn.
    pub(crate) fn end_turn(&mut self, turn: Turn, came_of_it: Outcome, position: u64) {
        let Some(disk) = &self.disk else { return };
        // From here on the disk may begin.
        drop(turn.batch);
        let Outcome { has_output, was_served } = came_of_it;
        let has_written = was_served || turn.groups_before != groups_of_this_thread();
        if position <= self.passed || !has_output && !has_written {
            return;
        }
        let kept = disk.kept(position);
        if !kept.is_at_once() {
            self.has_written |= has_written;
            self.state = State::Keeping { kept, position };
        } else if has_written {
            // Nothing has passed: a stricter setting must find that the disk does not have it yet.
            self.state = State::Crowded(disk.room());
        }
    }

    /// Ready once it is open.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        loop {
            match &mut self.state {
                State::Open => return Poll::Ready(Ok(())),
                State::Keeping { kept, position } => {
                    let position = *position;
                    let result = ready!(Pin::new(kept).poll(context));
                    let has_written = std::mem::take(&mut self.has_written);
                    self.state = State::Open;
                    match (result, &self.disk) {
                        (Err(error), _) if has_written => return Poll::Ready(Err(error)),
                        (Ok(()), disk) => {
                            self.passed = position;
                            if let Some(disk) = disk.as_ref().filter(|_| has_written) {
                                self.state = State::Crowded(disk.room());
                            }
                        }
                        (Err(_), _) => {}
                    }
                }
                State::Crowded(room) => {
                    // If the disk fails, the next write is refused with the reason.
                    let _ = ready!(Pin::new(room).poll(context));
                    self.state = State::Open;
                }
            }
        }
    }
}
