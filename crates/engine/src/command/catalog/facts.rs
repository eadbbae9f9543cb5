//! Reads `facts.txt`, once.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Where a search for keys begins.
pub(super) enum Begin {
    Index(i64),
    Keyword(&'static str, i64),
    Unknown,
}

/// How keys are found from there.
pub(super) enum Find {
    Range { last: i64, step: i64, limit: i64 },
    Count { count_at: i64, first: i64, step: i64 },
    Unknown,
}

/// How some of the keys of a command are found, and what it does to them.
pub(super) struct KeySpec {
    pub(super) flags: Vec<&'static str>,
    pub(super) begin: Begin,
    pub(super) find: Find,
    /// What there is to say for people.
    pub(super) note: Option<&'static str>,
}

impl KeySpec {
    /// Whether this is about keys at all, and not about channels that lie where keys do.
    pub(super) fn is_about_keys(&self) -> bool {
        !self.flags.contains(&"not_key")
    }
}

#[derive(Default)]
struct Facts {
    tips: Vec<&'static str>,
    keys: Vec<KeySpec>,
}

static FACTS: LazyLock<HashMap<&'static str, Facts>> = LazyLock::new(|| {
    let mut facts: HashMap<&'static str, Facts> = HashMap::new();
    for line in include_str!("facts.txt").lines().filter(|line| !line.starts_with('#')) {
        let (name, fact) = line.split_once(": ").expect("a line of facts.txt has a name");
        let of_command = facts.entry(name).or_default();
        match fact.split_once(' ').expect("a fact is a word and its contents") {
            ("tip", tip) => of_command.tips.push(tip),
            (_, keys) => of_command.keys.push(key_spec(keys)),
        }
    }
    facts
});

/// What clients of clusters need to know besides the keys.
pub(super) fn tips(name: &str) -> &'static [&'static str] {
    FACTS.get(name).map_or(&[], |facts| &facts.tips)
}

pub(super) fn keys(name: &str) -> &'static [KeySpec] {
    FACTS.get(name).map_or(&[], |facts| &facts.keys)
}

fn key_spec(text: &'static str) -> KeySpec {
    let mut parts = text.splitn(4, ", ");
    let mut words = || parts.next().map(|part| part.split(' ').collect::<Vec<_>>()).unwrap_or_default();
    let (flags, begin, find) = (words(), words(), words());
    let number = |text: &str| text.parse().expect("positions are numbers");
    let begin = match begin[..] {
        ["index", position] => Begin::Index(number(position)),
        ["keyword", word, from] => Begin::Keyword(word, number(from)),
        _ => Begin::Unknown,
    };
    let find = match find[..] {
        ["range", last, step, limit] => Find::Range { last: number(last), step: number(step), limit: number(limit) },
        ["keynum", count_at, first, step] => {
            Find::Count { count_at: number(count_at), first: number(first), step: number(step) }
        }
        _ => Find::Unknown,
    };
    KeySpec { flags, begin, find, note: parts.next() }
}

#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    FACTS.keys().copied().collect()
}
