//! Reads `docs.txt`, once.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What COMMAND DOCS says of a command beyond its row.
#[derive(Default)]
pub(super) struct Docs {
    pub(super) complexity: Option<&'static str>,
    /// Whether it is of use only to the server itself and its tests.
    pub(super) is_syscmd: bool,
    /// The version that gave it up, and what to use instead.
    pub(super) deprecated: Option<(&'static str, &'static str)>,
    /// Versions, and what they changed.
    pub(super) history: Vec<(&'static str, &'static str)>,
    pub(super) arguments: Vec<Argument>,
}

/// One argument, or a group of them.
pub(super) struct Argument {
    /// By Redis's names: `key`, `string`, `oneof`, `block` and so on.
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    /// Which key specification finds it.
    pub(super) key_spec: Option<i64>,
    /// The word in front of it.
    pub(super) token: Option<&'static str>,
    pub(super) since: Option<&'static str>,
    pub(super) deprecated_since: Option<&'static str>,
    pub(super) is_optional: bool,
    pub(super) is_multiple: bool,
    /// Whether each further one comes with its word.
    pub(super) repeats_token: bool,
    /// What a group consists of.
    pub(super) parts: Vec<Argument>,
}

const TEXT: &str = include_str!("docs.txt");

static DOCS: LazyLock<HashMap<&'static str, Docs>> = LazyLock::new(|| {
    let mut docs: HashMap<&'static str, Docs> = HashMap::new();
    for line in lines() {
        // Each line can be read: a test reads them all.
        let _ = add(&mut docs, line);
    }
    docs
});

/// What there is to say of a command.
pub(super) fn of(name: &str) -> Option<&'static Docs> {
    DOCS.get(name)
}

fn lines() -> impl Iterator<Item = &'static str> {
    TEXT.lines().filter(|line| !line.starts_with('#'))
}

/// Adds what a line says; `None` if it says nothing.
fn add(docs: &mut HashMap<&'static str, Docs>, line: &'static str) -> Option<()> {
    let (name, fact) = line.split_once(": ")?;
    let (word, rest) = fact.split_once(' ').unwrap_or((fact, ""));
    let of_command = docs.entry(name).or_default();
    match word {
        "complexity" => of_command.complexity = Some(rest),
        "syscmd" => of_command.is_syscmd = true,
        "deprecated" => of_command.deprecated = Some(rest.split_once(' ')?),
        "history" => of_command.history.push(rest.split_once(' ')?),
        "arguments" => {
            let mut reader = Reader { rest };
            of_command.arguments = reader.arguments()?;
            return reader.rest.is_empty().then_some(());
        }
        _ => return None,
    }
    Some(())
}

/// What is left to read of the arguments of a command.
struct Reader {
    rest: &'static str,
}

impl Reader {
    /// Whatever ends a name, a word or a version.
    const MARKS: &'static [char] = &['@', '=', '^', '~', '?', '*', '+', '(', ')', ' '];

    /// Arguments between spaces, up to a closing parenthesis or the end.
    fn arguments(&mut self) -> Option<Vec<Argument>> {
        let mut arguments = vec![self.argument()?];
        while self.takes(' ') {
            arguments.push(self.argument()?);
        }
        Some(arguments)
    }

    fn argument(&mut self) -> Option<Argument> {
        let kind = self.text_before(':')?;
        let argument = Argument {
            kind,
            name: self.text(),
            key_spec: self.marked('@').map(str::parse).transpose().ok()?,
            token: self.marked('='),
            since: self.marked('^'),
            deprecated_since: self.marked('~'),
            is_optional: self.takes('?'),
            is_multiple: self.takes('*'),
            repeats_token: self.takes('+'),
            parts: if self.takes('(') { self.parts()? } else { Vec::new() },
        };
        Some(argument)
    }

    fn parts(&mut self) -> Option<Vec<Argument>> {
        let parts = self.arguments()?;
        self.takes(')').then_some(parts)
    }

    fn marked(&mut self, mark: char) -> Option<&'static str> {
        self.takes(mark).then(|| self.text())
    }

    fn text(&mut self) -> &'static str {
        let (text, rest) = self.rest.split_at(self.rest.find(Self::MARKS).unwrap_or(self.rest.len()));
        self.rest = rest;
        text
    }

    /// A text without marks that ends in `end`.
    fn text_before(&mut self, end: char) -> Option<&'static str> {
        let (text, rest) = self.rest.split_once(end).filter(|(text, _)| !text.contains(Self::MARKS))?;
        self.rest = rest;
        Some(text)
    }

    fn takes(&mut self, mark: char) -> bool {
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{add, lines, of};
    use crate::command::{Command, all};

    #[test]
    fn every_line_can_be_read_and_is_about_a_command_that_exists() {
        let mut docs = HashMap::new();
        for line in lines() {
            assert!(add(&mut docs, line).is_some(), "{line}");
        }
        for name in docs.keys() {
            assert!(all().any(|command| command.full_name() == *name), "{name} is in docs.txt, and has no row");
        }
    }

    #[test]
    fn every_command_that_takes_arguments_has_them_described() {
        let takes_some = |command: &&Command| {
            let words = if command.container.is_some() { 2 } else { 1 };
            command.row.subcommands.is_empty() && command.row.arity.abs() > words
        };
        let lacks_docs = |name: &String| of(name).is_none_or(|docs| !docs.is_syscmd && docs.arguments.is_empty());
        let lacking: Vec<_> = all().filter(takes_some).map(Command::full_name).filter(lacks_docs).collect();
        // Nor does Redis describe these.
        assert_eq!(lacking, ["command|getkeys", "command|getkeysandflags"]);
    }

    #[test]
    fn an_argument_has_what_its_marks_say() {
        let get = &of("sort").expect("it is described").arguments[3];
        assert_eq!((get.kind, get.name, get.token), ("pattern", "pattern", Some("GET")));
        assert!(get.is_optional && get.is_multiple && get.repeats_token);
        let expiration = &of("set").expect("it is described").arguments[4];
        assert_eq!(expiration.parts[2].since, Some("6.2.0"));
        assert_eq!(expiration.parts[2].name, "unix-time-seconds");
    }

    #[test]
    fn what_is_no_argument_is_refused() {
        for text in ["string", "block:a(", "block:a(string:b", "string:a)", "key:k@x", "string:a  string:b"] {
            let line: &'static str = format!("get: arguments {text}").leak();
            assert!(add(&mut HashMap::new(), line).is_none(), "{text}");
        }
    }
}
