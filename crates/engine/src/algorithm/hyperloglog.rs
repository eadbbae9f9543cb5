//! HyperLogLog: how many different elements were added, in at most 12 KiB, with a standard error of 0.81 %.
//!
//! # Guarantees
//! A value is an ordinary string in Redis's layout: after the same commands the same bytes. The estimate is Redis 7.0's number.
//!
//! # Failure
//! [`Invalid`] is a string that is no HyperLogLog by its header. [`Corrupt`] is one whose header is right and whose registers are not,
//! as anyone may write with SETRANGE; it is found before a register beyond the last one would be touched. A string that ends within a run
//! is corrupt; Redis reads on behind its end there.
//!
//! # Layout
//! ```text
//! | "HYLL" | encoding | 3 unused | cached estimate, 8 bytes, little endian | registers |
//! ```
//! The highest bit of the cached estimate says that it is stale. Encoding 0 is dense: 16,384 registers of 6 bits, lowest bits first.
//! Encoding 1 is sparse: runs of registers, which a new value consists of until it outgrows `hll-sparse-max-bytes`.
//! ```text
//! ZERO  00nnnnnn           n+1 registers are 0 (up to 64)
//! XZERO 01nnnnnn nnnnnnnn  n+1 registers are 0 (up to 16,384)
//! VAL   1vvvvvnn           n+1 registers are v+1 (up to 4, values up to 32)
//! ```
//!
//! # How it works
//! The hash of an element picks a register with 14 bits; the register keeps the longest run of zeros seen in the other 50. The estimate is
//! Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017), which needs no tables of corrections.

mod sparse;

use sparse::{Raised, Run, RunKind, push_zeros, visit_runs};

/// How many registers there are.
pub(crate) const REGISTERS: usize = 1 << REGISTER_INDEX_BITS;

/// Redis's default for `hll-sparse-max-bytes`: how large the sparse form grows before it becomes dense.
pub(crate) const SPARSE_BYTES_MAX_DEFAULT: usize = 3000;

const REGISTER_INDEX_BITS: u32 = 14;
const HASH_REST_BITS: u32 = 64 - REGISTER_INDEX_BITS;
const MAGIC: &[u8; 4] = b"HYLL";
const ENCODING_AT: usize = 4;
const CACHE_AT: usize = 8;
pub(crate) const HEADER_BYTES: usize = 16;
const REGISTER_BITS: usize = 6;
const REGISTER_MAX: u8 = (1 << REGISTER_BITS) - 1;
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const STALE: u8 = 0x80;

/// The string is no HyperLogLog: `WRONGTYPE Key is not a valid HyperLogLog string value.`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// The registers make no sense: `INVALIDOBJ Corrupted HLL object detected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// How the registers are stored, by the names of PFDEBUG ENCODING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Each register in 6 bits.
    Dense,
    /// Runs of equal registers.
    Sparse,
}

impl Encoding {
    /// What PFDEBUG ENCODING replies.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        }
    }
}

/// A new value without elements.
pub(crate) fn create() -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[ENCODING_AT] = SPARSE;
    push_zeros(&mut bytes, REGISTERS);
    bytes
}

/// Looks at the header. All functions below want bytes that passed here.
///
/// # Errors
/// [`Invalid`]: too short, another magic, an unknown encoding, or dense and not of the size that has.
pub(crate) fn validate(bytes: &[u8]) -> Result<Encoding, Invalid> {
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return Err(Invalid);
    }
    match bytes[ENCODING_AT] {
        DENSE if bytes.len() == DENSE_BYTES => Ok(Encoding::Dense),
        SPARSE => Ok(Encoding::Sparse),
        _ => Err(Invalid),
    }
}

/// How the registers are stored.
pub(crate) fn encoding(bytes: &[u8]) -> Encoding {
    if bytes[ENCODING_AT] == DENSE { Encoding::Dense } else { Encoding::Sparse }
}

/// Counts an element in; whether that changed a register. Whoever added all elements of a command and saw a change calls
/// [`mark_stale`].
///
/// # Errors
/// [`Corrupt`]: nothing changed.
pub(crate) fn add(bytes: &mut Vec<u8>, element: &[u8], sparse_bytes_max: usize) -> Result<bool, Corrupt> {
    let (index, count) = register_of(element);
    raise(bytes, index, count, sparse_bytes_max)
}

/// Makes the cached estimate count for nothing.
pub(crate) fn mark_stale(bytes: &mut [u8]) {
    bytes[HEADER_BYTES - 1] |= STALE;
}

/// The cached estimate, unless it is stale.
pub(crate) fn cached(bytes: &[u8]) -> Option<u64> {
    let cache = bytes[CACHE_AT..HEADER_BYTES].first_chunk::<8>()?;
    (cache[7] & STALE == 0).then(|| u64::from_le_bytes(*cache))
}

/// Stores an estimate, so that the next PFCOUNT need not compute it.
pub(crate) fn set_cached(bytes: &mut [u8], estimate: u64) {
    bytes[CACHE_AT..HEADER_BYTES].copy_from_slice(&estimate.to_le_bytes());
}

/// Estimates how many different elements were added.
///
/// # Errors
/// [`Corrupt`]: the sparse form has too few or too many registers.
pub(crate) fn estimate(bytes: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = [0; HISTOGRAM];
    match encoding(bytes) {
        Encoding::Dense => dense_registers(bytes).for_each(|value| histogram[usize::from(value)] += 1),
        Encoding::Sparse => visit_runs(bytes, |run| histogram[usize::from(run.value)] += run.len as u32)?,
    }
    Ok(estimate_of(&histogram))
}

/// The registers of several values together, each the largest of all: what PFCOUNT of several keys counts and PFMERGE stores.
pub(crate) struct Union {
    registers: Box<[u8]>,
    any_dense: bool,
}

impl Union {
    /// The union of nothing.
    pub(crate) fn new() -> Self {
        Self { registers: vec![0; REGISTERS].into_boxed_slice(), any_dense: false }
    }

    /// Takes a value in.
    ///
    /// # Errors
    /// [`Corrupt`]: the union is to be thrown away.
    pub(crate) fn include(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        match encoding(bytes) {
            Encoding::Dense => {
                self.any_dense = true;
                self.registers.iter_mut().zip(dense_registers(bytes)).for_each(|(max, value)| *max = value.max(*max));
                Ok(())
            }
            Encoding::Sparse => {
                let mut at = 0;
                visit_runs(bytes, |run| {
                    if run.value > 0 {
                        self.registers[at..at + run.len].iter_mut().for_each(|max| *max = run.value.max(*max));
                    }
                    at += run.len;
                })
            }
        }
    }

    /// Estimates how many different elements were added to any of the values.
    pub(crate) fn estimate(&self) -> u64 {
        let mut histogram = [0; HISTOGRAM];
        self.registers.iter().for_each(|&value| histogram[usize::from(value)] += 1);
        estimate_of(&histogram)
    }

    /// Raises the registers of `bytes`, the destination of a PFMERGE, to those of the union. Dense if any source was.
    ///
    /// # Errors
    /// [`Corrupt`]: some registers may have been raised already.
    pub(crate) fn store(&self, bytes: &mut Vec<u8>, sparse_bytes_max: usize) -> Result<(), Corrupt> {
        if self.any_dense {
            make_dense(bytes)?;
        }
        for (index, &value) in self.registers.iter().enumerate().filter(|(_, value)| **value > 0) {
            raise(bytes, index, value, sparse_bytes_max)?;
        }
        mark_stale(bytes);
        Ok(())
    }
}

/// Turns the sparse form into the dense one; whether it was sparse.
///
/// # Errors
/// [`Corrupt`]: nothing changed.
pub(crate) fn make_dense(bytes: &mut Vec<u8>) -> Result<bool, Corrupt> {
    if encoding(bytes) == Encoding::Dense {
        return Ok(false);
    }
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER_BYTES].copy_from_slice(&bytes[..HEADER_BYTES]);
    dense[ENCODING_AT] = DENSE;
    let mut at = 0;
    visit_runs(bytes, |run| {
        if run.value > 0 {
            (at..at + run.len).for_each(|index| set_dense(&mut dense, index, run.value));
        }
        at += run.len;
    })?;
    *bytes = dense;
    Ok(true)
}

/// All registers of a dense value, for PFDEBUG GETREG.
pub(crate) fn dense_registers(bytes: &[u8]) -> impl Iterator<Item = u8> {
    // Four registers fill three bytes.
    bytes[HEADER_BYTES..].as_chunks::<3>().0.iter().flat_map(|&[low, middle, high]| {
        let group = u32::from_le_bytes([low, middle, high, 0]);
        (0..4).map(move |place| (group >> (REGISTER_BITS * place)) as u8 & REGISTER_MAX)
    })
}

/// The runs of a sparse value as PFDEBUG DECODE writes them.
pub(crate) fn decode(bytes: &[u8]) -> String {
    let mut runs = Vec::new();
    let mut rest = &bytes[HEADER_BYTES..];
    while let Some((run, behind)) = Run::read(rest) {
        runs.push(match run.kind {
            RunKind::Zero => format!("z:{}", run.len),
            RunKind::Xzero => format!("Z:{}", run.len),
            RunKind::Val => format!("v:{},{}", run.value, run.len),
        });
        rest = behind;
    }
    runs.join(" ")
}

/// What PFSELFTEST does: registers keep what was set, and estimates stay within the error they promise.
///
/// # Errors
/// What was found wrong, for the reply.
pub(crate) fn self_test(mut random: impl FnMut() -> u64) -> Result<(), String> {
    const ROUNDS: usize = 10;
    // Enough to leave the sparse form and to test small, middle and large estimates, in some tens of milliseconds.
    const ELEMENTS: u64 = 100_000;
    // Four times the standard error of 1.04 / sqrt(16,384), which one of 15,000 right estimates exceeds.
    const RELATIVE_ERROR_MAX: f64 = 4.0 * 1.04 / 128.0;
    let mut dense = create();
    make_dense(&mut dense).map_err(|Corrupt| "TESTFAILED a new value is corrupt".to_owned())?;
    for _ in 0..ROUNDS {
        let expected: Vec<u8> = (0..REGISTERS).map(|_| random() as u8 & REGISTER_MAX).collect();
        expected.iter().enumerate().for_each(|(index, &value)| set_dense(&mut dense, index, value));
        if let Some(index) = dense_registers(&dense).zip(&expected).position(|(held, expected)| held != *expected) {
            return Err(format!("TESTFAILED Register {index} does not hold what was set"));
        }
    }
    let (seed, mut value, mut checkpoint) = (random(), create(), 1);
    for element in 1..=ELEMENTS {
        let corrupt = |Corrupt| format!("TESTFAILED corrupt after {element} elements");
        add(&mut value, &(element ^ seed).to_le_bytes(), SPARSE_BYTES_MAX_DEFAULT).map_err(corrupt)?;
        if element == checkpoint {
            let estimate = estimate(&value).map_err(corrupt)?;
            let error_max = (RELATIVE_ERROR_MAX * element as f64).ceil() + 1.0;
            if estimate.abs_diff(element) as f64 > error_max {
                return Err(format!("TESTFAILED Too big error. card:{element} estimate:{estimate}"));
            }
            checkpoint *= 10;
        }
    }
    Ok(())
}

/// Registers by their value.
type Histogram = [u32; HISTOGRAM];

const HISTOGRAM: usize = REGISTER_MAX as usize + 1;

/// Ertl's estimator; the order of the operations is Redis's, to the last bit of the result.
fn estimate_of(histogram: &Histogram) -> u64 {
    const ALPHA_INFINITE: f64 = 0.721_347_520_444_481_7;
    const LARGEST: usize = HASH_REST_BITS as usize;
    let registers = REGISTERS as f64;
    let mut sum = registers * tau((registers - f64::from(histogram[LARGEST + 1])) / registers);
    for &count in histogram[1..=LARGEST].iter().rev() {
        sum = (sum + f64::from(count)) * 0.5;
    }
    sum += registers * sigma(f64::from(histogram[0]) / registers);
    let estimate = (ALPHA_INFINITE * registers * registers / sum).round();
    // Registers that no element leaves behind add up to an infinite estimate; what Redis replies then is the smallest integer.
    if estimate.is_finite() { estimate as u64 } else { i64::MIN as u64 }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut weight, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum == before {
            return sum;
        }
    }
}

/// The register of an element, and the value it asks for: 1 more than the zeros that the rest of its hash ends with.
fn register_of(element: &[u8]) -> (usize, u8) {
    const SEED: u64 = 0xadc8_3b19;
    let hash = murmur_64a(element, SEED);
    // A one behind the last bit bounds the run of zeros.
    let rest = hash >> REGISTER_INDEX_BITS | 1 << HASH_REST_BITS;
    (hash as usize & (REGISTERS - 1), rest.trailing_zeros() as u8 + 1)
}

/// Appleby's MurmurHash2 for 64-bit machines, variant A.
fn murmur_64a(bytes: &[u8], seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        hash = (hash ^ (mixed ^ mixed >> SHIFT).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |last, &byte| last << 8 | u64::from(byte));
        hash = (hash ^ last).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(MULTIPLIER);
    hash ^ hash >> SHIFT
}

/// Sets a register to `value` if it is smaller; whether it was.
fn raise(bytes: &mut Vec<u8>, index: usize, value: u8, sparse_bytes_max: usize) -> Result<bool, Corrupt> {
    if encoding(bytes) == Encoding::Sparse {
        match sparse::raise(bytes, index, value, sparse_bytes_max)? {
            Raised::No => return Ok(false),
            Raised::Yes => return Ok(true),
            Raised::NeedsDense => make_dense(bytes)?,
        };
    }
    let smaller = get_dense(bytes, index) < value;
    if smaller {
        set_dense(bytes, index, value);
    }
    Ok(smaller)
}

fn get_dense(bytes: &[u8], index: usize) -> u8 {
    let (at, shift) = dense_place(index);
    let next = bytes.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([bytes[at], next]) >> shift) as u8 & REGISTER_MAX
}

fn set_dense(bytes: &mut [u8], index: usize, value: u8) {
    let (at, shift) = dense_place(index);
    let (mask, value) = (u16::from(REGISTER_MAX) << shift, u16::from(value) << shift);
    for (byte, (mask, value)) in bytes[at..].iter_mut().zip(mask.to_le_bytes().into_iter().zip(value.to_le_bytes())) {
        *byte = (*byte & !mask) | value;
    }
}

fn dense_place(index: usize) -> (usize, usize) {
    let bit = index * REGISTER_BITS;
    (HEADER_BYTES + bit / 8, bit % 8)
}

#[cfg(test)]
mod tests {
    use super::{
        Corrupt, Encoding, Invalid, SPARSE_BYTES_MAX_DEFAULT, Union, add, cached, create, decode, dense_registers,
        encoding, estimate, make_dense, mark_stale, self_test, set_cached, validate,
    };
    use crate::algorithm::random::Random;

    fn with(elements: std::ops::Range<u32>) -> Vec<u8> {
        let mut value = create();
        for element in elements {
            add(&mut value, element.to_string().as_bytes(), SPARSE_BYTES_MAX_DEFAULT).expect("a sound value");
        }
        value
    }

    #[test]
    fn a_few_elements_give_the_bytes_and_the_number_of_redis() {
        let mut value = create();
        for element in ["a", "b", "c", "d", "e", "f", "g"] {
            assert_eq!(add(&mut value, element.as_bytes(), SPARSE_BYTES_MAX_DEFAULT), Ok(true));
            assert_eq!(add(&mut value, element.as_bytes(), SPARSE_BYTES_MAX_DEFAULT), Ok(false));
        }
        assert_eq!(
            decode(&value),
            "Z:1646 v:1,1 Z:5645 v:1,1 Z:1085 v:2,1 z:57 v:1,1 Z:4274 v:2,1 Z:2445 v:1,1 Z:622 v:1,1 Z:603"
        );
        assert_eq!(estimate(&value), Ok(7));
    }

    #[test]
    fn estimates_are_those_of_redis() {
        for (elements, expected) in [(0, 0), (100, 100), (1_000, 1_001), (10_000, 9_987), (100_000, 99_565)] {
            assert_eq!(estimate(&with(0..elements)), Ok(expected), "{elements} elements");
        }
    }

    #[test]
    fn both_forms_and_a_union_estimate_the_same() {
        let sparse = with(0..500);
        let mut dense = sparse.clone();
        assert_eq!(make_dense(&mut dense), Ok(true));
        assert_eq!((encoding(&sparse), validate(&dense)), (Encoding::Sparse, Ok(Encoding::Dense)));
        assert_eq!(estimate(&sparse), estimate(&dense));
        let mut union = Union::new();
        for part in [with(0..300), with(200..500)] {
            union.include(&part).expect("a sound value");
        }
        assert_eq!(Ok(union.estimate()), estimate(&sparse));
        let mut stored = create();
        make_dense(&mut stored).expect("a sound value");
        union.store(&mut stored, SPARSE_BYTES_MAX_DEFAULT).expect("a sound value");
        assert!(dense_registers(&stored).eq(dense_registers(&dense)));
    }

    #[test]
    fn the_cache_counts_until_it_is_stale() {
        let mut value = create();
        assert_eq!(cached(&value), Some(0));
        set_cached(&mut value, 77);
        assert_eq!(cached(&value), Some(77));
        mark_stale(&mut value);
        assert_eq!(cached(&value), None);
    }

    #[test]
    fn broken_headers_are_invalid_and_broken_registers_corrupt() {
        let sound = create();
        assert_eq!(validate(&sound[..15]), Err(Invalid));
        assert_eq!(validate(b"HYLX\x01\0\0\0\0\0\0\0\0\0\0\0"), Err(Invalid));
        assert_eq!(validate(b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\0"), Err(Invalid));
        assert_eq!(validate(b"HYLL\x00\0\0\0\0\0\0\0\0\0\0\0"), Err(Invalid));
        let short = sound[..sound.len() - 1].to_vec();
        let long = [sound.as_slice(), b"\x84"].concat();
        for broken in [short, long, sound[..16].to_vec()] {
            assert_eq!(estimate(&broken), Err(Corrupt));
            assert_eq!(make_dense(&mut broken.clone()), Err(Corrupt));
            assert_eq!(Union::new().include(&broken), Err(Corrupt));
        }
    }

    #[test]
    fn any_bytes_behind_the_header_are_survived() {
        let mut random = Random::new(7);
        for _ in 0..2_000 {
            let mut value = create();
            value.truncate(16);
            value.extend((0..random.index(40)).map(|_| random.clone().next_u64() as u8 ^ random.next_u64() as u8));
            for _ in 0..20 {
                // Whatever comes out, nothing may panic, and the header stays.
                let _ = add(&mut value, &random.next_u64().to_le_bytes(), 60);
                assert!(validate(&value).is_ok());
            }
            assert_eq!(estimate(&value).is_ok(), Union::new().include(&value).is_ok());
        }
    }

    #[test]
    fn the_self_test_passes() {
        let mut random = Random::new(3);
        assert_eq!(self_test(|| random.next_u64()), Ok(()));
    }
}
