//! The longest common subsequence of two strings, for LCS.
//!
//! # Guarantees
//! Among several longest subsequences it is Redis's, with Redis's matching ranges in Redis's order, from the end to the start.
//!
//! # Failure
//! [`LcsError`]: Redis keeps a table of four bytes per pair of positions and refuses one larger than `proto-max-bulk-len`. We
//! refuse the same, before anything is computed.
//!
//! # How it works
//! The classic table of lengths, row by row. Going back from its end only needs to know which way each cell's length came from, so
//! two rows of lengths and one bit per cell are kept: a 32nd of Redis's table. Time is the product of both lengths.

use std::ops::RangeInclusive;

/// Why a subsequence was not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LcsError {
    /// A string is so long that positions in it do not fit 32 bits: `String too long for LCS`.
    TooLong,
    /// Redis's table would be too large: `Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len`.
    TooMuchMemory,
}

/// A run of equal bytes in both strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Where it lies in the first string.
    pub(crate) first: RangeInclusive<usize>,
    /// Where it lies in the second.
    pub(crate) second: RangeInclusive<usize>,
}

impl Match {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.first.end() - self.first.start() + 1
    }
}

/// Refuses strings that Redis refuses. `table_bytes_max` is `proto-max-bulk-len`.
///
/// # Errors
/// See [`LcsError`]; nothing was computed.
pub(crate) fn check(first: &[u8], second: &[u8], table_bytes_max: u64) -> Result<(), LcsError> {
    const LEN_MAX: usize = u32::MAX as usize - 1;
    const CELL_BYTES: u128 = 4;
    if first.len() >= LEN_MAX || second.len() >= LEN_MAX {
        return Err(LcsError::TooLong);
    }
    let cells = (first.len() as u128 + 1) * (second.len() as u128 + 1);
    if cells * CELL_BYTES > u128::from(table_bytes_max) { Err(LcsError::TooMuchMemory) } else { Ok(()) }
}

/// How long it is. Takes memory for one row only.
pub(crate) fn length(first: &[u8], second: &[u8]) -> usize {
    let mut row = vec![0; second.len() + 1];
    for &byte in first {
        next_row(&mut row, byte, second, |_| {});
    }
    row.last().map_or(0, |&length| length as usize)
}

/// The subsequence itself.
pub(crate) fn subsequence(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    walk_back(first, second, |at, _| bytes.push(first[at]));
    bytes.reverse();
    bytes
}

/// The runs it is made of, the last one first, and its length.
pub(crate) fn matches(first: &[u8], second: &[u8]) -> (Vec<Match>, usize) {
    let (mut matches, mut length) = (Vec::<Match>::new(), 0);
    walk_back(first, second, |at, other| {
        length += 1;
        match matches.last_mut() {
            Some(last) if *last.first.start() == at + 1 && *last.second.start() == other + 1 => {
                last.first = at..=*last.first.end();
                last.second = other..=*last.second.end();
            }
            _ => matches.push(Match { first: at..=at, second: other..=other }),
        }
    });
    (matches, length)
}

/// Visits the positions of the subsequence in both strings, from the end to the start.
fn walk_back(first: &[u8], second: &[u8], mut visit: impl FnMut(usize, usize)) {
    let back = Directions::of(first, second);
    let (mut at, mut other) = (first.len(), second.len());
    while at > 0 && other > 0 {
        if first[at - 1] == second[other - 1] {
            at -= 1;
            other -= 1;
            visit(at, other);
        } else if back.is_first(at - 1, other - 1) {
            at -= 1;
        } else {
            other -= 1;
        }
    }
}

/// For each pair of positions whether a step back in the first string keeps more than one in the second.
struct Directions {
    words: Vec<u64>,
    words_per_row: usize,
}

impl Directions {
    fn of(first: &[u8], second: &[u8]) -> Self {
        let words_per_row = second.len().div_ceil(64);
        let mut words = vec![0u64; first.len() * words_per_row];
        let mut row = vec![0; second.len() + 1];
        for (index, &byte) in first.iter().enumerate() {
            let bits = &mut words[index * words_per_row..][..words_per_row];
            next_row(&mut row, byte, second, |column| bits[column / 64] |= 1 << (column % 64));
        }
        Self { words, words_per_row }
    }

    fn is_first(&self, row: usize, column: usize) -> bool {
        self.words[row * self.words_per_row + column / 64] >> (column % 64) & 1 == 1
    }
}

/// Replaces the lengths of a row by those of the next, whose byte of the first string is `byte`, and tells the columns where the
/// length came from the row before alone.
fn next_row(row: &mut [u32], byte: u8, second: &[u8], mut from_before: impl FnMut(usize)) {
    let (mut diagonal, mut left) = (0, 0);
    for (column, (cell, &other)) in row[1..].iter_mut().zip(second).enumerate() {
        let above = *cell;
        *cell = if byte == other {
            diagonal + 1
        } else {
            if above > left {
                from_before(column);
            }
            above.max(left)
        };
        (diagonal, left) = (above, *cell);
    }
}

#[cfg(test)]
mod tests {
    use super::{LcsError, Match, check, length, matches, subsequence};

    #[test]
    fn the_documented_example_comes_out() {
        let (first, second) = (b"ohmytext", b"mynewtext");
        assert_eq!(subsequence(first, second), b"mytext");
        assert_eq!(length(first, second), 6);
        let expected = [Match { first: 4..=7, second: 5..=8 }, Match { first: 2..=3, second: 0..=1 }];
        assert_eq!(matches(first, second), (expected.to_vec(), 6));
        assert_eq!(expected[0].len(), 4);
    }

    #[test]
    fn among_equals_the_choice_is_that_of_redis() {
        assert_eq!(subsequence(b"abcbdab", b"bdcaba"), b"bdab");
        assert_eq!(subsequence(b"ab", b"ba"), b"b");
    }

    #[test]
    fn nothing_in_common_is_empty() {
        for (first, second) in [(&b""[..], &b""[..]), (b"abc", b""), (b"", b"abc"), (b"abc", b"xyz")] {
            assert_eq!((subsequence(first, second), length(first, second)), (Vec::new(), 0));
            assert_eq!(matches(first, second), (Vec::new(), 0));
        }
    }

    #[test]
    fn a_table_larger_than_allowed_is_refused() {
        assert_eq!(check(b"abc", b"abcd", 4 * 4 * 5), Ok(()));
        assert_eq!(check(b"abc", b"abcd", 4 * 4 * 5 - 1), Err(LcsError::TooMuchMemory));
    }
}
