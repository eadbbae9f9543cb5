//! INFO, CONFIG, TIME, and what else is said to and about a server as a whole.

mod config;
mod debug;
mod graph;
mod info;
mod latency;
mod memory;
mod single;
mod slowlog;

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

/// The subcommands of a container answer; without one, its arity refuses.
fn container(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(CommandError::wrong_arity(call.row.name))
}

const ADMIN: &[Flags] = &[Flags::ADMIN, Flags::NOSCRIPT, Flags::NO_ASYNC_LOADING];
const SINGLE: &[Flags] = &[Flags::ADMIN, Flags::NOSCRIPT, Flags::STALE, Flags::NO_ASYNC_LOADING];

pub(super) const ROWS: &[Row] = &[
    Row::new("info", -1, Group::Server, info::info)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::DANGEROUS])
        .scope(Scope::StepwiseEverywhere)
        .docs("1.0.0", "Numbers and facts about the server."),
    Row::new("config", -2, Group::Server, container)
        .subcommands(config::SUBCOMMANDS)
        .docs("2.0.0", "The settings of the server."),
    Row::new("time", 1, Group::Server, time)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .docs("2.6.0", "The time of the server."),
    Row::new("slowlog", -2, Group::Server, container)
        .subcommands(slowlog::SUBCOMMANDS)
        .docs("2.2.12", "Commands that were slow."),
    Row::new("latency", -2, Group::Server, container)
        .subcommands(latency::SUBCOMMANDS)
        .docs("2.8.13", "What took long, and how long commands take."),
    Row::new("memory", -2, Group::Server, container)
        .subcommands(memory::SUBCOMMANDS)
        .docs("4.0.0", "What keys and the server take."),
    Row::new("debug", -2, Group::Server, debug::debug)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .scope(Scope::Choose(debug::scope))
        .docs("1.0.0", "For tests of clients."),
    Row::new("role", 1, Group::Server, single::role)
        .flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ADMIN_CATEGORY, Flags::DANGEROUS])
        .docs("2.8.12", "What the server is to its replicas."),
    Row::new("lastsave", 1, Group::Server, single::lastsave)
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST, Flags::ADMIN_CATEGORY, Flags::DANGEROUS])
        .docs("1.0.0", "When the data was last saved."),
    Row::new("save", 1, Group::Server, single::save)
        .flags(ADMIN)
        .flags(&[Flags::NO_MULTI])
        .docs("1.0.0", "Writes a snapshot, where data are kept on a disk."),
    Row::new("bgsave", -1, Group::Server, single::bgsave)
        .flags(ADMIN)
        .docs("1.0.0", "Begins a snapshot, where data are kept on a disk."),
    Row::new("bgrewriteaof", 1, Group::Server, single::bgrewriteaof)
        .flags(ADMIN)
        .docs("1.0.0", "Begins to rewrite the journal, where there is one."),
    Row::new("replicaof", 3, Group::Server, single::replicaof)
        .flags(SINGLE)
        .docs("5.0.0", "Makes the server follow nobody, which it does anyway."),
    Row::new("slaveof", 3, Group::Server, single::replicaof)
        .flags(SINGLE)
        .docs("1.0.0", "Makes the server follow nobody, which it does anyway."),
    Row::new("wait", 3, Group::Generic, single::wait)
        .flags(&[Flags::NOSCRIPT, Flags::CONNECTION])
        .docs("3.0.0", "How many replicas have what was written: none."),
    Row::new("shutdown", -1, Group::Server, single::shutdown)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::NO_MULTI, Flags::ALLOW_BUSY])
        .docs("1.0.0", "Ends the server."),
];
