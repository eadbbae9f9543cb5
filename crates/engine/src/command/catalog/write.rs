//! How COMMAND INFO and COMMAND DOCS are laid out.

use acteon_resp::ReplyWriter;

use super::facts::{self, Begin, Find, KeySpec};
use super::{Command, subcommands};
use crate::command::row::{Flags, Group, KeyPositions, Row};

const FLAG_NAMES: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::MAY_REPLICATE, "may_replicate"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLEKEYS, "movablekeys"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

pub(super) fn info(reply: &mut ReplyWriter<'_>, command: &Command) {
    let (row, name) = (command.row, command.full_name());
    reply.array(10);
    reply.bulk(name.as_bytes());
    reply.integer(i64::from(row.arity));
    let flags: Vec<_> = FLAG_NAMES.iter().filter(|(flag, _)| row.flags.has(*flag)).map(|(_, name)| *name).collect();
    simple_set(reply, &flags);
    let (first, last, step) = legacy_range(&row.keys, facts::keys(&name));
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    simple_set(reply, &categories(row));
    let tips = facts::tips(&name);
    reply.set(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    let keys = facts::keys(&name);
    reply.set(keys.len());
    keys.iter().for_each(|spec| key_spec(reply, spec));
    let subcommands = if command.container.is_none() { subcommands(row.name.as_bytes()) } else { &[] };
    reply.set(subcommands.len());
    subcommands.iter().for_each(|subcommand| info(reply, subcommand));
}

fn simple_set(reply: &mut ReplyWriter<'_>, names: &[&str]) {
    reply.set(names.len());
    names.iter().for_each(|name| reply.simple(name));
}

/// Positions as clients before Redis 7 read them: of the first range that begins at a fixed position.
fn legacy_range(keys: &KeyPositions, specs: &[KeySpec]) -> (i64, i64, i64) {
    if let KeyPositions::Range { first, last, step } = keys {
        return (*first as i64, i64::from(*last), *step as i64);
    }
    let range = specs.iter().find_map(|spec| match (&spec.begin, &spec.find) {
        (Begin::Index(first), Find::Range { last, step, .. }) => {
            Some((*first, if *last < 0 { *last } else { first + last }, *step))
        }
        _ => None,
    });
    range.unwrap_or_default()
}

/// The access categories, which follow from flags and group.
pub(super) fn categories(row: &Row) -> Vec<&'static str> {
    let flags = row.flags;
    let of_group = match row.group {
        Group::Generic => "@keyspace",
        Group::String => "@string",
        Group::List => "@list",
        Group::Set => "@set",
        Group::SortedSet => "@sortedset",
        Group::Hash => "@hash",
        Group::PubSub => "@pubsub",
        Group::Transactions => "@transaction",
        Group::Connection => "@connection",
        Group::Scripting => "@scripting",
        Group::HyperLogLog => "@hyperloglog",
        Group::Geo => "@geo",
        Group::Bitmap => "@bitmap",
        Group::Server => "",
    };
    // A container by itself does nothing.
    let of_group = if row.subcommands.is_empty() { of_group } else { "" };
    let mut names: Vec<&'static str> = [
        (flags.has(Flags::KEYSPACE) && row.group != Group::Generic, "@keyspace"),
        (flags.has(Flags::READONLY) && row.group != Group::Scripting, "@read"),
        (flags.has(Flags::WRITE), "@write"),
        (!of_group.is_empty(), of_group),
        (flags.has(Flags::PUBSUB) && row.group != Group::PubSub, "@pubsub"),
        (flags.has(Flags::ADMIN.and(Flags::ADMIN_CATEGORY)), "@admin"),
        (flags.has(Flags::FAST), "@fast"),
        (!flags.has(Flags::FAST), "@slow"),
        (flags.has(Flags::BLOCKING), "@blocking"),
        (flags.has(Flags::DANGEROUS.and(Flags::ADMIN)), "@dangerous"),
    ]
    .into_iter()
    .filter_map(|(is_in, name)| is_in.then_some(name))
    .collect();
    if row.name == "sort" || row.name == "sort_ro" {
        // The one family that works on several types, and is filed under all of them.
        names.retain(|name| *name != "@keyspace");
        names.extend(["@set", "@sortedset", "@list"]);
    }
    names
}

fn key_spec(reply: &mut ReplyWriter<'_>, spec: &KeySpec) {
    reply.map(3);
    reply.bulk(b"flags");
    simple_set(reply, &spec.flags);
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => typed(reply, "index", &[("index", index)]),
        Begin::Keyword(word, from) => {
            reply.map(2);
            reply.bulk(b"type");
            reply.bulk(b"keyword");
            reply.bulk(b"spec");
            reply.map(2);
            reply.bulk(b"keyword");
            reply.bulk(word.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(from);
        }
        Begin::Unknown => typed(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            typed(reply, "range", &[("lastkey", last), ("keystep", step), ("limit", limit)]);
        }
        Find::Count { count_at, first, step } => {
            typed(reply, "keynum", &[("keynumidx", count_at), ("firstkey", first), ("keystep", step)]);
        }
        Find::Unknown => typed(reply, "unknown", &[]),
    }
}

fn typed(reply: &mut ReplyWriter<'_>, kind: &str, numbers: &[(&str, i64)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

/// A name and what is said of it.
pub(super) fn docs(reply: &mut ReplyWriter<'_>, command: &Command) {
    let subcommands = if command.container.is_none() { subcommands(command.row.name.as_bytes()) } else { &[] };
    reply.bulk(command.full_name().as_bytes());
    reply.map(if subcommands.is_empty() { 3 } else { 4 });
    for (name, text) in
        [("summary", command.row.summary), ("since", command.row.since), ("group", group_name(command.row.group))]
    {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.iter().for_each(|subcommand| docs(reply, subcommand));
    }
}

fn group_name(group: Group) -> &'static str {
    match group {
        Group::Generic => "generic",
        Group::String => "string",
        Group::List => "list",
        Group::Set => "set",
        Group::SortedSet => "sorted-set",
        Group::Hash => "hash",
        Group::PubSub => "pubsub",
        Group::Transactions => "transactions",
        Group::Connection => "connection",
        Group::Server => "server",
        Group::Scripting => "scripting",
        Group::HyperLogLog => "hyperloglog",
        Group::Geo => "geo",
        Group::Bitmap => "bitmap",
    }
}
