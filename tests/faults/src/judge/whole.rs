//! A whole history as a drawing, without a judgement.

use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{BoundedCounter, Lock, Register};

use crate::drawing::{Counterexample, Role, Shown};
use crate::history::{Asked, DueAnswer, DueQuestion, History, Question, Told};
use crate::judge::{Judge, duration_label};

/// All calls of a history, to be drawn. Meant for a few hundred at most.
#[must_use]
pub fn whole(history: &History) -> Counterexample {
    let shown = |call: &Call<Asked, Told>| Shown {
        process: call.operation.process,
        label: format!("{} {}", call.operation.object.id(), label(call)),
        began: call.began,
        ended: call.ended,
        role: if call.is_maybe() { Role::Maybe } else { Role::Certain },
    };
    Counterexample { calls: history.iter().map(shown).collect(), beliefs: Vec::new(), left_out: 0 }
}

fn label(call: &Call<Asked, Told>) -> String {
    match (&call.operation.question, &call.reply) {
        (Question::Register(operation), told) => {
            let reply = if let Some(Told::Register(reply)) = told { Some(*reply) } else { None };
            labelled(&Register::default(), call, *operation, reply)
        }
        (Question::Counter(operation), told) => {
            let reply = if let Some(Told::Counter(reply)) = told { Some(*reply) } else { None };
            labelled(&BoundedCounter::default(), call, *operation, reply)
        }
        (Question::Lock(operation), told) => {
            let reply = if let Some(Told::Lock(reply)) = told { Some(*reply) } else { None };
            labelled(&Lock::default(), call, *operation, reply)
        }
        (Question::Due(question), told) => {
            let answer = if let Some(Told::Due(answer)) = told { Some(answer) } else { None };
            format!("{} → {}", due_question(question), answer.map_or("?".to_owned(), due_answer))
        }
    }
}

fn labelled<J: Judge>(judge: &J, call: &Call<Asked, Told>, operation: J::Operation, reply: Option<J::Reply>) -> String {
    judge.label(&Call { operation, reply, began: call.began, ended: call.ended })
}

fn due_question(question: &DueQuestion) -> String {
    match question {
        DueQuestion::Schedule { id, after_ns } => format!("schedule {id} in {}", duration_label(*after_ns)),
        DueQuestion::Cancel { id } => format!("cancel {id}"),
        DueQuestion::Claim { limit, visibility_ns } => format!("claim {limit} for {}", duration_label(*visibility_ns)),
        DueQuestion::Ack { id, .. } => format!("ack {id}"),
        DueQuestion::Extend { id, visibility_ns, .. } => format!("extend {id} by {}", duration_label(*visibility_ns)),
    }
}

fn due_answer(answer: &DueAnswer) -> String {
    match answer {
        DueAnswer::Scheduled(is_new) => if *is_new { "new" } else { "replaced" }.to_owned(),
        DueAnswer::Cancelled(was_there) => if *was_there { "removed" } else { "nothing" }.to_owned(),
        DueAnswer::Claimed(items, more_are_due) => {
            let ids = items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>().join(" ");
            let ids = if ids.is_empty() { "nothing".to_owned() } else { ids };
            if *more_are_due { format!("{ids}, more are due") } else { ids }
        }
        DueAnswer::Done => "done".to_owned(),
        DueAnswer::Lost => "lost".to_owned(),
    }
}
