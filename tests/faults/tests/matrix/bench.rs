//! Judges what clients logged, by what the fault may have taken away.

use std::path::Path;

use acteon_faults::log::Logged;
use acteon_faults::safety::{Event, Updates, Writing, updates};
use acteon_faults::{History, PassesOver, Question, Rules, Told, judge, known_until};
use acteon_state_conformance::objects::{LockReply, Loss, StepDirection, Uncertainty};

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
    /// Whether acknowledged updates, and grants, could be lost as declared.
    pub(crate) losses: Losses,
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
            calls: logged.history.len() + logged.refused.len(),
            unknown: logged.history.iter().filter(|call| call.is_maybe()).count(),
            losses: self.losses,
            wrong: logged.broken,
            ..Outcome::default()
        };
        self.judge_history(logged.history, logged.refused, Some(span), &mut outcome);
        self.judge_events(&logged.events, span, &mut outcome);
        outcome
    }

    /// Locks are judged to the end, since their declaration says what may be lost of them. Everything else is judged until a fault that may
    /// take writes away, and anew after it.
    pub(crate) fn judge_history(&self, history: History, refused: History, span: Option<Loss>, outcome: &mut Outcome) {
        let (mut locks, mut others): (History, History) =
            history.into_iter().partition(|call| matches!(call.operation.question, Question::Lock(_)));
        if self.traits.refuses_free_locks {
            locks.retain(|call| call.reply != Some(Told::Lock(LockReply::Busy)));
        }
        let looks_at_more = self.traits.claims_look_at_more;
        let passes_over = self.traits.claims_pass_over.then_some(PassesOver { refused, looks_at_more });
        let mut rules = Rules { uncertainty: self.uncertainty, passes_over, ..Rules::default() };
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

    fn judge_events(&self, events: &[Event], span: Loss, outcome: &mut Outcome) {
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        outcome.lost_in_time = count(|event| matches!(event, Event::LostInTime { .. }));
        outcome.stalled = count(|event| matches!(event, Event::LostLate { was_stalled: true }));
        let late = count(|event| matches!(event, Event::LostLate { was_stalled: false }));
        let outlived = count(|event| *event == Event::HeldAfterRelease);
        // While something goes wrong, a release in the background may not get through: then the lease ends by itself.
        let is_left = |event: &&Event| matches!(event, Event::HeldByNobody { since, at } if *at < span.from || *since > span.until);
        let left = events.iter().filter(is_left).count();
        for (number, what) in [
            (late, "lost() fired after the guard's deadline"),
            (outlived, "a renewal outlived the release"),
            (left, "a wait that was dropped was granted and not released"),
        ] {
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
            // By a server's clock that is set forward, a lease ends before the holder's own clock says so.
            let ends_early = self.uncertainty.step.is_some_and(|step| step.direction == StepDirection::Forward);
            if updates.overlaps > 0 && !self.losses.grants && !ends_early {
                outcome.wrong.push(format!(
                    "{} holders of the lock of {} overlapped",
                    updates.overlaps,
                    writing.name()
                ));
            }
            outcome.updates.push((writing, updates));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use acteon_faults::log::Logged;
    use acteon_faults::safety::{Event, Writing};
    use acteon_state_conformance::objects::{Loss, Uncertainty};

    use super::Bench;
    use crate::row::{Losses, Traits};

    const SPAN: Loss = Loss { from: 100, until: 200 };
    const WRITING: Writing = Writing::Compared;

    fn wrong(losses: Losses, events: Vec<Event>) -> Vec<String> {
        let (uncertainty, traits, folder) = (Uncertainty::default(), Traits::default(), Path::new("."));
        let bench = Bench { uncertainty, traits, losses, seed: 1, folder };
        bench.judge(Logged { events, ..Logged::default() }, SPAN).wrong
    }

    fn is_wrong(event: Event) -> bool {
        !wrong(Losses::default(), vec![event]).is_empty()
    }

    #[test]
    fn a_guard_that_tells_late_is_wrong_unless_its_process_stood_still() {
        assert!(is_wrong(Event::LostLate { was_stalled: false }));
        assert!(!is_wrong(Event::LostLate { was_stalled: true }));
        assert!(!is_wrong(Event::LostInTime { ahead_us: 1 }));
    }

    #[test]
    fn a_renewal_that_outlives_its_release_is_wrong() {
        assert!(is_wrong(Event::HeldAfterRelease));
    }

    #[test]
    fn a_dropped_wait_that_is_granted_is_wrong_unless_its_release_met_the_fault() {
        assert!(is_wrong(Event::HeldByNobody { since: 10, at: 99 }));
        assert!(!is_wrong(Event::HeldByNobody { since: 10, at: 150 }));
        assert!(!is_wrong(Event::HeldByNobody { since: 150, at: 300 }));
        assert!(is_wrong(Event::HeldByNobody { since: 201, at: 300 }));
    }

    #[test]
    fn two_holders_are_wrong_where_no_grant_may_be_lost() {
        let held = |from, until| Event::Held { writing: WRITING, from, until };
        let both = vec![held(1, 5), held(4, 6)];
        assert_eq!(wrong(Losses::default(), both.clone()).len(), 1);
        assert!(wrong(Losses { grants: true, writes: false }, both).is_empty());
    }

    #[test]
    fn an_update_that_is_lost_although_versions_were_compared_is_wrong_where_no_write_may_be_lost() {
        let twice = vec![Event::Wrote { writing: WRITING, number: 1 }; 2];
        assert_eq!(wrong(Losses::default(), twice.clone()).len(), 1);
        assert!(wrong(Losses { grants: false, writes: true }, twice).is_empty());
    }

    #[test]
    fn tokens_that_fall_are_wrong_whatever_may_be_lost() {
        let grant = |asked_at, token| Event::Granted { writing: WRITING, token, asked_at, at: asked_at + 1 };
        let fallen = vec![grant(1, 9), grant(5, 9)];
        assert_eq!(wrong(Losses { grants: true, writes: true }, fallen).len(), 1);
    }
}
