//! ZRANDMEMBER.

use super::write_members;
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::{integer, is};
use crate::value::Zset;

/// Most members that a negative count gives: their reply stays within about a gigabyte for short ones. Redis has no bound and would
/// run out of memory.
const REPEATED_MAX: u64 = 1 << 26;

/// What is asked for besides a key.
struct Sample {
    /// Negative: with repetitions.
    count: i64,
    with_scores: bool,
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`: distinct members for a positive count, members with repetitions for a negative one.
pub(super) fn zrandmember(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let sample = Sample::parse(&call.args[2..])?;
    let random = &mut call.session.random;
    let slot = call.keys.read(call.args[1]);
    match (slot.value::<Zset>()?, sample) {
        (Some(set), Some(Sample { count, with_scores })) => {
            let mut random = || random.next_u64();
            let wanted = count.unsigned_abs();
            let members = if count >= 0 {
                set.random_distinct(usize::try_from(wanted).unwrap_or(usize::MAX), &mut random)
            } else if wanted <= REPEATED_MAX {
                (0..wanted).filter_map(|_| set.random(random())).collect()
            } else {
                return Err(OUT_OF_RANGE);
            };
            write_members(&mut call.reply, members.into_iter(), with_scores);
        }
        (None, Some(_)) => call.reply.array(0),
        (set, None) => match set.and_then(|set| set.random(random.next_u64())) {
            Some((member, _)) => call.reply.bulk(member),
            None => call.reply.null(),
        },
    }
    Ok(())
}

const OUT_OF_RANGE: CommandError = CommandError::text("ERR value is out of range");

impl Sample {
    fn parse(words: &[&[u8]]) -> Result<Option<Self>, CommandError> {
        let Some((count, words)) = words.split_first() else { return Ok(None) };
        let count = integer(count)?;
        if count == i64::MIN {
            return Err(CommandError::text(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ));
        }
        let with_scores = match words {
            [] => false,
            [word] if is(word, "WITHSCORES") => true,
            _ => return Err(CommandError::Syntax),
        };
        if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(OUT_OF_RANGE);
        }
        Ok(Some(Self { count, with_scores }))
    }
}
