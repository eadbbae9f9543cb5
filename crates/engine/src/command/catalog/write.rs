//! How COMMAND INFO is laid out.

use acteon_resp::ReplyWriter;

use super::facts::{self, Begin, Find, KeySpec};
use super::{Command, subcommands};
use crate::command::row::{Flags, Group, KeyPositions, Row};

/// In the order in which Redis lists them. It has a flag for what scripts may replicate as well, and keeps that to itself.
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
    // In RESP3 an array, but a set where there are none: so Redis writes it.
    if subcommands.is_empty() {
        reply.set(0);
    } else {
        reply.array(subcommands.len());
    }
    subcommands.iter().for_each(|subcommand| info(reply, subcommand));
}

pub(super) fn simple_set(reply: &mut ReplyWriter<'_>, names: &[&str]) {
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

/// Whether a command is in an access category.
type IsIn = fn(&Row) -> bool;

/// The access categories, which follow from flags and group, in the order in which Redis lists them.
const CATEGORIES: &[(&str, IsIn)] = &[
    ("@keyspace", |row| row.flags.has(Flags::KEYSPACE) || is_of(row, Group::Generic)),
    ("@read", |row| row.flags.has(Flags::READONLY) && row.group != Group::Scripting),
    ("@write", |row| row.flags.has(Flags::WRITE)),
    ("@set", |row| is_of(row, Group::Set) || sorts(row)),
    ("@sortedset", |row| is_of(row, Group::SortedSet) || sorts(row)),
    ("@list", |row| is_of(row, Group::List) || sorts(row)),
    ("@hash", |row| is_of(row, Group::Hash)),
    ("@string", |row| is_of(row, Group::String)),
    ("@bitmap", |row| is_of(row, Group::Bitmap)),
    ("@hyperloglog", |row| is_of(row, Group::HyperLogLog)),
    ("@geo", |row| is_of(row, Group::Geo)),
    ("@pubsub", |row| row.flags.has(Flags::PUBSUB)),
    ("@admin", |row| row.flags.has(Flags::ADMIN.and(Flags::ADMIN_CATEGORY))),
    ("@fast", |row| row.flags.has(Flags::FAST)),
    ("@slow", |row| !row.flags.has(Flags::FAST)),
    ("@blocking", |row| row.flags.has(Flags::BLOCKING)),
    ("@dangerous", |row| row.flags.has(Flags::DANGEROUS.and(Flags::ADMIN))),
    ("@connection", |row| row.flags.has(Flags::CONNECTION) || is_of(row, Group::Connection)),
    ("@transaction", |row| is_of(row, Group::Transactions)),
    ("@scripting", |row| is_of(row, Group::Scripting)),
];

pub(super) fn categories(row: &Row) -> Vec<&'static str> {
    CATEGORIES.iter().filter(|(_, is_in)| is_in(row)).map(|(name, _)| *name).collect()
}

/// Whether the group alone puts a command into the category of that name. A container by itself does nothing.
fn is_of(row: &Row, group: Group) -> bool {
    row.group == group && row.subcommands.is_empty() && !row.flags.has(Flags::CONNECTION) && !sorts(row)
}

/// The one family that works on several types, and is filed under all of them.
fn sorts(row: &Row) -> bool {
    matches!(row.name, "sort" | "sort_ro")
}

fn key_spec(reply: &mut ReplyWriter<'_>, spec: &KeySpec) {
    reply.map(if spec.note.is_some() { 4 } else { 3 });
    if let Some(note) = spec.note {
        reply.bulk(b"notes");
        reply.bulk(note.as_bytes());
    }
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
