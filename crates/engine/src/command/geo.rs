//! Places, kept in sorted sets: a member's score is its place.
//!
//! # How it works
//! GEOADD is ZADD with scores made from coordinates. A search, in `geo/search.rs`, reads a few ranges of scores around its centre and
//! keeps what lies within its shape. The numbers come from `algorithm/geohash.rs`.

mod search;

use acteon_resp::{Protocol, ReplyWriter, format_fixed17};

use super::call::Call;
use super::error::CommandError;
use super::options::{float, is};
use super::row::{Flags, Group, Positions, Row};
use super::sorted_set::{self, AddOptions};
use crate::algorithm::geohash::{LengthUnit, Place, standard_hash, write_distance};
use crate::value::Zset;

/// `GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ..]`
fn geoadd(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (mut only_new, mut only_present, mut counts_changed) = (false, false, false);
    let mut words = &call.args[2..];
    while let Some((word, rest)) = words.split_first() {
        match *word {
            word if is(word, "NX") => only_new = true,
            word if is(word, "XX") => only_present = true,
            word if is(word, "CH") => counts_changed = true,
            _ => break,
        }
        words = rest;
    }
    let (places, rest) = words.as_chunks::<3>();
    if places.is_empty() || !rest.is_empty() || (only_new && only_present) {
        return Err(CommandError::Syntax);
    }
    let members = places.iter().map(|[longitude, latitude, member]| {
        let place = parse_place(longitude, latitude)?;
        Ok((place.score(), *member))
    });
    let members = members.collect::<Result<Vec<_>, CommandError>>()?;
    sorted_set::add(call, AddOptions::of_places(only_new, only_present, counts_changed), &members)
}

fn geopos(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    each_member(call, |reply, score| match score {
        Some(score) => write_place(reply, Place::from_score(score)),
        None => reply.null_array(),
    })
}

fn geohash(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    each_member(call, |reply, score| match score {
        Some(score) => reply.bulk(&standard_hash(score)),
        None => reply.null(),
    })
}

/// Replies something of each member that is asked for, by its score.
fn each_member(call: &mut Call<'_, '_>, write: fn(&mut ReplyWriter<'_>, Option<f64>)) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let set = slot.value::<Zset>()?;
    let members = &call.args[2..];
    call.reply.array(members.len());
    for member in members {
        write(&mut call.reply, set.and_then(|set| set.score(member)));
    }
    Ok(())
}

/// `GEODIST key member member [unit]`
fn geodist(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let unit = match &call.args[4..] {
        [] => LengthUnit::Metre,
        [unit] => parse_unit(unit)?,
        _ => return Err(CommandError::Syntax),
    };
    let slot = call.keys.read(call.args[1]);
    let set = slot.value::<Zset>()?;
    let place = |member: &[u8]| set.and_then(|set| set.score(member)).map(Place::from_score);
    match place(call.args[2]).zip(place(call.args[3])) {
        Some((one, other)) => write_length(&mut call.reply, one.distance_m(other), unit),
        None => call.reply.null(),
    }
    Ok(())
}

fn parse_place(longitude: &[u8], latitude: &[u8]) -> Result<Place, CommandError> {
    let (longitude, latitude) = (float(longitude)?, float(latitude)?);
    Place::new(longitude, latitude).ok_or_else(|| {
        let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        CommandError::Text(text.into())
    })
}

fn parse_unit(name: &[u8]) -> Result<LengthUnit, CommandError> {
    LengthUnit::parse(name).ok_or(CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// A distance is a string in either protocol.
fn write_length(reply: &mut ReplyWriter<'_>, distance_m: f64, unit: LengthUnit) {
    let mut text = Vec::new();
    write_distance(distance_m, unit, &mut text);
    reply.bulk(&text);
}

fn write_place(reply: &mut ReplyWriter<'_>, place: Place) {
    reply.array(2);
    write_coordinate(reply, place.longitude);
    write_coordinate(reply, place.latitude);
}

/// Coordinates have decimals where other doubles have an exponent.
fn write_coordinate(reply: &mut ReplyWriter<'_>, degrees: f64) {
    let mut text = Vec::new();
    match reply.protocol() {
        Protocol::Resp2 => {
            format_fixed17(degrees, &mut text);
            reply.bulk(&text);
        }
        Protocol::Resp3 => {
            text.push(b',');
            format_fixed17(degrees, &mut text);
            text.extend_from_slice(b"\r\n");
            reply.raw(&text);
        }
    }
}

/// The source, and where the result goes: the last of several destinations counts.
fn stored_keys(args: &[&[u8]]) -> Positions {
    /// Behind the shortest form, `GEORADIUSBYMEMBER key member radius unit`.
    const OPTIONS_AT: usize = 5;
    let mut destination = None;
    let mut at = OPTIONS_AT;
    while at + 1 < args.len() {
        if is(args[at], "STORE") || is(args[at], "STOREDIST") {
            destination = Some(at + 1);
            at += 1;
        }
        at += 1;
    }
    [1].into_iter().filter(|at| *at < args.len()).chain(destination).collect()
}

const READ: &[Flags] = &[Flags::READONLY];
const STORE: &[Flags] = &[Flags::WRITE, Flags::DENYOOM];
const STORE_MOVABLE: &[Flags] = &[Flags::WRITE, Flags::DENYOOM, Flags::MOVABLEKEYS];

const fn row(name: &'static str, arity: i32, handler: super::row::Handler) -> Row {
    Row::new(name, arity, Group::Geo, handler)
}

pub(super) const ROWS: &[Row] = &[
    row("geoadd", -5, geoadd)
        .flags(STORE)
        .keys(1, 1, 1)
        .docs("3.2.0", "Adds members with their places, or moves them."),
    row("geopos", -2, geopos).flags(READ).keys(1, 1, 1).docs("3.2.0", "The coordinates of members."),
    row("geodist", -4, geodist).flags(READ).keys(1, 1, 1).docs("3.2.0", "The distance between two members."),
    row("geohash", -2, geohash).flags(READ).keys(1, 1, 1).docs("3.2.0", "The standard geohashes of members."),
    row("geosearch", -7, search::geosearch)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("6.2.0", "The members within a circle or a box."),
    row("geosearchstore", -8, search::geosearchstore)
        .flags(STORE)
        .keys(1, 2, 1)
        .docs("6.2.0", "Stores the members within a circle or a box."),
    row("georadius", -6, search::georadius)
        .flags(STORE_MOVABLE)
        .find_keys(stored_keys)
        .docs("3.2.0", "The members within a circle around a place, replied or stored."),
    row("georadius_ro", -6, search::georadius_ro)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("3.2.10", "The members within a circle around a place."),
    row("georadiusbymember", -5, search::georadiusbymember)
        .flags(STORE_MOVABLE)
        .find_keys(stored_keys)
        .docs("3.2.0", "The members within a circle around another one, replied or stored."),
    row("georadiusbymember_ro", -5, search::georadiusbymember_ro)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("3.2.10", "The members within a circle around another one."),
];

#[cfg(test)]
mod tests {
    use super::stored_keys;

    #[test]
    fn last_destination_counts() {
        let positions = |text: &str| stored_keys(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>()).to_vec();
        assert_eq!(positions("GEORADIUS k 1 1 1 km"), [1]);
        assert_eq!(positions("GEORADIUS k 1 1 1 km STORE"), [1]);
        assert_eq!(positions("GEORADIUS k 1 1 1 km STORE a COUNT 1 storedist b"), [1, 11]);
        assert_eq!(positions("GEORADIUSBYMEMBER k m 1 km STORE STORE ASC"), [1, 6]);
    }
}
