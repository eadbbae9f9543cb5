//! Lua's patterns.
//!
//! # Guarantees
//! Matches are those of Lua 5.1. The depth of a match is bounded by [`DEPTH_MAX`], so no pattern ends the stack of the thread, and a match that
//! takes long can be interrupted: Lua's own matcher allows neither.
//!
//! # How it works
//! The usual backtracking: each repetition and each capture tries the rest of the pattern by recursion. All else goes on in place.
//!
//! See <https://www.lua.org/manual/5.1/manual.html#5.4.1>.

/// How deep repetitions and captures of a pattern follow each other: as in later versions of Lua. Lua 5.1 has no bound but the
/// stack of the process.
const DEPTH_MAX: usize = 200;
/// Lua's bound.
const CAPTURES_MAX: usize = 32;
/// After so many steps, about a millisecond, the match asks whether it may go on.
const STEPS_PER_PAUSE: u32 = 200_000;

/// Why a match ended without an answer.
#[derive(Debug)]
pub(super) enum Trouble<E> {
    /// The pattern is wrong.
    Pattern(&'static str),
    /// The match was interrupted.
    Interrupted(E),
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// It has begun here.
    Open(usize),
    /// `()`: the place alone.
    Place(usize),
    /// From here to there.
    Text(usize, usize),
}

/// A pattern on its way through a text.
pub(super) struct Matcher<'t, F> {
    text: &'t [u8],
    pattern: &'t [u8],
    captures: [Capture; CAPTURES_MAX],
    captures_len: usize,
    depth: usize,
    steps: u32,
    pause: F,
}

type Outcome<T, E> = Result<T, Trouble<E>>;

impl<'t, E, F: FnMut() -> Result<(), E>> Matcher<'t, F> {
    /// `pause` is called now and then, and can end the match. The pattern ends at its first zero byte, as one of Lua does.
    pub(super) fn new(text: &'t [u8], pattern: &'t [u8], pause: F) -> Self {
        let end = pattern.iter().position(|byte| *byte == 0).unwrap_or(pattern.len());
        Self {
            text,
            pattern: &pattern[..end],
            captures: [Capture::Open(0); CAPTURES_MAX],
            captures_len: 0,
            depth: 0,
            steps: 0,
            pause,
        }
    }

    /// Matches at a place of the text. Gives the end of the match.
    pub(super) fn match_at(&mut self, place: usize) -> Outcome<Option<usize>, E> {
        self.captures_len = 0;
        self.depth = 0;
        self.run(place, 0)
    }

    /// The captures of the last match.
    pub(super) fn captures(&self) -> &[Capture] {
        &self.captures[..self.captures_len]
    }

    /// The rest of the pattern one level deeper.
    fn rest(&mut self, s: usize, p: usize) -> Outcome<Option<usize>, E> {
        if self.depth == DEPTH_MAX {
            return Err(Trouble::Pattern("pattern too complex"));
        }
        self.depth += 1;
        let end = self.run(s, p);
        self.depth -= 1;
        end
    }

    fn run(&mut self, mut s: usize, mut p: usize) -> Outcome<Option<usize>, E> {
        loop {
            self.step()?;
            let next = self.pattern.get(p + 1).copied();
            match (self.pattern.get(p), next) {
                (None, _) => return Ok(Some(s)),
                (Some(b'('), Some(b')')) => return self.begin_capture(s, p + 2, Capture::Place(s)),
                (Some(b'('), _) => return self.begin_capture(s, p + 1, Capture::Open(s)),
                (Some(b')'), _) => return self.end_capture(s, p + 1),
                (Some(b'$'), None) => return Ok((s == self.text.len()).then_some(s)),
                (Some(b'%'), Some(b'b')) => {
                    let Some(end) = self.balanced(s, p + 2)? else { return Ok(None) };
                    (s, p) = (end, p + 4);
                }
                (Some(b'%'), Some(b'f')) => {
                    let Some(end) = self.frontier(s, p + 2)? else { return Ok(None) };
                    p = end;
                }
                (Some(b'%'), Some(digit @ b'0'..=b'9')) => {
                    let Some(end) = self.repeated(s, digit)? else { return Ok(None) };
                    (s, p) = (end, p + 2);
                }
                _ => {
                    let item_end = self.item_end(p)?;
                    let matches = self.matches_one(s, p, item_end);
                    match self.pattern.get(item_end) {
                        Some(b'?') => {
                            if matches && let Some(end) = self.rest(s + 1, item_end + 1)? {
                                return Ok(Some(end));
                            }
                            p = item_end + 1;
                        }
                        Some(b'*') => return self.longest(s, p, item_end),
                        Some(b'+') if matches => return self.longest(s + 1, p, item_end),
                        Some(b'-') => return self.shortest(s, p, item_end),
                        Some(b'+') => return Ok(None),
                        _ if matches => (s, p) = (s + 1, item_end),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    fn step(&mut self) -> Outcome<(), E> {
        self.steps += 1;
        if self.steps < STEPS_PER_PAUSE {
            return Ok(());
        }
        self.steps = 0;
        (self.pause)().map_err(Trouble::Interrupted)
    }

    fn longest(&mut self, s: usize, p: usize, item_end: usize) -> Outcome<Option<usize>, E> {
        let mut last = s;
        while self.matches_one(last, p, item_end) {
            self.step()?;
            last += 1;
        }
        loop {
            if let Some(end) = self.rest(last, item_end + 1)? {
                return Ok(Some(end));
            }
            if last == s {
                return Ok(None);
            }
            last -= 1;
        }
    }

    fn shortest(&mut self, mut s: usize, p: usize, item_end: usize) -> Outcome<Option<usize>, E> {
        loop {
            if let Some(end) = self.rest(s, item_end + 1)? {
                return Ok(Some(end));
            }
            if !self.matches_one(s, p, item_end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn begin_capture(&mut self, s: usize, p: usize, capture: Capture) -> Outcome<Option<usize>, E> {
        if self.captures_len == CAPTURES_MAX {
            return Err(Trouble::Pattern("too many captures"));
        }
        self.captures[self.captures_len] = capture;
        self.captures_len += 1;
        let end = self.rest(s, p)?;
        if end.is_none() {
            self.captures_len -= 1;
        }
        Ok(end)
    }

    fn end_capture(&mut self, s: usize, p: usize) -> Outcome<Option<usize>, E> {
        let open = self.captures().iter().rposition(|capture| matches!(capture, Capture::Open(_)));
        let Some(index) = open else { return Err(Trouble::Pattern("invalid pattern capture")) };
        let before = self.captures[index];
        if let Capture::Open(start) = before {
            self.captures[index] = Capture::Text(start, s);
        }
        let end = self.rest(s, p)?;
        if end.is_none() {
            self.captures[index] = before;
        }
        Ok(end)
    }

    /// `%1`: what a capture holds, once more.
    fn repeated(&self, s: usize, digit: u8) -> Outcome<Option<usize>, E> {
        let capture = usize::from(digit).checked_sub(usize::from(b'1')).and_then(|index| self.captures().get(index));
        match capture {
            Some(Capture::Text(start, end)) => {
                let repeats = self.text[s..].starts_with(&self.text[*start..*end]);
                Ok(repeats.then_some(s + end - start))
            }
            // A place is no text that could come again.
            Some(Capture::Place(_)) => Ok(None),
            Some(Capture::Open(_)) | None => Err(Trouble::Pattern("invalid capture index")),
        }
    }

    /// `%bxy`
    fn balanced(&mut self, s: usize, p: usize) -> Outcome<Option<usize>, E> {
        let Some(&[opens, closes]) = self.pattern.get(p..p + 2) else {
            return Err(Trouble::Pattern("unbalanced pattern"));
        };
        if self.text.get(s) != Some(&opens) {
            return Ok(None);
        }
        let mut open = 1_usize;
        for index in s + 1..self.text.len() {
            self.step()?;
            let byte = self.text[index];
            if byte == closes {
                open -= 1;
                if open == 0 {
                    return Ok(Some(index + 1));
                }
            } else if byte == opens {
                open += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: here a run of members of the set begins. Gives the end of the item.
    fn frontier(&self, s: usize, p: usize) -> Outcome<Option<usize>, E> {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(Trouble::Pattern("missing '[' after '%f' in pattern"));
        }
        let item_end = self.item_end(p)?;
        let set = &self.pattern[p + 1..item_end - 1];
        // Outside of the text lie zero bytes.
        let before = s.checked_sub(1).map_or(0, |before| self.text[before]);
        let after = self.text.get(s).copied().unwrap_or(0);
        Ok((!in_set(before, set) && in_set(after, set)).then_some(item_end))
    }

    /// Where the item that begins at `p` ends: one byte, a class, or a set.
    fn item_end(&self, p: usize) -> Outcome<usize, E> {
        const NO_BRACKET: &str = "malformed pattern (missing ']')";
        let at = |index: usize| self.pattern.get(index).copied();
        match at(p) {
            Some(b'%') if at(p + 1).is_none() => Err(Trouble::Pattern("malformed pattern (ends with '%')")),
            Some(b'%') => Ok(p + 2),
            Some(b'[') => {
                let mut end = if at(p + 1) == Some(b'^') { p + 2 } else { p + 1 };
                // A bracket in the first place stands for itself.
                loop {
                    let byte = at(end).ok_or(Trouble::Pattern(NO_BRACKET))?;
                    end += if byte == b'%' && at(end + 1).is_some() { 2 } else { 1 };
                    if at(end) == Some(b']') {
                        return Ok(end + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    fn matches_one(&self, s: usize, p: usize, item_end: usize) -> bool {
        let Some(&byte) = self.text.get(s) else { return false };
        match self.pattern[p] {
            b'.' => true,
            b'%' => in_class(byte, self.pattern[p + 1]),
            b'[' => in_set(byte, &self.pattern[p + 1..item_end - 1]),
            literal => literal == byte,
        }
    }
}

/// `set` is what stands between the brackets.
fn in_set(byte: u8, set: &[u8]) -> bool {
    let (negated, mut rest) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    loop {
        let found = match rest {
            [] => return negated,
            [b'%', class, tail @ ..] => {
                rest = tail;
                in_class(byte, *class)
            }
            [low, b'-', high, tail @ ..] => {
                rest = tail;
                (*low..=*high).contains(&byte)
            }
            [literal, tail @ ..] => {
                rest = tail;
                *literal == byte
            }
        };
        if found {
            return !negated;
        }
    }
}

fn in_class(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::{Matcher, Trouble};

    fn end(text: &str, pattern: &str) -> Result<Option<usize>, Trouble<()>> {
        Matcher::new(text.as_bytes(), pattern.as_bytes(), || Ok(())).match_at(0)
    }

    #[test]
    fn a_pattern_without_end_of_repetitions_is_an_error_and_no_overflow() {
        for item in ["a?", "a*", "a-", "(a"] {
            let (text, pattern) = ("a".repeat(100_000), item.repeat(100_000) + "b");
            assert!(matches!(end(&text, &pattern), Err(Trouble::Pattern(_))), "{item}");
        }
        assert!(matches!(end(&"a".repeat(100_000), "a*"), Ok(Some(100_000))), "a long text is no deep one");
    }

    #[test]
    fn a_match_that_takes_long_can_be_interrupted() {
        let (text, pattern) = ("a".repeat(1_000), "a*".repeat(30) + "b");
        let mut pauses = 0;
        let pause = || {
            pauses += 1;
            if pauses < 3 { Ok(()) } else { Err("enough") }
        };
        let end = Matcher::new(text.as_bytes(), pattern.as_bytes(), pause).match_at(0);
        assert!(matches!(end, Err(Trouble::Interrupted("enough"))));
        assert_eq!(pauses, 3);
    }
}
