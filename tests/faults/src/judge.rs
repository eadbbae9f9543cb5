//! Judges a history: takes it apart by objects, checks each, and says what is wrong with those that no order explains.

mod counter;
mod due;
mod lock;
mod register;
mod whole;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::{Budget, Judgement, Specification, check_within};
use acteon_state_conformance::objects::{BoundedCounter, DueItem, Lock, Loss, Register, Uncertainty};

use crate::anomaly::Anomaly;
use crate::drawing::{self, Belief, Counterexample, Role, Shown};
use crate::history::{History, Question, Told};
use crate::random::SEED_VARIABLE;
use crate::shrink::{Core, shrink};

pub use whole::whole;

/// What is right on the backend that was recorded.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By how much ends of lifetimes may be early or late.
    pub uncertainty: Uncertainty,
    /// The bounds and the window of all counters.
    pub counter: BoundedCounter,
    /// When grants of locks may be lost.
    pub losses: Vec<Loss>,
    /// Where claims pass over items that another call is just changing. `None` where a claim hands out all that is in sight.
    pub passes_over: Option<PassesOver>,
    /// How much the check of one object may remember.
    pub budget: Budget,
}

/// Why a claim may pass over an item that is in sight.
#[derive(Clone, Debug, Default)]
pub struct PassesOver {
    /// The calls that were refused, which may have kept an item to themselves for a moment, too.
    pub refused: History,
    /// Whether a claim may keep items to itself, while it lasts, that it does not take, as one that locks rows and chooses afterwards.
    pub looks_at_more: bool,
}

/// A few hundred MiB at worst.
const BUDGET_DEFAULT: Budget = Budget { configurations: 1_000_000 };

impl Default for Rules {
    fn default() -> Self {
        let (uncertainty, counter) = (Uncertainty::default(), BoundedCounter::default());
        Self { uncertainty, counter, losses: Vec::new(), passes_over: None, budget: BUDGET_DEFAULT }
    }
}

/// What came of judging a history.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Calls that were judged.
    pub calls: usize,
    /// Objects that they were about; each item of a queue is one.
    pub objects: usize,
    /// What is wrong: at most one for each object.
    pub findings: Vec<Finding>,
    /// Objects for which the budget did not suffice: neither right nor wrong.
    pub undecided: Vec<String>,
}

/// An object that did something wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What it did. Mostly one; more where the calls do not tell which of several mistakes was made.
    pub anomalies: Vec<Anomaly>,
    /// The calls that show it.
    pub counterexample: Counterexample,
}

impl Report {
    /// Whether everything is right. What is undecided is not.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.undecided.is_empty()
    }

    /// Nothing if everything is right; otherwise draws what is wrong into the folder, which is created, and says so.
    ///
    /// # Errors
    /// What is wrong, how to repeat the run, and where the drawings are.
    pub fn settle(&self, seed: u64, folder: &Path) -> Result<(), String> {
        if self.is_clean() {
            return Ok(());
        }
        let mut message =
            format!("{SEED_VARIABLE}={seed} repeats this. {} calls on {} objects:", self.calls, self.objects);
        for (number, finding) in self.findings.iter().enumerate() {
            let path = folder.join(format!("{seed}-{number}-{}.html", finding.names().replace(' ', "-")));
            let drawn = std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, drawing::html(&finding.title(), &finding.counterexample)));
            let place = match drawn {
                Ok(()) => path.display().to_string(),
                Err(error) => format!("not drawn, {}: {error}", path.display()),
            };
            let _ = write!(message, "\n{}: {place}\n{}", finding.title(), finding.counterexample);
        }
        self.undecided.iter().for_each(|object| _ = write!(message, "\n{object}: undecided within the budget"));
        Err(message)
    }
}

impl Finding {
    /// What, and where.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} of {}", self.names(), self.object)
    }

    fn names(&self) -> String {
        self.anomalies.iter().map(Anomaly::to_string).collect::<Vec<_>>().join(" or ")
    }
}

/// Judges a whole history.
#[must_use]
pub fn judge(history: &History, rules: &Rules) -> Report {
    let mut objects: BTreeMap<(String, &'static str), Vec<usize>> = BTreeMap::new();
    for (at, call) in history.iter().enumerate() {
        let object = (call.operation.object.text().to_owned(), kind(&call.operation.question));
        objects.entry(object).or_default().push(at);
    }
    let mut bench = Bench { history, rules, report: Report { calls: history.len(), ..Report::default() } };
    for ((text, kind), calls) in objects {
        bench.judge_kind(kind, &format!("{kind} {text}"), &calls);
    }
    bench.report
}

const fn kind(question: &Question) -> &'static str {
    match question {
        Question::Register(_) => "register",
        Question::Counter(_) => "counter",
        Question::Lock(_) => "lock",
        Question::Due(_) => "queue",
    }
}

/// A call on an object of a kind.
pub(crate) type CallOf<S> = Call<<S as Specification>::Operation, <S as Specification>::Reply>;

/// What is known of one kind of object beyond its specification.
pub(crate) trait Judge: Specification<Operation: Clone, Reply: Clone> {
    /// Whether the call, as it was answered, changed nothing.
    fn is_read(&self, call: &CallOf<Self>) -> bool;

    /// Whether a call tells of another by name: the value that the other wrote, the grant or claim that it got.
    fn names(&self, call: &CallOf<Self>, other: &CallOf<Self>) -> bool;

    /// Whether a call tells of something that another may have brought about, or others like it.
    fn mentions(&self, call: &CallOf<Self>, other: &CallOf<Self>) -> bool;

    /// The same object after these calls, whatever came of them; `None` if that cannot be said.
    fn after(&self, _calls: &[CallOf<Self>]) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Names what is wrong: all names that fit equally well, at least one.
    fn anomalies(&self, case: &Case<'_, Self>) -> Vec<Anomaly>;

    /// What was asked and answered, in a few words.
    fn label(&self, call: &CallOf<Self>) -> String;

    /// A state, in a few words.
    fn belief(&self, state: &Self::State) -> String;
}

/// What there is to find a name from.
pub(crate) struct Case<'a, J: Judge + ?Sized> {
    /// The calls that contradict each other, and those that they tell of, all as they were answered.
    pub(crate) cast: Vec<&'a CallOf<J>>,
    /// The call that completed the contradiction.
    pub(crate) last: &'a CallOf<J>,
    /// All calls on the object.
    pub(crate) all: &'a [CallOf<J>],
}

/// What is known of these calls at a moment: those that had begun, and what had been answered by then.
#[must_use]
pub fn known_until<O: Clone, R: Clone>(calls: &[Call<O, R>], until: u64) -> Vec<Call<O, R>> {
    let begun = calls.iter().filter(|call| call.began <= until);
    begun.map(|call| Call { reply: call.reply.clone().filter(|_| call.ended <= until), ..call.clone() }).collect()
}

struct Bench<'a> {
    history: &'a History,
    rules: &'a Rules,
    report: Report,
}

impl Bench<'_> {
    fn judge_kind(&mut self, kind: &str, name: &str, calls: &[usize]) {
        let (history, rules) = (self.history, self.rules);
        match kind {
            "register" => {
                let calls = self.select(calls, |question, told| match (question, told) {
                    (Question::Register(operation), None) => Some((*operation, None)),
                    (Question::Register(operation), Some(Told::Register(reply))) => Some((*operation, Some(*reply))),
                    _ => None,
                });
                self.judge_object(&Register { uncertainty: rules.uncertainty }, name, calls);
            }
            "counter" => {
                let calls = self.select(calls, |question, told| match (question, told) {
                    (Question::Counter(operation), None) => Some((*operation, None)),
                    (Question::Counter(operation), Some(Told::Counter(reply))) => Some((*operation, Some(*reply))),
                    _ => None,
                });
                let only: Vec<_> = calls.iter().map(|(call, _)| call.clone()).collect();
                let counter = BoundedCounter { uncertainty: rules.uncertainty, ..rules.counter.clone() };
                self.judge_object(&counter.repeated_in(&only), name, calls);
            }
            "lock" => {
                let calls = self.select(calls, |question, told| match (question, told) {
                    (Question::Lock(operation), None) => Some((*operation, None)),
                    (Question::Lock(operation), Some(Told::Lock(reply))) => Some((*operation, Some(*reply))),
                    _ => None,
                });
                let lock = Lock { uncertainty: rules.uncertainty, losses: rules.losses.clone() };
                self.judge_object(&lock, name, calls);
            }
            _ => {
                for (id, calls) in due::items(history, calls, rules.passes_over.as_ref()) {
                    let item = DueItem { uncertainty: rules.uncertainty };
                    self.judge_object(&item, &format!("{name} item {id}"), calls);
                }
            }
        }
    }

    /// The calls of an object, each with its place in the history.
    fn select<O, R>(
        &self,
        calls: &[usize],
        parts: impl Fn(&Question, Option<&Told>) -> Option<(O, Option<R>)>,
    ) -> Vec<(Call<O, R>, usize)> {
        let call = |at: &usize| {
            let call = &self.history[*at];
            let (operation, reply) = parts(&call.operation.question, call.reply.as_ref())
                .expect("the answer of an object is of the kind of the question");
            (Call { operation, reply, began: call.began, ended: call.ended }, *at)
        };
        calls.iter().map(call).collect()
    }

    fn judge_object<J: Judge>(&mut self, judge: &J, name: &str, calls: Vec<(CallOf<J>, usize)>) {
        self.report.objects += 1;
        let (calls, places): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        if is_explained_by_what_was_seen(judge, &calls, self.rules.budget) {
            return;
        }
        match check_within(judge, &calls, self.rules.budget) {
            Judgement::Linearizable => {}
            Judgement::Undecided => self.report.undecided.push(name.to_owned()),
            Judgement::NotLinearizable(failure) => {
                let last = failure.stuck.first().map_or(0, |line| line.call);
                let core = shrink(judge, &calls).unwrap_or_else(|| Core {
                    judge: None,
                    origins: (0..calls.len()).collect(),
                    calls: calls.clone(),
                    last,
                    left_out: 0,
                    failure,
                });
                let cast = core.origins.iter().map(|at| &calls[*at]).collect();
                let anomalies = judge.anomalies(&Case { cast, last: &calls[core.last], all: &calls });
                let process = |at: usize| self.history[places[core.origins[at]]].operation.process;
                let counterexample = show(core.judge.as_ref().unwrap_or(judge), &core, &calls, process);
                self.report.findings.push(Finding { object: name.to_owned(), anomalies, counterexample });
            }
        }
    }
}

/// Whether a history is explained without those calls that may have happened and that nobody tells of: a search that is much
/// shorter, and mostly enough.
fn is_explained_by_what_was_seen<J: Judge>(judge: &J, calls: &[CallOf<J>], budget: Budget) -> bool {
    let is_seen = |call: &&CallOf<J>| {
        !call.is_maybe() || calls.iter().any(|other| !other.is_maybe() && judge.mentions(other, call))
    };
    let seen: Vec<_> = calls.iter().filter(is_seen).cloned().collect();
    check_within(judge, &seen, budget) == Judgement::Linearizable
}

/// What is shown of a core of these calls. Those that only may have happened are labelled with what they were answered, too.
fn show<J: Judge>(judge: &J, core: &Core<J>, all: &[CallOf<J>], process: impl Fn(usize) -> u32) -> Counterexample {
    let stuck: Vec<usize> = core.failure.stuck.iter().map(|line| line.call).collect();
    let shown = |(at, call): (usize, &CallOf<J>)| {
        let role = match call {
            _ if stuck.contains(&at) => Role::Violating,
            call if call.is_maybe() => Role::Maybe,
            _ => Role::Certain,
        };
        let label = judge.label(&all[core.origins[at]]);
        Shown { process: process(at), label, began: call.began, ended: call.ended, role }
    };
    let mut state = judge.start();
    let mut beliefs = vec![Belief { call: None, state: judge.belief(&state) }];
    for line in &core.failure.explained {
        state = judge.step(&state, &core.calls[line.call]).expect("the checker explained it by this very step");
        beliefs.push(Belief { call: Some(line.call), state: judge.belief(&state) });
    }
    let calls = core.calls.iter().enumerate().map(shown).collect();
    Counterexample { calls, beliefs, left_out: core.left_out }
}

/// A moment of a recorder, in ms.
pub(crate) fn duration_label(ns: u64) -> String {
    format!("{}ms", ns / 1_000_000)
}
