//! The judge finds each thing that may not happen, and lets pass what may.

use std::time::{Duration, Instant};

use acteon_state_conformance::history::NEVER;
use acteon_state_conformance::objects::{RegisterOperation, RegisterReply};
use acteon_state_core::{Entry, StateKey, Version};

use super::super::Options;
use super::super::history::{
    Ack, Claim, Grant, History, Member, RegisterCall, RegisterHistory, Scheduling, Span, Sums, Told,
};
use super::{Contents, judge};

/// A history whose fault came after 10 s, and whose traffic had resumed after 20 s.
struct Story {
    start: Instant,
    history: History,
    contents: Contents,
}

impl Story {
    fn new() -> Self {
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let history = History { fault: at(10), resumed: at(20), ..History::default() };
        Self { start, history, contents: Contents::default() }
    }

    /// From half a second before this moment to the moment.
    fn span(&self, second: u64) -> Span {
        let ended = self.start + Duration::from_secs(second);
        Span { began: ended - Duration::from_millis(500), ended }
    }

    fn put(mut self, id: &str, second: u64, told: Told, is_there: bool) -> Self {
        let (key, version) = (key(id), Version::draw());
        if is_there {
            self.contents.entries.insert(key.clone(), entry("v", Some(version)));
        }
        let span = self.span(second);
        self.history.members.push(Member { key, version: Some(version), told, span });
        self
    }

    fn increment(mut self, id: &str, second: u64, told: Told, count: i64) -> Self {
        let (key, span) = (key(id), self.span(second));
        self.contents.entries.insert(key.clone(), entry(&count.to_string(), None));
        self.history.members.push(Member { key, version: None, told, span });
        self
    }

    fn counter(mut self, sums: Sums, value: i64) -> Self {
        let key = key("shared");
        self.contents.entries.insert(key.clone(), entry(&value.to_string(), None));
        self.history.counters.insert(key, sums);
        self
    }

    fn scheduled(mut self, second: u64, told: Told) -> Self {
        let span = self.span(second);
        self.history.schedules.insert("item".to_owned(), Scheduling { queue: key("queue"), told, span });
        self
    }

    fn claimed(mut self, second: u64) -> Self {
        let span = self.span(second);
        self.history.claims.push(Claim { id: "item".to_owned(), span });
        self
    }

    fn dealt_with(mut self, second: u64) -> Self {
        let span = self.span(second);
        self.history.acks.entry("item".to_owned()).or_default().push(Ack { span });
        self
    }

    fn granted(mut self, token: u64, second: u64, until: u64) -> Self {
        let (span, until) = (self.span(second), self.span(until).ended);
        self.history.grants.push(Grant { key: key("lock"), token, span, until, was_lost: false });
        self
    }

    /// Calls about one register, one after another, the first of which ended at this second.
    fn register(mut self, second: u64, calls: &[(RegisterOperation, Option<RegisterReply>)]) -> Self {
        let since = self.span(second).began;
        let mut places = 0..;
        let mut place = || places.next().unwrap();
        let calls = calls.iter().zip(second..).map(|((operation, reply), second)| {
            let (began, ended) = (place(), place());
            // An unknown outcome ends after everything else.
            let ended = if reply.is_none() { NEVER } else { ended };
            (RegisterCall { operation: *operation, reply: *reply, began, ended }, self.span(second).ended)
        });
        let calls = calls.collect();
        self.history.registers.insert(1, RegisterHistory { key: key("register"), since, calls });
        self
    }

    fn refused(mut self, value: u32) -> Self {
        self.history.values_refused.insert(value);
        self
    }

    fn judged(&self, may_lose: bool, strict_locks: bool) -> Vec<String> {
        let options =
            Options { may_lose: may_lose.then_some(0).into_iter().collect(), strict_locks, ..Options::default() };
        judge(&self.history, &self.contents, &options).violations
    }

    /// Is against the promises of every topology.
    fn never(self, about: &str) {
        for may_lose in [true, false] {
            let found = self.judged(may_lose, false);
            assert!(found.len() == 1 && found[0].contains(about), "{about}: {found:?}");
        }
    }

    /// Is against the promises where nothing may be lost, and only there.
    fn only_where_writes_may_be_lost(self, about: &str) {
        let found = self.judged(false, false);
        assert!(found.len() == 1 && found[0].contains(about), "{about}: {found:?}");
        assert_eq!(self.judged(true, false), Vec::<String>::new());
    }

    fn fine(self) {
        assert_eq!(self.judged(false, true), Vec::<String>::new());
    }
}

fn key(id: &str) -> StateKey {
    StateKey::new("load", "tests", "planted", id).unwrap()
}

fn entry(value: &str, version: Option<Version>) -> Entry {
    Entry { value: value.to_owned().into(), version, fence: None, ttl: None }
}

#[test]
fn what_was_told_and_is_there_is_fine() {
    let sums = || Sums { acknowledged: 7, acknowledged_late: 3, unknown: 2 };
    let story = || Story::new().scheduled(1, Told::Acknowledged).claimed(2).dealt_with(3);
    let story = || story().put("a", 5, Told::Acknowledged, true).put("b", 5, Told::NotApplied, false);
    let story = || story().put("c", 12, Told::Unknown, true).put("d", 12, Told::Unknown, false);
    let story = || story().increment("e", 5, Told::Acknowledged, 1).increment("f", 12, Told::Unknown, 1);
    story().counter(sums(), 7).fine();
    story().counter(sums(), 9).granted(1, 2, 3).granted(2, 4, 5).fine();
}

#[test]
fn a_write_that_was_told_not_to_be_applied_is_never_there() {
    Story::new().put("k", 12, Told::NotApplied, true).never("NotApplied");
    Story::new().increment("k", 12, Told::NotApplied, 1).never("NotApplied");
    Story::new().scheduled(12, Told::NotApplied).claimed(21).never("not to be applied");
    let read = [(RegisterOperation::Get, Some(RegisterReply::Found(Some(5))))];
    let read = Story::new().register(12, &read).refused(5);
    assert!(read.judged(true, false).iter().any(|found| found.contains("not applied")));
}

#[test]
fn nothing_counts_twice() {
    Story::new().increment("k", 12, Told::Unknown, 2).never("Some(2)");
    Story::new().increment("k", 5, Told::Acknowledged, 2).never("Some(2)");
    Story::new().counter(Sums { acknowledged: 7, acknowledged_late: 3, unknown: 2 }, 10).never("10");
}

#[test]
fn an_acknowledged_write_is_lost_only_where_and_when_it_may_be() {
    Story::new().put("k", 12, Told::Acknowledged, false).only_where_writes_may_be_lost("Acknowledged");
    Story::new().put("k", 21, Told::Acknowledged, false).never("Acknowledged");
    Story::new().scheduled(12, Told::Acknowledged).only_where_writes_may_be_lost("never claimed");
    Story::new().scheduled(21, Told::Acknowledged).never("never claimed");
    let sums = || Sums { acknowledged: 7, acknowledged_late: 3, unknown: 2 };
    Story::new().counter(sums(), 4).only_where_writes_may_be_lost("is 4");
    Story::new().counter(sums(), 2).never("is 2");
}

#[test]
fn what_is_lost_is_the_end_of_a_stream() {
    let hole = Story::new().put("a", 5, Told::Acknowledged, false).put("b", 7, Told::Acknowledged, true);
    assert!(hole.judged(true, false).iter().any(|found| found.contains("written before it was lost")));
    let end = Story::new().put("a", 5, Told::Acknowledged, true).put("b", 7, Told::Acknowledged, false);
    assert_eq!(end.judged(true, false), Vec::<String>::new());
}

#[test]
fn an_item_has_one_claimer_at_a_time_and_is_gone_once_dealt_with() {
    let scheduled = || Story::new().scheduled(1, Told::Acknowledged);
    scheduled().claimed(5).claimed(6).only_where_writes_may_be_lost("claimed twice");
    scheduled().claimed(22).claimed(23).never("claimed twice");
    scheduled().claimed(22).claimed(25).fine();
    scheduled().claimed(3).dealt_with(4).claimed(21).only_where_writes_may_be_lost("dealt with");
    scheduled().claimed(21).dealt_with(22).claimed(24).never("dealt with");
    Story::new().claimed(5).never("never scheduled");
}

#[test]
fn tokens_rise_and_grants_do_not_overlap() {
    Story::new().granted(5, 2, 3).granted(4, 12, 13).never("token 4");
    Story::new().granted(5, 2, 3).granted(5, 12, 13).never("token 5");
    let overlap = || Story::new().granted(5, 9, 14).granted(6, 12, 13);
    overlap().only_where_writes_may_be_lost("overlap");
    assert_eq!(overlap().judged(true, true).len(), 1, "strict safety promises it on all shards");
    Story::new().granted(5, 21, 25).granted(6, 23, 24).never("overlap");
}

#[test]
fn a_grant_that_ends_early_is_found() {
    let lost = |second| {
        let mut story = Story::new().granted(5, second, second + 1);
        story.history.grants[0].was_lost = true;
        story
    };
    lost(9).only_where_writes_may_be_lost("lost before its end");
    lost(21).never("lost before its end");
}

#[test]
fn registers_are_linearizable_wherever_nothing_may_be_lost() {
    use RegisterOperation::Get;
    let written = |value| (RegisterOperation::set(value), Some(RegisterReply::Written));
    let found = |value| (Get, Some(RegisterReply::Found(value)));
    let lost = [written(1), found(None)];
    Story::new().register(5, &lost).never("no order explains");
    Story::new().register(12, &lost).only_where_writes_may_be_lost("no order explains");
    Story::new()
        .register(9, &[written(1), written(2), found(Some(1))])
        .only_where_writes_may_be_lost("no order explains");
    Story::new().register(21, &lost).never("no order explains");
    // Nobody knows whether the second one came, until it is read.
    let unknown = (RegisterOperation::set(2), None);
    Story::new().register(5, &[written(1), unknown, found(Some(1)), found(Some(2))]).fine();
    Story::new().register(5, &[written(1), unknown, found(Some(1)), found(Some(1))]).fine();
    Story::new().register(5, &[unknown, found(Some(2)), found(None)]).never("no order explains");
}
