//! Judges what clients logged, by what the fault may have taken away.

use std::path::Path;

use acteon_faults::log::Logged;
use acteon_faults::safety::{Event, Updates, Writing, updates};
use acteon_faults::{History, Question, Rules, Told, judge, known_until};
use acteon_state_conformance::objects::{LockReply, Loss, Uncertainty};

use crate::row::{Losses, Traits};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Calls that were asked, refused ones included.
    pub(crate) calls: usize,
    /// Calls of which nobody knows what came of them.
    pub(crate) unknown: usize,
    /// Histories, and objects of them, that were judged.
    pub(crate) histories: usize,
    pub(crate) objects: usize,
    /// Updates under locks, by how they were written.
    pub(crate) updates: Vec<(Writing, Updates)>,
    /// How often `lost()` fired in time, and how often it could not since the process stood still.
    pub(crate) lost_in_time: usize,
    pub(crate) stalled: usize,
    /// Whether acknowledged updates could be lost as declared.
    pub(crate) may_lose_writes: bool,
    /// What was wrong, in words.
    pub(crate) wrong: Vec<String>,
}

/// What is known before anything is judged.
pub(crate) struct Bench<'a> {
    pub(crate) uncertainty: Uncertainty,
    pub(crate) traits: Traits,
    pub(crate) losses: Losses,
    pub(crate) seed: u64,
    /// Where drawings go.
    pub(crate) folder: &'a Path,
}

impl Bench<'_> {
    /// Judges all that clients logged.
    pub(crate) fn judge(&self, logged: Logged, span: Loss) -> Outcome {
        let mut outcome = Outcome {
            calls: logged.history.len() + logged.refused,
            unknown: logged.history.iter().filter(|call| call.is_maybe()).count(),
            may_lose_writes: self.losses.writes,
            wrong: logged.broken,
            ..Outcome::default()
        };
        self.judge_history(logged.history, Some(span), &mut outcome);
        self.judge_events(&logged.events, &mut outcome);
        outcome
    }

    /// Locks are judged to the end, since their declaration says what may be lost of them. Everything else is judged until a fault that may
    /// take writes away, and anew after it.
    pub(crate) fn judge_history(&self, history: History, span: Option<Loss>, outcome: &mut Outcome) {
        let (mut locks, mut others): (History, History) =
            history.into_iter().partition(|call| matches!(call.operation.question, Question::Lock(_)));
        if self.traits.refuses_free_locks {
            locks.retain(|call| call.reply != Some(Told::Lock(LockReply::Busy)));
        }
        let mut rules = Rules { uncertainty: self.uncertainty, ..Rules::default() };
        if let Some(span) = span {
            if self.losses.writes {
                others = known_until(&others, span.from);
            }
            rules.losses = Vec::from_iter(self.losses.grants.then_some(span));
        }
        for part in [locks, others] {
            let report = judge(&part, &rules);
            outcome.histories += 1;
            outcome.objects += report.objects;
            outcome.wrong.extend(report.settle(self.seed, self.folder).err());
        }
    }

    fn judge_events(&self, events: &[Event], outcome: &mut Outcome) {
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        outcome.lost_in_time = count(|event| matches!(event, Event::LostInTime { .. }));
        outcome.stalled = count(|event| matches!(event, Event::LostLate { was_stalled: true }));
        let late = count(|event| matches!(event, Event::LostLate { was_stalled: false }));
        let outlived = count(|event| *event == Event::HeldAfterRelease);
        for (number, what) in
            [(late, "lost() fired after the guard's deadline"), (outlived, "a renewal outlived the release")]
        {
            if number > 0 {
                outcome.wrong.push(format!("{what}, {number} times"));
            }
        }
        for writing in Writing::ALL {
            let updates = updates(events, writing);
            if updates.tokens_fallen > 0 {
                outcome.wrong.push(format!("{} tokens of the lock of {} fell", updates.tokens_fallen, writing.name()));
            }
            if writing == Writing::Compared && updates.lost > 0 && !self.losses.writes {
                outcome.wrong.push(format!("{} updates were lost although versions were compared", updates.lost));
            }
            outcome.updates.push((writing, updates));
        }
    }
}
