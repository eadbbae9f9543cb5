//! The manifest: which files make up the data, in which order.
//!
//! # Guarantees
//! It is replaced as a whole. What it names was synced before, so after a crash a manifest and its files fit each other.
//!
//! # Layout
//! ```text
//! acteon-journal 1
//! base base.3.rdb 52811 9c3e01aa        file, bytes, CRC-32C; absent as long as there is none
//! journal journal.3 1200                file, first position
//! journal journal.4 1730
//! crc 1d9af2c4                          of all lines before
//! ```
//! There is one way of writing it: whatever is not what would be written again is damaged. The last line means the same in all versions.

use std::fmt;
use std::io::Read;

use crate::crc32c;
use crate::format::VERSION;
use crate::storage::{ReplaceError, Storage, TEMPORARY, replace};

/// Its name.
pub(crate) const MANIFEST: &str = "manifest";

/// What `SAVE` writes.
pub(crate) const DUMP: &str = "dump.rdb";

/// Up to where the last journal is on the disk for certain.
pub(crate) const SYNCED: &str = "synced";

/// Longest manifest that is read: a million journals, where there are two at most, and one more for each rewriting that has failed.
const BYTES_MAX: u64 = 64 << 20;

/// Which files make up the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) base: Option<Base>,
    /// In order; never empty in a directory.
    pub(crate) journals: Vec<Journal>,
}

/// A snapshot, as the journals after it begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// A journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) number: u64,
    pub(crate) first_position: u64,
}

/// Why a manifest cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManifestProblem {
    Damaged,
    Newer(u32),
}

impl Base {
    pub(crate) fn file(&self) -> String {
        base_file(self.number)
    }
}

impl Journal {
    pub(crate) fn file(&self) -> String {
        journal_file(self.number)
    }
}

pub(crate) fn base_file(number: u64) -> String {
    format!("base.{number}.rdb")
}

pub(crate) fn journal_file(number: u64) -> String {
    format!("journal.{number}")
}

/// What a name of a file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Base(u64),
    Journal(u64),
    /// A tail that was cut off a journal.
    Torn(u64),
    /// A file that was not finished.
    Temporary,
    /// None of ours, or one that stays.
    Other,
}

impl Named {
    pub(crate) fn of(name: &str) -> Self {
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| number.to_string() == digits);
        let journal = name.strip_prefix("journal.");
        let torn = journal.and_then(|rest| rest.strip_suffix(".torn")).and_then(number).map(Self::Torn);
        let base = name.strip_prefix("base.").and_then(|rest| rest.strip_suffix(".rdb"));
        let is_temporary = name.strip_suffix(TEMPORARY).is_some_and(|name| [MANIFEST, DUMP, SYNCED].contains(&name));
        let temporary = is_temporary.then_some(Self::Temporary);
        let whole = journal.and_then(number).map(Self::Journal).or_else(|| base.and_then(number).map(Self::Base));
        whole.or(torn).or(temporary).unwrap_or(Self::Other)
    }

    pub(crate) fn base(self) -> Option<u64> {
        if let Self::Base(number) = self { Some(number) } else { None }
    }

    pub(crate) fn journal(self) -> Option<u64> {
        if let Self::Journal(number) = self { Some(number) } else { None }
    }

    pub(crate) fn number(self) -> Option<u64> {
        match self {
            Self::Base(number) | Self::Journal(number) | Self::Torn(number) => Some(number),
            Self::Temporary | Self::Other => None,
        }
    }
}

impl Manifest {
    /// `None`: there is none.
    pub(crate) fn load(storage: &dyn Storage) -> std::io::Result<Option<Result<Self, ManifestProblem>>> {
        let mut bytes = Vec::new();
        match storage.read(MANIFEST) {
            Ok(file) => file.take(BYTES_MAX).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self::decode(&bytes)))
    }

    pub(crate) fn store(&self, storage: &dyn Storage) -> Result<(), ReplaceError> {
        replace(storage, MANIFEST, self.to_string().as_bytes())
    }

    pub(crate) fn names(&self, name: &str) -> bool {
        match Named::of(name) {
            Named::Base(number) => self.base.is_some_and(|base| base.number == number),
            Named::Journal(number) | Named::Torn(number) => self.journals.iter().any(|one| one.number == number),
            Named::Temporary => false,
            Named::Other => true,
        }
    }

    fn lines(&self) -> String {
        let mut lines = format!("acteon-journal {VERSION}\n");
        if let Some(base) = &self.base {
            lines.push_str(&format!("base {} {} {:08x}\n", base.file(), base.bytes, base.crc));
        }
        for journal in &self.journals {
            lines.push_str(&format!("journal {} {}\n", journal.file(), journal.first_position));
        }
        lines
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ManifestProblem> {
        let text = str::from_utf8(bytes).map_err(|_| ManifestProblem::Damaged)?;
        check(text).ok_or(ManifestProblem::Damaged)?;
        match version(text) {
            Some(VERSION) => {}
            Some(newer) => return Err(ManifestProblem::Newer(newer)),
            None => return Err(ManifestProblem::Damaged),
        }
        let manifest = parse(text).ok_or(ManifestProblem::Damaged)?;
        // So that no other text means the same, and a flipped bit is never taken for a way of writing.
        if manifest.to_string() == text { Ok(manifest) } else { Err(ManifestProblem::Damaged) }
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        writeln!(f, "{lines}crc {:08x}", crc32c::of(lines.as_bytes()))
    }
}

/// Whether the last line has the checksum of those before.
fn check(text: &str) -> Option<()> {
    let start = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (lines, last) = text.split_at(start);
    let crc = last.strip_prefix("crc ")?.strip_suffix('\n')?;
    (crc == format!("{:08x}", crc32c::of(lines.as_bytes()))).then_some(())
}

fn version(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix("acteon-journal ")?.parse().ok()
}

fn parse(text: &str) -> Option<Manifest> {
    let mut manifest = Manifest::default();
    for line in text.lines().skip(1) {
        let mut words = line.split(' ');
        match (words.next()?, words.next()?) {
            ("base", file) => {
                let Named::Base(number) = Named::of(file) else { return None };
                let (bytes, crc) = (words.next()?.parse().ok()?, u32::from_str_radix(words.next()?, 16).ok()?);
                manifest.base = Some(Base { number, bytes, crc });
            }
            ("journal", file) => {
                let Named::Journal(number) = Named::of(file) else { return None };
                manifest.journals.push(Journal { number, first_position: words.next()?.parse().ok()? });
            }
            ("crc", _) => {}
            _ => return None,
        }
    }
    (!manifest.journals.is_empty()).then_some(manifest)
}

#[cfg(test)]
mod tests {
    use super::{Base, Journal, Manifest, ManifestProblem, Named};
    use crate::crc32c;

    fn manifest() -> Manifest {
        Manifest {
            base: Some(Base { number: 3, bytes: 52_811, crc: 0x0c3e_01aa }),
            journals: vec![
                Journal { number: 3, first_position: 1_200 },
                Journal { number: 12, first_position: u64::MAX },
            ],
        }
    }

    #[test]
    fn manifest_comes_back_and_no_other_text_is_one() {
        let text = manifest().to_string();
        assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest()));
        let mut bytes = text.into_bytes();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&bytes), Err(ManifestProblem::Damaged), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..len]), Err(ManifestProblem::Damaged), "{len} bytes");
        }
    }

    #[test]
    fn newer_version_is_told_from_a_damaged_one() {
        let lines = "acteon-journal 2\nsomething else\n";
        let text = format!("{lines}crc {:08x}\n", crc32c::of(lines.as_bytes()));
        assert_eq!(Manifest::decode(text.as_bytes()), Err(ManifestProblem::Newer(2)));
    }

    #[test]
    fn names_are_those_that_we_give() {
        assert_eq!(Named::of("journal.7"), Named::Journal(7));
        assert_eq!(Named::of("journal.7.torn"), Named::Torn(7));
        assert_eq!(Named::of("base.7.rdb"), Named::Base(7));
        assert_eq!(Named::of("manifest.tmp"), Named::Temporary);
        for other in ["journal.07", "journal.", "journal.7.damaged", "base.7", "manifest", "../journal.7", "journal.+7"]
        {
            assert_eq!(Named::of(other), Named::Other, "{other}");
        }
    }
}
