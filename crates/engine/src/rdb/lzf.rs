//! LZF: the compression of strings in RDB files. Weak but quick, and the format has nothing else.
//!
//! # Format
//! ```text
//! 000lllll                     l + 1 bytes follow as they are
//! lllooooo oooooooo            copy l + 2 bytes (l: 1..6) from o + 1 bytes back
//! 111ooooo llllllll oooooooo   copy l + 9 bytes from o + 1 bytes back
//! ```
//! A copy may overlap what it writes.
//!
//! # Failure
//! Compressing gives up where too little is saved. Decompressing refuses anything that does not come out at the length that was said, and never
//! takes more memory than that.

/// The longest run of bytes as they are.
const LITERAL_BYTES_MAX: usize = 32;

/// The shortest and the longest copy.
const COPY_BYTES_MIN: usize = 3;
const COPY_BYTES_MAX: usize = 264;

/// How far back a copy reaches.
const DISTANCE_MAX: usize = 8192;

/// Places that the compressor remembers, at most: one for each hash of three bytes.
const HASH_BITS_MAX: u32 = 13;
const HASH_BITS_MIN: u32 = 6;

/// The best there is: a copy of 264 bytes in 3.
pub(crate) const RATIO_MAX: u64 = (COPY_BYTES_MAX / 3) as u64;

/// Appends `input`, compressed, to `out`. Returns whether that took fewer than `bytes_max` bytes; otherwise `out` is as it was.
pub(crate) fn compress(input: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let is_smaller = compress_within(input, start.saturating_add(bytes_max), out);
    if !is_smaller {
        out.truncate(start);
    }
    is_smaller
}

fn compress_within(input: &[u8], len_max: usize, out: &mut Vec<u8>) -> bool {
    let bits = (input.len() as u64 | 1).ilog2().clamp(HASH_BITS_MIN, HASH_BITS_MAX);
    // Where a hash was last seen, plus one; 0: nowhere. Beyond 4 GiB that wraps around, and finds less.
    let mut seen = vec![0_u32; 1 << bits];
    let (mut at, mut literals) = (0, 0);
    while let Some(three) = input[at..].first_chunk::<COPY_BYTES_MIN>() {
        if out.len() + (at - literals) >= len_max {
            return false;
        }
        let place = &mut seen[hash(*three, bits)];
        let before = std::mem::replace(place, (at as u32).wrapping_add(1)) as usize;
        let source = before.wrapping_sub(1);
        if before == 0 || at - source > DISTANCE_MAX || input[source..source + COPY_BYTES_MIN] != *three {
            at += 1;
            continue;
        }
        let len = equal_len(input, source, at);
        write_literals(&input[literals..at], out);
        write_copy(at - source, len, out);
        at += len;
        literals = at;
    }
    write_literals(&input[literals..], out);
    out.len() < len_max
}

/// Appends what `input` was before it was compressed, which is `len` bytes. `None`: that is not what it is.
pub(crate) fn decompress(input: &[u8], len: usize, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let end = start.checked_add(len)?;
    let mut rest = input;
    while let [control, tail @ ..] = rest {
        let control = usize::from(*control);
        if control < LITERAL_BYTES_MAX {
            let literals = tail.get(..control + 1)?;
            out.extend_from_slice(literals);
            rest = &tail[literals.len()..];
        } else {
            let (copied, distance_low, tail) = match (control >> 5, tail) {
                (7, [more, low, tail @ ..]) => (usize::from(*more) + 9, low, tail),
                (short @ 1..7, [low, tail @ ..]) => (short + 2, low, tail),
                _ => return None,
            };
            let distance = ((control & 0x1f) << 8 | usize::from(*distance_low)) + 1;
            if out.len() + copied > end {
                return None;
            }
            copy_back(out, start, distance, copied)?;
            rest = tail;
        }
        if out.len() > end {
            return None;
        }
    }
    (out.len() == end).then_some(())
}

/// Appends `len` bytes from `distance` back, which may be among those it writes; not from before `start`.
fn copy_back(out: &mut Vec<u8>, start: usize, distance: usize, len: usize) -> Option<()> {
    let from = out.len().checked_sub(distance).filter(|from| *from >= start)?;
    if distance >= len {
        out.extend_from_within(from..from + len);
    } else {
        for at in from..from + len {
            out.push(out[at]);
        }
    }
    Some(())
}

fn hash([first, second, third]: [u8; 3], bits: u32) -> usize {
    // Fibonacci hashing: the highest bits of the product depend on all three bytes.
    (u32::from_le_bytes([first, second, third, 0]).wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
}

/// How many bytes at `at` are as those at `source`, up to the longest copy.
fn equal_len(input: &[u8], source: usize, at: usize) -> usize {
    let pairs = input[at..].iter().zip(&input[source..]).take(COPY_BYTES_MAX);
    pairs.take_while(|(one, other)| one == other).count()
}

fn write_literals(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(LITERAL_BYTES_MAX) {
        // At most 31.
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn write_copy(distance: usize, len: usize, out: &mut Vec<u8>) {
    let (distance, len) = (distance - 1, len - 2);
    // Five bits of the distance, and eight.
    let (high, low) = ((distance >> 8) as u8, distance as u8);
    if len < 7 {
        out.extend_from_slice(&[(len as u8) << 5 | high, low]);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (len - 7) as u8, low]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::{compress, decompress};

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece =
            prop_oneof![vec(any::<u8>(), 0..40), vec(0..3_u8, 0..600), (0..2_u8).prop_map(|byte| vec![byte; 9_000])];
        vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(text in text()) {
            let mut small = b"before".to_vec();
            if compress(&text, text.len(), &mut small) {
                prop_assert!(small.len() - 6 < text.len());
                let mut back = b"head".to_vec();
                prop_assert_eq!(decompress(&small[6..], text.len(), &mut back), Some(()));
                prop_assert_eq!(&back[4..], &text);
                prop_assert_eq!(decompress(&small[6..], text.len() + 1, &mut Vec::new()), None);
                prop_assert_eq!(decompress(&small[6..], text.len() - 1, &mut Vec::new()), None);
            } else {
                prop_assert_eq!(small, b"before");
            }
        }

        #[test]
        fn any_bytes_are_decompressed_or_refused(bytes in vec(any::<u8>(), 0..300), len in 0..2_000_usize) {
            let mut out = Vec::new();
            let result = decompress(&bytes, len, &mut out);
            prop_assert!(out.len() <= len + 32 && (result.is_none() || out.len() == len));
        }
    }

    #[test]
    fn repetition_is_worth_it_and_noise_is_not() {
        let mut out = Vec::new();
        assert!(compress(&[b'a'; 10_000], 9_996, &mut out));
        assert!(out.len() < 130, "{}", out.len());
        let noise: Vec<u8> = (0..200_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        out.clear();
        assert!(!compress(&noise, noise.len() - 4, &mut out) && out.is_empty());
    }

    #[test]
    fn bytes_of_the_format_mean_what_it_says() {
        let mut out = Vec::new();
        // "ab" as it is, then 3 bytes from 2 back, then 10 from 1 back.
        assert_eq!(decompress(&[1, b'a', b'b', 1 << 5, 1, 7 << 5, 1, 0], 15, &mut out), Some(()));
        assert_eq!(out, b"abababbbbbbbbbb"[..5].iter().chain(&[b'a'; 10]).copied().collect::<Vec<_>>());
    }
}
