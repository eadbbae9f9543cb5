//! How COMMAND DOCS is laid out.

use acteon_resp::ReplyWriter;

use super::docs::{Argument, Docs, of};
use super::write::simple_set;
use super::{Command, subcommands};
use crate::command::row::Group;

/// A name and what is said of it.
pub(super) fn docs(reply: &mut ReplyWriter<'_>, command: &Command) {
    let (name, row) = (command.full_name(), command.row);
    reply.bulk(name.as_bytes());
    let fields = reply.map_deferred();
    field(reply, "summary", row.summary);
    field(reply, "since", row.since);
    field(reply, "group", group_name(row.group));
    let mut count = 3;
    if let Some(docs) = of(&name) {
        count += beyond_row(reply, docs);
    }
    let subcommands = if command.container.is_none() { subcommands(row.name.as_bytes()) } else { &[] };
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.iter().for_each(|subcommand| self::docs(reply, subcommand));
        count += 1;
    }
    reply.close(fields, count);
}

/// Returns the number of fields.
fn beyond_row(reply: &mut ReplyWriter<'_>, docs: &Docs) -> usize {
    let mut count = 0;
    if let Some(complexity) = docs.complexity {
        field(reply, "complexity", complexity);
        count += 1;
    }
    let flags = [(docs.deprecated.is_some(), "deprecated"), (docs.is_syscmd, "syscmd")];
    count += flag_set(reply, "doc_flags", &flags);
    if let Some((since, instead)) = docs.deprecated {
        field(reply, "deprecated_since", since);
        field(reply, "replaced_by", instead);
        count += 2;
    }
    if !docs.history.is_empty() {
        reply.bulk(b"history");
        reply.set(docs.history.len());
        for (version, change) in &docs.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
        count += 1;
    }
    count + arguments(reply, &docs.arguments)
}

/// Writes the field `arguments` if there are any. Returns the number of fields, as all of these do.
fn arguments(reply: &mut ReplyWriter<'_>, arguments: &[Argument]) -> usize {
    if arguments.is_empty() {
        return 0;
    }
    reply.bulk(b"arguments");
    reply.array(arguments.len());
    arguments.iter().for_each(|argument| write_argument(reply, argument));
    1
}

fn write_argument(reply: &mut ReplyWriter<'_>, argument: &Argument) {
    let fields = reply.map_deferred();
    field(reply, "name", argument.name);
    field(reply, "type", argument.kind);
    let mut count = 2;
    if let Some(key_spec) = argument.key_spec {
        reply.bulk(b"key_spec_index");
        reply.integer(key_spec);
        count += 1;
    }
    let texts = [("token", argument.token), ("since", argument.since), ("deprecated_since", argument.deprecated_since)];
    for (name, text) in texts {
        if let Some(text) = text {
            field(reply, name, text);
            count += 1;
        }
    }
    let flags = [
        (argument.is_optional, "optional"),
        (argument.is_multiple, "multiple"),
        (argument.repeats_token, "multiple_token"),
    ];
    count += flag_set(reply, "flags", &flags);
    count += arguments(reply, &argument.parts);
    reply.close(fields, count);
}

fn field(reply: &mut ReplyWriter<'_>, name: &str, text: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(text.as_bytes());
}

/// Writes a field of those flags that are set, if any is.
fn flag_set(reply: &mut ReplyWriter<'_>, name: &str, flags: &[(bool, &'static str)]) -> usize {
    let set: Vec<_> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag).collect();
    if set.is_empty() {
        return 0;
    }
    reply.bulk(name.as_bytes());
    simple_set(reply, &set);
    1
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
