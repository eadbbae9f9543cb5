//! Where claims of a long queue have ended, and where the next ones begin.
//!
//! # Guarantees
//! - A queue that had fewer items than were asked for is looked at from its front.
//! - What this process has scheduled for a time that has passed already is not passed over.
//! - Whatever else comes before the end of a queue, such as what others have scheduled or what becomes visible again, is found by the next look
//!   from the front, [`LOOK_INTERVAL_MAX`] later at most; and what was found there is not passed over by claims that were under way meanwhile.
//!
//! # How it works
//! Items that were acknowledged leave entries in the index until a vacuum removes them, a minute later or so, and what is being worked on
//! keeps its place in front. A worker that empties a long queue would walk over all of that for each claim. So after some
//! thousand items a claim begins where the last one has ended, and from the front only now and then, the less often the longer that takes.

use std::collections::HashMap;
use std::time::Duration;

use acteon_state_core::StateKey;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How many items were claimed in a row, from a queue that had more, before a claim begins elsewhere than at the front.
const STREAK_MIN: u64 = 1_000;
/// How long claims go without a look at the front, at least and at most.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Within these bounds, so many times as long as the look takes: about this part of all time goes into it.
const LOOK_SHARE: u32 = 20;
/// The most queues whose ends are remembered. Beyond, claims begin at the front.
const ENDS_MAX: usize = 1_000;

/// The ends of the queues with a backlog.
#[derive(Default)]
pub(crate) struct Ends {
    // By the text of a queue; locked for a look-up only.
    ends: Mutex<HashMap<String, End>>,
}

/// Where the last claim of a queue has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    /// What is due before this was claimed.
    place: Place,
    /// Items claimed since the queue last had fewer than were asked for.
    streak: u64,
    /// When a claim last began at the front, and how long that took.
    looked_at: Instant,
    look_took: Duration,
}

/// A place in the order of a queue: time and id of an item.
pub(crate) type Place = (i64, String);

/// What a statement found in one queue.
pub(crate) struct Found {
    pub(crate) items: u64,
    /// Where the next claim may begin, unless there were fewer than were asked for, or what comes next stands before that.
    pub(crate) end: Option<Place>,
    /// How long the look at the front took, if there was one.
    pub(crate) look_took: Option<Duration>,
}

impl Ends {
    /// Where a claim begins; `None` for the front of the queue.
    pub(crate) fn begin(&self, queue: &StateKey, now: Instant) -> Option<Place> {
        self.ends.lock().get(queue.text()).filter(|end| end.counts_at(now)).map(|end| end.place.clone())
    }

    /// Takes in what a statement found that was sent at `sent_at` to begin at `begin`.
    pub(crate) fn learn(&self, queue: &StateKey, begin: Option<&Place>, sent_at: Instant, found: Found) {
        let mut ends = self.ends.lock();
        let Some(place) = found.end else {
            ends.remove(queue.text());
            return;
        };
        if let Some(end) = ends.get_mut(queue.text()) {
            end.streak += found.items;
            if let Some(took) = found.look_took {
                (end.looked_at, end.look_took, end.place) = (sent_at, took, place);
            } else if begin.is_some_and(|begin| *begin <= end.place) && place > end.place {
                // Statements under way at once may end in any order. One that began behind the present end knows nothing of what is in between.
                end.place = place;
            }
        } else if let Some(look_took) = found.look_took.filter(|_| ends.len() < ENDS_MAX) {
            let end = End { place, streak: found.items, looked_at: sent_at, look_took };
            ends.insert(queue.text().to_owned(), end);
        }
    }

    /// Takes in that an item stands at this place from now on.
    pub(crate) fn draw_back(&self, queue: &StateKey, at_ms: i64, item: &str) {
        if let Some(end) = self.ends.lock().get_mut(queue.text())
            && (at_ms, item) < (end.place.0, end.place.1.as_str())
        {
            end.place = (at_ms, item.to_owned());
        }
    }
}

impl End {
    fn counts_at(&self, now: Instant) -> bool {
        let interval = (self.look_took * LOOK_SHARE).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX);
        self.streak >= STREAK_MIN && now.saturating_duration_since(self.looked_at) < interval
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::StateKey;
    use tokio::time::Instant;

    use super::{Ends, Found, LOOK_INTERVAL_MAX, LOOK_INTERVAL_MIN, Place, STREAK_MIN};

    fn queue() -> StateKey {
        StateKey::new("claims", "tests", "queue", "long").unwrap()
    }

    fn place(number: i64) -> Place {
        (number, format!("item {number}"))
    }

    const QUICK: Duration = Duration::from_micros(100);

    /// A claim that looked at the front.
    fn look(ends: &Ends, items: u64, end: i64, at: Instant, took: Duration) {
        ends.learn(&queue(), None, at, Found { items, end: Some(place(end)), look_took: Some(took) });
    }

    /// One that did not.
    fn go_on(ends: &Ends, begin: &Place, end: i64) {
        ends.learn(&queue(), Some(begin), Instant::now(), Found { items: 100, end: Some(place(end)), look_took: None });
    }

    #[test]
    fn a_claim_begins_at_the_front_unless_many_were_claimed_shortly_before() {
        let (ends, queue, now) = (Ends::default(), queue(), Instant::now());
        assert_eq!(ends.begin(&queue, now), None);
        look(&ends, STREAK_MIN - 1, 5, now, QUICK);
        assert_eq!(ends.begin(&queue, now), None, "a short queue is always in order");
        look(&ends, 1, 6, now, QUICK);
        assert_eq!(ends.begin(&queue, now), Some(place(6)));
        go_on(&ends, &place(6), 9);
        go_on(&ends, &place(6), 8);
        assert_eq!(ends.begin(&queue, now), Some(place(9)), "the slower of two that were under way");
        assert_eq!(ends.begin(&queue, now + LOOK_INTERVAL_MIN), None, "the front is looked at now and then");
        look(&ends, 100, 2, now + LOOK_INTERVAL_MIN, QUICK);
        assert_eq!(ends.begin(&queue, now + LOOK_INTERVAL_MIN), Some(place(2)), "something earlier was there");
    }

    /// Two statements are under way, as a rule. What a look had found was passed over again once the other one came back.
    #[test]
    fn what_a_look_finds_is_not_passed_over_by_a_claim_that_was_under_way_beside_it() {
        let (ends, queue, now) = (Ends::default(), queue(), Instant::now());
        look(&ends, STREAK_MIN, 50, now, QUICK);
        look(&ends, 100, 2, now, QUICK);
        go_on(&ends, &place(50), 60);
        assert_eq!(ends.begin(&queue, now), Some(place(2)));
        go_on(&ends, &place(2), 4);
        assert_eq!(ends.begin(&queue, now), Some(place(4)), "it goes on from there");
    }

    #[test]
    fn what_is_scheduled_before_the_end_draws_it_back() {
        let (ends, queue, now) = (Ends::default(), queue(), Instant::now());
        ends.draw_back(&queue, 1, "nobody claims yet");
        look(&ends, STREAK_MIN, 50, now, QUICK);
        ends.draw_back(&queue, 70, "item 70");
        assert_eq!(ends.begin(&queue, now), Some(place(50)));
        ends.draw_back(&queue, 7, "item 7");
        go_on(&ends, &place(50), 60);
        assert_eq!(ends.begin(&queue, now), Some(place(7)));
    }

    #[test]
    fn a_queue_that_is_drained_is_looked_at_from_the_front() {
        let (ends, queue, now) = (Ends::default(), queue(), Instant::now());
        look(&ends, STREAK_MIN, 5, now, QUICK);
        ends.learn(&queue, Some(&place(5)), now, Found { items: 3, end: None, look_took: Some(QUICK) });
        assert_eq!(ends.begin(&queue, now), None);
        assert!(ends.ends.lock().is_empty());
    }

    #[test]
    fn the_front_is_looked_at_less_often_the_longer_that_takes() {
        let (ends, queue, now) = (Ends::default(), queue(), Instant::now());
        look(&ends, STREAK_MIN, 5, now, Duration::from_millis(50));
        assert!(ends.begin(&queue, now + Duration::from_millis(900)).is_some());
        assert!(ends.begin(&queue, now + Duration::from_millis(1_000)).is_none());
        look(&ends, STREAK_MIN, 5, now, Duration::from_secs(5));
        assert!(ends.begin(&queue, now + LOOK_INTERVAL_MAX).is_none());
    }
}
