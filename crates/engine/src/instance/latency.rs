//! Latency events: what took longer than `latency-monitor-threshold`, by kind of event.
//!
//! See <https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/latency-monitor/>.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// Samples that are kept of an event, as Redis has.
const SAMPLES_MAX: usize = 160;

/// The events by name.
#[derive(Default)]
pub(crate) struct LatencyEvents(Mutex<BTreeMap<&'static str, Event>>);

/// What is known of an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    /// The oldest first: seconds since 1970, and the longest duration within that second.
    pub(crate) samples: VecDeque<(u64, u64)>,
    /// The longest of all times.
    pub(crate) longest_ms: u64,
}

impl LatencyEvents {
    pub(crate) fn add(&self, name: &'static str, at_s: u64, duration_ms: u64) {
        let mut events = self.0.lock();
        let event = events.entry(name).or_default();
        event.longest_ms = event.longest_ms.max(duration_ms);
        match event.samples.back_mut() {
            Some((last_s, longest_ms)) if *last_s == at_s => *longest_ms = (*longest_ms).max(duration_ms),
            _ => event.samples.push_back((at_s, duration_ms)),
        }
        if event.samples.len() > SAMPLES_MAX {
            event.samples.pop_front();
        }
    }

    /// All events with their names.
    pub(crate) fn all(&self) -> Vec<(&'static str, Event)> {
        self.0.lock().iter().map(|(name, event)| (*name, event.clone())).collect()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<Event> {
        self.0.lock().get(std::str::from_utf8(name).ok()?).cloned()
    }

    /// Forgets an event. Returns whether it was known.
    pub(crate) fn remove(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.0.lock().remove(name).is_some())
    }

    /// Forgets all. Returns how many there were.
    pub(crate) fn clear(&self) -> usize {
        let mut events = self.0.lock();
        let count = events.len();
        events.clear();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::LatencyEvents;

    #[test]
    fn longest_of_a_second_is_kept_and_the_number_of_seconds_is_bounded() {
        let events = LatencyEvents::default();
        for (at_s, ms) in [(10, 5), (10, 9), (10, 7), (11, 6)] {
            events.add("command", at_s, ms);
        }
        let event = events.get(b"command").expect("known");
        assert_eq!((Vec::from(event.samples), event.longest_ms), (vec![(10, 9), (11, 6)], 9));
        (0..500).for_each(|at_s| events.add("command", at_s, 1));
        let event = events.get(b"command").expect("known");
        assert_eq!((event.samples.len(), event.samples[0].0, event.longest_ms), (160, 340, 9));
        assert!(events.remove(b"command") && !events.remove(b"command"));
    }
}
