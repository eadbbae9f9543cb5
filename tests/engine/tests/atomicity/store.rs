//! What two databases of numbers do, command by command: the specification for the checker.
//!
//! Deliberately dull: a state is an array, an operation is carried out by copying it, and its reply is compared with the recorded one.

use acteon_engine_tests::reply::Reply;
use acteon_state_conformance::history::Call;
use acteon_state_conformance::linearizability::Specification;

/// Keys per database. Few, so that threads meet.
pub(crate) const KEYS: usize = 4;

/// Databases.
pub(crate) const DATABASES: usize = 2;

/// The reply to a command of a script, if another script that waits for this one holds the key. Only undeclared keys are refused.
const KEYS_TAKEN: &str =
    "TRYAGAIN the script has not declared a key, which another script holds that waits for this one";

/// One command. Keys are numbers.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Get(usize),
    Set(usize, i64),
    SetAbsent(usize, i64),
    Take(usize),
    Add(usize, i64),
    Delete(usize),
    GetMany(Vec<usize>),
    SetMany(Vec<usize>, i64),
    SetManyAbsent(Vec<usize>, i64),
    Rename(usize, usize),
    Copy(usize, usize),
    Move(usize),
    FlushDatabase,
    FlushAll,
    Swap,
}

/// What is recorded as one call, in a database.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// One command.
    Step(Step),
    /// MULTI, the commands, EXEC.
    Transaction(Vec<Step>),
    /// EVAL of the commands.
    Script { steps: Vec<Step>, text: usize, is_declared: bool },
    /// EXEC of a transaction that sets a key, which was watched before it was seen to hold this.
    Swap { key: usize, seen: Option<i64>, value: i64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) database: usize,
    pub(crate) action: Action,
}

/// The values of all keys.
pub(crate) type State = [[Option<i64>; KEYS]; DATABASES];

/// The specification.
pub(crate) struct Store;

impl Specification for Store {
    type Operation = Operation;
    type Reply = Reply;
    type State = State;

    fn start(&self) -> State {
        State::default()
    }

    fn step(&self, state: &State, call: &Call<Operation, Reply>) -> Option<State> {
        let (operation, reply) = (&call.operation, call.reply.as_ref()?);
        let (database, mut after) = (operation.database, *state);
        let is_right = match &operation.action {
            Action::Step(step) => step.apply(&mut after, database) == *reply,
            Action::Transaction(steps) => explains(steps, &mut after, database, reply, false),
            Action::Script { steps, is_declared, .. } => explains(steps, &mut after, database, reply, !is_declared),
            // Whoever watches may be told of a change that was taken back, so a refusal is always right.
            Action::Swap { .. } if *reply == Reply::Missing(b'*') => true,
            Action::Swap { key, seen, value } => {
                let is_unchanged = state[database][*key] == *seen;
                let set = Step::Set(*key, *value).apply(&mut after, database);
                is_unchanged && *reply == Reply::Many(b'*', vec![set])
            }
        };
        is_right.then_some(after)
    }
}

/// Whether the commands, one after the other, answer this; the state is the one after them. Where keys `may_be_taken`, commands
/// may have been refused, which has changed nothing.
fn explains(steps: &[Step], state: &mut State, database: usize, reply: &Reply, may_be_taken: bool) -> bool {
    let replies = reply.items();
    let is_taken = |reply: &Reply| may_be_taken && *reply == error(KEYS_TAKEN);
    replies.len() == steps.len()
        && steps.iter().zip(replies).all(|(step, reply)| is_taken(reply) || step.apply(state, database) == *reply)
}

impl Step {
    /// The command as it is sent.
    pub(crate) fn arguments(&self, database: usize) -> Vec<String> {
        let other = (database + 1) % DATABASES;
        let line = match self {
            Self::Get(key) => format!("GET {}", name(*key)),
            Self::Set(key, value) => format!("SET {} {value}", name(*key)),
            Self::SetAbsent(key, value) => format!("SETNX {} {value}", name(*key)),
            Self::Take(key) => format!("GETDEL {}", name(*key)),
            Self::Add(key, 1) => format!("INCR {}", name(*key)),
            Self::Add(key, step) => format!("INCRBY {} {step}", name(*key)),
            Self::Delete(key) => format!("DEL {}", name(*key)),
            Self::GetMany(keys) => keys.iter().fold("MGET".to_owned(), |line, key| format!("{line} {}", name(*key))),
            Self::SetMany(keys, value) => pairs("MSET", keys, *value),
            Self::SetManyAbsent(keys, value) => pairs("MSETNX", keys, *value),
            Self::Rename(from, to) => format!("RENAME {} {}", name(*from), name(*to)),
            Self::Copy(from, to) => format!("COPY {} {} REPLACE", name(*from), name(*to)),
            Self::Move(key) => format!("MOVE {} {other}", name(*key)),
            Self::FlushDatabase => "FLUSHDB".to_owned(),
            Self::FlushAll => "FLUSHALL".to_owned(),
            Self::Swap => format!("SWAPDB {database} {other}"),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    /// The keys that it names.
    pub(crate) fn keys(&self) -> Vec<usize> {
        match self {
            Self::Get(key) | Self::Set(key, _) | Self::SetAbsent(key, _) | Self::Take(key) => vec![*key],
            Self::Add(key, _) | Self::Delete(key) | Self::Move(key) => vec![*key],
            Self::GetMany(keys) | Self::SetMany(keys, _) | Self::SetManyAbsent(keys, _) => keys.clone(),
            Self::Rename(from, to) | Self::Copy(from, to) => vec![*from, *to],
            Self::FlushDatabase | Self::FlushAll | Self::Swap => Vec::new(),
        }
    }

    /// Changes the state; the reply.
    fn apply(&self, state: &mut State, database: usize) -> Reply {
        let other = (database + 1) % DATABASES;
        let values = &mut state[database];
        match self {
            Self::Get(key) => bulk(values[*key]),
            Self::Set(key, value) => {
                values[*key] = Some(*value);
                ok()
            }
            Self::SetAbsent(key, value) => set_absent(values, &[*key], *value),
            Self::SetManyAbsent(keys, value) => set_absent(values, keys, *value),
            Self::Take(key) => bulk(values[*key].take()),
            Self::Add(key, step) => integer(*values[*key].insert(values[*key].unwrap_or(0) + step)),
            Self::Delete(key) => integer(values[*key].take().is_some().into()),
            Self::GetMany(keys) => Reply::Many(b'*', keys.iter().map(|key| bulk(values[*key])).collect()),
            Self::SetMany(keys, value) => {
                keys.iter().for_each(|key| values[*key] = Some(*value));
                ok()
            }
            Self::Rename(from, to) => match values[*from].take() {
                Some(value) => {
                    values[*to] = Some(value);
                    ok()
                }
                None => error("ERR no such key"),
            },
            Self::Copy(from, to) => {
                values[*to] = values[*from].or(values[*to]);
                integer(values[*from].is_some().into())
            }
            Self::Move(key) => {
                let moves = state[database][*key].is_some() && state[other][*key].is_none();
                if moves {
                    state[other][*key] = state[database][*key].take();
                }
                integer(moves.into())
            }
            Self::FlushDatabase => {
                *values = [None; KEYS];
                ok()
            }
            Self::FlushAll => {
                *state = State::default();
                ok()
            }
            Self::Swap => {
                state.swap(database, other);
                ok()
            }
        }
    }
}

/// How a key is called.
pub(crate) fn name(key: usize) -> String {
    format!("key:{key}")
}

fn pairs(command: &str, keys: &[usize], value: i64) -> String {
    keys.iter().fold(command.to_owned(), |line, key| format!("{line} {} {value}", name(*key)))
}

fn set_absent(values: &mut [Option<i64>; KEYS], keys: &[usize], value: i64) -> Reply {
    let are_absent = keys.iter().all(|key| values[*key].is_none());
    if are_absent {
        keys.iter().for_each(|key| values[*key] = Some(value));
    }
    integer(are_absent.into())
}

fn ok() -> Reply {
    Reply::Line(b'+', b"OK".to_vec())
}

fn error(text: &str) -> Reply {
    Reply::Line(b'-', text.into())
}

fn integer(number: i64) -> Reply {
    Reply::Line(b':', number.to_string().into())
}

fn bulk(value: Option<i64>) -> Reply {
    value.map_or(Reply::Missing(b'$'), |value| Reply::Blob(b'$', value.to_string().into()))
}

/// That the judge tells right from wrong.
mod tests {
    use acteon_state_conformance::linearizability::check;

    use super::{Action, Call, Operation, Reply, Step, Store, bulk, integer, ok};

    fn is_explained(calls: &[(u64, u64, Action, Reply)]) -> bool {
        let call = |(began, ended, action, reply): &(u64, u64, Action, Reply)| Call {
            operation: Operation { database: 0, action: action.clone() },
            reply: Some(reply.clone()),
            began: *began,
            ended: *ended,
        };
        check(&Store, &calls.iter().map(call).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn a_torn_snapshot_is_refused() {
        let read = |values: [Option<i64>; 2]| {
            let set = (0, 3, Action::Step(Step::SetMany(vec![0, 1], 7)), ok());
            let get = Action::Step(Step::GetMany(vec![0, 1]));
            is_explained(&[set, (1, 2, get, Reply::Many(b'*', values.map(bulk).into()))])
        };
        assert!(read([None, None]) && read([Some(7), Some(7)]));
        assert!(!read([Some(7), None]) && !read([None, Some(7)]));
    }

    #[test]
    fn a_transaction_that_others_look_into_is_refused() {
        let transfer = Action::Transaction(vec![Step::Add(0, -5), Step::Add(1, 5)]);
        let replies = Reply::Many(b'*', vec![integer(-5), integer(5)]);
        let read = |first, second| {
            is_explained(&[
                (0, 5, transfer.clone(), replies.clone()),
                (1, 2, Action::Step(Step::Get(0)), bulk(first)),
                (3, 4, Action::Step(Step::Get(1)), bulk(second)),
            ])
        };
        assert!(read(None, None) && read(Some(-5), Some(5)) && read(None, Some(5)));
        assert!(!read(Some(-5), None));
    }

    #[test]
    fn a_swap_over_a_change_is_refused() {
        let swap = Action::Swap { key: 0, seen: None, value: 2 };
        let made = Reply::Many(b'*', vec![ok()]);
        let set = (0, 1, Action::Step(Step::Set(0, 1)), ok());
        assert!(!is_explained(&[set.clone(), (2, 3, swap.clone(), made)]));
        assert!(is_explained(&[set, (2, 3, swap, Reply::Missing(b'*'))]));
    }
}
