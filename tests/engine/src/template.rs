//! A small language for commands with all their options.
//!
//! A template is a line of items between spaces:
//! - a word stands for itself, `{pool}` for something from a pool (see [`crate::pools`]), which may be several arguments;
//! - `(A|B x)` is one of several, `[A|B x]` is one of them or nothing;
//! - `<A [B] C>` are items in random order, now and then one of them twice;
//! - `+` after an item repeats it one to four times;
//! - `;;` begins a second command that always follows the first; `{=1}` there is the first one's argument 1;
//! - `!` in front: nothing of this may be distorted, since a slip could cost gigabytes or make the two servers diverge.
//!
//! Other templates are distorted now and then: an argument too few or too many, or one that makes no sense.

use crate::command::Command;
use crate::pools::{self, Pool};
use crate::random::Random;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    commands: Vec<Vec<Item>>,
    is_distorted: bool,
}

enum Item {
    Word(Vec<u8>),
    Pool(Pool),
    Same(usize),
    Choice { alternatives: Vec<Vec<Item>>, is_optional: bool },
    Shuffled(Vec<Item>),
    Repeated(Box<Item>),
}

/// How many of 100 commands have something wrong with them.
const DISTORTED_PERCENT: usize = 6;
const ODD_CASE_PERCENT: usize = 10;
const TWICE_PERCENT: usize = 4;
const REPEATS_MAX: usize = 4;

impl Template {
    /// Reads a template.
    ///
    /// # Panics
    /// The line is no template. Lines are constants, so the first run of any test finds it.
    pub fn new(line: &str) -> Self {
        let (is_distorted, line) = line.strip_prefix("! ").map_or((true, line), |line| (false, line));
        let commands: Vec<_> = line
            .split(" ;; ")
            .map(|command| {
                let mut rest = command.trim();
                let items = parse_items(&mut rest, line);
                assert!(rest.is_empty(), "`{rest}` is left over in the template `{line}`");
                items
            })
            .collect();
        Self { is_distorted: is_distorted && commands.len() == 1, commands }
    }

    /// Whether this is one command without a glued companion.
    pub fn is_single(&self) -> bool {
        self.commands.len() == 1
    }

    /// Whether time passes in between, so that a key expires.
    pub fn lets_time_pass(&self) -> bool {
        self.commands.iter().any(|items| matches!(items.first(), Some(Item::Word(word)) if word == b"DEBUG"))
    }

    /// Makes one command, or several glued ones.
    pub fn generate(&self, random: &mut Random) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        for items in &self.commands {
            let mut arguments = Vec::new();
            let first = commands.first().map_or(&[][..], |command| &command.arguments);
            let mut expansion = Expansion { is_odd_case: random.percent(ODD_CASE_PERCENT), first, out: &mut arguments };
            items.iter().for_each(|item| expansion.item(item, random));
            if self.is_distorted && random.percent(DISTORTED_PERCENT) {
                distort(&mut arguments, random);
            }
            commands.push(Command { is_glued: !commands.is_empty(), ..Command::new(arguments) });
        }
        commands
    }
}

struct Expansion<'a> {
    is_odd_case: bool,
    first: &'a [Vec<u8>],
    out: &'a mut Vec<Vec<u8>>,
}

impl Expansion<'_> {
    fn item(&mut self, item: &Item, random: &mut Random) {
        match item {
            Item::Word(word) if self.is_odd_case => self.out.push(odd_case(word, random)),
            Item::Word(word) => self.out.push(word.clone()),
            Item::Pool(pool) => pool(random, self.out),
            Item::Same(index) => self.out.push(self.first[*index].clone()),
            Item::Choice { is_optional: true, .. } if random.percent(50) => {}
            Item::Choice { alternatives, .. } => {
                random.pick(alternatives).iter().for_each(|item| self.item(item, random));
            }
            Item::Shuffled(items) => {
                let mut order: Vec<&Item> = items.iter().collect();
                if random.percent(TWICE_PERCENT) {
                    order.push(random.pick(items));
                }
                random.shuffle(&mut order);
                order.into_iter().for_each(|item| self.item(item, random));
            }
            Item::Repeated(item) => (0..=random.below(REPEATS_MAX)).for_each(|_| self.item(item, random)),
        }
    }
}

fn odd_case(word: &[u8], random: &mut Random) -> Vec<u8> {
    word.iter().map(|byte| if random.percent(50) { byte.to_ascii_lowercase() } else { *byte }).collect()
}

/// Does something to the arguments that makes no sense. The name stays.
fn distort(arguments: &mut Vec<Vec<u8>>, random: &mut Random) {
    let index = 1 + random.below(arguments.len().max(2) - 1);
    match random.below(5) {
        0 if arguments.len() > 1 => drop(arguments.pop()),
        1 if arguments.len() > 1 => arguments.truncate(index),
        2 => arguments.push(pools::senseless(random)),
        3 if arguments.len() > 1 => arguments.insert(index, arguments[index].clone()),
        _ if arguments.len() > 1 => arguments[index] = pools::senseless(random),
        _ => arguments.push(pools::senseless(random)),
    }
}

/// Reads items up to the end, or up to a character that closes or separates alternatives.
fn parse_items(rest: &mut &str, line: &str) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with(['|', ')', ']', '>']) {
            return items;
        }
        let mut item = parse_item(rest, line);
        if let Some(after) = rest.strip_prefix('+') {
            item = Item::Repeated(Box::new(item));
            *rest = after;
        }
        items.push(item);
    }
}

fn parse_item(rest: &mut &str, line: &str) -> Item {
    let opening = rest.chars().next().unwrap_or(' ');
    let mut inside = &rest[1..];
    match opening {
        '(' | '[' => {
            let mut alternatives = vec![parse_items(&mut inside, line)];
            while let Some(after) = inside.strip_prefix('|') {
                inside = after;
                alternatives.push(parse_items(&mut inside, line));
            }
            *rest = closed(inside, if opening == '(' { ')' } else { ']' }, line);
            Item::Choice { alternatives, is_optional: opening == '[' }
        }
        '<' => {
            let items = parse_items(&mut inside, line);
            *rest = closed(inside, '>', line);
            Item::Shuffled(items)
        }
        '{' => {
            let (name, after) = inside.split_once('}').unwrap_or_else(|| panic!("no `}}` in the template `{line}`"));
            *rest = after;
            match name.strip_prefix('=') {
                Some(index) => Item::Same(index.parse().expect("a number follows `=`")),
                None => Item::Pool(pools::find(name).unwrap_or_else(|| panic!("no pool `{name}`, in `{line}`"))),
            }
        }
        _ => {
            let end = rest.find([' ', '|', ')', ']', '>']).unwrap_or(rest.len());
            let word = rest[..end].into();
            *rest = &rest[end..];
            Item::Word(word)
        }
    }
}

fn closed<'a>(rest: &'a str, closing: char, line: &str) -> &'a str {
    rest.strip_prefix(closing).unwrap_or_else(|| panic!("no `{closing}` in the template `{line}`"))
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Template;
    use crate::random::Random;

    fn lines(template: &str) -> BTreeSet<String> {
        let template = Template::new(template);
        let mut random = Random::new(3);
        let lines = (0..3000).map(|_| {
            template
                .generate(&mut random)
                .iter()
                .map(|command| command.to_string().to_uppercase())
                .collect::<Vec<_>>()
                .join(" ;; ")
        });
        lines.collect()
    }

    #[test]
    fn options_come_in_all_combinations_and_orders() {
        let lines = lines("! SET k <[NX|XX] GET>");
        for line in ["SET K GET", "SET K GET NX", "SET K NX GET", "SET K XX GET", "SET K GET NX GET"] {
            assert!(lines.contains(line), "{line} is missing in {lines:?}");
        }
    }

    #[test]
    fn a_companion_names_the_same_key() {
        assert_eq!(
            lines("SPOP x (1|2) ;; DEL {=1}"),
            ["SPOP X 1 ;; +DEL X", "SPOP X 2 ;; +DEL X"].map(str::to_owned).into()
        );
    }

    #[test]
    fn commands_are_distorted_unless_that_is_excluded() {
        assert!(lines("GET k").contains("GET"));
        assert_eq!(lines("! GET k"), ["GET K".to_owned()].into());
    }
}
