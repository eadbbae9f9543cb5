//! The sparse form of a HyperLogLog: runs of registers, one or two bytes each, found and split from the front.
//!
//! # Guarantees
//! After the same changes the runs are Redis's, also where shorter ones would say the same: a change joins neighbours near it and no
//! others.
//!
//! # Failure
//! [`Corrupt`]: the runs end before the last register, or reach behind it, or the string ends within one.

use super::{Corrupt, HEADER_BYTES, REGISTERS, mark_stale};

const ZERO_LEN_MAX: usize = 64;
const VAL_LEN_MAX: usize = 4;
const VAL_MAX: u8 = 32;
const VAL_MARK: u8 = 0x80;
const XZERO_MARK: u8 = 0x40;

/// How a run is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunKind {
    /// Up to 64 zeros in one byte.
    Zero,
    /// Up to 16,384 zeros in two bytes.
    Xzero,
    /// Up to four registers of another value in one byte.
    Val,
}

/// A run of equal registers in the sparse form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// How it is written.
    pub(super) kind: RunKind,
    /// How many registers it has.
    pub(super) len: usize,
    /// What all of them hold.
    pub(super) value: u8,
}

impl Run {
    /// The first run in `bytes` and what follows it; `None` if there is no whole one.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&first, rest) = bytes.split_first()?;
        let low = usize::from(first & 0x3f);
        if first & VAL_MARK != 0 {
            let (value, len) = ((first >> 2 & 0x1f) + 1, usize::from(first & 3) + 1);
            return Some((Self { kind: RunKind::Val, len, value }, rest));
        }
        if first & XZERO_MARK == 0 {
            return Some((Self { kind: RunKind::Zero, len: low + 1, value: 0 }, rest));
        }
        let (&second, rest) = rest.split_first()?;
        Some((Self { kind: RunKind::Xzero, len: (low << 8 | usize::from(second)) + 1, value: 0 }, rest))
    }
}

/// Visits all runs in order, and none that reaches behind the last register.
///
/// # Errors
/// [`Corrupt`], perhaps after some visits.
pub(super) fn visit_runs(bytes: &[u8], mut visit: impl FnMut(Run)) -> Result<(), Corrupt> {
    let (mut rest, mut registers) = (&bytes[HEADER_BYTES..], 0);
    while !rest.is_empty() {
        let (run, behind) = Run::read(rest).ok_or(Corrupt)?;
        registers += run.len;
        if registers > REGISTERS {
            return Err(Corrupt);
        }
        visit(run);
        rest = behind;
    }
    if registers == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

/// What came of raising a register.
pub(super) enum Raised {
    /// It was as large already.
    No,
    /// It was smaller.
    Yes,
    /// Nothing changed, because the sparse form cannot hold the value, or not within its bound.
    NeedsDense,
}

/// Sets a register to `value` if it is smaller and the result stays within `bytes_max`.
///
/// # Errors
/// [`Corrupt`]: nothing changed.
pub(super) fn raise(bytes: &mut Vec<u8>, index: usize, value: u8, bytes_max: usize) -> Result<Raised, Corrupt> {
    if value > VAL_MAX {
        return Ok(Raised::NeedsDense);
    }
    let found = find_run(bytes, index)?;
    let run = found.run;
    if run.value >= value {
        return Ok(Raised::No);
    }
    // The run splits in up to three: what was in front of the register, the register, what was behind.
    let (in_front, behind) = (index - found.first, found.first + run.len - 1 - index);
    let mut runs = Vec::with_capacity(5);
    let push_rest = |runs: &mut Vec<u8>, len| match run.kind {
        RunKind::Val => push_val(runs, run.value, len),
        RunKind::Zero | RunKind::Xzero => push_zeros(runs, len),
    };
    push_rest(&mut runs, in_front);
    push_val(&mut runs, value, 1);
    push_rest(&mut runs, behind);
    let grown = runs.len() > found.end - found.start;
    if grown && bytes.len() + runs.len() - (found.end - found.start) > bytes_max {
        return Ok(Raised::NeedsDense);
    }
    bytes.splice(found.start..found.end, runs);
    join_runs(bytes, found.previous);
    mark_stale(bytes);
    Ok(Raised::Yes)
}

/// Appends a run of zeros in its shortest form, or nothing for none.
pub(super) fn push_zeros(out: &mut Vec<u8>, len: usize) {
    match len {
        0 => {}
        1..=ZERO_LEN_MAX => out.push((len - 1) as u8),
        _ => out.extend_from_slice(&[XZERO_MARK | ((len - 1) >> 8) as u8, (len - 1) as u8]),
    }
}

fn push_val(out: &mut Vec<u8>, value: u8, len: usize) {
    if len > 0 {
        out.push(VAL_MARK | (value - 1) << 2 | (len - 1) as u8);
    }
}

/// A run in its place.
struct Found {
    run: Run,
    start: usize,
    end: usize,
    /// Where the run before it starts; where itself does if it is the first.
    previous: usize,
    /// Its first register.
    first: usize,
}

fn find_run(bytes: &[u8], index: usize) -> Result<Found, Corrupt> {
    let (mut start, mut previous, mut first) = (HEADER_BYTES, HEADER_BYTES, 0);
    while let Some((run, behind)) = Run::read(&bytes[start..]) {
        let end = bytes.len() - behind.len();
        if index < first + run.len {
            return Ok(Found { run, start, end, previous, first });
        }
        (previous, start) = (start, end);
        first += run.len;
    }
    Err(Corrupt)
}

/// Joins neighbours of the same value as far as one run can hold them, starting at the run at `at`.
fn join_runs(bytes: &mut Vec<u8>, mut at: usize) {
    // A change makes at most five runs that may have become equal to a neighbour: one before, three new ones, one behind.
    const STEPS: usize = 5;
    for _ in 0..STEPS {
        let Some((run, behind)) = Run::read(&bytes[at..]) else { return };
        let next = bytes.len() - behind.len();
        let joined = Run::read(behind)
            .filter(|(other, _)| run.kind == RunKind::Val && other.kind == RunKind::Val && other.value == run.value)
            .map(|(other, _)| run.len + other.len)
            .filter(|&len| len <= VAL_LEN_MAX);
        match joined {
            Some(len) => {
                let mut run_bytes = Vec::with_capacity(1);
                push_val(&mut run_bytes, run.value, len);
                bytes.splice(at..=next, run_bytes);
            }
            None => at = next,
        }
    }
}
