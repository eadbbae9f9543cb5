//! How long commands take.
//!
//! # Guarantees
//! The durations of commands that came together add up to the time that they took together. One that takes as long as anybody wants to hear of
//! (`slowlog-log-slower-than`, `latency-monitor-threshold`) is measured by itself.
//!
//! # How it works
//! Asking a clock takes a tenth of the time of a short command, and asking before and after it a fifth. So where commands follow each other, the end of
//! one is the beginning of the next. Those that take about a microsecond each ([`Row::is_brief`](crate::command::Row)) share one measurement:
//! after each of them only a clock is looked at that moves in steps of some milliseconds and costs next to nothing. As long as it stands still none of them was
//! slow, and the time of all is shared among them; when it has moved, the exact clock is asked, and a long time is that of the command
//! in which it moved.
//!
//! What lies between two commands is in the duration of the next one as long as it costs next to nothing. Whatever is known to take its time, as waiting for keys
//! that others hold, eviction, or serving those who are blocked, is done apart ([`Measured::aside`]).
//!
//! The clocks are the machine's: how long a thread is kept busy is no time that a replayed run could see.

use rustix::time::{ClockId, Timespec, clock_gettime};
use smallvec::SmallVec;

use super::settings::Settings;
use super::stats::{Outcome, Stats};

/// Outcomes that are counted together. Equal commands that follow each other are one outcome.
const TALLY_MAX: usize = 16;
/// Those that a connection has room for without asking for memory: few pipelines mix more commands.
const TALLY_INLINE: usize = 4;

/// What brief commands take at most on average, if none of them was slow. Beyond it, the last of them is taken for slow.
const SHARE_NS_MAX: u64 = 20_000;

/// The clock that moves in steps.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STEPPING: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEPPING: ClockId = ClockId::Monotonic;

/// Nanoseconds since some moment.
#[inline]
pub(crate) fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// The same by the clock that moves in steps.
#[inline]
fn step_ns() -> u64 {
    nanoseconds(clock_gettime(STEPPING))
}

#[inline]
fn nanoseconds(time: Timespec) -> u64 {
    // Neither is negative, and seconds since the machine was started do not overflow in 500 years.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// The time between two steps.
pub(super) fn step_length_ns() -> u64 {
    nanoseconds(rustix::time::clock_getres(STEPPING))
}

/// Commands of one connection that follow each other, and that are not counted yet.
#[derive(Default)]
pub(crate) struct Measured {
    outcomes: SmallVec<[Outcome; TALLY_INLINE]>,
    /// How many of the commands, the last ones, have no duration yet.
    unmeasured: u64,
    changes: u64,
    /// When the last command ended that has one: that is when the next one begins. None, where each is measured by itself.
    ended_ns: Option<u64>,
    /// Where the clock of steps stood then.
    step_ns: u64,
}

impl Measured {
    /// Begins to measure commands that follow each other. Returns the time.
    #[inline]
    pub(crate) fn begin(&mut self) -> u64 {
        let now_ns = now_ns();
        (self.ended_ns, self.step_ns) = (Some(now_ns), step_ns());
        now_ns
    }

    /// When the last command ended that was measured.
    #[inline]
    pub(crate) fn ended_ns(&self) -> Option<u64> {
        self.ended_ns
    }

    /// Whether a brief command that has just ended may wait for its duration.
    #[inline]
    pub(crate) fn may_share(&self, settings: &Settings) -> bool {
        self.ended_ns.is_some()
            // However alike they are: the next ones see the time that is found when these are measured.
            && self.unmeasured + 1 < TALLY_MAX as u64
            && self.outcomes.len() + 1 < TALLY_MAX
            && settings.hears_of_ns() >= settings.step_length_ns
            && step_ns() == self.step_ns
    }

    /// A brief command has ended, whose duration is found later.
    // Else the outcome goes through memory, which takes longer than all the rest.
    #[inline(always)]
    pub(crate) fn add_unmeasured(&mut self, outcome: Outcome) {
        let last = self.outcomes.last_mut().filter(|_| self.unmeasured > 0);
        if !last.is_some_and(|last| last.absorb(&outcome)) {
            self.outcomes.push(outcome);
        }
        self.unmeasured += 1;
    }

    /// A command has ended. Returns its duration, given when it began in case that it follows no other one.
    #[inline]
    pub(crate) fn end(&mut self, began_ns: u64) -> u64 {
        let ended_ns = now_ns();
        let Some(before_ns) = self.ended_ns else { return ended_ns.saturating_sub(began_ns) };
        (self.ended_ns, self.step_ns) = (Some(ended_ns), step_ns());
        self.share(ended_ns.saturating_sub(before_ns))
    }

    /// Does what is no part of any command. What is over has its duration before, and the next command begins afterwards.
    #[cold]
    pub(crate) fn aside<R>(&mut self, act: impl FnOnce() -> R) -> R {
        self.settle();
        let result = act();
        self.begin_again();
        result
    }

    /// A command has ended that is not measured, being refused or queued.
    #[inline]
    pub(crate) fn pass(&mut self) {
        if self.ended_ns.is_some() && step_ns() != self.step_ns {
            self.begin_again();
        }
    }

    /// The next command begins now. What went before is no part of it; those that still share a measurement get no more of it than brief commands may take.
    #[cold]
    pub(crate) fn begin_again(&mut self) {
        if let Some(before_ns) = self.ended_ns {
            let now_ns = self.begin();
            self.share(now_ns.saturating_sub(before_ns));
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// What a command has changed.
    #[inline]
    pub(crate) fn add_changes(&mut self, changes: u64) {
        self.changes += changes;
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.outcomes.len() >= TALLY_MAX
    }

    /// Counts what is over. The next command follows no other one.
    #[inline]
    pub(crate) fn finish(&mut self, stats: &Stats) {
        self.count(stats);
        self.ended_ns = None;
        if self.outcomes.spilled() {
            // The connection may be idle from now on.
            self.outcomes = SmallVec::new();
        }
    }

    /// Counts what is over, and forgets it.
    pub(crate) fn count(&mut self, stats: &Stats) {
        self.settle();
        if !self.outcomes.is_empty() || self.changes > 0 {
            stats.add_all(&self.outcomes, self.changes);
            self.outcomes.clear();
            self.changes = 0;
        }
    }

    /// Gives all that are over their durations.
    #[inline]
    fn settle(&mut self) {
        if self.unmeasured > 0 {
            self.settle_some();
        }
    }

    #[inline(never)]
    fn settle_some(&mut self) {
        if let Some(mut last) = self.outcomes.pop() {
            // The last one ends now. It is not among those that share with it.
            self.unmeasured -= 1;
            self.outcomes.extend(last.split_last());
            last.duration_ns = self.end(0);
            self.outcomes.push(last);
        }
    }

    /// Gives those without a duration their share of the time that they and one more command took. Returns what is left for that one.
    #[inline]
    fn share(&mut self, taken_ns: u64) -> u64 {
        let sharing = std::mem::take(&mut self.unmeasured);
        if sharing == 0 {
            return taken_ns;
        }
        let share_ns = (taken_ns / (sharing + 1)).min(SHARE_NS_MAX);
        let mut left = sharing;
        for outcome in self.outcomes.iter_mut().rev() {
            if left == 0 {
                break;
            }
            outcome.duration_ns = share_ns;
            left = left.saturating_sub(outcome.calls);
        }
        // Less than the whole: what is above the share is that of the last one.
        taken_ns - share_ns * sharing
    }
}

#[cfg(test)]
mod tests {
    use super::{Measured, SHARE_NS_MAX, Settings, TALLY_MAX, now_ns};
    use crate::instance::stats::{CommandTotals, Outcome, Stats};

    const BRIEF: Outcome =
        Outcome { command: 3, calls: 1, duration_ns: 0, has_failed: false, is_tracked: true, hits: 0, misses: 0 };

    #[test]
    fn time_is_shared_up_to_what_brief_commands_may_take() {
        for (taken_ns, share_ns, last_ns) in
            [(4_000, 1_000, 1_000), (4_003, 1_000, 1_003), (10_000_000, SHARE_NS_MAX, 10_000_000 - 3 * SHARE_NS_MAX)]
        {
            let mut measured = Measured::default();
            measured.add(Outcome { duration_ns: 77, ..BRIEF });
            (0..3).for_each(|_| measured.add_unmeasured(BRIEF));
            assert_eq!(measured.share(taken_ns), last_ns);
            let durations: Vec<_> =
                measured.outcomes.iter().map(|outcome| (outcome.calls, outcome.duration_ns)).collect();
            assert_eq!(durations, [(1, 77), (3, share_ns)]);
            assert_eq!(measured.share(5), 5, "they have theirs");
        }
    }

    /// What came last was taken for one that had its duration: the first one was left with none, and the last one with a share of the time only.
    #[test]
    fn durations_of_brief_commands_add_up_to_the_time_that_they_took_together() {
        const TAKEN_NS: u64 = 200_000;
        for commands in 1..TALLY_MAX as u64 {
            let (stats, mut measured) = (Stats::default(), Measured::default());
            let began_ns = measured.begin() - TAKEN_NS;
            measured.ended_ns = Some(began_ns);
            (0..commands).for_each(|_| measured.add_unmeasured(BRIEF));
            measured.count(&stats);
            let taken_us = measured.ended_ns.map(|ended_ns| (ended_ns - began_ns) / 1_000);
            assert_eq!(Some(stats.command(3).duration_us), taken_us, "of {commands}");
            assert_ne!(stats.durations(3).percentile_ns(0.0), 0, "of {commands}");
        }
    }

    #[test]
    fn commands_that_are_alike_and_follow_each_other_are_one_outcome_that_counts_for_all() {
        let (stats, mut measured) = (Stats::default(), Measured::default());
        measured.begin();
        for (command, hits) in [(3, 1), (3, 0), (3, 1), (4, 0), (3, 1)] {
            measured.add_unmeasured(Outcome { command, hits, misses: 1 - hits, ..BRIEF });
        }
        (0..2).for_each(|_| measured.add_unmeasured(Outcome { has_failed: true, ..BRIEF }));
        let calls: Vec<u64> = measured.outcomes.iter().map(|outcome| outcome.calls).collect();
        assert_eq!(calls, [3, 1, 1, 2]);
        measured.count(&stats);
        assert_eq!((stats.totals().commands, stats.totals().hits, stats.totals().misses), (7, 3, 2));
        assert_eq!((stats.durations(3).count(), stats.durations(4).count()), (6, 1));
        assert_eq!((stats.command(3).calls, stats.command(3).failed), (6, 2));
    }

    #[test]
    fn what_is_done_apart_is_in_no_duration() {
        let mut measured = Measured::default();
        measured.begin();
        measured.add_unmeasured(BRIEF);
        let began_ns = measured.aside(now_ns);
        let before_ns = measured.outcomes[0].duration_ns;
        let middle_ns = measured.ended_ns();
        assert!(middle_ns >= Some(began_ns), "the next command begins afterwards");
        measured.add_unmeasured(BRIEF);
        measured.aside(|| ());
        assert_eq!(measured.outcomes[0].duration_ns, before_ns, "it had its duration before");
        assert_eq!(measured.unmeasured, 0);
        let mut alone = Measured::default();
        alone.aside(|| ());
        alone.pass();
        assert_eq!(alone.ended_ns(), None, "what is measured by itself follows nothing");
    }

    /// Nobody knows which of them it was, and the one that is not measured is as likely.
    #[test]
    fn long_time_before_a_command_that_is_not_measured_is_in_no_duration() {
        let mut measured = Measured::default();
        measured.begin();
        measured.add_unmeasured(BRIEF);
        measured.pass();
        measured.step_ns = u64::MAX;
        measured.ended_ns = measured.ended_ns.map(|ended_ns| ended_ns - 1_000_000_000);
        measured.pass();
        assert_eq!((measured.outcomes[0].duration_ns, measured.unmeasured), (SHARE_NS_MAX, 0));
        assert_ne!(measured.step_ns, u64::MAX);
    }

    /// A long pipeline of one command would otherwise see one time until the clock of steps moves on.
    #[test]
    fn commands_that_are_alike_wait_for_the_clock_no_longer_than_others() {
        let (settings, mut measured) = (Settings::default(), Measured::default());
        measured.begin();
        for _ in 0..100 * TALLY_MAX {
            if measured.may_share(&settings) {
                measured.add_unmeasured(BRIEF);
            }
        }
        assert!(measured.unmeasured < TALLY_MAX as u64, "{} commands", measured.unmeasured);
    }

    #[test]
    fn commands_count_once_whether_they_were_measured_or_not() {
        let (stats, mut measured) = (Stats::default(), Measured::default());
        measured.begin();
        for _ in 0..3 {
            // Each differs from the one before.
            let commands = (3..=4).cycle().take(TALLY_MAX - 1);
            commands.for_each(|command| measured.add_unmeasured(Outcome { command, ..BRIEF }));
            let duration_ns = measured.end(0);
            measured.add(Outcome { duration_ns, ..BRIEF });
            assert!(measured.is_full());
            measured.add_changes(2);
            measured.count(&stats);
            measured.count(&stats);
        }
        measured.add_unmeasured(BRIEF);
        measured.count(&stats);
        let (all, calls) = (3 * TALLY_MAX as u64 + 1, 3 * (TALLY_MAX as u64 / 2 + 1) + 1);
        assert_eq!((stats.totals().commands, stats.totals().changes, stats.durations(3).count()), (all, 6, calls));
        assert_eq!(
            CommandTotals { duration_us: 0, ..stats.command(3) },
            CommandTotals { calls, ..CommandTotals::default() }
        );
    }
}
