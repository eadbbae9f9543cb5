//! SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE and their opposites; PUBLISH, SPUBLISH; PUBSUB.
//!
//! # Guarantees
//! A confirmation comes before the first message of its subscription, and no message comes after the confirmation of its end. The one exception
//! is the end of a subscription in a transaction, where the confirmation is a part of the reply of EXEC and does not wait for anybody: what another
//! client's transaction or script has published, and has not ended yet, may come after it.
//! Confirmations and messages arrive even where replies are held back by CLIENT REPLY.

use std::sync::Arc;

use acteon_resp::ReplyWriter;

use super::call::Call;
use super::error::CommandError;
use super::help::{help, misused};
use super::row::{Flags, Group, Row};
use crate::change::once_handed_over;
use crate::instance::{Channels, Session};

/// Most subscriptions of one connection: more than any client has, and some 200 MB if all names are short.
const SUBSCRIPTIONS_MAX: usize = 1 << 20;

fn subscribe(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    subscribe_to(call, Channels::Plain)
}

fn psubscribe(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    subscribe_to(call, Channels::Pattern)
}

fn ssubscribe(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    subscribe_to(call, Channels::Shard)
}

fn subscribe_to(call: &mut Call<'_, '_>, channels: Channels) -> Result<(), CommandError> {
    let names = &call.args[1..];
    if count(call.session, channels).saturating_add(names.len()) > SUBSCRIPTIONS_MAX {
        return Err(CommandError::text("ERR too many subscriptions"));
    }
    for name in names {
        // Before the subscription, so that no message overtakes it.
        let is_new = !is_subscribed(call.session, channels, name);
        let after = count(call.session, channels) + usize::from(is_new);
        confirm(call, call.row.name, Some(name), after);
        call.instance.pubsub.join(call.session, channels, name);
    }
    Ok(())
}

fn unsubscribe(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    unsubscribe_from(call, Channels::Plain)
}

fn punsubscribe(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    unsubscribe_from(call, Channels::Pattern)
}

fn sunsubscribe(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    unsubscribe_from(call, Channels::Shard)
}

fn unsubscribe_from(call: &mut Call<'_, '_>, channels: Channels) -> Result<(), CommandError> {
    let named = &call.args[1..];
    if !named.is_empty() {
        named.iter().for_each(|name| end(call, channels, name));
        return Ok(());
    }
    let subscriptions = call.session.subscriptions.as_mut();
    let all: Vec<_> = subscriptions.map(|all| all.names(channels).iter().cloned().collect()).unwrap_or_default();
    all.iter().for_each(|name| end(call, channels, name));
    if all.is_empty() {
        let rest = count(call.session, channels);
        confirm(call, call.row.name, None, rest);
    }
    Ok(())
}

fn end(call: &mut Call<'_, '_>, channels: Channels, name: &[u8]) {
    call.instance.pubsub.leave(call.session, channels, name);
    let is_all = deliver_mail(call);
    let rest = count(call.session, channels);
    confirm_by(call, call.row.name, Some(name), rest, !is_all && !call.deny_blocking);
}

fn count(session: &Session, channels: Channels) -> usize {
    session.subscriptions.as_ref().map_or(0, |subscriptions| subscriptions.count(channels))
}

fn is_subscribed(session: &mut Session, channels: Channels, name: &[u8]) -> bool {
    session.subscriptions.as_mut().is_some_and(|subscriptions| subscriptions.names(channels).contains(name))
}

fn confirm(call: &mut Call<'_, '_>, what: &str, name: Option<&[u8]>, count: usize) {
    confirm_by(call, what, name, count, false);
}

/// Confirms by mail where messages of the subscription are still held back: they come first.
fn confirm_by(call: &mut Call<'_, '_>, what: &str, name: Option<&[u8]>, count: usize, by_mail: bool) {
    let write = |reply: &mut ReplyWriter<'_>| {
        reply.push(3);
        reply.bulk(what.as_bytes());
        match name {
            Some(name) => reply.bulk(name),
            None => reply.null(),
        }
        reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    };
    if by_mail || call.session.is_silent() {
        // What is in the mailbox is no reply, and is sent whatever the client wants of those.
        let protocol = call.reply.protocol();
        call.session.peer.send(|mailbox| write(&mut ReplyWriter::new(mailbox, protocol)));
    } else {
        write(&mut call.reply);
    }
}

/// Delivers what has arrived so far before what is about to be said; returns whether all has. Inside of a script the reply is not the client's.
fn deliver_mail(call: &mut Call<'_, '_>) -> bool {
    if call.session.is_silent() || call.session.is_in_script {
        return true;
    }
    let mut mail = Vec::new();
    let is_all = call.session.peer.receive_own(&mut mail);
    call.reply.raw(&mail);
    is_all
}

fn publish(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    publish_to(call, Channels::Plain)
}

fn spublish(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    publish_to(call, Channels::Shard)
}

fn publish_to(call: &mut Call<'_, '_>, channels: Channels) -> Result<(), CommandError> {
    let delivered = call.instance.pubsub.publish(channels, call.args[1], call.args[2]);
    if channels == Channels::Plain {
        let (instance, channel) = (Arc::clone(call.instance), Box::<[u8]>::from(call.args[1]));
        once_handed_over(move || instance.tap.note(&channel));
    }
    if call.session.is_subscriber() {
        deliver_mail(call);
    }
    call.reply.integer(i64::try_from(delivered).unwrap_or(i64::MAX));
    Ok(())
}

fn pubsub_channels(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    active(call, Channels::Plain)
}

fn pubsub_shardchannels(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    active(call, Channels::Shard)
}

fn active(call: &mut Call<'_, '_>, channels: Channels) -> Result<(), CommandError> {
    if call.args.len() > 3 {
        return Err(misused(call));
    }
    let names = call.instance.pubsub.active(channels, call.args.get(2).copied());
    call.reply.array(names.len());
    names.iter().for_each(|name| call.reply.bulk(name));
    Ok(())
}

fn pubsub_numsub(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    subscribers(call, Channels::Plain)
}

fn pubsub_shardnumsub(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    subscribers(call, Channels::Shard)
}

fn subscribers(call: &mut Call<'_, '_>, channels: Channels) -> Result<(), CommandError> {
    let names = &call.args[2..];
    call.reply.array(names.len() * 2);
    for name in names {
        let count = call.instance.pubsub.subscribers(channels, name);
        call.reply.bulk(name);
        call.reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }
    Ok(())
}

fn pubsub_numpat(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = call.instance.pubsub.count(Channels::Pattern);
    call.reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn pubsub_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    help(
        call,
        &[
            "CHANNELS [<pattern>]",
            "    Lists the channels that have subscribers, those that match <pattern> if it is given.",
            "NUMPAT",
            "    Counts the different patterns that are subscribed to.",
            "NUMSUB [<channel> ...]",
            "    Counts the subscribers of each channel; patterns do not count.",
            "SHARDCHANNELS [<pattern>]",
            "    Lists the shard channels that have subscribers, those that match <pattern> if it is given.",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Counts the subscribers of each shard channel.",
        ],
    )
}

/// A container cannot be called without a subcommand: its arity says so before this.
fn container(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    Err(misused(call))
}

const LISTENING: &[Flags] = &[Flags::PUBSUB, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE];
const PUBLISHING: &[Flags] = &[Flags::PUBSUB, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::MAY_REPLICATE];
const ASKING: &[Flags] = &[Flags::PUBSUB, Flags::LOADING, Flags::STALE];

pub(super) const ROWS: &[Row] = &[
    Row::new("subscribe", -2, Group::PubSub, subscribe).flags(LISTENING).docs("2.0.0", "Listens to channels."),
    Row::new("unsubscribe", -1, Group::PubSub, unsubscribe)
        .flags(LISTENING)
        .docs("2.0.0", "Stops listening to channels, to all if none is named."),
    Row::new("psubscribe", -2, Group::PubSub, psubscribe)
        .flags(LISTENING)
        .docs("2.0.0", "Listens to all channels that match patterns."),
    Row::new("punsubscribe", -1, Group::PubSub, punsubscribe)
        .flags(LISTENING)
        .docs("2.0.0", "Stops listening to patterns, to all if none is named."),
    Row::new("ssubscribe", -2, Group::PubSub, ssubscribe)
        .flags(LISTENING)
        .keys(1, -1, 1)
        .docs("7.0.0", "Listens to shard channels."),
    Row::new("sunsubscribe", -1, Group::PubSub, sunsubscribe)
        .flags(LISTENING)
        .keys(1, -1, 1)
        .docs("7.0.0", "Stops listening to shard channels, to all if none is named."),
    Row::new("publish", 3, Group::PubSub, publish).flags(PUBLISHING).docs("2.0.0", "Sends a message to a channel."),
    Row::new("spublish", 3, Group::PubSub, spublish)
        .flags(PUBLISHING)
        .keys(1, 1, 1)
        .docs("7.0.0", "Sends a message to a shard channel."),
    Row::new("pubsub", -2, Group::PubSub, container)
        .subcommands(&[
            Row::new("channels", -2, Group::PubSub, pubsub_channels)
                .flags(ASKING)
                .docs("2.8.0", "The channels that have subscribers."),
            Row::new("numsub", -2, Group::PubSub, pubsub_numsub)
                .flags(ASKING)
                .docs("2.8.0", "How many subscribers channels have."),
            Row::new("numpat", 2, Group::PubSub, pubsub_numpat)
                .flags(ASKING)
                .docs("2.8.0", "How many different patterns are subscribed to."),
            Row::new("shardchannels", -2, Group::PubSub, pubsub_shardchannels)
                .flags(ASKING)
                .docs("7.0.0", "The shard channels that have subscribers."),
            Row::new("shardnumsub", -2, Group::PubSub, pubsub_shardnumsub)
                .flags(ASKING)
                .docs("7.0.0", "How many subscribers shard channels have."),
            Row::new("help", 2, Group::PubSub, pubsub_help)
                .flags(&[Flags::LOADING, Flags::STALE])
                .docs("6.2.0", "What PUBSUB can do."),
        ])
        .docs("2.8.0", "Tells about subscriptions."),
];
