//! Runs a sequence of commands on one server, from an empty keyspace.
//!
//! Connections below [`SUBSCRIBER_FIRST`] get exactly one reply per command and are pipelined. The others may subscribe, which makes
//! the number of replies unknown; there a `PING` with a text of its own marks where the replies to a command end, and after each
//! command of anybody what has been pushed to them is collected.

use std::collections::BTreeMap;
use std::io;

use crate::command::Command;
use crate::endpoint::{Client, Endpoint};
use crate::reply::Reply;

/// From this number on, connections may subscribe.
pub const SUBSCRIBER_FIRST: u8 = 4;

/// What a command brought about.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The replies to the command itself: one, unless it is about subscriptions.
    pub replies: Vec<Reply>,
    /// What the other subscribers received because of it, by connection.
    pub pushes: BTreeMap<u8, Vec<Reply>>,
}

/// The outcomes of a sequence, and why it ended before its last command, if it did.
#[derive(Debug, Default)]
pub struct Run {
    /// One for each command up to the one that failed.
    pub outcomes: Vec<Outcome>,
    /// The connection was lost, or a reply did not come.
    pub failure: Option<io::Error>,
}

/// At which sizes encodings change, as Redis sets them.
pub const THRESHOLDS: &str = "CONFIG SET hash-max-listpack-entries 512 hash-max-listpack-value 64 set-max-intset-entries 512 \
     zset-max-listpack-entries 128 zset-max-listpack-value 64 list-max-listpack-size -2 hll-sparse-max-bytes 3000";

/// Empties the server and puts back the settings that sequences change.
///
/// # Errors
/// The server cannot be reached. Replies are ignored: a server that lacks one of the commands shows it soon enough.
pub fn reset(endpoint: &mut dyn Endpoint) -> io::Result<()> {
    if endpoint.renew() {
        return Ok(());
    }
    let commands = ["FLUSHALL", "SCRIPT FLUSH", "CONFIG SET notify-keyspace-events X", "CONFIG RESETSTAT", THRESHOLDS];
    let mut commands = commands.map(Command::words);
    commands[2].arguments[3].clear();
    let mut client = Client::connect(endpoint)?;
    client.send_commands(&commands)?;
    commands.iter().try_for_each(|_| client.receive().map(drop))
}

/// Sends the commands on connections opened for them.
pub fn run(endpoint: &mut dyn Endpoint, commands: &[Command]) -> Run {
    let mut run = Run::default();
    run.failure = Runner { endpoint, clients: BTreeMap::new() }.run(commands, &mut run.outcomes).err();
    run
}

struct Runner<'a> {
    endpoint: &'a mut dyn Endpoint,
    clients: BTreeMap<u8, Client>,
}

impl Runner<'_> {
    fn run(&mut self, commands: &[Command], outcomes: &mut Vec<Outcome>) -> io::Result<()> {
        if commands.iter().any(|command| command.connection >= SUBSCRIBER_FIRST) {
            return commands.iter().try_for_each(|command| {
                outcomes.push(self.observed(command)?);
                Ok(())
            });
        }
        // The order between connections matters, so only neighbours of one connection travel together.
        for batch in commands.chunk_by(|one, other| one.connection == other.connection) {
            let client = self.client(batch[0].connection)?;
            client.send_commands(batch)?;
            for _ in batch {
                outcomes.push(Outcome { replies: vec![client.receive()?], ..Outcome::default() });
            }
        }
        Ok(())
    }

    /// Runs a command and looks at all subscribers afterwards.
    fn observed(&mut self, command: &Command) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let client = self.client(command.connection)?;
        client.send_commands(std::slice::from_ref(command))?;
        if command.connection < SUBSCRIBER_FIRST {
            outcome.replies.push(client.receive()?);
        } else {
            outcome.replies = drain(client)?;
        }
        for (number, client) in &mut self.clients {
            if *number >= SUBSCRIBER_FIRST {
                let pushes = drain(client)?;
                if !pushes.is_empty() {
                    outcome.pushes.insert(*number, pushes);
                }
            }
        }
        Ok(outcome)
    }

    fn client(&mut self, number: u8) -> io::Result<&mut Client> {
        if !self.clients.contains_key(&number) {
            self.clients.insert(number, Client::connect(self.endpoint)?);
        }
        self.clients.get_mut(&number).ok_or_else(|| io::Error::other("a connection that was just opened is gone"))
    }
}

const MARK: &[u8] = b"--end-of-replies--";

/// All replies that are on their way.
fn drain(client: &mut Client) -> io::Result<Vec<Reply>> {
    client.send_commands(&[Command::new(vec![b"PING".to_vec(), MARK.to_vec()])])?;
    let mut replies = Vec::new();
    loop {
        let reply = client.receive()?;
        // A subscriber's PING is answered with a pair in RESP2.
        if reply.bytes() == Some(MARK) || reply.items().last().and_then(Reply::bytes) == Some(MARK) {
            return Ok(replies);
        }
        replies.push(reply);
    }
}
