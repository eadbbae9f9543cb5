//! COMMAND: what the server says about its commands, all of it from their rows.
//!
//! Tips and key specifications, which clients of clusters read, are in `catalog/facts.txt`; what COMMAND DOCS says besides a summary, first of
//! all the arguments, from which clients make their help, is in `catalog/docs.txt`.

mod describe;
mod docs;
mod facts;
mod find;
mod write;

use super::call::Call;
use super::error::CommandError;
use super::options::is;
use super::row::{Flags, Group, Row};
use super::{Command, all, find_named, subcommands};
use crate::algorithm::glob::{self, Case};

/// Commands without their subcommands, in the order of the table.
fn commands() -> impl Iterator<Item = &'static Command> {
    all().filter(|command| command.container.is_none())
}

fn command(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.array(commands().count());
    commands().for_each(|command| write::info(&mut call.reply, command));
    Ok(())
}

fn count(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.integer(commands().count() as i64);
    Ok(())
}

/// `COMMAND INFO [name ..]`, a subcommand being named `container|name`.
fn info(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.args.len() == 2 {
        return command(call);
    }
    call.reply.array(call.args.len() - 2);
    for name in &call.args[2..] {
        match find_named(name) {
            Some(command) => write::info(&mut call.reply, &command),
            None => call.reply.null(),
        }
    }
    Ok(())
}

/// `COMMAND DOCS [name ..]`; unknown names are left out.
fn docs(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let named: Vec<Command> = match &call.args[2..] {
        [] => commands().copied().collect(),
        names => names.iter().filter_map(|name| find_named(name)).collect(),
    };
    call.reply.map(named.len());
    named.iter().for_each(|command| describe::docs(&mut call.reply, command));
    Ok(())
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`
fn list(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let names: Vec<String> = match &call.args[2..] {
        [] => all().map(Command::full_name).collect(),
        [filter, kind, value] if is(filter, "FILTERBY") => filtered(kind, value)?,
        _ => return Err(CommandError::Syntax),
    };
    call.reply.array(names.len());
    names.iter().for_each(|name| call.reply.bulk(name.as_bytes()));
    Ok(())
}

fn filtered(kind: &[u8], value: &[u8]) -> Result<Vec<String>, CommandError> {
    let names =
        |keep: &dyn Fn(&Command) -> bool| all().filter(|command| keep(command)).map(Command::full_name).collect();
    if is(kind, "MODULE") {
        // There are no modules.
        Ok(Vec::new())
    } else if is(kind, "ACLCAT") {
        Ok(names(&|command| write::categories(command.row).iter().any(|category| is(value, &category[1..]))))
    } else if is(kind, "PATTERN") {
        Ok(names(&|command| glob::matches(value, command.full_name().as_bytes(), Case::Ignored)))
    } else {
        Err(CommandError::Syntax)
    }
}

fn help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let lines = [
        "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "(no subcommand)",
        "    What COMMAND INFO says of all commands.",
        "COUNT",
        "    The number of commands.",
        "LIST [FILTERBY (MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>)]",
        "    The names of commands and subcommands.",
        "INFO [<command-name> ...]",
        "    Arity, flags, keys and categories of commands.",
        "DOCS [<command-name> ...]",
        "    What commands do.",
        "GETKEYS <full-command>",
        "    The keys of a command.",
        "GETKEYSANDFLAGS <full-command>",
        "    The keys of a command, and what it does to each.",
        "HELP",
        "    Print this help.",
    ];
    call.reply.array(lines.len());
    lines.iter().for_each(|line| call.reply.simple(line));
    Ok(())
}

const FLAGS: &[Flags] = &[Flags::LOADING, Flags::STALE, Flags::CONNECTION];

const SUBCOMMANDS: &[Row] = &[
    Row::new("count", 2, Group::Server, count).flags(FLAGS).docs("2.8.13", "The number of commands."),
    Row::new("docs", -2, Group::Server, docs).flags(FLAGS).docs("7.0.0", "What commands do, in a line each."),
    Row::new("getkeys", -4, Group::Server, find::getkeys).flags(FLAGS).docs("2.8.13", "The keys of a command."),
    Row::new("getkeysandflags", -4, Group::Server, find::getkeysandflags)
        .flags(FLAGS)
        .docs("7.0.0", "The keys of a command, and what it does to each."),
    Row::new("help", 2, Group::Server, help).flags(FLAGS).docs("5.0.0", "What COMMAND can say."),
    Row::new("info", -2, Group::Server, info)
        .flags(FLAGS)
        .docs("2.8.13", "Arity, flags, keys and categories of commands."),
    Row::new("list", -2, Group::Server, list).flags(FLAGS).docs("7.0.0", "The names of commands and subcommands."),
];

pub(super) const ROWS: &[Row] = &[Row::new("command", -1, Group::Server, command)
    .flags(FLAGS)
    .subcommands(SUBCOMMANDS)
    .docs("2.8.13", "What the server says about its commands.")];

#[cfg(test)]
mod tests {
    use super::facts::keys;
    use super::{all, commands};
    use crate::command::row::KeyPositions;

    #[test]
    fn facts_are_about_commands_that_exist() {
        for name in super::facts::names() {
            assert!(all().any(|command| command.full_name() == name), "{name} is in facts.txt, and has no row");
        }
    }

    #[test]
    fn every_command_with_keys_says_how_they_are_found() {
        for command in commands().filter(|command| !matches!(command.row.keys, KeyPositions::None)) {
            assert!(!keys(&command.full_name()).is_empty(), "{}", command.full_name());
        }
    }
}
