//! The commands about a directory, where they are given the wrong one, a damaged one, or one of a Redis.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Finished, Process, folder, run_in};

const TOML: &str = "[engine]\nlisten = \"127.0.0.1:0\"\ndir = \"data\"\nfsync = \"always\"\n";

/// A folder with `data`, as an engine has left it.
fn with_data() -> TempDir {
    let folder = folder(TOML);
    let mut process = Process::start_in(folder.path(), &["engine"]);
    process.wait_for_log("the engine listens for Redis clients");
    process.signal(Signal::TERM);
    assert!(process.wait().success(), "{}", process.log());
    folder
}

fn tool(folder: &TempDir, arguments: &str) -> Finished {
    let arguments: Vec<&str> = ["engine"].into_iter().chain(arguments.split(' ')).collect();
    run_in(folder.path(), &arguments, &[])
}

fn succeeds(folder: &TempDir, arguments: &str) -> String {
    let finished = tool(folder, arguments);
    assert_eq!(finished.code, Some(0), "{arguments}: {}{}", finished.stdout, finished.stderr);
    finished.stdout
}

fn fails(folder: &TempDir, arguments: &str) -> String {
    let finished = tool(folder, arguments);
    assert_eq!(finished.code, Some(1), "{arguments}: {}{}", finished.stdout, finished.stderr);
    finished.stderr
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("there");
    entries.map(|entry| entry.expect("there").file_name().into_string().expect("text")).collect()
}

/// The commands of a Redis, as its append-only files have them.
fn commands(lines: &[&str]) -> String {
    let command = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let words_written: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        format!("*{}\r\n{words_written}", words.len())
    };
    lines.iter().map(command).collect()
}

/// The directory of a Redis 7 with append-only files: a base and what came after it.
fn redis(folder: &TempDir, later: &[&str]) {
    let logs = folder.path().join("redis/appendonlydir");
    fs::create_dir_all(&logs).expect("writable");
    let manifest =
        "file appendonly.aof.1.base.aof seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n".to_owned();
    for (name, text) in [
        ("appendonly.aof.manifest", manifest),
        ("appendonly.aof.1.base.aof", commands(&["SELECT 0", "SET a 1"])),
        ("appendonly.aof.1.incr.aof", commands(later)),
    ] {
        fs::write(logs.join(name), text).expect("writable");
    }
}

/// Its dump was taken, without a word, and what the journal had after it was lost.
#[test]
fn import_of_an_engines_own_directory_is_refused_with_what_to_do() {
    let folder = with_data();
    fs::write(folder.path().join("data/dump.rdb"), "REDIS0010").expect("writable");
    let refused = fails(&folder, "import data --into imported");
    for part in ["directory of an engine", "newer than its dump.rdb", "[engine] dir = \"data\"", "backup data"] {
        assert!(refused.contains(part), "{part} is not in: {refused}");
    }
    assert!(!folder.path().join("imported").exists());
    fs::remove_file(folder.path().join("data/manifest")).expect("there");
    assert!(fails(&folder, "import data --into imported").contains("directory of an engine"));
}

/// An empty place was "sound, up to group 0", and could be restored.
#[test]
fn directory_that_is_not_of_an_engine_is_refused_and_left_as_it_was() {
    let folder = folder(TOML);
    for name in ["empty", "foreign"] {
        fs::create_dir(folder.path().join(name)).expect("writable");
    }
    fs::write(folder.path().join("foreign/notes.txt"), "text").expect("writable");
    for name in ["empty", "foreign"] {
        for arguments in ["verify @", "verify @ --repair", "restore @ --into new", "export @ --to new.rdb"] {
            let refused = fails(&folder, &arguments.replace('@', name));
            assert!(refused.contains("neither a manifest nor a dump.rdb"), "{arguments}: {refused}");
        }
    }
    assert_eq!(names(&folder.path().join("empty")), Vec::<String>::new());
    assert_eq!(names(&folder.path().join("foreign")), ["notes.txt"]);
    assert!(!folder.path().join("new").exists() && !folder.path().join("new.rdb").exists());
}

#[test]
fn backup_that_was_not_finished_is_not_restored() {
    let folder = with_data();
    succeeds(&folder, "backup data --to backup");
    fs::remove_file(folder.path().join("backup/manifest")).expect("there");
    let refused = fails(&folder, "restore backup --into restored");
    assert!(refused.contains("it was not finished"), "{refused}");
    assert!(!folder.path().join("restored").exists());
}

#[test]
fn backup_goes_to_a_new_place_only_and_says_what_is_wrong_with_another_one() {
    let folder = with_data();
    fs::create_dir(folder.path().join("full")).expect("writable");
    fs::write(folder.path().join("full/notes.txt"), "text").expect("writable");
    let refused = fails(&folder, "backup data --to full");
    assert!(refused.contains("is not empty: choose a new one"), "{refused}");
    assert_eq!(names(&folder.path().join("full")), ["notes.txt"]);
    let refused = fails(&folder, "backup data --to full/notes.txt");
    assert!(refused.contains("cannot create the directory full/notes.txt: not a directory"), "{refused}");
    assert!(!refused.contains("manifest"), "{refused}");
}

#[test]
fn what_cannot_be_mended_is_not_offered_to_be() {
    let folder = with_data();
    fs::write(folder.path().join("data/dump.rdb"), "REDIS0010").expect("writable");
    // One that plays no part keeps nothing from being used.
    let said = succeeds(&folder, "verify data");
    assert!(said.contains("dump.rdb: ") && said.contains("does not keep the directory from being used"), "{said}");
    succeeds(&folder, "export data --to out.rdb");
    succeeds(&folder, "restore data --into restored");

    // A base of the wrong length.
    succeeds(&folder, "import out.rdb --into imported");
    let toml = TOML.replace("\"data\"", "\"imported\"");
    fs::write(folder.path().join("acteon.toml"), toml).expect("writable");
    let mut process = Process::start_in(folder.path(), &["engine"]);
    process.wait_for_log("the engine listens for Redis clients");
    process.signal(Signal::TERM);
    process.wait();
    fs::write(folder.path().join("imported/base.1.rdb"), "REDIS0010").expect("there");
    for arguments in ["verify imported", "verify imported --repair"] {
        let refused = fails(&folder, arguments);
        assert!(refused.contains("restore a backup"), "{refused}");
        assert!(!refused.contains("run this with --repair") && !refused.contains("nothing was changed"), "{refused}");
    }
    let refused = run_in(folder.path(), &["engine"], &[]);
    assert!(refused.stderr.contains("engine.dir") && refused.stderr.contains("restore a backup"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("--repair keeps"), "{}", refused.stderr);
}

#[test]
fn append_only_directory_of_a_redis_is_taken_over() {
    let folder = folder(&TOML.replace("\"data\"", "\"imported\""));
    redis(&folder, &["SELECT 1", "SET b 2", "RPUSH list x y", "SELECT 0", "DEL a", "SET c 3"]);
    let said = succeeds(&folder, "import redis --into imported");
    assert!(said.contains("8 commands carried out"), "{said}");
    // The keys of all databases are counted: it was those of the first one.
    let mut process = Process::start_in(folder.path(), &["engine"]);
    let line = process.wait_for_log("the data of the engine are loaded");
    assert!(line.contains("keys=3"), "{line}");
}

#[test]
fn leaving_out_is_offered_where_something_was_found_that_the_engine_has_not() {
    let folder = folder(TOML);
    redis(&folder, &["XADD stream * field value"]);
    let refused = fails(&folder, "import redis --into imported");
    assert!(refused.contains("XADD") && refused.contains("--skip-unsupported"), "{refused}");
    let said = succeeds(&folder, "import redis --into imported --skip-unsupported");
    assert!(said.contains("skipped 1 times: XADD"), "{said}");
    fs::write(folder.path().join("no.rdb"), "REDIS0010\u{fe}").expect("writable");
    for arguments in ["import no.rdb --into other", "import missing.rdb --into other", "import . --into other"] {
        let refused = fails(&folder, arguments);
        assert!(!refused.contains("--skip-unsupported"), "{arguments}: {refused}");
    }
    // A dump of a Redis in place of a directory, whose newer files lie beside it.
    fs::write(folder.path().join("redis/dump.rdb"), "REDIS0009\u{fe}").expect("writable");
    let refused = fails(&folder, "restore redis --into other");
    assert!(refused.contains("append-only files of a Redis") && refused.contains("engine import"), "{refused}");
}

#[test]
fn what_is_wrong_with_the_directory_is_said_of_the_key_that_names_it() {
    let folder = folder(TOML);
    fs::write(folder.path().join("data"), "a file").expect("writable");
    for arguments in [&["check"][..], &["engine"], &[]] {
        let refused = run_in(folder.path(), arguments, &[]);
        assert_eq!(refused.code, Some(1), "{arguments:?}");
        let expected = "acteon.toml:3: engine.dir: data cannot be used: not a directory";
        assert!(refused.stderr.contains(expected), "{arguments:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("state.backend"), "{}", refused.stderr);
    }
    fs::remove_file(folder.path().join("data")).expect("there");
    let mut process = Process::start_in(folder.path(), &["engine"]);
    process.wait_for_log("the engine listens for Redis clients");
    let refused = run_in(folder.path(), &["engine"], &[]);
    assert!(refused.stderr.contains("acteon.toml:3: engine.dir: data cannot be used: process"), "{}", refused.stderr);
    assert!(refused.stderr.contains("uses the directory"), "{}", refused.stderr);
}

/// It said that everything was in order, whatever lay there.
#[test]
fn check_says_that_the_directory_was_not_looked_at_and_what_does_it() {
    let folder = folder(TOML);
    let check = || {
        let finished = run_in(folder.path(), &["check"], &[]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    assert!(check().contains("is not there: a start creates it"));
    assert!(!folder.path().join("data").exists(), "a check creates nothing");
    fs::create_dir(folder.path().join("data")).expect("writable");
    fs::write(folder.path().join("data/manifest"), "acteon").expect("writable");
    let said = check();
    for part in ["`acteon-server engine verify data`", "except that what data holds was not looked at"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

#[test]
fn configuration_that_no_command_about_a_directory_reads_is_refused() {
    let folder = with_data();
    let refused = run_in(folder.path(), &["-c", "missing.toml", "engine", "verify", "data"], &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("read no configuration"), "{}", refused.stderr);
}
