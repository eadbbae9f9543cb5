//! COMMAND GETKEYS: the keys of a command that somebody else is to carry out.

use super::facts::{self, Begin, Find, KeySpec};
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::{Command, KeyPositions, Positions, check_arity, look_up};

pub(super) fn getkeys(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (_, positions) = find(&call.args[2..])?;
    call.reply.array(positions.len());
    for at in positions {
        call.reply.bulk(call.args[2 + at]);
    }
    Ok(())
}

pub(super) fn getkeysandflags(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let args = &call.args[2..];
    let (command, positions) = find(args)?;
    let specs = facts::keys(&command.full_name());
    call.reply.array(positions.len());
    for at in positions {
        let spec = specs.iter().rev().find(|spec| covers(spec, args, at)).or(specs.first());
        let flags = spec.map_or(&[][..], |spec| &spec.flags);
        call.reply.array(2);
        call.reply.bulk(args[at]);
        call.reply.set(flags.len());
        flags.iter().for_each(|flag| call.reply.simple(flag));
    }
    Ok(())
}

/// The command, and the positions of its keys among `args`.
fn find(args: &[&[u8]]) -> Result<(Command, Positions), CommandError> {
    let command = look_up(args).map_err(|_| CommandError::text("ERR Invalid command specified"))?;
    if matches!(command.row.keys, KeyPositions::None) {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    check_arity(&command, args)
        .map_err(|_| CommandError::text("ERR Invalid number of arguments specified for command"))?;
    let positions = command.row.keys.positions(args);
    if positions.is_empty() {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    Ok((command, positions))
}

/// Whether the key at a position is one of those that `spec` finds.
fn covers(spec: &KeySpec, args: &[&[u8]], at: usize) -> bool {
    let begin = match spec.begin {
        Begin::Index(begin) => usize::try_from(begin).ok(),
        Begin::Keyword(word, _) => {
            args.iter().position(|arg| arg.eq_ignore_ascii_case(word.as_bytes())).map(|position| position + 1)
        }
        Begin::Unknown => None,
    };
    let Some(begin) = begin else { return false };
    match spec.find {
        Find::Range { last, .. } if last >= 0 => (begin..=begin + last as usize).contains(&at),
        Find::Range { .. } => at >= begin,
        Find::Count { first, .. } => at >= begin + usize::try_from(first).unwrap_or(0),
        Find::Unknown => false,
    }
}
