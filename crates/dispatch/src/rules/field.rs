//! Names a part of an action, for conditions and keys.
//!
//! # What it promises
//! A field is one of `id`, `namespace`, `tenant`, `provider`, `action_type`, `dedup_key`, `metadata.KEY` (everything
//! after the first dot is the key) and `payload`, alone or followed by a path: `payload.user.email`. A path segment
//! names an entry of an object; on an array it must be a decimal index, counted from 0: `payload.items.0.sku`. A dot
//! or backslash inside a name is written `\.` or `\\`.
//!
//! # Failure
//! Looking up what is not there gives `None`; it is not an error. `null` in the payload is there.

use std::fmt;

use serde_json::Value;

use crate::action::Action;
use crate::rules::suggest::suggestion;

/// Longest written form of a field, in bytes: far beyond any path that a person writes.
pub const FIELD_BYTES_MAX: usize = 512;
/// Most segments of a payload path. Payloads are at most 32 deep.
pub const PATH_SEGMENTS_MAX: usize = 32;

const PLAIN_FIELDS: &[&str] =
    &["id", "namespace", "tenant", "provider", "action_type", "dedup_key", "metadata.KEY", "payload", "payload.PATH"];

/// A part of an action, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    written: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Id,
    Namespace,
    Tenant,
    Provider,
    ActionType,
    DedupKey,
    Metadata(String),
    Payload(Vec<String>),
}

/// The names of an action: fields that every action has, and that are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    ActionType,
    Provider,
    Tenant,
    Namespace,
}

impl Name {
    /// All of them, each at the position of its number.
    pub(super) const ALL: [Self; 4] = [Self::ActionType, Self::Provider, Self::Tenant, Self::Namespace];

    pub(super) fn look_up(self, action: &Action) -> &str {
        match self {
            Self::ActionType => &action.action_type,
            Self::Provider => &action.provider,
            Self::Tenant => &action.tenant,
            Self::Namespace => &action.namespace,
        }
    }
}

/// What a field holds. A string in the payload is [`Seen::Text`], like any other text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen<'a> {
    /// A string.
    Text(&'a str),
    /// Any JSON but a string.
    Json(&'a Value),
}

impl Field {
    /// Parses the written form.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is allowed.
    pub fn parse(written: &str) -> Result<Self, String> {
        if written.len() > FIELD_BYTES_MAX {
            return Err(format!("field is {} bytes long; at most {FIELD_BYTES_MAX}", written.len()));
        }
        let place = match written.split_once('.') {
            None => plain(written)?,
            Some(("metadata", "")) => return Err("`metadata.` lacks the key: metadata.KEY".into()),
            Some(("metadata", key)) => Place::Metadata(key.to_owned()),
            Some(("payload", path)) => Place::Payload(segments(path)?),
            Some(_) => return Err(unknown(written)),
        };
        Ok(Self { written: written.to_owned(), place })
    }

    /// The name that the field is, if it is one.
    pub(super) fn as_name(&self) -> Option<Name> {
        match &self.place {
            Place::Namespace => Some(Name::Namespace),
            Place::Tenant => Some(Name::Tenant),
            Place::Provider => Some(Name::Provider),
            Place::ActionType => Some(Name::ActionType),
            Place::Id | Place::DedupKey | Place::Metadata(_) | Place::Payload(_) => None,
        }
    }

    /// Looks the field up; `None` when the action has no such thing.
    #[must_use]
    pub fn look_up<'a>(&self, action: &'a Action) -> Option<Seen<'a>> {
        match &self.place {
            Place::Id => Some(Seen::Text(&action.id)),
            Place::Namespace => Some(Seen::Text(&action.namespace)),
            Place::Tenant => Some(Seen::Text(&action.tenant)),
            Place::Provider => Some(Seen::Text(&action.provider)),
            Place::ActionType => Some(Seen::Text(&action.action_type)),
            Place::DedupKey => action.dedup_key.as_deref().map(Seen::Text),
            Place::Metadata(key) => action.metadata.get(key).map(|text| Seen::Text(text)),
            Place::Payload(path) => walk(&action.payload, path).map(Seen::from),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl<'a> From<&'a Value> for Seen<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Seen::Text(text),
            other => Seen::Json(other),
        }
    }
}

fn plain(written: &str) -> Result<Place, String> {
    Ok(match written {
        "id" => Place::Id,
        "namespace" => Place::Namespace,
        "tenant" => Place::Tenant,
        "provider" => Place::Provider,
        "action_type" => Place::ActionType,
        "dedup_key" => Place::DedupKey,
        "payload" => Place::Payload(Vec::new()),
        "metadata" => return Err("`metadata` needs a key: metadata.KEY".into()),
        _ => return Err(unknown(written)),
    })
}

fn unknown(written: &str) -> String {
    format!("unknown field `{written}`{}; allowed: {}", suggestion(written, PLAIN_FIELDS), PLAIN_FIELDS.join(", "))
}

/// Splits at dots that no backslash precedes, and takes the backslashes away.
fn segments(path: &str) -> Result<Vec<String>, String> {
    let mut segments = vec![String::new()];
    let mut chars = path.chars();
    while let Some(char) = chars.next() {
        let last = segments.len() - 1;
        match char {
            '.' => segments.push(String::new()),
            '\\' => match chars.next() {
                Some(escaped @ ('.' | '\\')) => segments[last].push(escaped),
                _ => return Err(format!("in `payload.{path}` a backslash must be followed by `.` or `\\`")),
            },
            other => segments[last].push(other),
        }
    }
    if segments.iter().any(String::is_empty) {
        return Err(format!("`payload.{path}` has an empty path segment"));
    }
    if segments.len() > PATH_SEGMENTS_MAX {
        return Err(format!("`payload.{path}` has more than {PATH_SEGMENTS_MAX} segments"));
    }
    Ok(segments)
}

fn walk<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match value {
        Value::Object(entries) => entries.get(segment),
        Value::Array(items) => items.get(array_index(segment)?),
        _ => None,
    })
}

/// Digits only: `usize::from_str` would also take `+1`, and then two written forms would name one element.
fn array_index(segment: &str) -> Option<usize> {
    if !segment.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    segment.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Field, Seen};
    use crate::action::Action;

    fn look_up(written: &str) -> Option<String> {
        let payload = json!({"user": {"email": "a@b"}, "items": [{"sku": 7}], "a.b": true, "none": null, "0": "zero"});
        let mut action = Action::new("demo", "acme", "log", "greet", payload);
        action.metadata.insert("trace.id".into(), "t1".into());
        match Field::parse(written).expect(written).look_up(&action)? {
            Seen::Text(text) => Some(text.to_owned()),
            Seen::Json(value) => Some(value.to_string()),
        }
    }

    #[test]
    fn fields_reach_every_part_of_an_action() {
        assert_eq!(look_up("tenant").as_deref(), Some("acme"));
        assert_eq!(look_up("action_type").as_deref(), Some("greet"));
        assert_eq!(look_up("metadata.trace.id").as_deref(), Some("t1"));
        assert_eq!(look_up("payload.user.email").as_deref(), Some("a@b"));
        assert_eq!(look_up("payload.items.0.sku").as_deref(), Some("7"));
        assert_eq!(look_up("payload.0").as_deref(), Some("zero"));
        assert_eq!(look_up(r"payload.a\.b").as_deref(), Some("true"));
        assert_eq!(look_up("payload.none").as_deref(), Some("null"));
    }

    #[test]
    fn what_is_not_there_is_absent() {
        for written in
            ["dedup_key", "metadata.x", "payload.x", "payload.items.1", "payload.items.+0", "payload.user.email.x"]
        {
            assert_eq!(look_up(written), None, "{written}");
        }
    }

    #[test]
    fn wrong_fields_are_explained() {
        for (written, part) in [
            ("tennant", "did you mean `tenant`"),
            ("metadata", "metadata.KEY"),
            ("metadata.", "metadata.KEY"),
            ("payload.", "empty path segment"),
            ("payload.a..b", "empty path segment"),
            (r"payload.a\x", "backslash"),
            ("user.email", "unknown field"),
        ] {
            let error = Field::parse(written).expect_err(written);
            assert!(error.contains(part), "{error}");
        }
    }
}
