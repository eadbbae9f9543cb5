//! Random commands of several threads, recorded and judged.
//!
//! A round is short: the checker's work grows with what overlaps, and each round begins with all threads at once. Rounds differ in
//! how many segments the keys are spread over, from a single one to as many as a server has.

use acteon_engine::SEGMENTS_DEFAULT;
use acteon_engine_tests::random::Random;
use acteon_engine_tests::reply::Reply;
use acteon_state_conformance::history::Recorder;
use acteon_state_conformance::linearizability;

use crate::plan;
use crate::store::{Action, DATABASES, KEYS, Operation, Step, Store, name};
use crate::worker::{Worker, instance, number, run};

const THREADS: usize = 4;

/// Operations of a thread in one round.
const OPERATIONS: usize = 40;

/// Histories of a test unless told otherwise.
const ROUNDS: u64 = 60;

const SEGMENTS: [usize; 3] = [1, 4, SEGMENTS_DEFAULT];

/// Texts of scripts in one round. Each is judged by its habits, so few would soon all be known to stray.
const TEXTS: usize = 6;

/// Makes an operation of a kind.
type Make = fn(&mut Random) -> Action;

const ONE_KEY: &[Make] = &[get, set, set_absent, take, add, add];
const SEVERAL_KEYS: &[Make] = &[get, add, get_many, get_many, set_many, set_many_absent, rename, copy, delete];
const ATOMIC_GROUPS: &[Make] = &[get, get_many, add, transaction, transaction, script, script, swap, set];
const WHOLE_DATABASES: &[Make] = &[
    get_many,
    get_many,
    set_many,
    add,
    move_key,
    flush_database,
    flush_all,
    swap_databases,
    transaction,
    script,
    swap,
];

#[test]
fn registers_and_counters_are_linearizable() {
    judge(ONE_KEY, &[]);
}

#[test]
fn commands_on_several_keys_are_linearizable() {
    judge(SEVERAL_KEYS, &["KEYS *", "SCAN 0", "DBSIZE"]);
}

#[test]
fn transactions_and_scripts_are_linearizable() {
    judge(ATOMIC_GROUPS, &[]);
}

#[test]
fn commands_on_whole_databases_are_linearizable() {
    judge(WHOLE_DATABASES, &["KEYS *", "RANDOMKEY"]);
}

/// Records histories of operations of these kinds, with commands in between whose replies are not judged, and checks them.
fn judge(kinds: &[Make], others: &[&str]) {
    let (seed, rounds) = plan(ROUNDS);
    for round in 0..rounds {
        let round_seed = seed.wrapping_add(round << 8);
        let instance = instance(SEGMENTS[round as usize % SEGMENTS.len()], round_seed);
        let recorder = Recorder::default();
        run(&instance, THREADS, |thread, worker| {
            let mut random = Random::new(round_seed + thread as u64);
            let database = thread % DATABASES;
            worker.line(&format!("SELECT {database}"));
            for _ in 0..OPERATIONS {
                if !others.is_empty() && random.percent(10) {
                    let other: &&str = random.pick(others);
                    worker.line(other);
                }
                let action = random.pick(kinds)(&mut random);
                perform(worker, &recorder, Operation { database, action });
            }
        });
        let calls = recorder.finish();
        assert!(calls.len() >= THREADS * OPERATIONS);
        if let Err(failure) = linearizability::check(&Store, &calls) {
            panic!("ACTEON_SEED={seed}, round {round}: {failure}");
        }
    }
}

fn perform(worker: &mut Worker, recorder: &Recorder<Operation, Reply>, operation: Operation) {
    let database = operation.database;
    match &operation.action {
        Action::Step(step) => {
            let arguments = step.arguments(database);
            recorder.record_call(operation, || worker.call(&arguments));
        }
        Action::Transaction(steps) => {
            worker.line("MULTI");
            steps.iter().for_each(|step| queue(worker, step, database));
            recorder.record_call(operation, || worker.line("EXEC"));
        }
        Action::Script { steps, text, is_declared } => {
            let arguments = script_arguments(steps, *text, *is_declared, database);
            recorder.record_call(operation, || worker.call(&arguments));
        }
        Action::Swap { key, value, .. } => {
            let (key, value) = (*key, *value);
            worker.line(&format!("WATCH {}", name(key)));
            let get = Step::Get(key);
            let arguments = get.arguments(database);
            let found =
                recorder.record_call(Operation { database, action: Action::Step(get) }, || worker.call(&arguments));
            worker.line("MULTI");
            queue(worker, &Step::Set(key, value), database);
            let action = Action::Swap { key, seen: number(&found), value };
            recorder.record_call(Operation { database, action }, || worker.line("EXEC"));
        }
    }
}

fn queue(worker: &mut Worker, step: &Step, database: usize) {
    let reply = worker.call(&step.arguments(database));
    assert!(reply.is_status("QUEUED"), "{step:?}: {reply}");
}

/// Commands as one EVAL. An undeclared script names its first key only.
fn script_arguments(steps: &[Step], text: usize, is_declared: bool, database: usize) -> Vec<String> {
    const CALL_ALL: &str = "
        local replies, at = {}, 1
        while ARGV[at] do
            local last = at + tonumber(ARGV[at])
            replies[#replies + 1] = redis.pcall(unpack(ARGV, at + 1, last))
            at = last + 1
        end
        return replies";
    let mut keys: Vec<String> = steps.iter().flat_map(Step::keys).map(name).collect();
    keys.truncate(if is_declared { usize::MAX } else { 1 });
    let mut arguments = vec!["EVAL".to_owned(), format!("-- {text}{CALL_ALL}"), keys.len().to_string()];
    arguments.extend(keys);
    for step in steps {
        let command = step.arguments(database);
        arguments.push(command.len().to_string());
        arguments.extend(command);
    }
    arguments
}

fn key(random: &mut Random) -> usize {
    random.below(KEYS)
}

/// Any value; large enough that each is written once.
fn value(random: &mut Random) -> i64 {
    random.below(1_000_000_000) as i64
}

/// Two or more different keys in any order.
fn keys(random: &mut Random) -> Vec<usize> {
    let mut keys: Vec<usize> = (0..KEYS).collect();
    random.shuffle(&mut keys);
    keys.truncate(2 + random.below(KEYS - 1));
    keys
}

fn pair(random: &mut Random) -> (usize, usize) {
    let keys = keys(random);
    (keys[0], keys[1])
}

fn get(random: &mut Random) -> Action {
    Action::Step(Step::Get(key(random)))
}

fn set(random: &mut Random) -> Action {
    Action::Step(Step::Set(key(random), value(random)))
}

fn set_absent(random: &mut Random) -> Action {
    Action::Step(Step::SetAbsent(key(random), value(random)))
}

fn take(random: &mut Random) -> Action {
    Action::Step(Step::Take(key(random)))
}

fn add(random: &mut Random) -> Action {
    Action::Step(Step::Add(key(random), 1 + random.below(3) as i64))
}

fn delete(random: &mut Random) -> Action {
    Action::Step(Step::Delete(key(random)))
}

fn get_many(random: &mut Random) -> Action {
    Action::Step(Step::GetMany(keys(random)))
}

fn set_many(random: &mut Random) -> Action {
    Action::Step(Step::SetMany(keys(random), value(random)))
}

fn set_many_absent(random: &mut Random) -> Action {
    Action::Step(Step::SetManyAbsent(keys(random), value(random)))
}

fn rename(random: &mut Random) -> Action {
    let (from, to) = pair(random);
    Action::Step(Step::Rename(from, to))
}

fn copy(random: &mut Random) -> Action {
    let (from, to) = pair(random);
    Action::Step(Step::Copy(from, to))
}

fn move_key(random: &mut Random) -> Action {
    Action::Step(Step::Move(key(random)))
}

fn flush_database(_: &mut Random) -> Action {
    Action::Step(Step::FlushDatabase)
}

fn flush_all(_: &mut Random) -> Action {
    Action::Step(Step::FlushAll)
}

fn swap_databases(_: &mut Random) -> Action {
    Action::Step(Step::Swap)
}

/// What is done to two or three keys as one.
fn group(random: &mut Random) -> Vec<Step> {
    let (from, to) = pair(random);
    let amount = 1 + random.below(9) as i64;
    match random.below(4) {
        0 => vec![Step::GetMany(keys(random)), Step::Get(from)],
        1 => vec![Step::Get(from), Step::Rename(from, to), Step::Get(to)],
        _ => vec![Step::Add(from, -amount), Step::Get(key(random)), Step::Add(to, amount)],
    }
}

fn transaction(random: &mut Random) -> Action {
    Action::Transaction(group(random))
}

fn script(random: &mut Random) -> Action {
    Action::Script { steps: group(random), text: random.below(TEXTS), is_declared: random.percent(60) }
}

fn swap(random: &mut Random) -> Action {
    Action::Swap { key: key(random), seen: None, value: value(random) }
}
