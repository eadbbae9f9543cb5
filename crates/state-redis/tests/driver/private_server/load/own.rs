//! Writes to objects that nobody else asks: one each, by itself or in a batch, which is looked at in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use acteon_faults::history::DueQuestion;
use acteon_faults::{Asked, Question, Random, Records, Terms, Told, ask};
use acteon_state_conformance::ask::{number_of, put};
use acteon_state_conformance::objects::{
    CounterOperation, CounterReply, If, RegisterOperation, RegisterReply, Write, WriteTtl,
};
use acteon_state_core::{BatchOp, BatchReply, Get, Increment, PutOutcome, Result, Scope, State, StateKey};
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::watch::Watch;

/// Before all tasks that ask shared objects there are fewer than this.
const PROCESS: u32 = 100;
/// The longest pause of a task. It keeps the number of things to look at small.
const PAUSE_MAX_MS: u64 = 12;
/// How many objects are looked at at once.
const LOOKS: usize = 100;
/// Longer than a look takes.
const VISIBILITY_NS: u64 = 60_000_000_000;

/// What all tasks share.
pub(super) struct Own {
    scope: Scope,
    watch: Watch,
    stop: Arc<AtomicBool>,
    next: AtomicU32,
    /// Each object that was written, whatever came of it, with the question that looks at it.
    written: Mutex<Vec<(StateKey, Question)>>,
}

impl Own {
    pub(super) fn new(scope: Scope, watch: Watch, stop: Arc<AtomicBool>) -> Self {
        Self { scope, watch, stop, next: AtomicU32::new(1), written: Mutex::default() }
    }

    /// Writes registers, counters and items, one at a time.
    pub(super) async fn write(self: Arc<Self>, state: State, mut random: Random) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let asked = match random.below(4) {
                0 => self.register(If::Always),
                1 => self.register(If::Absent),
                2 => self.counter(),
                _ => self.item(),
            };
            let (object, question) = (asked.object.clone(), asked.question.clone());
            // What came of it is in the history.
            let _ = self.watch.attempt(asked, ask(&state, &object, &question, &Terms::default())).await;
            pause(&mut random).await;
        }
        Ok(())
    }

    /// Writes a register and a counter in one batch, and reads the register of the batch before.
    pub(super) async fn write_batches(self: Arc<Self>, state: State, mut random: Random) -> Result<()> {
        let mut last: Option<StateKey> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let mut parts = vec![self.register(If::Always), self.counter()];
            let register = parts[0].object.clone();
            parts.extend(last.take().map(|object| asked(object, Question::Register(RegisterOperation::Get))));
            let ops = parts.iter().map(op).collect::<Result<Vec<_>>>()?;
            let call = async {
                let replies = state.store().batch(&ops).await?;
                Ok(ops.iter().zip(replies).map(|(op, reply)| told(op.key(), reply?)).collect())
            };
            if self.watch.attempt_all(parts, call).await {
                last = Some(register);
            }
            pause(&mut random).await;
        }
        Ok(())
    }

    /// Looks at everything that was written.
    ///
    /// # Panics
    /// Something cannot be looked at: by now there is no fault any more.
    pub(super) async fn look(&self, state: &State) {
        let written = std::mem::take(&mut *self.written.lock());
        for some in written.chunks(LOOKS) {
            let terms = Terms::default();
            let looks = some.iter().map(|(object, question)| {
                let call = ask(state, object, question, &terms);
                self.watch.attempt(asked(object.clone(), question.clone()), call)
            });
            for look in join_all(looks).await {
                look.unwrap();
            }
        }
    }

    fn register(&self, when: If) -> Asked {
        let write = RegisterOperation::Put(Write { value: self.number(), when, ttl: WriteTtl::Clear });
        self.object(Question::Register(write), Question::Register(RegisterOperation::Get))
    }

    fn counter(&self) -> Asked {
        let add = CounterOperation::Add { step: 1, id: self.number() };
        self.object(Question::Counter(add), Question::Counter(CounterOperation::Get))
    }

    fn item(&self) -> Asked {
        let schedule = DueQuestion::Schedule { id: "item".to_owned(), after_ns: 0 };
        let claim = DueQuestion::Claim { limit: 2, visibility_ns: VISIBILITY_NS };
        self.object(Question::Due(schedule), Question::Due(claim))
    }

    /// A new object that is asked this, and looked at by that.
    fn object(&self, question: Question, look: Question) -> Asked {
        let object = self.scope.key(&self.number().to_string()).unwrap();
        self.written.lock().push((object.clone(), look));
        asked(object, question)
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

async fn pause(random: &mut Random) {
    tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MAX_MS))).await;
}

fn asked(object: StateKey, question: Question) -> Asked {
    Asked { process: PROCESS, object, question }
}

/// The part of a batch that asks this.
fn op(asked: &Asked) -> Result<BatchOp> {
    let key = asked.object.clone();
    Ok(match asked.question {
        Question::Register(RegisterOperation::Put(write)) => BatchOp::Put(key, put(write)?),
        Question::Register(RegisterOperation::Get) => BatchOp::Get(key, Get::default()),
        Question::Counter(CounterOperation::Add { step, .. }) => BatchOp::Increment(key, Increment::by(step)),
        ref other => unreachable!("no batch asks {other:?}"),
    })
}

/// What a part of a batch was told.
fn told(key: &StateKey, reply: BatchReply) -> Result<Told> {
    let number = |entry: Option<_>| entry.map(|entry| number_of(key, &entry)).transpose();
    Ok(match reply {
        BatchReply::Put(PutOutcome::Applied(_)) => Told::Register(RegisterReply::Written),
        BatchReply::Put(PutOutcome::NotMet(current)) => Told::Register(RegisterReply::Refused(number(current)?)),
        BatchReply::Got(entry) => Told::Register(RegisterReply::Found(number(entry)?)),
        BatchReply::Incremented(outcome) => Told::Counter(CounterReply::Applied(outcome.counter().value)),
        BatchReply::Deleted(_) | BatchReply::Taken(_) => unreachable!("no batch deletes"),
    })
}
