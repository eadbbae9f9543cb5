//! Durations and sizes as they are written in configuration: always with a unit.
//!
//! `"250ms"`, `"1m 30s"`, `"64MiB"`. A bare number is refused, since a reader cannot know whether `30` means seconds or
//! milliseconds, and a timeout that is a thousand times too short looks like an outage. Zero is `"0s"` and `"0B"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A duration that is written with its unit.
///
/// ```
/// use std::time::Duration;
/// use acteon_state::config::HumanDuration;
/// assert_eq!("250ms".parse::<HumanDuration>()?.0, Duration::from_millis(250));
/// assert_eq!(HumanDuration(Duration::from_secs(90)).to_string(), "1m 30s");
/// assert!("250".parse::<HumanDuration>().is_err());
/// # Ok::<(), acteon_state::config::UnitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// A number of bytes that is written with its unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`, or the decimal `kB`, `MB`, `GB`, `TB`.
///
/// ```
/// use acteon_state::config::ByteSize;
/// assert_eq!("64MiB".parse::<ByteSize>()?.0, 64 << 20);
/// assert_eq!(ByteSize(1 << 30).to_string(), "1GiB");
/// assert!("64".parse::<ByteSize>().is_err());
/// # Ok::<(), acteon_state::config::UnitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A text that is no duration or size, and what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Units of sizes, the largest binary ones first: the order in which `Display` tries them.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];
/// How many of [`SIZE_UNITS`] are binary.
const BINARY_UNITS: usize = 4;

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if is_bare_number(text) {
            return Err(UnitError(format!("`{text}` has no unit: write \"{text}s\" or \"{text}ms\"")));
        }
        let parsed = humantime::parse_duration(text);
        parsed.map(Self).map_err(|_| {
            UnitError(format!("`{text}` is not a duration: write one like \"250ms\", \"5s\" or \"1m 30s\""))
        })
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if is_bare_number(text) {
            return Err(UnitError(format!("`{text}` has no unit: write \"{text}MiB\" or \"{text}B\"")));
        }
        let not_a_size =
            || UnitError(format!("`{text}` is not a size: write one like \"64MiB\", \"512KiB\" or \"1GB\""));
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(not_a_size)?;
        let (number, unit) = (&text[..unit_at], text[unit_at..].trim_start());
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(not_a_size)?;
        let number: u64 = number.parse().map_err(|_| not_a_size())?;
        number.checked_mul(*bytes).map(Self).ok_or_else(|| UnitError(format!("`{text}` is more than 2^64 bytes")))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |unit: &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(unit.1);
        match SIZE_UNITS[..BINARY_UNITS].iter().find(whole) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

fn is_bare_number(text: &str) -> bool {
    text.trim().parse::<f64>().is_ok_and(f64::is_finite)
}

/// Visits a text that has a unit, and tells those who wrote a number what to write instead.
struct Unit<T> {
    expected: &'static str,
    make: fn(&str) -> Result<T, UnitError>,
}

impl<T> Visitor<'_> for Unit<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.make)(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unit { expected: "a duration with its unit, such as \"250ms\"", make: str::parse })
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unit { expected: "a size with its unit, such as \"64MiB\"", make: str::parse })
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ByteSize, HumanDuration};

    #[test]
    fn durations_read_back_as_written() {
        for text in ["0s", "250ms", "5s", "1m 30s", "1h", "1day"] {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!(duration.to_string().parse::<HumanDuration>().unwrap(), duration, "{text}");
        }
        assert_eq!("1m30s".parse::<HumanDuration>().unwrap().0, Duration::from_secs(90));
    }

    #[test]
    fn sizes_read_back_as_written() {
        for (text, bytes) in
            [("0B", 0), ("1B", 1), ("1KiB", 1_024), ("64MiB", 64 << 20), ("1kB", 1_000), ("3 GB", 3_000_000_000)]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size, "{text}");
        }
    }

    #[test]
    fn bare_numbers_are_told_their_unit() {
        let error = |text: &str| text.parse::<HumanDuration>().unwrap_err().to_string();
        assert_eq!(error("30"), "`30` has no unit: write \"30s\" or \"30ms\"");
        assert_eq!(error("0"), "`0` has no unit: write \"0s\" or \"0ms\"");
        assert!(error("soon").contains("is not a duration"));
        let error = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(error("64"), "`64` has no unit: write \"64MiB\" or \"64B\"");
        for text in ["", "MiB", "64mib", "-1B", "1.5GiB", "64 M"] {
            assert!(error(text).contains("is not a size"), "{text:?}: {}", error(text));
        }
        assert!(error("99999999TiB").contains("2^64"));
    }
}
