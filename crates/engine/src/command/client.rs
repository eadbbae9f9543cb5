//! CLIENT: what connections are called, which there are, ending and pausing them, and whether commands are answered.
//!
//! Redis's server-assisted caching (CLIENT TRACKING) is not supported: switching it on is refused, and all that asks about it is
//! answered as by a server where it is off.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use acteon_resp::parse_i64;

use super::call::Call;
use super::error::CommandError;
use super::help::{help, misused};
use super::options::{integer, is};
use super::row::{Flags, Group, Row};
use crate::instance::{Instance, Paused, Peer, Replies, Session};

/// A class of connections, as CLIENT LIST and CLIENT KILL choose among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Normal,
    PubSub,
    /// Replicas and masters, which do not exist here.
    Replication,
}

impl Class {
    fn parse(name: &[u8]) -> Result<Self, CommandError> {
        if is(name, "normal") {
            Ok(Self::Normal)
        } else if is(name, "pubsub") {
            Ok(Self::PubSub)
        } else if is(name, "slave") || is(name, "replica") || is(name, "master") {
            Ok(Self::Replication)
        } else {
            Err(CommandError::quoting("ERR Unknown client type '", name, "'"))
        }
    }

    fn of(peer: &Peer) -> Self {
        if peer.facts.is_subscriber() { Self::PubSub } else { Self::Normal }
    }
}

/// Names the connection; nothing for an empty name.
pub(super) fn set_name(session: &Session, name: &[u8]) -> Result<(), CommandError> {
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(CommandError::text("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    session.peer.facts.set_name(name);
    Ok(())
}

fn id(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.integer(number(call.session.peer.id));
    Ok(())
}

fn setname(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    set_name(call.session, call.args[2])?;
    call.reply.simple("OK");
    Ok(())
}

fn getname(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let name = call.session.peer.facts.name();
    if name.is_empty() {
        call.reply.null()
    } else {
        call.reply.bulk(&name)
    }
    Ok(())
}

fn info(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let peer = call.session.peer.clone();
    write_lines(call, &[peer]);
    Ok(())
}

fn list(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let peers = match &call.args[2..] {
        [] => call.instance.peers.all(),
        [option, class] if is(option, "TYPE") => {
            let class = Class::parse(class)?;
            call.instance.peers.all().into_iter().filter(|peer| Class::of(peer) == class).collect()
        }
        [option, ids @ ..] if is(option, "ID") && !ids.is_empty() => named(call.instance, ids)?,
        _ => return Err(CommandError::Syntax),
    };
    write_lines(call, &peers);
    Ok(())
}

fn named(instance: &Instance, ids: &[&[u8]]) -> Result<Vec<Arc<Peer>>, CommandError> {
    let mut peers = Vec::new();
    for id in ids {
        let id = parse_i64(id).ok_or(CommandError::text("ERR Invalid client ID"))?;
        peers.extend(u64::try_from(id).ok().and_then(|id| instance.peers.get(id)));
    }
    Ok(peers)
}

fn write_lines(call: &mut Call<'_, '_>, peers: &[Arc<Peer>]) {
    // What others see of this connection is from after its last command.
    call.session.peer.facts.note_session(call.session);
    let own_bytes = call.args.iter().map(|arg| arg.len() as u64).sum();
    let mut text = Vec::new();
    for peer in peers {
        let args_bytes = if peer.id == call.session.peer.id { own_bytes } else { 0 };
        line(peer, args_bytes, call.keys.now_us, &mut text);
        text.push(b'\n');
    }
    call.reply.verbatim("txt", &text);
}

/// A connection in the form of `CLIENT LIST`. See <https://redis.io/docs/latest/commands/client-list/> for the fields.
fn line(peer: &Peer, args_bytes: u64, now_us: u64, text: &mut Vec<u8>) {
    let (facts, now) = (&peer.facts, peer.facts.snapshot());
    let buffers = now.buffers;
    let seconds_since = |then_us: u64| now_us.saturating_sub(then_us) / 1_000_000;
    let mail_bytes = peer.mail_bytes() as u64;
    let memory_bytes = size_of::<Peer>() as u64
        + buffers.input_bytes
        + buffers.input_free_bytes
        + buffers.output_capacity_bytes
        + args_bytes
        + now.queued_bytes as u64
        + mail_bytes;
    let command = now.command.and_then(|number| super::all().nth(number));
    text.extend_from_slice(
        format!(
            "id={} addr={} laddr={} fd={} name=",
            peer.id, facts.peer_address, facts.local_address, facts.descriptor
        )
        .as_bytes(),
    );
    text.extend_from_slice(&now.name);
    let fields = [
        format!("age={}", seconds_since(facts.connected_us)),
        format!("idle={}", seconds_since(now.used_us)),
        format!("flags={}", flags(peer, now.queued >= 0, now.is_dirty)),
        format!("db={}", now.database),
        format!("sub={} psub={} ssub={}", now.channels, now.patterns, now.shard_channels),
        format!("multi={}", now.queued),
        format!("qbuf={} qbuf-free={}", buffers.input_bytes, buffers.input_free_bytes),
        format!("argv-mem={args_bytes} multi-mem={}", now.queued_bytes),
        format!("rbs={} rbp={}", buffers.output_capacity_bytes, buffers.output_bytes),
        format!("obl={} oll={} omem={mail_bytes}", buffers.output_bytes, u8::from(mail_bytes > 0)),
        format!("tot-mem={memory_bytes}"),
        format!("events={}", if buffers.output_bytes > 0 { "rw" } else { "r" }),
        format!("cmd={}", command.map_or_else(|| "NULL".to_owned(), |command| command.full_name())),
        format!("user={}", now.user),
        format!("redir=-1 resp={}", now.protocol),
    ];
    for field in fields {
        text.push(b' ');
        text.extend_from_slice(field.as_bytes());
    }
}

fn flags(peer: &Peer, is_in_transaction: bool, is_watch_broken: bool) -> String {
    let facts = &peer.facts;
    let letters = [
        ('O', facts.is_monitor.load(Ordering::Relaxed)),
        ('P', facts.is_subscriber()),
        ('x', is_in_transaction),
        ('b', facts.is_blocked.load(Ordering::Relaxed)),
        ('d', is_watch_broken),
        ('A', peer.is_killed()),
        ('U', facts.is_unix),
        ('e', facts.is_protected.load(Ordering::Relaxed)),
    ];
    let set: String = letters.iter().filter(|(_, is_set)| *is_set).map(|(letter, _)| letter).collect();
    if set.is_empty() { "N".to_owned() } else { set }
}

/// Which connections CLIENT KILL ends.
struct Victims<'a> {
    id: Option<u64>,
    class: Option<Class>,
    user: Option<&'a [u8]>,
    peer_address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    spares_caller: bool,
}

impl<'a> Victims<'a> {
    fn parse(instance: &Instance, words: &'a [&'a [u8]]) -> Result<Self, CommandError> {
        let mut victims =
            Self { id: None, class: None, user: None, peer_address: None, local_address: None, spares_caller: true };
        for pair in words.chunks(2) {
            let [option, value] = *pair else { return Err(CommandError::Syntax) };
            if is(option, "ID") {
                let id = parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                victims.id = Some(id.ok_or(CommandError::text("ERR client-id should be greater than 0"))?);
            } else if is(option, "TYPE") {
                victims.class = Some(Class::parse(value)?);
            } else if is(option, "ADDR") {
                victims.peer_address = Some(value);
            } else if is(option, "LADDR") {
                victims.local_address = Some(value);
            } else if is(option, "USER") {
                if !instance.access.has_user(value) {
                    return Err(CommandError::quoting("ERR No such user '", value, "'"));
                }
                victims.user = Some(value);
            } else if is(option, "SKIPME") && (is(value, "yes") || is(value, "no")) {
                victims.spares_caller = is(value, "yes");
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(victims)
    }

    fn include(&self, peer: &Peer, caller: &Peer) -> bool {
        let facts = &peer.facts;
        self.id.is_none_or(|id| id == peer.id)
            && self.class.is_none_or(|class| class == Class::of(peer))
            && self.user.is_none_or(|user| user == facts.user().as_bytes())
            && self.peer_address.is_none_or(|address| address == facts.peer_address.as_bytes())
            && self.local_address.is_none_or(|address| address == facts.local_address.as_bytes())
            && !(self.spares_caller && peer.id == caller.id)
    }
}

fn kill(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let words = &call.args[2..];
    let caller = call.session.peer.clone();
    let is_old_form = words.len() == 1;
    let victims = if is_old_form {
        Victims::parse(call.instance, &[b"ADDR", words[0], b"SKIPME", b"no"])
            .map(|victims| killed(call, &victims, &caller))
    } else {
        Victims::parse(call.instance, words).map(|victims| killed(call, &victims, &caller))
    }?;
    match (is_old_form, victims) {
        (true, 0) => return Err(CommandError::text("ERR No such client")),
        (true, _) => call.reply.simple("OK"),
        (false, count) => call.reply.integer(number(count)),
    }
    Ok(())
}

/// Ends connections, the calling one after its reply. Returns how many.
fn killed(call: &mut Call<'_, '_>, victims: &Victims<'_>, caller: &Peer) -> u64 {
    let mut count = 0;
    for peer in call.instance.peers.all() {
        if !victims.include(&peer, caller) {
            continue;
        }
        count += 1;
        if peer.id == caller.id {
            call.effects.close = true;
        } else {
            peer.kill();
        }
    }
    count
}

fn pause(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let paused = match &call.args[3..] {
        [] => Paused::All,
        [mode] if is(mode, "ALL") => Paused::All,
        [mode] if is(mode, "WRITE") => Paused::Writes,
        [_] => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(misused(call)),
    };
    let ms = parse_i64(call.args[2]).ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    let now_us = call.keys.now_us;
    call.instance.pause.begin(paused, now_us.saturating_add(ms.saturating_mul(1_000)), now_us);
    call.reply.simple("OK");
    Ok(())
}

fn unpause(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.instance.pause.end();
    call.reply.simple("OK");
    Ok(())
}

/// Only ON is answered: the others begin with their own reply.
fn reply(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (word, replies) = (call.args[2], &mut call.session.replies);
    if is(word, "ON") {
        *replies = Replies::On;
        call.reply.simple("OK");
    } else if is(word, "OFF") {
        *replies = Replies::Off;
    } else if is(word, "SKIP") {
        if *replies != Replies::Off {
            *replies = Replies::SkipNext;
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(())
}

fn unblock(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let with_error = match &call.args[3..] {
        [] => false,
        [reason] if is(reason, "TIMEOUT") => false,
        [reason] if is(reason, "ERROR") => true,
        [_] => return Err(CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(misused(call)),
    };
    let id = integer(call.args[2])?;
    let has_ended = u64::try_from(id).is_ok_and(|id| call.instance.unblock(id, with_error));
    call.reply.integer(i64::from(has_ended));
    Ok(())
}

/// Nothing is evicted here before a connection's own limits end it; who asks for protection is shown to have it.
fn no_evict(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let is_protected = on_or_off(call.args[2])?;
    call.session.peer.facts.is_protected.store(is_protected, Ordering::Relaxed);
    call.reply.simple("OK");
    Ok(())
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    if is(word, "ON") {
        Ok(true)
    } else if is(word, "OFF") {
        Ok(false)
    } else {
        Err(CommandError::Syntax)
    }
}

/// `CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix ..] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`, of which it does OFF.
fn tracking(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    check_tracking_options(call.instance, &call.args[3..])?;
    if on_or_off(call.args[2])? {
        return Err(CommandError::text("ERR client tracking is not supported"));
    }
    call.reply.simple("OK");
    Ok(())
}

fn check_tracking_options(instance: &Instance, words: &[&[u8]]) -> Result<(), CommandError> {
    let (mut words, mut has_target) = (words.iter(), false);
    while let Some(word) = words.next() {
        if ["BCAST", "OPTIN", "OPTOUT", "NOLOOP"].iter().any(|option| is(word, option)) {
            continue;
        }
        let value = words.next().ok_or(CommandError::Syntax)?;
        if is(word, "REDIRECT") {
            if has_target {
                return Err(CommandError::text("ERR A client can only redirect to a single other client"));
            }
            let target = u64::try_from(integer(value)?).ok().and_then(|id| instance.peers.get(id));
            has_target = target.is_some();
            target.ok_or(CommandError::text("ERR The client ID you want redirect to does not exist"))?;
        } else if !is(word, "PREFIX") {
            return Err(CommandError::Syntax);
        }
    }
    Ok(())
}

fn trackinginfo(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.map(3);
    call.reply.bulk(b"flags");
    call.reply.set(1);
    call.reply.bulk(b"off");
    call.reply.bulk(b"redirect");
    call.reply.integer(-1);
    call.reply.bulk(b"prefixes");
    call.reply.array(0);
    Ok(())
}

fn caching(_: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(CommandError::text(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    ))
}

fn getredir(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.integer(-1);
    Ok(())
}

fn client_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    help(
        call,
        &[
            "CACHING (YES|NO)",
            "    Needs client tracking, which is not supported.",
            "GETNAME",
            "    The name of this connection.",
            "GETREDIR",
            "    -1: there is no client tracking.",
            "ID",
            "    The number of this connection.",
            "INFO",
            "    The line of CLIENT LIST for this connection.",
            "KILL <ip:port>",
            "    Ends the connection from this address.",
            "KILL <option> <value> [<option> <value> ...]",
            "    Ends all connections that fit: ADDR, LADDR (ip:port or path:0), ID, USER, TYPE (NORMAL|PUBSUB|...).",
            "    SKIPME NO includes this one.",
            "LIST [TYPE (NORMAL|PUBSUB|MASTER|REPLICA)] [ID <id> ...]",
            "    One line for each connection.",
            "NO-EVICT (ON|OFF)",
            "    Marks this connection as one to keep.",
            "PAUSE <ms> [WRITE|ALL]",
            "    Lets commands wait for a time, all or those that write.",
            "REPLY (ON|OFF|SKIP)",
            "    Whether commands of this connection are answered.",
            "SETNAME <name>",
            "    Names this connection.",
            "TRACKING (ON|OFF)",
            "    Client tracking is not supported: only OFF is possible.",
            "TRACKINGINFO",
            "    Tells that client tracking is off.",
            "UNBLOCK <id> [TIMEOUT|ERROR]",
            "    Ends the wait of a connection.",
            "UNPAUSE",
            "    Ends a pause.",
        ],
    )
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const OWN: &[Flags] = &[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE];
const OTHERS: &[Flags] = &[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE];

pub(super) const ROWS: &[Row] = &[
    Row::new("caching", 3, Group::Connection, caching).flags(OWN).docs("6.0.0", "Chooses what is tracked next."),
    Row::new("getname", 2, Group::Connection, getname).flags(OWN).docs("2.6.9", "The name of the connection."),
    Row::new("getredir", 2, Group::Connection, getredir).flags(OWN).docs("6.0.0", "Where invalidations go."),
    Row::new("help", 2, Group::Connection, client_help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .docs("5.0.0", "What CLIENT can do."),
    Row::new("id", 2, Group::Connection, id).flags(OWN).docs("5.0.0", "The number of the connection."),
    Row::new("info", 2, Group::Connection, info).flags(OWN).docs("6.2.0", "What is known of the connection."),
    Row::new("kill", -3, Group::Connection, kill).flags(OTHERS).docs("2.4.0", "Ends connections."),
    Row::new("list", -2, Group::Connection, list).flags(OTHERS).docs("2.4.0", "What is known of all connections."),
    Row::new("no-evict", 3, Group::Connection, no_evict)
        .flags(OTHERS)
        .docs("7.0.0", "Marks a connection as one to keep."),
    Row::new("pause", -3, Group::Connection, pause).flags(OTHERS).docs("2.9.50", "Lets commands wait for a time."),
    Row::new("reply", 3, Group::Connection, reply).flags(OWN).docs("3.2.0", "Whether commands are answered."),
    Row::new("setname", 3, Group::Connection, setname).flags(OWN).docs("2.6.9", "Names the connection."),
    Row::new("tracking", -3, Group::Connection, tracking).flags(OWN).docs("6.0.0", "Switches client tracking off."),
    Row::new("trackinginfo", 2, Group::Connection, trackinginfo)
        .flags(OWN)
        .docs("6.2.0", "Tells about client tracking."),
    Row::new("unblock", -3, Group::Connection, unblock).flags(OTHERS).docs("5.0.0", "Ends the wait of a connection."),
    Row::new("unpause", 2, Group::Connection, unpause).flags(OTHERS).docs("6.2.0", "Ends a pause."),
];
