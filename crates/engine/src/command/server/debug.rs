//! DEBUG: what tests of clients use of it. Nothing here can stop or damage the server.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use acteon_resp::{Protocol, ReplyWriter};

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::help::{help, misused};
use super::super::options::is;
use super::super::row::Scope;

/// Nobody tests for longer, and a typing error should not cost a thread.
const SLEEP_S_MAX: f64 = 3_600.0;

pub(super) fn debug(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    match *call.args {
        [_, word] if is(word, "HELP") => debug_help(call),
        [_, word, seconds] if is(word, "SLEEP") => sleep(call, seconds),
        [_, word, key] if is(word, "OBJECT") => object(call, key),
        [_, word, text] if is(word, "ERROR") => {
            call.reply.error_bytes(text);
            Ok(())
        }
        [_, word, kind] if is(word, "PROTOCOL") => protocol(&mut call.reply, kind),
        [_, word, flag] if is(word, "SET-ACTIVE-EXPIRE") => {
            let is_active = acteon_resp::parse_i64(flag).unwrap_or(0) != 0;
            call.instance.settings.expires_actively.store(is_active, Ordering::Relaxed);
            call.reply.simple("OK");
            Ok(())
        }
        _ => Err(misused(call)),
    }
}

/// One subcommand looks at a key, which the row does not name, as in Redis.
pub(super) fn scope(args: &[&[u8]]) -> Scope {
    if args.get(1).is_some_and(|word| is(word, "OBJECT")) { Scope::Database } else { Scope::Keys }
}

/// Keeps the thread busy, which is what it is for.
#[allow(clippy::disallowed_methods, reason = "a client asked for it")]
fn sleep(call: &mut Call<'_, '_>, seconds: &[u8]) -> Result<(), CommandError> {
    let seconds = acteon_resp::parse_f64(seconds).unwrap_or(0.0).clamp(0.0, SLEEP_S_MAX);
    thread::sleep(Duration::from_secs_f64(seconds));
    call.reply.simple("OK");
    Ok(())
}

fn object(call: &mut Call<'_, '_>, key: &[u8]) -> Result<(), CommandError> {
    let now_s = call.now_ms() / 1_000;
    let slot = call.keys.peek(key);
    let (Some(encoding), Some(bytes)) = (slot.encoding(), slot.cost_bytes()) else {
        return Err(CommandError::NoSuchKey);
    };
    let idle_s = slot.idle_s().map_or(0, u64::from);
    // Where a value lies says nothing here, and its size is that in memory: values are never serialized.
    let text = format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{bytes} lru:{} lru_seconds_idle:{idle_s}",
        now_s.saturating_sub(idle_s) & 0x00ff_ffff
    );
    call.reply.simple(&text);
    Ok(())
}

/// A reply of each kind.
fn protocol(reply: &mut ReplyWriter<'_>, kind: &[u8]) -> Result<(), CommandError> {
    type Write = fn(&mut ReplyWriter<'_>);
    const KINDS: &[(&str, Write)] = &[
        ("string", |reply| reply.bulk(b"Hello World")),
        ("integer", |reply| reply.integer(12_345)),
        ("double", double),
        ("null", |reply| reply.null()),
        ("array", |reply| {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }),
        ("set", |reply| {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }),
        ("map", |reply| {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }),
        ("attrib", attribute),
        ("verbatim", |reply| reply.verbatim("txt", b"This is a verbatim\nstring")),
        ("true", |reply| reply.boolean(true)),
        ("false", |reply| reply.boolean(false)),
        ("bignum", |reply| reply.big_number("1234567999999999999999999999999999999")),
    ];
    if is(kind, "push") {
        return push(reply);
    }
    let Some((_, write)) = KINDS.iter().find(|(name, _)| is(kind, name)) else {
        return Err(CommandError::text(
            "ERR Wrong protocol type name. Please use one of the following: \
             string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
        ));
    };
    write(reply);
    Ok(())
}

/// The number that Redis replies with.
#[allow(clippy::approx_constant, reason = "it is not meant to be pi")]
fn double(reply: &mut ReplyWriter<'_>) {
    reply.double(3.141);
}

/// Only the newer protocol has attributes, in front of a reply.
fn attribute(reply: &mut ReplyWriter<'_>) {
    if reply.protocol() == Protocol::Resp3 {
        reply.raw(b"|1\r\n");
        reply.bulk(b"key-popularity");
        reply.array(2);
        reply.bulk(b"key:123");
        reply.integer(90);
    }
    reply.bulk(b"Some real reply following the attribute");
}

/// A push is no reply, so one follows.
fn push(reply: &mut ReplyWriter<'_>) -> Result<(), CommandError> {
    if reply.protocol() == Protocol::Resp2 {
        return Err(CommandError::text("ERR RESP2 is not supported by this command"));
    }
    reply.push(2);
    reply.bulk(b"server-cpu-usage");
    reply.integer(42);
    reply.bulk(b"Some real reply following the push reply");
    Ok(())
}

fn debug_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const LINES: &[&str] = &[
        "ERROR <text>",
        "    Replies with this error.",
        "OBJECT <key>",
        "    How the value of a key lies in memory.",
        "PROTOCOL (string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false)",
        "    Replies with a value of this kind.",
        "SET-ACTIVE-EXPIRE (0|1)",
        "    Whether expired keys are removed before somebody asks for them.",
        "SLEEP <seconds>",
        "    Keeps the thread of this connection busy; fractions are possible.",
    ];
    help(call, LINES)
}
