//! What COMMAND says of each command, beside what a redis-server says.

use std::collections::BTreeSet;
use std::io;

use acteon_engine_tests::candidate::candidate;
use acteon_engine_tests::command::Command;
use acteon_engine_tests::compare::agree;
use acteon_engine_tests::endpoint::{Client, Endpoint, RealRedis};
use acteon_engine_tests::reply::Reply;

/// What only a redis-server has, by the words that its names begin with; see `docs/engine-compatibility.md`.
const ABSENT: &[&str] = &[
    // Not there yet.
    "acl",
    "fcall",
    "function",
    "lolwut",
    "restore-asking",
    "x",
    // Of no use to a single node without modules.
    "asking",
    "cluster",
    "failover",
    "migrate",
    "module",
    "psync",
    "readonly",
    "readwrite",
    "replconf",
    "sync",
];

/// Names of all commands and subcommands, as `COMMAND LIST` gives them.
fn names(client: &mut Client) -> io::Result<BTreeSet<String>> {
    let list = client.call(&Command::words("COMMAND LIST"))?;
    Ok(list.items().iter().filter_map(Reply::bytes).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// A connection to each, in the protocol of that number.
fn connect(redis: &mut RealRedis, candidate: &mut dyn Endpoint, protocol: u8) -> io::Result<[Client; 2]> {
    let mut clients = [Client::connect(redis)?, Client::connect(candidate)?];
    for client in &mut clients {
        client.call(&Command::words(&format!("HELLO {protocol}")))?;
    }
    Ok(clients)
}

#[test]
fn facts_about_every_command_are_those_of_redis() -> io::Result<()> {
    let (mut redis, mut candidate) = (RealRedis::start()?, candidate()?);
    let mut differences = Vec::new();
    for protocol in [2, 3] {
        let [mut redis, mut engine] = connect(&mut redis, candidate.as_mut(), protocol)?;
        let names = names(&mut engine)?;
        assert!(names.len() > 200, "{names:?}");
        for name in names {
            for question in ["INFO", "DOCS"] {
                let command = Command::words(&format!("COMMAND {question} {name}"));
                let (expected, found) = (redis.call(&command)?, engine.call(&command)?);
                if !agree(&command.arguments, &expected, &found) {
                    differences.push(format!("RESP{protocol} {command}\n{expected}\nthe engine:\n{found}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

#[test]
fn every_command_of_redis_is_there_or_known_to_be_absent() -> io::Result<()> {
    let (mut redis, mut candidate) = (RealRedis::start()?, candidate()?);
    let [mut redis, mut engine] = connect(&mut redis, candidate.as_mut(), 2)?;
    let (wanted, found) = (names(&mut redis)?, names(&mut engine)?);
    let is_absent = |name: &&String| ABSENT.iter().any(|word| name.starts_with(word));
    assert_eq!(wanted.difference(&found).filter(|name| !is_absent(name)).collect::<Vec<_>>(), [] as [&String; 0]);
    assert_eq!(found.difference(&wanted).collect::<Vec<_>>(), [] as [&String; 0], "Redis does not have these");
    Ok(())
}

#[test]
fn every_command_has_a_summary_of_its_own() -> io::Result<()> {
    let mut engine = Client::connect(candidate()?.as_mut())?;
    for name in names(&mut engine)? {
        let docs = engine.call(&Command::words(&format!("COMMAND DOCS {name}")))?;
        let fields = docs.items().get(1).map(Reply::items).unwrap_or_default();
        let summary = fields.get(1).and_then(Reply::bytes).unwrap_or_default();
        assert!(summary.ends_with(b"."), "{name}: {}", String::from_utf8_lossy(summary));
    }
    Ok(())
}
