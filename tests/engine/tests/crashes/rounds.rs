//! One directory, and a server on it that is killed again and again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use acteon_engine_tests::command::Command;
use acteon_engine_tests::random::Random;
use acteon_test_support::{EngineOptions, EngineServer, verify_engine_dir};

use crate::load::{Round, Sent, Writing};
use crate::model::{Data, Keys};
use crate::seen::{Seen, connect};
use crate::steps::{Chooser, DATABASES, SHARED, database, prefix, shared_prefix};

/// How soon the server has writes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Always,
    EverySecond,
    No,
}

/// What came of it, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) directories: u64,
    rounds: u64,
    kills: u64,
    kills_while_loading: u64,
    stops: u64,
    acknowledged: u64,
    unanswered: u64,
    /// Of those, how many were there afterwards.
    unanswered_there: u64,
    /// Acknowledged and lost; never under `always`.
    lost: u64,
    /// The most answers between the acknowledgement of a step that was lost, and the end.
    lost_beats_max: u64,
    torn_ends: u64,
    rewrites: u64,
}

/// Connections that write at a time.
const CONNECTIONS: usize = 4;
/// Rounds on one directory.
const ROUNDS: usize = 20;
/// How long writes go on before a kill, in milliseconds: mostly short, as most of what can go wrong goes wrong in the beginning.
const LOAD_MS: (usize, usize) = (5, 300);
/// Now and then longer, so that background work of each second comes in.
const LONG_LOAD_MS: usize = 1_500;
/// A kill while data are loaded comes within so many milliseconds after the start.
const LOADING_MS: usize = 80;
/// Without waiting for the disk, what was acknowledged is lost by a kill for a few milliseconds only. The measure is how often the server has answered
/// since, at least a millisecond apart: a machine that stands still, or is busy with other things, takes time but makes no answers.
const LOST_BEATS_MAX: u64 = 250;
/// The same for half of the kills of a directory, which no single pause of the machine changes.
const LOST_BEATS_MEDIAN_MAX: u64 = 5;

/// A directory under crashes. It is removed when all was right, and kept otherwise.
pub(crate) struct Chain {
    fsync: Fsync,
    random: Random,
    folder: PathBuf,
    server: EngineServer,
    /// What the keys of each connection held after the last start.
    bases: Vec<Keys>,
    /// Whether the server was killed last; it was stopped otherwise.
    was_killed: bool,
    /// For each kill under load, for how many answers acknowledged steps were lost.
    lost_beats: Vec<u64>,
    sums: Sums,
}

impl Fsync {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }

    /// Where its directories are: in memory where nobody waits for the disk, so that a disk that is slow for other reasons does not show as a loss.
    fn place(self) -> PathBuf {
        let memory = Path::new("/dev/shm");
        if self != Self::Always && memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
    }
}

/// Runs all rounds of a seed.
///
/// # Errors
/// What was wrong, and where the directory is.
pub(crate) fn run(fsync: Fsync, seed: u64) -> Result<Sums, String> {
    let folder = tempfile::Builder::new().prefix("acteon-crashes-").tempdir_in(fsync.place());
    let folder = folder.map_err(|error| error.to_string())?;
    let outcome = Chain::start(fsync, seed, folder.path()).and_then(Chain::run);
    outcome.map_err(|error| format!("{error}\nthe directory is kept: {}", folder.keep().display()))
}

impl Chain {
    fn start(fsync: Fsync, seed: u64, folder: &Path) -> Result<Self, String> {
        let mut random = Random::new(seed);
        // Rewriting by itself: all the time, now and then, only when asked.
        let rewrite_min = *random.pick(&["1KiB", "64KiB", "1GiB"]);
        let options = EngineOptions {
            dir: Some(folder.join("data")),
            settings: vec![format!("fsync = \"{}\"", fsync.name()), format!("rewrite_min = \"{rewrite_min}\"")],
            ..EngineOptions::default()
        };
        let server = EngineServer::start(options).map_err(|error| error.to_string())?;
        let bases = vec![Keys::new(); CONNECTIONS];
        let sums = Sums { directories: 1, ..Sums::default() };
        Ok(Self {
            fsync,
            random,
            folder: folder.to_owned(),
            server,
            bases,
            was_killed: true,
            lost_beats: Vec::new(),
            sums,
        })
    }

    fn run(mut self) -> Result<Sums, String> {
        for round in 0..ROUNDS {
            self.round(round).map_err(|error| format!("round {round}: {error}"))?;
        }
        self.check_losses()?;
        self.server.kill9().map_err(|error| error.to_string())?;
        let (is_sound, said) = verify_engine_dir(&self.folder.join("data")).map_err(|error| error.to_string())?;
        if is_sound { Ok(self.sums) } else { Err(format!("not sound after the last round: {said}")) }
    }

    fn round(&mut self, number: usize) -> Result<(), String> {
        let round = Round::default();
        let sent = self.load(number, &round)?;
        self.check_log()?;
        if self.random.percent(15) {
            self.crash_while_loading()?;
        }
        self.server.restart().map_err(|error| error.to_string())?;
        self.check(number, &sent, round.beats.load(Ordering::SeqCst))?;
        self.sums.rounds += 1;
        self.sums.rewrites += round.rewrites.load(Ordering::SeqCst);
        self.sums.torn_ends += u64::from(self.server.log().contains("it was left out"));
        self.check_log()
    }

    /// Lets connections write until the server is gone.
    fn load(&mut self, number: usize, round: &Round) -> Result<Vec<Vec<Sent>>, String> {
        let url = self.server.url();
        let lasting_ms =
            if self.random.percent(10) { self.random.below(LONG_LOAD_MS) } else { self.random.below(LOAD_MS.1) };
        let lasting = Duration::from_millis((LOAD_MS.0 + lasting_ms) as u64);
        let is_killed = !self.random.percent(10);
        let (heart, mut random) = (Random::new(self.random.number()), Random::new(self.random.number()));
        let (bases, server) = (&self.bases, &mut self.server);
        let (sent, beaten, ended) = thread::scope(|scope| {
            let url = &*url;
            let beating = scope.spawn(move || round.beat(url, heart));
            let writing: Vec<_> = (0..CONNECTIONS)
                .map(|connection| {
                    let chooser = Chooser::new(Random::new(random.number()), connection, number);
                    let writing = Writing { url, connection, round, keys: bases[connection].clone(), chooser };
                    scope.spawn(move || writing.run())
                })
                .collect();
            thread::sleep(lasting);
            round.is_over.store(true, Ordering::SeqCst);
            let ended = if is_killed { server.kill9() } else { server.stop() };
            let join = |writing: thread::ScopedJoinHandle<'_, _>| {
                writing.join().map_err(|_| "a connection panicked".to_owned())?
            };
            (writing.into_iter().map(join).collect::<Result<Vec<_>, String>>(), beating.join(), ended)
        });
        ended.map_err(|error| error.to_string())?;
        self.was_killed = is_killed;
        beaten.map_err(|_| "the heart panicked".to_owned())??;
        *(if is_killed { &mut self.sums.kills } else { &mut self.sums.stops }) += 1;
        sent
    }

    /// Kills it while it reads what is there, wherever it has come.
    fn crash_while_loading(&mut self) -> Result<(), String> {
        self.server.begin_restart().map_err(|error| error.to_string())?;
        thread::sleep(Duration::from_millis(self.random.below(LOADING_MS) as u64));
        self.server.kill9().map_err(|error| error.to_string())?;
        self.sums.kills_while_loading += 1;
        self.check_log()
    }

    /// Whether the server has complained about anything.
    fn check_log(&self) -> Result<(), String> {
        let log = self.server.log();
        let is_wrong = |line: &&str| line.contains(" ERROR ") || line.contains("panicked");
        log.lines().find(is_wrong).map_or(Ok(()), |line| Err(format!("the server's log says: {line}\n{log}")))
    }

    /// Compares what is there with what was sent and acknowledged.
    fn check(&mut self, number: usize, sent: &[Vec<Sent>], beats: u64) -> Result<(), String> {
        let seen: Vec<Seen> = (0..DATABASES)
            .map(|database| Seen::look(&self.server.url(), database))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let mut there = Vec::new();
        for (connection, sent) in sent.iter().enumerate() {
            let seen = &seen[database(connection)];
            there.push(seen.explained_by(&prefix(connection), &mut self.bases[connection], sent)?);
        }
        check_names(&seen)?;
        self.count_losses(sent, &there, beats)?;
        check_order(sent, &there)?;
        for (database, seen) in seen.iter().enumerate() {
            check_shared(database, number, seen, sent, &there)?;
        }
        self.forget_shared(number)
    }

    /// Nothing acknowledged is lost under `always` or by a stop, and next to nothing otherwise.
    fn count_losses(&mut self, sent: &[Vec<Sent>], there: &[RangeInclusive<usize>], beats: u64) -> Result<(), String> {
        let mut round_beats = 0;
        for (sent, there) in sent.iter().zip(there) {
            let told = sent.iter().filter(|sent| sent.told.is_some()).count();
            let lost = told.saturating_sub(*there.end());
            self.sums.acknowledged += told as u64;
            self.sums.unanswered += (sent.len() - told) as u64;
            self.sums.unanswered_there += there.end().saturating_sub(told) as u64;
            self.sums.lost += lost as u64;
            let Some((first, at)) = sent.get(*there.end()).and_then(|first| Some((first, first.told?))) else {
                continue;
            };
            let since = beats.saturating_sub(at.at_beat);
            round_beats = round_beats.max(since);
            if self.fsync == Fsync::Always || !self.was_killed || since > LOST_BEATS_MAX {
                return Err(format!(
                    "the last {lost} of {told} acknowledged steps are lost; the server has answered {since} times since the first of them: {:?}",
                    first.step
                ));
            }
        }
        if self.was_killed {
            self.lost_beats.push(round_beats);
            self.sums.lost_beats_max = self.sums.lost_beats_max.max(round_beats);
        }
        Ok(())
    }

    /// Single kills may come at a moment at which the machine had no time for the server's journal. Not most of them.
    fn check_losses(&mut self) -> Result<(), String> {
        self.lost_beats.sort_unstable();
        match self.lost_beats.get(self.lost_beats.len() / 2) {
            Some(median) if *median > LOST_BEATS_MEDIAN_MAX => {
                let (lost, beats) = (self.sums.lost, &self.lost_beats);
                Err(format!(
                    "{lost} acknowledged steps are lost, mostly long before the kills: by answers in between, {beats:?}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// What earlier rounds have shared is of no interest any longer.
    fn forget_shared(&self, number: usize) -> Result<(), String> {
        for connection in 0..DATABASES {
            let prefix = shared_prefix(connection, number);
            let command = Command::words(&format!("DEL {prefix}left {prefix}right {prefix}order"));
            let reply = connect(&self.server.url(), connection).and_then(|mut client| client.call(&command));
            reply.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// There are no keys that nobody has written.
fn check_names(seen: &[Seen]) -> Result<(), String> {
    for (database_seen, seen) in seen.iter().enumerate() {
        let is_known = |name: &str| {
            let of_connection =
                |number: &usize| database(*number) == database_seen && name.starts_with(&prefix(*number));
            name.starts_with(SHARED) || (0..CONNECTIONS).any(|number| of_connection(&number))
        };
        if let Some(name) = seen.keys.keys().find(|name| !is_known(name)) {
            return Err(format!("nobody has written {name} in database {database_seen}"));
        }
    }
    Ok(())
}

/// Over all connections: what was sent after another step had been acknowledged is not there without it.
fn check_order(sent: &[Vec<Sent>], there: &[RangeInclusive<usize>]) -> Result<(), String> {
    let lost = sent
        .iter()
        .zip(there)
        .filter_map(|(sent, there)| Some((sent.get(*there.end())?, sent.get(*there.end())?.told?)));
    let there = sent.iter().zip(there).filter_map(|(sent, there)| sent.get(there.start().checked_sub(1)?));
    let (Some(lost), Some(there)) =
        (lost.min_by_key(|(_, told)| told.at_event), there.max_by_key(|sent| sent.at_event))
    else {
        return Ok(());
    };
    if there.at_event < lost.1.at_event {
        return Ok(());
    }
    Err(format!(
        "{:?} is there, though {:?} is not, which was acknowledged before it was sent",
        there.step, lost.0.step
    ))
}

/// What transactions and scripts have done to shared keys is all there or not at all, and in the order of each connection.
fn check_shared(
    database_seen: usize,
    round: usize,
    seen: &Seen,
    sent: &[Vec<Sent>],
    there: &[RangeInclusive<usize>],
) -> Result<(), String> {
    let prefix = shared_prefix(database_seen, round);
    let expected: BTreeMap<usize, VecDeque<&[u8]>> = (0..CONNECTIONS)
        .filter(|connection| database(*connection) == database_seen)
        .map(|connection| {
            (
                connection,
                sent[connection][..*there[connection].start()].iter().filter_map(|sent| sent.step.shared()).collect(),
            )
        })
        .collect();
    let order: Vec<&[u8]> = match seen.keys.get(&format!("{prefix}order")).map(|entry| &entry.data) {
        Some(Data::List(list)) => list.iter().map(|item| &item[..]).collect(),
        Some(other) => return Err(format!("{prefix}order is {other:?}")),
        None => Vec::new(),
    };
    for (connection, expected) in &expected {
        let own = format!("{connection}:");
        let there: VecDeque<&[u8]> = order.iter().copied().filter(|item| item.starts_with(own.as_bytes())).collect();
        if there != *expected {
            return Err(format!(
                "{prefix}order has {} of connection {connection} instead of {}",
                there.len(),
                expected.len()
            ));
        }
    }
    let count: usize = expected.values().map(VecDeque::len).sum();
    let text = count.to_string().into_bytes();
    for name in ["left", "right"] {
        let is_right = match seen.keys.get(&format!("{prefix}{name}")).map(|entry| &entry.data) {
            Some(Data::Text(seen)) => *seen == text,
            Some(_) => false,
            None => count == 0,
        };
        if !is_right {
            let shown = seen.keys.get(&format!("{prefix}{name}"));
            return Err(format!("{prefix}{name} is {shown:?} after {count} transactions and scripts that are there"));
        }
    }
    if order.len() == count {
        Ok(())
    } else {
        Err(format!("{prefix}order has {} elements instead of {count}", order.len()))
    }
}

impl Sums {
    /// With those of another directory.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            directories: self.directories + other.directories,
            rounds: self.rounds + other.rounds,
            kills: self.kills + other.kills,
            kills_while_loading: self.kills_while_loading + other.kills_while_loading,
            stops: self.stops + other.stops,
            acknowledged: self.acknowledged + other.acknowledged,
            unanswered: self.unanswered + other.unanswered,
            unanswered_there: self.unanswered_there + other.unanswered_there,
            lost: self.lost + other.lost,
            lost_beats_max: self.lost_beats_max.max(other.lost_beats_max),
            torn_ends: self.torn_ends + other.torn_ends,
            rewrites: self.rewrites + other.rewrites,
        }
    }
}

impl Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directories, rounds, kills, kills_while_loading, stops, .. } = self;
        write!(
            f,
            "{rounds} rounds in {directories} directories: {kills} kills under load, {kills_while_loading} while loading, {stops} stops; "
        )?;
        let Self { acknowledged, unanswered, unanswered_there, lost, lost_beats_max, torn_ends, rewrites, .. } = self;
        write!(
            f,
            "{acknowledged} steps acknowledged, {unanswered} unanswered of which {unanswered_there} were there; "
        )?;
        write!(f, "{lost} acknowledged steps lost, up to {lost_beats_max} answers before the end; ")?;
        write!(f, "{torn_ends} torn ends, {rewrites} rewritings and snapshots begun")
    }
}
