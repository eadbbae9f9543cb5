//! MEMORY: what keys and the server use, by the engine's own estimate.

use acteon_resp::ReplyWriter;

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::help::help;
use super::super::options::{integer, is};
use super::super::row::{Flags, Group, Row, Scope};
use super::info::{keyspace, percent};
use crate::evict::EvictionPolicy;

/// Below this much there is nothing to say about memory.
const LITTLE_BYTES: u64 = 5 << 20;

/// The size is known without taking samples, so their number only has to be one.
fn usage(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut options = call.args[3..].iter();
    while let Some(option) = options.next() {
        let samples = options.next().filter(|_| is(option, "SAMPLES")).ok_or(CommandError::Syntax)?;
        if integer(samples)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let slot = call.keys.peek(call.args[2]);
    match slot.cost_bytes() {
        Some(bytes) => call.reply.integer(signed(bytes)),
        None => call.reply.null(),
    }
    Ok(())
}

fn stats(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let databases = keyspace(call)?;
    let instance = call.instance;
    let used: u64 = databases.iter().map(|(_, stats)| stats.bytes).sum();
    let keys: u64 = databases.iter().map(|(_, stats)| stats.keys).sum();
    let (peak, resident) = (instance.stats.peak_bytes(used), instance.usage().resident_bytes);
    let buffers: u64 = instance.peers.all().iter().map(|peer| peer.facts.snapshot().buffers.total_bytes()).sum();
    let (_, scripts_bytes) = instance.scripts.size();
    let numbers = [
        ("peak.allocated", signed(peak)),
        ("total.allocated", signed(used)),
        ("startup.allocated", 0),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", signed(buffers)),
        ("cluster.links", 0),
        ("aof.buffer", 0),
        ("lua.caches", signed(scripts_bytes as u64)),
        ("functions.caches", 0),
        ("overhead.total", signed(buffers.saturating_add(scripts_bytes as u64))),
        ("keys.count", signed(keys)),
        ("keys.bytes-per-key", signed(used.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", signed(used)),
        ("allocator.allocated", signed(used)),
        ("allocator.resident", signed(resident)),
        ("fragmentation.bytes", signed(resident).saturating_sub(signed(used))),
    ];
    let ratios = [
        ("dataset.percentage", percent(used, used)),
        ("peak.percentage", percent(used, peak)),
        ("fragmentation", if used == 0 { 0.0 } else { resident as f64 / used as f64 }),
    ];
    let reply = &mut call.reply;
    let shown: Vec<usize> = databases.iter().filter(|(_, stats)| stats.keys > 0).map(|(number, _)| *number).collect();
    reply.map(numbers.len() + ratios.len() + shown.len());
    for (name, value) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    }
    shown.iter().for_each(|number| database(*number, reply));
    for (name, value) in ratios {
        reply.bulk(name.as_bytes());
        reply.double(value);
    }
    Ok(())
}

/// The tables of a database are part of the estimate of its keys.
fn database(number: usize, reply: &mut ReplyWriter<'_>) {
    reply.bulk(format!("db.{number}").as_bytes());
    reply.map(3);
    for name in ["overhead.hashtable.main", "overhead.hashtable.expires", "overhead.hashtable.slot-to-keys"] {
        reply.bulk(name.as_bytes());
        reply.integer(0);
    }
}

fn doctor(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let used: u64 = keyspace(call)?.iter().map(|(_, stats)| stats.bytes).sum();
    let (resident, bytes_max) =
        (call.instance.usage().resident_bytes, call.instance.databases.first().memory_bytes_max());
    let is_near_bound = bytes_max.is_some_and(|bytes_max| used >= bytes_max / 10 * 9);
    let text = if is_near_bound && call.instance.eviction().policy() == EvictionPolicy::NoEviction {
        "More than nine tenths of maxmemory are in use: writes will soon be refused.\n"
    } else if bytes_max.is_some_and(|bytes_max| used >= bytes_max) {
        "maxmemory is reached, and little or nothing may be evicted: writes are refused. Raise maxmemory, or look at what has no time to live \
         or is never evicted.\n"
    } else if is_near_bound && resident > bytes_max.unwrap_or(0).saturating_mul(2) {
        "Keys are evicted to stay below maxmemory, and the process holds more than twice as much: the allocator keeps what was \
         evicted, or clients keep large buffers.\n"
    } else if used < LITTLE_BYTES {
        "So little memory is in use that there is nothing to say about it.\n"
    } else if resident > used.saturating_mul(2) {
        "The process holds more than twice the memory of its keys: much was removed, or clients keep large buffers.\n"
    } else {
        "Nothing is unusual about the memory.\n"
    };
    call.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn purge(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.instance.free_garbage();
    call.reply.simple("OK");
    Ok(())
}

fn malloc_stats(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.bulk(b"Stats not supported for the current allocator");
    Ok(())
}

fn memory_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const LINES: &[&str] = &[
        "DOCTOR",
        "    Says in words what is unusual about the memory.",
        "MALLOC-STATS",
        "    What the allocator says about itself, if it does.",
        "PURGE",
        "    Frees what was removed and waits to be freed.",
        "STATS",
        "    What the memory is used for.",
        "USAGE <key> [SAMPLES <count>]",
        "    Bytes that a key and its value take.",
    ];
    help(call, LINES)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) const SUBCOMMANDS: &[Row] = &[
    Row::new("help", 2, Group::Server, memory_help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .docs("4.0.0", "What the subcommands are."),
    Row::new("doctor", 2, Group::Server, doctor)
        .scope(Scope::StepwiseEverywhere)
        .docs("4.0.0", "What is unusual about the memory, in words."),
    Row::new("malloc-stats", 2, Group::Server, malloc_stats).docs("4.0.0", "What the allocator says about itself."),
    Row::new("stats", 2, Group::Server, stats)
        .scope(Scope::StepwiseEverywhere)
        .docs("4.0.0", "What the memory is used for."),
    Row::new("purge", 2, Group::Server, purge).docs("4.0.0", "Frees what waits to be freed."),
    Row::new("usage", -3, Group::Server, usage)
        .flags(&[Flags::READONLY])
        .keys(2, 2, 1)
        .docs("4.0.0", "Bytes that a key and its value take."),
];
