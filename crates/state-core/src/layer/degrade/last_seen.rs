//! The last value of each key that this process has read or written, within bounds: what `stale` serves.
//!
//! # Guarantees
//! Never more entries and bytes than the bounds say, the memory of the table included. A value is served for `age_max` after it
//! was seen, and never past its own time to live as far as that is known. A deletion that this process saw is not undone.
//!
//! # How it works
//! Two generations. What is seen goes into the young one; when that holds half of what is allowed it becomes the old one, and
//! what was old is forgotten. That costs no list of uses, and keeps what was seen last: between half and all of the bound.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::entry::{Entry, Get, Ttl};
use crate::key::StateKey;
use crate::write::{Condition, Put};

/// What an entry costs beside its key and value: its place in the table and the headers of two allocations.
const OVERHEAD_BYTES: usize = 192;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How old a value may be that is served.
    pub age_max: Duration,
    /// The most values.
    pub entries_max: usize,
    /// The most bytes of keys and values, with what it costs to keep them.
    pub bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { age_max: Duration::from_secs(300), entries_max: 10_000, bytes_max: 16 << 20 }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct LastSeen {
    bounds: Bounds,
    /// Held for a look at the tables, never across an await.
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Box<str>, Seen>,
    young_bytes: usize,
    old: HashMap<Box<str>, Seen>,
}

#[derive(Debug)]
struct Seen {
    entry: Entry,
    at: Instant,
    expires_at: Option<Instant>,
}

impl LastSeen {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, generations: Mutex::default() }
    }

    /// An entry was read; `None`: there was none.
    pub(super) fn read(&self, key: &StateKey, entry: Option<&Entry>) {
        let mut generations = self.generations.lock();
        let before = generations.remove(key);
        let Some(entry) = entry else { return };
        let now = Instant::now();
        let expires_at = match entry.ttl {
            Some(ttl) => now.checked_add(ttl),
            // The read did not ask. What was known of this very value still holds.
            None => before.filter(|seen| seen.entry.version == entry.version).and_then(|seen| seen.expires_at),
        };
        generations.insert(&self.bounds, key, entry, expires_at);
    }

    /// A value was written.
    pub(super) fn written(&self, key: &StateKey, put: &Put) {
        let mut generations = self.generations.lock();
        let before = generations.remove(key);
        let expires_at = match put.ttl {
            Ttl::Clear => None,
            Ttl::Keep => before.as_ref().and_then(|seen| seen.expires_at),
            Ttl::After(ttl) => Instant::now().checked_add(ttl),
        };
        let fence = match put.condition {
            Condition::Fence(token) => Some(token),
            Condition::Absent => None,
            // Other writes leave the fence of an entry as it is.
            Condition::Always | Condition::Present | Condition::Version(_) => before.and_then(|seen| seen.entry.fence),
        };
        let entry = Entry { value: put.value.clone(), version: Some(put.version), fence, ttl: None };
        generations.insert(&self.bounds, key, &entry, expires_at);
    }

    /// Nobody here knows any more what is stored.
    pub(super) fn forget(&self, key: &StateKey) {
        self.generations.lock().remove(key);
    }

    /// The last value, if it may still be served. Its time to live, where asked for, ends when it may not.
    pub(super) fn recall(&self, key: &StateKey, get: Get) -> Option<Entry> {
        let generations = self.generations.lock();
        let seen = generations.young.get(key.text()).or_else(|| generations.old.get(key.text()))?;
        let served_for = self.bounds.age_max.checked_sub(seen.at.elapsed())?;
        let lives_for = seen.expires_at.map(|at| at.saturating_duration_since(Instant::now()));
        let left = lives_for.map_or(served_for, |left| left.min(served_for));
        if left.is_zero() {
            return None;
        }
        Some(Entry { ttl: get.with_ttl.then_some(left), ..seen.entry.clone() })
    }
}

impl Generations {
    fn remove(&mut self, key: &StateKey) -> Option<Seen> {
        if let Some(seen) = self.young.remove(key.text()) {
            self.young_bytes -= size(key, &seen.entry);
            return Some(seen);
        }
        self.old.remove(key.text())
    }

    /// Expects that the key was removed.
    fn insert(&mut self, bounds: &Bounds, key: &StateKey, entry: &Entry, expires_at: Option<Instant>) {
        let (entries_max, bytes_max) = (bounds.entries_max.div_ceil(2), bounds.bytes_max / 2);
        let size = size(key, entry);
        if size > bytes_max {
            return;
        }
        if self.young.len() >= entries_max || self.young_bytes + size > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        // A copy: the bytes may be a part of a larger buffer, which would be kept whole.
        let value = Bytes::copy_from_slice(&entry.value);
        let seen = Seen { entry: Entry { value, ..entry.clone() }, at: Instant::now(), expires_at };
        self.young.insert(key.text().into(), seen);
        self.young_bytes += size;
    }
}

fn size(key: &StateKey, entry: &Entry) -> usize {
    key.text().len() + entry.value.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bounds, LastSeen, OVERHEAD_BYTES};
    use crate::{Entry, Get, Put, StateKey, Ttl, Version};

    const BOUNDS: Bounds = Bounds { age_max: Duration::from_secs(60), entries_max: 10, bytes_max: 1 << 20 };

    fn key(id: &str) -> StateKey {
        StateKey::new("shop", "acme", "session", id).unwrap()
    }

    fn value(seen: &LastSeen, id: &str) -> Option<Vec<u8>> {
        seen.recall(&key(id), Get::default()).map(|entry| entry.value.to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_served_until_it_is_too_old_or_its_time_to_live_is_over() {
        let seen = LastSeen::new(BOUNDS);
        seen.written(&key("old"), &Put::new("a"));
        seen.written(&key("short"), &Put::new("b").expires_after(Duration::from_secs(10)));
        let left = |id| seen.recall(&key(id), Get::with_ttl()).map(|entry| entry.ttl.unwrap().as_secs());
        assert_eq!([left("old"), left("short")], [Some(60), Some(10)]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!([left("old"), left("short")], [Some(50), None]);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(value(&seen, "old"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_did_not_ask_for_the_time_to_live_does_not_make_it_longer() {
        let seen = LastSeen::new(BOUNDS);
        let put = Put::new("a").expires_after(Duration::from_secs(10));
        seen.written(&key("k"), &put);
        let read = Entry { value: "a".into(), version: Some(put.version), fence: None, ttl: None };
        seen.read(&key("k"), Some(&read));
        seen.written(&key("k"), &Put::new("b").ttl(Ttl::Keep));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(value(&seen, "k"), None);
        seen.read(&key("k"), Some(&Entry { version: Some(Version::draw()), ..read }));
        assert!(value(&seen, "k").is_some(), "another value has another time to live");
    }

    #[test]
    fn what_was_seen_to_be_gone_is_not_served() {
        let seen = LastSeen::new(BOUNDS);
        seen.written(&key("a"), &Put::new("1"));
        seen.written(&key("b"), &Put::new("2"));
        seen.read(&key("a"), None);
        seen.forget(&key("b"));
        assert_eq!([value(&seen, "a"), value(&seen, "b")], [None, None]);
    }

    #[test]
    fn the_newest_values_stay_and_the_bounds_hold() {
        let seen = LastSeen::new(BOUNDS);
        for n in 0..1_000_u32 {
            seen.written(&key(&n.to_string()), &Put::new(n.to_string()));
            let generations = seen.generations.lock();
            assert!(generations.young.len() + generations.old.len() <= BOUNDS.entries_max);
        }
        for n in 995..1_000 {
            assert!(value(&seen, &n.to_string()).is_some(), "{n}");
        }

        let seen = LastSeen::new(Bounds { bytes_max: 4 * (OVERHEAD_BYTES + 100), ..BOUNDS });
        for n in 0..100 {
            seen.written(&key(&n.to_string()), &Put::new(vec![0; 50]));
        }
        seen.written(&key("large"), &Put::new(vec![0; 10_000]));
        let generations = seen.generations.lock();
        assert!((1..=4).contains(&(generations.young.len() + generations.old.len())));
        assert!(!generations.young.contains_key(key("large").text()));
        let sizes = generations.young.iter().map(|(text, seen)| text.len() + seen.entry.value.len() + OVERHEAD_BYTES);
        assert_eq!(generations.young_bytes, sizes.sum::<usize>());
    }
}
