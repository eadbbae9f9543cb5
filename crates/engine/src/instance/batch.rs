//! Commands of one connection that have come together, as those of a pipeline do.
//!
//! # Guarantees
//! Each is carried out as if it had come alone. Their counts are in those of the instance when the batch ends, and before a
//! command that may tell them.
//!
//! The time that a command sees is one at which it had come already: that of the beginning of its batch, or a later one once it is known that more than
//! 0.1 ms have gone by. That is known after commands that were measured by themselves, and after all that is done apart from them (`measure.rs`): waits,
//! evictions, freeing. Among commands of about a microsecond it shows with the next step of a coarse clock, some milliseconds at most: as if the
//! machine had kept the thread from running between asking the clock and the command.
//!
//! # How it works
//! What costs as much as a short command is shared: looks at clocks (`measure.rs`) and the counting.

use super::client::{Client, Flow};

/// Time that goes by before the engine's clock is asked again: far below the millisecond in which times to live are kept.
const CLOCK_NS_MAX: u64 = 100_000;

/// Carries out commands that have come together: see [`Client::batch`].
pub struct Batch<'c> {
    client: &'c mut Client,
    clock: &'c dyn Fn() -> u64,
    /// What the clock said last.
    now_us: u64,
    /// When that was, by the clock that durations are measured with.
    asked_ns: u64,
}

impl<'c> Batch<'c> {
    pub(super) fn new(client: &'c mut Client, clock: &'c dyn Fn() -> u64) -> Self {
        let now_us = clock();
        client.instance.peers.note_time(now_us);
        let asked_ns = client.progress.measured.begin();
        Self { client, clock, now_us, asked_ns }
    }

    /// Carries out the next command: see [`Client::execute`].
    pub fn execute(&mut self, args: &[&[u8]], out: &mut Vec<u8>) -> Flow {
        if let Some(ended_ns) = self.client.progress.measured.ended_ns()
            && ended_ns.saturating_sub(self.asked_ns) > CLOCK_NS_MAX
        {
            self.ask_clock();
        }
        self.client.execute_next(args, self.now_us, out)
    }

    /// The time that the last command has seen, in µs.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.client
    }

    #[cold]
    fn ask_clock(&mut self) {
        // What is not counted yet gets its durations, before time is measured anew.
        let measured = &mut self.client.progress.measured;
        measured.count(&self.client.instance.stats);
        self.now_us = (self.clock)();
        self.asked_ns = measured.begin();
        self.client.instance.peers.note_time(self.now_us);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.client.progress.measured.finish(&self.client.instance.stats);
    }
}

#[cfg(test)]
mod tests;
