//! Settings as a tree in which every value knows where it was made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::error::{ConfigError, Origin};
use crate::config::secret::is_secret_key;

/// A value and its origin.
#[derive(Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// `None` for what was made in code and for the root.
    pub(crate) origin: Option<Origin>,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    Table(Table),
    Array(Vec<Node>),
    String(String),
    /// A secret that is read from this file when it is needed, so that one that is overridden need not exist.
    InFile(PathBuf),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// Entries in the order of their file, so that the first fault in it is the one that is reported.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Table(pub(crate) Vec<(String, Node)>);

/// Where each value of a tree was made, by its key with all tables.
pub(crate) type Origins = BTreeMap<String, Origin>;

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(crate) fn insert(&mut self, key: &str, node: Node) {
        match self.get_mut(key) {
            Some(place) => *place = node,
            None => self.0.push((key.to_owned(), node)),
        }
    }
}

impl Node {
    pub(crate) fn table() -> Self {
        Self { value: Value::Table(Table::default()), origin: None }
    }

    /// The node at `path` from here.
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        path.split('.').filter(|segment| !segment.is_empty()).try_fold(self, |node, segment| match &node.value {
            Value::Table(table) => table.get(segment),
            _ => None,
        })
    }

    /// A scalar as text, to hide it where an error quotes it.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::String(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Collects the origins of this node, which is at `path`, and of all below.
    pub(crate) fn collect_origins(&self, path: &str, origins: &mut Origins) {
        if let Some(origin) = &self.origin {
            origins.insert(path.to_owned(), origin.clone());
        }
        match &self.value {
            Value::Table(table) => {
                table.0.iter().for_each(|(key, node)| node.collect_origins(&join(path, key), origins));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, item)| item.collect_origins(&join_index(path, at), origins));
            }
            _ => {}
        }
    }

    /// A tree from a plain value, which is at `path`, with the origins that are known.
    pub(crate) fn from_value(value: &toml::Value, path: &str, origins: &Origins) -> Self {
        let value = match value {
            toml::Value::Table(table) => return Self::from_table(table, path, origins),
            toml::Value::Array(items) => {
                let items = items.iter().enumerate();
                Value::Array(items.map(|(at, item)| Self::from_value(item, &join_index(path, at), origins)).collect())
            }
            toml::Value::String(text) => Value::String(text.clone()),
            toml::Value::Integer(number) => Value::Integer(*number),
            toml::Value::Float(number) => Value::Float(*number),
            toml::Value::Boolean(truth) => Value::Boolean(*truth),
            toml::Value::Datetime(moment) => Value::String(moment.to_string()),
        };
        Self { value, origin: origins.get(path).cloned() }
    }

    pub(crate) fn from_table(table: &toml::Table, path: &str, origins: &Origins) -> Self {
        let entries = table.iter();
        let entries = entries.map(|(key, value)| (key.clone(), Self::from_value(value, &join(path, key), origins)));
        Self { value: Value::Table(Table(entries.collect())), origin: origins.get(path).cloned() }
    }
}

/// `tables.key`.
pub(crate) fn join(tables: &str, key: &str) -> String {
    if tables.is_empty() { key.to_owned() } else { format!("{tables}.{key}") }
}

/// `tables[at]`.
pub(crate) fn join_index(tables: &str, at: usize) -> String {
    format!("{tables}[{at}]")
}

/// The secret that a key of this name reads from a file: `password` for `password_file`.
pub(crate) fn file_key(key: &str) -> Option<&str> {
    key.strip_suffix("_file").filter(|secret| is_secret_key(secret))
}

/// Reads the text of a file that is called `name` in errors.
pub(crate) fn parse(name: &str, text: &str) -> Result<Node, ConfigError> {
    let parser = Parser { name: name.into(), text };
    let table = DeTable::parse(text).map_err(|error| {
        // Only the message: the error's own Display quotes the line, which may hold a secret.
        let message = error.message().to_owned();
        ConfigError::new(message).at("", error.span().map(|span| parser.origin(span.start)).as_ref())
    })?;
    let table = parser.table(table.into_inner(), "")?;
    Ok(Node { value: Value::Table(table), origin: None })
}

struct Parser<'a> {
    name: Arc<str>,
    text: &'a str,
}

impl Parser<'_> {
    fn origin(&self, byte: usize) -> Origin {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        Origin::File { name: self.name.clone(), line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
    }

    fn table(&self, table: DeTable<'_>, path: &str) -> Result<Table, ConfigError> {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut table = Table::default();
        for (key, value) in entries {
            let origin = self.origin(key.span().start);
            let name: &str = key.get_ref();
            let full = join(path, name);
            let node = Node { value: self.value(value, &full)?, origin: Some(origin.clone()) };
            let (name, node) = secret_from_file(name, node);
            if table.get(name).is_some() {
                let message = format!("both `{name}` and `{name}_file` are given; keep one");
                return Err(ConfigError::new(message).at(&full, Some(&origin)));
            }
            table.insert(name, node);
        }
        Ok(table)
    }

    fn value(&self, value: Spanned<DeValue<'_>>, path: &str) -> Result<Value, ConfigError> {
        let origin = self.origin(value.span().start);
        let error = |message: &str| ConfigError::new(message).at(path, Some(&origin));
        Ok(match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(number) => Value::Integer(
                i64::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| error("the number does not fit into 64 bits"))?,
            ),
            DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| error("this is not a number"))?),
            DeValue::Boolean(truth) => Value::Boolean(truth),
            DeValue::Datetime(moment) => Value::String(moment.to_string()),
            DeValue::Array(items) => Value::Array(self.items(items, path)?),
            DeValue::Table(table) => Value::Table(self.table(table, path)?),
        })
    }

    fn items<'i>(
        &self,
        items: impl IntoIterator<Item = Spanned<DeValue<'i>>>,
        path: &str,
    ) -> Result<Vec<Node>, ConfigError> {
        let items = items.into_iter().enumerate().map(|(at, item)| {
            let origin = Some(self.origin(item.span().start));
            Ok(Node { value: self.value(item, &join_index(path, at))?, origin })
        });
        items.collect()
    }
}

/// Turns `password_file = "path"` into `password`, to be read from that path.
fn secret_from_file(key: &str, node: Node) -> (&str, Node) {
    match (file_key(key), node) {
        (Some(secret), Node { value: Value::String(path), origin }) => {
            (secret, Node { value: Value::InFile(path.into()), origin })
        }
        (_, node) => (key, node),
    }
}
