//! Each thing that may not happen is found where it may not, and passes where it may.

use acteon_faults::history::{DueAnswer, DueQuestion, HandedOut};
use acteon_faults::{Asked, Question, Told};
use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{
    CounterOperation, CounterReply, LockOperation, LockReply, RegisterOperation, RegisterReply,
};
use acteon_state_core::StateKey;

use super::super::{AFTER, OWN, Options, UNDER};
use super::{LoadCall, Span, verdict};

const SECOND: u64 = 1_000_000_000;

/// A history whose fault came after 10 s, and whose traffic had resumed after 20 s. Looks come after 30 s.
#[derive(Default)]
struct Story(Vec<LoadCall>);

impl Story {
    /// A call that was answered after half a second, at this second.
    fn told(mut self, kind: &str, id: &str, second: u64, question: Question, told: Told) -> Self {
        let operation = Asked { process: 0, object: key(kind, id), question };
        self.0.push(Call::answered(second * SECOND - SECOND / 2, second * SECOND, operation, told));
        self
    }

    /// A call of which nobody knows.
    fn unknown(mut self, id: &str, second: u64, question: Question) -> Self {
        self.0.push(Call::maybe(second * SECOND, Asked { process: 0, object: key(OWN, id), question }));
        self
    }

    fn written(self, id: &str, second: u64) -> Self {
        self.told(OWN, id, second, put(1), Told::Register(RegisterReply::Written))
    }

    fn found(self, id: &str, value: Option<u32>) -> Self {
        self.told(OWN, id, 30, GET, Told::Register(RegisterReply::Found(value)))
    }

    fn counted(self, id: &str, value: i64) -> Self {
        let get = Question::Counter(CounterOperation::Get);
        self.told(OWN, id, 30, get, Told::Counter(CounterReply::Found(Some(value))))
    }

    fn claimed(self, id: &str, items: Vec<HandedOut>) -> Self {
        let claim = DueQuestion::Claim { limit: 2, visibility_ns: SECOND };
        self.told(OWN, id, 30, Question::Due(claim), Told::Due(DueAnswer::Claimed(items, false)))
    }

    fn scheduled(self, id: &str, second: u64) -> Self {
        self.told(OWN, id, second, schedule(), Told::Due(DueAnswer::Scheduled(true)))
    }

    fn granted(self, owner: u32, second: u64, token: u64) -> Self {
        let acquire = Question::Lock(LockOperation::acquire(owner));
        self.told(UNDER, "lock", second, acquire, Told::Lock(LockReply::Granted(token)))
    }

    fn judged(&self, may_lose: bool, strict_locks: bool) -> (usize, Vec<String>) {
        let may_lose = may_lose.then_some(0).into_iter().collect();
        let options = Options { may_lose, strict_locks, ..Options::default() };
        let mut history = self.0.clone();
        history.sort_by_key(|call| call.began);
        let verdict = verdict(history, &options, Span { fault: Some(10 * SECOND), resumed: Some(20 * SECOND) }, 0);
        (verdict.lost, verdict.wrong)
    }

    /// Is against the promises of every topology.
    fn never(self) {
        for may_lose in [true, false] {
            assert_eq!(self.judged(may_lose, false).1.len(), 1, "may lose: {may_lose}");
        }
    }

    /// Is against the promises where nothing may be lost, and only there.
    fn only_where_writes_may_be_lost(self) {
        assert_eq!(self.judged(false, false).1.len(), 1);
        assert_eq!(self.judged(true, false).1, Vec::<String>::new());
    }

    fn fine(self) {
        for may_lose in [true, false] {
            assert_eq!(self.judged(may_lose, false).1, Vec::<String>::new(), "may lose: {may_lose}");
        }
    }
}

const GET: Question = Question::Register(RegisterOperation::Get);

fn put(value: u32) -> Question {
    Question::Register(RegisterOperation::set(value))
}

fn add() -> Question {
    Question::Counter(CounterOperation::Add { step: 1, id: 1 })
}

fn schedule() -> Question {
    Question::Due(DueQuestion::Schedule { id: "item".to_owned(), after_ns: 0 })
}

fn handed() -> Vec<HandedOut> {
    vec![HandedOut { id: "item".to_owned(), token: 1, attempt: 1 }]
}

fn key(kind: &str, id: &str) -> StateKey {
    StateKey::new("load", "tests", kind, id).unwrap()
}

#[test]
fn what_was_told_and_is_there_is_fine() {
    let unknown = || Story::default().unknown("b", 12, put(1)).unknown("c", 12, add());
    unknown().found("b", None).counted("c", 1).fine();
    unknown().found("b", Some(1)).written("a", 5).found("a", Some(1)).fine();
    Story::default().scheduled("q", 21).claimed("q", handed()).granted(1, 30, 7).fine();
}

#[test]
fn a_write_that_was_told_not_to_be_applied_is_never_there() {
    Story::default().found("k", Some(1)).never();
    Story::default().counted("k", 1).never();
    Story::default().claimed("k", handed()).never();
}

#[test]
fn nothing_counts_twice() {
    Story::default().unknown("k", 12, add()).counted("k", 2).never();
    Story::default().told(OWN, "k", 5, add(), Told::Counter(CounterReply::Applied(1))).counted("k", 2).never();
}

#[test]
fn an_acknowledged_write_is_lost_only_where_and_when_it_may_be() {
    Story::default().written("k", 12).found("k", None).only_where_writes_may_be_lost();
    Story::default().written("k", 21).found("k", None).never();
    Story::default().scheduled("k", 12).claimed("k", Vec::new()).only_where_writes_may_be_lost();
    Story::default().scheduled("k", 21).claimed("k", Vec::new()).never();
    assert_eq!(Story::default().written("k", 12).found("k", None).judged(true, false).0, 1);
}

#[test]
fn what_is_lost_is_the_end_of_a_stream() {
    let two = || Story::default().written("a", 5).written("b", 7);
    assert_eq!(two().found("a", None).found("b", Some(1)).judged(true, false).1.len(), 1);
    assert_eq!(two().found("a", Some(1)).found("b", None).judged(true, false), (1, Vec::new()));
}

#[test]
fn shared_objects_are_judged_until_the_fault_and_again_after_it() {
    let lost = |kind: &'static str, second| {
        let written = Story::default().told(kind, "k", second, put(1), Told::Register(RegisterReply::Written));
        written.told(kind, "k", second + 2, GET, Told::Register(RegisterReply::Found(None)))
    };
    lost(UNDER, 5).never();
    lost(UNDER, 9).only_where_writes_may_be_lost();
    lost(AFTER, 21).never();
}

#[test]
fn tokens_rise_and_grants_do_not_overlap() {
    let released = |story: Story, owner, second| {
        let release = Question::Lock(LockOperation::Release(owner));
        story.told(UNDER, "lock", second, release, Told::Lock(LockReply::Released))
    };
    released(Story::default().granted(1, 2, 5), 1, 3).granted(2, 12, 5).never();
    released(Story::default().granted(1, 2, 5), 1, 3).granted(2, 12, 6).fine();
    let overlap = || Story::default().granted(1, 9, 5).granted(2, 12, 6);
    overlap().only_where_writes_may_be_lost();
    assert_eq!(overlap().judged(true, true).1.len(), 1, "strict safety promises it on all shards");
    Story::default().granted(1, 21, 5).granted(2, 23, 6).never();
}
