//! Reading the arguments of commands: numbers with Redis's strictness, and words in any case.

use super::error::CommandError;
use crate::algorithm::long_double::LongDouble;

/// An integer of 64 bits.
pub(crate) fn integer(text: &[u8]) -> Result<i64, CommandError> {
    acteon_resp::parse_i64(text).ok_or(CommandError::NotAnInteger)
}

/// A float; not a number is refused.
pub(crate) fn float(text: &[u8]) -> Result<f64, CommandError> {
    acteon_resp::parse_f64(text).ok_or(CommandError::NotAFloat)
}

/// The timeout of a command that waits, in seconds: until when it waits, by the engine's clock in µs; `None` is for ever.
///
/// Redis rounds up to milliseconds, and reports what overflows as negative.
pub(crate) fn timeout(text: &[u8], now_us: u64) -> Result<Option<u64>, CommandError> {
    const NOT_A_FLOAT: CommandError = CommandError::text("ERR timeout is not a float or out of range");
    const NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");
    let seconds = LongDouble::parse(text).ok_or(NOT_A_FLOAT)?;
    let ms = seconds.thousandfold_up().and_then(|ms| u64::try_from(ms).ok()).ok_or(NEGATIVE)?;
    Ok((ms > 0).then(|| now_us.saturating_add(ms.saturating_mul(1_000))))
}

/// Whether `text` is `word`, in any case of letters.
pub(crate) fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

/// Most random elements with repetitions in one reply, some 1 GB of them: Redis would try to send any number.
pub(crate) const REPETITIONS_MAX: u64 = 1 << 26;

/// Refuses a negative count of random elements that no reply can hold.
pub(crate) fn check_repetitions(count: i64) -> Result<(), CommandError> {
    if count < 0 && count.unsigned_abs() > REPETITIONS_MAX {
        return Err(CommandError::text("ERR value is out of range"));
    }
    Ok(())
}

/// The unit and the base of a time in an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeOption {
    /// `EX`, `EXPIRE`
    Seconds,
    /// `PX`, `PEXPIRE`
    Milliseconds,
    /// `EXAT`, `EXPIREAT`
    UnixSeconds,
    /// `PXAT`, `PEXPIREAT`
    UnixMilliseconds,
}

impl TimeOption {
    pub(crate) fn parse(word: &[u8]) -> Option<Self> {
        [
            ("EX", Self::Seconds),
            ("PX", Self::Milliseconds),
            ("EXAT", Self::UnixSeconds),
            ("PXAT", Self::UnixMilliseconds),
        ]
        .into_iter()
        .find_map(|(name, option)| is(word, name).then_some(option))
    }

    /// The deadline in ms since 1970 for a positive time; `command` is for the error.
    pub(crate) fn deadline_ms(self, text: &[u8], now_ms: u64, command: &str) -> Result<u64, CommandError> {
        let time = integer(text)?;
        let invalid = || CommandError::invalid_expire(command);
        if time <= 0 {
            return Err(invalid());
        }
        let ms = match self {
            Self::Seconds | Self::UnixSeconds => time.checked_mul(1_000).ok_or_else(invalid)?,
            Self::Milliseconds | Self::UnixMilliseconds => time,
        };
        let base_ms = match self {
            Self::Seconds | Self::Milliseconds => i64::try_from(now_ms).map_err(|_| invalid())?,
            Self::UnixSeconds | Self::UnixMilliseconds => 0,
        };
        let at_ms = ms.checked_add(base_ms).ok_or_else(invalid)?;
        u64::try_from(at_ms).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::timeout;

    #[test]
    fn timeouts_are_rounded_up_to_milliseconds() {
        for (text, until_us) in [
            ("0", None),
            ("-0", None),
            ("-0.0001", None),
            // A thousandth is not exact, and its thousandfold lies above -1.
            ("-0.001", None),
            ("0.001", Some(1_005)),
            ("0.0011", Some(2_005)),
            ("1e-400", Some(1_005)),
            ("1.5", Some(1_500_005)),
            ("0x10", Some(16_000_005)),
            ("9223372036854775", Some(9_223_372_036_854_775_000_005)),
        ] {
            let expected: Option<u128> = until_us;
            let expected = expected.map(|us| u64::try_from(us).unwrap_or(u64::MAX));
            assert_eq!(timeout(text.as_bytes(), 5), Ok(expected), "{text}");
        }
    }

    #[test]
    fn timeouts_out_of_range_are_called_negative() {
        for text in ["-1", "-0.0015", "9223372036854775.808", "1e18", "1e400", "inf", "-inf"] {
            let error = timeout(text.as_bytes(), 5).expect_err("refused");
            assert_eq!(error.to_string(), "ERR timeout is negative", "{text}");
        }
        for text in ["", "nan", " 1", "1 ", "one"] {
            let error = timeout(text.as_bytes(), 5).expect_err("refused");
            assert_eq!(error.to_string(), "ERR timeout is not a float or out of range", "{text:?}");
        }
    }
}
