//! Asks a state what a history records, and translates its answers.

use std::time::Duration;

use acteon_state_conformance::ask::{ask_counter, ask_lock, ask_register};
use acteon_state_conformance::objects::BoundedCounter;
use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, Result, Schedule, Scheduled, State, StateKey,
    StateStore,
};

use crate::history::{DueAnswer, DueQuestion, HandedOut, Question, Told};

/// What questions leave open.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The bounds and the window of counters.
    pub counter: BoundedCounter,
    /// How long a request for a lock waits.
    pub lock_wait: Duration,
}

/// Asks one question.
///
/// # Errors
/// Those of the store.
pub async fn ask(state: &State, object: &StateKey, question: &Question, terms: &Terms) -> Result<Told> {
    let store = &**state.store();
    Ok(match question {
        Question::Register(operation) => Told::Register(ask_register(store, object, *operation).await?),
        Question::Counter(operation) => Told::Counter(ask_counter(store, object, &terms.counter, *operation).await?),
        Question::Lock(operation) => {
            Told::Lock(ask_lock(&**state.lock_store(), object, *operation, terms.lock_wait).await?)
        }
        Question::Due(question) => Told::Due(ask_queue(store, object, question).await?),
    })
}

async fn ask_queue(store: &dyn StateStore, queue: &StateKey, question: &DueQuestion) -> Result<DueAnswer> {
    Ok(match question {
        DueQuestion::Schedule { id, after_ns } => {
            let due_at = DueAt::After(Duration::from_nanos(*after_ns));
            let schedule = Schedule { id: id.clone(), due_at, payload: id.clone().into() };
            DueAnswer::Scheduled(store.schedule(queue, &schedule).await? == Scheduled::Created)
        }
        DueQuestion::Cancel { id } => DueAnswer::Cancelled(store.cancel(queue, id).await?),
        DueQuestion::Claim { limit, visibility_ns } => {
            let claim = ClaimDue { limit: *limit, visibility: Duration::from_nanos(*visibility_ns) };
            let Claimed { items, next_due_in } = store.claim_due(queue, claim).await?;
            DueAnswer::Claimed(items.iter().map(handed_out).collect(), next_due_in == Some(Duration::ZERO))
        }
        DueQuestion::Ack { id, token } => outcome(store.ack(queue, id, ClaimToken::from_u128(*token)).await?),
        DueQuestion::Extend { id, token, visibility_ns } => {
            let visibility = Duration::from_nanos(*visibility_ns);
            outcome(store.extend_claim(queue, id, ClaimToken::from_u128(*token), visibility).await?)
        }
    })
}

fn handed_out(item: &DueItem) -> HandedOut {
    HandedOut { id: item.id.clone(), token: item.token.as_u128(), attempt: item.attempt }
}

const fn outcome(outcome: ClaimOutcome) -> DueAnswer {
    match outcome {
        ClaimOutcome::Done => DueAnswer::Done,
        ClaimOutcome::Lost => DueAnswer::Lost,
    }
}
