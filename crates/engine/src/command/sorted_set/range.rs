//! ZRANGE, its older forms, and ZRANGESTORE: members by rank, score or name, from either end.

use super::bounds::{lex_range, score_range};
use super::{store, write_members};
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::{integer, is};
use crate::value::{LexRange, Limits, RankedMembers, ScoreRange, Zset, index_range};

/// What a range counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Rank,
    Score,
    Name,
}

/// What the name of a command has decided; ZRANGE leaves both to its options.
#[derive(Clone, Copy, Debug, Default)]
struct Form {
    axis: Option<Axis>,
    is_reverse: Option<bool>,
}

/// What follows the bounds.
#[derive(Clone, Copy, Debug)]
struct RangeOptions {
    axis: Axis,
    is_reverse: bool,
    with_scores: bool,
    page: Page,
}

/// Which part of the range; a negative count is all of the rest, a negative offset lies behind everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    offset: i64,
    count: i64,
}

impl Page {
    const ALL: Self = Self { offset: 0, count: -1 };
}

/// A range with its bounds read, lower one first.
enum Range<'a> {
    Ranks(i64, i64),
    Scores(ScoreRange),
    Names(LexRange<'a>),
}

pub(super) fn zrange(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    read(call, Form::default())
}

pub(super) fn zrevrange(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    read(call, Form { axis: Some(Axis::Rank), is_reverse: Some(true) })
}

pub(super) fn zrangebyscore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    read(call, Form { axis: Some(Axis::Score), is_reverse: Some(false) })
}

pub(super) fn zrevrangebyscore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    read(call, Form { axis: Some(Axis::Score), is_reverse: Some(true) })
}

pub(super) fn zrangebylex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    read(call, Form { axis: Some(Axis::Name), is_reverse: Some(false) })
}

pub(super) fn zrevrangebylex(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    read(call, Form { axis: Some(Axis::Name), is_reverse: Some(true) })
}

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
fn read(call: &mut Call<'_, '_>, form: Form) -> Result<(), CommandError> {
    let options = RangeOptions::parse(form, &call.args[4..], true)?;
    let range = Range::parse(&options, call.args[2], call.args[3])?;
    let slot = call.keys.read(call.args[1]);
    let Some(set) = slot.value::<Zset>()? else {
        call.reply.array(0);
        return Ok(());
    };
    let members = range.members(set, &options);
    if options.is_reverse {
        write_members(&mut call.reply, members.rev(), options.with_scores);
    } else {
        write_members(&mut call.reply, members, options.with_scores);
    }
    Ok(())
}

/// `ZRANGESTORE destination key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count]`
pub(super) fn zrangestore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let options = RangeOptions::parse(Form::default(), &call.args[5..], false)?;
    let range = Range::parse(&options, call.args[3], call.args[4])?;
    let slot = call.keys.read(call.args[2]);
    let stored = match slot.value::<Zset>()? {
        Some(set) => collect(range.members(set, &options), &options, &limits),
        None => Zset::new(),
    };
    drop(slot);
    store(call, call.args[1], stored, "zrangestore");
    Ok(())
}

/// The sign of -0 is lost in a small set, so the order of insertion and the size at its beginning show, and both are Redis's: only of
/// ranks does it know the number of members beforehand, and begins large at once.
fn collect(members: RankedMembers<'_>, options: &RangeOptions, limits: &Limits) -> Zset {
    let begins_large = options.axis == Axis::Rank && members.len() > limits.zset_max_listpack_entries;
    let mut members: Vec<_> = members.collect();
    if begins_large {
        return Zset::from_members(&members, limits);
    }
    if options.is_reverse {
        members.reverse();
    }
    let mut set = Zset::new();
    for (member, score) in members {
        set.insert(member, score, limits);
    }
    set
}

impl RangeOptions {
    fn parse(form: Form, words: &[&[u8]], takes_scores: bool) -> Result<Self, CommandError> {
        let Form { mut axis, mut is_reverse } = form;
        let (mut with_scores, mut page) = (false, Page::ALL);
        let mut words = words;
        while let Some((word, rest)) = words.split_first() {
            words = rest;
            if takes_scores && is(word, "WITHSCORES") {
                with_scores = true;
            } else if is(word, "LIMIT")
                && let [offset, count, rest @ ..] = rest
            {
                page = Page { offset: integer(offset)?, count: integer(count)? };
                words = rest;
            } else if is_reverse.is_none() && is(word, "REV") {
                is_reverse = Some(true);
            } else if axis.is_none() && is(word, "BYLEX") {
                axis = Some(Axis::Name);
            } else if axis.is_none() && is(word, "BYSCORE") {
                axis = Some(Axis::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let axis = axis.unwrap_or(Axis::Rank);
        // A count of -1 is what no LIMIT means, so Redis does not see it.
        if axis == Axis::Rank && page.count != Page::ALL.count {
            let text = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
            return Err(CommandError::text(text));
        }
        if axis == Axis::Name && with_scores {
            let text = "ERR syntax error, WITHSCORES not supported in combination with BYLEX";
            return Err(CommandError::text(text));
        }
        Ok(Self { axis, is_reverse: is_reverse.unwrap_or(false), with_scores, page })
    }
}

impl<'a> Range<'a> {
    /// Scores and names come highest first when the order is reversed; ranks count from the end then.
    fn parse(options: &RangeOptions, first: &'a [u8], second: &'a [u8]) -> Result<Self, CommandError> {
        let (min, max) = if options.is_reverse { (second, first) } else { (first, second) };
        Ok(match options.axis {
            Axis::Rank => Self::Ranks(integer(first)?, integer(second)?),
            Axis::Score => Self::Scores(score_range(min, max)?),
            Axis::Name => Self::Names(lex_range(min, max)?),
        })
    }

    /// The members, lowest first: to be read backwards if the order is reversed.
    fn members<'s>(&self, set: &'s Zset, options: &RangeOptions) -> RankedMembers<'s> {
        let ranks = match self {
            Self::Ranks(start, stop) => {
                let ranks = index_range(*start, *stop, set.len());
                let mirrored = set.len() - ranks.end..set.len() - ranks.start;
                return set.range(if options.is_reverse { mirrored } else { ranks });
            }
            Self::Scores(scores) => set.ranks_by_score(scores),
            Self::Names(names) => set.ranks_by_lex(names),
        };
        let skipped = usize::try_from(options.page.offset).unwrap_or(usize::MAX).min(ranks.len());
        let left = ranks.len() - skipped;
        let taken = usize::try_from(options.page.count).unwrap_or(usize::MAX).min(left);
        set.range(if options.is_reverse {
            let end = ranks.end - skipped;
            end - taken..end
        } else {
            let start = ranks.start + skipped;
            start..start + taken
        })
    }
}
