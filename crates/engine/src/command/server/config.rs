//! CONFIG: settings by Redis's names, see `instance/settings.rs`.

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::help::help;
use super::super::row::{Flags, Group, Row, Scope};
use super::info::keyspace;
use crate::instance::SettingError;

fn get(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let found = call.instance.settings_like(&call.args[2..]);
    call.reply.map(found.len());
    for (name, value) in found {
        call.reply.bulk(&name);
        call.reply.bulk(&value);
    }
    Ok(())
}

fn set(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let words = &call.args[2..];
    if !words.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    call.instance.set_settings(&pairs).map_err(refused)?;
    // Between MULTI and EXEC what follows goes by the new thresholds already.
    (call.session.settings_version, call.session.limits) = call.instance.limits();
    call.reply.simple("OK");
    Ok(())
}

fn refused(error: SettingError) -> CommandError {
    match error {
        SettingError::Unknown(name) => {
            CommandError::quoting("ERR Unknown option or number of arguments for CONFIG SET - '", &name, "'")
        }
        SettingError::Refused { name, why } => CommandError::quoting(
            "ERR CONFIG SET failed (possibly related to argument '",
            &name,
            &format!("') - {why}"),
        ),
    }
}

fn resetstat(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let expired = keyspace(call)?.iter().map(|(_, stats)| stats.expired_total).sum();
    call.instance.reset_stats(expired);
    call.reply.simple("OK");
    Ok(())
}

/// The configuration belongs to whoever runs the engine.
fn rewrite(_: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(CommandError::text("ERR The server is running without a config file"))
}

fn config_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const LINES: &[&str] = &[
        "GET <pattern> [<pattern> ...]",
        "    The settings whose names match, with their values.",
        "SET <name> <value> [<name> <value> ...]",
        "    Changes settings, all or none.",
        "RESETSTAT",
        "    Begins the counts of INFO anew.",
        "REWRITE",
        "    Refused: the file of settings is not written by this server.",
    ];
    help(call, LINES)
}

const FLAGS: &[Flags] = &[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE];

pub(super) const SUBCOMMANDS: &[Row] = &[
    Row::new("help", 2, Group::Server, config_help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .docs("5.0.0", "What the subcommands are."),
    Row::new("get", -3, Group::Server, get).flags(FLAGS).docs("2.0.0", "Settings whose names match a pattern."),
    Row::new("set", -4, Group::Server, set).flags(FLAGS).docs("2.0.0", "Changes settings."),
    Row::new("resetstat", 2, Group::Server, resetstat)
        .flags(FLAGS)
        .scope(Scope::StepwiseEverywhere)
        .docs("2.0.0", "Begins the counts of INFO anew."),
    Row::new("rewrite", 2, Group::Server, rewrite).flags(FLAGS).docs("2.8.0", "Writes the settings to their file."),
];
