//! The commands of the Redis protocol: one row each, which is the only place that knows a command.
//!
//! # Guarantees
//! A handler runs while the segments of all keys of its command are held, so whatever it does happens at once. A handler that returns an
//! error has changed nothing, unless its row's command is documented to do part of its work.
//!
//! # How it works
//! A file per family, each ending in its `ROWS`. A row says the command's name, arity, flags, where its keys are, what it needs to hold, and
//! who carries it out; arity errors, `COMMAND`, statistics and access categories come from the row. Adding a command is adding a row.
//!
//! ```text
//! args ─▶ row ─▶ arity ─▶ (queue in MULTI) ─▶ places of its keys ─▶ hold ─▶ handler ─▶ let go ─▶ serve those who waited
//! ```
//! See <https://redis.io/docs/latest/commands/> for what each command does.

mod bitmap;
mod call;
mod catalog;
mod client;
mod connection;
mod dump;
mod error;
mod expiry;
mod geo;
mod hash;
mod help;
mod hyperloglog;
mod key;
mod keyspace;
mod list;
mod options;
mod pubsub;
mod row;
mod scan;
mod script;
mod server;
mod set;
mod sort;
mod sorted_set;
mod string;
mod transaction;

use std::sync::LazyLock;

pub(crate) use call::{Access, BlockRequest, Call, Effects, Known, Lookups};
pub(crate) use connection::REDIS_VERSION;
pub(crate) use error::CommandError;
pub(crate) use row::{Flags, Row, Scope};

/// The families, in the order in which `COMMAND` lists them.
const FAMILIES: &[&[Row]] = &[
    string::ROWS,
    bitmap::ROWS,
    hyperloglog::ROWS,
    key::ROWS,
    dump::ROWS,
    expiry::ROWS,
    keyspace::ROWS,
    sort::ROWS,
    hash::ROWS,
    list::ROWS,
    set::ROWS,
    sorted_set::ROWS,
    geo::ROWS,
    transaction::ROWS,
    pubsub::ROWS,
    script::ROWS,
    connection::ROWS,
    server::ROWS,
    catalog::ROWS,
];

/// A command that exists: a row, and its number for statistics.
#[derive(Clone, Copy)]
pub(crate) struct Command {
    pub(crate) row: &'static Row,
    /// The row of the container, for a subcommand.
    pub(crate) container: Option<&'static Row>,
    /// Distinct for each command and subcommand, below [`count`].
    pub(crate) number: usize,
    /// See [`Row::only_key`].
    pub(crate) only_key: Option<usize>,
}

impl Command {
    fn new(row: &'static Row, container: Option<&'static Row>, number: usize) -> Self {
        Self { row, container, number, only_key: row.only_key() }
    }

    /// The name as clients write it in lower case, `config|get` for a subcommand.
    pub(crate) fn full_name(&self) -> String {
        match self.container {
            Some(container) => format!("{}|{}", container.name, self.row.name),
            None => self.row.name.to_owned(),
        }
    }
}

/// Places of the index of names, four for each of them: most names have theirs to themselves.
const INDEX_PLACES: usize = 1 << 10;

struct Table {
    commands: Vec<Command>,
    entries: Vec<Entry>,
    /// Where in `entries` a name is, at the place that its hash says or at one of the next; `NOWHERE` ends the search.
    index: Box<[u16; INDEX_PLACES]>,
}

const NOWHERE: u16 = u16::MAX;

struct Entry {
    /// Most of the name, see [`letters_of`]: what is looked at first.
    letters: u64,
    /// How long the name is, if it is nothing but its letters: then these say all.
    exact_len: Option<usize>,
    command: Command,
    subcommands: Vec<Command>,
}

impl Entry {
    fn new(command: Command, subcommands: Vec<Command>) -> Self {
        let name = command.row.name.as_bytes();
        let is_exact = name.len() <= LETTERS_MAX && name.iter().all(u8::is_ascii_alphabetic);
        Self { letters: letters_of(name), exact_len: is_exact.then_some(name.len()), command, subcommands }
    }

    /// Whether it has this name, whose letters these are.
    #[inline]
    fn is_named(&self, name: &[u8], letters: u64) -> bool {
        self.letters == letters
            && (self.exact_len == Some(name.len()) || self.command.row.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let index = Box::new([NOWHERE; INDEX_PLACES]);
    let mut table = Table { commands: Vec::new(), entries: Vec::new(), index };
    for row in FAMILIES.iter().copied().flatten() {
        let command = Command::new(row, None, table.commands.len());
        table.commands.push(command);
        let mut subcommands = Vec::new();
        for subrow in row.subcommands {
            let subcommand = Command::new(subrow, Some(row), table.commands.len());
            subcommands.push(subcommand);
            table.commands.push(subcommand);
        }
        table.add(Entry::new(command, subcommands));
    }
    table
});

impl Table {
    fn add(&mut self, entry: Entry) {
        let name = entry.command.row.name;
        assert!(self.find(name.as_bytes()).is_none(), "{name} has one row");
        // A full index would make the search for an unknown name endless.
        assert!(2 * self.entries.len() < INDEX_PLACES, "the index of names is at least half empty");
        let mut place = index_place(entry.letters, name.len());
        while self.index[place] != NOWHERE {
            place = (place + 1) % INDEX_PLACES;
        }
        self.index[place] = self.entries.len() as u16;
        self.entries.push(entry);
    }

    /// Every command comes by here, so its name is not written anew in lower case first, and mostly is compared as one number.
    #[inline]
    fn find(&self, name: &[u8]) -> Option<&Entry> {
        let letters = letters_of(name);
        let mut place = index_place(letters, name.len());
        loop {
            let entry = self.entries.get(usize::from(self.index[place]))?;
            if entry.is_named(name, letters) {
                return Some(entry);
            }
            place = (place + 1) % INDEX_PLACES;
        }
    }
}

/// Names up to this length go into their letters as a whole.
const LETTERS_MAX: usize = 8;

/// A number that is the same for any case of the letters of a name. Of all names of the same length up to [`LETTERS_MAX`], only those have
/// it that differ in nothing but case, if one of them is made of letters: setting the bit for lower case makes an upper and a lower letter
/// alike, and no other byte like a letter. Names that are longer have it in common by their first and last letters.
#[inline]
fn letters_of(name: &[u8]) -> u64 {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    // The halves of a name of less than eight bytes overlap.
    let letters = match (name.first_chunk::<4>(), name.last_chunk::<4>(), name) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        (_, _, [first, .., last]) => u64::from_be_bytes([0, 0, 0, 0, 0, *first, name[name.len() / 2], *last]),
        (_, _, [only]) => u64::from(*only),
        (_, _, []) => 0,
    };
    letters | LOWER
}

/// Where the search for a name begins.
#[inline]
fn index_place(letters: u64, name_len: usize) -> usize {
    // The multiplier of Knuth's multiplicative hash, odd and near 2^64 divided by the golden ratio; the upper bits are the mixed ones.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = (letters ^ name_len as u64).wrapping_mul(MULTIPLIER);
    (hash >> (u64::BITS - INDEX_PLACES.ilog2())) as usize
}

/// The number of commands and subcommands.
pub(crate) fn count() -> usize {
    TABLE.commands.len()
}

/// All commands and subcommands, in the order of the table.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    TABLE.commands.iter()
}

/// The subcommands of a container.
pub(crate) fn subcommands(name: &[u8]) -> &'static [Command] {
    find(name).map_or(&[], |entry| &entry.subcommands)
}

/// The command of this name, which is `container|name` for a subcommand, in any case of letters.
pub(crate) fn find_named(name: &[u8]) -> Option<Command> {
    match name.iter().position(|byte| *byte == b'|') {
        None => find(name).map(|entry| entry.command),
        Some(bar) => {
            let subname = &name[bar + 1..];
            let is_it = |command: &&Command| command.row.name.as_bytes().eq_ignore_ascii_case(subname);
            find(&name[..bar])?.subcommands.iter().find(is_it).copied()
        }
    }
}

/// The command that `args` ask for, in any case of letters.
pub(crate) fn look_up(args: &[&[u8]]) -> Result<Command, CommandError> {
    find_asked(args).copied()
}

/// The same where it lies.
#[inline]
pub(crate) fn find_asked(args: &[&[u8]]) -> Result<&'static Command, CommandError> {
    match find(args.first().copied().unwrap_or_default()) {
        Some(entry) if entry.subcommands.is_empty() => Ok(&entry.command),
        found => look_up_subcommand(found, args),
    }
}

#[inline(never)]
fn look_up_subcommand(found: Option<&'static Entry>, args: &[&[u8]]) -> Result<&'static Command, CommandError> {
    let Some(entry) = found else { return Err(CommandError::unknown(args)) };
    let Some(subname) = args.get(1) else { return Ok(&entry.command) };
    let found = entry.subcommands.iter().find(|command| command.row.name.as_bytes().eq_ignore_ascii_case(subname));
    found.ok_or_else(|| CommandError::unknown_subcommand(entry.command.row.name, subname))
}

#[inline]
fn find(name: &[u8]) -> Option<&'static Entry> {
    LazyLock::force(&TABLE).find(name)
}

/// Checks the number of arguments.
#[inline]
pub(crate) fn check_arity(command: &Command, args: &[&[u8]]) -> Result<(), CommandError> {
    let (arity, count) = (command.row.arity, args.len());
    let fits = if arity >= 0 { count == arity as usize } else { count >= arity.unsigned_abs() as usize };
    if fits { Ok(()) } else { Err(wrong_arity(command)) }
}

#[cold]
fn wrong_arity(command: &Command) -> CommandError {
    CommandError::wrong_arity(&command.full_name())
}

#[cfg(test)]
mod tests {
    use super::{all, find_named, look_up};

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        for command in all().filter(|command| command.container.is_none()) {
            let name = command.row.name;
            for name in [name.to_owned(), name.to_uppercase(), format!("{}{}", name[..1].to_uppercase(), &name[1..])] {
                let found = find_named(name.as_bytes()).map(|found| found.number);
                assert_eq!(found, Some(command.number), "{name}");
            }
        }
    }

    #[test]
    fn what_only_resembles_a_name_is_none() {
        // The last ones differ from a name in the bit that letters have for their case.
        for name in [
            &b""[..],
            b"ge",
            b"gett",
            b"g\0t",
            b"getgetgetgetgetgetgetgetgetgetgetgetget",
            b"restore\rasking",
            b"@GET",
            b"geoadd\x7f",
            // Alike in their first letters, their last ones, or both.
            b"geta",
            b"hgetal",
            b"hgetalll",
            b"zrangxstore",
            b"   ",
        ] {
            assert!(look_up(&[name]).is_err(), "{}", name.escape_ascii());
        }
    }
}
