//! The journal is cut at every byte of its last records: the server starts with everything before, and says what it has left out.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::thread;

use acteon_engine_tests::random::Random;
use acteon_engine_tests::reply::Reply;
use acteon_test_support::{EngineOptions, EngineServer, verify_engine_dir};

use crate::load::Sent;
use crate::model::{Change, Keys};
use crate::seen::{Seen, connect, now_ms};
use crate::steps::{Chooser, Form, Step, prefix};

/// What is written before the records that are cut.
const STEPS_BEFORE: usize = 60;
/// The only journal: nothing is rewritten.
const JOURNAL: &str = "journal.1";
/// How many cuts are tried at a time.
const THREADS: usize = 2;
/// What may follow a whole record in a file whose length was kept by a crash, and whose end was not.
const ZEROS: usize = 600;

/// A directory, and where its last records end.
struct Written {
    /// What was there before these records.
    base: Keys,
    /// The steps that made them.
    sent: Vec<Sent>,
    /// The length of the journal before the first of them, and after each.
    ends: Vec<u64>,
}

fn options(dir: &Path) -> EngineOptions {
    let settings = ["fsync = \"always\"", "rewrite_min = \"1GiB\""].map(str::to_owned).into();
    EngineOptions { dir: Some(dir.to_owned()), settings, ..EngineOptions::default() }
}

/// Each of them changes something, and all in different ways.
fn last_steps() -> Vec<Step> {
    let key = |kind: &str| format!("{}last:{kind}", prefix(0));
    let text = |text: &str| text.as_bytes().to_vec();
    let several = |mark: &str| {
        vec![
            Change::Set(key("text"), text(mark)),
            Change::PushBack(key("list"), text(mark)),
            Change::PutField(key("hash"), text(mark), text(mark)),
            Change::Score(key("sorted"), text(mark), 7),
        ]
    };
    vec![
        Step { form: Form::Transaction, changes: several("transaction") },
        Step { form: Form::Single, changes: vec![Change::SetFor(key("later"), text("for hours"), 36_000)] },
        Step { form: Form::Script, changes: several("script") },
        Step { form: Form::Single, changes: vec![Change::Remove(key("text"))] },
    ]
}

/// Writes step by step, each acknowledged before the next, and notes how long the journal is.
fn write(dir: &Path) -> Written {
    let mut server = EngineServer::start(options(dir)).unwrap_or_else(|error| panic!("{error}"));
    let mut client = connect(&server.url(), 0).unwrap();
    let (mut chooser, mut keys) = (Chooser::new(Random::new(1), 0, 0), Keys::new());
    let mut say = |step: Step, keys: &mut Keys| {
        let from_ms = now_ms();
        let mut bytes = Vec::new();
        step.encode(&mut bytes);
        client.send(&bytes).unwrap();
        let replies: Vec<Reply> = (0..step.reply_count()).map(|_| client.receive().unwrap()).collect();
        let sent = Sent::done(step, from_ms, now_ms());
        assert!(sent.step.apply(keys, sent.span()).fit(&replies), "{:?}: {replies:?}", sent.step);
        sent
    };
    for _ in 0..STEPS_BEFORE {
        say(chooser.next(now_ms()), &mut keys);
    }
    let length = || fs::metadata(dir.join(JOURNAL)).unwrap().len();
    let (base, mut ends, mut sent) = (keys.clone(), vec![length()], Vec::new());
    for step in last_steps() {
        sent.push(say(step, &mut keys));
        ends.push(length());
    }
    assert!(ends.is_sorted_by(|one, next| one < next), "each step is a record: {ends:?}");
    server.kill9().unwrap();
    Written { base, sent, ends }
}

impl Written {
    /// Cuts a copy of the directory, and looks at what is made of it.
    fn check_cut(&self, dir: &Path, length: u64, zeros: usize) {
        let copy = tempfile::tempdir().unwrap();
        for name in ["manifest", JOURNAL] {
            fs::copy(dir.join(name), copy.path().join(name)).unwrap();
        }
        let journal = OpenOptions::new().write(true).open(copy.path().join(JOURNAL)).unwrap();
        journal.set_len(length).unwrap();
        journal.set_len(length + zeros as u64).unwrap();
        let whole = self.ends.iter().filter(|end| **end <= length).count() - 1;
        let (offset, dropped) = (self.ends[whole], length + zeros as u64 - self.ends[whole]);
        self.check_verified(copy.path(), offset, dropped);
        self.check_started(copy.path(), whole, offset, dropped);
    }

    fn check_verified(&self, dir: &Path, offset: u64, dropped: u64) {
        let (is_sound, said) = verify_engine_dir(dir).unwrap();
        let report = format!("{JOURNAL}, byte {offset}: the last {dropped} bytes are left out");
        assert!(is_sound && said.contains(&report) == (dropped > 0), "byte {offset}, {dropped} more: {said}");
    }

    fn check_started(&self, dir: &Path, whole: usize, offset: u64, dropped: u64) {
        let server =
            EngineServer::start(options(dir)).unwrap_or_else(|error| panic!("{offset}, {dropped} more: {error}"));
        let log = server.log();
        let is_reported = log.contains(&format!("offset={offset} bytes={dropped} "));
        assert!(is_reported == (dropped > 0) && !log.contains("ERROR"), "byte {offset}, {dropped} more: {log}");
        let seen = Seen::look(&server.url(), 0).unwrap();
        let there = seen.explained_by(&prefix(0), &mut self.base.clone(), &self.sent);
        assert_eq!(there, Ok(whole..=whole), "byte {offset}, {dropped} more");
    }
}

#[test]
fn journal_that_is_cut_anywhere_keeps_its_whole_records_and_the_rest_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let written = write(&dir);
    let (first, last) = (written.ends[0], written.ends[written.ends.len() - 1]);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (written, dir) = (&written, &dir);
            scope.spawn(move || {
                for length in (first..=last).skip(thread).step_by(THREADS) {
                    written.check_cut(dir, length, 0);
                    if written.ends.contains(&length) {
                        written.check_cut(dir, length, ZEROS);
                    }
                }
            });
        }
    });
    println!("{} cuts of {} records", last - first + 1, written.sent.len());
}
