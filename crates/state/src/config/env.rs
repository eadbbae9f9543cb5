//! Settings from environment variables: `ACTEON__STATE__URL` is `url` in `[state]`.
//!
//! Two underscores go down one table; one belongs to the name, so `ACTEON__STATE__TABLE_NAME` is `state.table_name`. A
//! number chooses an entry of an array of tables, counted from 0: `ACTEON__PROVIDERS__0__TIMEOUT`. A secret may come from a
//! file: `ACTEON__STATE__URL_FILE` names a file that holds the URL.
//!
//! Every variable with the prefix must be a setting: what is misspelt is found when the settings are read.

use std::sync::Arc;

use crate::config::error::{ConfigError, Origin};
use crate::config::node::{Node, Table, Value, file_key};

/// What the names of our variables begin with.
pub const ENV_PREFIX: &str = "ACTEON__";

/// Sets what the variable says, if it is one of ours.
pub(crate) fn overlay(root: &mut Node, variable: &str, text: &str) -> Result<(), ConfigError> {
    let Some(path) = variable.strip_prefix(ENV_PREFIX) else {
        return Ok(());
    };
    let origin = Origin::Env(Arc::from(variable));
    let path = path.to_ascii_lowercase();
    let segments: Vec<&str> = path.split("__").collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        let message = "a name between two underscores is missing; write ACTEON__TABLE__KEY";
        return Err(ConfigError::new(message).at("", Some(&origin)));
    }
    let (key, tables) = segments.split_last().unwrap_or((&"", &[]));
    let (key, value) = match file_key(key) {
        Some(secret) => (secret, Value::InFile(text.into())),
        None => (*key, Value::String(text.to_owned())),
    };
    let node = Node { value, origin: Some(origin) };
    set(root, tables, key, node).map_err(|error| error.at(&segments.join("."), None))
}

/// Puts `node` at `key` below `tables`, which are made where they are missing.
pub(crate) fn set(root: &mut Node, tables: &[&str], key: &str, node: Node) -> Result<(), ConfigError> {
    let origin = node.origin.clone();
    let Some((first, rest)) = tables.split_first() else {
        return put(root, key, node);
    };
    let placed = |message: String| ConfigError::new(message).at("", origin.as_ref());
    let inner = match &mut root.value {
        Value::Table(table) => {
            let name = spelling(table, first);
            if table.get(&name).is_none() {
                table.insert(&name, Node { value: Value::Table(Table::default()), origin: origin.clone() });
            }
            table.get_mut(&name)
        }
        Value::Array(items) => {
            let count = items.len();
            let at = first.parse::<usize>().ok();
            let item = at.and_then(|at| items.get_mut(at));
            Some(
                item.ok_or_else(|| placed(format!("there is no entry {first}: the list has {count}, counted from 0")))?,
            )
        }
        _ => None,
    };
    let inner =
        inner.ok_or_else(|| placed(format!("`{first}` cannot be set: what it is in is a value, not a table")))?;
    set(inner, rest, key, node)
}

fn put(parent: &mut Node, key: &str, node: Node) -> Result<(), ConfigError> {
    let Value::Table(table) = &mut parent.value else {
        let message = format!("`{key}` cannot be set: what it is in is a value, not a table");
        return Err(ConfigError::new(message).at("", node.origin.as_ref()));
    };
    let name = spelling(table, key);
    if let (Some(Node { origin: Some(Origin::Env(earlier)), .. }), Some(origin @ Origin::Env(_))) =
        (table.get(&name), &node.origin)
    {
        let message = format!("{earlier} sets the same key; keep one");
        return Err(ConfigError::new(message).at("", Some(origin)));
    }
    table.insert(&name, node);
    Ok(())
}

/// Variables are in upper case: an existing key is found in whatever case it is written.
fn spelling(table: &Table, key: &str) -> String {
    let existing = table.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    existing.map_or_else(|| key.to_owned(), |(name, _)| name.clone())
}
