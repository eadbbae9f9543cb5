//! The manifest of an append-only directory: which files there are, and in which order they count.
//!
//! # Format
//! A line for each file: names and values in turn, of which `file`, `seq` and `type` are needed. Names of files with unusual characters
//! are quoted. Lines that begin with `#` are comments.
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.7.incr.aof seq 7 type i
//! ```

use std::error::Error;
use std::fmt;

/// The files of an append-only directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    files: Vec<AppendOnlyFile>,
}

/// A file of an append-only directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOnlyFile {
    /// Its name in the directory.
    pub name: String,
    /// Its number among those of its role.
    pub sequence: u64,
    /// What it is for.
    pub role: Role,
}

/// What a file of an append-only directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All data at some moment.
    Base,
    /// What has changed since then, or since the end of the file before.
    Increment,
    /// It counts no longer and will be removed.
    History,
}

/// A line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// The line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut files = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let fail = |problem| ManifestError { line: number + 1, problem };
            if line.starts_with('#') {
                continue;
            }
            let file = file(line).map_err(fail)?;
            check_order(&files, &file).map_err(fail)?;
            files.push(file);
        }
        if files.is_empty() {
            return Err(ManifestError { line: 1, problem: "there is no file in it" });
        }
        Ok(Self { files })
    }

    /// All files, as they are written.
    #[must_use]
    pub fn files(&self) -> &[AppendOnlyFile] {
        &self.files
    }

    /// The names of the files that count, in the order in which they do.
    pub fn in_order(&self) -> impl Iterator<Item = &str> {
        let of = |role| self.files.iter().filter(move |file| file.role == role);
        of(Role::Base).chain(of(Role::Increment)).map(|file| &*file.name)
    }
}

fn file(line: &str) -> Result<AppendOnlyFile, &'static str> {
    let words = words(line).ok_or("a quote does not end")?;
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a name has no value");
    }
    let (mut name, mut sequence, mut role) = (None, None, None);
    // Names that are not known here are those of later versions.
    for [key, value] in pairs {
        match key.to_ascii_lowercase().as_str() {
            "file" => name = Some(value.clone()),
            "seq" => sequence = Some(value.parse().map_err(|_| "seq is no number")?),
            "type" => role = Some(role_of(value)?),
            _ => {}
        }
    }
    let name = name.filter(|name| !name.is_empty()).ok_or("there is no file in the line")?;
    // Whoever wrote the manifest must not make us read what lies elsewhere.
    if name.contains(['/', '\\']) || name == ".." || name == "." {
        return Err("the file is a path and not a name");
    }
    let sequence = sequence.filter(|sequence| *sequence > 0).ok_or("there is no seq above 0 in the line")?;
    Ok(AppendOnlyFile { name, sequence, role: role.ok_or("there is no type in the line")? })
}

fn role_of(value: &str) -> Result<Role, &'static str> {
    match value {
        "b" => Ok(Role::Base),
        "i" => Ok(Role::Increment),
        "h" => Ok(Role::History),
        _ => Err("the type is none of b, i and h"),
    }
}

fn check_order(before: &[AppendOnlyFile], file: &AppendOnlyFile) -> Result<(), &'static str> {
    let last = before.iter().rfind(|other| other.role == file.role);
    match (file.role, last) {
        (Role::Base, Some(_)) => Err("there is a base already"),
        (Role::Increment, Some(last)) if last.sequence >= file.sequence => Err("the increments are not in order"),
        _ => Ok(()),
    }
}

/// The words of a line, of which some are in double quotes, with `\"`, `\\`, `\n`, `\r`, `\t`, `\b`, `\a` and `\xhh` in them, and some in
/// single quotes, with `\'`. `None`: a quote does not end, or something follows it.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, tail) = match rest.as_bytes().first() {
            Some(b'"') => quoted(&rest[1..], b'"')?,
            Some(b'\'') => quoted(&rest[1..], b'\'')?,
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if !tail.is_empty() && !tail.starts_with(char::is_whitespace) {
            return None;
        }
        words.push(word);
        rest = tail.trim_start();
    }
    Some(words)
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str, quote: u8) -> Option<(String, &str)> {
    let mut word = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        match *rest {
            [end, ref tail @ ..] if end == quote => {
                let tail = text.get(text.len() - tail.len()..)?;
                return Some((String::from_utf8(word).ok()?, tail));
            }
            [b'\\', b'x', high, low, ref tail @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(high) << 4 | hex(low));
                rest = tail;
            }
            [b'\\', escaped, ref tail @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                rest = tail;
            }
            [b'\\', b'\'', ref tail @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = tail;
            }
            [byte, ref tail @ ..] => {
                word.push(byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase().wrapping_sub(b'a').wrapping_add(10),
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the manifest: {}: use another copy of the directory", self.line, self.problem)
    }
}

impl Error for ManifestError {}

#[cfg(test)]
mod tests {
    use super::{Manifest, Role};

    fn problem(text: &str) -> (usize, &'static str) {
        let error = Manifest::parse(text).expect_err("refused");
        (error.line, error.problem)
    }

    #[test]
    fn files_count_from_the_base_through_the_increments() {
        let text = "# rewritten\nfile a.4.incr.aof seq 4 type i\nfile \"a b\\\"\\x41.1.base.rdb\" seq 1 type b\nfile old seq 1 type h\n\
                    file a.9.incr.aof seq 9 type i new-in-redis-9 value\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.in_order().collect::<Vec<_>>(), ["a b\"A.1.base.rdb", "a.4.incr.aof", "a.9.incr.aof"]);
        assert_eq!((manifest.files().len(), manifest.files()[2].role), (4, Role::History));
    }

    #[test]
    fn line_that_makes_no_sense_is_named() {
        assert_eq!(problem(""), (1, "there is no file in it"));
        assert_eq!(problem("file a seq 1 type b\nfile a seq"), (2, "a name has no value"));
        assert_eq!(problem("file \"a seq 1 type b"), (1, "a quote does not end"));
        assert_eq!(problem("file ../a seq 1 type b"), (1, "the file is a path and not a name"));
        assert_eq!(problem("file a seq 0 type b"), (1, "there is no seq above 0 in the line"));
        assert_eq!(problem("file a seq 1 type x"), (1, "the type is none of b, i and h"));
        assert_eq!(problem("file a seq 1 type b\nfile b seq 2 type b"), (2, "there is a base already"));
        assert_eq!(problem("file a seq 2 type i\nfile b seq 2 type i"), (2, "the increments are not in order"));
    }
}
