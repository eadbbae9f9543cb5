//! Everything that a server holds, by ordinary commands, to be compared with what another one holds.

use std::io;

use crate::command::Command;
use crate::endpoint::{Client, Endpoint};
use crate::reply::Reply;

/// How many databases the generators use.
const DATABASES: usize = 4;

/// The commands that show every key, with their replies.
///
/// # Errors
/// The server cannot be reached or does not answer.
pub fn contents(endpoint: &mut dyn Endpoint) -> io::Result<Vec<(Command, Reply)>> {
    let mut client = Client::connect(endpoint)?;
    let mut contents = Vec::new();
    for database in 0..DATABASES {
        client.call(&Command::words(&format!("SELECT {database}")))?;
        let list = Command::words("KEYS *");
        let keys = client.call(&list)?;
        let mut names: Vec<_> = keys.items().iter().filter_map(Reply::bytes).map(<[u8]>::to_vec).collect();
        names.sort();
        contents.push((list, keys));
        describe(&mut client, &names, &mut contents)?;
    }
    Ok(contents)
}

fn describe(client: &mut Client, names: &[Vec<u8>], contents: &mut Vec<(Command, Reply)>) -> io::Result<()> {
    let with_key = |line: &str, key: &Vec<u8>| {
        let mut command = Command::words(line);
        let place = command.arguments.iter_mut().find(|argument| *argument == b"$");
        place.expect("the line has a place for the key").clone_from(key);
        command
    };
    let facts: Vec<_> = ["TYPE $", "OBJECT ENCODING $", "PTTL $"]
        .iter()
        .flat_map(|line| names.iter().map(|key| with_key(line, key)))
        .collect();
    let replies = call_all(client, &facts)?;
    let values: Vec<_> =
        names.iter().zip(&replies).filter_map(|(key, kind)| Some(with_key(value_command(kind)?, key))).collect();
    contents.extend(facts.into_iter().zip(replies));
    let replies = call_all(client, &values)?;
    contents.extend(values.into_iter().zip(replies));
    Ok(())
}

/// The command that shows a value of the type that `TYPE` answered.
fn value_command(kind: &Reply) -> Option<&'static str> {
    match kind.bytes()? {
        b"string" => Some("GET $"),
        b"hash" => Some("HGETALL $"),
        b"list" => Some("LRANGE $ 0 -1"),
        b"set" => Some("SMEMBERS $"),
        b"zset" => Some("ZRANGE $ 0 -1 WITHSCORES"),
        _ => None,
    }
}

fn call_all(client: &mut Client, commands: &[Command]) -> io::Result<Vec<Reply>> {
    client.send_commands(commands)?;
    commands.iter().map(|_| client.receive()).collect()
}
