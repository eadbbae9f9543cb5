//! Random commands to two servers, until they differ.
//!
//! # Guarantees
//! A family's run is a function of its seed. It begins with the sequences kept in `regressions/`. A difference is shrunk and reported
//! with both replies; the run then goes on without that command, to find more than one difference at a time.
//!
//! # Failure
//! [`check`] returns the report of all differences as text. A lost connection counts as a difference. So do templates that reach too
//! little, see [`Coverage`].

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::candidate::candidate;
use crate::command::Command;
use crate::compare::{Comparison, agree};
use crate::coverage::Coverage;
use crate::endpoint::{Endpoint, RealRedis};
use crate::families::{Family, families};
use crate::keyspace;
use crate::random::Random;
use crate::reply::Reply;
use crate::sequence;
use crate::shrink::shrink;

/// Short enough to look through and to shrink, long enough for keys to become what nobody had in mind.
const SEQUENCE_COMMANDS: usize = 200;

/// Over all families. Two cores take about five minutes for these, some of it waiting for keys to expire.
const COMMANDS_DEFAULT: usize = 2_000_000;

const FAILURES_DEFAULT: usize = 5;

/// Runs one family as the environment says.
///
/// # Errors
/// The differences, ready to print; or why there was nothing to compare.
pub fn check(name: &str) -> Result<(), String> {
    let families = families();
    let shares: usize = families.iter().map(|family| family.share).sum();
    let family = families.iter().find(|family| family.name == name).ok_or_else(|| format!("no family {name}"))?;
    let total = number_from_env("ACTEON_DIFFERENTIAL_COMMANDS").unwrap_or(COMMANDS_DEFAULT);
    let seed = number_from_env("ACTEON_SEED").map_or_else(random_seed, |seed| seed as u64);
    let servers = Servers::start().map_err(|error| format!("the servers do not start: {error}"))?;
    let commands_max = total / shares * family.share;
    let report = Differential { family, servers, seed, seen: BTreeSet::new(), failures: 0, report: String::new() }
        .run(commands_max);
    if report.is_empty() { Ok(()) } else { Err(report) }
}

/// Where two servers differ first.
#[derive(Debug)]
struct Difference {
    /// After how many commands of the sequence.
    commands: usize,
    /// The command whose replies differ.
    command: Command,
    expected: String,
    found: String,
}

struct Servers {
    redis: RealRedis,
    candidate: Box<dyn Endpoint>,
    /// Whether the candidate can list its keys.
    has_keys: bool,
    coverage: Coverage,
}

struct Differential<'a> {
    family: &'a Family,
    servers: Servers,
    seed: u64,
    /// The commands that differed already.
    seen: BTreeSet<String>,
    failures: usize,
    report: String,
}

impl Differential<'_> {
    fn run(mut self, commands_max: usize) -> String {
        let failures_max = number_from_env("ACTEON_DIFFERENTIAL_FAILURES").unwrap_or(FAILURES_DEFAULT);
        for (path, commands) in regressions(self.family.name) {
            if let Some(difference) = self.servers.compare(&commands) {
                self.note(&path.display().to_string(), &commands, &difference);
            }
        }
        let mut random = Random::new(self.seed);
        let mut commands_run = 0;
        while commands_run < commands_max && self.failures < failures_max {
            let mut commands = self.family.sequence(&mut random, SEQUENCE_COMMANDS);
            self.leave_out_seen(&mut commands);
            commands_run += commands.len().max(1);
            if let Some(difference) = self.servers.compare(&commands) {
                commands.truncate(difference.commands);
                self.found(commands, difference);
            }
        }
        let coverage = &self.servers.coverage;
        if env::var_os("ACTEON_DIFFERENTIAL_COVERAGE").is_some() {
            eprintln!("{}: {coverage}", self.family.name);
        }
        if let Err(reason) = coverage.check() {
            let _ = writeln!(self.report, "{}: {reason}\n{coverage}", self.family.name);
        }
        self.report
    }

    /// Glued commands stay or go together.
    fn leave_out_seen(&self, commands: &mut Vec<Command>) {
        if self.seen.is_empty() {
            return;
        }
        let groups = commands.chunk_by(|_, next| next.is_glued);
        let is_new = |group: &&[Command]| group.iter().all(|command| !self.seen.contains(&title(command)));
        *commands = groups.filter(is_new).collect::<Vec<_>>().concat();
    }

    /// Shrinks, reports and perhaps keeps a sequence.
    fn found(&mut self, commands: Vec<Command>, difference: Difference) {
        let wanted = title(&difference.command);
        if difference.is_missing() {
            // Nothing to shrink, and no reason to stop looking at the commands that are there.
            let _ = writeln!(self.report, "{}: {wanted} is unknown to the engine", self.family.name);
            // Without KEYS there is no way to look at everything.
            self.servers.has_keys &= wanted != "KEYS";
            self.seen.insert(wanted);
            return;
        }
        let servers = &mut self.servers;
        let shrunk = shrink(commands.clone(), |commands| {
            servers.compare(commands).is_some_and(|found| title(&found.command) == wanted)
        });
        let (commands, difference) = match self.servers.compare(&shrunk) {
            Some(difference) => (shrunk, difference),
            None => (commands, difference),
        };
        if env::var_os("ACTEON_DIFFERENTIAL_SAVE").is_some() {
            self.save(&wanted, &commands);
        }
        self.note(&format!("ACTEON_SEED={}", self.seed), &commands, &difference);
    }

    fn note(&mut self, origin: &str, commands: &[Command], difference: &Difference) {
        self.failures += 1;
        self.seen.insert(title(&difference.command));
        let mut text = format!("\n{} ({origin}): {}\n", self.family.name, difference.command);
        for command in commands {
            let _ = writeln!(text, "    {command}");
        }
        let _ = writeln!(text, "  Redis:\n{}", indented(&difference.expected));
        let _ = writeln!(text, "  the engine:\n{}", indented(&difference.found));
        self.report.push_str(&text);
    }

    fn save(&self, title: &str, commands: &[Command]) {
        let name = title.to_ascii_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "-");
        let path = regressions_folder().join(format!("{}-{name}.txt", self.family.name));
        let lines: Vec<_> = commands.iter().map(Command::to_string).collect();
        if let Err(error) = fs::write(&path, lines.join("\n") + "\n") {
            eprintln!("{} cannot be written: {error}", path.display());
        }
    }
}

impl Servers {
    fn start() -> io::Result<Self> {
        Ok(Self { redis: RealRedis::start()?, candidate: candidate()?, has_keys: true, coverage: Coverage::default() })
    }

    /// Runs a sequence on both from an empty keyspace and returns the first difference, if there is one.
    fn compare(&mut self, commands: &[Command]) -> Option<Difference> {
        for endpoint in [&mut self.redis as &mut dyn Endpoint, self.candidate.as_mut()] {
            if let Err(error) = sequence::reset(endpoint) {
                return Some(Difference::failure(&Command::words("FLUSHALL"), 0, "a server", &error));
            }
        }
        let one = sequence::run(&mut self.redis, commands);
        let other = sequence::run(self.candidate.as_mut(), commands);
        let mut comparison = Comparison::default();
        for (index, command) in commands.iter().enumerate() {
            let (expected, found) = match (one.outcomes.get(index), other.outcomes.get(index)) {
                (Some(expected), Some(found)) => (expected, found),
                (None, _) => return Some(Difference::failure(command, index + 1, "Redis", &one.failure?)),
                (_, None) => return Some(Difference::failure(command, index + 1, "the engine", &other.failure?)),
            };
            if !comparison.agrees(command, expected, found) {
                if is_stale_error(expected) {
                    if is_plain_reading(command) {
                        continue;
                    }
                    self.coverage.note_uncompared(commands.len() - index);
                    return None;
                }
                let command = command.clone();
                let text = |outcome: &sequence::Outcome| outcome_text(outcome);
                return Some(Difference { commands: index + 1, command, expected: text(expected), found: text(found) });
            }
            self.coverage.note(command, &expected.replies);
        }
        if self.has_keys { self.compare_keyspaces(commands.len()) } else { None }
    }

    fn compare_keyspaces(&mut self, commands: usize) -> Option<Difference> {
        let contents = [&mut self.redis as &mut dyn Endpoint, self.candidate.as_mut()].map(keyspace::contents);
        let [Ok(expected), Ok(found)] = contents else {
            let error = contents.into_iter().find_map(Result::err)?;
            return Some(Difference::failure(&Command::words("KEYS *"), commands, "a server", &error));
        };
        self.coverage.note_contents(&expected);
        expected.into_iter().zip(found).find_map(|((command, expected), (other, found))| {
            let is_same = command == other && agree(&command.arguments, &expected, &found);
            let text = |command: &Command, reply: &Reply| format!("{command}\n{reply}");
            let (expected, found) = (text(&command, &expected), text(&other, &found));
            (!is_same).then_some(Difference { commands, command, expected, found })
        })
    }
}

impl Difference {
    /// Whether only Redis knows the command at all.
    fn is_missing(&self) -> bool {
        let is_unknown = |text: &str| {
            let line = text.lines().last().unwrap_or_default();
            line.starts_with("-ERR unknown command") || line.starts_with("-ERR unknown subcommand")
        };
        is_unknown(&self.found) && !is_unknown(&self.expected)
    }

    fn failure(command: &Command, commands: usize, who: &str, error: &io::Error) -> Self {
        let text = format!("{who}: {error}");
        Self { commands, command: command.clone(), expected: "a reply".to_owned(), found: text }
    }
}

/// Whether nothing in the keyspace depends on what a SORT found.
fn is_plain_reading(command: &Command) -> bool {
    let is_sort = matches!(command.name().as_str(), "SORT" | "SORT_RO");
    is_sort && !(2..command.arguments.len()).any(|index| command.word(index) == "STORE")
}

/// Redis's SORT looks at `errno` without setting it to 0 before, so it refuses good weights after any command that met a number out of
/// range. What it stored, or did not, has no meaning then.
fn is_stale_error(outcome: &sequence::Outcome) -> bool {
    outcome_text(outcome).contains("-ERR One or more scores can't be converted into double")
}

/// What a difference is about: the command, and the subcommand if there is one.
fn title(command: &Command) -> String {
    match command.name().as_str() {
        name @ ("CLIENT" | "COMMAND" | "CONFIG" | "OBJECT" | "PUBSUB" | "SCRIPT") => {
            format!("{name} {}", command.word(1))
        }
        name => name.to_owned(),
    }
}

fn outcome_text(outcome: &sequence::Outcome) -> String {
    let mut text: Vec<_> = outcome.replies.iter().map(Reply::to_string).collect();
    for (number, pushes) in &outcome.pushes {
        text.push(format!("pushed to connection {number}:"));
        text.extend(pushes.iter().map(Reply::to_string));
    }
    text.join("\n")
}

/// More lines than these of one reply help nobody.
const LINES_SHOWN: usize = 40;

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().take(LINES_SHOWN).map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

fn regressions_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// The kept sequences of a family, by file. Lines that begin with `#` tell what they are about.
fn regressions(family: &str) -> Vec<(PathBuf, Vec<Command>)> {
    let entries = fs::read_dir(regressions_folder()).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let of_family = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".txt") && name.split('-').next() == Some(family)
    };
    paths.retain(of_family);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let commands = lines.map(|line| Command::parse(line).unwrap_or_else(|| panic!("{}: {line}", path.display())));
        (path.clone(), commands.collect())
    };
    paths.into_iter().map(read).collect()
}

fn number_from_env(name: &str) -> Option<usize> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// A fresh seed per run; a failure prints it.
fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Random::new(now.as_nanos() as u64).number() >> 16
}
