//! Append-only files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use acteon_engine::import::{Files, ImportError, ImportReport, Importer, Manifest};
use acteon_engine::rdb::Unsupported;
use acteon_engine_tests::command::Command;
use acteon_engine_tests::endpoint::Client;
use acteon_engine_tests::families::families;
use acteon_engine_tests::random::Random;
use acteon_engine_tests::sequence::run;

use crate::data::data_set;
use crate::{Ours, Redis, assert_same, options, tell};

/// Commands of each family.
const SEQUENCE_COMMANDS: usize = 300;

/// How long a rewrite may take.
const REWRITE_TIMEOUT: Duration = Duration::from_secs(30);

struct Folder(PathBuf);

impl Files for Folder {
    fn open(&self, name: &str) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(Box::new(BufReader::new(File::open(self.0.join(name))?)))
    }
}

fn import_folder(ours: &Ours, folder: &Path, unsupported: Unsupported) -> Result<ImportReport, ImportError> {
    let manifest = fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap();
    let manifest = Manifest::parse(&manifest).unwrap_or_else(|error| panic!("{error}"));
    let mut importer = Importer::new(&ours.instance, options(unsupported));
    importer.append_only_directory(&manifest, &Folder(folder.to_owned()))?;
    Ok(importer.finish())
}

fn rewrite(redis: &mut Redis) {
    tell(redis, &[Command::words("BGREWRITEAOF")]);
    let begin = Instant::now();
    let is_running = |redis: &Redis| {
        let is = |field, value| redis.0.info(field).unwrap().as_deref() == Some(value);
        is("aof_rewrite_in_progress", "1") || is("aof_rewrite_scheduled", "1")
    };
    while is_running(redis) {
        assert!(begin.elapsed() < REWRITE_TIMEOUT, "{}", redis.0.log_tail());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn append_only_directory_of_redis_loads_with_identical_contents() {
    for settings in [&["aof-use-rdb-preamble yes"][..], &["aof-use-rdb-preamble no", "aof-timestamp-enabled yes"]] {
        let mut redis = Redis::start(settings, true);
        let mut random = Random::new(3);
        tell(&mut redis, &data_set());
        for (number, family) in families().iter().filter(|family| family.name != "server").enumerate() {
            let mut commands = family.sequence(&mut random, SEQUENCE_COMMANDS);
            // No file says at which sizes encodings changed.
            commands.retain(|command| command.name() != "CONFIG");
            run(&mut redis, &commands);
            if number == 5 {
                rewrite(&mut redis);
            }
        }
        tell(&mut redis, &["MULTI", "SET a 1", "SELECT 1", "SET b 2", "EXEC"].map(Command::words));
        tell(&mut redis, &[Command::words("DEBUG LOADAOF")]);
        let mut ours = Ours::new();
        let report = import_folder(&ours, &redis.folder().join("appendonlydir"), Unsupported::Refuse);
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.torn, None);
        assert!(report.commands > 300, "{report:?}");
        assert_eq!(report.dumps.len(), usize::from(settings[0].ends_with("yes")));
        assert_eq!(report.last_timestamp_s.is_some(), settings.len() == 2);
        assert_same(&mut redis, &mut ours.endpoint, true, &format!("{settings:?}"));
    }
}

#[test]
fn file_cut_anywhere_loads_its_whole_commands_and_says_what_is_left() {
    let mut redis = Redis::start(&[], true);
    let folder = redis.folder().join("appendonlydir");
    let last = folder.join("appendonly.aof.1.incr.aof");
    let mut ends = Vec::new();
    let mut client = Client::connect(&mut redis).unwrap();
    let groups: &[&[&str]] = &[&["SET a 1"], &["RPUSH l a b"], &["MULTI", "SET b 2", "DEL a", "EXEC"], &["APPEND b 3"]];
    for group in groups {
        for line in *group {
            client.call(&Command::words(line)).unwrap();
        }
        ends.push(fs::metadata(&last).unwrap().len());
    }
    let whole = fs::read(&last).unwrap();
    for len in 0..=whole.len() {
        fs::write(&last, &whole[..len]).unwrap();
        let ours = Ours::new();
        let report =
            import_folder(&ours, &folder, Unsupported::Refuse).unwrap_or_else(|error| panic!("{len}: {error}"));
        // The first one comes with the selection of its database; a transaction counts as the two in it.
        let counts = [(0, 0), (ends[0], 2), (ends[1], 3), (ends[2], 5), (ends[3], 6)];
        let (end, commands) = *counts.iter().rfind(|(end, _)| *end <= len as u64).unwrap();
        let is_first_cut = end == 0 && report.commands == 1;
        assert!(report.commands == commands || is_first_cut, "{len}: {report:?}");
        match report.torn {
            None => assert!(end == len as u64 || is_first_cut, "{len}: nothing was left out"),
            Some(torn) => {
                assert_eq!(torn.offset + torn.bytes, len as u64);
                assert!(torn.offset >= end && torn.file == "appendonly.aof.1.incr.aof");
            }
        }
    }
    // Damage in the middle is not an end.
    let mut damaged = whole.clone();
    damaged[ends[0] as usize] = b'+';
    fs::write(&last, damaged).unwrap();
    let error = import_folder(&Ours::new(), &folder, Unsupported::Refuse).unwrap_err().to_string();
    assert!(error.contains(&format!("byte {}: no command begins here", ends[0])), "{error}");
    // Nor is one in a file that is not the last.
    fs::write(&last, &whole[..whole.len() - 1]).unwrap();
    fs::write(folder.join("more"), &whole).unwrap();
    let manifest = folder.join("appendonly.aof.manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, format!("{text}file more seq 2 type i\n")).unwrap();
    let error = import_folder(&Ours::new(), &folder, Unsupported::Refuse).unwrap_err().to_string();
    assert!(error.contains("although it is not the last one"), "{error}");
}

#[test]
fn key_that_has_expired_since_is_there_for_the_command_that_kept_it() {
    let mut redis = Redis::start(&[], true);
    let folder = redis.folder().join("appendonlydir");
    let lines = [
        "SELECT 2",
        "SET kept v PXAT 1000",
        "PERSIST kept",
        "SET gone v PXAT 1000",
        "RPUSH list a",
        "PEXPIREAT list 1000",
        "RENAME list other",
        "PEXPIREAT other 4102444800000",
    ];
    let mut commands = Vec::new();
    lines.iter().for_each(|line| Command::words(line).encode(&mut commands));
    fs::write(folder.join("appendonly.aof.1.incr.aof"), &commands).unwrap();
    redis.0.restart().unwrap_or_else(|error| panic!("{error}"));
    let mut ours = Ours::new();
    import_folder(&ours, &folder, Unsupported::Refuse).unwrap_or_else(|error| panic!("{error}"));
    assert_same(&mut redis, &mut ours.endpoint, true, "from increments");

    // The same where the keys are in the dump that a file of an older Redis begins with.
    let earlier = Ours::new();
    let mut importer = Importer::new(&earlier.instance, options(Unsupported::Refuse));
    let mut before = Vec::new();
    ["SELECT 2", "SET kept v PXAT 1000", "RPUSH other a", "PEXPIREAT other 1000"]
        .iter()
        .for_each(|line| Command::words(line).encode(&mut before));
    importer.append_only_file("before", &*before).unwrap_or_else(|error| panic!("{error}"));
    let mut file = earlier.file();
    ["SELECT 2", "PERSIST kept", "PEXPIREAT other 4102444800000"]
        .iter()
        .for_each(|line| Command::words(line).encode(&mut file));
    let mut ours = Ours::new();
    let mut importer = Importer::new(&ours.instance, options(Unsupported::Refuse));
    importer.append_only_file("appendonly.aof", &*file).unwrap_or_else(|error| panic!("{error}"));
    let report = importer.finish();
    assert_eq!((report.dumps.len(), report.commands, report.expired), (1, 3, 0));
    assert_same(&mut redis, &mut ours.endpoint, true, "from a dump with commands behind it");
}

#[test]
fn commands_that_are_not_known_here_are_named_or_counted() {
    let mut redis = Redis::start(&[], true);
    let lines = ["SET a 1", "XADD s 1-1 a b", "XADD s 1-2 a b", "RENAME s t", "SET b 2"];
    tell(&mut redis, &lines.map(Command::words));
    let folder = redis.folder().join("appendonlydir");
    let error = import_folder(&Ours::new(), &folder, Unsupported::Refuse).unwrap_err().to_string();
    assert!(error.contains("XADD is no command that changes data here"), "{error}");
    let mut ours = Ours::new();
    let report = import_folder(&ours, &folder, Unsupported::Skip).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.unknown_commands.into_iter().collect::<Vec<_>>(), [("XADD".to_owned(), 2)]);
    assert_eq!((report.refused_commands, report.commands), (1, 3));
    assert!(report.first_refusal.is_some_and(|refusal| refusal.ends_with("RENAME: ERR no such key")));
    tell(&mut redis, &[Command::words("DEL t")]);
    assert_same(&mut redis, &mut ours.endpoint, true, "without streams");
}

#[test]
fn file_cannot_make_the_instance_do_anything_but_hold_data() {
    for line in ["CONFIG SET maxmemory 1", "SHUTDOWN", "BLPOP nothing 0", "SUBSCRIBE a", "MONITOR"] {
        let mut file = Vec::new();
        Command::words(line).encode(&mut file);
        let ours = Ours::new();
        let mut importer = Importer::new(&ours.instance, options(Unsupported::Refuse));
        let error = importer.append_only_file("a", &*file).unwrap_err().to_string();
        assert!(error.contains("is no command that changes data here"), "{error}");
    }
}
