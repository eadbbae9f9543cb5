//! What is recorded, against what has happened: random commands of many clients on an instance with a log, whose groups are applied to
//! another engine one by one. After each step both must hold the same.

mod lab;
mod words;

use std::collections::BTreeSet;

use super::Op;
use super::op::Ops;
use crate::command;
use crate::command::Flags;
use crate::rdb::{self, FileFacts, FileWriter, ReadOptions, Reader};
use crate::{Engine, EngineConfig, Expiry};
pub(crate) use lab::{Lab, Memory, Tester, dump};
pub(crate) use words::Words;

/// Runs that differ in their seed.
const SEEDS: u64 = 24;

/// As many runs as the environment wants.
fn seeds() -> u64 {
    std::env::var("ACTEON_CHANGE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"))
}

/// Steps of a run.
const STEPS: usize = 500;

#[test]
fn applied_changes_lead_to_the_state_of_the_instance_after_every_group() {
    for seed in 0..seeds() {
        let mut lab = Lab::new(seed);
        for _ in 0..STEPS {
            lab.step();
        }
    }
}

/// Deadlines are recorded and removals by them are not, so what has expired for one clock may be changed by another: whoever follows has no
/// clock at all, and must find each change to fit nevertheless.
#[test]
fn changes_fit_whatever_clocks_they_were_made_by_and_whenever_they_are_applied() {
    for seed in 0..seeds() {
        let mut lab = Lab::new(2_000 + seed);
        lab.let_clocks_differ();
        for step in 0..STEPS {
            lab.step();
            if step % 50 == 49 {
                lab.follow_from_snapshot();
            }
        }
    }
}

/// A command of the table that nobody has ever seen recording changes data in secret, or is not part of the random commands.
#[test]
fn every_command_that_writes_has_been_seen_to_record() {
    let writes = || {
        let rows = command::all().filter(|command| command.row.flags.has(Flags::WRITE)).map(|command| command.row.name);
        rows.collect::<BTreeSet<_>>()
    };
    let mut missing = writes();
    missing.insert("pfcount");
    let count = missing.len();
    assert!(count > 80, "{count}");
    for seed in 0.. {
        let mut lab = Lab::new(1_000 + seed);
        for _ in 0..STEPS {
            let before = lab.groups();
            if let Some(name) = lab.single_command() {
                lab.check(&name);
                if lab.groups() > before {
                    missing.remove(name.to_lowercase().as_str());
                }
            }
        }
        if missing.is_empty() {
            return;
        }
        assert!(seed < 100, "after {} commands these have recorded nothing: {missing:?}", (seed + 1) as usize * STEPS);
    }
}

/// And the other way round: nothing is recorded of a command that leaves everything as it was.
#[test]
fn commands_that_change_nothing_record_nothing() {
    let mut lab = Lab::new(7);
    for line in ["SET s 1", "RPUSH l a b", "HSET h f v", "SADD e m 1", "ZADD z 1 m", "PEXPIRE s 100000", "PFADD p a"] {
        lab.execute(0, line);
    }
    lab.execute(0, "PFCOUNT p");
    let before = lab.groups();
    for line in [
        "GET s",
        "SET s 2 NX",
        "SETNX s 2",
        "DEL absent",
        "UNLINK absent",
        "EXPIRE absent 10",
        "PERSIST l",
        "LREM l 0 x",
        "LINSERT l BEFORE x y",
        "LPUSHX absent x",
        "LTRIM l 0 -1",
        "LTRIM absent 0 0",
        "LPOP absent",
        "HDEL h x",
        "HSETNX h f w",
        "SADD e m",
        "SREM e x",
        "SMOVE e absent x",
        "SPOP absent",
        "ZADD z 1 m",
        "ZADD z NX 5 m",
        "ZADD absent XX 1 m",
        "ZREM z x",
        "ZREMRANGEBYSCORE z 5 6",
        "ZPOPMIN absent",
        "RENAME absent x",
        "COPY absent x",
        "MOVE absent 1",
        "SINTERSTORE x e absent",
        "PFADD p a",
        "PFCOUNT p",
        "GETEX s",
        "GETDEL absent",
        "RPOPLPUSH absent l",
        "SETRANGE s 3 ",
        "SORT l ALPHA",
        "EXISTS s",
        "HSET s f v",
        "ZADD l 1 m",
        "ZADD nan nan m",
        "INCR l",
        "BITFIELD s GET u8 0",
        "MULTI",
        "GET s",
        "EXEC",
        "OBJECT ENCODING s",
        "EVAL return(redis.call('GET','s')) 0",
        "TOUCH s",
        "SCAN 0",
        "RANDOMKEY",
        "HINCRBYFLOAT h f x",
    ] {
        let reply = lab.execute(0, line);
        assert_eq!(lab.groups(), before, "{line} -> {reply}");
    }
}

#[test]
fn transaction_script_and_update_of_many_keys_are_one_group_each() {
    let mut lab = Lab::new(3);
    for lines in [
        &[
            "MULTI",
            "SET a 1",
            "FLUSHDB",
            "SET b 1",
            "SELECT 1",
            "RPUSH c x",
            "SWAPDB 0 1",
            "SET d 1",
            "FLUSHALL",
            "SET e 1",
            "EXEC",
        ][..],
        &[
            "EVAL redis.call('SET','a','1')redis.call('SET','b','1')redis.call('FLUSHALL')return(redis.call('SET','c','1')) 0",
        ],
        &["MSET a 1 b 2 c 3 d 4 e 5"],
        &["RPOPLPUSH a b"],
    ] {
        lab.log.forget();
        lines.iter().for_each(|line| drop(lab.execute(0, line)));
        lab.check("");
    }
    lab.engine.update_many(&[b"a", b"b", b"c", b"d"], lab.now_ms(), |slots| {
        for position in 0..4 {
            slots.slot(position).set_str(&[b"x"], Expiry::Clear).expect("no bound is configured");
        }
    });
    assert_eq!(lab.check(""), 1);
}

/// SETBIT far behind the end of a string would otherwise write megabytes to a disk.
#[test]
fn change_of_a_long_string_costs_what_it_changes() {
    let mut lab = Lab::new(4);
    let mut cost_bytes = |line: &str| {
        lab.log.forget();
        lab.execute(0, line);
        let bytes: usize = lab.log.groups().iter().map(Vec::len).sum();
        lab.check(line);
        bytes
    };
    for line in ["SETBIT s 80000000 1", "SETBIT s 7 1", "SETRANGE s 12000000 tail", "SETRANGE s 5 xyz", "APPEND s more"]
    {
        let bytes = cost_bytes(line);
        assert!((1..50).contains(&bytes), "{line} takes {bytes}");
    }
    for line in ["RENAME s t", "MOVE t 1"] {
        let bytes = cost_bytes(line);
        assert!((1..30).contains(&bytes), "{line} takes {bytes}");
    }
    cost_bytes("SELECT 1");
    let bytes =
        cost_bytes("BITFIELD t SET u8 0 5 INCRBY i64 90000001 77 SET u1 96000001 1 OVERFLOW FAIL INCRBY u2 6 9");
    assert!((1..80).contains(&bytes), "{bytes}");
}

/// What had expired was still there for a log, which keeps deadlines and not removals: nothing of it may shine through.
#[test]
fn key_that_follows_an_expired_one_has_nothing_of_it() {
    for first in ["SET k long-value", "HSET k a 1 b 2", "ZADD k 1 a 2 b", "RPUSH k a b", "SADD k a b"] {
        for second in [
            "SET k v",
            "SETBIT k 3 1",
            "SETRANGE k 2 x",
            "APPEND k x",
            "INCR k",
            "HSET k c 3",
            "ZADD k 3 c",
            "RPUSH k c",
            "SADD k c",
            "PFADD k x",
            "SUNIONSTORE k other",
            "RENAME other k",
            "COPY other k",
            "BITFIELD k SET u8 0 1",
        ] {
            let mut lab = Lab::new(5);
            lab.execute(0, "SADD other x");
            lab.execute(0, first);
            lab.execute(0, "PEXPIRE k 5");
            lab.advance(6);
            lab.execute(0, second);
            lab.check(&format!("{first}, {second}"));
            assert!(dump(&lab.engine, lab.now_ms()).contains_key("0 k"), "{first}, {second}");
        }
    }
}

#[test]
fn nothing_is_written_while_the_log_cannot_keep_it_and_everything_is_read() {
    const REFUSED: &str = "-MISCONF Errors writing to the AOF file: No space left on device\r\n";
    let mut lab = Lab::new(6);
    lab.execute(0, "SET k v");
    lab.execute(0, "PFADD p a");
    let before = lab.groups();
    lab.log.set_writable(false);
    for line in ["SET k w", "DEL k", "FLUSHALL", "SWAPDB 0 1", "BLPOP l 0", "EXPIRE k 5", "GETDEL k"] {
        assert_eq!(lab.execute(0, line), REFUSED, "{line}");
    }
    assert_eq!(lab.execute(0, "GET k"), "$1\r\nv\r\n");
    assert_eq!(lab.execute(0, "PFCOUNT p"), ":1\r\n");
    assert_eq!(lab.execute(0, "EVAL return(redis.call('GET','k')) 0"), "$1\r\nv\r\n");
    let reply = lab.execute(0, "EVAL return(redis.call('SET','k','w')) 0");
    assert!(reply.starts_with("-MISCONF Errors writing to the AOF file: No space left on device"), "{reply}");
    // A transaction that was queued before does nothing, not even its first half.
    lab.log.set_writable(true);
    for line in ["MULTI", "GET k", "SET k w"] {
        lab.execute(0, line);
    }
    lab.log.set_writable(false);
    let reply = lab.execute(0, "EXEC");
    assert!(reply.starts_with("-EXECABORT Transaction discarded because of: MISCONF"), "{reply}");
    for (line, reply) in [("MULTI", "+OK\r\n"), ("GET k", "+QUEUED\r\n"), ("EXEC", "*1\r\n$1\r\nv\r\n")] {
        assert_eq!(lab.execute(0, line), reply);
    }
    assert_eq!(lab.engine.check_writable(), Err(crate::EngineError::NotWritable));
    assert_eq!(lab.groups(), before);
    lab.log.set_writable(true);
    assert_eq!(lab.execute(0, "SET k w"), "+OK\r\n");
    lab.check("");
}

/// A disk falls behind by what others write, at any moment: a script that had written was cut off there once, and its first half was kept as if
/// it were the whole.
#[test]
fn script_and_transaction_are_refused_as_a_whole_or_carried_out_to_their_end_when_the_log_fills_up_meanwhile() {
    const SCRIPT: &str = "EVAL redis.call('GET','a')redis.call('SET','a','1')redis.call('RPUSH','b','1')return(redis.call('SET','c','1')) 0";
    let transaction = ["MULTI", "SET d 1", SCRIPT, "EXEC"];
    let after_reading = ["MULTI", "GET a", SCRIPT, "SET d 1", "EXEC"];
    for (lines, keys) in [(&[SCRIPT][..], 3), (&transaction, 4), (&after_reading, 4)] {
        let mut outcomes = BTreeSet::new();
        for asked in 0..12 {
            let mut lab = Lab::new(9);
            let (last, before) = lines.split_last().expect("there are lines");
            before.iter().for_each(|line| drop(lab.execute(0, line)));
            lab.log.fill_after(asked);
            let reply = lab.execute(0, last);
            let (found, refused) = (dump(&lab.engine, lab.now_ms()).len(), reply.contains("MISCONF"));
            assert_eq!(found, if refused { 0 } else { keys }, "full when asked {asked} times: {reply}");
            assert_eq!(lab.groups(), usize::from(!refused), "{reply}");
            outcomes.insert(refused);
        }
        assert_eq!(outcomes.len(), 2, "both happen: {lines:?}");
    }
}

/// Changes that do not fit are refused where they do not, and what came before them stays.
#[test]
fn group_that_was_lost_is_noticed_by_those_that_build_on_it() {
    let mut lab = Lab::new(8);
    for line in [
        "RPUSH l a",
        "RPOP l",
        "SADD e m",
        "SREM e m",
        "HSET h f v",
        "HDEL h f",
        "ZADD z 1 m",
        "ZREM z m",
        "SET s v",
        "APPEND s x",
    ] {
        lab.execute(0, line);
    }
    for lost in lab.log.groups().chunks(2) {
        let engine = Engine::new(EngineConfig::default());
        let error = engine.apply(&lost[1]).expect_err("the group before it is missing");
        assert!(
            error.to_string().starts_with("change 0 of a group, at its byte 0: it does not fit the key"),
            "{error}"
        );
    }
    let mut changes: Vec<_> = lab
        .log
        .groups()
        .iter()
        .flat_map(|group| {
            Ops::new(group).map(|change| change.map(|change| format!("{:?}", change.op))).collect::<Vec<_>>()
        })
        .collect();
    changes.retain(|change| change.as_ref().is_ok_and(|op| *op == format!("{:?}", Op::Remove)));
    assert_eq!(changes.len(), 4, "what a collection loses last, it goes with");
}

/// The pieces of a snapshot, loaded into another engine.
pub(crate) fn restored(pieces: impl Iterator<Item = Vec<u8>>) -> Engine {
    let mut file = Vec::new();
    let mut writer = FileWriter::begin(&FileFacts::default(), &mut file);
    for piece in pieces {
        writer.add(&piece);
        file.extend_from_slice(&piece);
    }
    file.extend_from_slice(&writer.end());
    let engine = Engine::new(EngineConfig { segments: 8, ..EngineConfig::default() });
    load(&engine, &file);
    engine
}

/// Loads a file that was written just now.
pub(crate) fn load(engine: &Engine, file: &[u8]) {
    let options = ReadOptions { unsupported: rdb::Unsupported::default(), limits: crate::Limits::default() };
    let mut reader = Reader::open(file, options).expect("it was written just now");
    while let Some(record) = reader.next_record().expect("it was written just now") {
        assert!(engine.load(record));
    }
}
