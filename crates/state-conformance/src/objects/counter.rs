//! A counter with bounds and a window.

use serde::{Deserialize, Serialize};

use crate::history::Call;
use crate::linearizability::Specification;
use crate::objects::lifetime::{Lifetime, Uncertainty};

/// A counter that begins at 0, also after its window.
#[derive(Clone, Debug, Default)]
pub struct BoundedCounter {
    /// Falling steps that would lead below this are refused.
    pub min: Option<i64>,
    /// Rising steps that would lead above this are refused.
    pub max: Option<i64>,
    /// The counter ends this long after it was created, in ns.
    pub window_ns: Option<u64>,
    /// What the window may differ by.
    pub uncertainty: Uncertainty,
    /// What it may be at the beginning, ascending; empty for a counter that nobody has used.
    pub starts: Vec<i64>,
    /// Operations that were sent more than once, of which each counts once. See [`BoundedCounter::repeated_in`].
    pub repeated: Vec<u32>,
}

/// What a counter can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CounterOperation {
    /// Read.
    Get,
    /// Add.
    Add {
        /// How much.
        step: i64,
        /// Names the operation: the same again is a repetition.
        id: u32,
    },
}

/// What a counter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CounterReply {
    /// To `Get`: the counter.
    Found(Option<i64>),
    /// The step was made; the counter afterwards. To a repetition: the counter as it is.
    Applied(i64),
    /// The step was refused; the counter.
    Refused(i64),
}

/// What a counter may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count {
    /// Its value, if it was created.
    pub value: Option<i64>,
    /// When it begins anew.
    pub life: Lifetime,
    /// Repeated operations that were applied, ascending.
    pub applied: Vec<u32>,
}

impl BoundedCounter {
    /// A counter that does not rise above this.
    #[must_use]
    pub fn at_most(max: i64) -> Self {
        Self { max: Some(max), ..Self::default() }
    }

    /// The same counter, told which operations of a history are repetitions.
    #[must_use]
    pub fn repeated_in(mut self, calls: &[Call<CounterOperation, CounterReply>]) -> Self {
        let id = |call: &Call<CounterOperation, _>| match call.operation {
            CounterOperation::Add { id, .. } => Some(id),
            CounterOperation::Get => None,
        };
        let mut ids: Vec<u32> = calls.iter().filter_map(id).collect();
        ids.sort_unstable();
        self.repeated = ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        self.repeated.dedup();
        self
    }

    fn is_allowed(&self, step: i64, after: i64) -> bool {
        match step {
            1.. => self.max.is_none_or(|max| after <= max),
            0 => true,
            ..0 => self.min.is_none_or(|min| after >= min),
        }
    }

    fn apply(&self, found: &Count, call: &Call<CounterOperation, CounterReply>) -> (Count, CounterReply) {
        let CounterOperation::Add { step, id } = call.operation else {
            return (found.clone(), CounterReply::Found(found.value));
        };
        let before = found.value.unwrap_or(0);
        if found.applied.contains(&id) {
            return (found.clone(), CounterReply::Applied(before));
        }
        let after = before.saturating_add(step);
        if !self.is_allowed(step, after) {
            return (found.clone(), CounterReply::Refused(before));
        }
        let mut count = Count { value: Some(after), ..found.clone() };
        if let (None, Some(window_ns)) = (found.value, self.window_ns) {
            count.life = Lifetime::after(call, window_ns, self.uncertainty);
        }
        if self.repeated.contains(&id) {
            count.applied.push(id);
            count.applied.sort_unstable();
        }
        (count, CounterReply::Applied(after))
    }
}

impl Specification for BoundedCounter {
    type Operation = CounterOperation;
    type Reply = CounterReply;
    /// What it may be: more than one possibility while its window may or may not be over. Ascending.
    type State = Vec<Count>;

    fn start(&self) -> Self::State {
        let count = |value| Count { value, life: Lifetime::FOREVER, applied: Vec::new() };
        if self.starts.is_empty() { vec![count(None)] } else { self.starts.iter().map(|at| count(Some(*at))).collect() }
    }

    fn step(&self, state: &Self::State, call: &Call<CounterOperation, CounterReply>) -> Option<Self::State> {
        let mut after = Vec::with_capacity(state.len());
        for found in state.iter().flat_map(|count| possibilities(count, call)) {
            let (left, reply) = self.apply(&found, call);
            if call.reply.map_or(left != found, |told| told == reply) {
                after.push(left);
            }
        }
        after.sort_unstable();
        after.dedup();
        (!after.is_empty()).then_some(after)
    }

    fn are_alike(&self, one: &CounterOperation, other: &CounterOperation) -> bool {
        use CounterOperation::Add;
        match (one, other) {
            (Add { step, id }, Add { step: other_step, id: other_id }) => {
                let is_single = |id| !self.repeated.contains(id);
                step == other_step && (id == other_id || is_single(id) && is_single(other_id))
            }
            (one, other) => one == other,
        }
    }
}

/// What a call may find where the counter is this.
fn possibilities(count: &Count, call: &Call<CounterOperation, CounterReply>) -> impl Iterator<Item = Count> {
    let lasting = count.life.may_last(call).then(|| count.clone());
    let anew = || Count { value: None, life: Lifetime::FOREVER, applied: count.applied.clone() };
    lasting.into_iter().chain(count.life.may_be_over(call).then(anew))
}
