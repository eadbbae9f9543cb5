//! What is moved is never seen twice, or nowhere.

use acteon_engine::SEGMENTS_DEFAULT;
use acteon_engine_tests::random::Random;
use acteon_engine_tests::reply::Reply;

use crate::plan;
use crate::worker::{Worker, instance, number, run};

const THREADS: usize = 4;
const ACCOUNTS: usize = 5;
const BALANCE: i64 = 100;
const TRANSFERS: usize = 250;
const SEGMENTS: [usize; 2] = [2, SEGMENTS_DEFAULT];

/// Reads before it writes, and takes its keys from where they are given to it.
const TRANSFER: &str = "
    local from = KEYS[1] or ARGV[2]
    local to = KEYS[2] or ARGV[3]
    if tonumber(redis.call('GET', from)) < tonumber(ARGV[1]) then return 0 end
    redis.call('DECRBY', from, ARGV[1])
    redis.call('INCRBY', to, ARGV[1])
    return 1";

#[test]
fn no_snapshot_of_the_accounts_misses_money() {
    let (seed, rounds) = plan(4);
    for round in 0..rounds {
        let instance = instance(SEGMENTS[round as usize % SEGMENTS.len()], seed);
        let mut first = Worker::connect(&instance);
        (0..ACCOUNTS).for_each(|account| drop(first.line(&format!("SET account:{account} {BALANCE}"))));
        let transfers = run(&instance, THREADS, |thread, worker| {
            let mut random = Random::new(seed.wrapping_add(round << 8) + thread as u64);
            let mut made = 0;
            for _ in 0..TRANSFERS {
                made += transfer(worker, &mut random, thread);
                let (total, balances) = snapshot(worker, &mut random);
                assert_eq!(total, BALANCE * ACCOUNTS as i64, "ACTEON_SEED={seed}: {balances}");
            }
            made
        });
        assert!(transfers.iter().all(|made| *made > 0), "ACTEON_SEED={seed}: {transfers:?}");
    }
}

/// Moves some money by one of several ways; 1 if it was there and nobody came in between.
fn transfer(worker: &mut Worker, random: &mut Random, thread: usize) -> i64 {
    let from = random.below(ACCOUNTS);
    let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
    let (from, to, amount) = (format!("account:{from}"), format!("account:{to}"), 1 + random.below(20));
    let amount = amount.to_string();
    let declared = ["EVAL", TRANSFER, "2", &from, &to, &amount];
    // The same text strays now and then, so that what is known of it changes all the time.
    let undeclared = ["EVAL", TRANSFER, "0", &amount, &from, &to];
    match random.below(8) {
        0 => count(&worker.call(&undeclared)),
        1..4 => count(&worker.call(&declared)),
        // Transactions make the same transfer by themselves.
        _ if thread.is_multiple_of(2) => transfer_watched(worker, &from, &to, &amount),
        _ => {
            let text = format!("-- declares one of two\n{TRANSFER}");
            count(&worker.call(&["EVAL", &text, "1", &from, &amount, "", &to]))
        }
    }
}

/// The number of transfers that a script says it has made.
fn count(reply: &Reply) -> i64 {
    number(reply).unwrap_or_else(|| panic!("not a count: {reply}"))
}

fn transfer_watched(worker: &mut Worker, from: &str, to: &str, amount: &str) -> i64 {
    worker.line(&format!("WATCH {from} {to}"));
    let mut balance = |account: &str| number(&worker.line(&format!("GET {account}"))).expect("a balance");
    let (from_balance, to_balance) = (balance(from), balance(to));
    let amount: i64 = amount.parse().expect("an amount");
    if from_balance < amount {
        worker.line("UNWATCH");
        return 0;
    }
    // Sets what it has computed: a change in between would be lost, were it not watched for.
    worker.line("MULTI");
    worker.line(&format!("SET {from} {}", from_balance - amount));
    worker.line(&format!("SET {to} {}", to_balance + amount));
    i64::from(worker.line("EXEC").items().len() == 2)
}

/// The sum of all accounts, and the reply that showed it.
fn snapshot(worker: &mut Worker, random: &mut Random) -> (i64, Reply) {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|account| format!("account:{account}")).collect();
    let reply = match random.below(3) {
        0 => worker.line(&format!("MGET {}", accounts.join(" "))),
        1 => {
            let all = "local all = {} for i, key in ipairs(KEYS) do all[i] = redis.call('GET', key) end return all";
            let mut arguments = vec!["EVAL".to_owned(), all.to_owned(), ACCOUNTS.to_string()];
            arguments.extend(accounts);
            worker.call(&arguments)
        }
        _ => {
            worker.line("MULTI");
            accounts.iter().for_each(|account| drop(worker.line(&format!("GET {account}"))));
            worker.line("EXEC")
        }
    };
    (reply.items().iter().map(|balance| number(balance).expect("a balance")).sum(), reply)
}

#[test]
fn a_member_that_moves_is_in_one_set_at_every_moment() {
    const MEMBERS: usize = 8;
    let (seed, rounds) = plan(4);
    for round in 0..rounds {
        let instance = instance(SEGMENTS[round as usize % SEGMENTS.len()], seed);
        let mut first = Worker::connect(&instance);
        (0..MEMBERS).for_each(|member| drop(first.line(&format!("SADD one {member}"))));
        run(&instance, THREADS, |thread, worker| {
            let mut random = Random::new(seed.wrapping_add(round << 8) + thread as u64);
            for _ in 0..TRANSFERS {
                let (from, to) = *random.pick(&[("one", "other"), ("other", "one")]);
                worker.line(&format!("SMOVE {from} {to} {}", random.below(MEMBERS)));
                // Results of all threads go to the same keys, which are read and written by others as well.
                let (line, expected) = *random.pick(&[
                    ("SINTERSTORE both one other", 0),
                    ("SUNIONSTORE all other one", MEMBERS),
                    ("SINTERCARD 2 other one", 0),
                    ("SDIFFSTORE both one one", 0),
                    ("SCARD both", 0),
                ]);
                assert_eq!(number(&worker.line(line)), Some(expected as i64), "ACTEON_SEED={seed}: {line}");
                let union = worker.line("SUNION one other both");
                assert_eq!(union.items().len(), MEMBERS, "ACTEON_SEED={seed}: {union}");
            }
        });
    }
}
