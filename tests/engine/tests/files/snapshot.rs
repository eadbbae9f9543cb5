//! RDB files.

use std::env;
use std::fs;

use acteon_engine::import::Importer;
use acteon_engine::rdb::Unsupported;
use acteon_engine_tests::command::Command;
use acteon_engine_tests::endpoint::{Client, Endpoint};
use acteon_engine_tests::families::families;
use acteon_engine_tests::keyspace::contents;
use acteon_engine_tests::random::Random;
use acteon_engine_tests::reply::Reply;
use acteon_engine_tests::sequence::{reset, run};

use crate::data::data_set;
use crate::{DUMP_FILE, Ours, Redis, assert_same, options, tell};

/// Commands in one sequence of a family.
const SEQUENCE_COMMANDS: usize = 200;

/// Sequences of each family, unless `ACTEON_FILES_ROUNDS` says otherwise.
const ROUNDS: usize = 4;

/// Families whose commands leave no data, or change what others rely on.
const WITHOUT_DATA: &[&str] = &["pubsub", "server"];

fn rounds() -> usize {
    env::var("ACTEON_FILES_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"))
}

/// Saves, loads the file on both sides, and compares.
fn check_redis_file(redis: &mut Redis, about: &str) -> usize {
    redis.save();
    redis.reload();
    let (mut ours, report) = Ours::load(&redis.folder().join(DUMP_FILE));
    let dump = &report.dumps[0];
    assert_eq!((dump.version, dump.streams, dump.module_values), (10, 0, 0));
    assert_same(redis, &mut ours.endpoint, true, about)
}

/// Writes a file here, loads it on both sides, and compares: both with each other, and with what was written.
fn check_our_file(ours: &mut Ours, redis: &mut Redis, about: &str) {
    let file = redis.folder().join(DUMP_FILE);
    fs::write(&file, ours.file()).unwrap();
    redis.reload();
    let (mut again, report) = Ours::load(&file);
    assert!(report.dumps[0].is_checked);
    assert_same(redis, &mut again.endpoint, true, about);
    let (before, after) = (contents(&mut ours.endpoint).unwrap(), contents(&mut again.endpoint).unwrap());
    let names = |contents: &[(Command, _)]| contents.iter().map(|(command, _)| command.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "{about}");
}

#[test]
fn file_of_redis_loads_with_identical_contents_whatever_its_settings() {
    let settings: &[&[&str]] = &[
        &[],
        &["rdbcompression no", "rdbchecksum no"],
        // Nothing is packed.
        &[
            "hash-max-listpack-entries 0",
            "zset-max-listpack-entries 0",
            "set-max-intset-entries 0",
            "list-max-listpack-size 1",
        ],
        // Everything is.
        &[
            "hash-max-listpack-entries 100000",
            "zset-max-listpack-entries 100000",
            "hash-max-listpack-value 100000",
            "zset-max-listpack-value 100000",
            "set-max-intset-entries 100000",
            "list-max-listpack-size -5",
        ],
        &["list-compress-depth 1"],
        &["maxmemory 1gb", "maxmemory-policy allkeys-lru"],
        &["maxmemory 1gb", "maxmemory-policy allkeys-lfu"],
    ];
    for settings in settings {
        let mut redis = Redis::start(settings, false);
        // Large elements of lists become nodes of their own.
        tell(&mut redis, &[Command::words("DEBUG QUICKLIST-PACKED-THRESHOLD 5000b")]);
        tell(&mut redis, &data_set());
        redis.save();
        let (mut ours, report) = Ours::load(&redis.folder().join(DUMP_FILE));
        assert_eq!(report.dumps[0].is_checked, !settings.contains(&"rdbchecksum no"));
        redis.reload();
        let compared = assert_same(&mut redis, &mut ours.endpoint, true, &format!("{settings:?}"));
        assert!(compared > 600, "{compared}");
    }
}

#[test]
fn whatever_commands_leave_in_redis_is_loaded_here() {
    let mut redis = Redis::start(&[], false);
    let mut random = Random::new(1);
    for family in families().iter().filter(|family| !WITHOUT_DATA.contains(&family.name)) {
        for round in 0..rounds() {
            reset(&mut redis).unwrap();
            run(&mut redis, &family.sequence(&mut random, SEQUENCE_COMMANDS));
            check_redis_file(&mut redis, &format!("{}, round {round}", family.name));
        }
    }
}

#[test]
fn file_written_here_is_loaded_by_redis_with_identical_contents() {
    let mut redis = Redis::start(&[], false);
    let mut ours = Ours::new();
    tell(&mut ours.endpoint, &data_set());
    check_our_file(&mut ours, &mut redis, "the data set");

    let mut random = Random::new(2);
    for family in families().iter().filter(|family| !WITHOUT_DATA.contains(&family.name)) {
        for round in 0..rounds() {
            let mut ours = Ours::new();
            run(&mut ours.endpoint, &family.sequence(&mut random, SEQUENCE_COMMANDS));
            check_our_file(&mut ours, &mut redis, &format!("{}, round {round}", family.name));
        }
    }
}

#[test]
fn file_written_here_is_what_redis_starts_with() {
    let mut redis = Redis::start(&[], false);
    redis.0.kill9().unwrap();
    let mut ours = Ours::new();
    tell(&mut ours.endpoint, &data_set());
    fs::write(redis.folder().join(DUMP_FILE), ours.file()).unwrap();
    redis.0.restart().unwrap_or_else(|error| panic!("{error}"));
    let (mut again, _) = Ours::load(&redis.folder().join(DUMP_FILE));
    assert_same(&mut redis, &mut again.endpoint, true, "after a restart");
}

#[test]
fn streams_are_refused_by_name_or_skipped_and_functions_are_noted() {
    let mut redis = Redis::start(&[], false);
    let mut commands: Vec<Command> = [
        "SET before 1",
        "XADD stream 1-1 a b",
        "XADD stream 2-1 a c d e",
        "XADD stream 2-2 a c",
        "XDEL stream 2-1",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group ada COUNT 1 STREAMS stream >",
        "XREADGROUP GROUP group bob COUNT 1 STREAMS stream >",
        "XGROUP CREATE stream another $",
        "XGROUP CREATE empty group 0 MKSTREAM",
        "SET behind 2 EX 1000",
    ]
    .map(Command::words)
    .into();
    commands.extend((0..1_000).map(|number| Command::words(&format!("XADD long * field-{number} value"))));
    let library = "#!lua name=lib\nredis.register_function('one', function() return 1 end)";
    commands.push(Command::new(["FUNCTION", "LOAD", library].map(|word| word.as_bytes().to_vec()).into()));
    tell(&mut redis, &commands);
    redis.save();
    let file = fs::read(redis.folder().join(DUMP_FILE)).unwrap();

    let mut ours = Ours::new();
    let error = Importer::new(&ours.instance, options(Unsupported::Refuse)).rdb("dump.rdb", &*file).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("dump.rdb: byte ") && text.contains("of database 0: a stream cannot be held here"),
        "{text}"
    );

    let mut importer = Importer::new(&ours.instance, options(Unsupported::Skip));
    importer.rdb("dump.rdb", &*file).unwrap_or_else(|error| panic!("{error}"));
    let report = importer.finish();
    assert_eq!((report.dumps[0].streams, report.dumps[0].function_libraries, report.dumps[0].keys), (3, 1, 2));
    tell(&mut redis, &["DEL stream", "DEL long", "DEL empty"].map(Command::words));
    assert_same(&mut redis, &mut ours.endpoint, true, "without streams");
}

#[test]
fn keys_that_expired_since_the_file_was_written_are_left_out_and_counted() {
    let mut redis = Redis::start(&[], false);
    tell(&mut redis, &["SET stays 1 PX 100000", "SET goes 1 PX 50000"].map(Command::words));
    redis.save();
    let file = fs::read(redis.folder().join(DUMP_FILE)).unwrap();
    let ours = Ours::new();
    let mut later = options(Unsupported::Refuse);
    later.now_ms += 75_000;
    let mut importer = Importer::new(&ours.instance, later);
    importer.rdb("dump.rdb", &*file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((importer.finish().expired, ours.engine.len()), (1, 1));
}

/// Strings whose uses differ: by seconds since the last one, or by how many there were.
fn keys_with_uses(endpoint: &mut dyn Endpoint, option: &str) {
    let mut client = Client::connect(endpoint).unwrap();
    client.call(&Command::words("SET model value")).unwrap();
    let Reply::Blob(_, payload) = client.call(&Command::words("DUMP model")).unwrap() else {
        panic!("there is a value")
    };
    for amount in USES {
        let words = [
            &b"RESTORE"[..],
            format!("k{amount}").as_bytes(),
            b"0",
            &payload,
            option.as_bytes(),
            amount.to_string().as_bytes(),
        ]
        .map(<[u8]>::to_vec);
        let reply = client.call(&Command::new(words.into())).unwrap();
        assert!(!reply.is_error(), "{reply}");
    }
}

fn assert_uses(endpoint: &mut dyn Endpoint, subcommand: &str, slack: i64, about: &str) {
    let mut client = Client::connect(endpoint).unwrap();
    for amount in USES {
        let reply = client.call(&Command::words(&format!("OBJECT {subcommand} k{amount}"))).unwrap();
        let found: i64 = match &reply {
            Reply::Line(b':', digits) => std::str::from_utf8(digits).unwrap().parse().unwrap(),
            _ => panic!("{about}: {reply}"),
        };
        assert!((amount..=amount + slack).contains(&found), "{about}: {found} instead of {amount}");
    }
}

const USES: [i64; 4] = [0, 20, 77, 255];

#[test]
fn uses_of_keys_travel_both_ways_under_the_policies_that_go_by_them() {
    // Seconds that may pass meanwhile on a machine that stands still.
    const SLOW_S: i64 = 5_000;
    for (policy, option, subcommand, slack) in
        [("allkeys-lru", "IDLETIME", "IDLETIME", SLOW_S), ("volatile-lfu", "FREQ", "FREQ", 0)]
    {
        let settings = [format!("CONFIG SET maxmemory-policy {policy}"), "CONFIG SET lfu-decay-time 0".to_owned()];
        let settings: Vec<_> = settings.iter().map(|line| Command::words(line)).collect();
        let mut redis = Redis::start(&[], false);
        tell(&mut redis, &settings);
        keys_with_uses(&mut redis, option);
        redis.save();
        let mut ours = Ours::new();
        tell(&mut ours.endpoint, &settings);
        let file = fs::read(redis.folder().join(DUMP_FILE)).unwrap();
        let mut importer = Importer::new(&ours.instance, options(Unsupported::Refuse));
        importer.rdb(DUMP_FILE, &*file).unwrap_or_else(|error| panic!("{error}"));
        assert_uses(&mut ours.endpoint, subcommand, slack, "from Redis");

        let mut ours = Ours::new();
        tell(&mut ours.endpoint, &settings);
        keys_with_uses(&mut ours.endpoint, option);
        fs::write(redis.folder().join(DUMP_FILE), ours.file()).unwrap();
        redis.reload();
        assert_uses(&mut redis, subcommand, slack, "to Redis");
    }
}
