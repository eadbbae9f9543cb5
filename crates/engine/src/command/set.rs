//! Sets.

mod combine;

use super::call::Call;
use super::error::CommandError;
use super::options::{check_repetitions, integer};
use super::row::{Flags, Group, Row};
use super::scan::{ScanOptions, cursor, write_page};
use crate::observe::EventClass;
use crate::value::Set;

fn sadd(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let mut slot = call.keys.slot(call.args[1]);
    let mut set = slot.edit_or_create::<Set>()?;
    let added = call.args[2..].iter().filter(|member| set.insert(member, &limits)).count();
    drop(set);
    if added > 0 {
        slot.notify(EventClass::SET, "sadd");
        call.effects.changes += added as u64;
    }
    call.reply.integer(added as i64);
    Ok(())
}

fn srem(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let mut removed = 0;
    if let Some(mut set) = slot.edit::<Set>()? {
        removed = call.args[2..].iter().filter(|member| set.remove(member)).count();
    }
    if removed > 0 {
        slot.notify(EventClass::SET, "srem");
        slot.drop_if_empty();
        call.effects.changes += removed as u64;
    }
    call.reply.integer(removed as i64);
    Ok(())
}

fn smove(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let (source, destination, member) = (call.args[1], call.args[2], call.args[3]);
    let Some(is_member) = call.keys.slot(source).value::<Set>()?.map(|set| set.contains(member)) else {
        call.reply.integer(0);
        return Ok(());
    };
    // The type of the destination is looked at before the member.
    call.keys.slot(destination).value::<Set>()?;
    if !is_member || source == destination {
        call.reply.integer(i64::from(is_member));
        return Ok(());
    }
    let mut slot = call.keys.slot(source);
    if let Some(mut set) = slot.edit::<Set>()? {
        set.remove(member);
    }
    slot.notify(EventClass::SET, "srem");
    slot.drop_if_empty();
    drop(slot);
    let mut slot = call.keys.slot(destination);
    let is_new = slot.edit_or_create::<Set>()?.insert(member, &limits);
    if is_new {
        slot.notify(EventClass::SET, "sadd");
    }
    call.effects.changes += 1;
    call.reply.integer(1);
    Ok(())
}

fn sismember(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let is_member = slot.value::<Set>()?.is_some_and(|set| set.contains(call.args[2]));
    call.reply.integer(i64::from(is_member));
    Ok(())
}

fn smismember(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    let set = slot.value::<Set>()?;
    call.reply.array(call.args.len() - 2);
    for member in &call.args[2..] {
        call.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn scard(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let slot = call.keys.read(call.args[1]);
    call.reply.integer(slot.value::<Set>()?.map_or(0, Set::len) as i64);
    Ok(())
}

/// `SPOP key [count]`
fn spop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = match call.args {
        [_, _] => None,
        [_, _, count] => Some(positive_count(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let limits = call.session.limits;
    let session = &mut *call.session;
    let mut slot = call.keys.slot(call.args[1]);
    let Some(mut set) = slot.edit::<Set>()? else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.set(0),
        }
        return Ok(());
    };
    let popped = match count {
        None => set.pop(session.random.next_u64()).into_iter().collect(),
        Some(count) => set.pop_many(count, &limits, &mut || session.random.next_u64()),
    };
    drop(set);
    if !popped.is_empty() {
        slot.notify(EventClass::SET, "spop");
        slot.drop_if_empty();
        call.effects.changes += popped.len() as u64;
    }
    if count.is_some() {
        call.reply.set(popped.len());
    }
    popped.iter().for_each(|member| call.reply.bulk(member));
    Ok(())
}

fn positive_count(text: &[u8]) -> Result<usize, CommandError> {
    let count = acteon_resp::parse_i64(text).and_then(|count| usize::try_from(count).ok());
    count.ok_or(CommandError::text("ERR value is out of range, must be positive"))
}

/// `SRANDMEMBER key [count]`: distinct members for a positive count, members with repetitions for a negative one.
fn srandmember(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = match call.args {
        [_, _] => None,
        [_, _, count] => Some(integer(count)?),
        _ => return Err(CommandError::Syntax),
    };
    if count == Some(i64::MIN) {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    let session = &mut *call.session;
    let slot = call.keys.read(call.args[1]);
    let set = slot.value::<Set>()?;
    let (Some(set), Some(count)) = (set, count) else {
        match (set.and_then(|set| set.random(session.random.next_u64())), count) {
            (Some(member), None) => call.reply.bulk(&member),
            (_, None) => call.reply.null(),
            (_, Some(_)) => call.reply.array(0),
        }
        return Ok(());
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    check_repetitions(count)?;
    if count >= 0 {
        let chosen = set.random_distinct(wanted, &mut || session.random.next_u64());
        call.reply.array(chosen.len());
        chosen.iter().for_each(|member| call.reply.bulk(member));
    } else {
        call.reply.array(wanted);
        for _ in 0..wanted {
            if let Some(member) = set.random(session.random.next_u64()) {
                call.reply.bulk(&member);
            }
        }
    }
    Ok(())
}

fn sscan(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let begin = cursor(call.args[2])?;
    let slot = call.keys.read(call.args[1]);
    let Some(set) = slot.value::<Set>()? else {
        write_page(&mut call.reply, 0, &[]);
        return Ok(());
    };
    let options = ScanOptions::parse(&call.args[3..], false)?;
    let mut found = Vec::new();
    let next = set.scan(begin, options.count, |member| {
        if options.shows(&member) {
            found.push(member.to_vec());
        }
    });
    write_page(&mut call.reply, next, &found);
    Ok(())
}

const READ: &[Flags] = &[Flags::READONLY];
const READ_FAST: &[Flags] = &[Flags::READONLY, Flags::FAST];
const WRITE_FAST: &[Flags] = &[Flags::WRITE, Flags::FAST];

pub(super) const ROWS: &[Row] = &[
    Row::new("sadd", -3, Group::Set, sadd)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(1, 1, 1)
        .docs("1.0.0", "Adds members to a set."),
    Row::new("srem", -3, Group::Set, srem).flags(WRITE_FAST).keys(1, 1, 1).docs("1.0.0", "Removes members."),
    Row::new("smove", 4, Group::Set, smove)
        .flags(WRITE_FAST)
        .keys(1, 2, 1)
        .docs("1.0.0", "Moves a member to another set."),
    Row::new("sismember", 3, Group::Set, sismember)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "Whether it is a member."),
    Row::new("smismember", -3, Group::Set, smismember)
        .flags(READ_FAST)
        .keys(1, 1, 1)
        .docs("6.2.0", "Whether each of several is a member."),
    Row::new("scard", 2, Group::Set, scard).flags(READ_FAST).keys(1, 1, 1).docs("1.0.0", "The number of members."),
    combine::SMEMBERS,
    Row::new("spop", -2, Group::Set, spop)
        .flags(WRITE_FAST)
        .keys(1, 1, 1)
        .docs("1.0.0", "Removes members drawn at random and returns them."),
    Row::new("srandmember", -2, Group::Set, srandmember)
        .flags(READ)
        .keys(1, 1, 1)
        .docs("1.0.0", "Members drawn at random."),
    combine::SINTER,
    combine::SINTERSTORE,
    combine::SINTERCARD,
    combine::SUNION,
    combine::SUNIONSTORE,
    combine::SDIFF,
    combine::SDIFFSTORE,
    Row::new("sscan", -3, Group::Set, sscan).flags(READ).keys(1, 1, 1).docs("2.8.0", "A page of members."),
];
