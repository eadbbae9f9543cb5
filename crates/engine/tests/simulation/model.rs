//! What several connections of one server see, as it is documented: one thing after the other, in plain lists.
//!
//! Deadlines are kept to the moment here. Nothing of this is shared with the engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::{Answer, Data, Kind, Outcome};
use crate::script;
use crate::wire::Reply;

/// Whether a command was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Done,
    Blocked {
        until_us: Option<u64>,
    },
    /// Everybody has been asked to wait: nothing has happened.
    Retry,
    Close,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now_us: u64,
    pub(crate) data: Data,
    pub(crate) clients: BTreeMap<u64, Client>,
    last_id: u64,
    /// Those who wait, in the order in which they came.
    waiters: Vec<Waiter>,
    /// Keys that somebody waits for and that have come to hold something, in that order.
    ready: Vec<(usize, String)>,
    /// Whose commands were carried out since this was looked at, in that order.
    pub(crate) served: Vec<u64>,
    pause_until_us: u64,
    pauses_all: bool,
    knows_script: bool,
}

/// A connection.
#[derive(Default)]
pub(crate) struct Client {
    database: usize,
    pub(crate) is_resp3: bool,
    pub(crate) queue: Option<Vec<Vec<String>>>,
    is_spoilt: bool,
    watched: BTreeSet<(usize, String)>,
    is_dirty: bool,
    pub(crate) channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
    mail: Vec<Reply>,
    /// The mail that comes before the reply of the command that runs.
    before_reply: Vec<Reply>,
    is_killed: bool,
    pub(crate) wait: Option<Wait>,
}

pub(crate) struct Wait {
    until_us: Option<u64>,
    answer: Option<Reply>,
}

struct Waiter {
    client: u64,
    database: usize,
    args: Vec<String>,
    keys: Vec<String>,
    kind: Kind,
}

/// Where a command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Alone,
    Exec,
    Script,
}

enum Performed {
    Replies(Vec<Reply>),
    Waits { until_us: Option<u64> },
    Closes(Reply),
}

impl From<Reply> for Performed {
    fn from(reply: Reply) -> Self {
        Self::Replies(vec![reply])
    }
}

impl Client {
    /// Others have something for it.
    pub(crate) fn has_news(&self) -> bool {
        let is_answered = self.wait.as_ref().is_some_and(|wait| wait.answer.is_some());
        is_answered || self.is_killed || !self.mail.is_empty()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.wait.is_some()
    }

    pub(crate) fn is_watching(&self) -> bool {
        !self.watched.is_empty()
    }

    /// In the older protocol, messages and replies look alike.
    pub(crate) fn may_only_listen(&self) -> bool {
        self.is_subscriber() && !self.is_resp3
    }

    fn is_subscriber(&self) -> bool {
        self.channels.len() + self.patterns.len() > 0
    }

    fn forget_watched(&mut self) {
        self.watched.clear();
        self.is_dirty = false;
    }
}

impl Model {
    pub(crate) fn set_time(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.data.set_time(now_us / 1_000);
        self.note_changes();
    }

    /// Returns the number of the connection: they are counted.
    pub(crate) fn connect(&mut self) -> u64 {
        self.last_id += 1;
        self.clients.insert(self.last_id, Client::default());
        self.last_id
    }

    /// A connection is gone, and whatever it had not read yet.
    pub(crate) fn disconnect(&mut self, id: u64) {
        self.clients.remove(&id);
        self.waiters.retain(|waiter| waiter.client != id);
    }

    pub(crate) fn is_paused_for_all(&self) -> bool {
        self.pauses_all && self.pause_until_us > self.now_us
    }

    pub(crate) fn client(&mut self, id: u64) -> &mut Client {
        self.clients.get_mut(&id).expect("it is connected")
    }

    /// What a connection hears when it asks for this: messages that have come, and replies.
    pub(crate) fn execute(&mut self, id: u64, args: &[String]) -> (Vec<Reply>, Flow) {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let client = self.client(id);
        let mut heard = std::mem::take(&mut client.mail);
        if client.is_killed {
            return (heard, Flow::Close);
        }
        if let Some(error) = refusal(client, &words) {
            heard.push(Reply::Error(refuse(client, words[0], error)));
            return (heard, Flow::Done);
        }
        if self.is_paused(id, &words) {
            return (heard, Flow::Retry);
        }
        let client = self.client(id);
        let runs_at_once = ["EXEC", "DISCARD", "MULTI", "WATCH", "QUIT", "RESET"].contains(&words[0]);
        if let Some(queue) = client.queue.as_mut().filter(|_| !runs_at_once) {
            queue.push(args.to_vec());
            heard.push(Reply::Simple("QUEUED"));
            return (heard, Flow::Done);
        }
        let performed = self.perform(id, &words, Place::Alone);
        heard.append(&mut self.client(id).before_reply);
        let flow = match performed {
            Ok(Performed::Replies(replies)) => {
                heard.extend(replies);
                Flow::Done
            }
            Ok(Performed::Closes(reply)) => {
                heard.push(reply);
                Flow::Close
            }
            Ok(Performed::Waits { until_us }) => Flow::Blocked { until_us },
            Err(error) => {
                heard.push(Reply::Error(error));
                Flow::Done
            }
        };
        self.serve();
        (heard, flow)
    }

    /// What a connection hears when it looks whether there is something for it.
    pub(crate) fn look(&mut self, id: u64) -> (Vec<Reply>, Flow) {
        let now_us = self.now_us;
        let client = self.client(id);
        let mut heard = std::mem::take(&mut client.mail);
        if let Some(wait) = &mut client.wait {
            let is_over = wait.until_us.is_some_and(|until_us| now_us >= until_us);
            match wait.answer.take() {
                Some(answer) => heard.push(answer),
                None if is_over => heard.push(Reply::NullArray),
                None if client.is_killed => return (heard, Flow::Close),
                None => return (heard, Flow::Blocked { until_us: wait.until_us }),
            }
            client.wait = None;
            self.waiters.retain(|waiter| waiter.client != id);
        }
        let is_killed = self.client(id).is_killed;
        (heard, if is_killed { Flow::Close } else { Flow::Done })
    }

    /// What the embedding application changes is a change like any other.
    pub(crate) fn embedded(&mut self, change: impl FnOnce(&mut Data)) {
        change(&mut self.data);
        self.note_changes();
        self.serve();
    }

    fn is_paused(&self, id: u64, words: &[&str]) -> bool {
        let queued = self.clients[&id].queue.iter().flatten();
        let may_write = |words: &[String]| may_write(&words[0]);
        self.pause_until_us > self.now_us
            && (self.pauses_all
                || may_write(&[words[0].to_owned()])
                || words[0] == "EXEC" && queued.map(Vec::as_slice).any(may_write))
    }

    fn perform(&mut self, id: u64, words: &[&str], place: Place) -> Answer<Performed> {
        let reply = match *words {
            ["MULTI"] => {
                let client = self.client(id);
                if client.queue.is_some() {
                    return Err("ERR MULTI calls can not be nested".to_owned());
                }
                (client.queue, client.is_spoilt) = (Some(Vec::new()), false);
                Reply::ok()
            }
            ["EXEC"] => self.exec(id)?,
            ["DISCARD"] => {
                self.client(id).queue.take().ok_or("ERR DISCARD without MULTI")?;
                self.client(id).forget_watched();
                Reply::ok()
            }
            ["WATCH", ref keys @ ..] => {
                let client = self.client(id);
                if client.queue.is_some() {
                    return Err("ERR WATCH inside MULTI is not allowed".to_owned());
                }
                let database = client.database;
                client.watched.extend(keys.iter().map(|key| (database, (*key).to_owned())));
                Reply::ok()
            }
            ["UNWATCH"] => {
                self.client(id).forget_watched();
                Reply::ok()
            }
            ["PING"] if self.client(id).may_only_listen() => Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")]),
            ["PING"] => Reply::Simple("PONG"),
            ["SELECT", number] => {
                self.client(id).database = number.parse().expect("the plan has written a number");
                Reply::ok()
            }
            ["QUIT"] => return Ok(Performed::Closes(Reply::ok())),
            ["RESET"] => {
                *self.client(id) = Client::default();
                Reply::Simple("RESET")
            }
            ["SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE", ref names @ ..] => {
                return Ok(Performed::Replies(self.subscribe(id, words[0], names)));
            }
            ["PUBLISH", channel, message] => self.publish(id, channel, message, place),
            ["CLIENT", ref words @ ..] => self.about_clients(id, words),
            ["SCRIPT", "FLUSH"] => {
                self.knows_script = false;
                Reply::ok()
            }
            ["EVAL" | "EVALSHA", ref words @ ..] => {
                if words[0] == script::TEXT {
                    self.knows_script = true;
                } else if !self.knows_script {
                    return Err("NOSCRIPT No matching script. Please use EVAL.".to_owned());
                }
                self.run_script(id, words)
            }
            _ => return self.run(id, words, place),
        };
        Ok(reply.into())
    }

    fn exec(&mut self, id: u64) -> Answer<Reply> {
        let client = self.client(id);
        let queue = client.queue.take().ok_or("ERR EXEC without MULTI")?;
        let (is_dirty, is_spoilt) = (client.is_dirty, client.is_spoilt);
        client.forget_watched();
        if is_spoilt {
            return Err("EXECABORT Transaction discarded because of previous errors.".to_owned());
        }
        if is_dirty {
            return Ok(Reply::NullArray);
        }
        Ok(Reply::Array(queue.iter().map(|args| self.perform_within(id, args, Place::Exec)).collect()))
    }

    fn run_script(&mut self, id: u64, words: &[&str]) -> Reply {
        let commands = script::commands(words);
        let replies = commands.iter().map(|args| self.perform_within(id, args, Place::Script).through_script());
        Reply::Array(replies.collect())
    }

    fn perform_within(&mut self, id: u64, args: &[String], place: Place) -> Reply {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        match self.perform(id, &words, place) {
            Ok(Performed::Replies(mut replies)) => replies.pop().expect("a reply"),
            Ok(Performed::Waits { .. } | Performed::Closes(_)) => {
                panic!("the plan has put {words:?} inside of another command")
            }
            Err(error) => Reply::Error(error),
        }
    }

    /// A command about keys.
    fn run(&mut self, id: u64, words: &[&str], place: Place) -> Answer<Performed> {
        let database = self.client(id).database;
        let outcome = self.data.run(database, words, None);
        self.note_changes();
        let (keys, kind, timeout_ms) = match outcome? {
            Outcome::Reply(reply) => return Ok(reply.into()),
            Outcome::Wait { denied, .. } if place != Place::Alone => return Ok(denied.into()),
            Outcome::Wait { keys, kind, timeout_ms, .. } => (keys, kind, timeout_ms),
        };
        let until_us = (timeout_ms > 0).then(|| self.now_us + timeout_ms * 1_000);
        self.client(id).wait = Some(Wait { until_us, answer: None });
        let args = words.iter().map(|word| (*word).to_owned()).collect();
        self.waiters.push(Waiter { client: id, database, args, keys, kind });
        Ok(Performed::Waits { until_us })
    }

    /// Changes break transactions, and make keys ready that somebody waits for.
    fn note_changes(&mut self) {
        for (database, key, kind) in std::mem::take(&mut self.data.changed) {
            let name = (database, key);
            for client in self.clients.values_mut() {
                client.is_dirty |= client.watched.contains(&name);
            }
            let is_fit = matches!(kind, Some(Kind::List | Kind::Sorted));
            let mut waiters = self.waiters.iter();
            if is_fit
                && !self.ready.contains(&name)
                && waiters.any(|waiter| waiter.database == name.0 && waiter.keys.contains(&name.1))
            {
                self.ready.push(name);
            }
        }
    }

    /// Carries out what waits for the keys that are ready, key by key, and for each key in the order in which it came.
    fn serve(&mut self) {
        while !self.ready.is_empty() {
            for (database, key) in std::mem::take(&mut self.ready) {
                self.serve_key(database, &key);
            }
        }
    }

    fn serve_key(&mut self, database: usize, key: &str) {
        let mut at = 0;
        while let Some(waiter) = self.waiters.get(at) {
            let Some(kind) = self.data.kind(database, key) else { return };
            let waits_for_it =
                waiter.database == database && waiter.kind == kind && waiter.keys.iter().any(|name| name == key);
            if !waits_for_it || self.clients[&waiter.client].is_killed {
                at += 1;
                continue;
            }
            let waiter = self.waiters.remove(at);
            let words: Vec<&str> = waiter.args.iter().map(String::as_str).collect();
            let answer = match self.data.run(database, &words, Some(key)) {
                Ok(Outcome::Reply(reply)) => reply,
                Ok(Outcome::Wait { .. }) => panic!("there is something in {key}"),
                Err(error) => Reply::Error(error),
            };
            self.note_changes();
            self.client(waiter.client).wait.as_mut().expect("it waits").answer = Some(answer);
            self.served.push(waiter.client);
        }
    }

    fn subscribe(&mut self, id: u64, name: &str, channels: &[&str]) -> Vec<Reply> {
        let client = self.client(id);
        let mut confirmations = Vec::new();
        let mut confirm = |channel: Reply, client: &Client| {
            let count = Reply::len(client.channels.len() + client.patterns.len());
            confirmations.push(Reply::Push(vec![Reply::Bulk(name.to_lowercase()), channel, count]));
        };
        for channel in channels {
            let names = if name.starts_with('P') { &mut client.patterns } else { &mut client.channels };
            if name.contains("UNSUB") {
                names.remove(*channel);
            } else {
                names.insert((*channel).to_owned());
            }
            confirm(Reply::bulk(channel), client);
        }
        if channels.is_empty() {
            // The plan lets go of all only where there is one at most, because their order is nobody's business.
            let names = if name.starts_with('P') { &mut client.patterns } else { &mut client.channels };
            let channel = names.pop_first().map_or(Reply::Null, Reply::Bulk);
            confirm(channel, client);
        }
        confirmations
    }

    fn publish(&mut self, id: u64, channel: &str, message: &str, place: Place) -> Reply {
        let mut delivered = 0;
        for is_pattern in [false, true] {
            for client in self.clients.values_mut() {
                let names = if is_pattern { &client.patterns } else { &client.channels };
                for name in
                    names.iter().filter(|name| if is_pattern { matches(name, channel) } else { *name == channel })
                {
                    delivered += 1;
                    let mut message = vec![Reply::bulk(channel), Reply::bulk(message)];
                    if is_pattern {
                        message.splice(0..0, [Reply::bulk("pmessage"), Reply::bulk(name)]);
                    } else {
                        message.insert(0, Reply::bulk("message"));
                    }
                    if !client.is_killed {
                        client.mail.push(Reply::Push(message));
                    }
                }
            }
        }
        let client = self.client(id);
        if client.is_subscriber() && place != Place::Script {
            // Its own messages come first.
            client.before_reply.append(&mut client.mail);
        }
        Reply::Int(delivered)
    }

    fn about_clients(&mut self, id: u64, words: &[&str]) -> Reply {
        let number = |text: &str| text.parse::<u64>().expect("the plan has written a number");
        match *words {
            ["ID"] => Reply::Int(id.cast_signed()),
            ["UNBLOCK", other, how] => Reply::Int(self.unblock(number(other), how).into()),
            ["KILL", "ID", other] => {
                let other = number(other);
                let found = self.clients.get_mut(&other).filter(|_| other != id);
                Reply::Int(found.map(|client| client.is_killed = true).is_some().into())
            }
            ["PAUSE", ms, mode] => {
                let until_us = self.now_us + number(ms) * 1_000;
                let is_over = self.pause_until_us <= self.now_us;
                self.pauses_all = mode == "ALL" || !is_over && self.pauses_all;
                self.pause_until_us = self.pause_until_us.max(until_us);
                Reply::ok()
            }
            ["UNPAUSE"] => {
                (self.pause_until_us, self.pauses_all) = (0, false);
                Reply::ok()
            }
            _ => panic!("the model does not know CLIENT {words:?}"),
        }
    }

    fn unblock(&mut self, id: u64, how: &str) -> bool {
        let wait = self.clients.get_mut(&id).and_then(|client| client.wait.as_mut());
        let Some(wait) = wait.filter(|wait| wait.answer.is_none()) else { return false };
        wait.answer = Some(match how {
            "ERROR" => Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned()),
            _ => Reply::NullArray,
        });
        self.waiters.retain(|waiter| waiter.client != id);
        true
    }
}

/// A command that cannot be asked for at all.
fn refusal(client: &Client, words: &[&str]) -> Option<String> {
    let for_subscribers = ["PING", "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "QUIT", "RESET"];
    match words {
        ["NOPE", "a"] => Some("ERR unknown command 'NOPE', with args beginning with: 'a' ".to_owned()),
        ["GET"] => Some("ERR wrong number of arguments for 'get' command".to_owned()),
        _ if client.may_only_listen() && !for_subscribers.contains(&words[0]) => {
            let mut name = words[0].to_lowercase();
            if ["CLIENT", "SCRIPT"].contains(&words[0]) {
                name = format!("{name}|{}", words[1].to_lowercase());
            }
            Some(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            ))
        }
        _ => None,
    }
}

/// What a refusal does to a transaction, and how it reads.
fn refuse(client: &mut Client, name: &str, error: String) -> String {
    if name == "EXEC" {
        client.queue = None;
        client.forget_watched();
        let why = error.strip_prefix("ERR ").unwrap_or(&error);
        return format!("EXECABORT Transaction discarded because of: {why}");
    }
    client.is_spoilt |= client.queue.is_some();
    error
}

/// Whether a command waits while writes are paused.
fn may_write(name: &str) -> bool {
    const OTHERS: [&str; 43] = [
        "GET",
        "STRLEN",
        "MGET",
        "EXISTS",
        "TYPE",
        "KEYS",
        "RANDOMKEY",
        "TTL",
        "PTTL",
        "PEXPIRETIME",
        "LLEN",
        "LINDEX",
        "LRANGE",
        "SISMEMBER",
        "SCARD",
        "SMEMBERS",
        "SRANDMEMBER",
        "SINTER",
        "SUNION",
        "SDIFF",
        "HGET",
        "HEXISTS",
        "HLEN",
        "HGETALL",
        "ZSCORE",
        "ZCARD",
        "ZRANK",
        "ZRANGE",
        "PING",
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH",
        "UNWATCH",
        "SELECT",
        "QUIT",
        "RESET",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "PSUBSCRIBE",
        "PUNSUBSCRIBE",
        "CLIENT",
        "SCRIPT",
    ];
    !OTHERS.contains(&name)
}

/// Patterns of the plan are a text and a star.
fn matches(pattern: &str, channel: &str) -> bool {
    channel.starts_with(pattern.trim_end_matches('*'))
}
