//! HELLO, AUTH, PING, ECHO, SELECT, QUIT, RESET, MONITOR, and CLIENT, whose subcommands are in `client.rs`.
//!
//! # Failure
//! HELLO does what its options say one after the other: what came before a wrong one stays done, as in Redis.

use std::mem;
use std::sync::atomic::Ordering;

use acteon_resp::{Protocol, parse_i64};

use super::call::Call;
use super::client;
use super::error::CommandError;
use super::help::misused;
use super::options::{integer, is};
use super::row::{Flags, Group, Row};
use crate::instance::{DEFAULT_USER, Replies};

/// The version of Redis whose behaviour this is: clients choose features by it.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

const WRONGPASS: CommandError = CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");

fn hello(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let protocol = match call.args.get(1) {
        Some(version) => Some(protocol(version)?),
        None => None,
    };
    let mut options = call.args.iter().skip(2);
    while let Some(option) = options.next() {
        let left = options.len();
        if is(option, "AUTH") && left >= 2 {
            let (user, password) = (options.next(), options.next());
            authenticate(call, user.copied().unwrap_or_default(), password.copied().unwrap_or_default())?;
        } else if is(option, "SETNAME") && left >= 1 {
            client::set_name(call.session, options.next().copied().unwrap_or_default())?;
        } else {
            return Err(CommandError::quoting("ERR Syntax error in HELLO option '", option, "'"));
        }
    }
    if !call.session.is_authenticated && !call.instance.access.is_open() {
        return Err(CommandError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option \
             can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(protocol) = protocol {
        speak(call, protocol);
    }
    introduce(call);
    Ok(())
}

fn protocol(version: &[u8]) -> Result<Protocol, CommandError> {
    match parse_i64(version) {
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err(CommandError::text("NOPROTO unsupported protocol version")),
        None => Err(CommandError::text("ERR Protocol version is not an integer or out of range")),
    }
}

fn speak(call: &mut Call<'_, '_>, protocol: Protocol) {
    call.session.protocol = protocol;
    call.session.peer.facts.note_protocol(protocol);
    call.reply.set_protocol(protocol);
}

fn introduce(call: &mut Call<'_, '_>) {
    let proto = if call.session.protocol == Protocol::Resp3 { 3 } else { 2 };
    let id = i64::try_from(call.session.peer.id).unwrap_or(i64::MAX);
    let reply = &mut call.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(proto);
    reply.bulk(b"id");
    reply.integer(id);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}

fn auth(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    match call.args {
        [_, _] if call.instance.access.is_open() => {
            return Err(CommandError::text(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ));
        }
        [_, password] => authenticate(call, DEFAULT_USER.as_bytes(), password)?,
        [_, user, password] => authenticate(call, user, password)?,
        _ => return Err(CommandError::Syntax),
    }
    call.reply.simple("OK");
    Ok(())
}

fn authenticate(call: &mut Call<'_, '_>, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let user = call.instance.access.authenticate(user, password).ok_or(WRONGPASS)?;
    call.session.is_authenticated = true;
    call.session.peer.facts.set_user(user);
    Ok(())
}

fn ping(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.args.len() > 2 {
        return Err(CommandError::wrong_arity("ping"));
    }
    let text = call.args.get(1).copied();
    if call.session.is_subscriber() && call.session.protocol == Protocol::Resp2 {
        // In the form of a message, so that a client that reads messages is not confused.
        call.reply.array(2);
        call.reply.bulk(b"pong");
        call.reply.bulk(text.unwrap_or_default());
    } else if let Some(text) = text {
        call.reply.bulk(text);
    } else {
        call.reply.simple("PONG");
    }
    Ok(())
}

fn echo(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.reply.bulk(call.args[1]);
    Ok(())
}

fn select(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let number = integer(call.args[1])?;
    if i32::try_from(number).is_err() {
        return Err(CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647"));
    }
    let database = usize::try_from(number).ok().filter(|number| *number < call.instance.databases.count());
    call.session.database = database.ok_or(CommandError::text("ERR DB index is out of range"))?;
    call.reply.simple("OK");
    Ok(())
}

fn quit(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    call.effects.close = true;
    call.reply.simple("OK");
    Ok(())
}

/// Makes the connection as it was when it came.
fn reset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let instance = call.instance;
    call.session.transaction = None;
    instance.unwatch(call.session);
    instance.pubsub.leave_all(call.session);
    if mem::take(&mut call.session.is_monitor) {
        instance.monitors.leave(&call.session.peer);
    }
    let mut mail = Vec::new();
    call.session.peer.receive(&mut mail);
    call.reply.raw(&mail);
    call.session.database = 0;
    call.session.replies = Replies::On;
    call.session.is_authenticated = instance.access.is_open();
    let facts = &call.session.peer.facts;
    facts.is_monitor.store(false, Ordering::Relaxed);
    facts.set_name(b"");
    facts.set_user(DEFAULT_USER.into());
    speak(call, Protocol::Resp2);
    call.reply.simple("RESET");
    Ok(())
}

fn monitor(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.deny_blocking {
        return Err(CommandError::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    // Asking again changes nothing, and is not answered.
    if !call.session.is_monitor {
        call.session.is_monitor = true;
        call.session.peer.facts.is_monitor.store(true, Ordering::Relaxed);
        call.instance.monitors.join(&call.session.peer);
        call.reply.simple("OK");
    }
    Ok(())
}

/// A container cannot be called without a subcommand: its arity says so before this.
fn container(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(misused(call))
}

const COMING: &[Flags] =
    &[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::NO_AUTH, Flags::ALLOW_BUSY];
const QUICK: &[Flags] = &[Flags::LOADING, Flags::STALE, Flags::FAST];

pub(super) const ROWS: &[Row] = &[
    Row::new("auth", -2, Group::Connection, auth)
        .flags(COMING)
        .docs("1.0.0", "Says who the connection is, by a password."),
    Row::new("client", -2, Group::Connection, container)
        .subcommands(client::ROWS)
        .docs("2.4.0", "Tells about connections, and changes them."),
    Row::new("echo", 2, Group::Connection, echo).flags(QUICK).docs("1.0.0", "Returns its argument."),
    Row::new("hello", -1, Group::Connection, hello)
        .flags(COMING)
        .docs("6.0.0", "Chooses the protocol, and tells about the server."),
    Row::new("monitor", 1, Group::Server, monitor)
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
        .docs("1.0.0", "Shows every command that the server carries out."),
    Row::new("ping", -1, Group::Connection, ping).flags(&[Flags::FAST]).docs("1.0.0", "Says PONG, or what it is told."),
    Row::new("quit", -1, Group::Connection, quit).flags(COMING).docs("1.0.0", "Ends the connection."),
    Row::new("reset", 1, Group::Connection, reset)
        .flags(COMING)
        .docs("6.2.0", "Makes the connection as it was when it came."),
    Row::new("select", 2, Group::Connection, select)
        .flags(QUICK)
        .docs("1.0.0", "Chooses the database of what follows."),
];
