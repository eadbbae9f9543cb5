//! INFO, CONFIG, TIME, and what else is said to and about a server as a whole.

mod config;
mod info;

use super::call::Call;
use super::error::CommandError;
use super::row::{Flags, Group, Row, Scope};

fn time(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let now_us = call.keys.now_us;
    call.reply.array(2);
    call.reply.bulk((now_us / 1_000_000).to_string().as_bytes());
    call.reply.bulk((now_us % 1_000_000).to_string().as_bytes());
    Ok(())
}

const SAID: &[Flags] = &[Flags::LOADING, Flags::STALE];

pub(super) const ROWS: &[Row] = &[
    Row::new("info", -1, Group::Server, info::info)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::DANGEROUS])
        .scope(Scope::StepwiseEverywhere)
        .docs("1.0.0", "Numbers and facts about the server."),
    Row::new("config", -2, Group::Server, config::config)
        .subcommands(config::SUBCOMMANDS)
        .docs("2.0.0", "The settings of the server."),
    Row::new("time", 1, Group::Server, time)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .docs("2.6.0", "The time of the server."),
];
