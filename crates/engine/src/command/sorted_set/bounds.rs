//! Reading the bounds of ranges of scores and of names.

use std::ops::Bound;

use crate::command::error::CommandError;
use crate::value::{LexBound, LexRange, ScoreRange};

/// Scores from `min` to `max`, each with `(` in front if it is not included itself.
pub(super) fn score_range(min: &[u8], max: &[u8]) -> Result<ScoreRange, CommandError> {
    let bounds = score_bound(min).zip(score_bound(max));
    let (min, max) = bounds.ok_or(CommandError::text("ERR min or max is not a float"))?;
    Ok(ScoreRange { min, max })
}

/// Names from `min` to `max`: `-`, `+`, or a name with `[` or `(` in front.
pub(super) fn lex_range<'a>(min: &'a [u8], max: &'a [u8]) -> Result<LexRange<'a>, CommandError> {
    let bounds = lex_bound(min).zip(lex_bound(max));
    let (min, max) = bounds.ok_or(CommandError::text("ERR min or max not valid string range item"))?;
    Ok(LexRange { min, max })
}

fn score_bound(text: &[u8]) -> Option<Bound<f64>> {
    match text.strip_prefix(b"(") {
        Some(text) => lenient_float(text).map(Bound::Excluded),
        None => lenient_float(text).map(Bound::Included),
    }
}

/// Scores of bounds are read as C's `strtod` does, more leniently than those of members: a bound may begin with white space,
/// be empty, which is 0, be too large for a float, which is infinity, or go on behind a zero byte.
fn lenient_float(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    let text = &text[start..];
    acteon_resp::parse_f64(text).or_else(|| out_of_range(text))
}

/// The value of a decimal number whose magnitude no float has: infinity, zero, or as close to zero as floats come.
fn out_of_range(text: &[u8]) -> Option<f64> {
    let is_decimal = text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    std::str::from_utf8(text).ok().filter(|_| is_decimal)?.parse().ok()
}

fn lex_bound(text: &[u8]) -> Option<LexBound<'_>> {
    match text {
        [b'[', name @ ..] => Some(LexBound::Included(name)),
        [b'(', name @ ..] => Some(LexBound::Excluded(name)),
        [b'-'] | [b'-', 0, ..] => Some(LexBound::Lowest),
        [b'+'] | [b'+', 0, ..] => Some(LexBound::Highest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::{lex_bound, score_bound};
    use crate::value::LexBound;

    /// Each as redis-server 7.0.15 took it.
    #[test]
    fn bounds_of_scores_are_read_leniently() {
        for (text, bound) in [
            ("1.5", Bound::Included(1.5)),
            ("(1.5", Bound::Excluded(1.5)),
            ("", Bound::Included(0.0)),
            ("(", Bound::Excluded(0.0)),
            (" 1", Bound::Included(1.0)),
            ("( 1", Bound::Excluded(1.0)),
            ("0x10", Bound::Included(16.0)),
            ("1e999", Bound::Included(f64::INFINITY)),
            ("(-1e999", Bound::Excluded(f64::NEG_INFINITY)),
            ("1e-999", Bound::Included(0.0)),
            ("1e-310", Bound::Included(1e-310)),
            ("+inf", Bound::Included(f64::INFINITY)),
            ("1\0x", Bound::Included(1.0)),
        ] {
            assert_eq!(score_bound(text.as_bytes()), Some(bound), "{text:?}");
        }
        for text in ["1 ", "((1", "nan", "a", "-", "1e", " ", "e5", "1..2"] {
            assert_eq!(score_bound(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn bounds_of_names_need_a_sign() {
        assert_eq!(lex_bound(b"-"), Some(LexBound::Lowest));
        assert_eq!(lex_bound(b"+"), Some(LexBound::Highest));
        assert_eq!(lex_bound(b"["), Some(LexBound::Included(b"")));
        assert_eq!(lex_bound(b"(+"), Some(LexBound::Excluded(b"+")));
        assert!([&b""[..], b"a", b"-a", b"+a"].into_iter().all(|text| lex_bound(text).is_none()));
    }
}
