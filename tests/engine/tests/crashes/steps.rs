//! What connections ask: commands, transactions and scripts, chosen from a seed.
//!
//! Every connection has keys of its own, whose names say what they hold, so that a reply is known before it comes. Texts are unique: each says by
//! which connection, in which round and by which step it was written. Transactions and scripts also change keys that all connections share.

use acteon_engine_tests::command::Command;
use acteon_engine_tests::random::Random;
use acteon_engine_tests::reply::Reply;

use crate::model::{Change, Keys, Span, count, ok};

/// How the changes of a step belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One command.
    Single,
    /// `MULTI` to `EXEC`.
    Transaction,
    /// One `EVAL`.
    Script,
}

/// What happens as a whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) form: Form,
    pub(crate) changes: Vec<Change>,
}

/// Carries out commands that it gets as `count word word ... count word ...`, and returns how many.
const SCRIPT: &str = "local at, done = 1, 0
while ARGV[at] do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at, done = at + words + 1, done + 1
end
return done";

/// Long enough that nothing ends meanwhile.
const LATER_S: u64 = 10 * 3_600;
/// Members of collections: above the bounds at which encodings change.
const MEMBERS: usize = 160;
/// Elements that lists are cut to now and then.
const LIST_KEPT: usize = 40;
/// Where the rests of long texts end.
const TEXT_BYTES_MAX: usize = 4_096;

impl Step {
    /// Appends its commands as a client sends them.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        let commands = self.changes.iter().map(|change| Command::new(change.arguments()));
        match self.form {
            Form::Single => commands.for_each(|command| command.encode(bytes)),
            Form::Transaction => {
                Command::words("MULTI").encode(bytes);
                commands.for_each(|command| command.encode(bytes));
                Command::words("EXEC").encode(bytes);
            }
            Form::Script => {
                let mut keys: Vec<&str> = self.changes.iter().flat_map(Change::keys).collect();
                keys.dedup();
                let mut arguments =
                    ["EVAL", SCRIPT, &keys.len().to_string()].map(|word| word.as_bytes().to_vec()).to_vec();
                arguments.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
                for command in commands {
                    arguments.push(command.arguments.len().to_string().into_bytes());
                    arguments.extend(command.arguments);
                }
                Command::new(arguments).encode(bytes);
            }
        }
    }

    /// Carries it out, and returns the replies that a client gets; `None` inside is one that nobody can know.
    pub(crate) fn apply(&self, keys: &mut Keys, span: Span) -> Replies {
        let inner: Vec<_> = self.changes.iter().map(|change| change.apply(keys, span)).collect();
        Replies { form: self.form, inner }
    }

    /// How many replies it gets.
    pub(crate) fn reply_count(&self) -> usize {
        match self.form {
            Form::Single | Form::Script => 1,
            Form::Transaction => self.changes.len() + 2,
        }
    }

    /// What it adds to the list that all connections share.
    pub(crate) fn shared(&self) -> Option<&[u8]> {
        self.changes.iter().find_map(|change| match change {
            Change::PushShared(_, text) => Some(&text[..]),
            _ => None,
        })
    }
}

/// What a step is answered.
pub(crate) struct Replies {
    form: Form,
    inner: Vec<Option<Reply>>,
}

impl Replies {
    /// Whether these are the replies.
    pub(crate) fn fit(&self, replies: &[Reply]) -> bool {
        let fits = |(expected, reply): (&Option<Reply>, &Reply)| expected.as_ref().is_none_or(|known| known == reply);
        match (self.form, replies) {
            (Form::Single, [reply]) => fits((&self.inner[0], reply)),
            (Form::Script, [reply]) => *reply == count(self.inner.len()),
            (Form::Transaction, [multi, queued @ .., Reply::Many(b'*', done)]) => {
                *multi == ok()
                    && queued.iter().all(|reply| reply.is_status("QUEUED"))
                    && done.len() == self.inner.len()
                    && self.inner.iter().zip(done).all(fits)
            }
            _ => false,
        }
    }
}

/// Chooses the steps of one connection.
pub(crate) struct Chooser {
    random: Random,
    connection: usize,
    round: usize,
    steps: usize,
}

impl Chooser {
    pub(crate) const fn new(random: Random, connection: usize, round: usize) -> Self {
        Self { random, connection, round, steps: 0 }
    }

    /// How many steps to send before a reply is waited for.
    pub(crate) fn pipeline(&mut self) -> usize {
        if self.random.percent(50) { 1 } else { 1 + self.random.below(12) }
    }

    /// The next one.
    pub(crate) fn next(&mut self, now_ms: u64) -> Step {
        self.steps += 1;
        match self.random.below(100) {
            0..12 => self.together(Form::Transaction, now_ms),
            12..20 => self.together(Form::Script, now_ms),
            _ => Step { form: Form::Single, changes: vec![self.change(now_ms, true)] },
        }
    }

    /// Several keys, among them those that all share: a counter before everything else, another one after it, and a list.
    fn together(&mut self, form: Form, now_ms: u64) -> Step {
        let (shared, own) = (shared_prefix(self.connection, self.round), prefix(self.connection));
        let stamp = format!("{}:{}", self.connection, self.steps).into_bytes();
        let mut changes = vec![
            Change::IncrementShared(format!("{shared}left")),
            Change::Increment(format!("{own}together")),
            Change::PushShared(format!("{shared}order"), stamp),
        ];
        // A command that fails ends a script where it is, which the model does not follow.
        (0..1 + self.random.below(4)).for_each(|_| changes.push(self.change(now_ms, form == Form::Transaction)));
        changes.push(Change::IncrementShared(format!("{shared}right")));
        Step { form, changes }
    }

    fn change(&mut self, now_ms: u64, may_fail: bool) -> Change {
        let text = self.text();
        let member = format!("member {}", self.random.below(MEMBERS)).into_bytes();
        match self.random.below(100) {
            0..16 => Change::Set(self.key("text", 12), text),
            16..26 => Change::Increment(self.key("number", 6)),
            26..30 => self.growing(text),
            30..36 => Change::PushFront(self.key("list", 4), text),
            36..44 => Change::PushBack(self.key("list", 4), text),
            44..48 => Change::PopFront(self.key("list", 4)),
            48..50 => Change::KeepLast(self.key("list", 4), LIST_KEPT),
            50..58 => Change::PutField(self.key("hash", 3), member, text),
            58..60 => Change::RemoveField(self.key("hash", 3), member),
            60..64 => Change::AddMember(self.key("set", 3), member),
            64..66 => Change::RemoveMember(self.key("set", 3), member),
            66..74 => Change::Score(self.key("sorted", 3), member, self.steps as i64),
            74..76 => Change::Unscore(self.key("sorted", 3), member),
            76..82 => Change::SetFor(self.key("later", 4), text, LATER_S + self.steps as u64),
            82..86 => Change::KeepUntil(self.key("text", 12), now_ms + LATER_S * 1_000 + self.steps as u64),
            // Some of them end while the server is down.
            86..92 => Change::SetUntil(self.key("soon", 4), text, now_ms + 20 + self.random.below(1_500) as u64),
            92..94 if may_fail => Change::Rename(self.key("text", 12), self.key("text", 12)),
            _ => {
                let (kind, count) = *self.random.pick(&[
                    ("text", 12),
                    ("list", 4),
                    ("hash", 3),
                    ("set", 3),
                    ("sorted", 3),
                    ("later", 4),
                ]);
                Change::Remove(self.key(kind, count))
            }
        }
    }

    /// Of long texts a part is changed in place.
    fn growing(&mut self, text: Vec<u8>) -> Change {
        let key = self.key("long", 2);
        match self.random.below(10) {
            0..5 => Change::SetRange(key, self.random.below(TEXT_BYTES_MAX), text),
            5..9 => Change::Append(key, text),
            _ => Change::Set(key, text),
        }
    }

    fn key(&mut self, kind: &str, count: usize) -> String {
        format!("{}{kind}:{}", prefix(self.connection), self.random.below(count))
    }

    /// Unique, and now and then longer than a page of the disk.
    fn text(&mut self) -> Vec<u8> {
        let padding = match self.random.below(100) {
            0..80 => 0,
            80..99 => self.random.below(200),
            _ => self.random.below(3 * TEXT_BYTES_MAX),
        };
        let mut text = format!("{}.{}.{}.", self.connection, self.round, self.steps).into_bytes();
        text.resize(text.len() + padding, b'x');
        text
    }
}

/// What the names of all keys of a connection begin with.
pub(crate) fn prefix(connection: usize) -> String {
    format!("c{connection}:")
}

/// The database that a connection uses.
pub(crate) const fn database(connection: usize) -> usize {
    connection % DATABASES
}

/// How many there are in use.
pub(crate) const DATABASES: usize = 2;

/// What the names of keys begin with that all connections of a database share in a round.
pub(crate) fn shared_prefix(connection: usize, round: usize) -> String {
    format!("{SHARED}{}:{round}:", database(connection))
}

/// What the names of all shared keys begin with.
pub(crate) const SHARED: &str = "shared:";
