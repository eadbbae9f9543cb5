//! Which options Redis documents for its commands, to see that the generators use them all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::command::Command;
use crate::endpoint::{Client, Endpoint};
use crate::families::families;
use crate::random::Random;
use crate::reply::Reply;

/// What COMMAND DOCS calls the commands that are compared at random. Connections and servers have transcripts.
const GROUPS: &[&str] = &[
    "bitmap",
    "generic",
    "geo",
    "hash",
    "hyperloglog",
    "list",
    "pubsub",
    "scripting",
    "set",
    "sorted-set",
    "string",
    "transactions",
];

/// Commands, or options of one, that no template has to make.
const LEFT_OUT: &[&str] = &[
    // The engine does not have them.
    "FCALL",
    "FCALL_RO",
    "FUNCTION",
    "MIGRATE",
    // They speak to other servers, or to one that debugs.
    "PFDEBUG",
    "PFSELFTEST",
    "SCRIPT DEBUG",
    "WAIT",
    // Time passes meanwhile, and what remains open is all that they show; they have transcripts.
    "OBJECT FREQ",
    "OBJECT IDLETIME",
];

/// Enough for every alternative of a template to come up.
const COMMANDS_PER_FAMILY: usize = 60_000;

/// The commands and options that a server documents and no family makes, such as `ZADD` or `ZADD CH`.
///
/// # Errors
/// The server cannot be reached, or does not document its commands.
pub fn missing(server: &mut dyn Endpoint) -> io::Result<BTreeSet<String>> {
    let docs = Client::connect(server)?.call(&Command::words("COMMAND DOCS"))?;
    let made = made();
    let mut missing = BTreeSet::new();
    for (name, docs) in pairs(&docs) {
        if !GROUPS.contains(&text(field(docs, "group")).as_str()) {
            continue;
        }
        let subcommands = pairs(field(docs, "subcommands").unwrap_or(&NOTHING));
        let subcommands: Vec<_> = subcommands.map(|(name, docs)| (text(Some(name)).replace('|', " "), docs)).collect();
        let own = [(text(Some(name)), docs)];
        for (name, docs) in if subcommands.is_empty() { own.to_vec() } else { subcommands } {
            let name = name.to_ascii_uppercase();
            let is_left_out = |left_out: &&&str| name == **left_out || name.starts_with(&format!("{left_out} "));
            if LEFT_OUT.iter().find(is_left_out).is_some() || name.ends_with(" HELP") {
                continue;
            }
            let Some(words) = made.get(&name) else {
                missing.insert(name);
                continue;
            };
            let options = tokens(field(docs, "arguments").unwrap_or(&NOTHING));
            missing.extend(options.difference(words).map(|option| format!("{name} {option}")));
        }
    }
    Ok(missing)
}

/// Every word that follows a command anywhere, by the command's name with and without its subcommand.
fn made() -> BTreeMap<String, BTreeSet<String>> {
    let mut made: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for family in families() {
        let mut random = Random::new(1);
        for command in family.sequence(&mut random, COMMANDS_PER_FAMILY) {
            for name in [command.name(), format!("{} {}", command.name(), command.word(1))] {
                let words = (1..command.arguments.len()).map(|index| command.word(index));
                made.entry(name).or_default().extend(words);
            }
        }
    }
    made
}

/// All options among these arguments, at any depth.
fn tokens(arguments: &Reply) -> BTreeSet<String> {
    let mut tokens = BTreeSet::new();
    for argument in arguments.items() {
        // An empty string is an argument too, in the texts of Redis.
        tokens.extend(field(argument, "token").map(|token| text(Some(token))).filter(|token| token != "\"\""));
        tokens.extend(self::tokens(field(argument, "arguments").unwrap_or(&NOTHING)));
    }
    tokens
}

static NOTHING: Reply = Reply::Many(b'*', Vec::new());

fn pairs(map: &Reply) -> impl Iterator<Item = (&Reply, &Reply)> {
    map.items().chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
}

fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a Reply> {
    pairs(map).find(|(field, _)| field.bytes() == Some(name.as_bytes())).map(|(_, value)| value)
}

fn text(reply: Option<&Reply>) -> String {
    String::from_utf8_lossy(reply.and_then(Reply::bytes).unwrap_or_default()).into_owned()
}
