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

use hashbrown::HashMap;

pub(crate) use call::{Access, BlockRequest, Call, Effects, Lookups};
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

/// Longest name of a command; longer ones are unknown without looking.
const NAME_BYTES_MAX: usize = 32;

/// A command that exists: a row, and its number for statistics.
#[derive(Clone, Copy)]
pub(crate) struct Command {
    pub(crate) row: &'static Row,
    /// The row of the container, for a subcommand.
    pub(crate) container: Option<&'static Row>,
    /// Distinct for each command and subcommand, below [`count`].
    pub(crate) number: usize,
}

impl Command {
    /// The name as clients write it in lower case, `config|get` for a subcommand.
    pub(crate) fn full_name(&self) -> String {
        match self.container {
            Some(container) => format!("{}|{}", container.name, self.row.name),
            None => self.row.name.to_owned(),
        }
    }
}

struct Table {
    commands: Vec<Command>,
    by_name: HashMap<&'static [u8], Entry, foldhash::fast::FixedState>,
}

struct Entry {
    command: Command,
    subcommands: Vec<Command>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { commands: Vec::new(), by_name: HashMap::default() };
    for row in FAMILIES.iter().copied().flatten() {
        let command = Command { row, container: None, number: table.commands.len() };
        table.commands.push(command);
        let mut subcommands = Vec::new();
        for subrow in row.subcommands {
            let number = table.commands.len();
            subcommands.push(Command { row: subrow, container: Some(row), number });
            table.commands.push(Command { row: subrow, container: Some(row), number });
        }
        let before = table.by_name.insert(row.name.as_bytes(), Entry { command, subcommands });
        assert!(before.is_none(), "{} has one row", row.name);
    }
    table
});

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
    let name = args.first().copied().unwrap_or_default();
    let Some(entry) = find(name) else { return Err(CommandError::unknown(args)) };
    if entry.subcommands.is_empty() {
        return Ok(entry.command);
    }
    let Some(subname) = args.get(1) else { return Ok(entry.command) };
    let found = entry.subcommands.iter().find(|command| command.row.name.as_bytes().eq_ignore_ascii_case(subname));
    found.copied().ok_or_else(|| CommandError::unknown_subcommand(entry.command.row.name, subname))
}

fn find(name: &[u8]) -> Option<&'static Entry> {
    let mut lower = [0_u8; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    TABLE.by_name.get(&*lower)
}

/// Checks the number of arguments.
pub(crate) fn check_arity(command: &Command, args: &[&[u8]]) -> Result<(), CommandError> {
    let arity = command.row.arity;
    let needed = arity.unsigned_abs() as usize;
    let fits = if arity >= 0 { args.len() == needed } else { args.len() >= needed };
    if fits { Ok(()) } else { Err(CommandError::wrong_arity(&command.full_name())) }
}
