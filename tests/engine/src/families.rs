//! Families of commands, each a table of templates.
//!
//! A sequence begins with a few keys of every type, so that wrong types are met from the first command on. A family that needs several
//! connections says on which one each table is used.

mod collections;
mod keys;
mod pubsub;
mod scripts;
mod server;
mod sorted_sets;
mod strings;
mod transactions;

use std::sync::LazyLock;

use crate::command::Command;
use crate::random::Random;
use crate::sequence::SUBSCRIBER_FIRST;
use crate::template::Template;

pub use scripts::SCRIPTS;
pub use server::COMMAND_NAMES;

/// Commands that are tested together.
#[derive(Debug)]
pub struct Family {
    /// The name of its test.
    pub name: &'static str,
    /// Its part of all commands, in relation to the others.
    pub share: usize,
    /// Each with the connections that it may use.
    tables: Vec<(Vec<Template>, &'static [u8])>,
}

/// Sent before anything else: a key of each type.
const PREAMBLE: &[&str] = &[
    "SET s0 10",
    "SET s1 abc",
    "SET sy abc",
    "SETBIT b0 7 1",
    "PFADD p0 a b c",
    "HSET h0 a 1 b x 5 1.5",
    "RPUSH l0 a 1 b 2",
    "SADD e0 1 2 3",
    "SADD e1 a b 3",
    "ZADD z0 1 a 2 b 2 c 3 1",
    "GEOADD g0 13.361389 38.115556 a 15.087269 37.502669 b",
];

const ONE: &[u8] = &[0];
const TWO: &[u8] = &[0, 1];
const SUBSCRIBERS: &[u8] = &[SUBSCRIBER_FIRST, SUBSCRIBER_FIRST + 1];

/// All families, in the order of their tests.
pub fn families() -> Vec<Family> {
    let simple = |name, share, lines: &[&str]| Family { name, share, tables: vec![(table(lines), ONE)] };
    vec![
        Family {
            name: "strings",
            share: 12,
            tables: [strings::STRINGS, strings::STRINGS, strings::EXPIRED].map(|lines| (table(lines), ONE)).into(),
        },
        simple("bitmaps", 10, strings::BITMAPS),
        simple("hyperloglog", 4, strings::HYPERLOGLOG),
        Family { name: "keys", share: 12, tables: vec![(table(keys::KEYS), ONE), (data_table(), ONE)] },
        simple("hashes", 10, collections::HASHES),
        simple("lists", 10, collections::LISTS),
        simple("sets", 8, collections::SETS),
        simple("sorted_sets", 14, sorted_sets::SORTED_SETS),
        simple("geo", 5, sorted_sets::GEO),
        Family {
            name: "transactions",
            share: 6,
            tables: vec![(table(transactions::TRANSACTIONS), TWO), (data_table(), TWO)],
        },
        simple("scripts", 6, scripts::SCRIPT_COMMANDS),
        Family {
            name: "pubsub",
            share: 2,
            tables: vec![
                (table(pubsub::SUBSCRIBER), SUBSCRIBERS),
                (table(pubsub::PUBLISHER), ONE),
                // When the event of an expired key comes is up to the server.
                (data_table().into_iter().filter(|template| !template.lets_time_pass()).collect(), ONE),
            ],
        },
        simple("server", 2, server::SERVER),
    ]
}

impl Family {
    /// A sequence of about `length` commands.
    pub fn sequence(&self, random: &mut Random, length: usize) -> Vec<Command> {
        let mut commands = Vec::with_capacity(length + 8);
        for connection in self.connections() {
            if random.percent(50) {
                commands.push(Command { connection, ..Command::words("HELLO 3") });
            }
        }
        commands.extend(PREAMBLE.iter().map(|line| Command::words(line)));
        while commands.len() < length {
            let (templates, connections) = random.pick(&self.tables);
            let connection = *random.pick(connections);
            let made = random.pick(templates).generate(random);
            commands.extend(made.into_iter().map(|command| Command { connection, ..command }));
        }
        commands
    }

    fn connections(&self) -> Vec<u8> {
        let mut connections: Vec<_> = self.tables.iter().flat_map(|(_, connections)| *connections).copied().collect();
        connections.sort_unstable();
        connections.dedup();
        connections
    }
}

/// Appends a complete command on data, for a script to call.
pub fn any_call(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    static CALLS: LazyLock<Vec<Template>> =
        LazyLock::new(|| data_table().into_iter().filter(Template::is_single).collect());
    out.extend(random.pick(&CALLS).generate(random).into_iter().flat_map(|command| command.arguments));
}

fn table(lines: &[&str]) -> Vec<Template> {
    lines.iter().map(|line| Template::new(line)).collect()
}

/// Commands on all types of values.
fn data_table() -> Vec<Template> {
    let tables = [
        strings::STRINGS,
        strings::BITMAPS,
        strings::HYPERLOGLOG,
        collections::HASHES,
        collections::LISTS,
        collections::SETS,
        sorted_sets::SORTED_SETS,
        sorted_sets::GEO,
    ];
    tables.into_iter().flat_map(table).collect()
}

#[cfg(test)]
mod tests {
    use super::{Family, families};
    use crate::random::Random;

    #[test]
    fn a_seed_gives_the_same_sequence_each_time() {
        for family in families() {
            let sequence = |family: &Family, seed| family.sequence(&mut Random::new(seed), 100);
            assert_eq!(sequence(&family, 5), sequence(&family, 5), "{}", family.name);
            assert_ne!(sequence(&family, 5), sequence(&family, 6), "{}", family.name);
        }
    }
}
