//! Lets requests gather before they are written.
//!
//! The pump is woken by the first of many tasks that have something to send, and would write that one request by
//! itself: a system call here, one more at the server, and a packet, for each. So a write steps back once, behind the tasks
//! that are ready to run, and takes along what they send. That needs no timer.
//!
//! A task that is alone has nothing to wait for, and stepping back could wake another thread for nothing. So a write steps
//! back only where the last one gained by it, or where an earlier one is still unanswered: then there is somebody else.
//!
//! Nagle's algorithm would gather as well, but holds small requests back for as long as the server takes to acknowledge what
//! was sent before: up to 40 ms when it is busy with a slow command.

/// From this much on, a system call costs little beside the bytes that it moves.
const ENOUGH_BYTES: usize = 8 * 1024;

/// See the module.
pub(crate) struct Gather {
    /// How many bytes there were when this write stepped back; `None` when it did not.
    before: Option<usize>,
    /// Whether the last write that stepped back found more bytes afterwards.
    has_paid: bool,
    /// Whether something was read since the last write.
    is_answered: bool,
}

impl Gather {
    pub(crate) fn new() -> Self {
        Self { before: None, has_paid: false, is_answered: true }
    }

    /// Whether a write of so many bytes steps back; otherwise it begins now.
    pub(crate) fn steps_back(&mut self, bytes: usize) -> bool {
        let is_alone = self.is_answered && !self.has_paid;
        if self.before.is_none() && !is_alone && bytes < ENOUGH_BYTES {
            self.before = Some(bytes);
            return true;
        }
        if let Some(before) = self.before.take() {
            self.has_paid = bytes > before;
        }
        self.is_answered = false;
        false
    }

    /// Notes that something was read.
    pub(crate) fn answered(&mut self) {
        self.is_answered = true;
    }
}

#[cfg(test)]
mod tests {
    use super::{ENOUGH_BYTES, Gather};

    #[test]
    fn writes_step_back_only_where_others_may_join_them() {
        let mut gather = Gather::new();
        assert!(!gather.steps_back(5), "alone");
        assert!(gather.steps_back(5), "beside one that waits");
        assert!(!gather.steps_back(9), "beside one that waits, joined by another");
        gather.answered();
        assert!(gather.steps_back(5), "after one that was joined");
        assert!(!gather.steps_back(5), "after one that was joined, joined by nobody");
        gather.answered();
        assert!(!gather.steps_back(5), "after one that nobody joined");
        assert!(!gather.steps_back(ENOUGH_BYTES), "as large as it needs to be");
    }
}
