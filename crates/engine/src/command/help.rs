//! HELP of containers: their subcommands with a line about each.

use super::call::Call;
use super::error::CommandError;

/// Replies with `lines`, those of a subcommand's meaning indented, between the usual first and last ones.
pub(crate) fn help(call: &mut Call<'_, '_>, lines: &[&str]) -> Result<(), CommandError> {
    let container =
        call.args.first().map(|name| String::from_utf8_lossy(name).to_ascii_uppercase()).unwrap_or_default();
    call.reply.array(lines.len() + 3);
    call.reply.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| call.reply.simple(line));
    call.reply.simple("HELP");
    call.reply.simple("    Prints this help.");
    Ok(())
}

/// A subcommand that has no such form with so many arguments.
pub(crate) fn misused(call: &Call<'_, '_>) -> CommandError {
    let word = |at: usize| call.args.get(at).copied().unwrap_or_default();
    CommandError::misused_subcommand(&String::from_utf8_lossy(word(0)), word(1))
}
