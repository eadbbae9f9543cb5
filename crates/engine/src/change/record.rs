//! Gathers the changes of whoever holds a segment.
//!
//! # How it works
//! One buffer per segment, which keeps its memory up to a bound, so that a write usually allocates nothing. Changes of one key in a
//! row name it once. An empty collection that is created and removed again before anything else happens leaves no trace.

use std::ops::Range;

use super::op::{Op, SAME_KEY, write_bytes, write_number, write_string, write_whole};

/// What a buffer keeps when it has been emptied: most writes fit, and a thousand segments keep 4 MiB together.
const KEPT_BYTES: usize = 4 << 10;

/// The changes that were made to a segment since it was taken. A word, while nobody wants to know them: segments are read far more often
/// than they are written to, and should fit into few lines of a cache.
#[derive(Default)]
pub(crate) struct Recorder(Option<Box<Changes>>);

#[derive(Default)]
struct Changes {
    ops: Vec<u8>,
    last: Option<Last>,
}

/// The latest change.
struct Last {
    /// Where it begins.
    start: usize,
    database: usize,
    /// Where the bytes of its key are.
    key: Range<usize>,
    creates: bool,
}

impl Recorder {
    /// Whether changes are of interest to anybody.
    pub(crate) fn set_on(&mut self, is_on: bool) {
        self.0 = is_on.then(Box::default);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|changes| changes.ops.is_empty())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |changes| changes.ops.len())
    }

    #[inline]
    pub(crate) fn record(&mut self, database: usize, key: &[u8], op: &Op<'_>) {
        if let Some(changes) = &mut self.0 {
            changes.begin(database, key, op);
            op.write_arguments(&mut changes.ops);
        }
    }

    /// The same as recording an [`Op::SetStr`], with the value in parts.
    #[inline]
    pub(crate) fn record_string(&mut self, database: usize, key: &[u8], expires_at_ms: Option<u64>, parts: &[&[u8]]) {
        if let Some(changes) = &mut self.0 {
            changes.begin(database, key, &Op::SetStr { expires_at_ms, value: &[] });
            write_string(&mut changes.ops, expires_at_ms, parts);
        }
    }

    /// The same as recording an [`Op::PutWhole`], whose value `write` appends.
    pub(crate) fn record_whole(
        &mut self,
        database: usize,
        key: &[u8],
        expires_at_ms: Option<u64>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(changes) = &mut self.0 {
            changes.begin(database, key, &Op::PutWhole { expires_at_ms, value: &[] });
            write_whole(&mut changes.ops, expires_at_ms, write);
        }
    }

    /// The key is gone.
    #[inline]
    pub(crate) fn record_removal(&mut self, database: usize, key: &[u8]) {
        if let Some(changes) = &mut self.0
            && !changes.take_back_creation(database, key)
        {
            self.record(database, key, &Op::Remove);
        }
    }

    /// Moves what was recorded behind `group`.
    pub(crate) fn drain_into(&mut self, group: &mut Vec<u8>) {
        self.hand_over(|ops| group.extend_from_slice(ops));
    }

    /// Shows what was recorded to `read`, and forgets it.
    pub(crate) fn hand_over(&mut self, read: impl FnOnce(&[u8])) {
        if let Some(changes) = &mut self.0 {
            read(&changes.ops);
            changes.last = None;
            changes.ops.clear();
            changes.ops.shrink_to(KEPT_BYTES);
        }
    }

    /// Puts the changes of another segment, which happened at the same time, behind those of this one.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        if let Some(changes) = &mut self.0 {
            // The other's first change names its key, whatever the last one here was about.
            other.drain_into(&mut changes.ops);
            changes.last = None;
        }
    }
}

impl Changes {
    fn is_named(&self, last: &Last, database: usize, key: &[u8]) -> bool {
        last.database == database && self.ops[last.key.clone()] == *key
    }

    /// Takes the latest change back if it has created the key: for somebody who then had nothing to put into it. Before, it was absent.
    fn take_back_creation(&mut self, database: usize, key: &[u8]) -> bool {
        let last = self.last.take_if(|last| last.creates);
        let Some(last) = last.filter(|last| self.is_named(last, database, key)) else { return false };
        self.ops.truncate(last.start);
        true
    }

    /// Writes what stands before the arguments of `op`.
    fn begin(&mut self, database: usize, key: &[u8], op: &Op<'_>) {
        let start = self.ops.len();
        let known = self.last.take().filter(|last| self.is_named(last, database, key));
        let key = match known {
            Some(last) => {
                self.ops.push(op.code() | SAME_KEY);
                last.key
            }
            None => {
                self.ops.push(op.code());
                write_number(&mut self.ops, database as u64);
                write_bytes(&mut self.ops, key);
                self.ops.len() - key.len()..self.ops.len()
            }
        };
        self.last = Some(Last { start, database, key, creates: matches!(op, Op::Create(_)) });
    }
}

/// A recorder, for the changes of one key.
pub(crate) struct Recording<'a> {
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) database: usize,
    pub(crate) key: &'a [u8],
}

impl Recording<'_> {
    #[inline]
    pub(crate) fn record(&mut self, op: &Op<'_>) {
        self.recorder.record(self.database, self.key, op);
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT_BYTES, Recorder};
    use crate::change::Op;
    use crate::change::op::Ops;
    use crate::entry::Kind;

    fn recorder() -> Recorder {
        let mut recorder = Recorder::default();
        recorder.set_on(true);
        recorder
    }

    fn shown(recorder: &mut Recorder) -> Vec<String> {
        let mut lines = Vec::new();
        recorder.hand_over(|group| {
            lines = Ops::new(group)
                .map(|change| change.expect("it was recorded"))
                .map(|change| format!("{} {} {:?}", change.database, change.key.escape_ascii(), change.op))
                .collect();
        });
        lines
    }

    #[test]
    fn nothing_is_recorded_while_nobody_asks() {
        let mut recorder = Recorder::default();
        recorder.record(0, b"k", &Op::Remove);
        recorder.record_removal(0, b"k");
        recorder.record_string(0, b"k", None, &[b"v"]);
        recorder.record_whole(0, b"k", None, |_| panic!("nobody asked"));
        assert!(recorder.is_empty());
    }

    #[test]
    fn changes_in_a_row_name_their_key_once() {
        let mut recorder = recorder();
        let key = [b'k'; 100];
        (0..10).for_each(|_| recorder.record(1, &key, &Op::PushBack(b"e")));
        assert!(recorder.len() < 150, "{}", recorder.len());
        recorder.record(0, &key, &Op::Remove);
        assert!(recorder.len() > 200, "another database is another key");
        let lines = shown(&mut recorder);
        assert_eq!(lines.len(), 11);
        assert!(lines[..10].iter().all(|line| line.starts_with("1 kkk")) && lines[10].starts_with("0 kkk"));
    }

    #[test]
    fn collection_that_stays_empty_leaves_no_trace_but_what_was_removed_before_it_does() {
        let mut recorder = recorder();
        recorder.record(0, b"k", &Op::Create(Kind::Hash));
        recorder.record_removal(0, b"k");
        assert!(recorder.is_empty());

        recorder.record_removal(0, b"k");
        recorder.record(0, b"k", &Op::Create(Kind::Hash));
        recorder.record_removal(0, b"k");
        recorder.record(0, b"other", &Op::Create(Kind::Hash));
        recorder.record(0, b"other", &Op::SetField { field: b"f", value: b"v" });
        recorder.record_removal(0, b"other");
        let lines = shown(&mut recorder);
        assert_eq!(lines.iter().filter(|line| line.ends_with("Remove")).count(), 2, "{lines:?}");
    }

    #[test]
    fn buffers_keep_their_memory_up_to_a_bound() {
        let mut recorder = recorder();
        recorder.record_string(0, b"k", None, &[&[0; 500]]);
        recorder.hand_over(|_| ());
        let kept = recorder.0.as_ref().expect("it is on").ops.capacity();
        assert!(kept >= 500);
        recorder.record_string(0, b"k", None, &[&[0; 100_000]]);
        recorder.hand_over(|_| ());
        assert!((kept..=KEPT_BYTES).contains(&recorder.0.as_ref().expect("it is on").ops.capacity()));
    }

    #[test]
    fn changes_of_two_segments_become_one_group() {
        let (mut one, mut other) = (recorder(), recorder());
        one.record(0, b"a", &Op::Remove);
        other.record(0, b"b", &Op::Remove);
        other.record(0, b"b", &Op::Append(b"x"));
        one.absorb(&mut other);
        one.record(0, b"b", &Op::Remove);
        assert!(other.is_empty());
        assert_eq!(shown(&mut one), ["0 a Remove", "0 b Remove", "0 b Append([120])", "0 b Remove"]);
    }
}
