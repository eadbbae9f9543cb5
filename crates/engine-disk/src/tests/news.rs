//! What the log says while a disk fails, line by line. It said nothing: that writes were refused was seen by those who were refused, and by nobody else.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::lab::{History, Lab, PATIENCE, config, until};
use super::named::Named;
use crate::config::{DiskConfig, Fsync};
use crate::simulation::{Directory, Faults};

/// What all tests of this process have logged, by the directory that it is about: there is one log in a process, and tests run beside each other.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).expect("nobody else does");
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<HashMap<String, Vec<String>>>>);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line).trim().to_owned();
        if let Some(dir) = text.split("dir=").nth(1).and_then(|rest| rest.split(' ').next()) {
            self.0.lock().entry(dir.to_owned()).or_default().push(text.clone());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// An engine with a disk, and what the log says of it.
struct Told {
    lab: Lab,
    directory: Directory,
    name: &'static str,
}

impl Told {
    /// Each test has a name of its own.
    fn open(name: &'static str, config: DiskConfig) -> Self {
        LazyLock::force(&LOG);
        let directory = Directory::new(1);
        let storage = Named::new(&directory, name);
        let lab = Lab::open_in(Arc::new(storage), config, &History::default()).expect("new");
        Self { lab, directory, name }
    }

    fn fail(&self, faults: Faults) {
        self.directory.set_faults(faults);
    }

    /// Waits for a line, and says how many there are with this text.
    fn count(&self, text: &str) -> usize {
        let lines = || LOG.0.lock().get(self.name).cloned().unwrap_or_default();
        let count = || lines().iter().filter(|line| line.contains(text)).count();
        until(text, || count() > 0);
        count()
    }

    /// All that was said.
    fn lines(&self) -> Vec<String> {
        LOG.0.lock().get(self.name).cloned().unwrap_or_default()
    }
}

#[test]
fn refusal_by_a_full_disk_and_its_end_are_said_once_each_however_many_attempts_fail() {
    let told = Told::open("full", config(Fsync::Always));
    told.fail(Faults { bytes_max: Some(told.directory.bytes()), ..Faults::default() });
    told.lab.set("a", "text");
    until("some attempts", || told.lab.disk.statistics().write_failures > 5);
    for _ in 0..100 {
        assert!(told.lab.engine.check_writable().is_err());
        told.lab.disk.tick(1);
    }
    assert_eq!(told.count("WRITES ARE REFUSED"), 1);
    assert!(
        told.lines()[0].contains("ERROR") && told.lines()[0].contains("No space left on device"),
        "{:?}",
        told.lines()
    );
    told.fail(Faults::default());
    assert_eq!(told.count("writes are taken again"), 1);
    assert!(told.lines()[1].contains("seconds="), "{:?}", told.lines());
    assert_eq!(told.lines().len(), 2, "{:?}", told.lines());
}

#[test]
fn sync_that_fails_in_the_background_is_said_with_what_stands_in_the_way_of_new_files() {
    for (name, fsync) in [("always", Fsync::Always), ("everysec", Fsync::EverySecond)] {
        let told = Told::open(name, config(fsync));
        told.fail(Faults { fails_sync: Some(1), ..Faults::default() });
        told.lab.set("a", "text");
        assert_eq!(told.count("WRITES ARE REFUSED until new files are begun"), 1);
        assert_eq!(told.count("new files cannot be begun yet"), 1);
        told.fail(Faults::default());
        assert_eq!(told.count("writes are taken again"), 1);
        assert_eq!(told.lines().len(), 3, "{:?}", told.lines());
        assert!(told.lines()[0].contains("cannot sync"), "{:?}", told.lines());
    }
}

/// Whoever is refused holds the keys of the engine, and says nothing.
#[test]
fn disk_that_is_behind_is_said_though_it_does_nothing_else() {
    let narrow = DiskConfig { buffer_bytes_max: 1_000, ..config(Fsync::Always) };
    let told = Told::open("behind", narrow);
    told.fail(Faults { latency: Duration::from_millis(200), ..Faults::default() });
    until("a refusal", || {
        told.lab.set("a", &"v".repeat(500));
        told.lab.engine.check_writable().is_err()
    });
    assert_eq!(told.count("WRITES ARE REFUSED until the disk has caught up"), 1);
    assert_eq!(told.count("writes are taken again"), 1);
}

#[test]
fn rewriting_and_saving_that_fail_are_said_once_until_they_succeed() {
    let told = Told::open("jobs", config(Fsync::No));
    told.lab.set("a", &"v".repeat(1_000));
    told.lab.disk.sync(PATIENCE).expect("written");
    told.fail(Faults { bytes_max: Some(told.directory.bytes()), ..Faults::default() });
    for _ in 0..3 {
        told.lab.disk.rewrite().expect_err("there is no room");
        told.lab.disk.save().expect_err("there is no room");
    }
    assert_eq!(told.count("the journal could not be rewritten"), 1);
    assert_eq!(told.count("the snapshot could not be saved"), 1);
    told.fail(Faults::default());
    for _ in 0..2 {
        until("room", || told.lab.engine.check_writable().is_ok());
        told.lab.disk.rewrite().expect("there is room");
        told.lab.disk.save().expect("there is room");
    }
    assert_eq!(told.count("the journal is rewritten again"), 1);
    assert_eq!(told.count("snapshots are saved again"), 1);
}

#[test]
fn disk_that_does_not_fail_says_nothing() {
    let told = Told::open("sound", config(Fsync::Always));
    told.lab.set("a", "text");
    assert!(told.lab.acknowledge());
    told.lab.disk.rewrite().expect("there is room");
    told.lab.disk.tick(1);
    told.lab.disk.close().expect("written");
    told.lab.disk.tick(1);
    assert_eq!(told.lines(), Vec::<String>::new());
}
