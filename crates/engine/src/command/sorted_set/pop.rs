//! Taking members out from either end, from the first of several keys that has any, and waiting for one that has.

use std::ops::Range;
use std::sync::Arc;

use super::{SORTED_SET, write_members};
use crate::change::Edit;
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::{is, timeout};
use crate::error::EngineError;
use crate::slot::Slot;
use crate::value::Zset;

/// The end from which members are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

type Members = Vec<(Arc<[u8]>, f64)>;

impl End {
    fn pop(self, set: &mut Edit<'_, Zset>) -> Option<(Arc<[u8]>, f64)> {
        match self {
            Self::Min => set.pop_min(),
            Self::Max => set.pop_max(),
        }
    }

    /// Takes up to `count` members out; `None` if there is no sorted set.
    fn take(self, slot: &mut Slot<'_>, count: usize) -> Result<Option<Members>, EngineError> {
        let Some(mut set) = slot.edit::<Zset>()? else { return Ok(None) };
        let members: Members = (0..count.min(set.len())).map_while(|_| self.pop(&mut set)).collect();
        drop(set);
        if !members.is_empty() {
            slot.notify(SORTED_SET, if self == Self::Min { "zpopmin" } else { "zpopmax" });
            slot.drop_if_empty();
        }
        Ok(Some(members))
    }
}

pub(super) fn zpopmin(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop(call, End::Min)
}

pub(super) fn zpopmax(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop(call, End::Max)
}

/// `ZPOPMIN key [count]`: one flat pair without a count, pairs with one.
fn pop(call: &mut Call<'_, '_>, end: End) -> Result<(), CommandError> {
    let count = match call.args {
        [_, _] => None,
        [_, _, count] => {
            let error = CommandError::text("ERR value is out of range, must be positive");
            Some(number_from(count, 0, error)?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let mut slot = call.keys.slot(call.args[1]);
    let members = end.take(&mut slot, count.unwrap_or(1))?.unwrap_or_default();
    call.effects.changes += members.len() as u64;
    match (count, members.as_slice()) {
        (None, [(member, score)]) => {
            call.reply.array(2);
            call.reply.bulk(member);
            call.reply.double(*score);
        }
        _ => write_members(&mut call.reply, members.into_iter(), true),
    }
    Ok(())
}

pub(super) fn bzpopmin(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop_or_wait(call, End::Min)
}

pub(super) fn bzpopmax(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    pop_or_wait(call, End::Max)
}

/// `BZPOPMIN key .. timeout`
fn pop_or_wait(call: &mut Call<'_, '_>, end: End) -> Result<(), CommandError> {
    let keys = 1..call.args.len() - 1;
    let until_us = timeout(call.args[keys.end], call.keys.now_us)?;
    for key in call.candidates(keys.clone()) {
        let Some(members) = end.take(&mut call.keys.slot(key), 1)? else { continue };
        call.effects.changes += members.len() as u64;
        call.reply.array(3);
        call.reply.bulk(key);
        for (member, score) in members {
            call.reply.bulk(&member);
            call.reply.double(score);
        }
        return Ok(());
    }
    wait(call, keys, until_us)
}

pub(super) fn zmpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let pops = MultiPop::parse(call.args, 1)?;
    if !pops.run(call)? {
        call.reply.null_array();
    }
    Ok(())
}

/// `BZMPOP timeout ..`, and the rest as ZMPOP has it, which is looked at first.
pub(super) fn bzmpop(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let pops = MultiPop::parse(call.args, 2)?;
    let until_us = timeout(call.args[1], call.keys.now_us)?;
    if pops.run(call)? { Ok(()) } else { wait(call, pops.keys, until_us) }
}

/// `numkeys key [key ..] MIN | MAX [COUNT count]`
struct MultiPop {
    /// Where the keys are among the arguments.
    keys: Range<usize>,
    end: End,
    count: usize,
}

impl MultiPop {
    fn parse(args: &[&[u8]], count_at: usize) -> Result<Self, CommandError> {
        let keys = number_from(args[count_at], 1, CommandError::text("ERR numkeys should be greater than 0"))?;
        let keys = count_at + 1..count_at.saturating_add(1).saturating_add(keys);
        let (end, words) = args.get(keys.end..).and_then(<[_]>::split_first).ok_or(CommandError::Syntax)?;
        let end = match end {
            word if is(word, "MIN") => End::Min,
            word if is(word, "MAX") => End::Max,
            _ => return Err(CommandError::Syntax),
        };
        let count = match words {
            [] => 1,
            [word, count, rest @ ..] if is(word, "COUNT") => {
                let count = number_from(count, 1, CommandError::text("ERR count should be greater than 0"))?;
                if rest.is_empty() { count } else { return Err(CommandError::Syntax) }
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Self { keys, end, count })
    }

    /// Takes members from the first key that has any. Returns whether one has, and then has replied.
    fn run(&self, call: &mut Call<'_, '_>) -> Result<bool, CommandError> {
        for key in call.candidates(self.keys.clone()) {
            let Some(members) = self.end.take(&mut call.keys.slot(key), self.count)? else { continue };
            call.effects.changes += members.len() as u64;
            call.reply.array(2);
            call.reply.bulk(key);
            call.reply.array(members.len());
            for (member, score) in members {
                call.reply.array(2);
                call.reply.bulk(&member);
                call.reply.double(score);
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// A number that is at least `min`; a larger one than there can be members is as good as all of them.
fn number_from(text: &[u8], min: i64, error: CommandError) -> Result<usize, CommandError> {
    let number = acteon_resp::parse_i64(text).filter(|number| *number >= min).ok_or(error)?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

fn wait(call: &mut Call<'_, '_>, keys: Range<usize>, until_us: Option<u64>) -> Result<(), CommandError> {
    let keys = call.args[keys].iter().map(|key| Box::from(*key)).collect();
    call.block(keys, until_us, |reply| reply.null_array())
}

#[cfg(test)]
mod tests {
    use crate::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};

    fn execute(client: &mut Client, command: &str, now_us: u64) -> (Flow, String) {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        let flow = client.execute(&args, now_us, &mut out);
        (flow, String::from_utf8(out).expect("text"))
    }

    fn resume(client: &mut Client, now_us: u64) -> String {
        let mut out = Vec::new();
        client.resume(now_us, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn who_waits_gets_what_others_add_or_a_null_when_time_is_over() {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let connect = || Client::connect(&instance, ClientOptions::default());
        let (mut first, mut second, mut other) = (connect(), connect(), connect());
        assert!(matches!(execute(&mut first, "BZMPOP 0 2 a b MAX COUNT 2", 1).0, Flow::Blocked { until_us: None }));
        let (flow, _) = execute(&mut second, "BZPOPMIN b 1", 1);
        assert!(matches!(flow, Flow::Blocked { until_us: Some(1_000_001) }));
        // Neither a list nor another key is what they wait for.
        execute(&mut other, "RPUSH b x", 2);
        execute(&mut other, "DEL b", 2);
        assert_eq!(resume(&mut first, 3), "");
        execute(&mut other, "ZADD b 1 x 2.5 y 3 z", 4);
        assert_eq!(
            resume(&mut first, 5),
            "*2\r\n$1\r\nb\r\n*2\r\n*2\r\n$1\r\nz\r\n$1\r\n3\r\n*2\r\n$1\r\ny\r\n$3\r\n2.5\r\n"
        );
        assert_eq!(resume(&mut second, 5), "*3\r\n$1\r\nb\r\n$1\r\nx\r\n$1\r\n1\r\n");
        assert_eq!(execute(&mut other, "EXISTS b", 6).1, ":0\r\n");
        execute(&mut second, "BZPOPMAX b 1", 7);
        assert_eq!(resume(&mut second, 1_000_008), "*-1\r\n");
    }
}
