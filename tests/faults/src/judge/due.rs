//! What is wrong with an item of a due queue.

use std::collections::BTreeMap;

use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::{Budget, Judgement, check_within};
use acteon_state_conformance::objects::{DueItem, DueOperation, DueReply, Queued};

use crate::anomaly::Anomaly;
use crate::history::{Asked, DueAnswer, DueQuestion, HandedOut, History, Question, Told};
use crate::judge::{Case, Judge, PassesOver, duration_label, known_until};

/// A search for a name need not succeed.
const BUDGET: Budget = Budget { configurations: 100_000 };

type DueCall = Call<DueOperation, DueReply>;

/// The history of each item of a queue, each call with its place in the whole history. See [`Rules`](crate::Rules) for what claims pass over.
pub(super) fn items(
    history: &History,
    calls: &[usize],
    passes_over: Option<&PassesOver>,
) -> BTreeMap<String, Vec<(DueCall, usize)>> {
    let mut items: BTreeMap<String, Vec<(DueCall, usize)>> = BTreeMap::new();
    // Items first: a claim is a call on each that was there by then.
    let mut scheduled: BTreeMap<&str, u64> = BTreeMap::new();
    for call in calls.iter().map(|at| &history[*at]) {
        if let Some(DueQuestion::Schedule { id, .. }) = question(&call.operation) {
            scheduled.entry(id).or_insert(call.began);
        }
        // Or handed out though nobody scheduled it, which is to be found.
        if let Some(Told::Due(DueAnswer::Claimed(handed, _))) = &call.reply {
            handed.iter().for_each(|item| _ = scheduled.entry(&item.id).or_insert(call.began));
        }
    }
    for at in calls {
        let call = &history[*at];
        let Some(question) = question(&call.operation) else { continue };
        if let Some(id) = item(question) {
            let part = part(question, call.reply.as_ref());
            items.entry(id.to_owned()).or_default().extend(part.map(|part| (place(call, part), *at)));
            continue;
        }
        for (id, _) in scheduled.iter().filter(|(_, since)| **since < call.ended) {
            let mut part = claim_part(question, call.reply.as_ref(), id);
            if let (Some((_, Some(DueReply::Passed))), Some(passes_over)) = (part, passes_over) {
                let mut others = calls.iter().map(|at| &history[*at]).chain(&passes_over.refused);
                // Nothing can be told from it.
                part = part.filter(|_| !others.any(|other| may_keep(other, call, id, passes_over)));
            }
            items.entry((*id).to_owned()).or_default().extend(part.map(|part| (place(call, part), *at)));
        }
    }
    items
}

/// Whether another call may have kept this item to itself at some moment of a claim, though it did nothing to it in the end: one that was
/// broken off with its connection, or refused; or a claim that looked at more than it may take, if the one that did not find the item said that
/// more are due. (A call that put the item back into sight explains by itself that the claim did not find it.)
fn may_keep(other: &Call<Asked, Told>, claim: &Call<Asked, Told>, id: &str, passes_over: &PassesOver) -> bool {
    let is_of_queue = other.operation.object == claim.operation.object;
    let is_beside = other.began < claim.ended && other.ended > claim.began;
    let is_about = |question: &DueQuestion| item(question).is_none_or(|about| about == id);
    let may = |question: &DueQuestion| {
        if other.is_maybe() {
            is_about(question)
        } else {
            passes_over.looks_at_more && may_leave(question, other, claim)
        }
    };
    is_of_queue && is_beside && question(&other.operation).is_some_and(may)
}

/// Whether a claim may have left an item that it had locked: it took as many as it may, and both claims said that more are due.
fn may_leave(question: &DueQuestion, other: &Call<Asked, Told>, claim: &Call<Asked, Told>) -> bool {
    let DueQuestion::Claim { limit, .. } = *question else { return false };
    let is_full =
        matches!(&other.reply, Some(Told::Due(DueAnswer::Claimed(handed, true))) if handed.len() == limit as usize);
    is_full && matches!(&claim.reply, Some(Told::Due(DueAnswer::Claimed(_, true))))
}

type Part = (DueOperation, Option<DueReply>);

fn place(call: &Call<Asked, Told>, (operation, reply): Part) -> DueCall {
    Call { operation, reply, began: call.began, ended: call.ended }
}

fn question(asked: &Asked) -> Option<&DueQuestion> {
    if let Question::Due(question) = &asked.question { Some(question) } else { None }
}

/// The one item that a question is about.
fn item(question: &DueQuestion) -> Option<&str> {
    match question {
        DueQuestion::Schedule { id, .. }
        | DueQuestion::Cancel { id }
        | DueQuestion::Ack { id, .. }
        | DueQuestion::Extend { id, .. } => Some(id),
        DueQuestion::Claim { .. } => None,
    }
}

/// A call on one item.
fn part(question: &DueQuestion, told: Option<&Told>) -> Option<Part> {
    let operation = match *question {
        DueQuestion::Schedule { after_ns, .. } => DueOperation::Schedule { after_ns },
        DueQuestion::Cancel { .. } => DueOperation::Cancel,
        DueQuestion::Ack { token, .. } => DueOperation::Ack(token),
        DueQuestion::Extend { token, visibility_ns, .. } => DueOperation::Extend { token, visibility_ns },
        DueQuestion::Claim { .. } => return None,
    };
    let reply = match told {
        Some(Told::Due(DueAnswer::Scheduled(is_new))) => Some(DueReply::Scheduled(*is_new)),
        Some(Told::Due(DueAnswer::Cancelled(was_there))) => Some(DueReply::Cancelled(*was_there)),
        Some(Told::Due(DueAnswer::Done)) => Some(DueReply::Done),
        Some(Told::Due(DueAnswer::Lost)) => Some(DueReply::Lost),
        _ => None,
    };
    Some((operation, reply))
}

/// What a claim was for one item: handed out, passed over, or unknown. Nothing if there was no room for it.
fn claim_part(question: &DueQuestion, told: Option<&Told>, id: &str) -> Option<Part> {
    let DueQuestion::Claim { limit, visibility_ns } = *question else {
        return None;
    };
    let Some(Told::Due(DueAnswer::Claimed(handed, _))) = told else {
        return Some((DueOperation::Claim { visibility_ns, token: None }, None));
    };
    match handed.iter().find(|item| item.id == id) {
        Some(HandedOut { token, attempt, .. }) => {
            let claim = DueOperation::Claim { visibility_ns, token: Some(*token) };
            Some((claim, Some(DueReply::Handed { attempt: *attempt })))
        }
        None if handed.len() < limit as usize => {
            Some((DueOperation::Claim { visibility_ns, token: None }, Some(DueReply::Passed)))
        }
        None => None,
    }
}

impl Judge for DueItem {
    fn is_read(&self, call: &DueCall) -> bool {
        matches!(call.reply, Some(DueReply::Passed | DueReply::Lost | DueReply::Cancelled(false)))
    }

    fn names(&self, call: &DueCall, other: &DueCall) -> bool {
        match (call.operation, other.operation) {
            (
                DueOperation::Ack(token) | DueOperation::Extend { token, .. },
                DueOperation::Claim { token: other, .. },
            ) => other == Some(token),
            _ => false,
        }
    }

    /// A claim also tells that the item was scheduled, and how often it was handed out since.
    fn mentions(&self, call: &DueCall, other: &DueCall) -> bool {
        let is_handed = matches!(call.reply, Some(DueReply::Handed { .. }));
        let is_before =
            matches!(other.operation, DueOperation::Schedule { .. } | DueOperation::Claim { token: None, .. });
        is_handed && is_before || self.names(call, other)
    }

    fn anomalies(&self, case: &Case<'_, Self>) -> Vec<Anomaly> {
        vec![name(self, case)]
    }

    fn label(&self, call: &DueCall) -> String {
        let asked = match call.operation {
            DueOperation::Schedule { after_ns } => format!("schedule in {}", duration_label(after_ns)),
            DueOperation::Cancel => "cancel".to_owned(),
            DueOperation::Claim { visibility_ns, token } => {
                let token = token.map_or(String::new(), |token| format!(" {}", token_label(token)));
                format!("claim{token} for {}", duration_label(visibility_ns))
            }
            DueOperation::Ack(token) => format!("ack {}", token_label(token)),
            DueOperation::Extend { token, visibility_ns } => {
                format!("extend {} by {}", token_label(token), duration_label(visibility_ns))
            }
        };
        let told = match call.reply {
            None => "?".to_owned(),
            Some(DueReply::Scheduled(is_new)) => if is_new { "new" } else { "replaced" }.to_owned(),
            Some(DueReply::Cancelled(was_there)) => if was_there { "removed" } else { "nothing" }.to_owned(),
            Some(DueReply::Handed { attempt }) => format!("attempt {attempt}"),
            Some(DueReply::Passed) => "not this item".to_owned(),
            Some(DueReply::Done) => "done".to_owned(),
            Some(DueReply::Lost) => "lost".to_owned(),
        };
        format!("{asked} → {told}")
    }

    fn belief(&self, state: &Option<Queued>) -> String {
        let Some(Queued { hidden, attempt, claim }) = state else {
            return "not in the queue".to_owned();
        };
        let claim = claim.map_or(String::new(), |token| format!(", claimed as {}", token_label(token)));
        let (earliest, latest) = (duration_label(hidden.earliest), duration_label(hidden.latest));
        format!("handed out {attempt} times{claim}, out of sight until {earliest} to {latest}")
    }
}

fn name(due: &DueItem, case: &Case<'_, DueItem>) -> Anomaly {
    if would_be_explained_by_late_acks(due, case) {
        return Anomaly::AckOfLostClaim;
    }
    match (case.last.operation, case.last.reply) {
        (_, Some(DueReply::Handed { .. })) => Anomaly::DoubleClaim,
        (DueOperation::Ack(token) | DueOperation::Extend { token, .. }, Some(DueReply::Lost))
            if would_be_explained_without_claim(due, case, token) =>
        {
            Anomaly::DoubleClaim
        }
        (DueOperation::Ack(_) | DueOperation::Extend { .. }, Some(DueReply::Done)) => Anomaly::AckOfLostClaim,
        (_, Some(DueReply::Passed | DueReply::Lost | DueReply::Cancelled(false) | DueReply::Scheduled(true))) => {
            Anomaly::LostItem
        }
        _ => Anomaly::NotLinearizable,
    }
}

/// Whether what was seen until the contradiction is explained if this claim never was: it was handed out beside another one.
fn would_be_explained_without_claim(due: &DueItem, case: &Case<'_, DueItem>, claim: u128) -> bool {
    let is_about = |call: &DueCall| match call.operation {
        DueOperation::Ack(token) | DueOperation::Extend { token, .. } => token == claim,
        DueOperation::Claim { token, .. } => token == Some(claim),
        DueOperation::Schedule { .. } | DueOperation::Cancel => false,
    };
    let mut calls = known_until(case.all, case.last.ended);
    calls.retain(|call| !is_about(call));
    check_within(due, &calls, BUDGET) == Judgement::Linearizable
}

/// Whether everything is explained if acks were carried out although the item had been claimed or scheduled again.
fn would_be_explained_by_late_acks(due: &DueItem, case: &Case<'_, DueItem>) -> bool {
    let claim = |call: &DueCall| match call.operation {
        DueOperation::Claim { token, .. } => token,
        _ => None,
    };
    let is_late = |call: &DueCall, token| {
        let ours = case.all.iter().find(|other| claim(other) == Some(token));
        ours.is_some_and(|ours| {
            let is_newer = |other: &DueCall| match other.operation {
                DueOperation::Claim { token, .. } => token.is_some() && other.began > ours.began,
                DueOperation::Schedule { .. } | DueOperation::Cancel => other.ended > ours.began,
                DueOperation::Ack(_) | DueOperation::Extend { .. } => false,
            } && other.began < call.ended;
            case.all.iter().any(is_newer)
        })
    };
    let mut has_late = false;
    let lenient = case.all.iter().map(|call| match (call.operation, call.reply) {
        (DueOperation::Ack(token) | DueOperation::Extend { token, .. }, Some(DueReply::Done))
            if is_late(call, token) =>
        {
            has_late = true;
            Call { operation: DueOperation::Cancel, reply: None, ..call.clone() }
        }
        _ => call.clone(),
    });
    let lenient: Vec<DueCall> = lenient.collect();
    has_late && check_within(due, &lenient, BUDGET) == Judgement::Linearizable
}

/// The end of a token: enough to tell apart the few of a counterexample.
fn token_label(token: u128) -> String {
    format!("#{:04x}", token & 0xffff)
}

#[cfg(test)]
mod tests {
    use acteon_state_conformance::history::Call;
    use acteon_state_core::StateKey;

    use crate::history::{Asked, DueAnswer, DueQuestion, HandedOut, History, Question, Told};
    use crate::judge::{PassesOver, Rules, judge};

    const MS: u64 = 1_000_000;

    fn call(process: u32, began_ms: u64, question: DueQuestion) -> Call<Asked, Told> {
        let object = StateKey::new("faults", "judge", "queue", "due").expect("the parts are valid");
        Call::maybe(began_ms * MS, Asked { process, object, question: Question::Due(question) })
    }

    fn answered(
        process: u32,
        (began_ms, ended_ms): (u64, u64),
        asked: DueQuestion,
        told: DueAnswer,
    ) -> Call<Asked, Told> {
        Call { reply: Some(Told::Due(told)), ended: ended_ms * MS, ..call(process, began_ms, asked) }
    }

    fn claim() -> DueQuestion {
        DueQuestion::Claim { limit: 2, visibility_ns: 100 * MS }
    }

    fn schedule() -> DueQuestion {
        DueQuestion::Schedule { id: "item".to_owned(), after_ns: 0 }
    }

    fn handed(attempt: u32) -> DueAnswer {
        DueAnswer::Claimed(vec![HandedOut { id: "item".to_owned(), token: 7, attempt }], false)
    }

    fn passed_over(beside: Option<Call<Asked, Told>>) -> History {
        passed_over_by(DueAnswer::Claimed(Vec::new(), false), beside)
    }

    /// An item in sight is passed over by a claim, and handed out by the next one as if nobody had had it.
    fn passed_over_by(told: DueAnswer, beside: Option<Call<Asked, Told>>) -> History {
        let mut history = vec![
            answered(1, (10, 20), schedule(), DueAnswer::Scheduled(true)),
            answered(1, (50, 60), claim(), told),
            answered(1, (70, 80), claim(), handed(1)),
        ];
        history.extend(beside);
        history.sort_by_key(|call| call.began);
        history
    }

    fn is_right(history: &History, refused: Option<History>) -> bool {
        let passes_over = refused.map(|refused| PassesOver { refused, looks_at_more: true });
        judge(history, &Rules { passes_over, ..Rules::default() }).is_clean()
    }

    /// Found in clients that were killed, and under poolers that were: the claim that had locked the item was rolled back.
    #[test]
    fn an_item_may_be_passed_over_while_another_call_that_comes_to_nothing_has_it() {
        let history = passed_over(Some(call(2, 40, claim())));
        assert!(is_right(&history, Some(Vec::new())));
        assert!(!is_right(&history, None), "not where a claim hands out all that is in sight");
        let refused = |(began_ms, ended_ms): (u64, u64)| Call { ended: ended_ms * MS, ..call(2, began_ms, claim()) };
        assert!(is_right(&passed_over(None), Some(vec![refused((40, 55))])));
    }

    /// Found with a client that was frozen: another claim had locked the item to move it in the order, and took others.
    #[test]
    fn a_claim_may_pass_over_an_item_that_another_one_looks_at_if_it_says_that_more_are_due() {
        let told = |ids: &[&str], more_are_due| {
            let handed = |id: &&str| HandedOut { id: (*id).to_owned(), token: 9, attempt: 1 };
            DueAnswer::Claimed(ids.iter().map(handed).collect(), more_are_due)
        };
        // With others before it in the queue, which are no part of what is judged here.
        let full = |span| Some(answered(2, span, claim(), told(&["a", "b"], true)));
        let judged = |mine, beside| {
            let mut history = passed_over_by(told(&[], mine), beside);
            for (at, id) in ["a", "b"].into_iter().enumerate() {
                let at = at as u64;
                let schedule = DueQuestion::Schedule { id: id.to_owned(), after_ns: 0 };
                history.insert(0, answered(3, (at, at + 2), schedule, DueAnswer::Scheduled(true)));
            }
            history.sort_by_key(|call| call.began);
            history
        };
        let is_right = |history: &History, looks_at_more| {
            let passes_over = Some(PassesOver { refused: Vec::new(), looks_at_more });
            let report = judge(history, &Rules { passes_over, ..Rules::default() });
            report.findings.iter().all(|finding| !finding.object.ends_with("item item"))
        };
        assert!(is_right(&judged(true, full((45, 65))), true));
        assert!(!is_right(&judged(false, full((45, 65))), true), "it says that none is");
        assert!(!is_right(&judged(true, full((62, 65))), true), "nobody was beside it");
        assert!(!is_right(&judged(true, None), true));
        assert!(!is_right(&judged(true, full((45, 65))), false), "not where a claim locks what it takes and no more");
        let taken = Some(answered(2, (45, 65), claim(), told(&["a"], true)));
        assert!(!is_right(&judged(true, taken), true), "one that has room takes what it looks at");
    }

    #[test]
    fn an_item_that_nobody_can_have_had_is_not_passed_over() {
        assert!(!is_right(&passed_over(None), Some(Vec::new())));
        let (before, other) =
            (Call { ended: 45 * MS, ..call(2, 40, claim()) }, DueQuestion::Cancel { id: "other".to_owned() });
        assert!(!is_right(&passed_over(None), Some(vec![before, call(2, 40, other)])));
    }
}
