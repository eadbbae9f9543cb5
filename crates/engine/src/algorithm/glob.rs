//! Redis's glob patterns, as KEYS, SCAN, PSUBSCRIBE and CONFIG GET match them.
//!
//! # Guarantees
//! `*` stands for any bytes, `?` for one byte, `[a-z]` for one byte of a class, `[^a-z]` for one byte outside of it, `\` takes the
//! next byte as it is. Work is at most pattern length times text length, whatever the number of stars.
//!
//! # Failure
//! None: every pattern means something. The odd ones mean what they mean to Redis 7.0:
//! - A class without `]` ends with the pattern: `[ab` is `[ab]`, `[^` is any byte, `[` alone matches nothing.
//! - Bounds of a range come in any order and compare as signed bytes, so `[a-\xff]` covers 0xff to `a` by way of zero.
//! - Ignoring case does not reach an escaped byte within a class.
//! - The empty text matches only the empty pattern, not `*`.
//! - Behind [`STARS_MAX`] stars nothing matches.
//!
//! # How it works
//! Each element but a star takes exactly one byte. So when a mismatch follows a star, only the last star needs to try
//! another length: an earlier one could but leave less text for the same rest.

/// How many runs of stars a pattern may have before its last one. Redis, which recurses at each, stops at the same number.
const STARS_MAX: usize = 1000;

/// Whether upper and lower case of the 26 ASCII letters are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// `a` is not `A`.
    Sensitive,
    /// `a` is `A`.
    Ignored,
}

/// Whether the whole of `text` matches `pattern`.
pub(crate) fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut taken) = (0, 0);
    // Where the pattern goes on after the last star, and where in the text that rest was tried last.
    let mut star: Option<(usize, usize)> = None;
    let mut stars = 0;
    while taken < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at = after_stars(pattern, at);
            if at == pattern.len() {
                return true;
            }
            stars += 1;
            if stars > STARS_MAX {
                return false;
            }
            star = Some((at, taken));
        } else if let Some(next) = element(pattern, at, text[taken], case) {
            at = next;
            taken += 1;
        } else if let Some((rest, tried)) = star {
            star = Some((rest, tried + 1));
            at = rest;
            taken = tried + 1;
        } else {
            return false;
        }
    }
    after_stars(pattern, at) == pattern.len()
}

fn after_stars(pattern: &[u8], at: usize) -> usize {
    at + pattern[at..].iter().take_while(|&&byte| byte == b'*').count()
}

/// Tries `byte` against the element at `at`: where the next element starts if it matches.
fn element(pattern: &[u8], at: usize, byte: u8, case: Case) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => class(pattern, at + 1, byte, case),
        b'\\' if at + 1 < pattern.len() => same(pattern[at + 1], byte, case).then_some(at + 2),
        literal => same(literal, byte, case).then_some(at + 1),
    }
}

/// The class whose `[` precedes `at`.
fn class(pattern: &[u8], mut at: usize, byte: u8, case: Case) -> Option<usize> {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at..] {
            [] => break,
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [from, b'-', to, ..] => {
                found |= in_range(from, to, byte, case);
                at += 3;
            }
            [single, ..] => {
                found |= same(single, byte, case);
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

fn in_range(from: u8, to: u8, byte: u8, case: Case) -> bool {
    // Ordered first and folded afterwards, so that `[Z-a]` without case is empty, as in Redis.
    let (low, high) = if (from as i8) <= (to as i8) { (from, to) } else { (to, from) };
    let signed = |byte: u8| fold(byte, case) as i8;
    signed(low) <= signed(byte) && signed(byte) <= signed(high)
}

fn same(one: u8, other: u8, case: Case) -> bool {
    fold(one, case) == fold(other, case)
}

fn fold(byte: u8, case: Case) -> u8 {
    match case {
        Case::Sensitive => byte,
        Case::Ignored => byte.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Case, STARS_MAX, matches};

    fn exact(pattern: &[u8], text: &[u8]) -> bool {
        matches(pattern, text, Case::Sensitive)
    }

    #[test]
    fn patterns_match_what_redis_matches() {
        let matching: [(&[u8], &[u8]); 14] = [
            (b"h?llo", b"hallo"),
            (b"h*llo", b"heeeello"),
            (b"h[ae]llo", b"hello"),
            (b"h[^e]llo", b"hallo"),
            (b"h[a-b]llo", b"hbllo"),
            (b"h[b-a]llo", b"hallo"),
            (b"\\*", b"*"),
            (b"a\\", b"a\\"),
            (b"[\\]]", b"]"),
            (b"x[ab", b"xb"),
            (b"x[^", b"xq"),
            (b"[a-]", b"a"),
            (b"*a*b*c", b"xxaxbxbxc"),
            (b"[\xff-a]", b"\x00"),
        ];
        for (pattern, text) in matching {
            assert!(exact(pattern, text), "{} on {}", pattern.escape_ascii(), text.escape_ascii());
        }
        let different: [(&[u8], &[u8]); 9] = [
            (b"h?llo", b"hllo"),
            (b"h[^e]llo", b"hello"),
            (b"[", b"["),
            (b"[]", b"]"),
            (b"[a-\xff]", b"b"),
            (b"*", b""),
            (b"?", b""),
            (b"a*b", b"a"),
            (b"abc", b"ABC"),
        ];
        for (pattern, text) in different {
            assert!(!exact(pattern, text), "{} on {}", pattern.escape_ascii(), text.escape_ascii());
        }
    }

    #[test]
    fn ignored_case_folds_letters_and_ranges_but_no_escape_within_a_class() {
        assert!(matches(b"H[A-c]LLO", b"hBllo", Case::Ignored));
        assert!(!matches(b"[Z-a]", b"z", Case::Ignored));
        assert!(!matches(b"[\\A]", b"a", Case::Ignored));
        assert!(matches(b"\\A", b"a", Case::Ignored));
    }

    #[test]
    fn many_stars_end_in_bounded_time() {
        let pattern = [b"*a".repeat(500).as_slice(), b"*b"].concat();
        assert!(!exact(&pattern, &b"a".repeat(20_000)));
    }

    #[test]
    fn nothing_matches_behind_the_last_star_that_counts() {
        let text = b"a".repeat(3 * STARS_MAX);
        assert!(exact(&b"*a".repeat(STARS_MAX), &text));
        assert!(!exact(&b"*a".repeat(STARS_MAX + 1), &text));
    }
}
