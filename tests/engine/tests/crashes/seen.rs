//! What a server holds after it was started again, and which of the steps that a connection has sent explain it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use acteon_engine_tests::command::Command;
use acteon_engine_tests::endpoint::{Client, TcpEndpoint};
use acteon_engine_tests::reply::Reply;

use crate::load::Sent;
use crate::model::{Data, End, Entry, Keys};

/// All keys of a database.
pub(crate) struct Seen {
    pub(crate) keys: Keys,
    /// When they were looked at.
    from_ms: u64,
    until_ms: u64,
}

/// By how much the clock of a server, which goes on by itself once it has started, may differ from ours.
const CLOCK_SLACK_MS: u64 = 1_000;

/// Keys that are shown of those that are not as they should be.
const SHOWN: usize = 3;
/// Characters that are shown of each.
const SHOWN_CHARACTERS: usize = 400;

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A connection to a database of the server at `url`.
pub(crate) fn connect(url: &str, database: usize) -> io::Result<Client> {
    let mut client = Client::connect(&mut TcpEndpoint::new(url)?)?;
    let reply = client.call(&Command::words(&format!("SELECT {database}")))?;
    if reply.is_status("OK") { Ok(client) } else { Err(io::Error::other(reply.to_string())) }
}

impl Seen {
    /// Looks at everything in a database.
    pub(crate) fn look(url: &str, database: usize) -> io::Result<Self> {
        let from_ms = now_ms();
        let mut client = connect(url, database)?;
        let names: Vec<Vec<u8>> = client.call(&Command::words("KEYS *"))?.items().iter().filter_map(bytes).collect();
        let types = ask(&mut client, &names, |_, name| words(&[b"TYPE", name]))?;
        let ends = ask(&mut client, &names, |_, name| words(&[b"PEXPIRETIME", name]))?;
        let values = ask(&mut client, &names, |at, name| reading(&types[at], name))?;
        let mut keys = Keys::new();
        for (at, name) in names.iter().enumerate() {
            if let Some(data) = data(&types[at], &values[at])? {
                let name = String::from_utf8(name.clone()).map_err(io::Error::other)?;
                keys.insert(name, Entry { data, end: end(&ends[at])? });
            }
        }
        Ok(Self { keys, from_ms, until_ms: now_ms() })
    }

    /// Whether a key is as `expected` says.
    fn has(&self, name: &str, expected: Option<&Entry>) -> bool {
        match (self.keys.get(name), expected) {
            (None, None) => true,
            (Some(_), None) => false,
            // It must still be there unless its time has come meanwhile.
            (None, Some(expected)) => matches!(expected.end, End::At(at_ms) if at_ms < self.until_ms + CLOCK_SLACK_MS),
            (Some(seen), Some(expected)) => {
                seen.data == expected.data
                    && match (seen.end, expected.end) {
                        (End::Never, End::Never) => true,
                        (End::At(seen_ms), End::At(at_ms)) => seen_ms == at_ms && at_ms + CLOCK_SLACK_MS > self.from_ms,
                        (End::At(seen_ms), End::Between(from_ms, until_ms)) => {
                            (from_ms.saturating_sub(CLOCK_SLACK_MS)..=until_ms + CLOCK_SLACK_MS).contains(&seen_ms)
                        }
                        _ => false,
                    }
            }
        }
    }

    /// How many of the steps, from the first one on, were carried out if they began with `base` and led to the keys with this prefix: from the fewest
    /// to the most, which differ where steps changed nothing. What `base` becomes with the most of them is left there.
    ///
    /// # Errors
    /// No number of steps explains what is there; the message says what is wrong with the number that comes closest.
    pub(crate) fn explained_by(
        &self,
        prefix: &str,
        base: &mut Keys,
        sent: &[Sent],
    ) -> Result<RangeInclusive<usize>, String> {
        let names = base.keys().chain(self.keys.keys().filter(|name| name.starts_with(prefix)));
        let mut wrong: BTreeSet<String> = names.filter(|name| !self.has(name, base.get(*name))).cloned().collect();
        let (mut keys, mut closest) = (base.clone(), (wrong.len(), 0));
        let mut found: Option<RangeInclusive<usize>> = None;
        for count in 0..=sent.len() {
            if let Some(last) = count.checked_sub(1) {
                sent[last].step.apply(&mut keys, sent[last].span());
                for name in sent[last].step.changes.iter().flat_map(|change| change.keys()) {
                    let is_wrong = name.starts_with(prefix) && !self.has(name, keys.get(name));
                    if is_wrong {
                        wrong.insert(name.to_owned())
                    } else {
                        wrong.remove(name)
                    };
                }
            }
            if wrong.is_empty() {
                found = Some(found.map_or(count, |range| *range.start())..=count);
                base.clone_from(&keys);
            }
            closest = closest.min((wrong.len(), count));
        }
        found
            .ok_or_else(|| self.contradiction(prefix, base, sent, closest.1))
            .inspect(|_| base.retain(|name, _| self.keys.contains_key(name)))
    }

    /// What is wrong with what is there, if so many steps were carried out.
    fn contradiction(&self, prefix: &str, base: &Keys, sent: &[Sent], count: usize) -> String {
        let mut keys = base.clone();
        sent[..count].iter().for_each(|sent| drop(sent.step.apply(&mut keys, sent.span())));
        let names: BTreeSet<&String> =
            keys.keys().chain(self.keys.keys()).filter(|name| name.starts_with(prefix)).collect();
        let wrong: Vec<_> = names.into_iter().filter(|name| !self.has(name, keys.get(*name))).collect();
        let mut text = format!(
            "no beginning of the {} steps of {prefix} explains what is there; with {count} of them, {} keys are wrong:",
            sent.len(),
            wrong.len()
        );
        for name in wrong.into_iter().take(SHOWN) {
            let (seen, expected) = (shown(self.keys.get(name)), shown(keys.get(name)));
            text += &format!("\n{name} is {seen}\n  instead of {expected}");
        }
        text
    }
}

fn shown(entry: Option<&Entry>) -> String {
    let text = entry.map_or_else(|| "absent".to_owned(), |Entry { data, end }| format!("{} {end:?}", data.text()));
    text.chars().take(SHOWN_CHARACTERS).collect()
}

impl Data {
    /// For people.
    fn text(&self) -> String {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match self {
            Self::Text(bytes) => text(bytes),
            Self::List(list) => format!("{:?}", list.iter().map(|item| text(item)).collect::<Vec<_>>()),
            Self::Hash(hash) => {
                format!("{:?}", hash.iter().map(|(field, item)| (text(field), text(item))).collect::<BTreeMap<_, _>>())
            }
            Self::Set(set) => format!("{:?}", set.iter().map(|item| text(item)).collect::<Vec<_>>()),
            Self::Sorted(sorted) => {
                format!("{:?}", sorted.iter().map(|(item, score)| (text(item), score)).collect::<Vec<_>>())
            }
        }
    }
}

fn words(words: &[&[u8]]) -> Command {
    Command::new(words.iter().map(|word| word.to_vec()).collect())
}

/// Asks the same of all keys.
fn ask(client: &mut Client, names: &[Vec<u8>], command: impl Fn(usize, &[u8]) -> Command) -> io::Result<Vec<Reply>> {
    let commands: Vec<Command> = names.iter().enumerate().map(|(at, name)| command(at, name)).collect();
    client.send_commands(&commands)?;
    commands.iter().map(|_| client.receive()).collect()
}

/// The command that reads all of a key.
fn reading(kind: &Reply, name: &[u8]) -> Command {
    match kind.bytes().unwrap_or_default() {
        b"list" => words(&[b"LRANGE", name, b"0", b"-1"]),
        b"hash" => words(&[b"HGETALL", name]),
        b"set" => words(&[b"SMEMBERS", name]),
        b"zset" => words(&[b"ZRANGE", name, b"0", b"-1", b"WITHSCORES"]),
        _ => words(&[b"GET", name]),
    }
}

/// `None`: its time has come while we were looking.
fn data(kind: &Reply, value: &Reply) -> io::Result<Option<Data>> {
    let items = || value.items().iter().filter_map(bytes);
    let pairs = || items().step_by(2).zip(items().skip(1).step_by(2));
    let data = match kind.bytes().unwrap_or_default() {
        b"none" => return Ok(None),
        b"string" => match value {
            Reply::Missing(_) => return Ok(None),
            value => bytes(value).map(Data::Text),
        },
        b"list" => Some(Data::List(items().collect())),
        b"hash" => Some(Data::Hash(pairs().collect())),
        b"set" => Some(Data::Set(items().collect())),
        b"zset" => {
            let score =
                |(member, score): (Vec<u8>, Vec<u8>)| Some((member, String::from_utf8(score).ok()?.parse().ok()?));
            pairs().map(score).collect::<Option<_>>().map(Data::Sorted)
        }
        _ => None,
    };
    let is_empty = !matches!(data, Some(Data::Text(_))) && value.items().is_empty();
    if value.is_error() || is_empty || data.is_none() {
        return Err(io::Error::other(format!("a key of type {kind} is {value}")));
    }
    Ok(data)
}

fn end(reply: &Reply) -> io::Result<End> {
    let text = reply.bytes().map(String::from_utf8_lossy).unwrap_or_default();
    match text.parse::<i64>() {
        Ok(-1) => Ok(End::Never),
        // It ended just now, and so did its value.
        Ok(-2) => Ok(End::At(0)),
        Ok(at_ms) => u64::try_from(at_ms).map(End::At).map_err(io::Error::other),
        Err(_) => Err(io::Error::other(format!("no time: {reply}"))),
    }
}

fn bytes(reply: &Reply) -> Option<Vec<u8>> {
    reply.bytes().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::Seen;
    use crate::load::Sent;
    use crate::model::{Change, Data, End, Entry, Keys};
    use crate::steps::{Form, Step};

    const NOW_MS: u64 = 1_000_000;
    const LATER_MS: u64 = NOW_MS + 3_600_000;

    fn sent(changes: &[Change]) -> Sent {
        Sent::done(Step { form: Form::Transaction, changes: changes.to_vec() }, NOW_MS, NOW_MS)
    }

    fn steps() -> Vec<Sent> {
        let text = |text: &str| text.as_bytes().to_vec();
        vec![
            sent(&[Change::Set("c0:a".into(), text("1")), Change::PushBack("c0:b".into(), text("1"))]),
            sent(&[Change::Set("c0:a".into(), text("2"))]),
            sent(&[Change::SetUntil("c0:c".into(), text("3"), LATER_MS), Change::PushBack("c0:b".into(), text("3"))]),
        ]
    }

    /// What is there after these changes.
    fn seen(changes: &[Change]) -> Seen {
        let mut keys = Keys::new();
        let span = sent(&[]).span();
        changes.iter().for_each(|change| drop(change.apply(&mut keys, span)));
        Seen { keys, from_ms: NOW_MS, until_ms: NOW_MS }
    }

    fn all() -> Vec<Change> {
        steps().iter().flat_map(|sent| sent.step.changes.clone()).collect()
    }

    #[test]
    fn every_beginning_is_explained_by_its_own_number_of_steps() {
        for (changes, expected) in [(0, 0), (2, 1), (3, 2), (5, 3)] {
            let found = seen(&all()[..changes]).explained_by("c0:", &mut Keys::new(), &steps());
            assert_eq!(found, Ok(expected..=expected));
        }
    }

    #[test]
    fn holes_halves_phantoms_and_other_ends_are_explained_by_nothing() {
        let without = |left_out: usize| {
            let mut changes = all();
            changes.remove(left_out);
            seen(&changes)
        };
        let with = |key: &str, text: &str, end| {
            let mut seen = seen(&all());
            seen.keys.insert(key.into(), Entry { data: Data::Text(text.into()), end });
            seen
        };
        for (what, seen) in [
            ("a step in the middle is missing", without(2)),
            ("half of the first step is missing", without(1)),
            ("half of the last step is missing", without(4)),
            ("a key that nobody has written", with("c0:d", "1", End::Never)),
            ("a value that nobody has written", with("c0:a", "4", End::Never)),
            ("a key ends a millisecond late", with("c0:c", "3", End::At(LATER_MS + 1))),
            ("a key that was to end does not", with("c0:c", "3", End::Never)),
            ("a key ends that was not to", with("c0:a", "2", End::At(LATER_MS))),
        ] {
            let found = seen.explained_by("c0:", &mut Keys::new(), &steps());
            assert!(found.is_err(), "{what}: {found:?}");
        }
    }

    #[test]
    fn key_may_be_gone_once_its_time_has_come_and_not_before() {
        let mut gone = seen(&all());
        gone.keys.remove("c0:c");
        assert!(gone.explained_by("c0:", &mut Keys::new(), &steps()).is_err());
        (gone.from_ms, gone.until_ms) = (LATER_MS, LATER_MS);
        let mut base = Keys::new();
        assert_eq!(gone.explained_by("c0:", &mut base, &steps()), Ok(3..=3));
        assert!(!base.contains_key("c0:c"), "what is gone stays gone");
    }
}
