//! SLOWLOG: the last commands that were slow, see `instance/slowlog.rs`.

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::help::{help, misused};
use super::super::row::{Flags, Group, Row};

/// Entries for who does not say how many.
const COUNT_DEFAULT: usize = 10;

fn get(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = match *call.args {
        [_, _] => COUNT_DEFAULT,
        [_, _, count] => count_of(count)?,
        _ => return Err(misused(call)),
    };
    let commands = call.instance.slowlog.newest(count);
    let reply = &mut call.reply;
    reply.array(commands.len());
    for command in commands {
        reply.array(6);
        for number in [command.id, command.at_s, command.duration_us] {
            reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
        }
        reply.array(command.args.len());
        command.args.iter().for_each(|arg| reply.bulk(arg));
        reply.bulk(command.peer_address.as_bytes());
        reply.bulk(&command.client_name);
    }
    Ok(())
}

/// How many entries: -1 stands for all.
fn count_of(text: &[u8]) -> Result<usize, CommandError> {
    let count = acteon_resp::parse_i64(text).filter(|count| *count >= -1);
    let count = count.ok_or(CommandError::text("ERR count should be greater than or equal to -1"))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn len(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.integer(call.instance.slowlog.len() as i64);
    Ok(())
}

fn reset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.instance.slowlog.reset();
    call.reply.simple("OK");
    Ok(())
}

fn slowlog_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const LINES: &[&str] = &[
        "GET [<count>]",
        "    The newest entries: 10 unless said otherwise, -1 for all. Each has a number, when it ended,",
        "    how many microseconds it took, its arguments, and the address and name of its client.",
        "LEN",
        "    The number of entries.",
        "RESET",
        "    Removes all entries.",
    ];
    help(call, LINES)
}

const FLAGS: &[Flags] = &[Flags::ADMIN, Flags::LOADING, Flags::STALE];

pub(super) const SUBCOMMANDS: &[Row] = &[
    Row::new("help", 2, Group::Server, slowlog_help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .docs("6.2.0", "What the subcommands are."),
    Row::new("get", -2, Group::Server, get).flags(FLAGS).docs("2.2.12", "The newest slow commands."),
    Row::new("len", 2, Group::Server, len).flags(FLAGS).docs("2.2.12", "How many slow commands are kept."),
    Row::new("reset", 2, Group::Server, reset).flags(FLAGS).docs("2.2.12", "Forgets the slow commands."),
];
