//! SORT and SORT_RO.
//!
//! # How it works
//! The elements are copied out, given a weight each (their own text, or what `BY` points to), sorted, cut, and shown or stored. Patterns of
//! `BY` and `GET` lead to keys that the command does not name, so that it holds its whole database when there are any.
//!
//! Elements of equal weight are ordered by their bytes, as in Redis. Where Redis leaves an order open, that of the collection stays.

use std::cmp::Ordering;

use super::call::Call;
use super::error::CommandError;
use super::options::{integer, is};
use super::row::{Flags, Group, Positions, Row, Scope};
use crate::entry::Kind;
use crate::observe::EventClass;
use crate::typed::Whole;
use crate::value::{Fields, List, Set, Zset};

/// Separates the key from the field in a pattern that leads into a hash.
const ARROW: &[u8] = b"->";

/// The pattern that means the element itself.
const ITSELF: &[u8] = b"#";

/// What is asked of SORT.
#[derive(Default)]
struct Options<'a> {
    is_descending: bool,
    is_alphabetic: bool,
    offset: i64,
    /// Negative: all.
    count: i64,
    by: Option<&'a [u8]>,
    /// Some `BY` had a pattern without a place for the element: nothing is sorted, whatever another `BY` says.
    is_unsorted: bool,
    gets: Vec<&'a [u8]>,
    /// Position of the key to store the result in, among all arguments.
    store_at: Option<usize>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], may_store: bool) -> Result<Self, CommandError> {
        let mut options = Self { count: -1, ..Self::default() };
        let mut at = 2;
        while let Some(word) = args.get(at) {
            let values = &args[at + 1..];
            at += 1;
            match (word, values) {
                (word, _) if is(word, "ASC") => options.is_descending = false,
                (word, _) if is(word, "DESC") => options.is_descending = true,
                (word, _) if is(word, "ALPHA") => options.is_alphabetic = true,
                (word, [offset, count, ..]) if is(word, "LIMIT") => {
                    (options.offset, options.count) = (integer(offset)?, integer(count)?);
                    at += 2;
                }
                (word, [_, ..]) if may_store && is(word, "STORE") => {
                    options.store_at = Some(at);
                    at += 1;
                }
                (word, [pattern, ..]) if is(word, "BY") => {
                    options.by = Some(*pattern);
                    options.is_unsorted |= star(pattern).is_none();
                    at += 1;
                }
                (word, [pattern, ..]) if is(word, "GET") => {
                    options.gets.push(*pattern);
                    at += 1;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }

    /// The part of `len` elements that is shown.
    fn window(&self, len: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(0).min(len);
        let count = usize::try_from(self.count).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }
}

/// Patterns lead to keys that are found only when the elements are known.
fn scope(args: &[&[u8]]) -> Scope {
    let leads_elsewhere = |pattern: &&[u8]| star(pattern).is_some();
    match Options::parse(args, true) {
        Ok(options) if options.by.iter().chain(&options.gets).any(leads_elsewhere) => Scope::Database,
        _ => Scope::Keys,
    }
}

fn sort_keys(args: &[&[u8]]) -> Positions {
    let store_at = Options::parse(args, true).ok().and_then(|options| options.store_at);
    [1].into_iter().chain(store_at).collect()
}

fn sort(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let options = Options::parse(call.args, true)?;
    let rows = sorted_rows(call, &options)?;
    match options.store_at {
        Some(at) => store(call, call.args[at], &rows),
        None => show(call, &rows),
    }
    Ok(())
}

fn sort_ro(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let options = Options::parse(call.args, false)?;
    let rows = sorted_rows(call, &options)?;
    show(call, &rows);
    Ok(())
}

/// What is shown, in order; `None` for what `GET` does not find.
fn sorted_rows(call: &mut Call<'_, '_>, options: &Options<'_>) -> Result<Vec<Option<Vec<u8>>>, CommandError> {
    let (kind, mut elements) = elements(call, options)?;
    // A set has no order of its own: what is stored, or seen by a script, must not depend on chance.
    let is_set_in_order = kind == Kind::Set && (options.store_at.is_some() || call.deny_blocking);
    if options.is_unsorted && is_set_in_order {
        let by_bytes = Options { is_alphabetic: true, is_descending: options.is_descending, ..Options::default() };
        order(call, &by_bytes, &mut elements)?;
    } else if !options.is_unsorted {
        order(call, options, &mut elements)?;
    }
    let window = options.window(elements.len());
    let elements = elements.drain(window);
    if options.gets.is_empty() {
        return Ok(elements.map(Some).collect());
    }
    let rows = elements.flat_map(|element| {
        let found: Vec<_> = options.gets.iter().map(|pattern| look_up(call, pattern, &element)).collect();
        found
    });
    Ok(rows.collect())
}

/// All elements, in the order of the collection, which `DESC` turns round where nothing is sorted.
fn elements(call: &mut Call<'_, '_>, options: &Options<'_>) -> Result<(Kind, Vec<Vec<u8>>), CommandError> {
    let mut slot = call.keys.read(call.args[1]);
    let Some(kind) = slot.get().map(|value| value.kind()) else { return Ok((Kind::List, Vec::new())) };
    if kind == Kind::SortedSet
        && let Some(mut set) = slot.edit::<Zset>()?
    {
        // Redis sorts from the large form, and leaves it.
        set.become_large();
    }
    let mut elements = Vec::new();
    match kind {
        Kind::List => elements.extend(slot.value::<List>()?.into_iter().flat_map(List::iter).map(<[u8]>::to_vec)),
        Kind::Set => {
            let members = slot.value::<Set>()?.into_iter().flat_map(Set::iter);
            elements.extend(members.map(|member| member.to_vec()));
        }
        Kind::SortedSet => {
            let members = slot.value::<Zset>()?.into_iter().flat_map(Zset::iter);
            elements.extend(members.map(|(member, _)| member.to_vec()));
        }
        Kind::String | Kind::Hash => return Err(CommandError::WrongType),
    }
    if options.is_unsorted && options.is_descending && kind != Kind::Set {
        elements.reverse();
    }
    Ok((kind, elements))
}

/// What counts of a text: where the result is shown and not stored, Redis compares C strings, which a byte 0 ends.
fn collated(weight: &[u8], is_stored: bool) -> &[u8] {
    if is_stored { weight } else { weight.split(|byte| *byte == 0).next().unwrap_or_default() }
}

/// Sorts by weight.
fn order(call: &mut Call<'_, '_>, options: &Options<'_>, elements: &mut Vec<Vec<u8>>) -> Result<(), CommandError> {
    let weights: Vec<Option<Vec<u8>>> = match options.by {
        Some(pattern) => elements.iter().map(|element| look_up(call, pattern, element)).collect(),
        None => elements.iter().cloned().map(Some).collect(),
    };
    let direct = |ordering: Ordering| if options.is_descending { ordering.reverse() } else { ordering };
    if options.is_alphabetic {
        // What has no weight comes first; equal weights keep their order.
        let mut weighed: Vec<_> = weights.into_iter().zip(elements.drain(..)).collect();
        let is_stored = options.store_at.is_some();
        weighed.sort_by(|(one, _), (other, _)| {
            let text = |weight| Option::as_deref(weight).map(|weight| collated(weight, is_stored));
            direct(text(one).cmp(&text(other)))
        });
        elements.extend(weighed.into_iter().map(|(_, element)| element));
        return Ok(());
    }
    let numbers: Option<Vec<f64>> = weights.iter().map(|weight| weight.as_deref().map_or(Some(0.0), number)).collect();
    let numbers = numbers.ok_or(CommandError::text("ERR One or more scores can't be converted into double"))?;
    let mut weighed: Vec<_> = numbers.into_iter().zip(elements.drain(..)).collect();
    weighed.sort_by(|(one, element), (other, other_element)| {
        direct(one.partial_cmp(other).unwrap_or(Ordering::Equal).then_with(|| element.cmp(other_element)))
    });
    elements.extend(weighed.into_iter().map(|(_, element)| element));
    Ok(())
}

/// A weight as C's `strtod` reads it: blanks may precede it, no text is 0, and a byte 0 ends the text.
fn number(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_blank(byte))?;
    acteon_resp::parse_f64(&text[start..])
}

fn star(pattern: &[u8]) -> Option<usize> {
    pattern.iter().position(|byte| *byte == b'*')
}

/// What `pattern` leads to with `element` in the place of its star: a string, or the field of a hash after an arrow.
fn look_up(call: &mut Call<'_, '_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == ITSELF {
        return Some(element.to_vec());
    }
    let star = star(pattern)?;
    let (prefix, rest) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = rest.windows(ARROW.len()).position(|window| window == ARROW);
    // An arrow at the very end is part of the key.
    let arrow = arrow.filter(|at| at + ARROW.len() < rest.len());
    let (suffix, field) = match arrow {
        Some(at) => (&rest[..at], Some(&rest[at + ARROW.len()..])),
        None => (rest, None),
    };
    let key = [prefix, element, suffix].concat();
    let slot = call.keys.read(&key);
    match field {
        Some(field) => slot.value::<Fields>().ok()??.get(field).map(<[u8]>::to_vec),
        None => slot.str().ok()?.map(<[u8]>::to_vec),
    }
}

fn show(call: &mut Call<'_, '_>, rows: &[Option<Vec<u8>>]) {
    call.reply.array(rows.len());
    for row in rows {
        match row {
            Some(row) => call.reply.bulk(row),
            None => call.reply.null(),
        }
    }
}

/// Makes `key` a list of the rows, empty strings for what was not found; without rows there is no key.
fn store(call: &mut Call<'_, '_>, key: &[u8], rows: &[Option<Vec<u8>>]) {
    let limits = call.session.limits;
    let mut slot = call.keys.slot(key);
    if rows.is_empty() {
        if let Some(entry) = slot.take_entry() {
            slot.event(EventClass::GENERIC, "del");
            call.effects.garbage.push(entry);
            call.effects.changes += 1;
        }
    } else {
        let mut list = List::new();
        rows.iter().for_each(|row| list.push_back(row.as_deref().unwrap_or_default(), &limits));
        call.effects.garbage.extend(slot.put_whole(Whole::new(list)));
        slot.event(EventClass::LIST, "sortstore");
        call.effects.changes += rows.len() as u64;
    }
    call.reply.integer(rows.len() as i64);
}

pub(super) const ROWS: &[Row] = &[
    Row::new("sort", -2, Group::Generic, sort)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::MOVABLEKEYS, Flags::DANGEROUS])
        .find_keys(sort_keys)
        .scope(Scope::Choose(scope))
        .docs("1.0.0", "The elements of a list, set or sorted set in order; shows or stores them."),
    Row::new("sort_ro", -2, Group::Generic, sort_ro)
        .flags(&[Flags::READONLY, Flags::MOVABLEKEYS, Flags::DANGEROUS])
        .keys(1, 1, 1)
        .scope(Scope::Choose(scope))
        .docs("7.0.0", "The elements of a list, set or sorted set in order."),
];

#[cfg(test)]
mod tests {
    use super::{Options, number};

    #[test]
    fn weights_are_read_as_c_reads_numbers() {
        assert_eq!(number(b""), Some(0.0));
        assert_eq!(number(b" \n2"), Some(2.0));
        assert_eq!(number(b"0x10"), Some(16.0));
        assert_eq!(number(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(number(b"5\0abc"), Some(5.0));
        for text in [&b" "[..], b"2 ", b"1e400", b"1e-400", b"nan", b"two"] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn one_pattern_without_a_star_is_enough_to_leave_the_order() {
        let is_unsorted = |line: &str| {
            let args: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            Options::parse(&args, true).is_ok_and(|options| options.is_unsorted)
        };
        assert!(is_unsorted("SORT k BY nosort BY w*"));
        assert!(is_unsorted("SORT k BY w* BY nosort"));
        assert!(!is_unsorted("SORT k BY w* BY v*"));
    }

    #[test]
    fn window_stays_within_the_elements() {
        let window = |offset, count| Options { offset, count, ..Options::default() }.window(5);
        assert_eq!(window(0, -1), 0..5);
        assert_eq!(window(-3, 2), 0..2);
        assert_eq!(window(3, 100), 3..5);
        assert_eq!(window(9, 1), 5..5);
        assert_eq!(window(1, i64::MAX), 1..5);
        assert_eq!(window(2, 0), 2..2);
    }
}
