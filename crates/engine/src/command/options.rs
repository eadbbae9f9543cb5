//! Reading the arguments of commands: numbers with Redis's strictness, and words in any case.

use super::error::CommandError;

/// An integer of 64 bits.
pub(crate) fn integer(text: &[u8]) -> Result<i64, CommandError> {
    acteon_resp::parse_i64(text).ok_or(CommandError::NotAnInteger)
}

/// A float; not a number is refused.
pub(crate) fn float(text: &[u8]) -> Result<f64, CommandError> {
    acteon_resp::parse_f64(text).ok_or(CommandError::NotAFloat)
}

/// Whether `text` is `word`, in any case of letters.
pub(crate) fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
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
